//! Conditional requests (RFC 9110 §13). Pure.

use std::time::{Duration, SystemTime};

use http::{HeaderMap, HeaderName, header};

use crate::domain::Digest;
use crate::store::status::Condition;

/// What a file is compared by.
#[derive(Debug, Clone)]
pub(super) struct Validators {
    /// The entity tag, quotes and weakness included.
    pub(super) etag: String,
    /// When its content last changed.
    pub(super) modified: SystemTime,
}

/// What the conditions of a GET or HEAD say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Send it; `Range` counts only if this says so.
    Send {
        /// `If-Range` is absent or holds.
        ranges: bool,
    },
    /// 304.
    NotModified,
    /// 412.
    Failed,
}

/// Evaluates the conditions of a GET or HEAD in the order of RFC 9110 §13.2.2.
pub(super) fn evaluate(headers: &HeaderMap, current: &Validators) -> Verdict {
    let modified = seconds(current.modified);
    if let Some(tags) = joined(headers, &header::IF_MATCH) {
        if !matches_any(&tags, &current.etag, Comparison::Strong) {
            return Verdict::Failed;
        }
    } else if let Some(since) = date(headers, &header::IF_UNMODIFIED_SINCE)
        && modified > seconds(since)
    {
        return Verdict::Failed;
    }
    if let Some(tags) = joined(headers, &header::IF_NONE_MATCH) {
        if matches_any(&tags, &current.etag, Comparison::Weak) {
            return Verdict::NotModified;
        }
    } else if let Some(since) = date(headers, &header::IF_MODIFIED_SINCE)
        && modified <= seconds(since)
    {
        return Verdict::NotModified;
    }
    Verdict::Send { ranges: if_range(headers, current) }
}

/// RFC 9110 §13.1.5: an entity tag by strong comparison, or the exact date (which is only strong where the file has not
/// changed for a while; that is how the clock's whole seconds are made up for).
fn if_range(headers: &HeaderMap, current: &Validators) -> bool {
    let Some(value) = headers.get(header::IF_RANGE) else { return true };
    let Ok(value) = value.to_str() else { return false };
    let value = value.trim();
    if value.starts_with('"') || value.starts_with("W/") {
        return matches_any(value, &current.etag, Comparison::Strong);
    }
    let settled =
        SystemTime::now().duration_since(current.modified).is_ok_and(|age| age > Duration::from_secs(1));
    settled && httpdate::parse_http_date(value).is_ok_and(|date| seconds(date) == seconds(current.modified))
}

/// What must stand under a name for a PUT to publish there. `overwrite` is the option of that name.
pub(super) fn for_upload(headers: &HeaderMap, overwrite: bool) -> Condition {
    if !overwrite {
        return Condition::New;
    }
    if let Some(tags) = joined(headers, &header::IF_MATCH) {
        return match tags.trim() {
            "*" => Condition::Matches(None),
            // Tags that are no digest match nothing of ours; weak ones never match strongly.
            tags => Condition::Matches(Some(digests(tags, Comparison::Strong))),
        };
    }
    match joined(headers, &header::IF_NONE_MATCH) {
        None => Condition::Any,
        Some(tags) if tags.trim() == "*" => Condition::New,
        Some(tags) => Condition::MatchesNone(digests(&tags, Comparison::Weak)),
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Comparison {
    Strong,
    Weak,
}

fn matches_any(tags: &str, current: &str, comparison: Comparison) -> bool {
    tags.trim() == "*"
        || entity_tags(tags, comparison).any(|tag| {
            let current = match comparison {
                Comparison::Strong => current,
                Comparison::Weak => current.strip_prefix("W/").unwrap_or(current),
            };
            tag == current
        })
}

fn digests(tags: &str, comparison: Comparison) -> Vec<Digest> {
    entity_tags(tags, comparison).filter_map(|tag| tag.trim_matches('"').parse().ok()).collect()
}

/// The entity tags of a list (RFC 9110 §8.8.3), with their quotes. Strong comparison leaves out weak ones; weak
/// comparison takes them without their mark.
fn entity_tags(list: &str, comparison: Comparison) -> impl Iterator<Item = &str> {
    let mut rest = list;
    std::iter::from_fn(move || {
        loop {
            rest = rest.trim_start_matches([' ', '\t', ',']);
            let weak = rest.starts_with("W/");
            let quoted = rest.strip_prefix("W/").unwrap_or(rest);
            let end = quoted.strip_prefix('"')?.find('"')? + 2;
            let (tag, after) = quoted.split_at(end);
            rest = after;
            if comparison == Comparison::Weak || !weak {
                return Some(tag);
            }
        }
    })
}

fn joined(headers: &HeaderMap, name: &HeaderName) -> Option<String> {
    let values: Vec<_> = headers.get_all(name).iter().filter_map(|value| value.to_str().ok()).collect();
    (!values.is_empty()).then(|| values.join(", "))
}

fn date(headers: &HeaderMap, name: &HeaderName) -> Option<SystemTime> {
    httpdate::parse_http_date(headers.get(name)?.to_str().ok()?).ok()
}

/// HTTP dates have whole seconds.
fn seconds(time: SystemTime) -> u64 {
    time.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    const HEX: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
    const MODIFIED: &str = "Sun, 06 Nov 1994 08:49:37 GMT";
    const EARLIER: &str = "Sun, 06 Nov 1994 08:49:36 GMT";
    const LATER: &str = "Sun, 06 Nov 1994 08:49:38 GMT";

    fn headers(pairs: &[(HeaderName, &str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (name.clone(), HeaderValue::from_str(value).unwrap())).collect()
    }

    fn current(etag: &str) -> Validators {
        let modified = httpdate::parse_http_date(MODIFIED).unwrap() + Duration::from_millis(300);
        Validators { etag: etag.into(), modified }
    }

    #[test]
    fn conditions_are_evaluated_in_the_order_of_rfc_9110_13_2_2() {
        use header::{IF_MATCH, IF_MODIFIED_SINCE, IF_NONE_MATCH, IF_RANGE, IF_UNMODIFIED_SINCE};
        let send = Verdict::Send { ranges: true };
        let no_ranges = Verdict::Send { ranges: false };
        for (conditions, expected) in [
            (vec![], send),
            (vec![(IF_MATCH, "\"a\"")], send),
            (vec![(IF_MATCH, "*")], send),
            (vec![(IF_MATCH, "\"b\", \"a\"")], send),
            (vec![(IF_MATCH, "\"b\"")], Verdict::Failed),
            (vec![(IF_MATCH, "W/\"a\"")], Verdict::Failed),
            (vec![(IF_MATCH, "\"a\""), (IF_UNMODIFIED_SINCE, EARLIER)], send),
            (vec![(IF_UNMODIFIED_SINCE, EARLIER)], Verdict::Failed),
            (vec![(IF_UNMODIFIED_SINCE, MODIFIED)], send),
            (vec![(IF_NONE_MATCH, "\"a\"")], Verdict::NotModified),
            (vec![(IF_NONE_MATCH, "W/\"a\"")], Verdict::NotModified),
            (vec![(IF_NONE_MATCH, "\"x,y\", \"a\"")], Verdict::NotModified),
            (vec![(IF_NONE_MATCH, "*")], Verdict::NotModified),
            (vec![(IF_NONE_MATCH, "\"b\"")], send),
            (vec![(IF_NONE_MATCH, "\"b\""), (IF_MODIFIED_SINCE, LATER)], send),
            (vec![(IF_MODIFIED_SINCE, MODIFIED)], Verdict::NotModified),
            (vec![(IF_MODIFIED_SINCE, LATER)], Verdict::NotModified),
            (vec![(IF_MODIFIED_SINCE, EARLIER)], send),
            (vec![(IF_MODIFIED_SINCE, "yesterday")], send),
            (vec![(IF_MATCH, "\"b\""), (IF_NONE_MATCH, "\"a\"")], Verdict::Failed),
            (vec![(IF_RANGE, "\"a\"")], send),
            (vec![(IF_RANGE, "\"b\"")], no_ranges),
            (vec![(IF_RANGE, "W/\"a\"")], no_ranges),
            (vec![(IF_RANGE, MODIFIED)], send),
            (vec![(IF_RANGE, LATER)], no_ranges),
            (vec![(IF_RANGE, "nonsense")], no_ranges),
        ] {
            assert_eq!(evaluate(&headers(&conditions), &current("\"a\"")), expected, "{conditions:?}");
        }
    }

    #[test]
    fn a_weak_tag_never_matches_strongly() {
        let current = current("W/\"a\"");
        assert_eq!(evaluate(&headers(&[(header::IF_MATCH, "W/\"a\"")]), &current), Verdict::Failed);
        assert_eq!(evaluate(&headers(&[(header::IF_NONE_MATCH, "W/\"a\"")]), &current), Verdict::NotModified);
        assert_eq!(
            evaluate(&headers(&[(header::IF_RANGE, "W/\"a\"")]), &current),
            Verdict::Send { ranges: false }
        );
    }

    #[test]
    fn an_upload_takes_its_condition_from_headers_and_option() {
        let digest: Digest = HEX.parse().unwrap();
        let tag = format!("\"{HEX}\"");
        let weak = format!("W/{tag}");
        for (conditions, overwrite, expected) in [
            (vec![], true, Condition::Any),
            (vec![], false, Condition::New),
            (vec![(header::IF_NONE_MATCH, "*")], true, Condition::New),
            (vec![(header::IF_MATCH, "*")], true, Condition::Matches(None)),
            (vec![(header::IF_MATCH, tag.as_str())], true, Condition::Matches(Some(vec![digest]))),
            (vec![(header::IF_MATCH, weak.as_str())], true, Condition::Matches(Some(vec![]))),
            (vec![(header::IF_MATCH, "\"other\"")], true, Condition::Matches(Some(vec![]))),
            (vec![(header::IF_NONE_MATCH, weak.as_str())], true, Condition::MatchesNone(vec![digest])),
        ] {
            assert_eq!(for_upload(&headers(&conditions), overwrite), expected, "{conditions:?}");
        }
    }
}
