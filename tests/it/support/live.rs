//! Clients of events, by hand.

use futures_util::{SinkExt as _, StreamExt as _};
use http::HeaderMap;
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::{Error, Message};

use super::{FOR_EVER, TestApp};

/// An event and its data.
pub type Told = (String, Value);

/// A WebSocket.
pub struct Ws(WebSocketStream<TcpStream>);

impl Ws {
    /// One at this path.
    pub async fn connect(app: &TestApp, path: &str) -> Result<Self, Box<Error>> {
        let stream = TcpStream::connect(app.address).await.expect("a connection");
        let url = format!("ws://{}{path}", app.address);
        Ok(Self(tokio_tungstenite::client_async(url, stream).await.map_err(Box::new)?.0))
    }

    pub async fn send(&mut self, text: impl Into<String>) {
        self.0.send(Message::text(text.into())).await.expect("sent");
    }

    /// Sends what the server may not take: it may hang up in the middle of it.
    pub async fn send_in_vain(&mut self, text: String) {
        let sent = self.0.send(Message::text(text));
        _ = tokio::time::timeout(FOR_EVER, sent).await.expect("the server stands still");
    }

    /// The next text; `None` once the server has hung up.
    pub async fn text(&mut self) -> Option<String> {
        loop {
            let next = tokio::time::timeout(FOR_EVER, self.0.next()).await.expect("the server says nothing");
            match next {
                Some(Ok(Message::Text(text))) => return Some(text.to_string()),
                Some(Ok(Message::Close(_)) | Err(_)) | None => return None,
                Some(Ok(_)) => {}
            }
        }
    }
}

/// A client of `/ws`.
pub struct Plain(pub Ws);

/// A client of `/socket.io/` over WebSocket (Engine.IO 4, Socket.IO 5).
pub struct SocketIo(pub Ws);

/// A client of `/events`.
pub struct Sse {
    body: futures_util::stream::BoxStream<'static, reqwest::Result<bytes::Bytes>>,
    text: String,
    /// Of the last event that bore one.
    pub id: Option<String>,
}

/// What all of them do.
pub trait Watch {
    async fn next(&mut self) -> Option<Told>;

    /// The events up to the first one of which this is so, with it.
    async fn until(&mut self, is_so: impl Fn(&Told) -> bool) -> Vec<Told> {
        let mut seen = Vec::new();
        loop {
            seen.push(self.next().await.unwrap_or_else(|| panic!("the server hung up after {seen:?}")));
            if seen.last().is_some_and(&is_so) {
                return seen;
            }
        }
    }

    /// The next event, which has this name.
    async fn expect(&mut self, name: &str) -> Value {
        let (event, data) = self.next().await.expect("an event");
        assert_eq!(event, name, "{data}");
        data
    }
}

impl Plain {
    pub async fn connect(app: &TestApp) -> Self {
        let mut client = Self(Ws::connect(app, "/ws").await.expect("a WebSocket"));
        client.expect("connected").await;
        client
    }

    pub async fn ask(&mut self, event: &str, data: Value) {
        self.0.send(json!({"event": event, "data": data}).to_string()).await;
    }
}

impl Watch for Plain {
    async fn next(&mut self) -> Option<Told> {
        let mut message: Value = serde_json::from_str(&self.0.text().await?).expect("JSON");
        Some((message["event"].as_str().expect("an event").to_owned(), message["data"].take()))
    }
}

impl SocketIo {
    pub async fn connect(app: &TestApp) -> Self {
        Self::connect_with(app, "", "{}").await.expect("connected")
    }

    /// With something in the query, and this `auth`.
    pub async fn connect_with(app: &TestApp, query: &str, auth: &str) -> Result<Self, Value> {
        let path = format!("/socket.io/?EIO=4&transport=websocket{query}");
        let mut ws = Ws::connect(app, &path).await.expect("a WebSocket");
        assert!(ws.text().await.expect("a handshake").starts_with("0{"));
        ws.send(format!("40{auth}")).await;
        let mut client = Self(ws);
        let answer = client.packet().await.expect("an answer");
        if let Some(error) = answer.strip_prefix("44") {
            return Err(serde_json::from_str(error).expect("JSON"));
        }
        assert!(answer.starts_with("40"), "{answer}");
        client.expect("connected").await;
        Ok(client)
    }

    pub async fn ask(&mut self, event: &str, data: Value) {
        self.0.send(format!("42{}", json!([event, data]))).await;
    }

    /// The next packet but for the heartbeat, which is answered.
    async fn packet(&mut self) -> Option<String> {
        loop {
            match self.0.text().await?.as_str() {
                // The server may have hung up meanwhile, for what was sent before.
                "2" => self.0.send_in_vain("3".to_owned()).await,
                packet => return Some(packet.to_owned()),
            }
        }
    }
}

impl Watch for SocketIo {
    async fn next(&mut self) -> Option<Told> {
        loop {
            let text = self.packet().await?;
            if let Some(event) = text.strip_prefix("42") {
                return serde_json::from_str(event).expect("an event and its data");
            } else if text == "1" || text.starts_with("41") {
                return None;
            }
        }
    }
}

impl Sse {
    pub async fn connect(app: &TestApp, query: &str, headers: HeaderMap) -> Self {
        let request = app.http.get(app.url(&format!("/events{query}"))).headers(headers);
        let response = request.send().await.expect("an answer");
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        let mut client = Self { body: response.bytes_stream().boxed(), text: String::new(), id: None };
        client.expect("connected").await;
        client
    }
}

impl Watch for Sse {
    async fn next(&mut self) -> Option<Told> {
        loop {
            if let Some((event, rest)) = self.text.split_once("\n\n") {
                let (mut name, mut data) = (None, None);
                for line in event.lines() {
                    match line.split_once(": ") {
                        Some(("event", value)) => name = Some(value.to_owned()),
                        Some(("data", value)) => data = Some(serde_json::from_str(value).expect("JSON")),
                        Some(("id", value)) => self.id = Some(value.to_owned()),
                        _ => {}
                    }
                }
                self.text = rest.to_owned();
                if let (Some(name), Some(data)) = (name, data) {
                    return Some((name, data));
                }
                continue;
            }
            let piece =
                tokio::time::timeout(FOR_EVER, self.body.next()).await.expect("the server says nothing");
            self.text += std::str::from_utf8(&piece?.ok()?).expect("UTF-8");
        }
    }
}
