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

use std::any::Any;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::middleware::from_fn_with_state;
use axum::response::{IntoResponse, Response};
use axum::routing::{any, get, post};
use tower_http::catch_panic::CatchPanicLayer;

pub use self::client::Peer;
use self::error::ApiError;
use crate::app::App;

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
        // Uploads count for themselves.
        .layer(DefaultBodyLimit::disable())
        .layer(CatchPanicLayer::custom(panicked))
        .layer(from_fn_with_state(app.clone(), edge::edge))
        .with_state(app)
}

/// `curl -T - URL/files/`: a body without a name.
async fn unnamed() -> ApiError {
    crate::domain::InvalidFileName::Empty.into()
}

fn panicked(cause: Box<dyn Any + Send>) -> Response {
    let text = cause.downcast_ref::<String>().map(String::as_str);
    let text = text.or_else(|| cause.downcast_ref::<&str>().copied()).unwrap_or("a panic without a message");
    ApiError::panicked(format!("panic: {text}")).into_response()
}
