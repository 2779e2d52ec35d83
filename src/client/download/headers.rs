//! What the head of an answer to a download means: decided here, from values alone.

use base64::prelude::{BASE64_STANDARD, Engine as _};
use http::header::{CONTENT_LENGTH, CONTENT_RANGE, ETAG};
use http::{HeaderMap, StatusCode};

use crate::domain::Digest;

/// What is to be done with an answer that is no refusal.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Plan {
    /// The body is the whole file: what is there already is dropped.
    Whole,
    /// The body is what is missing.
    Rest,
    /// Nothing is missing.
    Complete,
    /// The answer does not fit to what is there: drop that, and ask for the whole file.
    Anew,
}

/// Decides. `have` is how many bytes are there, all of them of the version `tag`; 0: the whole file was asked for.
/// `None`: the answer is a refusal, or none to this question.
pub(super) fn plan(status: StatusCode, headers: &HeaderMap, have: u64, tag: Option<&str>) -> Option<Plan> {
    match (status.as_u16(), have) {
        (200, _) => Some(Plan::Whole),
        (206 | 416, 0) => None,
        (206, _) => {
            let fits = content_range(headers).is_some_and(|range| range.first == Some(have));
            // A server that sends no ETag with a 206 has compared If-Range, and says so by the 206 (RFC 9110 §15.3.7).
            let same = headers.get(ETAG).is_none() || strong_tag(headers).as_deref() == tag;
            Some(if fits && same { Plan::Rest } else { Plan::Anew })
        }
        (416, _) => {
            let total = content_range(headers).and_then(|range| range.total);
            Some(if total == Some(have) { Plan::Complete } else { Plan::Anew })
        }
        _ => None,
    }
}

/// The size of the whole file, if the answer tells it.
pub(super) fn total(status: StatusCode, headers: &HeaderMap) -> Option<u64> {
    match status {
        StatusCode::PARTIAL_CONTENT => content_range(headers)?.total,
        _ => text(headers, CONTENT_LENGTH.as_str())?.parse().ok(),
    }
}

/// The ETag, if it is a strong one: only such a one promises the same bytes (RFC 9110 §8.8.1).
pub(super) fn strong_tag(headers: &HeaderMap) -> Option<String> {
    let tag = text(headers, ETAG.as_str())?;
    (tag.len() >= 2 && tag.starts_with('"') && tag.ends_with('"')).then(|| tag.to_owned())
}

/// The SHA-256 of the whole file: `Repr-Digest` (RFC 9530), or else an ETag that is one.
pub(super) fn sha256(headers: &HeaderMap) -> Option<Digest> {
    let digests = headers.get_all("repr-digest").iter().filter_map(|value| value.to_str().ok());
    let mut members =
        digests.flat_map(|line| line.split(',')).filter_map(|member| member.trim().split_once('='));
    let stated = members.find(|(algorithm, _)| *algorithm == "sha-256").and_then(|(_, value)| {
        let value = value.split(';').next()?.trim();
        let bytes = BASE64_STANDARD.decode(value.strip_prefix(':')?.strip_suffix(':')?).ok()?;
        bytes.try_into().ok().map(Digest::new)
    });
    stated.or_else(|| strong_tag(headers)?.trim_matches('"').parse().ok())
}

struct ContentRange {
    first: Option<u64>,
    total: Option<u64>,
}

/// `bytes 5-9/10`, `bytes 5-9/*` or `bytes */10` (RFC 9110 §14.4).
fn content_range(headers: &HeaderMap) -> Option<ContentRange> {
    let (range, total) = text(headers, CONTENT_RANGE.as_str())?.strip_prefix("bytes ")?.split_once('/')?;
    let first = range.split_once('-').and_then(|(first, _)| first.parse().ok());
    Some(ContentRange { first, total: total.parse().ok() })
}

fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name)?.to_str().ok().map(str::trim)
}

#[cfg(test)]
mod tests {
    use http::HeaderName;

    use super::*;

    const HEX: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
    const BASE64: &str = "47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=";

    fn headers(list: &[(&str, &str)]) -> HeaderMap {
        list.iter()
            .map(|(name, value)| (HeaderName::from_bytes(name.as_bytes()).unwrap(), value.parse().unwrap()))
            .collect()
    }

    #[test]
    fn each_answer_has_its_plan() {
        let tag = Some("\"v1\"");
        for (status, range, etag, have, expected) in [
            (200, None, Some("\"v1\""), 0, Some(Plan::Whole)),
            (200, None, Some("\"v2\""), 5, Some(Plan::Whole)),
            (206, Some("bytes 5-9/10"), Some("\"v1\""), 5, Some(Plan::Rest)),
            (206, Some("bytes 5-9/*"), None, 5, Some(Plan::Rest)),
            (206, Some("bytes 0-9/10"), Some("\"v1\""), 5, Some(Plan::Anew)),
            (206, Some("bytes 5-9/10"), Some("\"v2\""), 5, Some(Plan::Anew)),
            (206, Some("bytes 5-9/10"), Some("W/\"v1\""), 5, Some(Plan::Anew)),
            (206, None, Some("\"v1\""), 5, Some(Plan::Anew)),
            (206, Some("bytes 0-9/10"), None, 0, None),
            (416, Some("bytes */5"), None, 5, Some(Plan::Complete)),
            (416, Some("bytes */4"), None, 5, Some(Plan::Anew)),
            (416, None, None, 5, Some(Plan::Anew)),
            (416, None, None, 0, None),
            (404, None, None, 5, None),
            (304, None, None, 5, None),
        ] {
            let mut list = Vec::new();
            list.extend(range.map(|range| ("content-range", range)));
            list.extend(etag.map(|etag| ("etag", etag)));
            let status = StatusCode::from_u16(status).unwrap();
            assert_eq!(plan(status, &headers(&list), have, tag), expected, "{status} {list:?} {have}");
        }
    }

    #[test]
    fn the_digest_is_repr_digest_or_else_a_strong_etag_that_is_one() {
        let quoted = format!("\"{HEX}\"");
        let weak = format!("W/\"{HEX}\"");
        let zeros = format!("\"{}\"", "0".repeat(64));
        let stated = format!("sha-256=:{BASE64}:");
        let among = format!("sha-512=:AAAA:, sha-256=:{BASE64}:;q=1");
        let cut = format!("sha-256=:{}:", &BASE64[1..]);
        for (list, found) in [
            (vec![("repr-digest", stated.as_str())], true),
            (vec![("repr-digest", among.as_str())], true),
            (vec![("repr-digest", "sha-512=:AAAA:"), ("repr-digest", stated.as_str())], true),
            (vec![("repr-digest", stated.as_str()), ("etag", zeros.as_str())], true),
            (vec![("etag", quoted.as_str())], true),
            (vec![("repr-digest", cut.as_str()), ("etag", quoted.as_str())], true),
            (vec![("etag", weak.as_str())], false),
            (vec![("etag", "\"v1\"")], false),
            (vec![("repr-digest", "sha-256=:!!!:")], false),
            (vec![], false),
        ] {
            let expected = found.then(|| HEX.parse().unwrap());
            assert_eq!(sha256(&headers(&list)), expected, "{list:?}");
        }
    }

    #[test]
    fn the_total_is_the_length_or_the_end_of_the_range() {
        let list = headers(&[("content-length", "5"), ("content-range", "bytes 5-9/10")]);
        assert_eq!(total(StatusCode::OK, &list), Some(5));
        assert_eq!(total(StatusCode::PARTIAL_CONTENT, &list), Some(10));
        assert_eq!(total(StatusCode::OK, &headers(&[])), None);
    }
}
