//! `Upload-Metadata` (tus 1.0.0, "Creation"). Pure.

use base64::Engine as _;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use http::HeaderMap;

use super::fields::{InvalidField, UPLOAD_METADATA};

/// It is kept for as long as the upload and sent back with every HEAD.
const MOST_BYTES: usize = 8 << 10;

/// Base64 with its padding or without.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &base64::alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// What a client says of its upload.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Metadata<'a> {
    /// As it was sent.
    pub(super) sent: Option<&'a str>,
    pairs: Vec<(&'a str, Vec<u8>)>,
}

impl<'a> Metadata<'a> {
    /// Reads the header. Keys are not empty and are unique; a value is Base64, or not there.
    pub(super) fn read(headers: &'a HeaderMap) -> Result<Self, InvalidField> {
        let Some(sent) = headers.get(UPLOAD_METADATA) else { return Ok(Self::default()) };
        let sent = sent.to_str().map_err(|_| InvalidField::Metadata("takes ASCII only"))?;
        if headers.get_all(UPLOAD_METADATA).iter().count() > 1 {
            return Err(InvalidField::Metadata("takes one header"));
        }
        if sent.len() > MOST_BYTES {
            return Err(InvalidField::Metadata("takes 8192 bytes at most"));
        }
        let mut pairs: Vec<(&str, Vec<u8>)> = Vec::new();
        // Nothing at all is no pair, but no contradiction either.
        for pair in sent.split(',').filter(|_| !sent.trim().is_empty()) {
            let pair = pair.trim();
            let (key, value) = pair.split_once(' ').unwrap_or((pair, ""));
            if key.is_empty() {
                return Err(InvalidField::Metadata("a key is empty"));
            }
            if pairs.iter().any(|(other, _)| *other == key) {
                return Err(InvalidField::Metadata("a key stands there twice"));
            }
            let value = BASE64.decode(value).map_err(|_| InvalidField::Metadata("a value is no Base64"))?;
            pairs.push((key, value));
        }
        Ok(Self { sent: Some(sent).filter(|_| !pairs.is_empty()), pairs })
    }

    /// The options of an upload: the pairs whose values are text, under the names that options have elsewhere. Uppy calls the
    /// name `name` and, in addition, `filename`; where both are there, the latter counts.
    pub(super) fn options(&self) -> impl Iterator<Item = (&str, &str)> {
        let has_filename = self.pairs.iter().any(|(key, value)| *key == "filename" && !value.is_empty());
        self.pairs.iter().filter_map(move |(key, value)| {
            let key = match *key {
                "name" if has_filename => return None,
                "name" => "filename",
                key => key,
            };
            // A value may be anything; what is no text is no option.
            Some((key, str::from_utf8(value).ok()?))
        })
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn headers(value: &[u8]) -> HeaderMap {
        HeaderMap::from_iter([(UPLOAD_METADATA, HeaderValue::from_bytes(value).unwrap())])
    }

    #[test]
    fn pairs_are_read_as_clients_write_them() {
        for (value, expected) in [
            // The example of the specification.
            (
                "filename d29ybGRfZG9taW5hdGlvbl9wbGFuLnBkZg==,is_confidential",
                &[("filename", "world_domination_plan.pdf"), ("is_confidential", "")][..],
            ),
            ("name YS50eHQ=", &[("filename", "a.txt")]),
            ("name YQ==,filename Yg==", &[("filename", "b")]),
            ("filename Yg==,name YQ==", &[("filename", "b")]),
            ("filename ,name YQ==", &[("filename", ""), ("filename", "a")]),
            ("a YQ==, b Yg", &[("a", "a"), ("b", "b")]),
            ("binary /w==,text dA==", &[("text", "t")]),
            ("filename w6k=", &[("filename", "é")]),
            ("", &[]),
            ("  ", &[]),
        ] {
            let headers = headers(value.as_bytes());
            let read = Metadata::read(&headers).unwrap();
            assert_eq!(read.options().collect::<Vec<_>>(), expected, "{value}");
        }
        assert_eq!(Metadata::read(&headers(b"a YQ==")).unwrap().sent, Some("a YQ=="));
        assert_eq!(Metadata::read(&HeaderMap::new()).unwrap().sent, None);
    }

    #[test]
    fn what_is_no_metadata_is_refused() {
        let long = format!("a {}", "YWFh".repeat(MOST_BYTES / 4));
        for value in [
            &b"a !!!"[..],
            b"a YQ==,",
            b",a YQ==",
            b"a YQ==,,b YQ==",
            b"a YQ==,a Yg==",
            b"a YQ== b",
            b"filename \xc3\xa9",
            long.as_bytes(),
        ] {
            let read = Metadata::read(&headers(value)).map(|metadata| metadata.pairs.len());
            assert!(matches!(read, Err(InvalidField::Metadata(_))), "{}", String::from_utf8_lossy(value));
        }
        let mut twice = headers(b"a YQ==");
        twice.append(UPLOAD_METADATA, HeaderValue::from_static("b YQ=="));
        assert!(Metadata::read(&twice).is_err());
    }
}
