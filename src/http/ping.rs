//! How good the way to the client is: `POST /ping`.

use std::time::{SystemTime, UNIX_EPOCH};

use axum::Json;
use axum::extract::State;
use http::HeaderMap;
use serde::Serialize;
use serde_json::{Map, Value};

use super::client::RequestClient;
use super::error::ApiError;
use super::json::JsonObject;
use super::options::UploadOptions;
use crate::app::App;
use crate::services::network::Quality;

/// The answer to a ping.
#[derive(Serialize)]
pub(super) struct Pong {
    /// Seconds since 1970, by this machine's clock.
    server_timestamp: f64,
    latency_ms: f64,
    network_quality: Quality,
    recommended_chunk_size: u64,
}

/// `POST /ping`.
pub(super) async fn post(
    State(app): State<App>,
    RequestClient(client): RequestClient,
    headers: HeaderMap,
    JsonObject(body): JsonObject,
) -> Result<Json<Pong>, ApiError> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64();
    let ping = Ping::read(&body)?;
    let mut options = UploadOptions::read(&headers, None)?;
    options.client_id = ping.client_id.map(str::to_owned).or(options.client_id);
    let judged = app.network().judge(&options.client(&client).id, ping.latency_ms(now));
    Ok(Json(Pong {
        server_timestamp: now,
        latency_ms: judged.latency_ms,
        network_quality: judged.quality,
        recommended_chunk_size: judged.quality.chunk_size(),
    }))
}

/// What a client says.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Ping<'a> {
    /// Seconds since 1970, by the client's clock.
    timestamp: f64,
    /// How long its last exchange took, by the same clock at both ends.
    rtt_ms: Option<f64>,
    client_id: Option<&'a str>,
}

impl<'a> Ping<'a> {
    fn read(body: &'a Map<String, Value>) -> Result<Self, ApiError> {
        let given = |member| body.get(member).filter(|value| !value.is_null());
        let timestamp = given("timestamp").ok_or_else(|| {
            ApiError::bad_request("missing_timestamp", "timestamp: the client's time in seconds is missing")
        })?;
        let timestamp = timestamp.as_f64().ok_or_else(|| {
            ApiError::bad_request("invalid_timestamp", "timestamp: takes a number of seconds")
        })?;
        let rtt_ms = given("rtt_ms").map(|value| {
            let number = value.as_f64();
            number.ok_or_else(|| ApiError::bad_request("invalid_rtt_ms", "rtt_ms: takes a number"))
        });
        let client_id = given("client_id").map(|value| {
            let text = value.as_str();
            text.ok_or_else(|| ApiError::bad_request("invalid_client_id", "client_id: takes a text"))
        });
        Ok(Self { timestamp, rtt_ms: rtt_ms.transpose()?, client_id: client_id.transpose()? })
    }

    /// What the client has measured itself, else the difference of two clocks, which may well be nonsense.
    fn latency_ms(self, now: f64) -> f64 {
        self.rtt_ms.unwrap_or((now - self.timestamp) * 1000.0)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(body: Value) -> Result<(f64, Option<f64>, Option<String>), &'static str> {
        let Value::Object(body) = body else { panic!("no object") };
        let ping = Ping::read(&body).map_err(|error| error.code)?;
        Ok((ping.timestamp, ping.rtt_ms, ping.client_id.map(str::to_owned)))
    }

    #[test]
    fn members_are_numbers_and_a_text() {
        for (body, expected) in [
            (json!({"timestamp": 1.5}), Ok((1.5, None, None))),
            (json!({"timestamp": 1, "rtt_ms": null, "client_id": null, "x": []}), Ok((1.0, None, None))),
            (
                json!({"timestamp": -1, "rtt_ms": 7, "client_id": "desk"}),
                Ok((-1.0, Some(7.0), Some("desk".into()))),
            ),
            (json!({}), Err("missing_timestamp")),
            (json!({"timestamp": null}), Err("missing_timestamp")),
            (json!({"timestamp": "1"}), Err("invalid_timestamp")),
            (json!({"timestamp": [1]}), Err("invalid_timestamp")),
            (json!({"timestamp": true}), Err("invalid_timestamp")),
            (json!({"timestamp": 1, "rtt_ms": "7"}), Err("invalid_rtt_ms")),
            (json!({"timestamp": 1, "client_id": 7}), Err("invalid_client_id")),
        ] {
            assert_eq!(read(body.clone()), expected, "{body}");
        }
    }

    #[test]
    fn what_the_client_has_measured_wins_over_the_clocks() {
        let ping = Ping { timestamp: 100.0, rtt_ms: None, client_id: None };
        assert_eq!(ping.latency_ms(100.25), 250.0);
        assert_eq!(ping.latency_ms(99.0), -1000.0);
        assert_eq!(Ping { rtt_ms: Some(7.0), ..ping }.latency_ms(99.0), 7.0);
    }
}
