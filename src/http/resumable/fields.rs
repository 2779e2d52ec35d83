//! The header fields of both protocols: their names, and the reading of those with one value. Pure.

use std::time::Duration;

use http::header::{self, HeaderMap, HeaderName, HeaderValue};

use crate::domain::Timestamp;

pub(super) const TUS_RESUMABLE: HeaderName = HeaderName::from_static("tus-resumable");
pub(super) const TUS_VERSION: HeaderName = HeaderName::from_static("tus-version");
pub(super) const TUS_EXTENSION: HeaderName = HeaderName::from_static("tus-extension");
pub(super) const TUS_MAX_SIZE: HeaderName = HeaderName::from_static("tus-max-size");
pub(super) const TUS_CHECKSUM_ALGORITHM: HeaderName = HeaderName::from_static("tus-checksum-algorithm");
pub(in crate::http) const UPLOAD_OFFSET: HeaderName = HeaderName::from_static("upload-offset");
pub(super) const UPLOAD_LENGTH: HeaderName = HeaderName::from_static("upload-length");
pub(super) const UPLOAD_DEFER_LENGTH: HeaderName = HeaderName::from_static("upload-defer-length");
pub(super) const UPLOAD_METADATA: HeaderName = HeaderName::from_static("upload-metadata");
pub(super) const UPLOAD_CONCAT: HeaderName = HeaderName::from_static("upload-concat");
pub(super) const UPLOAD_EXPIRES: HeaderName = HeaderName::from_static("upload-expires");
pub(super) const UPLOAD_CHECKSUM: HeaderName = HeaderName::from_static("upload-checksum");
pub(super) const UPLOAD_COMPLETE: HeaderName = HeaderName::from_static("upload-complete");
pub(super) const UPLOAD_LIMIT: HeaderName = HeaderName::from_static("upload-limit");
pub(super) const UPLOAD_DRAFT_INTEROP_VERSION: HeaderName =
    HeaderName::from_static("upload-draft-interop-version");
pub(super) const METHOD_OVERRIDE: HeaderName = HeaderName::from_static("x-http-method-override");
pub(super) const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
pub(super) const ACCEPT_PATCH: HeaderName = HeaderName::from_static("accept-patch");
pub(super) const REPR_DIGEST: HeaderName = HeaderName::from_static("repr-digest");

/// A header field whose value is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(in crate::http) enum InvalidField {
    #[error(
        "Upload-Length: takes a whole number from 0; either it or Upload-Defer-Length: 1 is needed, not both"
    )]
    Length,
    #[error("Upload-Offset: takes a whole number from 0")]
    Offset,
    #[error("Upload-Complete: takes ?0 or ?1")]
    Complete,
    #[error("Upload-Concat: takes partial, or final; and the URLs of uploads")]
    Concat,
    #[error("Upload-Metadata: {0}")]
    Metadata(&'static str),
    #[error("Upload-Checksum: takes the name of an algorithm and a checksum of its length in Base64")]
    Checksum,
    #[error("Upload-Checksum: takes sha1, sha256 or md5")]
    Algorithm,
    #[error("Content-Digest: takes sha-256=:BASE64: (RFC 9530)")]
    Digest,
    #[error("Content-Range: takes bytes FIRST-LAST/TOTAL, as many as the body has")]
    ContentRange,
    #[error("X-HTTP-Method-Override: takes the name of a method")]
    Method,
    #[error("Idempotency-Key: takes 1 to 256 printable characters of ASCII")]
    IdempotencyKey,
}

impl InvalidField {
    pub(in crate::http) const fn code(self) -> &'static str {
        match self {
            Self::Length => "invalid_upload_length",
            Self::Offset => "invalid_upload_offset",
            Self::Complete => "invalid_upload_complete",
            Self::Concat => "invalid_upload_concat",
            Self::Metadata(_) => "invalid_metadata",
            Self::Checksum => "invalid_checksum",
            Self::Algorithm => "unsupported_checksum",
            Self::Digest => "invalid_digest",
            Self::ContentRange => "invalid_content_range",
            Self::Method => "invalid_method_override",
            Self::IdempotencyKey => "invalid_idempotency_key",
        }
    }
}

/// The one value of a field, as text. `Err`: it is no ASCII, or the field stands there more than once.
pub(super) fn single<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Result<Option<&'a str>, ()> {
    let mut values = headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (None, _) => Ok(None),
        (Some(value), None) => value.to_str().map(|value| Some(value.trim())).map_err(|_| ()),
        (Some(_), Some(_)) => Err(()),
    }
}

/// tus: "a non-negative integer".
pub(super) fn tus_integer(
    headers: &HeaderMap,
    name: &HeaderName,
    invalid: InvalidField,
) -> Result<Option<u64>, InvalidField> {
    let Some(text) = single(headers, name).map_err(|()| invalid)? else { return Ok(None) };
    // Not what `u64` alone would take: a sign.
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|_| digits).map(Some).ok_or(invalid)
}

/// The largest Integer of a structured field (RFC 9651 §3.3.1).
const LARGEST_INTEGER: u64 = 999_999_999_999_999;

/// The draft: an Item that is a non-negative Integer. "Other values MUST cause the entire header field to be ignored."
pub(super) fn sf_integer(headers: &HeaderMap, name: &HeaderName) -> Option<u64> {
    let text = sf_item(single(headers, name).ok()??)?;
    let digits = text.strip_prefix('-').unwrap_or(text);
    if !(1..=15).contains(&digits.len()) || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    text.parse::<i64>().ok()?.try_into().ok()
}

/// The draft: an Item that is a Boolean. Other values are ignored.
pub(super) fn sf_boolean(headers: &HeaderMap, name: &HeaderName) -> Option<bool> {
    match sf_item(single(headers, name).ok()??)? {
        "?1" => Some(true),
        "?0" => Some(false),
        _ => None,
    }
}

/// The bare item of an Item without strings (RFC 9651 §4.2.3). Its parameters mean nothing here, but must be some.
fn sf_item(text: &str) -> Option<&str> {
    let mut parts = text.split(';');
    let item = parts.next()?;
    let key = |key: &str| {
        key.starts_with(|c: char| c.is_ascii_lowercase() || c == '*')
            && key.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"_-.*".contains(&b))
    };
    let parameter = |parameter: &str| {
        // Spaces may stand after the semicolon, not before it.
        let (name, value) = parameter.split_once('=').unwrap_or((parameter, "?1"));
        key(name.trim_start_matches(' ')) && !value.is_empty() && !value.contains(' ')
    };
    parts.all(parameter).then_some(item)
}

/// Bytes of the body, where the request says so.
pub(super) fn content_length(headers: &HeaderMap) -> Option<u64> {
    headers.get(header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

/// Whether `Content-Type` is this one, whatever parameters it has.
pub(super) fn has_content_type(headers: &HeaderMap, media_type: &str) -> bool {
    let value = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    value.split(';').next().unwrap_or_default().trim().eq_ignore_ascii_case(media_type)
}

/// The key under which the same upload is found again.
pub(super) fn idempotency_key(headers: &HeaderMap) -> Result<Option<Box<str>>, InvalidField> {
    let key = single(headers, &IDEMPOTENCY_KEY).map_err(|()| InvalidField::IdempotencyKey)?;
    match key {
        None => Ok(None),
        Some(key) if (1..=256).contains(&key.len()) && key.bytes().all(|b| (b' '..=b'~').contains(&b)) => {
            Ok(Some(key.into()))
        }
        Some(_) => Err(InvalidField::IdempotencyKey),
    }
}

/// `Upload-Limit`: a Dictionary (draft, "Limits"). `remaining`: how long an upload is still kept.
pub(super) fn upload_limit(max_size: Option<u64>, remaining: Option<Duration>) -> String {
    let mut limits = vec!["min-size=0".to_owned()];
    limits.extend(max_size.map(|size| format!("max-size={}", size.min(LARGEST_INTEGER))));
    limits.extend(remaining.map(|age| format!("max-age={}", age.as_secs().min(LARGEST_INTEGER))));
    limits.join(", ")
}

/// How long it is until then; nothing if it is over.
pub(super) fn remaining(until: Timestamp) -> Duration {
    until.to_system_time().duration_since(std::time::SystemTime::now()).unwrap_or_default()
}

/// Puts a text into a header. Texts that none can hold do not come here.
pub(super) fn put(headers: &mut HeaderMap, name: HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        headers.insert(name, value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(value: &str) -> HeaderMap {
        HeaderMap::from_iter([(UPLOAD_OFFSET, HeaderValue::from_str(value).unwrap())])
    }

    #[test]
    fn tus_takes_whole_numbers_and_nothing_else() {
        for (value, expected) in [
            ("0", Some(0)),
            ("42", Some(42)),
            (" 42 ", Some(42)),
            ("18446744073709551615", Some(u64::MAX)),
            ("18446744073709551616", None),
            ("+1", None),
            ("-1", None),
            ("1.0", None),
            ("0x1", None),
            ("", None),
            ("1, 2", None),
        ] {
            let read = tus_integer(&one(value), &UPLOAD_OFFSET, InvalidField::Offset);
            assert_eq!(read, expected.map(Some).ok_or(InvalidField::Offset), "{value:?}");
        }
        assert_eq!(tus_integer(&HeaderMap::new(), &UPLOAD_OFFSET, InvalidField::Offset), Ok(None));
        let mut twice = one("1");
        twice.append(UPLOAD_OFFSET, HeaderValue::from_static("1"));
        assert!(tus_integer(&twice, &UPLOAD_OFFSET, InvalidField::Offset).is_err());
        assert_eq!(sf_integer(&twice, &UPLOAD_OFFSET), None, "RFC 9651 §4.2: lines are joined");
    }

    /// RFC 9651 §4.2.3, §4.2.4, §4.2.8.
    #[test]
    fn a_structured_field_is_read_or_ignored() {
        for (value, integer, boolean) in [
            ("0", Some(0), None),
            ("-0", Some(0), None),
            ("007", Some(7), None),
            ("999999999999999", Some(999_999_999_999_999), None),
            ("1000000000000000", None, None),
            ("-1", None, None),
            ("+1", None, None),
            ("1.0", None, None),
            ("\"1\"", None, None),
            ("1 2", None, None),
            ("-", None, None),
            ("", None, None),
            ("5;a", Some(5), None),
            ("5; a=1;b=?0", Some(5), None),
            ("5;A", None, None),
            ("5;", None, None),
            ("5 ;a", None, None),
            ("?1", None, Some(true)),
            ("?0", None, Some(false)),
            (" ?0 ", None, Some(false)),
            ("?1;q=2", None, Some(true)),
            ("?2", None, None),
            ("?", None, None),
            ("?11", None, None),
            ("true", None, None),
            ("1", Some(1), None),
        ] {
            assert_eq!(sf_integer(&one(value), &UPLOAD_OFFSET), integer, "{value:?}");
            assert_eq!(sf_boolean(&one(value), &UPLOAD_OFFSET), boolean, "{value:?}");
        }
    }

    #[test]
    fn limits_are_a_dictionary() {
        let hour = Duration::from_secs(3600);
        for (size, remaining, expected) in [
            (None, None, "min-size=0"),
            (Some(5), None, "min-size=0, max-size=5"),
            (Some(u64::MAX), Some(hour), "min-size=0, max-size=999999999999999, max-age=3600"),
        ] {
            assert_eq!(upload_limit(size, remaining), expected);
        }
    }

    #[test]
    fn a_key_is_printable() {
        let key = |value: &str| {
            idempotency_key(&HeaderMap::from_iter([(
                IDEMPOTENCY_KEY,
                HeaderValue::from_bytes(value.as_bytes()).unwrap(),
            )]))
        };
        assert_eq!(key("8e03978e-40d5-43dd").unwrap().as_deref(), Some("8e03978e-40d5-43dd"));
        assert_eq!(key("\"quoted\"").unwrap().as_deref(), Some("\"quoted\""));
        for bad in ["", "  ", "é", &"x".repeat(257)] {
            assert_eq!(key(bad), Err(InvalidField::IdempotencyKey), "{bad:?}");
        }
    }
}
