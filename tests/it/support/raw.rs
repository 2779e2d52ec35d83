//! HTTP/1.1 by hand, for what no client library would do.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

use super::{Answer, FOR_EVER};

/// A connection.
pub struct Raw {
    stream: TcpStream,
    /// What has been read and not yet looked at.
    buffer: Vec<u8>,
}

impl Raw {
    pub async fn connect(address: SocketAddr) -> Self {
        Self::with(address, |_| Ok(())).await
    }

    /// A connection whose client buffers hardly anything: what it doesn't read, and what it could send, waits at the
    /// server's end.
    pub async fn with_small_buffers(address: SocketAddr) -> Self {
        Self::with(address, |socket| {
            socket.set_send_buffer_size(4096)?;
            socket.set_recv_buffer_size(4096)
        })
        .await
    }

    async fn with(address: SocketAddr, set: impl FnOnce(&TcpSocket) -> io::Result<()>) -> Self {
        let socket = TcpSocket::new_v4().expect("a socket");
        set(&socket).expect("options");
        let stream = socket.connect(address).await.expect("a connection");
        Self { stream, buffer: Vec::new() }
    }

    /// Sends everything.
    pub async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.try_send(bytes).await.expect("sent");
    }

    /// Sends everything, if the server takes it.
    pub async fn try_send(&mut self, bytes: impl AsRef<[u8]>) -> io::Result<()> {
        within(FOR_EVER, self.stream.write_all(bytes.as_ref())).await
    }

    /// Sends the head of a request: `PUT /files/a` and its headers.
    pub async fn send_head(&mut self, request: &str, headers: &[(&str, &str)]) {
        self.send(head(request, headers)).await;
    }

    /// Begins a PUT of so many bytes, and waits until the server asks for them: it is at work then.
    pub async fn begin_put(&mut self, path: &str, length: usize) {
        let length = length.to_string();
        self.send_head(&format!("PUT {path}"), &[("Content-Length", &length), ("Expect", "100-continue")])
            .await;
        assert_eq!(self.head().await.status, 100);
    }

    /// Sends a piece of a chunked body; an empty one ends it.
    pub async fn send_chunk(&mut self, bytes: &[u8]) {
        self.try_send_chunk(bytes).await.expect("sent");
    }

    pub async fn try_send_chunk(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.try_send(format!("{:x}\r\n", bytes.len())).await?;
        self.try_send(bytes).await?;
        self.try_send(b"\r\n").await
    }

    /// Says that nothing more will be sent.
    pub async fn end(&mut self) {
        self.stream.shutdown().await.expect("shut down");
    }

    /// The next answer, whole.
    pub async fn answer(&mut self) -> Answer {
        let mut answer = self.head().await;
        if answer.header("transfer-encoding") == "chunked" {
            loop {
                let size = self.line().await;
                let size = usize::from_str_radix(&size, 16).expect("a chunk's size");
                answer.body.extend(self.take(size).await);
                assert_eq!(self.line().await, "");
                if size == 0 {
                    return answer;
                }
            }
        }
        if !answer.header("content-length").is_empty() && answer.status >= 200 && answer.status != 304 {
            let length = answer.header("content-length").parse().expect("a length");
            answer.body = self.take(length).await;
        }
        answer
    }

    /// The head of the next answer.
    pub async fn head(&mut self) -> Answer {
        let status_line = self.line().await;
        let status = status_line.split(' ').nth(1).and_then(|status| status.parse().ok());
        let status = status.unwrap_or_else(|| panic!("a status line, not {status_line:?}"));
        let mut headers = HeaderMap::new();
        loop {
            let line = self.line().await;
            let Some((name, value)) = line.split_once(':') else {
                assert_eq!(line, "");
                return Answer { status, headers, body: Vec::new() };
            };
            let name: HeaderName = name.parse().expect("a header's name");
            headers.append(name, HeaderValue::from_str(value.trim()).expect("a header's value"));
        }
    }

    async fn line(&mut self) -> String {
        loop {
            if let Some(end) = self.buffer.windows(2).position(|two| two == b"\r\n") {
                let line = String::from_utf8(self.buffer[..end].to_vec()).expect("text");
                self.buffer.drain(..end + 2);
                return line;
            }
            self.more().await;
        }
    }

    /// The next bytes.
    pub async fn take(&mut self, length: usize) -> Vec<u8> {
        while self.buffer.len() < length {
            self.more().await;
        }
        let rest = self.buffer.split_off(length);
        std::mem::replace(&mut self.buffer, rest)
    }

    async fn more(&mut self) {
        let read = within(FOR_EVER, self.stream.read_buf(&mut self.buffer)).await.expect("read");
        assert!(read > 0, "the server has hung up after {:?}", String::from_utf8_lossy(&self.buffer));
    }

    /// Everything until the server hangs up, by its own decision: nothing is sent.
    pub async fn until_closed(mut self) -> Vec<u8> {
        loop {
            match within(FOR_EVER, self.stream.read_buf(&mut self.buffer)).await {
                Ok(0) | Err(_) => return self.buffer,
                Ok(_) => {}
            }
        }
    }

    /// Whether something has come that was not looked at.
    pub fn has_answer(&mut self) -> bool {
        !self.buffer.is_empty() || matches!(self.stream.try_read_buf(&mut self.buffer), Ok(1..))
    }
}

/// A request's head.
pub fn head(request: &str, headers: &[(&str, &str)]) -> String {
    let mut head = format!("{request} HTTP/1.1\r\nHost: sft.test\r\n");
    for (name, value) in headers {
        head += &format!("{name}: {value}\r\n");
    }
    head + "\r\n"
}

async fn within<T>(time: Duration, work: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    tokio::time::timeout(time, work).await.expect("the server stands still")
}
