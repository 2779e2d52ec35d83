//! Socket.IO, for `socket.io-client` and its like: polling and WebSocket.
//!
//! Each client has a task with a [`Watcher`] of its own. The library never waits for a client: it keeps up to [`QUEUE`]
//! packets for each. What does not fit there waits here, until the hub has told so much more that it was missed and is read
//! from the status; a client that has stopped reading is cut below (see `http::connection`).

use std::convert::Infallible;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::extract::Request;
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, any};
use http::header::{AUTHORIZATION, HeaderMap, HeaderName};
use http::{Method, StatusCode};
use serde_json::Value;
use socketioxide::extract::{Event, SocketRef, TryData};
use socketioxide::handler::ConnectHandler as _;
use socketioxide::{SendError, SocketError, SocketIo};
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio_util::sync::CancellationToken;
use tower::{Service, ServiceExt as _};

use super::super::edge;
use super::super::error::ApiError;
use super::{Command, HEARTBEAT, InvalidCommand, MAX_MESSAGE, Out, SOCKET_IO, Watcher, query_key};
use crate::app::App;
use crate::services::access::AccessError;

/// Packets that wait for one client in the library.
const QUEUE: usize = 256;
/// Messages of one client that wait to be looked at.
const COMMANDS: usize = 64;
/// How soon it is tried again to hand a packet to a client whose queue is full.
const AGAIN: Duration = Duration::from_millis(50);
/// For a client to say what it wants, once it is there.
const CONNECT: Duration = Duration::from_secs(10);
/// The longest URL: a session keeps it.
const LONGEST_URL: usize = 2048;

/// A client's place among those that are allowed: it lasts as long as its session.
#[derive(Clone)]
struct Seat {
    _permit: Arc<OwnedSemaphorePermit>,
}

/// What a session keeps of the headers of its request. A client must not fill the memory with the rest.
const KEPT: [HeaderName; 2] = [HeaderName::from_static("x-api-key"), AUTHORIZATION];

/// What a client sends, on its way to its task.
type Commands = mpsc::Receiver<Result<Command, InvalidCommand>>;

/// Waits, from when a client is admitted until its task begins: its messages, and the sign that it is gone.
#[derive(Clone)]
struct Inbox(Arc<Mutex<Option<Commands>>>, CancellationToken);

/// Everything at [`SOCKET_IO`].
pub(in crate::http) fn route(app: &App) -> MethodRouter<App> {
    let (service, io) = SocketIo::builder()
        .req_path(SOCKET_IO.trim_end_matches('/'))
        .ping_interval(HEARTBEAT)
        .max_buffer_size(QUEUE)
        .max_payload(MAX_MESSAGE as u64)
        .ws_max_message_size(MAX_MESSAGE)
        .ws_max_frame_size(MAX_MESSAGE)
        .connect_timeout(CONNECT)
        .build_svc();
    let serving = app.clone();
    let connect = move |socket: SocketRef| {
        let app = serving.clone();
        async move { serve(&socket, &app).await }
    };
    let checking = app.clone();
    let check = move |socket: SocketRef, TryData(auth): TryData<Value>| {
        let allowed = admit(&checking, &socket, auth.ok().as_ref());
        async move { allowed }
    };
    io.ns("/", connect.with(check));
    let stopping = app.stopping().clone();
    tokio::spawn(async move {
        stopping.cancelled().await;
        // Below the namespace: clients take it for a lost connection, and come back to the next server by themselves.
        io.close().await;
    });
    let app = app.clone();
    any(async move |request: Request| handle(service.clone(), &app, request).await)
}

/// One request of a session, or for one.
async fn handle<S>(service: S, app: &App, mut request: Request) -> Response
where
    S: Service<Request, Response: IntoResponse, Error = Infallible>,
{
    if request.uri().path_and_query().is_some_and(|url| url.as_str().len() > LONGEST_URL) {
        let message = format!("the URL is longer than {LONGEST_URL} bytes");
        return ApiError::new(StatusCode::URI_TOO_LONG, "url_too_long", message).into_response();
    }
    // Read as the library reads it, undecoded: what it takes for the beginning of a session has a seat.
    let begins = !request.uri().query().unwrap_or_default().split('&').any(|pair| pair.starts_with("sid="));
    if begins {
        let Ok(permit) = Arc::clone(app.seats()).try_acquire_owned() else {
            let message = "there are as many subscribers as there may be";
            return ApiError::new(StatusCode::SERVICE_UNAVAILABLE, "too_many_subscribers", message)
                .into_response();
        };
        request.extensions_mut().insert(Seat { _permit: Arc::new(permit) });
        shorten(request.headers_mut());
    }
    let sends = request.method() == Method::POST;
    let answer = async {
        let answer = service.oneshot(request).await;
        answer.map_or_else(|never| match never {}, IntoResponse::into_response)
    };
    if !sends {
        return answer.await;
    }
    // Messages are short: who stands still while it sends one is not waited for.
    let answer = tokio::time::timeout(app.idle_timeout(), answer).await;
    answer.unwrap_or_else(|_| ApiError::timed_out().into_response())
}

/// Takes out headers that nobody reads any more.
fn shorten(headers: &mut HeaderMap) {
    let long = |name: &HeaderName, headers: &HeaderMap| {
        let read = name.as_str().starts_with("sec-websocket-")
            || [http::header::UPGRADE, http::header::CONNECTION].contains(name)
            || KEPT.contains(name);
        !read || headers.get(name).is_some_and(|value| value.len() > 256)
    };
    let names: Vec<_> = headers.keys().filter(|name| long(name, headers)).cloned().collect();
    for name in names {
        headers.remove(name);
    }
}

/// Lets a client in whose key is good, and listens to it from before it knows: nothing that it sends is lost.
fn admit(app: &App, socket: &SocketRef, auth: Option<&Value>) -> Result<(), AccessError> {
    let token =
        auth.and_then(|auth| auth.get("token")).and_then(Value::as_str).filter(|token| !token.is_empty());
    let request = socket.req_parts();
    let key = token.map(str::to_owned).or_else(|| edge::api_key(&request.headers));
    app.access().check(key.or_else(|| query_key(&request.uri)).as_deref(), false)?;
    let (sender, receiver) = mpsc::channel(COMMANDS);
    socket.on_fallback(move |socket: SocketRef, Event(event): Event, TryData(data): TryData<Value>| {
        let command = Command::read(&event, data.ok().as_ref());
        let taken = sender.try_send(command).is_ok();
        async move {
            if !taken {
                _ = socket.emit("error", Out::error("too many messages at once").data());
            }
        }
    });
    let gone = CancellationToken::new();
    socket.extensions.insert(Inbox(Arc::new(Mutex::new(Some(receiver))), gone.clone()));
    socket.on_disconnect(move || async move { gone.cancel() });
    Ok(())
}

/// Serves one client until it is gone.
async fn serve(socket: &SocketRef, app: &App) {
    let Some(Inbox(receiver, gone)) = socket.extensions.remove::<Inbox>() else { return };
    let Some(commands) = receiver.lock().unwrap_or_else(PoisonError::into_inner).take() else { return };
    gone.run_until_cancelled(converse(socket, app, commands)).await;
}

async fn converse(socket: &SocketRef, app: &App, mut commands: Commands) {
    let mut watcher = Watcher::new(app.hub().clone());
    let mut outs = vec![Out::connected()];
    loop {
        for out in outs {
            if emit(socket, &out).await.is_err() {
                return;
            }
        }
        outs = tokio::select! {
            outs = watcher.next() => outs,
            command = commands.recv() => match command {
                Some(Ok(command)) => watcher.obey(command),
                Some(Err(error)) => vec![Out::error(&error.to_string())],
                None => return,
            },
        };
    }
}

/// Hands a packet to the library, as soon as it takes it.
async fn emit(socket: &SocketRef, out: &Out) -> Result<(), SendError> {
    loop {
        match socket.emit(out.name(), out.data()) {
            Err(SendError::Socket(SocketError::InternalChannelFull)) => tokio::time::sleep(AGAIN).await,
            result => return result,
        }
    }
}
