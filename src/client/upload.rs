//! Sending a file.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use http::StatusCode;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use reqwest::{Body, Response};
use sha2::{Digest as _, Sha256};

use super::answers::{Answer, Uploaded};
use super::body::{FileBody, Flow};
use super::hash::{Fingerprint, blocking, feed, finish};
use super::progress::{Event, Observer, Phase};
use super::retry::{Backoff, Retryable, Verdict};
use super::{Client, Error, Retries};
use crate::domain::{Digest, FileName, Priority};

/// A file that is to be sent.
#[derive(Debug, Clone)]
pub struct Upload {
    /// The file on this machine.
    pub path: PathBuf,
    /// What it is to be called on the server.
    pub name: FileName,
    /// How urgent it is; `None` leaves it to the server.
    pub priority: Option<Priority>,
    /// Whether it is to be sealed at rest; `false` leaves it to the server.
    pub encrypt: bool,
    /// What is done about failures.
    pub retries: Retries,
}

impl Upload {
    /// An upload of `path` as `name`, with nothing special about it.
    pub fn new(path: impl Into<PathBuf>, name: FileName) -> Self {
        Self { path: path.into(), name, priority: None, encrypt: false, retries: Retries::default() }
    }
}

/// An upload failed. The server has nothing of it, or a whole file.
#[derive(Debug, thiserror::Error)]
pub enum UploadError {
    /// The file on this machine cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It is a directory, a pipe or a device: nothing whose size is known beforehand.
    #[error("{} is no regular file", .0.display())]
    NotAFile(PathBuf),
    /// It has become shorter while it was sent.
    #[error("{} has become shorter while it was read", .0.display())]
    Shrunk(PathBuf),
    /// The exchange with the server failed.
    #[error(transparent)]
    Exchange(#[from] Error),
    /// The server says yes to another content than was sent.
    #[error("the server has stored something else: SHA-256 {stored} instead of {sent}")]
    Mismatch {
        /// What was sent.
        sent: Digest,
        /// What the server says that it has.
        stored: Digest,
    },
}

impl Retryable for UploadError {
    fn verdict(&self) -> Verdict {
        match self {
            // Damaged on the way, or written to by another program between hashing and sending. The next attempt hashes anew
            // what has changed.
            Self::Exchange(Error::Refused(refusal))
                if refusal.status == StatusCode::UNPROCESSABLE_ENTITY && refusal.is("checksum_mismatch") =>
            {
                Verdict::Again { after: refusal.retry_after }
            }
            Self::Exchange(error) => error.verdict(),
            Self::Shrunk(_) => Verdict::Again { after: None },
            Self::Read { .. } | Self::NotAFile(_) | Self::Mismatch { .. } => Verdict::Final,
        }
    }
}

impl Client {
    /// Sends a file with its SHA-256, so that the server publishes it only if it arrived whole; tries again what can get better.
    ///
    /// The file is read twice (for its digest, then to be sent), in pieces: memory does not grow with it. Dropping the future
    /// closes the connection; the server then keeps nothing.
    ///
    /// # Errors
    /// [`UploadError`], of the last attempt.
    pub async fn upload(
        &self,
        upload: &Upload,
        observer: &Observer,
    ) -> Result<Answer<Uploaded>, UploadError> {
        let mut backoff = Backoff::new(upload.retries);
        let mut known = None;
        loop {
            match self.attempt(upload, &mut known, observer).await {
                Ok(answer) => return Ok(answer),
                Err(error) => backoff.pause(error, observer).await?,
            }
        }
    }

    /// One attempt. `known` is the file as an earlier one has hashed it; it is hashed anew if it has changed since.
    async fn attempt(
        &self,
        upload: &Upload,
        known: &mut Option<Fingerprint>,
        observer: &Observer,
    ) -> Result<Answer<Uploaded>, UploadError> {
        let (file, found) = fingerprint(&upload.path, known.take(), observer).await?;
        *known = Some(found);
        observer(Event::Started { phase: Phase::Sending, done: 0, total: Some(found.size) });
        let (body, flow) = FileBody::new(file, found.size, Arc::clone(observer));
        let answer = self.put(upload, &found, body, &flow).await;
        flow.cut();
        let answer = match (flow.take_failure(), answer) {
            // The file is the reason, whatever it looks like from the other end.
            (Some(error), Err(_)) => return Err(read_error(&upload.path, error)),
            (_, answer) => answer?,
        };
        if answer.value.hash != found.digest {
            return Err(UploadError::Mismatch { sent: found.digest, stored: answer.value.hash });
        }
        Ok(answer)
    }

    async fn put(
        &self,
        upload: &Upload,
        found: &Fingerprint,
        body: FileBody,
        flow: &Flow,
    ) -> Result<Answer<Uploaded>, Error> {
        let mut request = self
            .http
            .put(self.server.endpoint(&["files", upload.name.as_str()]))
            .query(&[("sha256", found.digest.to_string())])
            .header(CONTENT_TYPE, "application/octet-stream")
            // Also for an empty file, which HTTP could send without.
            .header(CONTENT_LENGTH, found.size);
        if let Some(priority) = upload.priority {
            request = request.query(&[("priority", u8::from(priority))]);
        }
        if upload.encrypt {
            request = request.query(&[("encryption", true)]);
        }
        let request = request.body(Body::wrap(body)).send();
        let response: Response = tokio::select! {
            response = request => response.map_err(|error| Error::of(&self.server, error))?,
            (awaited, after) = flow.stalled(self.timeouts.idle, self.timeouts.answer) => {
                return Err(self.timed_out(awaited, after));
            }
        };
        // An answer before the end of the body: the rest is of no use to the server.
        flow.hold();
        self.json(self.accept(response).await?).await
    }
}

/// Opens a file and hashes it, unless it is still as `known` has it.
async fn fingerprint(
    path: &Path,
    known: Option<Fingerprint>,
    observer: &Observer,
) -> Result<(File, Fingerprint), UploadError> {
    let (at, observer) = (path.to_owned(), Arc::clone(observer));
    let hashed = blocking(move |stop| {
        // Asked before it is opened: opening a pipe waits for the other end.
        if !std::fs::metadata(&at)?.is_file() {
            return Ok(None);
        }
        let mut file = File::open(&at)?;
        let metadata = file.metadata()?;
        let (size, modified) = (metadata.len(), metadata.modified().ok());
        if let Some(known) = known.filter(|known| (known.size, known.modified) == (size, modified)) {
            return Ok(Some((file, known)));
        }
        observer(Event::Started { phase: Phase::Hashing, done: 0, total: Some(size) });
        let mut hasher = Sha256::new();
        feed(&mut hasher, &mut file, size, &stop, &observer)?;
        io::Seek::rewind(&mut file)?;
        Ok(Some((file, Fingerprint { size, modified, digest: finish(hasher) })))
    });
    match hashed.await {
        Ok(Some(found)) => Ok(found),
        Ok(None) => Err(UploadError::NotAFile(path.to_owned())),
        Err(error) => Err(read_error(path, error)),
    }
}

fn read_error(path: &Path, source: io::Error) -> UploadError {
    match source.kind() {
        io::ErrorKind::UnexpectedEof => UploadError::Shrunk(path.to_owned()),
        _ => UploadError::Read { path: path.to_owned(), source },
    }
}
