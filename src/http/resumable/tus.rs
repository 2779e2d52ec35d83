//! tus 1.0.0 with the extensions in [`EXTENSIONS`] (<https://tus.io/protocols/resumable-upload>).

use axum::response::{IntoResponse, Response};
use http::header::LOCATION;
use http::{HeaderMap, HeaderValue, StatusCode};

use super::Asked;
use super::checksum;
use super::fields::{
    self, InvalidField, TUS_CHECKSUM_ALGORITHM, TUS_EXTENSION, TUS_MAX_SIZE, TUS_RESUMABLE, TUS_VERSION,
    UPLOAD_CONCAT, UPLOAD_DEFER_LENGTH, UPLOAD_EXPIRES, UPLOAD_LENGTH, UPLOAD_METADATA, UPLOAD_OFFSET, put,
};
use super::metadata::Metadata;
use crate::app::App;
use crate::domain::{FileName, TransferId};
use crate::http::error::ApiError;
use crate::services::resumable::{Append, Broken, Concat, Progress, ResumableError};

pub(super) const VERSION: &str = "1.0.0";
const EXTENSIONS: &str = "creation,creation-with-upload,creation-defer-length,expiration,checksum,checksum-trailer,\
                          termination,concatenation";
const MEDIA_TYPE: &str = "application/offset+octet-stream";

/// Whether the version that the request names is ours.
pub(super) fn is_spoken(headers: &HeaderMap) -> bool {
    fields::single(headers, &TUS_RESUMABLE) == Ok(Some(VERSION))
}

/// "Tus-Resumable": another version, or none, is answered with those that we speak, and nothing is done.
pub(super) fn version_mismatch() -> ApiError {
    let message = "send Tus-Resumable: 1.0.0 (tus) or Upload-Complete (Resumable Uploads for HTTP)";
    ApiError::new(StatusCode::PRECONDITION_FAILED, "unsupported_tus_version", message)
        .header(TUS_VERSION, VERSION)
}

/// "OPTIONS".
pub(super) fn capabilities(app: &App, headers: &mut HeaderMap) {
    headers.insert(TUS_VERSION, HeaderValue::from_static(VERSION));
    headers.insert(TUS_EXTENSION, HeaderValue::from_static(EXTENSIONS));
    headers.insert(TUS_CHECKSUM_ALGORITHM, HeaderValue::from_static(checksum::ALGORITHMS));
    if let Some(size) = app.resumable().max_size() {
        headers.insert(TUS_MAX_SIZE, HeaderValue::from(size));
    }
}

/// "HEAD": what only tus says of an upload.
pub(super) fn describe(progress: &Progress, headers: &mut HeaderMap) {
    if progress.size.is_none() {
        headers.insert(UPLOAD_DEFER_LENGTH, HeaderValue::from_static("1"));
    }
    if let Some(metadata) = &progress.metadata {
        put(headers, UPLOAD_METADATA, metadata);
    }
    match &progress.concat {
        None => {}
        Some(Concat::Partial) => put(headers, UPLOAD_CONCAT, "partial"),
        // As it was sent: "Concatenation".
        Some(Concat::Final(list)) => put(headers, UPLOAD_CONCAT, &format!("final;{list}")),
    }
    expires(progress, headers);
}

/// "Upload-Expires": an HTTP date (RFC 9110 §5.6.7).
fn expires(progress: &Progress, headers: &mut HeaderMap) {
    if let Some(until) = progress.expires_at {
        put(headers, UPLOAD_EXPIRES, &httpdate::fmt_http_date(until.to_system_time()));
    }
}

/// An error in the way of this protocol.
pub(super) fn refusal(error: ResumableError) -> ApiError {
    match error {
        ResumableError::PieceChecksum => ApiError::from(error).tus_checksum_mismatch(),
        // Clients take 408 for final, and try 409 again: what came is kept.
        ResumableError::Broken(Broken::TimedOut) => {
            ApiError { status: StatusCode::CONFLICT, ..ApiError::from(error) }
        }
        error => error.into(),
    }
}

/// What a POST begins.
#[derive(Debug, PartialEq, Eq)]
enum Wanted {
    /// An upload of so many bytes; `None`: the client will say.
    Upload { size: Option<u64>, partial: bool },
    /// One that is joined of these.
    Join(Vec<TransferId>, Box<str>),
}

impl Wanted {
    /// "Creation", "Concatenation": the headers, and how they go together.
    fn of(headers: &HeaderMap) -> Result<Self, InvalidField> {
        let length = fields::tus_integer(headers, &UPLOAD_LENGTH, InvalidField::Length)?;
        let deferred = match fields::single(headers, &UPLOAD_DEFER_LENGTH) {
            Ok(None) => false,
            Ok(Some("1")) => true,
            Ok(Some(_)) | Err(()) => return Err(InvalidField::Length),
        };
        let concat = fields::single(headers, &UPLOAD_CONCAT).map_err(|()| InvalidField::Concat)?;
        if let Some(list) = concat.and_then(|concat| concat.strip_prefix("final;")) {
            let parts = list.split_ascii_whitespace().map(upload_of).collect::<Option<Vec<_>>>();
            return match (length, deferred, parts) {
                // "The Client MUST NOT include the Upload-Length header in the final upload creation."
                (Some(_), _, _) | (_, true, _) => Err(InvalidField::Length),
                (None, false, Some(parts)) if !parts.is_empty() => Ok(Self::Join(parts, list.into())),
                (None, false, _) => Err(InvalidField::Concat),
            };
        }
        let partial = match concat {
            None => false,
            Some("partial") => true,
            Some(_) => return Err(InvalidField::Concat),
        };
        if length.is_some() == deferred {
            return Err(InvalidField::Length);
        }
        Ok(Self::Upload { size: length, partial })
    }
}

/// The upload of a URL, absolute or relative (RFC 3986 §4): its last segment.
fn upload_of(url: &str) -> Option<TransferId> {
    let path = url.split(['?', '#']).next()?;
    path.rsplit('/').next()?.parse().ok()
}

/// "Creation", "Creation With Upload", "Concatenation".
pub(super) async fn create(mut asked: Asked) -> Result<Response, ApiError> {
    let wanted = Wanted::of(&asked.headers)?;
    let brings_bytes = fields::has_content_type(&asked.headers, MEDIA_TYPE);
    let partial = matches!(wanted, Wanted::Upload { partial: true, .. });
    if !brings_bytes && !asked.has_empty_body() {
        return Err(unsupported_media_type());
    }
    let metadata = Metadata::read(&asked.headers)?;
    let mut options = asked.options()?;
    for (key, value) in metadata.options() {
        options.set(key, value)?;
    }
    if partial && options.filename.is_none() {
        // Nobody will ask for it by its name.
        options.filename = Some(FileName::clean("unnamed")?);
    }
    let size = if let Wanted::Upload { size, .. } = wanted { size } else { None };
    let mut creation = asked.creation(&options, size)?;
    creation.metadata = metadata.sent.map(Into::into);
    creation.partial = partial;
    let append = of_body(&asked.headers, 0, size)?;
    let mut progress = match wanted {
        Wanted::Upload { .. } => asked.create(creation).await,
        Wanted::Join(parts, list) => asked.join(creation, parts, list).await,
    }
    .map_err(refusal)?;
    let location = super::location(progress.id);
    // One that was found by its key, and has bytes already, goes on by PATCH.
    if brings_bytes && progress.offset == 0 && !progress.complete {
        let appended = asked.append(progress.id, append).await;
        progress = appended.map_err(|error| refusal(error).header(LOCATION, &location))?;
    }
    let mut headers = answer(&progress);
    put(&mut headers, LOCATION, &location);
    Ok((StatusCode::CREATED, headers).into_response())
}

/// "PATCH".
pub(super) async fn append(mut asked: Asked, id: TransferId) -> Result<Response, ApiError> {
    if !fields::has_content_type(&asked.headers, MEDIA_TYPE) {
        return Err(unsupported_media_type());
    }
    let offset = fields::tus_integer(&asked.headers, &UPLOAD_OFFSET, InvalidField::Offset)?;
    let offset = offset.ok_or(InvalidField::Offset)?;
    let size = fields::tus_integer(&asked.headers, &UPLOAD_LENGTH, InvalidField::Length)?;
    let append = of_body(&asked.headers, offset, size)?;
    let asks_again = asked.has_empty_body();
    let progress = match asked.append(id, append).await {
        Ok(progress) => progress,
        Err(ResumableError::Complete(progress)) if matches!(progress.concat, Some(Concat::Final(_))) => {
            *progress
        }
        // The answer that says so was lost: it is given again.
        Err(ResumableError::Complete(progress)) if asks_again && progress.offset == offset => *progress,
        Err(error) => return Err(refusal(error)),
    };
    if let Some(Concat::Final(_)) = progress.concat {
        // "The Server MUST respond with the 403 Forbidden status to PATCH requests against a final upload URL."
        return Err(refusal(ResumableError::Joined));
    }
    Ok((StatusCode::NO_CONTENT, answer(&progress)).into_response())
}

fn unsupported_media_type() -> ApiError {
    ApiError::unsupported_media_type(MEDIA_TYPE)
}

/// How the body of a request is added.
fn of_body(headers: &HeaderMap, offset: u64, size: Option<u64>) -> Result<Append, InvalidField> {
    let checksum = checksum::of_body(headers)?;
    Ok(Append {
        offset,
        size,
        complete: None,
        length: fields::content_length(headers),
        checksum,
        checksum_follows: checksum.is_none() && checksum::follows(headers),
    })
}

/// What an answer to POST and PATCH says of the upload.
fn answer(progress: &Progress) -> HeaderMap {
    let mut headers = super::state(progress);
    expires(progress, &mut headers);
    headers
}

#[cfg(test)]
mod tests {
    use http::HeaderName;

    use super::*;

    #[test]
    fn headers_say_what_is_begun() {
        use InvalidField::{Concat, Length};
        let (a, b) = (TransferId::new(), TransferId::new());
        let upload = |size, partial| Ok(Wanted::Upload { size, partial });
        let parts = format!("final;/uploads/{a} https://files.example/x/uploads/{b}?y#z");
        let relative = format!("final;{a}");
        for (sent, expected) in [
            (vec![("upload-length", "5")], upload(Some(5), false)),
            (vec![("upload-length", "0")], upload(Some(0), false)),
            (vec![("upload-defer-length", "1")], upload(None, false)),
            (vec![("upload-length", "5"), ("upload-concat", "partial")], upload(Some(5), true)),
            (vec![("upload-defer-length", "1"), ("upload-concat", "partial")], upload(None, true)),
            (vec![("upload-concat", parts.as_str())], Ok(Wanted::Join(vec![a, b], parts[6..].into()))),
            (vec![("upload-concat", relative.as_str())], Ok(Wanted::Join(vec![a], relative[6..].into()))),
            (vec![], Err(Length)),
            (vec![("upload-length", "5"), ("upload-defer-length", "1")], Err(Length)),
            (vec![("upload-length", "-5")], Err(Length)),
            (vec![("upload-length", "")], Err(Length)),
            (vec![("upload-defer-length", "0")], Err(Length)),
            (vec![("upload-defer-length", "true")], Err(Length)),
            (vec![("upload-concat", "partial")], Err(Length)),
            (vec![("upload-length", "5"), ("upload-concat", parts.as_str())], Err(Length)),
            (vec![("upload-defer-length", "1"), ("upload-concat", parts.as_str())], Err(Length)),
            (vec![("upload-concat", "final;")], Err(Concat)),
            (vec![("upload-concat", "final;/uploads/x")], Err(Concat)),
            (vec![("upload-length", "5"), ("upload-concat", "whole")], Err(Concat)),
        ] {
            let headers = sent
                .iter()
                .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_str(value).unwrap()));
            assert_eq!(Wanted::of(&headers.collect()), expected, "{sent:?}");
        }
    }
}
