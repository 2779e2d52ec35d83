//! HTTP: the router and what it needs. Each handler extracts, calls one service and renders; no rule stands here.

mod chunks;
mod client;
mod conditional;
mod connection;
mod cors;
mod disposition;
mod drain;
mod edge;
mod error;
mod extract;
mod file_body;
mod files;
mod health;
mod json;
mod listing;
mod live;
mod multipart;
mod options;
mod ping;
mod range;
mod resumable;
mod sender;
pub mod serve;
mod socket;
mod source;
mod stats;
mod status;
mod upload;
mod whole;

use axum::Router;
use axum::routing::{any, get, post};

pub use self::client::Peer;
use self::error::ApiError;
use crate::app::App;

/// Every path and what answers it.
fn router(app: App) -> Router {
    Router::new()
        .route("/upload", post(upload::post))
        .route("/upload_chunk", post(chunks::post))
        .route("/resume_info/{filename}", get(chunks::resume_info))
        .route("/files", get(listing::list))
        .route("/files/", get(listing::list).put(unnamed))
        .route("/files/{filename}", get(files::show).put(upload::put).options(resumable::file_options))
        .route(resumable::COLLECTION, any(resumable::collection))
        .route("/uploads/", any(resumable::collection))
        .route("/uploads/{id}", any(resumable::upload))
        .route("/download/{filename}", get(files::download))
        .route("/status", get(status::all))
        .route("/status/{filename}", get(status::one))
        .route("/stats", get(stats::stats))
        .route("/events", get(live::sse::events))
        .route("/ws", any(live::websocket::upgrade))
        .route(live::SOCKET_IO, live::socketio::route(&app))
        .route("/ping", post(ping::post))
        .route("/health", get(health::health))
        .route("/ready", get(health::ready))
        .fallback(async || ApiError::unknown_path())
        .method_not_allowed_fallback(async || ApiError::method_not_allowed())
        .with_state(app)
}

/// `curl -T - URL/files/`: a body without a name.
async fn unnamed() -> ApiError {
    crate::domain::InvalidFileName::Empty.into()
}
