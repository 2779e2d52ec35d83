//! HTTP: the router and what it needs. Each handler extracts, calls one service and renders; no rule stands here.

mod client;
mod conditional;
mod connection;
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
pub mod serve;
mod stats;
mod status;
mod upload;

use std::any::Any;

use axum::Router;
use axum::body::Body;
use axum::extract::DefaultBodyLimit;
use axum::middleware::from_fn_with_state;
use axum::response::{IntoResponse, Response};
use axum::routing::{any, get, post};
use http::{HeaderName, HeaderValue, Method, Request, header, request};
use tower::ServiceExt as _;
use tower_http::catch_panic::CatchPanicLayer;
use tower_http::cors::{AllowHeaders, AllowOrigin, CorsLayer};

pub use self::client::Peer;
use self::error::ApiError;
use crate::app::App;
use crate::config::CorsOrigins;

/// Every path of the server, for pages of other origins and for everyone else: who sends no `Origin` needs none of what
/// CORS adds to every answer.
#[derive(Clone)]
struct Routers {
    plain: Router,
    cross_origin: Router,
}

impl Routers {
    fn new(app: &App) -> Self {
        let plain = router(app.clone());
        Self { cross_origin: plain.clone().layer(cors(app.cors_origins())), plain }
    }

    async fn answer(self, request: Request<Body>) -> Response {
        let router =
            if request.headers().contains_key(header::ORIGIN) { self.cross_origin } else { self.plain };
        router.oneshot(request).await.unwrap_or_else(|never| match never {})
    }
}

fn router(app: App) -> Router {
    Router::new()
        .route("/upload", post(upload::post))
        .route("/files", get(listing::list))
        .route("/files/", get(listing::list).put(unnamed))
        .route("/files/{filename}", get(files::show).put(upload::put))
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

/// Which pages may use the server, what they may send, and what of an answer they may read.
fn cors(origins: &CorsOrigins) -> CorsLayer {
    let origins = match origins {
        CorsOrigins::Any => AllowOrigin::any(),
        CorsOrigins::Localhost => {
            AllowOrigin::predicate(|origin: &HeaderValue, _: &request::Parts| is_local(origin))
        }
        CorsOrigins::Listed(listed) => {
            AllowOrigin::list(listed.iter().filter_map(|origin| HeaderValue::from_str(origin).ok()))
        }
    };
    let exposed = [
        header::ACCEPT_RANGES,
        header::CONTENT_DISPOSITION,
        header::CONTENT_LENGTH,
        header::CONTENT_RANGE,
        header::ETAG,
        header::LAST_MODIFIED,
        header::LOCATION,
        header::RETRY_AFTER,
        HeaderName::from_static("repr-digest"),
        edge::X_REQUEST_ID,
    ];
    CorsLayer::new()
        .allow_origin(origins)
        .allow_methods([
            Method::GET,
            Method::HEAD,
            Method::POST,
            Method::PUT,
            Method::PATCH,
            Method::DELETE,
            Method::OPTIONS,
        ])
        .allow_headers(AllowHeaders::mirror_request())
        .expose_headers(exposed)
        .max_age(std::time::Duration::from_secs(3600))
}

/// Every port of `localhost` and `127.0.0.1`, with or without TLS.
fn is_local(origin: &HeaderValue) -> bool {
    let host =
        origin.to_str().ok().and_then(|origin| {
            let rest = origin.strip_prefix("http://").or_else(|| origin.strip_prefix("https://"))?;
            Some(rest.rsplit_once(':').map_or(rest, |(host, port)| {
                if port.bytes().all(|b| b.is_ascii_digit()) { host } else { rest }
            }))
        });
    matches!(host, Some("localhost" | "127.0.0.1"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_port_of_this_machine_is_local_and_nothing_else() {
        for (origin, expected) in [
            ("http://localhost", true),
            ("http://localhost:3000", true),
            ("https://127.0.0.1:8443", true),
            ("http://localhost.evil.example", false),
            ("http://evil.example:3000", false),
            ("http://localhost:3000.evil.example", false),
            ("http://localhost:@evil.example", false),
            ("null", false),
            ("localhost:3000", false),
        ] {
            assert_eq!(is_local(&HeaderValue::from_static(origin)), expected, "{origin}");
        }
    }
}
