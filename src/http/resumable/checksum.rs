//! What the body of one request must have: `Upload-Checksum` (tus 1.0.0, "Checksum") and `Content-Digest` (RFC 9530).

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use http::{HeaderMap, header};

use super::fields::{self, InvalidField, UPLOAD_CHECKSUM};
use crate::http::options;
use crate::services::resumable::Checksum;

/// `Tus-Checksum-Algorithm`, the best first.
pub(super) const ALGORITHMS: &str = "sha256,sha1,md5";

/// The checksum of this request's body, if it bears one.
pub(super) fn of_body(headers: &HeaderMap) -> Result<Option<Checksum>, InvalidField> {
    match fields::single(headers, &UPLOAD_CHECKSUM).map_err(|()| InvalidField::Checksum)? {
        Some(checksum) => parse(checksum).map(Some),
        None => {
            let digest = options::content_digest(headers).map_err(|_| InvalidField::Digest)?;
            Ok(digest.map(|digest| Checksum::Sha256(*digest.as_bytes())))
        }
    }
}

/// The checksum in a trailer: `Upload-Checksum` (tus 1.0.0, "checksum-trailer").
pub(super) fn of_trailers(trailers: &HeaderMap) -> Option<Checksum> {
    parse(fields::single(trailers, &UPLOAD_CHECKSUM).ok()??).ok()
}

/// Whether the request announces such a trailer, as it must (RFC 9110 §6.6.2).
pub(super) fn follows(headers: &HeaderMap) -> bool {
    headers.get_all(header::TRAILER).iter().any(|value| {
        let names = value.to_str().unwrap_or_default().split(',');
        names.into_iter().any(|name| name.trim().eq_ignore_ascii_case(UPLOAD_CHECKSUM.as_str()))
    })
}

fn parse(text: &str) -> Result<Checksum, InvalidField> {
    let (algorithm, checksum) = text.split_once(' ').ok_or(InvalidField::Checksum)?;
    let bytes = || BASE64.decode(checksum.trim()).map_err(|_| InvalidField::Checksum);
    fn sized<const N: usize>(bytes: Vec<u8>) -> Result<[u8; N], InvalidField> {
        bytes.try_into().map_err(|_| InvalidField::Checksum)
    }
    match algorithm {
        "sha1" => sized(bytes()?).map(Checksum::Sha1),
        "sha256" => sized(bytes()?).map(Checksum::Sha256),
        "md5" => sized(bytes()?).map(Checksum::Md5),
        _ => Err(InvalidField::Algorithm),
    }
}

#[cfg(test)]
mod tests {
    use http::{HeaderName, HeaderValue};

    use super::*;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        let pairs = pairs.iter();
        pairs
            .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_str(value).unwrap()))
            .collect()
    }

    #[test]
    fn checksums_are_read_by_their_algorithm() {
        // The example of the specification: the SHA-1 of "hello world".
        let sha1 = parse("sha1 Kq5sNclPz7QV2+lfQIuc6R7oRu0=").unwrap();
        let Checksum::Sha1(bytes) = sha1 else { panic!("{sha1:?}") };
        assert_eq!(bytes[..4], [0x2a, 0xae, 0x6c, 0x35]);
        assert!(matches!(parse("md5 XrY7u+Ae7tCTyyK7j1rNww=="), Ok(Checksum::Md5(_))));
        let sha256 = "sha256 uU0nuZNNPgilLlLX2n2r+sSE7+N6U4DukIj3rOLvzek=";
        assert!(matches!(parse(sha256), Ok(Checksum::Sha256(_))));
        for (text, expected) in [
            ("crc32 AAAAAA==", InvalidField::Algorithm),
            ("SHA1 Kq5sNclPz7QV2+lfQIuc6R7oRu0=", InvalidField::Algorithm),
            ("sha1 XrY7u+Ae7tCTyyK7j1rNww==", InvalidField::Checksum),
            ("sha1 not-base64", InvalidField::Checksum),
            ("sha1", InvalidField::Checksum),
            ("", InvalidField::Checksum),
        ] {
            assert_eq!(parse(text), Err(expected), "{text}");
        }
    }

    #[test]
    fn the_body_s_checksum_stands_in_either_header() {
        let digest = "sha-256=:uU0nuZNNPgilLlLX2n2r+sSE7+N6U4DukIj3rOLvzek=:";
        for (sent, expected) in [
            (vec![], None),
            (vec![("content-digest", digest)], Some("sha256")),
            (vec![("content-digest", "md5=:XrY7u+Ae7tCTyyK7j1rNww==:")], None),
            (
                vec![("content-digest", digest), ("upload-checksum", "md5 XrY7u+Ae7tCTyyK7j1rNww==")],
                Some("md5"),
            ),
        ] {
            let read = of_body(&headers(&sent)).unwrap().map(|checksum| match checksum {
                Checksum::Sha1(_) => "sha1",
                Checksum::Sha256(_) => "sha256",
                Checksum::Md5(_) => "md5",
            });
            assert_eq!(read, expected, "{sent:?}");
        }
        let short = of_body(&headers(&[("content-digest", "sha-256=:AAAA:")]));
        assert_eq!(short, Err(InvalidField::Digest));
    }

    #[test]
    fn a_trailer_must_be_announced() {
        for (value, expected) in [
            ("Upload-Checksum", true),
            ("expires, upload-checksum", true),
            ("expires", false),
            ("x-upload-checksum", false),
        ] {
            assert_eq!(follows(&headers(&[("trailer", value)])), expected, "{value}");
        }
        assert!(!follows(&HeaderMap::new()));
    }
}
