//! The accept loop: connections, their limits, and a stop that lets transfers finish.

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use http::header::CONTENT_TYPE;
use http::{Request, StatusCode, Version};
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::client::Peer;
use super::connection::{Cut, Guarded, Place};
use super::cors::Routers;
use super::live;
use super::socket;
use super::whole::Whole;
use crate::app::App;

/// Limits of the connections.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Connections at once.
    pub connections: usize,
    /// For a request's header, and between two requests.
    pub header: Duration,
    /// For a write that waits for the peer.
    pub idle: Duration,
    /// For running transfers, once the server is to stop.
    pub grace: Duration,
}

/// The most bytes that hyper reads from a socket at once: large pieces make uploads fast, and there is one a connection.
const READ_BUFFER: usize = 256 << 10;
/// For an upgraded connection (WebSocket) to say goodbye: it has no transfer to finish.
const FAREWELL: Duration = Duration::from_secs(1);
/// For what has arrived to be written, once there are no connections any more.
const LAST: Duration = Duration::from_secs(10);
/// Requests at once on one HTTP/2 connection.
const STREAMS: u32 = 64;

/// Serves until `stop` resolves, then lets what runs finish within the grace and ends the rest.
///
/// # Errors
/// None at present: an accept that fails is tried again.
pub async fn run(listener: TcpListener, app: App, stop: impl Future<Output = ()>) -> io::Result<()> {
    let (limits, uploads) = (app.limits(), app.uploads().clone());
    let routers = Arc::new(Routers::new(&app));
    let room = Arc::new(Semaphore::new(limits.connections));
    let connections = TaskTracker::new();
    // Cancelled when the grace is over.
    let end = CancellationToken::new();
    // What was upgraded is cut sooner.
    let cut = end.child_token();
    let mut stop = pin!(stop);
    loop {
        // Cancel-safe: a permit or connection that was not handed out is not lost.
        let next = async {
            // The semaphore is never closed.
            let permit = Arc::clone(&room).acquire_owned().await.ok();
            (permit, listener.accept().await)
        };
        let (permit, accepted) = tokio::select! {
            () = &mut stop => break,
            next = next => next,
        };
        match accepted {
            Ok((stream, peer)) => {
                let routers = Arc::clone(&routers);
                let (stopping, end, cut) = (app.stopping().clone(), end.clone(), cut.child_token());
                let place = (permit, connections.token());
                connections.spawn(async move {
                    let guard = (Cut::by(cut), place);
                    connection(stream, Peer::new(peer), routers, limits, stopping, end, guard).await;
                });
            }
            Err(error) => {
                // Out of file descriptors, or a peer that was gone at once: neither ends the server.
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
    }
    drop(listener);
    app.stopping().cancel();
    connections.close();
    let open = connections.len();
    if open > 0 {
        tracing::info!(connections = open, grace = ?limits.grace, "stopping: running transfers may finish");
    }
    let farewell = async {
        tokio::time::sleep(FAREWELL).await;
        cut.cancel();
        std::future::pending().await
    };
    let ended = async {
        tokio::select! { () = connections.wait() => {}, () = farewell => {} }
    };
    if tokio::time::timeout(limits.grace, ended).await.is_err() {
        tracing::warn!(connections = connections.len(), "the grace is over: what still runs is ended");
        end.cancel();
        connections.wait().await;
    }
    if tokio::time::timeout(LAST, uploads.ended()).await.is_err() {
        tracing::warn!(
            "the storage is slow: not all that had arrived of unfinished uploads could be written"
        );
    }
    Ok(())
}

async fn connection(
    stream: TcpStream,
    peer: Peer,
    routers: Arc<Routers>,
    limits: Limits,
    stopping: CancellationToken,
    end: CancellationToken,
    (cut, place): (Cut, Place),
) {
    socket::prepare(&stream, peer.address);
    let address = peer.address;
    let upgrading = cut.clone();
    let service = hyper::service::service_fn(move |request: Request<Incoming>| {
        let (mut parts, body) = request.into_parts();
        parts.extensions.insert(peer.clone());
        let body =
            if parts.version == Version::HTTP_2 { Body::new(Whole::new(body)) } else { Body::new(body) };
        let request = Request::from_parts(parts, body);
        let (routers, upgrading) = (Arc::clone(&routers), upgrading.clone());
        async move {
            let answer = routers.answer(request).await;
            if answer.status() == StatusCode::SWITCHING_PROTOCOLS {
                upgrading.upgrade();
            } else if answer.headers().get(CONTENT_TYPE).is_some_and(|kind| kind == live::sse::EVENT_STREAM) {
                upgrading.subscribe();
            }
            Ok::<_, Infallible>(answer)
        }
    });
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.header)
        .max_buf_size(READ_BUFFER)
        .max_headers(100);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(STREAMS)
        .keep_alive_interval(limits.header)
        .keep_alive_timeout(limits.header)
        .initial_stream_window_size(1 << 20)
        .initial_connection_window_size(4 << 20);
    let guarded = Guarded::new(stream, limits.header, limits.idle, cut, Some(place));
    let mut connection = pin!(builder.serve_connection_with_upgrades(TokioIo::new(guarded), service));
    let result = tokio::select! {
        result = connection.as_mut() => result,
        () = end.cancelled() => return,
        () = stopping.cancelled() => {
            connection.as_mut().graceful_shutdown();
            tokio::select! {
                result = connection.as_mut() => result,
                () = end.cancelled() => return,
            }
        }
    };
    if let Err(error) = result {
        // A peer that hangs up or talks nonsense is everyday life.
        tracing::debug!(error = error.as_ref() as &dyn std::error::Error, peer = %address, "connection ended");
    }
}
