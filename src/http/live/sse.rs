//! `GET /events`: Server-Sent Events, for `curl -N` and a browser's `EventSource`.

use std::fmt::Write as _;
use std::time::Duration;

use axum::body::Body;
use axum::extract::State;
use axum::response::Response;
use bytes::Bytes;
use futures_util::stream;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderName, HeaderValue};
use http::{HeaderMap, Uri};

use super::super::error::ApiError;
use super::super::options;
use super::{Command, Out, Watcher};
use crate::app::App;
use crate::domain::{FileName, parse_boolean};
use crate::events::Cursor;

/// A line is sent at least so often: proxies take silence for death.
const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// The media type.
pub(in crate::http) const EVENT_STREAM: &str = "text/event-stream";
const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");

/// What of the query is asked for.
#[derive(Default)]
struct Asked {
    names: Vec<FileName>,
    stats: bool,
}

/// `GET /events`: of all transfers, or of those of `?filename=` (several times, if you like); with `?stats=true` the counters
/// too, and these alone if nothing else is asked for.
pub(in crate::http) async fn events(
    State(app): State<App>,
    uri: Uri,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let asked = Asked::read(uri.query().unwrap_or_default())?;
    let mut watcher = Watcher::new(app.hub().clone());
    // One that can't be read is as none: the client is told how things stand.
    let seen = headers.get(LAST_EVENT_ID).and_then(|id| id.to_str().ok()).and_then(|id| id.parse().ok());
    if let Some(seen) = seen {
        watcher.resume(seen);
    }
    let mut first = vec![Out::connected()];
    for command in asked.commands() {
        first.extend(watcher.obey(command));
    }
    let stopping = app.stopping().clone();
    let text = Bytes::from(render(&first, watcher.cursor()));
    let pieces = stream::unfold((watcher, Some(text)), move |(mut watcher, first)| {
        let stopping = stopping.clone();
        async move {
            let piece = match first {
                Some(first) => first,
                // The end of the stream is the end of the answer: the client asks again, of the next server.
                None => stopping.run_until_cancelled(next(&mut watcher)).await?,
            };
            Some((Ok::<_, std::convert::Infallible>(piece), (watcher, None)))
        }
    });
    let mut response = Response::new(Body::from_stream(pieces));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(EVENT_STREAM));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    // nginx gathers answers unless it is told not to.
    headers.insert(HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no"));
    Ok(response)
}

async fn next(watcher: &mut Watcher) -> Bytes {
    match tokio::time::timeout(KEEP_ALIVE, watcher.next()).await {
        Ok(outs) => render(&outs, watcher.cursor()).into(),
        Err(_) => Bytes::from_static(b":\n\n"),
    }
}

/// The last event bears the id by which the stream can be resumed: what stands before it was sent too.
fn render(outs: &[Out], cursor: Option<Cursor>) -> String {
    let mut text = String::with_capacity(outs.iter().map(|out| out.data().get().len() + 64).sum());
    for (number, out) in outs.iter().enumerate() {
        // Writing to a String does not fail.
        if let Some(cursor) = cursor.filter(|_| number + 1 == outs.len()) {
            _ = writeln!(text, "id: {cursor}");
        }
        _ = write!(text, "event: {}\ndata: {}\n\n", out.name(), out.data());
    }
    text
}

impl Asked {
    fn read(query: &str) -> Result<Self, ApiError> {
        let mut asked = Self::default();
        for (name, value) in options::pairs(query) {
            match &*name {
                "filename" => asked.names.push(FileName::clean(&value.unwrap_or_default())?),
                "stats" => {
                    let value = value.unwrap_or_default();
                    asked.stats = value.is_empty()
                        || parse_boolean(&value).map_err(|error| {
                            ApiError::bad_request("invalid_stats", format!("stats: {error}"))
                        })?;
                }
                // `EventSource` can't send headers; a page that loads anew can say what it has seen.
                _ => {}
            }
        }
        Ok(asked)
    }

    fn commands(self) -> impl Iterator<Item = Command> {
        let all = self.names.is_empty() && !self.stats;
        let names = self.names.into_iter().map(Command::SubscribeStatus);
        let stats = self.stats.then_some(Command::SubscribeStats);
        all.then_some(Command::SubscribeAll).into_iter().chain(names).chain(stats)
    }
}
