//! Bodies in JSON.

use axum::body::Body;
use axum::extract::{FromRequest, Request};
use http::header::CONTENT_TYPE;
use http::{HeaderMap, StatusCode};
use http_body_util::BodyExt as _;
use serde_json::{Map, Value};

use super::error::ApiError;
use crate::app::App;

/// Bytes that a body in JSON may have.
const MOST: usize = 64 << 10;

/// A body that is one JSON object.
pub(super) struct JsonObject(pub(super) Map<String, Value>);

impl FromRequest<App> for JsonObject {
    type Rejection = ApiError;

    async fn from_request(request: Request, app: &App) -> Result<Self, ApiError> {
        if !is_json(request.headers()) {
            return Err(ApiError::unsupported_media_type("application/json"));
        }
        let body = read(request.into_body(), app).await?;
        let object = serde_json::from_slice(&body);
        object.map(Self).map_err(|_| ApiError::bad_request("invalid_json", "the body is no JSON object"))
    }
}

fn is_json(headers: &HeaderMap) -> bool {
    let media_type = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
    media_type
        .and_then(|value| value.split(';').next())
        .is_some_and(|value| value.trim().eq_ignore_ascii_case("application/json"))
}

async fn read(mut body: Body, app: &App) -> Result<Vec<u8>, ApiError> {
    let mut read = Vec::new();
    loop {
        let frame = tokio::time::timeout(app.idle_timeout(), body.frame()).await;
        let bytes = match frame.map_err(|_| ApiError::timed_out())? {
            None => return Ok(read),
            Some(Err(error)) => return Err(ApiError::broken_body(error.to_string())),
            Some(Ok(frame)) => frame.into_data().unwrap_or_default(),
        };
        if read.len() + bytes.len() > MOST {
            let message = format!("the body is longer than {MOST} bytes");
            let error = ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, "body_too_large", message);
            return Err(error.with("max_size", MOST));
        }
        read.extend_from_slice(&bytes);
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn json_is_told_by_its_media_type() {
        for (value, expected) in [
            (Some("application/json"), true),
            (Some("Application/JSON; charset=utf-8"), true),
            (Some("application/json-seq"), false),
            (Some("application/x-www-form-urlencoded"), false),
            (Some("text/plain"), false),
            (Some(""), false),
            (None, false),
        ] {
            let mut headers = HeaderMap::new();
            if let Some(value) = value {
                headers.insert(CONTENT_TYPE, HeaderValue::from_static(value));
            }
            assert_eq!(is_json(&headers), expected, "{value:?}");
        }
    }
}
