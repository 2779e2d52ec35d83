//! The options of an upload: as form fields, query parameters and headers, with the same names and rules.

use std::borrow::Cow;

use http::HeaderMap;
use http::header::HeaderName;

use crate::domain::{Client, Digest, FileName, InvalidFileName, Priority, parse_boolean};
use crate::store::status::Condition;

/// What a client may say about an upload. A form's field wins over a query parameter, it over a header.
#[derive(Debug, Clone, Default)]
pub(super) struct UploadOptions {
    pub(super) filename: Option<FileName>,
    pub(super) encryption: Option<bool>,
    pub(super) priority: Option<Priority>,
    pub(super) client_id: Option<String>,
    pub(super) sha256: Option<Digest>,
    pub(super) overwrite: Option<bool>,
}

/// An option's value that is not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum OptionError {
    #[error("encryption: {0}")]
    Encryption(&'static str),
    #[error("priority: {0}")]
    Priority(&'static str),
    #[error("sha256: {0}")]
    Sha256(&'static str),
    #[error("overwrite: {0}")]
    Overwrite(&'static str),
    #[error("{0}")]
    Filename(#[from] InvalidFileName),
    #[error("the query can't be read")]
    Query,
    #[error("limit: takes a whole number from 0")]
    Limit,
    #[error("offset: takes a whole number from 0")]
    Offset,
    #[error("Repr-Digest or Content-Digest: takes sha-256=:BASE64: (RFC 9530)")]
    DigestHeader,
}

const BOOLEAN: &str = "takes true, 1, yes, on, false, 0, no or off";

impl OptionError {
    pub(super) const fn code(&self) -> &'static str {
        match self {
            Self::Encryption(_) => "invalid_encryption",
            Self::Priority(_) => "invalid_priority",
            Self::Sha256(_) => "invalid_sha256",
            Self::Overwrite(_) => "invalid_overwrite",
            Self::Filename(_) => "invalid_filename",
            Self::Query => "invalid_query",
            Self::DigestHeader => "invalid_digest",
            Self::Limit => "invalid_limit",
            Self::Offset => "invalid_offset",
        }
    }
}

/// A file comes in one request: both digests are the file's.
const OF_A_WHOLE: &[&str] = &["repr-digest", "content-digest"];
/// A file comes in several: `Content-Digest` is that of one request's content (RFC 9530 §2).
const OF_A_PART: &[&str] = &["repr-digest"];

impl UploadOptions {
    /// Reads what is known before the body of a request that brings a file.
    pub(super) fn read(headers: &HeaderMap, query: Option<&str>) -> Result<Self, OptionError> {
        Self::read_with(headers, query, OF_A_WHOLE)
    }

    /// Reads the same of a request that begins an upload of several requests.
    pub(super) fn read_resumable(headers: &HeaderMap, query: Option<&str>) -> Result<Self, OptionError> {
        Self::read_with(headers, query, OF_A_PART)
    }

    fn read_with(headers: &HeaderMap, query: Option<&str>, digests: &[&str]) -> Result<Self, OptionError> {
        let mut options = Self::default();
        for (header, name) in
            [("x-encryption", "encryption"), ("x-priority", "priority"), ("x-client-id", "client_id")]
        {
            if let Some(value) = headers.get(HeaderName::from_static(header)) {
                options.set(name, &String::from_utf8_lossy(value.as_bytes()))?;
            }
        }
        options.sha256 = digest_header(headers, digests)?;
        for (name, value) in pairs(query.unwrap_or_default()) {
            options.set(&name, &value.map_err(|()| OptionError::Query)?)?;
        }
        Ok(options)
    }

    /// Takes one named value; names that are no option are no concern of ours. An empty value says nothing, as a form's empty
    /// input does.
    pub(super) fn set(&mut self, name: &str, value: &str) -> Result<(), OptionError> {
        if value.trim().is_empty() {
            return Ok(());
        }
        match name {
            "filename" => self.filename = Some(FileName::clean(value)?),
            "encryption" => {
                self.encryption = Some(parse_boolean(value).map_err(|_| OptionError::Encryption(BOOLEAN))?);
            }
            "priority" => {
                let priority =
                    value.parse().map_err(|_| OptionError::Priority("takes an integer from 0 to 10"))?;
                self.priority = Some(priority);
            }
            "client_id" => self.client_id = Some(value.to_owned()),
            "sha256" => {
                let digest = value.parse().map_err(|_| OptionError::Sha256("takes 64 hexadecimal digits"))?;
                self.sha256 = Some(digest);
            }
            "overwrite" => {
                self.overwrite = Some(parse_boolean(value).map_err(|_| OptionError::Overwrite(BOOLEAN))?);
            }
            _ => {}
        }
        Ok(())
    }

    /// The client under the id that it gave itself.
    pub(super) fn client(&self, client: &Client) -> Client {
        match &self.client_id {
            Some(id) => client.clone().with_id(id),
            None => client.clone(),
        }
    }

    pub(super) fn condition(&self, headers: &HeaderMap) -> Condition {
        super::conditional::for_upload(headers, self.overwrite.unwrap_or(true))
    }
}

/// `sha-256` of `Content-Digest` (RFC 9530 §2).
pub(super) fn content_digest(headers: &HeaderMap) -> Result<Option<Digest>, OptionError> {
    digest_header(headers, &["content-digest"])
}

/// `sha-256` of the first of these headers that has it (RFC 9530); other algorithms are ignored.
fn digest_header(headers: &HeaderMap, names: &[&str]) -> Result<Option<Digest>, OptionError> {
    for header in names {
        for value in headers.get_all(*header) {
            let value = value.to_str().map_err(|_| OptionError::DigestHeader)?;
            for member in value.split(',') {
                let Some((algorithm, digest)) = member.split_once('=') else { continue };
                if algorithm.trim() == "sha-256" {
                    return decode_digest(digest.trim()).map(Some).ok_or(OptionError::DigestHeader);
                }
            }
        }
    }
    Ok(None)
}

fn decode_digest(bytes: &str) -> Option<Digest> {
    use base64::Engine as _;
    let base64 = bytes.strip_prefix(':')?.strip_suffix(':')?;
    let digest = base64::engine::general_purpose::STANDARD.decode(base64).ok()?;
    Some(Digest::new(digest.try_into().ok()?))
}

/// `sha-256=:BASE64:` (RFC 9530 §3).
pub(super) fn encode_digest(digest: &Digest) -> String {
    use base64::Engine as _;
    let encoded = base64::engine::general_purpose::STANDARD.encode(digest.as_bytes());
    ["sha-256=:", &encoded, ":"].concat()
}

/// Which part of a list is asked for.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Paging {
    pub(super) offset: usize,
    pub(super) limit: Option<usize>,
}

/// Reads `limit` and `offset` of a query.
pub(super) fn paging(query: Option<&str>) -> Result<Paging, OptionError> {
    let mut paging = Paging::default();
    for (name, value) in pairs(query.unwrap_or_default()) {
        let number = || value.ok().and_then(|value| value.trim().parse().ok());
        match &*name {
            "limit" => paging.limit = Some(number().ok_or(OptionError::Limit)?),
            "offset" => paging.offset = number().ok_or(OptionError::Offset)?,
            _ => {}
        }
    }
    Ok(paging)
}

/// The pairs of a query, decoded (application/x-www-form-urlencoded). `Err`: no valid UTF-8.
pub(super) fn pairs(query: &str) -> impl Iterator<Item = (Cow<'_, str>, Result<Cow<'_, str>, ()>)> {
    query.split('&').filter(|pair| !pair.is_empty()).map(|pair| {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        (decode(name).unwrap_or_default(), decode(value))
    })
}

fn decode(text: &str) -> Result<Cow<'_, str>, ()> {
    if text.contains('+') {
        let spaced = text.replace('+', " ");
        return percent_encoding::percent_decode_str(&spaced)
            .decode_utf8()
            .map(|text| Cow::Owned(text.into_owned()))
            .map_err(|_| ());
    }
    percent_encoding::percent_decode_str(text).decode_utf8().map_err(|_| ())
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn a_query_parameter_wins_over_a_header() {
        let mut headers = HeaderMap::new();
        headers.insert("x-priority", HeaderValue::from_static("3"));
        headers.insert("x-client-id", HeaderValue::from_static("desk"));
        let options =
            UploadOptions::read(&headers, Some("priority=7&filename=a%20b%2Bc+d.txt&unknown=1&overwrite=no"))
                .unwrap();
        assert_eq!(options.priority.map(u8::from), Some(7));
        assert_eq!(options.client_id.as_deref(), Some("desk"));
        assert_eq!(options.filename.unwrap().as_str(), "a b+c d.txt");
        assert_eq!(options.overwrite, Some(false));
    }

    #[test]
    fn bad_values_have_codes_of_their_own() {
        for (query, code) in [
            ("priority=11", "invalid_priority"),
            ("priority=x", "invalid_priority"),
            ("encryption=maybe", "invalid_encryption"),
            ("overwrite=2", "invalid_overwrite"),
            ("sha256=12", "invalid_sha256"),
            ("filename=..", "invalid_filename"),
            ("filename=%ff", "invalid_query"),
        ] {
            assert_eq!(
                UploadOptions::read(&HeaderMap::new(), Some(query)).unwrap_err().code(),
                code,
                "{query}"
            );
        }
    }

    #[test]
    fn a_digest_header_is_read_and_written() {
        let digest = Digest::new([9; 32]);
        let mut headers = HeaderMap::new();
        let value = format!("md5=:AAAA:, {}", encode_digest(&digest));
        headers.insert("repr-digest", HeaderValue::from_str(&value).unwrap());
        assert_eq!(UploadOptions::read(&headers, None).unwrap().sha256, Some(digest));
        headers.insert("repr-digest", HeaderValue::from_static("sha-256=:short:"));
        assert_eq!(UploadOptions::read(&headers, None).unwrap_err(), OptionError::DigestHeader);
    }
}
