//! `GET /ws`: events as JSON text frames, `{"event": …, "data": …}`, both ways.

use axum::extract::State;
use axum::extract::ws::{CloseFrame, Message, Utf8Bytes, WebSocket, WebSocketUpgrade, close_code, rejection};
use axum::response::{IntoResponse, Response};
use futures_util::SinkExt as _;
use http::StatusCode;
use tokio::time::{Instant, MissedTickBehavior};

use super::super::error::ApiError;
use super::{Command, HEARTBEAT, MAX_MESSAGE, Out, Watcher};
use crate::app::App;

/// Read and written at once: frames have some hundred bytes. There is one of each a connection.
const BUFFER: usize = 4 << 10;

/// `GET /ws`.
pub(in crate::http) async fn upgrade(
    State(app): State<App>,
    upgrade: Result<WebSocketUpgrade, rejection::WebSocketUpgradeRejection>,
) -> Result<Response, ApiError> {
    let upgrade = upgrade.map_err(|_| {
        ApiError::new(
            StatusCode::UPGRADE_REQUIRED,
            "upgrade_required",
            "this path takes WebSocket connections",
        )
        .header(http::header::UPGRADE, "websocket")
    })?;
    let upgrade = upgrade
        .read_buffer_size(BUFFER)
        .write_buffer_size(BUFFER)
        .max_message_size(MAX_MESSAGE)
        .max_frame_size(MAX_MESSAGE);
    Ok(upgrade.on_upgrade(move |socket| serve(socket, app)).into_response())
}

/// Serves one client until it leaves, shows no sign of life, or the server stops. A client that stops reading is cut below
/// (see `http::connection`).
async fn serve(mut socket: WebSocket, app: App) {
    let stopping = app.stopping().clone();
    let served = stopping.run_until_cancelled(converse(&mut socket, &app)).await;
    let (code, reason) = match served {
        None => (close_code::AWAY, "the server stops"),
        Some(Ok(())) => (close_code::NORMAL, ""),
        // A client that hangs up is everyday life.
        Some(Err(_)) => return,
    };
    let frame = CloseFrame { code, reason: Utf8Bytes::from_static(reason) };
    _ = socket.send(Message::Close(Some(frame))).await;
}

async fn converse(socket: &mut WebSocket, app: &App) -> Result<(), axum::Error> {
    let mut watcher = Watcher::new(app.hub().clone());
    send(socket, vec![Out::connected()]).await?;
    let mut heartbeat = tokio::time::interval_at(Instant::now() + HEARTBEAT, HEARTBEAT);
    heartbeat.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut heard = true;
    loop {
        tokio::select! {
            outs = watcher.next() => send(socket, outs).await?,
            message = socket.recv() => {
                heard = true;
                let outs = match message {
                    None | Some(Ok(Message::Close(_))) => return Ok(()),
                    Some(Err(error)) => return Err(error),
                    Some(Ok(Message::Text(text))) => obey(&mut watcher, &text),
                    Some(Ok(Message::Binary(_))) => vec![Out::error("messages are text frames")],
                    Some(Ok(Message::Ping(_) | Message::Pong(_))) => Vec::new(),
                };
                send(socket, outs).await?;
            }
            _ = heartbeat.tick() => {
                if !std::mem::take(&mut heard) {
                    return Ok(());
                }
                socket.send(Message::Ping(bytes::Bytes::new())).await?;
            }
        }
    }
}

fn obey(watcher: &mut Watcher, text: &str) -> Vec<Out> {
    match Command::read_frame(text) {
        Ok(command) => watcher.obey(command),
        Err(error) => vec![Out::error(&error.to_string())],
    }
}

/// Sends these together. Waits for the client; meanwhile nothing more is taken from the hub.
async fn send(socket: &mut WebSocket, outs: Vec<Out>) -> Result<(), axum::Error> {
    for out in outs {
        let text = Utf8Bytes::try_from(out.framed()).map_err(axum::Error::new)?;
        socket.feed(Message::Text(text)).await?;
    }
    socket.flush().await
}
