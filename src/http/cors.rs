//! Pages of other origins (CORS): which may use the server, and what they may read.

use axum::body::Body;
use axum::response::Response;
use http::{HeaderName, HeaderValue, Method, Request, StatusCode, header, request};
use tower::util::MapRequest;
use tower::{Layer as _, ServiceExt as _};
use tower_http::cors::{AllowHeaders, AllowOrigin, Cors, CorsLayer};

use super::edge::{self, Edge};
use super::resumable;
use crate::app::App;
use crate::config::CorsOrigins;

/// What is done to a request on its way.
type Change = fn(Request<Body>) -> Request<Body>;

/// Every path of the server, for pages of other origins and for everyone else: who sends no `Origin` needs none of what
/// CORS adds to every answer.
pub(super) struct Routers {
    plain: Edge,
    cross_origin: Cors<MapRequest<Edge, Change>>,
}

impl Routers {
    pub(super) fn new(app: &App) -> Self {
        let plain = Edge::new(app.clone());
        let unmasked = MapRequest::new(plain.clone(), unmask as Change);
        Self { cross_origin: cors(app.cors_origins()).layer(unmasked), plain }
    }

    pub(super) async fn answer(&self, request: Request<Body>) -> Response {
        let mut answer = if request.headers().contains_key(header::ORIGIN) {
            let answer = self.cross_origin.clone().oneshot(mask(request)).await;
            answer.unwrap_or_else(|never| match never {})
        } else {
            self.plain.answer(request).await
        };
        if answer.status() == StatusCode::NO_CONTENT {
            // RFC 9110 §8.6. axum puts it there, and hyper leaves it in the answer to a HEAD.
            answer.headers_mut().remove(header::CONTENT_LENGTH);
        }
        answer
    }
}

/// The request of a page that goes by another method until it has passed the CORS layer.
#[derive(Clone, Copy)]
struct Masked;

/// The CORS layer takes every OPTIONS for a preflight and answers it itself. Only one that says which method is to follow is a
/// preflight (Fetch §3.3.2); another is a page's own, which wants to know what `/uploads/` can do.
fn mask(mut request: Request<Body>) -> Request<Body> {
    let is_preflight = request.headers().contains_key(header::ACCESS_CONTROL_REQUEST_METHOD);
    if request.method() == Method::OPTIONS && !is_preflight {
        *request.method_mut() = Method::GET;
        request.extensions_mut().insert(Masked);
    }
    request
}

fn unmask(mut request: Request<Body>) -> Request<Body> {
    if request.extensions_mut().remove::<Masked>().is_some() {
        *request.method_mut() = Method::OPTIONS;
    }
    request
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
    let exposed: Vec<_> = exposed.into_iter().chain(resumable::EXPOSED).collect();
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
