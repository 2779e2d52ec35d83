//! The counters: `GET /stats`.

use axum::Json;
use axum::extract::State;

use crate::app::App;
use crate::domain::stats::Stats;

/// `GET /stats`.
pub(super) async fn stats(State(app): State<App>) -> Json<Stats> {
    Json(app.status().stats())
}
