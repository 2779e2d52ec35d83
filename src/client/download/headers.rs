//! What the head of an answer to a download means: decided here, from values alone.

use std::ops::Range;

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
            let same = tag.is_some_and(|tag| is_same(headers, tag));
            Some(if fits && same { Plan::Rest } else { Plan::Anew })
        }
        (416, _) => {
            let total = content_range(headers).and_then(|range| range.total);
            Some(if total == Some(have) { Plan::Complete } else { Plan::Anew })
        }
        _ => None,
    }
}

/// Whether a 206 is of the version `tag`, which `If-Range` asked for. A server that sends no ETag with it has compared
/// that, and says so by the 206 (RFC 9110 §15.3.7).
pub(super) fn is_same(headers: &HeaderMap, tag: &str) -> bool {
    headers.get(ETAG).is_none() || strong_tag(headers).as_deref() == Some(tag)
}

/// The bytes that an answer to a request for `have..` in part brings, and how many there are in all, where all of that is
/// told and other ranges can be asked for.
///
/// `tag`: the version of the bytes that are there already.
pub(super) fn piece(headers: &HeaderMap, have: u64, tag: Option<&str>) -> Option<(Range<u64>, u64)> {
    let ContentRange { first: Some(first), end: Some(end), total: Some(total) } = content_range(headers)?
    else {
        return None;
    };
    let same = match tag {
        Some(tag) if have > 0 => is_same(headers, tag),
        _ => strong_tag(headers).is_some(),
    };
    (same && first == have && first < end && end <= total).then_some((first..end, total))
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

/// `Content-Range`: which bytes, up to which (exclusive), of how many.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ContentRange {
    pub(super) first: Option<u64>,
    pub(super) end: Option<u64>,
    pub(super) total: Option<u64>,
}

/// `bytes 5-9/10`, `bytes 5-9/*` or `bytes */10` (RFC 9110 §14.4).
pub(super) fn content_range(headers: &HeaderMap) -> Option<ContentRange> {
    let (range, total) = text(headers, CONTENT_RANGE.as_str())?.strip_prefix("bytes ")?.split_once('/')?;
    let bounds = range.split_once('-');
    let first = bounds.and_then(|(first, _)| first.parse().ok());
    let end = bounds.and_then(|(_, last)| last.parse::<u64>().ok()?.checked_add(1));
    Some(ContentRange { first, end, total: total.parse().ok() })
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
    fn a_piece_must_be_what_was_asked_for_of_a_version_that_can_be_asked_for_again() {
        for (range, etag, have, tag, expected) in [
            ("bytes 0-3/10", Some("\"v1\""), 0, None, Some((0..4, 10))),
            ("bytes 0-9/10", Some("\"v1\""), 0, None, Some((0..10, 10))),
            ("bytes 4-7/10", Some("\"v1\""), 4, Some("\"v1\""), Some((4..8, 10))),
            ("bytes 4-7/10", None, 4, Some("\"v1\""), Some((4..8, 10))),
            ("bytes 4-7/10", Some("\"v2\""), 4, Some("\"v1\""), None),
            ("bytes 0-3/10", None, 0, None, None),
            ("bytes 0-3/10", Some("W/\"v1\""), 0, None, None),
            ("bytes 0-3/*", Some("\"v1\""), 0, None, None),
            ("bytes 1-3/10", Some("\"v1\""), 0, None, None),
            ("bytes 0-10/10", Some("\"v1\""), 0, None, None),
            ("bytes 3-0/10", Some("\"v1\""), 3, Some("\"v1\""), None),
            ("bytes 0-18446744073709551615/10", Some("\"v1\""), 0, None, None),
            ("bytes */10", Some("\"v1\""), 0, None, None),
            ("lines 0-3/10", Some("\"v1\""), 0, None, None),
        ] {
            let mut list = vec![("content-range", range)];
            list.extend(etag.map(|etag| ("etag", etag)));
            assert_eq!(piece(&headers(&list), have, tag), expected, "{range} {etag:?}");
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
