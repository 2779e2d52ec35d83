//! What the header fields of a request say of it: its protocol, its method, what its answer bears. Pure.

use http::header::{CACHE_CONTROL, CONTENT_RANGE};
use http::{HeaderMap, HeaderValue, Method, Uri};

use super::fields::{
    self, InvalidField, METHOD_OVERRIDE, TUS_RESUMABLE, UPLOAD_COMPLETE, UPLOAD_DRAFT_INTEROP_VERSION,
};
use super::{COLLECTION, draft, tus};
use crate::app::App;
use crate::http::error::ApiError;
use crate::services::resumable::ResumableError;

/// What every answer under [`COLLECTION`] bears, those of the edge included.
#[derive(Clone, Copy)]
pub(in crate::http) struct Mark {
    is_tus: bool,
}

impl Mark {
    /// The mark of the answer to this request, if it is for one of our paths.
    pub(in crate::http) fn of(method: &Method, uri: &Uri, headers: &HeaderMap) -> Option<Self> {
        let rest = uri.path().strip_prefix(COLLECTION)?;
        // tus 1.0.0, "Tus-Resumable": on every answer but those to OPTIONS.
        let is_tus = method != Method::OPTIONS && Dialect::of(headers) != Dialect::Draft;
        (rest.is_empty() || rest.starts_with('/')).then_some(Self { is_tus })
    }

    pub(in crate::http) fn put(self, headers: &mut HeaderMap) {
        if self.is_tus {
            headers.insert(TUS_RESUMABLE, HeaderValue::from_static(tus::VERSION));
        }
        // An answer of yesterday, a 404 or 410 too (RFC 9110 §15.1), would have a client go on from the wrong offset.
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    }
}

/// The protocol that a request speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Dialect {
    Tus,
    Draft,
    /// It does not say: `curl -I`, or a client of the draft's, which need not in a HEAD, DELETE or OPTIONS.
    Either,
}

impl Dialect {
    pub(super) fn of(headers: &HeaderMap) -> Self {
        if headers.contains_key(TUS_RESUMABLE) {
            Self::Tus
        } else if headers.contains_key(UPLOAD_COMPLETE)
            || headers.contains_key(UPLOAD_DRAFT_INTEROP_VERSION)
            || fields::has_content_type(headers, draft::MEDIA_TYPE)
        {
            Self::Draft
        } else {
            Self::Either
        }
    }

    pub(super) fn refuse(self, error: ResumableError, app: &App) -> ApiError {
        match self {
            Self::Tus => tus::refusal(error),
            Self::Draft => draft::refusal(error, app),
            Self::Either => error.into(),
        }
    }
}

/// tus 1.0.0, "X-HTTP-Method-Override": for clients that can't send PATCH or DELETE.
pub(super) fn effective_method(sent: &Method, headers: &HeaderMap) -> Result<Method, InvalidField> {
    let Some(named) = headers.get(METHOD_OVERRIDE) else { return Ok(sent.clone()) };
    let named = named.as_bytes().trim_ascii().to_ascii_uppercase();
    Method::from_bytes(&named).map_err(|_| InvalidField::Method)
}

/// Whether a request needs no key where all others do: OPTIONS that is not something else by its header.
pub(in crate::http) fn only_asks_for_options(method: &Method, headers: &HeaderMap) -> bool {
    method == Method::OPTIONS && !headers.contains_key(METHOD_OVERRIDE)
}

/// How a `PUT /files/{filename}` is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::http) enum Put {
    /// The body is the file.
    Whole,
    /// It begins an upload of the draft's.
    Draft,
    /// It is a range of the file.
    Range,
}

impl Put {
    pub(in crate::http) fn of(headers: &HeaderMap) -> Self {
        if headers.contains_key(CONTENT_RANGE) {
            Self::Range
        } else if fields::sf_boolean(headers, &UPLOAD_COMPLETE).is_some() {
            Self::Draft
        } else {
            Self::Whole
        }
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderName;

    use super::*;

    fn headers(pairs: &[(&str, &str)]) -> HeaderMap {
        let pair = |(name, value): &(&str, &str)| {
            (name.parse::<HeaderName>().unwrap(), HeaderValue::from_str(value).unwrap())
        };
        pairs.iter().map(pair).collect()
    }

    #[test]
    fn header_fields_tell_the_protocols_apart() {
        for (sent, dialect, put) in [
            (vec![], Dialect::Either, Put::Whole),
            (vec![("Tus-Resumable", "1.0.0")], Dialect::Tus, Put::Whole),
            (vec![("Tus-Resumable", "1.0.0"), ("Upload-Complete", "?1")], Dialect::Tus, Put::Draft),
            (vec![("Upload-Complete", "?0")], Dialect::Draft, Put::Draft),
            (vec![("Upload-Complete", "nonsense")], Dialect::Draft, Put::Whole),
            (vec![("Content-Type", "application/partial-upload; x=y")], Dialect::Draft, Put::Whole),
            (vec![("Upload-Draft-Interop-Version", "8")], Dialect::Draft, Put::Whole),
            (vec![("Content-Type", "application/offset+octet-stream")], Dialect::Either, Put::Whole),
            (vec![("Content-Range", "bytes 0-1/2")], Dialect::Either, Put::Range),
        ] {
            let headers = headers(&sent);
            assert_eq!((Dialect::of(&headers), Put::of(&headers)), (dialect, put), "{sent:?}");
        }
    }

    #[test]
    fn a_method_may_be_named_by_a_header() {
        for (sent, named, expected) in [
            ("POST", None, "POST"),
            ("POST", Some("PATCH"), "PATCH"),
            ("POST", Some(" patch "), "PATCH"),
            ("GET", Some("DELETE"), "DELETE"),
        ] {
            let headers = headers(
                &named.map(|named| ("X-HTTP-Method-Override", named)).into_iter().collect::<Vec<_>>(),
            );
            let method = effective_method(&sent.parse().unwrap(), &headers).unwrap();
            assert_eq!(method, expected);
        }
        assert!(effective_method(&Method::POST, &headers(&[("X-HTTP-Method-Override", "a b")])).is_err());
        // Else OPTIONS, which needs no key, could delete.
        assert!(only_asks_for_options(&Method::OPTIONS, &HeaderMap::new()));
        let overridden = headers(&[("X-HTTP-Method-Override", "DELETE")]);
        assert!(!only_asks_for_options(&Method::OPTIONS, &overridden));
    }

    #[test]
    fn every_answer_under_our_paths_is_marked() {
        let tus = headers(&[("Tus-Resumable", "1.0.0")]);
        let draft = headers(&[("Upload-Complete", "?1")]);
        for (method, path, sent, expected) in [
            (Method::POST, "/uploads", &tus, Some(true)),
            (Method::POST, "/uploads/", &HeaderMap::new(), Some(true)),
            (Method::PATCH, "/uploads/x?y", &tus, Some(true)),
            (Method::PATCH, "/uploads/x/y", &draft, Some(false)),
            (Method::OPTIONS, "/uploads/", &tus, Some(false)),
            (Method::GET, "/uploadsx", &tus, None),
            (Method::GET, "/files/uploads", &tus, None),
        ] {
            let mark = Mark::of(&method, &path.parse().unwrap(), sent);
            assert_eq!(mark.map(|mark| mark.is_tus), expected, "{method} {path}");
        }
    }
}
