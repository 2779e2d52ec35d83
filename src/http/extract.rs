//! Reading what requests have in common.

use axum::extract::{FromRequestParts, Path};
use http::request::Parts;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use super::error::ApiError;
use crate::domain::{FileName, InvalidFileName};

/// The file name in a path, cleaned.
pub(super) struct Name(pub(super) FileName);

impl<S: Send + Sync> FromRequestParts<S> for Name {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        // What axum can't decode is no UTF-8.
        let raw = Path::<String>::from_request_parts(parts, state).await;
        let Path(raw) = raw.map_err(|_| ApiError::from(InvalidFileName::Empty))?;
        Ok(Self(FileName::clean(&raw)?))
    }
}

/// RFC 3986 §2.3: what may stand in a path as it is.
const RESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// A name as one component of a URL's path, or as the value of `filename*` (RFC 8187).
pub(super) fn encode_component(name: &str) -> String {
    utf8_percent_encode(name, RESERVED).to_string()
}
