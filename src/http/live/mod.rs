//! Events over the network: Socket.IO, WebSocket, Server-Sent Events. One [`Watcher`] for each client, whatever it speaks.

mod command;
pub(super) mod socketio;
pub(super) mod sse;
mod watcher;
pub(super) mod websocket;

use std::borrow::Cow;
use std::time::Duration;

use http::Uri;

use super::options;

pub(super) use self::command::{Command, InvalidCommand};
pub(super) use self::watcher::{Out, Watcher};

/// Where Socket.IO clients connect.
pub(super) const SOCKET_IO: &str = "/socket.io/";
/// The longest message that a client may send: a subscription has some hundred bytes.
const MAX_MESSAGE: usize = 64 << 10;
/// Between two signs of life.
const HEARTBEAT: Duration = Duration::from_secs(25);
/// What a client is greeted with.
const GREETING: &str = "connected to Smart File Transfer";

/// The key in the query, where a browser can't send a header: `?api_key=`.
pub(super) fn query_key(uri: &Uri) -> Option<String> {
    if !["/ws", "/events", SOCKET_IO].contains(&uri.path()) {
        return None;
    }
    let mut pairs = options::pairs(uri.query()?);
    pairs.find(|(name, _)| name == "api_key").and_then(|(_, value)| value.ok().map(Cow::into_owned))
}
