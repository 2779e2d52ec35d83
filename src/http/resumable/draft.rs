//! Resumable Uploads for HTTP (draft-ietf-httpbis-resumable-upload), interop version 8: revisions 09 and later.
//!
//! `104 (Upload Resumption Supported)` is optional and not sent: hyper has no way to send it.

use axum::response::{IntoResponse, Response};
use http::header::{CONTENT_DISPOSITION, LOCATION};
use http::{HeaderMap, HeaderValue, StatusCode};

use super::fields::{
    self, ACCEPT_PATCH, InvalidField, UPLOAD_COMPLETE, UPLOAD_LENGTH, UPLOAD_LIMIT, UPLOAD_OFFSET, put,
};
use super::metadata::Metadata;
use super::{Asked, checksum};
use crate::app::App;
use crate::domain::{FileName, TransferId};
use crate::http::error::ApiError;
use crate::http::{disposition, upload};
use crate::services::resumable::{Append, Progress, ResumableError};
use crate::services::uploads::UploadError;

/// "Media Type".
pub(super) const MEDIA_TYPE: &str = "application/partial-upload";
/// "Problem Types".
const PROBLEM: &str = "https://iana.org/assignments/http-problem-types#";

/// "Limits": what OPTIONS says.
pub(super) fn capabilities(app: &App, headers: &mut HeaderMap) {
    headers.insert(ACCEPT_PATCH, HeaderValue::from_static(MEDIA_TYPE));
    let limit = fields::upload_limit(app.resumable().max_size(), Some(app.resumable().expiry()));
    put(headers, UPLOAD_LIMIT, &limit);
}

/// "Offset Retrieval": what only the draft says of an upload.
pub(super) fn describe(app: &App, progress: &Progress, headers: &mut HeaderMap) {
    headers.insert(UPLOAD_COMPLETE, boolean(progress.complete));
    let remaining = progress.expires_at.map(fields::remaining);
    put(headers, UPLOAD_LIMIT, &fields::upload_limit(app.resumable().max_size(), remaining));
}

const fn boolean(value: bool) -> HeaderValue {
    HeaderValue::from_static(if value { "?1" } else { "?0" })
}

/// An error in the way of this protocol.
pub(super) fn refusal(error: ResumableError, app: &App) -> ApiError {
    match error {
        ResumableError::Offset { expected, provided, .. } => {
            let title = "offset from request does not match offset of resource";
            ApiError::offset_mismatch(expected, provided)
                .problem(PROBLEM, "mismatching-upload-offset", title)
                .with("expected-offset", expected)
                .with("provided-offset", provided)
                .header(UPLOAD_COMPLETE, "?0")
        }
        error @ ResumableError::Complete(_) => {
            let refusal = ApiError::from(error);
            let refusal = refusal.problem(PROBLEM, "completed-upload", "upload is already completed");
            ApiError { status: StatusCode::BAD_REQUEST, ..refusal }
        }
        error @ ResumableError::Inconsistent => inconsistent_length(error.into()),
        error @ (ResumableError::TooLarge { .. } | ResumableError::Upload(UploadError::TooLarge { .. })) => {
            // "MUST include the Upload-Limit header in this response."
            let limit = fields::upload_limit(app.resumable().max_size(), None);
            ApiError::from(error).header(UPLOAD_LIMIT, &limit)
        }
        error => error.into(),
    }
}

fn inconsistent_length(error: ApiError) -> ApiError {
    error.problem(PROBLEM, "inconsistent-upload-length", "inconsistent length values for upload")
}

/// Whether a request brings the end of an upload, and of how many bytes it says that there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Described {
    complete: bool,
    length: Option<u64>,
}

impl Described {
    fn of(headers: &HeaderMap) -> Result<Self, InvalidField> {
        let complete = fields::sf_boolean(headers, &UPLOAD_COMPLETE).ok_or(InvalidField::Complete)?;
        Ok(Self { complete, length: fields::sf_integer(headers, &UPLOAD_LENGTH) })
    }

    /// "Length": the length of an upload that begins, by `Upload-Length` and by where the content of the only request ends. `Err`:
    /// they do not agree. Where an upload goes on, the service looks at that: another offset is told first.
    fn whole(self, content: Option<u64>) -> Result<Option<u64>, ResumableError> {
        let end = content.filter(|_| self.complete);
        match (self.length, end) {
            (Some(length), Some(end)) if length != end => Err(ResumableError::Inconsistent),
            (Some(length), _) if content.is_some_and(|content| content > length) => {
                Err(ResumableError::Inconsistent)
            }
            (length, end) => Ok(length.or(end)),
        }
    }
}

/// "Upload Creation". `filename`: that of the path.
pub(super) async fn create(mut asked: Asked, filename: Option<FileName>) -> Result<Response, ApiError> {
    upload::refuse_codings(&asked.headers)?;
    let described = Described::of(&asked.headers)?;
    let length = described.whole(fields::content_length(&asked.headers));
    let length = length.map_err(|error| refusal(error, &asked.app))?;
    let mut options = asked.options()?;
    options.filename = match filename.or(options.filename) {
        Some(filename) => Some(filename),
        None => filename_of(&asked.headers)?,
    };
    // It ends when the client says so, even where its length is reached: only the last request may complete it.
    let size = length.filter(|length| described.complete || *length > 0);
    let mut creation = asked.creation(&options, size)?;
    creation.says_its_end = true;
    let is_new = !asked.app.uploads().is_taken(&creation.filename);
    let append = of_body(&asked.headers, 0, &described)?;
    let created = asked.create(creation).await;
    let mut progress = created.map_err(|error| refusal(error, &asked.app))?;
    if !progress.complete {
        // One that was found by its key may have bytes already: it goes on from there, by PATCH.
        let location = super::location(progress.id);
        let appended = asked.append(progress.id, append).await;
        progress = appended
            .map_err(|error| failure(error, described.complete, &asked.app).header(LOCATION, &location))?;
    }
    Ok(answer(&asked.app, &progress, StatusCode::CREATED, is_new))
}

/// The name in `Content-Disposition` (RFC 6266), which the draft has for it, or in tus's metadata, which clients of both
/// protocols send all the same.
fn filename_of(headers: &HeaderMap) -> Result<Option<FileName>, ApiError> {
    let disposition = headers.get(CONTENT_DISPOSITION).map(|value| disposition::parse(value.as_bytes()));
    if let Some(filename) = disposition.and_then(|disposition| disposition.filename) {
        return Ok(Some(FileName::clean(&filename)?));
    }
    let metadata = Metadata::read(headers)?;
    let filename = metadata.options().find(|(key, value)| *key == "filename" && !value.is_empty());
    Ok(filename.map(|(_, filename)| FileName::clean(filename)).transpose()?)
}

/// "Upload Append".
pub(super) async fn append(mut asked: Asked, id: TransferId) -> Result<Response, ApiError> {
    if !fields::has_content_type(&asked.headers, MEDIA_TYPE) {
        return Err(ApiError::unsupported_media_type(MEDIA_TYPE).header(ACCEPT_PATCH, MEDIA_TYPE));
    }
    let offset = fields::sf_integer(&asked.headers, &UPLOAD_OFFSET).ok_or(InvalidField::Offset)?;
    let described = Described::of(&asked.headers)?;
    let append = of_body(&asked.headers, offset, &described)?;
    let is_empty = asked.has_empty_body();
    let known = asked.app.status().transfer(id);
    let is_new = known.is_some_and(|transfer| !asked.app.uploads().is_taken(&transfer.filename));
    match asked.append(id, append).await {
        Ok(progress) => Ok(answer(&asked.app, &progress, StatusCode::NO_CONTENT, is_new)),
        Err(ResumableError::Complete(progress)) => {
            Err(after_the_end(*progress, offset, is_empty, &asked.app))
        }
        Err(error) => Err(failure(error, described.complete, &asked.app)),
    }
}

/// "If the upload is already complete": each request is refused, and told why.
fn after_the_end(progress: Progress, offset: u64, is_empty: bool, app: &App) -> ApiError {
    let error = match (offset == progress.offset, is_empty) {
        (false, _) => ResumableError::Offset {
            expected: progress.offset,
            provided: offset,
            progress: Box::new(progress),
        },
        // "The server MUST treat this as an inconsistent length failure."
        (true, false) => ResumableError::Inconsistent,
        (true, true) => ResumableError::Complete(Box::new(progress)),
    };
    refusal(error, app)
}

fn of_body(headers: &HeaderMap, offset: u64, described: &Described) -> Result<Append, InvalidField> {
    Ok(Append {
        offset,
        size: described.length,
        complete: Some(described.complete),
        // Whoever brings nothing to a complete upload is not given its answer again here, but refused: that it brings nothing
        // shows when its body ends.
        length: fields::content_length(headers).filter(|length| *length > 0),
        checksum: checksum::of_body(headers)?,
        checksum_follows: false,
    })
}

/// An error of a request that brought bytes: "the response MUST include the `Upload-Complete` header field with a true value"
/// where everything was there and what was made of it failed, so that nobody sends more.
fn failure(error: ResumableError, was_last: bool, app: &App) -> ApiError {
    let processed = match &error {
        ResumableError::Upload(error) => match error {
            UploadError::ChecksumMismatch { .. } | UploadError::Condition(_) | UploadError::NameTaken => true,
            UploadError::TooLarge { .. }
            | UploadError::Incomplete(_)
            | UploadError::Full
            | UploadError::Storage(_) => false,
        },
        _ => false,
    };
    let refusal = refusal(error, app);
    if processed && was_last { refusal.header(UPLOAD_COMPLETE, "?1") } else { refusal }
}

/// The answer of the original target where the upload is published, else that it goes on.
fn answer(app: &App, progress: &Progress, status: StatusCode, is_new: bool) -> Response {
    let mut headers = super::state(progress);
    describe(app, progress, &mut headers);
    match &progress.transfer {
        Some(transfer) => (headers, upload::finished(transfer, is_new)).into_response(),
        None => {
            if status == StatusCode::CREATED {
                put(&mut headers, LOCATION, &super::location(progress.id));
            }
            (status, headers).into_response()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_agree_or_are_refused() {
        for (complete, said, content, expected) in [
            (true, None, Some(5), Ok(Some(5))),
            (true, Some(5), Some(5), Ok(Some(5))),
            (true, Some(5), None, Ok(Some(5))),
            (true, None, None, Ok(None)),
            (true, Some(6), Some(5), Err(())),
            (true, Some(4), Some(5), Err(())),
            (false, None, Some(5), Ok(None)),
            (false, Some(9), Some(5), Ok(Some(9))),
            (false, Some(5), Some(5), Ok(Some(5))),
            (false, Some(4), Some(5), Err(())),
        ] {
            let described = Described { complete, length: said };
            assert_eq!(described.whole(content).map_err(drop), expected, "{described:?} {content:?}");
        }
    }
}
