//! `PUT /files/{filename}` with `Content-Range` (RFC 9110 §14.5): how `curl -C OFFSET -T FILE` goes on with an upload.
//!
//! There is no URL of the upload: it is the one of that name that this client has begun last.

use axum::Json;
use axum::response::{IntoResponse, Response};
use http::header::{CONTENT_RANGE, LOCATION};
use http::{HeaderMap, StatusCode};
use serde::Serialize;

use super::fields::{self, InvalidField};
use super::{Asked, checksum};
use crate::domain::{FileName, Timestamp, TransferId};
use crate::http::error::ApiError;
use crate::http::upload;
use crate::services::resumable::Append;

/// `bytes FIRST-LAST/TOTAL`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct ContentRange {
    first: u64,
    last: u64,
    /// `None`: `*`.
    total: Option<u64>,
}

impl ContentRange {
    /// Reads it; a length of the body that is known must be that of the range.
    fn read(headers: &HeaderMap) -> Result<Self, InvalidField> {
        let value = fields::single(headers, &CONTENT_RANGE).ok().flatten();
        let range = value.and_then(Self::parse).ok_or(InvalidField::ContentRange)?;
        match fields::content_length(headers) {
            Some(length) if length != range.length() => Err(InvalidField::ContentRange),
            _ => Ok(range),
        }
    }

    fn parse(text: &str) -> Option<Self> {
        let (unit, rest) = text.split_once(' ')?;
        let (range, total) = rest.trim().split_once('/')?;
        let (first, last) = range.split_once('-')?;
        let number = |text: &str| {
            text.parse::<u64>().ok().filter(|number| *number < u64::MAX && !text.starts_with('+'))
        };
        let (first, last) = (number(first)?, number(last)?);
        let total = if total == "*" { None } else { Some(number(total)?) };
        let is_range = unit.eq_ignore_ascii_case("bytes") && first <= last;
        (is_range && total.is_none_or(|total| last < total)).then_some(Self { first, last, total })
    }

    const fn length(self) -> u64 {
        self.last - self.first + 1
    }

    fn is_whole(self) -> bool {
        self.first == 0 && self.total == Some(self.length())
    }
}

/// What a range does.
#[derive(Debug, PartialEq, Eq)]
enum Step {
    /// It begins an upload.
    Begin,
    /// It is added to this one.
    GoOn(TransferId),
    /// There is nothing to which it could be added.
    Refuse,
}

/// A range that is the whole begins anew: `curl -C -` sends it so, whatever there was before.
fn decide(range: ContentRange, unfinished: Option<TransferId>) -> Step {
    match unfinished {
        _ if range.is_whole() => Step::Begin,
        Some(id) => Step::GoOn(id),
        None if range.first == 0 => Step::Begin,
        None => Step::Refuse,
    }
}

/// The answer to a range after which more must come.
#[derive(Serialize)]
struct Received<'a> {
    success: bool,
    id: TransferId,
    filename: &'a FileName,
    status: &'static str,
    received_bytes: u64,
    total_bytes: Option<u64>,
    expires_at: Option<Timestamp>,
}

pub(in crate::http) async fn put(mut asked: Asked, filename: FileName) -> Result<Response, ApiError> {
    upload::refuse_codings(&asked.headers)?;
    let range = ContentRange::read(&asked.headers)?;
    let checksum = checksum::of_body(&asked.headers)?;
    let mut options = asked.options()?;
    options.filename = Some(filename.clone());
    let client = options.client(&asked.sender.client);
    let is_new = !asked.app.uploads().is_taken(&filename);
    let id = match decide(range, asked.app.resumable().find(&client, &filename)) {
        Step::Refuse => return Err(ApiError::offset_mismatch(0, range.first)),
        Step::GoOn(id) => id,
        Step::Begin => {
            let creation = asked.creation(&options, range.total)?;
            asked.create(creation).await?.id
        }
    };
    let append = Append {
        offset: range.first,
        size: range.total,
        complete: None,
        length: Some(range.length()),
        checksum,
        checksum_follows: false,
    };
    let progress = asked.append(id, append).await?;
    if let Some(transfer) = &progress.transfer {
        return Ok(upload::finished(transfer, is_new));
    }
    let received = Received {
        success: true,
        id,
        filename: &filename,
        status: "uploading",
        received_bytes: progress.offset,
        total_bytes: progress.size,
        expires_at: progress.expires_at,
    };
    Ok((StatusCode::ACCEPTED, [(LOCATION, super::location(id))], Json(received)).into_response())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_content_range_is_read_or_refused() {
        let range = |first, last, total| Some(ContentRange { first, last, total });
        for (text, expected) in [
            ("bytes 0-0/1", range(0, 0, Some(1))),
            ("bytes 5-9/10", range(5, 9, Some(10))),
            ("Bytes 5-9/10", range(5, 9, Some(10))),
            ("bytes 5-9/*", range(5, 9, None)),
            ("bytes 5-9/9", None),
            ("bytes 9-5/10", None),
            ("bytes */10", None),
            ("bytes 5-/10", None),
            ("bytes -5/10", None),
            ("bytes +5-9/10", None),
            ("bytes 5-9", None),
            ("bytes=5-9/10", None),
            ("items 5-9/10", None),
            ("bytes 0-18446744073709551615/*", None),
            ("", None),
        ] {
            assert_eq!(ContentRange::parse(text), expected, "{text}");
        }
    }

    #[test]
    fn a_range_begins_or_goes_on() {
        let id = TransferId::new();
        for (text, unfinished, expected) in [
            ("bytes 0-9/10", None, Step::Begin),
            ("bytes 0-9/10", Some(id), Step::Begin),
            ("bytes 0-4/10", None, Step::Begin),
            ("bytes 0-4/*", None, Step::Begin),
            ("bytes 0-4/10", Some(id), Step::GoOn(id)),
            ("bytes 5-9/10", Some(id), Step::GoOn(id)),
            ("bytes 5-9/*", Some(id), Step::GoOn(id)),
            ("bytes 5-9/10", None, Step::Refuse),
        ] {
            assert_eq!(decide(ContentRange::parse(text).unwrap(), unfinished), expected, "{text}");
        }
    }
}
