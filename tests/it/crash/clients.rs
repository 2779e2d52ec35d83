//! Clients that upload until the server is gone, and remember what they were told.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use futures_util::stream;
use reqwest::{Body, Client, RequestBuilder, StatusCode, Url};
use serde_json::Value;
use tokio::task::JoinHandle;

use super::content;
use crate::support::random::Random;
use crate::support::{http_client, sha256};

/// One upload, as its client has seen it.
#[derive(Debug, Clone)]
pub struct Attempt {
    pub name: String,
    /// Sent as its `client_id`.
    pub tag: String,
    pub size: u64,
    pub sha256: String,
    pub sealed: bool,
    /// Moments are numbered in the order in which they came.
    pub began: u64,
    pub outcome: Outcome,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// A 2xx was seen.
    Acknowledged { at: u64 },
    /// All of it may have been sent, and no answer came.
    Unknown,
    /// It was refused, or never sent to its end: it must never be seen.
    Nothing,
}

impl Attempt {
    pub fn is_acknowledged(&self) -> bool {
        matches!(self.outcome, Outcome::Acknowledged { .. })
    }
}

/// Names that all clients write to.
const SHARED: [&str; 10] = [
    "report.pdf",
    "a",
    "übergröße.txt",
    "with spaces.bin",
    "data.tar.gz",
    "日本語.md",
    "b",
    "c",
    "x.json",
    "%41.txt",
];

/// Clients at work.
pub struct Load {
    tasks: Vec<JoinHandle<Vec<Attempt>>>,
}

impl Load {
    pub fn begin(address: SocketAddr, random: &mut Random, round: usize, clients: usize) -> Self {
        let clock = Arc::new(AtomicU64::new(0));
        let client = |number: usize| Uploader {
            server: Url::parse(&format!("http://{address}/")).expect("a URL"),
            // A connection pool of its own.
            http: http_client(),
            clock: Arc::clone(&clock),
            random: random.fork(),
            prefix: format!("{round}-{number}"),
            count: 0,
        };
        let clients: Vec<_> = (0..=clients).map(client).collect();
        let tasks = clients.into_iter().enumerate().map(|(number, client)| {
            // One has uploads that never come to their end.
            if number == 0 { tokio::spawn(client.hang()) } else { tokio::spawn(client.upload()) }
        });
        Self { tasks: tasks.collect() }
    }

    /// Waits until all have noticed that the server is gone; gives what they did.
    pub async fn ended(self) -> Vec<Attempt> {
        let mut attempts = Vec::new();
        for task in self.tasks {
            attempts.extend(task.await.expect("a client"));
        }
        attempts
    }
}

struct Uploader {
    server: Url,
    http: Client,
    clock: Arc<AtomicU64>,
    random: Random,
    prefix: String,
    count: usize,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Put,
    PutOfUnknownLength,
    Form,
    /// With a digest that is not the content's.
    WrongDigest,
    /// Only if nothing has the name.
    New,
    /// The client hangs up in the middle.
    BrokenOff,
}

impl Uploader {
    fn now(&self) -> u64 {
        self.clock.fetch_add(1, Ordering::SeqCst)
    }

    fn url(&self, components: &[&str]) -> Url {
        let mut url = self.server.clone();
        url.path_segments_mut().expect("an http URL").clear().extend(components);
        url
    }

    fn draw_name(&mut self, tag: &str) -> String {
        match self.random.within(0..20) {
            0 => format!("new-{tag}"),
            // Lines of the journal are longest with such.
            1 => format!("long-{tag}-{}", "n".repeat(200)),
            _ => (*self.random.pick(&SHARED)).to_owned(),
        }
    }

    fn draw_size(&mut self) -> u64 {
        // Up to 256 KiB go another way through the server than more.
        const SMALL: u64 = 256 << 10;
        match self.random.within(0..100) {
            0..8 => 0,
            8..12 => 1,
            12..60 => self.random.within(2..4096),
            60..80 => self.random.within(4096..65_536),
            80..88 => self.random.within(SMALL - 1..SMALL + 2),
            88..96 => self.random.within(SMALL..1 << 20),
            _ => self.random.within(1 << 20..6 << 20),
        }
    }

    fn attempt(&mut self) -> (Attempt, Vec<u8>) {
        let tag = format!("{}-{}.", self.prefix, self.count);
        self.count += 1;
        let (name, size) = (self.draw_name(&tag), self.draw_size());
        let bytes = content(&tag, size as usize);
        let sha256 = sha256(&bytes);
        let name = name.trim_end_matches('.').to_owned();
        let sealed = self.random.percent(40);
        (Attempt { name, tag, size, sha256, sealed, began: self.now(), outcome: Outcome::Unknown }, bytes)
    }

    /// Uploads until the server is gone.
    async fn upload(mut self) -> Vec<Attempt> {
        let mut attempts = Vec::new();
        loop {
            let kind = match self.random.within(0..100) {
                0..35 => Kind::Put,
                35..50 => Kind::PutOfUnknownLength,
                50..80 => Kind::Form,
                80..87 => Kind::New,
                87..93 => Kind::WrongDigest,
                _ => Kind::BrokenOff,
            };
            let (mut attempt, bytes) = self.attempt();
            let answer = match self.request(kind, &attempt, bytes).send().await {
                Ok(answer) => Ok((answer.status(), answer.json::<Value>().await)),
                Err(error) => Err(error),
            };
            let gone = match answer {
                Ok((status, Ok(body))) if status.is_success() => {
                    assert_eq!(body["hash"], attempt.sha256, "{kind:?}: {body}");
                    assert_eq!(body["size"], attempt.size, "{body}");
                    assert_eq!(body["status"], "completed", "{body}");
                    assert_eq!(body["filename"], attempt.name, "{body}");
                    attempt.outcome = Outcome::Acknowledged { at: self.now() };
                    false
                }
                // The head of a 2xx has come, and the server is gone before its body: that is an acknowledgement.
                Ok((status, Err(_))) if status.is_success() => {
                    attempt.outcome = Outcome::Acknowledged { at: self.now() };
                    true
                }
                Ok((status, _)) => {
                    let expected = match kind {
                        Kind::WrongDigest => StatusCode::UNPROCESSABLE_ENTITY,
                        _ => StatusCode::CONFLICT,
                    };
                    assert_eq!(status, expected, "{kind:?}");
                    attempt.outcome = Outcome::Nothing;
                    false
                }
                Err(error) => {
                    if kind == Kind::BrokenOff || kind == Kind::WrongDigest || error.is_connect() {
                        attempt.outcome = Outcome::Nothing;
                    }
                    kind != Kind::BrokenOff || error.is_connect()
                }
            };
            attempts.push(attempt);
            if gone {
                return attempts;
            }
        }
    }

    fn request(&self, kind: Kind, attempt: &Attempt, bytes: Vec<u8>) -> RequestBuilder {
        // As long as a client's id can be: the journal is to grow.
        let id = format!("{}{}", attempt.tag, "i".repeat(240));
        let put = self.http.put(self.url(&["files", &attempt.name])).header("X-Client-ID", &id);
        let put = if attempt.sealed { put.header("X-Encryption", "true") } else { put };
        match kind {
            Kind::Put => put.body(bytes),
            Kind::New => put.query(&[("overwrite", "false")]).body(bytes),
            Kind::WrongDigest => put.query(&[("sha256", sha256(b"something else"))]).body(bytes),
            Kind::PutOfUnknownLength => put.body(pieces(bytes, false)),
            Kind::BrokenOff => put.body(pieces(bytes, true)),
            Kind::Form => {
                let boundary = "boundary-of-the-test";
                let mut form = format!(
                    "--{boundary}\r\nContent-Disposition: form-data; name=\"file\"; filename=\"{}\"\r\n\r\n",
                    attempt.name
                )
                .into_bytes();
                form.extend_from_slice(&bytes);
                // A field after the file.
                form.extend_from_slice(
                    format!("\r\n--{boundary}\r\nContent-Disposition: form-data; name=\"encryption\"\r\n\r\n{}\r\n--{boundary}--\r\n", attempt.sealed)
                        .as_bytes(),
                );
                self.http
                    .post(self.url(&["upload"]))
                    .header("X-Client-ID", &id)
                    .header("Content-Type", format!("multipart/form-data; boundary={boundary}"))
                    .body(form)
            }
        }
    }

    /// Has several uploads underway, of names that others write to, that send most of their bytes and never the last.
    async fn hang(mut self) -> Vec<Attempt> {
        let mut attempts = Vec::new();
        let mut requests = Vec::new();
        for _ in 0..4 {
            let (mut attempt, bytes) = self.attempt();
            attempt.outcome = Outcome::Nothing;
            let id = attempt.tag.clone();
            let first = stream::iter([Ok::<_, std::io::Error>(Bytes::from(bytes))]);
            let body = futures_util::StreamExt::chain(first, stream::pending());
            let request = self.http.put(self.url(&["files", &attempt.name])).header("X-Client-ID", id);
            requests.push(tokio::spawn(request.body(Body::wrap_stream(body)).send()));
            attempts.push(attempt);
        }
        for request in requests {
            // Ends when the server is gone.
            let answer = request.await.expect("a request");
            assert!(
                !answer.is_ok_and(|answer| answer.status().is_success()),
                "half an upload was acknowledged"
            );
        }
        attempts
    }
}

impl std::fmt::Debug for Kind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Put => "PUT",
            Self::PutOfUnknownLength => "PUT of unknown length",
            Self::Form => "POST",
            Self::WrongDigest => "PUT with a wrong digest",
            Self::New => "PUT of a new name",
            Self::BrokenOff => "PUT that is broken off",
        })
    }
}

/// A body in pieces, without a length; `broken`: it stops before its last piece.
fn pieces(bytes: Vec<u8>, broken: bool) -> Body {
    let mut bytes = Bytes::from(bytes);
    let mut pieces = Vec::new();
    while !bytes.is_empty() {
        pieces.push(Ok(bytes.split_to(bytes.len().min(100_000))));
    }
    if broken {
        pieces.pop();
        pieces.push(Err(std::io::Error::other("hung up")));
    }
    Body::wrap_stream(stream::iter(pieces))
}
