//! The outermost layer: request ids, keys, error bodies, the log of what was wrong.

use std::any::Any;
use std::convert::Infallible;
use std::fmt::Write as _;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock};
use std::task::{Context, Poll};

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::response::{IntoResponse as _, Response};
use futures_util::FutureExt as _;
use http::header::{self, CONTENT_LENGTH, CONTENT_TYPE, HeaderName, HeaderValue};
use http::{HeaderMap, Method, StatusCode};
use http_body::Body as _;
use serde_json::json;
use tower::{Service, ServiceExt as _};

use super::drain::Rest;
use super::error::{ApiError, Unrendered};
use super::live;
use super::resumable::{self, Mark};
use crate::app::App;

pub(super) const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// The id under which a request is logged and answered.
#[derive(Debug, Clone)]
pub(super) struct RequestId(pub(super) Arc<str>);

/// Every path of the server, and around it what all requests have in common. Called for each request as it is: a layer of the
/// router's would box a service and a future each time.
#[derive(Clone)]
pub(super) struct Edge {
    app: App,
    paths: Router,
}

impl Edge {
    pub(super) fn new(app: App) -> Self {
        Self { paths: super::router(app.clone()), app }
    }

    pub(super) async fn answer(&self, mut request: Request) -> Response {
        let id = request_id(request.headers());
        let head = request.method() == Method::HEAD;
        let path = request.uri().path();
        // These paths need no key even where all others do. Socket.IO shows its key when it connects to the namespace.
        let open = ["/health", "/ready", live::SOCKET_IO].contains(&path)
            || resumable::only_asks_for_options(request.method(), request.headers());
        let mark = Mark::of(request.method(), request.uri(), request.headers());
        let key = api_key(request.headers()).or_else(|| live::query_key(request.uri()));
        let allowed = self.app.access().check(key.as_deref(), open);
        let mut rest = None;
        if !request.body().is_end_stream() {
            let waits = request.headers().contains_key(header::EXPECT);
            let (parts, body) = request.into_parts();
            let body = rest.insert(Rest::default()).lend(body, waits);
            request = Request::from_parts(parts, body);
        }
        request.extensions_mut().insert(id.clone());
        let mut response = match allowed {
            Ok(()) => {
                let (method, uri) = (request.method().clone(), request.uri().clone());
                let mut response = run(self.paths.clone(), request).await;
                if response.status().is_client_error() || response.status().is_server_error() {
                    let error = error_of(&mut response);
                    log(&error, &id, &method, uri.path());
                    render(&mut response, &error, &id, head);
                }
                response
            }
            Err(error) => {
                drop(request);
                let error = ApiError::from(error);
                let mut response = Response::new(Body::empty());
                *response.status_mut() = error.status;
                response.headers_mut().extend(error.headers.clone());
                render(&mut response, &error, &id, head);
                response
            }
        };
        if let Some(rest) = rest {
            rest.drain(&mut response);
        }
        let headers = response.headers_mut();
        if let Ok(id) = HeaderValue::from_str(&id.0) {
            headers.insert(X_REQUEST_ID, id);
        }
        headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        if let Some(mark) = mark {
            mark.put(headers);
        }
        // A page of another origin is answered with more (see `super::cors`): a cache must not mix the two.
        headers.insert(header::VARY, HeaderValue::from_static("origin"));
        response
    }
}

impl Service<Request> for Edge {
    type Response = Response;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request) -> Self::Future {
        let edge = self.clone();
        Box::pin(async move { Ok(edge.answer(request).await) })
    }
}

/// What a path answers. A panic costs one request: nothing of it is used any more.
async fn run(paths: Router, request: Request) -> Response {
    match AssertUnwindSafe(paths.oneshot(request)).catch_unwind().await {
        Ok(Ok(response)) => response,
        Ok(Err(never)) => match never {},
        Err(cause) => panicked(&*cause),
    }
}

fn panicked(cause: &(dyn Any + Send)) -> Response {
    let text = cause.downcast_ref::<String>().map(String::as_str);
    let text = text.or_else(|| cause.downcast_ref::<&str>().copied()).unwrap_or("a panic without a message");
    ApiError::panicked(format!("panic: {text}")).into_response()
}

/// What a failed response stands for. One that bears no error of ours comes from a library: its text is not shown.
fn error_of(response: &mut Response) -> Arc<ApiError> {
    if let Some(Unrendered(error)) = response.extensions_mut().remove::<Unrendered>() {
        return error;
    }
    let status = response.status();
    let code = match status {
        StatusCode::NOT_FOUND => "not_found",
        StatusCode::PAYLOAD_TOO_LARGE => "body_too_large",
        status if status.is_client_error() => "invalid_request",
        _ => "internal_error",
    };
    let reason = status.canonical_reason().unwrap_or("the request failed").to_lowercase();
    Arc::new(ApiError::new(status, code, reason))
}

fn log(error: &ApiError, id: &RequestId, method: &Method, path: &str) {
    let cause = error.cause.as_deref().unwrap_or(&error.message);
    let (status, code, request) = (error.status.as_u16(), error.code, &*id.0);
    if error.status.is_server_error() && error.status != StatusCode::NOT_IMPLEMENTED {
        tracing::error!(%method, path, status, code, cause, request, "request failed");
    } else {
        tracing::debug!(%method, path, status, code, cause, request, "request refused");
    }
}

fn render(response: &mut Response, error: &ApiError, id: &RequestId, head: bool) {
    let mut body = error.members.clone();
    body.insert("success".into(), json!(false));
    body.insert("error".into(), json!(error.message));
    body.insert("message".into(), json!(error.message));
    body.insert("code".into(), json!(error.code));
    body.insert("request_id".into(), json!(&*id.0));
    let body = serde_json::Value::Object(body).to_string();
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, error.media_type());
    headers.insert(CONTENT_LENGTH, HeaderValue::from(body.len()));
    // RFC 9110 §9.3.2: an answer to HEAD has the headers and no body.
    *response.body_mut() = if head { Body::empty() } else { Body::from(body) };
}

/// The id that the client or a proxy gave the request, if it is harmless, else a new one.
fn request_id(headers: &HeaderMap) -> RequestId {
    let given = headers.get(X_REQUEST_ID).and_then(|value| value.to_str().ok());
    let harmless = |id: &&str| {
        (1..=64).contains(&id.len())
            && id.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
    };
    RequestId(given.filter(harmless).map_or_else(new_request_id, Arc::from))
}

/// Unique within a process by its count, between processes by when they began.
fn new_request_id() -> Arc<str> {
    static PROCESS: LazyLock<u32> =
        LazyLock::new(|| crc32fast::hash(crate::domain::TransferId::new().to_string().as_bytes()));
    static COUNT: AtomicU64 = AtomicU64::new(1);
    let mut id = String::with_capacity(24);
    // Writing to a String does not fail.
    _ = write!(id, "{:08x}-{:06x}", *PROCESS, COUNT.fetch_add(1, Ordering::Relaxed));
    id.into()
}

pub(super) fn api_key(headers: &HeaderMap) -> Option<String> {
    let text = |value: &HeaderValue| String::from_utf8_lossy(value.as_bytes()).trim().to_owned();
    if let Some(key) = headers.get("x-api-key") {
        return Some(text(key));
    }
    let authorization = text(headers.get(header::AUTHORIZATION)?);
    let (scheme, key) = authorization.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| key.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use axum::routing::get;

    use super::*;

    #[tokio::test]
    async fn a_panic_is_an_answer() {
        let number = std::hint::black_box(1);
        let text = async move || -> Response { panic!("text {number}") };
        let paths = Router::new()
            .route("/text", get(text))
            .route("/literal", get(async || -> Response { panic!("literal") }))
            .route("/other", get(async || -> Response { std::panic::panic_any(7) }));
        for (path, told) in
            [("/text", "text 1"), ("/literal", "literal"), ("/other", "a panic without a message")]
        {
            let request = Request::get(path).body(Body::empty()).unwrap();
            let mut response = run(paths.clone(), request).await;
            assert_eq!(response.status(), StatusCode::INTERNAL_SERVER_ERROR);
            let error = error_of(&mut response);
            assert_eq!(error.cause.as_deref(), Some(&*format!("panic: {told}")));
            assert!(!error.message.contains(told));
        }
    }
}
