//! The client itself: how a request is sent and an answer read.

use std::future::Future;
use std::time::{Duration, SystemTime};

use http::header::{ACCEPT_ENCODING, HeaderMap, HeaderName, HeaderValue, LOCATION, RETRY_AFTER};
use reqwest::{RequestBuilder, Response, Url};
use serde::de::DeserializeOwned;

use super::answers::{Answer, Health, StatusPage, TransferStatus};
use super::error::{Error, Refusal};
use super::{ServerUrl, parse_retry_after};
use crate::domain::FileName;

/// The header that carries a key.
const API_KEY: HeaderName = HeaderName::from_static("x-api-key");
/// The longest body of an answer that says no. The contract's have a few hundred bytes.
const LONGEST_REFUSAL: usize = 64 << 10;
/// The longest body of an answer in JSON: a status page with some hundred thousand transfers.
const LONGEST_JSON: usize = 256 << 20;

/// How long the client waits before it takes the server for gone.
#[derive(Debug, Clone, Copy)]
pub struct Timeouts {
    /// For a connection, TLS included.
    pub connect: Duration,
    /// For the next bytes of a body, in either direction. A body may take as long as it likes while it moves.
    pub idle: Duration,
    /// For the beginning of an answer, once the request is sent: the server may have to write or to check a large file first.
    pub answer: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        let seconds = Duration::from_secs;
        Self { connect: seconds(10), idle: seconds(60), answer: seconds(300) }
    }
}

/// A connection pool to one server. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Client {
    pub(super) http: reqwest::Client,
    pub(super) server: ServerUrl,
    pub(super) timeouts: Timeouts,
}

impl Client {
    /// A client of this server; `key` is sent with every request. Nothing is connected yet.
    ///
    /// # Errors
    /// [`Error::Setup`] if the key cannot stand in a header, or for TLS if the system has no certificates to trust.
    pub fn new(server: ServerUrl, key: Option<&str>) -> Result<Self, Error> {
        Self::with_timeouts(server, key, Timeouts::default())
    }

    /// As [`Client::new`], with other limits on waiting.
    ///
    /// # Errors
    /// As [`Client::new`].
    pub fn with_timeouts(server: ServerUrl, key: Option<&str>, timeouts: Timeouts) -> Result<Self, Error> {
        // An error says that a provider is there already: another client of this process put it there.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let mut headers = HeaderMap::new();
        // A body that a proxy has compressed could be neither resumed nor compared with its digest.
        headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        if let Some(key) = key {
            let mut key = HeaderValue::from_str(key).map_err(|_| {
                Error::Setup("the API key holds characters that no header may hold".to_owned())
            })?;
            key.set_sensitive(true);
            headers.insert(API_KEY, key);
        }
        let mut builder = reqwest::Client::builder()
            .user_agent(concat!("sft/", env!("CARGO_PKG_VERSION")))
            .default_headers(headers)
            .connect_timeout(timeouts.connect)
            // A redirect would hand the key to whoever it names, and a body that was streamed cannot be sent twice.
            .redirect(reqwest::redirect::Policy::none())
            .referer(false)
            // The default window of 64 KiB holds a long fat link to a few MiB a second.
            .http2_initial_stream_window_size(4 << 20)
            .http2_initial_connection_window_size(8 << 20);
        if !server.is_https() {
            // Without TLS no certificates are read: that saves milliseconds, and works in an image that has none.
            builder = builder.tls_certs_only([]);
        }
        if server.is_loopback() {
            builder = builder.no_proxy();
        }
        let http = builder.build().map_err(|error| Error::of(&server, error))?;
        Ok(Self { http, server, timeouts })
    }

    /// The server.
    pub fn server(&self) -> &ServerUrl {
        &self.server
    }

    /// Whether the server lives.
    ///
    /// # Errors
    /// [`Error`]. It is not tried again.
    pub async fn health(&self) -> Result<Answer<Health>, Error> {
        self.get_json(self.server.endpoint(&["health"])).await
    }

    /// The transfers and the queue.
    ///
    /// # Errors
    /// [`Error`]. It is not tried again.
    pub async fn status(&self) -> Result<Answer<StatusPage>, Error> {
        self.get_json(self.server.endpoint(&["status"])).await
    }

    /// The latest transfer of a file.
    ///
    /// # Errors
    /// [`Error`]; 404 `not_found` if there was none. It is not tried again.
    pub async fn transfer(&self, name: &FileName) -> Result<Answer<TransferStatus>, Error> {
        self.get_json(self.server.endpoint(&["status", name.as_str()])).await
    }

    pub(super) async fn get_json<T: DeserializeOwned>(&self, url: Url) -> Result<Answer<T>, Error> {
        let response = self.send(self.http.get(url), self.timeouts.idle).await?;
        self.json(self.accept(response).await?).await
    }

    /// Sends a request whose body, if any, is in memory; waits at most `limit` for the head of the answer.
    pub(super) async fn send(&self, request: RequestBuilder, limit: Duration) -> Result<Response, Error> {
        let answer = self.within(limit, "answered", request.send()).await?;
        answer.map_err(|error| Error::of(&self.server, error))
    }

    /// Passes on what says yes (2xx).
    ///
    /// # Errors
    /// [`Error::Refused`] with what the body of any other answer says.
    pub(super) async fn accept(&self, response: Response) -> Result<Response, Error> {
        if response.status().is_success() { Ok(response) } else { Err(self.refused(response).await) }
    }

    /// Reads an answer that says no.
    pub(super) async fn refused(&self, response: Response) -> Error {
        let status = response.status();
        let header = |name| response.headers().get(name).and_then(|value| value.to_str().ok());
        if status.is_redirection() {
            let to = header(LOCATION).unwrap_or("nowhere");
            let detail = format!("{status} to {to}; if that is the server, give its address with --server");
            return Error::Unexpected { server: self.server.clone(), detail };
        }
        let after = header(RETRY_AFTER).and_then(|text| parse_retry_after(text, SystemTime::now()));
        // The status is known: where the body breaks off, it has to do.
        let body = self.read(response, LONGEST_REFUSAL).await.unwrap_or_default();
        Error::Refused(Box::new(Refusal::new(status, after, &body)))
    }

    /// Reads an answer in JSON.
    pub(super) async fn json<T: DeserializeOwned>(&self, response: Response) -> Result<Answer<T>, Error> {
        let body = self.read(response, LONGEST_JSON).await?;
        let unexpected = |error: serde_json::Error| Error::Unexpected {
            server: self.server.clone(),
            detail: format!("its JSON cannot be read: {error}"),
        };
        let json: serde_json::Value = serde_json::from_slice(&body).map_err(unexpected)?;
        let value = T::deserialize(&json).map_err(unexpected)?;
        Ok(Answer { value, json })
    }

    async fn read(&self, mut response: Response, longest: usize) -> Result<Vec<u8>, Error> {
        let mut body = Vec::new();
        while let Some(piece) = self.next_piece(&mut response).await? {
            if body.len() + piece.len() > longest {
                let detail = format!("its answer is longer than {longest} bytes");
                return Err(Error::Unexpected { server: self.server.clone(), detail });
            }
            body.extend_from_slice(&piece);
        }
        Ok(body)
    }

    /// The next piece of a body; `None` at its proper end.
    ///
    /// Cancel-safe: a piece is either returned or still to come.
    pub(super) async fn next_piece(&self, response: &mut Response) -> Result<Option<bytes::Bytes>, Error> {
        let piece = self.within(self.timeouts.idle, "sent any data", response.chunk()).await?;
        piece.map_err(|error| Error::of(&self.server, error))
    }

    async fn within<T>(
        &self,
        limit: Duration,
        awaited: &'static str,
        work: impl Future<Output = T>,
    ) -> Result<T, Error> {
        tokio::time::timeout(limit, work).await.map_err(|_| self.timed_out(awaited, limit))
    }

    pub(super) fn timed_out(&self, awaited: &'static str, after: Duration) -> Error {
        Error::TimedOut { server: self.server.clone(), awaited, after }
    }
}
