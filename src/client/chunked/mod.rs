//! Sending a large file in numbered chunks, so that what has arrived stays: `POST /upload_chunk`, `GET /resume_info/{filename}`.
//!
//! A run asks what the server has of the file. Chunks that are there and are what they are here are not sent again; if one is
//! not, the file has changed, and all of it is sent. The server tells a changed file by `file_hash` and another division by
//! `chunk_size`, and begins a new upload for both. When it has every chunk it makes the file of them and says so in the answer to
//! the last; where that answer is lost, `/status` says the same.

mod form;
mod plan;
mod send;
#[cfg(test)]
mod stub;
#[cfg(test)]
mod tests;
mod window;

use std::collections::BTreeSet;

use http::StatusCode;
use serde_json::json;

use self::plan::{Begun, Division};
use self::send::Sending;
use super::answers::{Answer, ResumeInfo, Uploaded};
use super::progress::{Event, Observer, Phase};
use super::retry::{Backoff, Retryable, Verdict};
use super::upload::{Chunked, Known, Source};
use super::{Client, Error, Upload, UploadError};
use crate::domain::{Digest, FileName};

/// What became of an upload in chunks.
pub(super) enum Outcome {
    /// The file is there.
    Stored(Answer<Uploaded>),
    /// The server knows no chunks; nothing has been sent.
    NoChunks,
}

/// What the runs of one upload have found out, each for the next.
#[derive(Default)]
struct Learned {
    /// The largest chunk that gets through.
    limit: Option<u64>,
    /// Asked once.
    recommended: Option<Option<u64>>,
    /// What the server has of the file is not of this file.
    anew: bool,
}

impl Client {
    /// Sends a file in chunks, and goes on where an earlier run has stopped.
    pub(super) async fn upload_chunked(
        &self,
        upload: &Upload,
        known: &mut Known,
        observer: &Observer,
    ) -> Result<Outcome, UploadError> {
        // Of whole runs: never counted anew, or a server that makes nothing of the chunks would get them for ever.
        let mut backoff = Backoff::new(upload.retries);
        let mut learned = Learned::default();
        loop {
            let error = match self.run(upload, known, &mut learned, observer).await {
                Ok(outcome) => return Ok(outcome),
                Err(error) => error,
            };
            match error {
                // The smaller division makes it another upload.
                Stopped::Smaller(limit) => learned.limit = Some(limit),
                Stopped::Anew(error) => {
                    learned.anew = true;
                    backoff.pause(error, observer).await?;
                    observer(Event::StartedOver);
                }
                Stopped::Unfinished => backoff.pause(UploadError::Incomplete, observer).await?,
                Stopped::ForGood(error) => return Err(error),
            }
        }
    }

    async fn run(
        &self,
        upload: &Upload,
        known: &mut Known,
        learned: &mut Learned,
        observer: &Observer,
    ) -> Result<Outcome, Stopped> {
        let Some(info) = self.patiently_resume_info(upload, observer).await? else {
            return Ok(Outcome::NoChunks);
        };
        let ask = async {
            match learned.recommended {
                Some(recommended) => recommended,
                None if upload.chunking.chunk_size.is_some() => None,
                None => self.recommended_chunk_size().await,
            }
        };
        // Reading the disk and asking over the network are done at once.
        let (source, recommended) = tokio::join!(known.open(&upload.path, observer), ask);
        learned.recommended = Some(recommended);
        let source = source?;
        let size = source.found.size;
        if size == 0 {
            // It has been emptied meanwhile: there is nothing to divide.
            return Ok(Outcome::NoChunks);
        }
        let anew = std::mem::take(&mut learned.anew);
        let begun = match Begun::read(info, size, learned.limit).filter(|_| !anew) {
            Some(begun) => self.still_fits(begun, upload, &source, observer).await?,
            None => None,
        };
        let (division, upload_id, received) = match begun {
            Some(begun) => {
                let (have, total) = (begun.received.len() as u64, begun.division.count());
                observer(Event::Resuming { have, total });
                (begun.division, begun.upload_id, begun.received)
            }
            None => {
                let asked = upload.chunking.chunk_size;
                let division = Division::new(size, asked, recommended, learned.limit)?;
                (division, None, BTreeSet::new())
            }
        };
        observer(Event::Started {
            phase: Phase::Sending,
            done: division.bytes_of(&received),
            total: Some(size),
        });
        let count = division.count();
        // All are there, and no file: the last one is sent again, so that the server notices.
        let chunks = (0..count).filter(|number| {
            !received.contains(number) || (received.len() as u64 == count && *number == count - 1)
        });
        let sending = Sending::new(self, upload, &source, division, upload_id, observer);
        let sent = sending.run(chunks).await;
        self.judge(sent, upload, division, source.found.digest).await
    }

    /// What a run has come to.
    async fn judge(
        &self,
        sent: Result<Option<Answer<Uploaded>>, UploadError>,
        upload: &Upload,
        division: Division,
        digest: Digest,
    ) -> Result<Outcome, Stopped> {
        match sent {
            Ok(Some(answer)) if answer.value.hash != digest => {
                Err(UploadError::Mismatch { sent: digest, stored: answer.value.hash }.into())
            }
            Ok(Some(answer)) => Ok(Outcome::Stored(answer)),
            // The answer that said so was lost on the way, and the server has forgotten the upload: it is done.
            Ok(None) => {
                let stored = self.stored(upload, digest).await;
                stored.map(Outcome::Stored).ok_or(Stopped::Unfinished)
            }
            Err(UploadError::Exchange(Error::Refused(refusal))) => {
                let smaller = match refusal.status {
                    StatusCode::PAYLOAD_TOO_LARGE => plan::smaller(division.chunk, refusal.max_size),
                    StatusCode::NOT_FOUND | StatusCode::CONFLICT | StatusCode::GONE => {
                        if let Some(answer) = self.stored(upload, digest).await {
                            return Ok(Outcome::Stored(answer));
                        }
                        None
                    }
                    _ => None,
                };
                let error = UploadError::Exchange(Error::Refused(refusal));
                Err(smaller.map_or_else(|| error.into(), Stopped::Smaller))
            }
            Err(error) => Err(error.into()),
        }
    }

    /// What the server has of a name. `None`: it knows no chunks, and does without.
    async fn patiently_resume_info(
        &self,
        upload: &Upload,
        observer: &Observer,
    ) -> Result<Option<ResumeInfo>, UploadError> {
        let mut backoff = Backoff::new(upload.retries);
        loop {
            match self.resume_info(&upload.name).await {
                Ok(info) => return Ok(Some(info.value)),
                Err(Error::Refused(refusal))
                    if upload.chunking.which == Chunked::Large
                        && [StatusCode::NOT_FOUND, StatusCode::METHOD_NOT_ALLOWED]
                            .contains(&refusal.status) =>
                {
                    return Ok(None);
                }
                Err(error) => backoff.pause(error, observer).await?,
            }
        }
    }

    /// What the server has of an upload in chunks that is not complete.
    ///
    /// # Errors
    /// [`Error`]. It is not tried again.
    pub async fn resume_info(&self, name: &FileName) -> Result<Answer<ResumeInfo>, Error> {
        self.get_json(self.server.endpoint(&["resume_info", name.as_str()])).await
    }

    /// Compares what the server has of the file with the file. `None`: it is of another one.
    async fn still_fits(
        &self,
        begun: Begun,
        upload: &Upload,
        source: &Source,
        observer: &Observer,
    ) -> Result<Option<Begun>, UploadError> {
        let total = begun.division.bytes_of(&begun.hashes.keys().copied().collect());
        observer(Event::Started { phase: Phase::Checking, done: 0, total: Some(total) });
        for (number, hash) in &begun.hashes {
            let range = begun.division.range(*number);
            if source.digest(range.clone(), &upload.path).await? != *hash {
                observer(Event::StartedOver);
                return Ok(None);
            }
            observer(Event::Advanced(range.end - range.start));
        }
        Ok(Some(begun))
    }

    /// The answer that the server would have given, if the file is there as it is here.
    async fn stored(&self, upload: &Upload, digest: Digest) -> Option<Answer<Uploaded>> {
        let status = self.transfer(&upload.name).await.ok()?.value;
        let same = status.checksum.as_deref().and_then(|checksum| checksum.parse().ok()) == Some(digest);
        if status.status != "completed" || !same || (upload.encrypt && !status.encryption) {
            return None;
        }
        let (size, encryption) = (status.total_bytes?, status.encryption);
        let value = Uploaded { filename: upload.name.clone(), hash: digest, size, encryption };
        let json = json!({
            "success": true, "filename": upload.name, "hash": digest, "status": "completed",
            "encryption": encryption, "size": size, "priority": status.priority,
        });
        Some(Answer { value, json })
    }
}

/// Why a run has not brought the file over.
enum Stopped {
    /// Chunks must not be larger than this.
    Smaller(u64),
    /// What was sent is of no use: the next run begins at the first chunk.
    Anew(UploadError),
    /// Every chunk was taken, and there is no file: the next run asks what is missing.
    Unfinished,
    /// Retries have been used up, or are of no use.
    ForGood(UploadError),
}

impl From<UploadError> for Stopped {
    fn from(error: UploadError) -> Self {
        // What each chunk was tried again for is not tried again for the whole.
        let network = matches!(error, UploadError::Exchange(_)) && !error.is_checksum_mismatch();
        match error.verdict() {
            Verdict::Again { .. } if !network => Self::Anew(error),
            _ => Self::ForGood(error),
        }
    }
}
