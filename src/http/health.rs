//! Whether the server is well: `GET /health`, `GET /ready`.

use axum::Json;
use axum::extract::State;
use http::StatusCode;
use serde::Serialize;

use super::error::ApiError;
use crate::app::{App, NotReady};
use crate::domain::Timestamp;

#[derive(Serialize)]
pub(super) struct Health {
    status: &'static str,
    timestamp: Timestamp,
    version: &'static str,
    uptime_seconds: u64,
}

/// `GET /health`: the process lives and answers.
pub(super) async fn health(State(app): State<App>) -> Json<Health> {
    Json(Health {
        status: "ok",
        timestamp: Timestamp::now(),
        version: env!("CARGO_PKG_VERSION"),
        uptime_seconds: app.uptime().as_secs(),
    })
}

#[derive(Serialize)]
pub(super) struct Ready {
    status: &'static str,
}

/// `GET /ready`: the server can do its work now; else 503.
pub(super) async fn ready(State(app): State<App>) -> Result<Json<Ready>, ApiError> {
    match app.readiness().await {
        Ok(()) => Ok(Json(Ready { status: "ready" })),
        Err(why) => {
            let code = match why {
                NotReady::Draining => "draining",
                NotReady::StorageFailed => "storage_failed",
                NotReady::StorageFull => "storage_full",
            };
            Err(ApiError::new(StatusCode::SERVICE_UNAVAILABLE, code, why.to_string()))
        }
    }
}
