//! Sending chunks, several at a time.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use http::header::CONTENT_TYPE;
use serde::Deserialize;
use tokio::time::Instant;

use super::form::Fields;
use super::plan::Division;
use super::window::Window;
use crate::client::answers::{Answer, ChunkTaken, Uploaded};
use crate::client::body::FileBody;
use crate::client::progress::{Event, Observer};
use crate::client::retry::{self, Backoff, Retryable, Verdict};
use crate::client::upload::Source;
use crate::client::{Client, Error, Upload, UploadError};

/// The chunks of one upload on their way.
pub(super) struct Sending<'a> {
    client: &'a Client,
    upload: &'a Upload,
    source: &'a Source,
    division: Division,
    observer: &'a Observer,
    /// As `observer`, but one outage is told once, not once for each chunk that it hit.
    quieter: Observer,
    /// Never held across an `.await`.
    state: Mutex<State>,
}

struct State {
    window: Window,
    upload_id: Option<String>,
    /// Chunks that have arrived in this run.
    arrived: u64,
}

impl<'a> Sending<'a> {
    pub(super) fn new(
        client: &'a Client,
        upload: &'a Upload,
        source: &'a Source,
        division: Division,
        upload_id: Option<String>,
        observer: &'a Observer,
    ) -> Self {
        let window = Window::new(upload.chunking.connections, Instant::now());
        let state = Mutex::new(State { window, upload_id, arrived: 0 });
        Self { client, upload, source, division, observer, quieter: retry::quieter(observer), state }
    }

    /// Sends these chunks. `None`: the server has taken them all, and waits for more.
    ///
    /// # Errors
    /// Of the first chunk that can't be sent; the others are broken off then.
    pub(super) async fn run(
        &self,
        chunks: impl IntoIterator<Item = u64>,
    ) -> Result<Option<Answer<Uploaded>>, UploadError> {
        let mut waiting = chunks.into_iter().fuse();
        let mut running = FuturesUnordered::new();
        loop {
            while running.len() < self.with(|state| state.window.size()) {
                let Some(number) = waiting.next() else { break };
                running.push(self.chunk(number));
            }
            match running.next().await {
                None => return Ok(None),
                Some(answer) => {
                    // Every chunk is there, also one that is still being sent: the answer to its first try was lost.
                    if let Some(stored) = answer? {
                        return Ok(Some(stored));
                    }
                }
            }
        }
    }

    /// How many chunks have arrived.
    fn arrived(&self) -> u64 {
        self.with(|state| state.arrived)
    }

    /// Sends a chunk until it has arrived.
    async fn chunk(&self, number: u64) -> Result<Option<Answer<Uploaded>>, UploadError> {
        let mut backoff = Backoff::new(self.upload.retries);
        let mut arrived = self.arrived();
        loop {
            let (began, told) = (Instant::now(), Arc::new(AtomicU64::new(0)));
            let error = match self.attempt(number, &told).await {
                Ok(stored) => {
                    let range = self.division.range(number);
                    self.with(|state| {
                        state.window.arrived(range.end - range.start, Instant::now());
                        state.arrived += 1;
                    });
                    return Ok(stored);
                }
                Err(error) => error,
            };
            (self.observer)(Event::Lost(told.load(Ordering::Relaxed)));
            self.with(|state| state.window.failed(began, Instant::now()));
            // The network is bad, but not gone: others get through.
            if std::mem::replace(&mut arrived, self.arrived()) != arrived {
                backoff.moved_on();
            }
            backoff.pause(ChunkError(error), &self.quieter).await.map_err(|ChunkError(error)| error)?;
        }
    }

    async fn attempt(
        &self,
        number: u64,
        told: &Arc<AtomicU64>,
    ) -> Result<Option<Answer<Uploaded>>, UploadError> {
        let range = self.division.range(number);
        let chunk_hash = self.source.digest(range.clone(), &self.upload.path).await?;
        let upload_id = self.with(|state| state.upload_id.clone());
        let fields = Fields {
            upload: self.upload,
            division: self.division,
            number,
            chunk_hash,
            file_hash: self.source.found.digest,
            upload_id: upload_id.as_deref(),
        };
        let boundary = format!("sft-{}", uuid::Uuid::now_v7().simple());
        let counted: Observer = {
            let (observer, told) = (Arc::clone(self.observer), Arc::clone(told));
            Arc::new(move |event| {
                if let Event::Advanced(bytes) = event {
                    told.fetch_add(bytes, Ordering::Relaxed);
                }
                observer(event);
            })
        };
        let (body, flow) =
            FileBody::framed(Arc::clone(&self.source.file), range, fields.frame(&boundary), counted);
        let request = self
            .client
            .http
            .post(self.client.server.endpoint(&["upload_chunk"]))
            .header(CONTENT_TYPE, format!("multipart/form-data; boundary={boundary}"));
        let answer = async {
            let response = self.client.send_body(request, body, &flow).await?;
            self.client.json::<ChunkTaken>(response).await
        };
        let answer = answer.await;
        flow.cut();
        let answer = match (flow.take_failure(), answer) {
            // The file is the reason, whatever it looks like from the other end.
            (Some(error), Err(_)) => return Err(UploadError::of_reading(&self.upload.path, error)),
            (_, answer) => answer?,
        };
        if let Some(id) = answer.value.upload_id {
            self.with(|state| state.upload_id = Some(id));
        }
        if answer.value.status != "completed" {
            return Ok(None);
        }
        let value = Uploaded::deserialize(&answer.json).map_err(|error| {
            let detail = format!("its JSON cannot be read: {error}");
            Error::Unexpected { server: self.client.server.clone(), detail }
        })?;
        Ok(Some(Answer { value, json: answer.json }))
    }

    fn with<T>(&self, work: impl FnOnce(&mut State) -> T) -> T {
        // A panic while it was held cannot leave it half changed.
        work(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Why a chunk has not arrived. What another try of the chunk alone can't mend ends the run; the next one begins anew.
struct ChunkError(UploadError);

impl std::fmt::Display for ChunkError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

impl Retryable for ChunkError {
    fn verdict(&self) -> Verdict {
        match &self.0 {
            // Damaged on the way.
            UploadError::Exchange(Error::Refused(refusal)) if refusal.is("chunk_hash_mismatch") => {
                Verdict::Again { after: refusal.retry_after }
            }
            error if error.is_checksum_mismatch() => Verdict::Final,
            UploadError::Exchange(error) => error.verdict(),
            _ => Verdict::Final,
        }
    }
}
