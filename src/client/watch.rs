//! Watching transfers while they run: the server's events (`GET /events`).

use std::time::Duration;

use http::header::HeaderName;
use reqwest::Response;
use serde_json::Value;

use super::api::Client;
use super::error::Error;
use super::retry::Retries;
use crate::domain::FileName;

const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");
/// The longest event: a snapshot of some hundred transfers.
const LONGEST: usize = 8 << 20;

/// One event.
#[derive(Debug, Clone, PartialEq)]
pub struct Told {
    /// What it is called.
    pub event: String,
    /// What it says.
    pub data: Value,
}

/// The events of a server, across lost connections: what ended meanwhile is told when it is reached again.
pub struct Watch {
    client: Client,
    name: Option<FileName>,
    response: Option<Response>,
    parser: Parser,
    /// Attempts since something was heard.
    failed: u32,
}

/// What comes next.
#[derive(Debug)]
pub enum Next {
    /// An event.
    Told(Told),
    /// The connection was lost. It is tried again after this wait, which is taken by the next call.
    Lost(Error, Duration),
}

impl Client {
    /// Watches all transfers, or those of one file.
    ///
    /// # Errors
    /// [`Error`], where the server can't be watched at all.
    pub async fn watch(&self, name: Option<FileName>) -> Result<Watch, Error> {
        let (client, parser) = (self.clone(), Parser::default());
        let mut watch = Watch { client, name, response: None, parser, failed: 0 };
        watch.response = Some(watch.connect().await?);
        Ok(watch)
    }
}

impl Watch {
    /// What comes next. Not cancel-safe: a watch that was given up in the middle may lose an event.
    ///
    /// # Errors
    /// [`Error::Refused`], [`Error::Unexpected`]: the server does not let itself be watched any more.
    pub async fn next(&mut self) -> Result<Next, Error> {
        let lost = match self.heard().await {
            Ok(told) => {
                self.failed = 0;
                return Ok(Next::Told(told));
            }
            Err(error @ (Error::Refused(_) | Error::Unexpected { .. } | Error::Setup(_))) => {
                return Err(error);
            }
            Err(lost) => lost,
        };
        self.response = None;
        self.failed = self.failed.saturating_add(1);
        Ok(Next::Lost(lost, Retries::default().wait(self.failed, None)))
    }

    async fn heard(&mut self) -> Result<Told, Error> {
        let mut response = match self.response.take() {
            Some(response) => response,
            None => {
                if self.failed > 0 {
                    tokio::time::sleep(Retries::default().wait(self.failed, None)).await;
                }
                self.parser.buffer.clear();
                self.connect().await?
            }
        };
        let server = self.client.server();
        loop {
            if let Some(told) = self.parser.next() {
                self.response = Some(response);
                return Ok(told);
            }
            if self.parser.buffer.len() > LONGEST {
                let detail = format!("an event is longer than {LONGEST} bytes");
                return Err(Error::Unexpected { server: server.clone(), detail });
            }
            match self.client.next_piece(&mut response).await? {
                Some(piece) => self.parser.buffer.extend_from_slice(&piece),
                None => {
                    let detail = "the server ended its events".to_owned();
                    return Err(Error::Broken { server: server.clone(), detail });
                }
            }
        }
    }

    async fn connect(&self) -> Result<Response, Error> {
        let mut url = self.client.server.endpoint(&["events"]);
        if let Some(name) = &self.name {
            url.query_pairs_mut().append_pair("filename", name.as_str());
        }
        let mut request = self.client.http.get(url);
        if let Some(id) = &self.parser.id {
            request = request.header(LAST_EVENT_ID, id);
        }
        let response = self.client.send(request, self.client.timeouts.answer).await?;
        self.client.accept(response).await
    }
}

/// Takes events out of a stream (HTML Living Standard, "Server-sent events"; the server's have one line of data).
#[derive(Debug, Default)]
struct Parser {
    buffer: Vec<u8>,
    id: Option<String>,
}

impl Parser {
    /// The next whole event. One that is not understood is passed over.
    fn next(&mut self) -> Option<Told> {
        loop {
            let end = self.buffer.windows(2).position(|two| two == b"\n\n")?;
            let block: Vec<u8> = self.buffer.drain(..end + 2).collect();
            let (mut event, mut data) = (None, None);
            for line in String::from_utf8_lossy(&block).lines() {
                match line.split_once(':').map(|(field, value)| (field, value.trim_start())) {
                    Some(("event", value)) => event = Some(value.to_owned()),
                    Some(("data", value)) => data = serde_json::from_str(value).ok(),
                    Some(("id", value)) => self.id = Some(value.to_owned()),
                    _ => {}
                }
            }
            if let (Some(event), Some(data)) = (event, data) {
                return Some(Told { event, data });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn events_are_taken_out_of_a_stream_wherever_it_is_cut() {
        let text = ": hello\n\nevent: a\ndata: {\"x\": \"é\"}\n\n:\n\nid: 7.0.1\nevent: b\ndata: [1]\n\nevent: c\ndata: {\n\nevent";
        for step in 1..text.len() {
            let (mut parser, mut told) = (Parser::default(), Vec::new());
            for piece in text.as_bytes().chunks(step) {
                parser.buffer.extend_from_slice(piece);
                while let Some(event) = parser.next() {
                    told.push((event.event, event.data));
                }
            }
            assert_eq!(told, [("a".to_owned(), json!({"x": "é"})), ("b".to_owned(), json!([1]))], "{step}");
            assert_eq!(parser.id.as_deref(), Some("7.0.1"));
        }
    }
}
