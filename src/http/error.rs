//! The one map from errors to answers.
//!
//! Each error has a status, a stable code and a sentence for a person. What was really wrong (a path, a library's
//! text) is not for the client: it goes to the log, once, under the request's id (see [`super::edge`]).

use std::sync::Arc;

use axum::response::{IntoResponse, Response};
use http::{HeaderName, HeaderValue, StatusCode, header};
use hyper::ext::ReasonPhrase;
use serde_json::{Map, Value};

use super::multipart::MultipartError;
use super::options::OptionError;
use super::resumable::{InvalidField, UPLOAD_OFFSET};
use crate::domain::InvalidFileName;
use crate::services::access::AccessError;
use crate::services::downloads::DownloadError;
use crate::services::resumable::{Broken, ResumableError};
use crate::services::uploads::UploadError;
use crate::store::status::Condition;

/// An error as a client is told it. [`super::edge`] makes the body of it.
#[derive(Debug, Clone)]
pub(super) struct ApiError {
    pub(super) status: StatusCode,
    pub(super) code: &'static str,
    pub(super) message: String,
    /// Members of its own in the body.
    pub(super) members: Map<String, Value>,
    pub(super) headers: Vec<(HeaderName, HeaderValue)>,
    /// For the log only.
    pub(super) cause: Option<String>,
}

/// A status of tus's own ("Checksum"), whose name no table has.
const TUS_CHECKSUM_MISMATCH: u16 = 460;

/// Seconds after which it is worth asking again whether there is room for one more upload.
const TRY_AGAIN: &str = "60";

impl ApiError {
    pub(super) fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        Self { status, code, message: message.into(), members: Map::new(), headers: Vec::new(), cause: None }
    }

    pub(super) fn bad_request(code: &'static str, message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, code, message)
    }

    pub(super) fn with(mut self, member: &str, value: impl Into<Value>) -> Self {
        self.members.insert(member.to_owned(), value.into());
        self
    }

    pub(super) fn header(mut self, name: HeaderName, value: &str) -> Self {
        if let Ok(value) = HeaderValue::from_str(value) {
            self.headers.push((name, value));
        }
        self
    }

    /// The same with the status that tus has for a body that differs from its checksum.
    pub(super) fn tus_checksum_mismatch(mut self) -> Self {
        self.status = StatusCode::from_u16(TUS_CHECKSUM_MISMATCH).unwrap_or(self.status);
        self
    }

    /// The same as problem details (RFC 9457): with a type beside our own members.
    pub(super) fn problem(self, registry: &str, name: &str, title: &str) -> Self {
        self.with("type", format!("{registry}{name}")).with("title", title)
    }

    /// Problem details have a media type of their own.
    pub(super) fn media_type(&self) -> HeaderValue {
        let is_problem = self.members.contains_key("type");
        HeaderValue::from_static(if is_problem { "application/problem+json" } else { "application/json" })
    }

    fn because(mut self, cause: impl Into<String>) -> Self {
        self.cause = Some(cause.into());
        self
    }

    pub(super) fn unknown_path() -> Self {
        Self::new(StatusCode::NOT_FOUND, "unknown_path", "there is nothing at this path")
    }

    pub(super) fn method_not_allowed() -> Self {
        Self::new(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", "this path does not take this method")
    }

    pub(super) fn unsupported_media_type(takes: &str) -> Self {
        let message = format!("this path takes {takes}");
        Self::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type", message)
    }

    pub(super) fn panicked(cause: impl Into<String>) -> Self {
        Self::internal().because(cause)
    }

    pub(super) fn internal() -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "internal_error", "something went wrong in the server")
    }

    pub(super) fn timed_out() -> Self {
        Self::new(StatusCode::REQUEST_TIMEOUT, "request_timeout", "nothing came for too long")
    }

    pub(super) fn broken_body(cause: impl Into<String>) -> Self {
        Self::bad_request("incomplete_body", "the request ended before its body was complete").because(cause)
    }

    pub(super) fn range_not_satisfiable(length: u64) -> Self {
        let message = format!("the file has {length} bytes; none of the ranges lies within");
        Self::new(StatusCode::RANGE_NOT_SATISFIABLE, "range_not_satisfiable", message)
            .with("size", length)
            .header(header::CONTENT_RANGE, &format!("bytes */{length}"))
    }

    pub(super) fn precondition_failed() -> Self {
        let message = "the file is not, or no longer, what the request's conditions ask for";
        Self::new(StatusCode::PRECONDITION_FAILED, "precondition_failed", message)
    }

    /// The client goes on from elsewhere than what is there: it is told from where.
    pub(super) fn offset_mismatch(expected: u64, provided: u64) -> Self {
        let message = format!("the upload goes on at {expected}, not at {provided}");
        Self::new(StatusCode::CONFLICT, "offset_mismatch", message)
            .with("expected_offset", expected)
            .with("provided_offset", provided)
            .with("received_bytes", expected)
            .header(UPLOAD_OFFSET, &expected.to_string())
    }

    pub(super) fn no_such_file(filename: &str) -> Self {
        Self::new(StatusCode::NOT_FOUND, "not_found", format!("there is no file {filename:?}"))
            .with("filename", filename)
    }

    pub(super) fn no_such_transfer(filename: &str) -> Self {
        let message = format!("no transfer of {filename:?} is known");
        Self::new(StatusCode::NOT_FOUND, "not_found", message).with("filename", filename)
    }

    pub(super) fn download(error: &DownloadError, filename: &str) -> Self {
        match error {
            DownloadError::NotFound => Self::no_such_file(filename),
            DownloadError::Decryption(cause) => {
                let message = format!(
                    "{filename:?} can't be decrypted: it is damaged, was tampered with, or its key is not there"
                );
                Self::new(StatusCode::INTERNAL_SERVER_ERROR, "decryption_failed", message)
                    .with("filename", filename)
                    .because(cause)
            }
            DownloadError::Storage(cause) => storage_failed(cause),
        }
    }
}

fn storage_failed(cause: &str) -> ApiError {
    let message = "the server's storage failed";
    ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, "storage_failed", message).because(cause)
}

impl From<InvalidFileName> for ApiError {
    fn from(error: InvalidFileName) -> Self {
        Self::bad_request("invalid_filename", error.to_string())
    }
}

impl From<AccessError> for ApiError {
    fn from(error: AccessError) -> Self {
        match error {
            AccessError::Required => {
                Self::new(StatusCode::UNAUTHORIZED, "api_key_required", error.to_string())
                    .header(header::WWW_AUTHENTICATE, "Bearer realm=\"sft\"")
            }
            AccessError::Invalid => Self::new(StatusCode::FORBIDDEN, "invalid_api_key", error.to_string()),
        }
    }
}

impl From<OptionError> for ApiError {
    fn from(error: OptionError) -> Self {
        Self::bad_request(error.code(), error.to_string())
    }
}

impl From<UploadError> for ApiError {
    fn from(error: UploadError) -> Self {
        let message = error.to_string();
        match error {
            UploadError::TooLarge { limit } => {
                Self::new(StatusCode::PAYLOAD_TOO_LARGE, "file_too_large", message).with("max_size", limit)
            }
            UploadError::ChecksumMismatch { expected, actual } => {
                Self::new(StatusCode::UNPROCESSABLE_ENTITY, "checksum_mismatch", message)
                    .with("expected", expected.to_string())
                    .with("actual", actual.to_string())
            }
            UploadError::Condition(Condition::New) => {
                Self::new(StatusCode::CONFLICT, "already_exists", "a file of this name exists")
            }
            UploadError::Condition(Condition::Any | Condition::Matches(_) | Condition::MatchesNone(_)) => {
                Self::precondition_failed()
            }
            UploadError::NameTaken => Self::new(StatusCode::CONFLICT, "name_taken", message),
            UploadError::Incomplete(cause) => Self::broken_body(cause),
            UploadError::Full => Self::new(StatusCode::INSUFFICIENT_STORAGE, "storage_full", message),
            UploadError::Storage(cause) => storage_failed(&cause),
        }
    }
}

impl From<ResumableError> for ApiError {
    fn from(error: ResumableError) -> Self {
        let message = error.to_string();
        match error {
            ResumableError::Unknown => Self::new(StatusCode::NOT_FOUND, "not_found", message),
            ResumableError::Gone => Self::new(StatusCode::GONE, "upload_gone", message),
            ResumableError::Offset { expected, provided, .. } => Self::offset_mismatch(expected, provided),
            ResumableError::Complete(progress) => Self::new(StatusCode::CONFLICT, "upload_complete", message)
                .with("received_bytes", progress.offset)
                .header(UPLOAD_OFFSET, &progress.offset.to_string()),
            ResumableError::Inconsistent => Self::bad_request("inconsistent_length", message),
            ResumableError::TooLarge { limit } => UploadError::TooLarge { limit }.into(),
            ResumableError::PieceChecksum => {
                Self::new(StatusCode::UNPROCESSABLE_ENTITY, "checksum_mismatch", message)
            }
            ResumableError::InvalidChunk(_) => Self::bad_request("invalid_chunk", message),
            ResumableError::ChunkHash { expected, actual } => {
                Self::bad_request("chunk_hash_mismatch", message)
                    .with("expected", expected.to_string())
                    .with("actual", actual.to_string())
            }
            ResumableError::ChunkConflict(_) => Self::new(StatusCode::CONFLICT, "chunk_conflict", message),
            ResumableError::Joined => Self::new(StatusCode::FORBIDDEN, "joined", message),
            ResumableError::Parts(_) => Self::bad_request("invalid_parts", message),
            ResumableError::TooMany { limit } => {
                Self::new(StatusCode::TOO_MANY_REQUESTS, "too_many_uploads", message)
                    .with("limit", limit)
                    .header(header::RETRY_AFTER, TRY_AGAIN)
            }
            ResumableError::TakenOver => Self::new(StatusCode::CONFLICT, "taken_over", message),
            ResumableError::Broken(Broken::HungUp(cause)) => Self::broken_body(cause),
            ResumableError::Broken(Broken::TimedOut) => Self::timed_out(),
            ResumableError::Broken(Broken::Trailer) => Self::bad_request("invalid_checksum", message),
            ResumableError::Upload(error) => error.into(),
        }
    }
}

impl From<InvalidField> for ApiError {
    fn from(error: InvalidField) -> Self {
        Self::bad_request(error.code(), error.to_string())
    }
}

impl From<MultipartError> for ApiError {
    fn from(error: MultipartError) -> Self {
        let message = error.to_string();
        match error {
            MultipartError::NotMultipart => {
                Self::unsupported_media_type("multipart/form-data with a boundary")
            }
            MultipartError::Malformed(cause) => {
                Self::bad_request("invalid_multipart", message).because(cause)
            }
            MultipartError::FieldTooLarge { .. } => {
                Self::new(StatusCode::PAYLOAD_TOO_LARGE, "field_too_large", message)
            }
            MultipartError::TooManyFields => Self::bad_request("too_many_fields", message),
            MultipartError::TimedOut => Self::timed_out(),
            MultipartError::HungUp(cause) => Self::broken_body(cause),
        }
    }
}

/// The error in a response's extensions: its body is made at the edge, where the request's id is known.
#[derive(Debug, Clone)]
pub(super) struct Unrendered(pub(super) Arc<ApiError>);

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let mut response = self.status.into_response();
        response.headers_mut().extend(self.headers.clone());
        if self.status.as_u16() == TUS_CHECKSUM_MISMATCH {
            response.extensions_mut().insert(ReasonPhrase::from_static(b"Checksum Mismatch"));
        }
        response.extensions_mut().insert(Unrendered(Arc::new(self)));
        response
    }
}
