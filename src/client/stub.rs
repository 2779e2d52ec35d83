//! A server for the client's tests: answers as a test says, and remembers what it was asked.

use std::future::Future;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::Request;
use axum::response::Response;
use bytes::Bytes;
use futures_util::{StreamExt, stream};
use http::{HeaderMap, Method, Uri};
use tokio::net::{TcpListener, TcpStream};

use super::{Client, Retries, ServerUrl, Timeouts};

/// Retries that don't wait.
pub(super) fn at_once(limit: u32) -> Retries {
    Retries { limit, first_wait: Duration::ZERO }
}

/// A request that the stub has had.
#[derive(Debug, Clone)]
pub(super) struct Seen {
    pub(super) method: Method,
    pub(super) uri: Uri,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
}

impl Seen {
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }
}

pub(super) struct Stub {
    address: SocketAddr,
    seen: Arc<Mutex<Vec<Seen>>>,
}

impl Stub {
    /// Answers request number `n` (from 0) with what `answer` gives; ends with the test's runtime.
    pub(super) async fn answering(answer: impl Fn(usize, &Seen) -> Response + Send + Sync + 'static) -> Self {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let (answer, log) = (Arc::new(answer), Arc::clone(&seen));
        let handler = move |request: Request| {
            let (answer, log) = (Arc::clone(&answer), Arc::clone(&log));
            async move {
                let (head, body) = request.into_parts();
                let body = to_bytes(body, usize::MAX).await.unwrap_or_default();
                let request = Seen { method: head.method, uri: head.uri, headers: head.headers, body };
                let mut log = log.lock().unwrap();
                log.push(request.clone());
                answer(log.len() - 1, &request)
            }
        };
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move { axum::serve(listener, Router::new().fallback(handler)).await });
        Self { address, seen }
    }

    /// Does with every connection what `work` does.
    pub(super) async fn raw<F: Future<Output = ()> + Send + 'static>(
        work: impl Fn(TcpStream) -> F + Send + 'static,
    ) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(work(stream));
            }
        });
        Self { address, seen: Arc::default() }
    }

    /// An address where nothing listens.
    pub(super) async fn gone() -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        Self { address: listener.local_addr().unwrap(), seen: Arc::default() }
    }

    pub(super) fn url(&self) -> ServerUrl {
        ServerUrl::parse(&self.address.to_string(), None).unwrap()
    }

    pub(super) fn client(&self) -> Client {
        Client::new(self.url(), None).unwrap()
    }

    pub(super) fn client_with(&self, timeouts: Timeouts) -> Client {
        Client::with_timeouts(self.url(), None, timeouts).unwrap()
    }

    pub(super) fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }
}

/// An answer with these headers.
pub(super) fn answer(status: u16, headers: &[(&str, &str)], body: impl Into<Body>) -> Response {
    let mut builder = Response::builder().status(status);
    for (name, value) in headers {
        builder = builder.header(*name, *value);
    }
    builder.body(body.into()).unwrap()
}

/// A body that breaks off after these bytes.
pub(super) fn broken_after(bytes: &'static [u8]) -> Body {
    let broken = stream::once(async {
        // The server flushes what it has while the body is pending; otherwise it would drop both at once.
        tokio::task::yield_now().await;
        Err(std::io::Error::other("broken on purpose"))
    });
    Body::from_stream(stream::iter([Ok(Bytes::from_static(bytes))]).chain(broken))
}
