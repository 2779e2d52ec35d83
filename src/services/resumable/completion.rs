//! Everything of an upload is there: the file is published.

use std::io;
use std::sync::{Arc, PoisonError};

use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

use super::Resumable;
use super::assemble::completed;
use super::chunked::Chunked;
use super::model::{Append, Checksum, ChunkTaken, Progress, ResumableError};
use super::ordered::{Stage, Work};
use super::registry::{Known, Unfinished};
use super::turns::Turn;
use crate::crypto::{self, FileKey, SealError};
use crate::domain::{Change, Digest, Hex16, Seal, StoredFile, Timestamp, TransferId};
use crate::services::pipeline::{Pipeline, blocking};
use crate::services::uploads::{Ending, UploadError};
use crate::services::writer::Written;
use crate::store::upload_log::{Manifest, Record};
use crate::store::uploads::Staged;
use crate::store::{Durability, Layout};

/// An upload of which everything has been written.
pub(super) struct Whole {
    written: Written,
    hash: Sha256,
    tail: Zeroizing<Vec<u8>>,
}

impl Resumable {
    /// Publishes an upload of which everything has come before, but could not be published then.
    pub(super) async fn publish_again(&self, upload: &Unfinished) -> Result<Progress, ResumableError> {
        let Turn { mut work, newer: _newer } = upload.ordered()?.take().await?;
        if work.stage == Stage::Ended {
            return self.after_the_end(upload.id());
        }
        let pipeline = self.pipeline(upload, &work, &Append::default());
        let whole = finish(pipeline, None).await?.ok_or(ResumableError::PieceChecksum)?;
        self.publish(upload, &mut work, whole).await
    }

    pub(super) async fn publish(
        &self,
        upload: &Unfinished,
        work: &mut Work,
        whole: Whole,
    ) -> Result<Progress, ResumableError> {
        let Whole { written, hash, tail } = whole;
        let (id, size) = (upload.id(), written.file.size);
        let digest = Digest::new(hash.clone().finalize().into());
        upload.live.as_ref().inspect(|live| live.reach(size));
        let published = self.0.uploads.publish(id, &written, digest, ending(&upload.manifest)).await;
        let durable = Arc::clone(&work.durable);
        match published {
            Ok(transfer) => {
                work.stage = Stage::Ended;
                let noted = blocking(move || {
                    written.staged.published();
                    let mut durable = durable.lock().unwrap_or_else(PoisonError::into_inner);
                    durable.log.append(&Record::Published { last: None })
                });
                if let Err(error) = noted.await {
                    tracing::warn!(%error, %id, "that an upload is published is not in its log");
                }
                self.remember(upload, transfer, None).await;
                self.after_the_end(id)
            }
            // That can be tried again, as soon as there is room.
            Err(error @ (UploadError::Full | UploadError::Storage(_))) => {
                let keyring = work.keyring.clone().filter(|_| upload.manifest.sealed);
                let mut manifest = upload.manifest.clone();
                manifest.size = Some(size);
                let noted = blocking(move || {
                    let mut durable = durable.lock().unwrap_or_else(PoisonError::into_inner);
                    durable.log.append(&Record::Size(size))?;
                    durable.remember(size, &hash, &tail, keyring.as_deref(), &manifest)?;
                    durable.log.append(&Record::Whole)
                });
                match noted.await {
                    Ok(()) => (work.size, work.stage) = (Some(size), Stage::Whole),
                    // Then the end has to be sent again: it has not been told that it is there.
                    Err(error) => tracing::warn!(%error, %id, "that an upload is complete is not in its log"),
                }
                Err(error.into())
            }
            Err(error) => {
                drop(written);
                let (at, why) = (Timestamp::now(), error.to_string().into());
                let failed = Change::Failed { id, at, error: why, transferred_bytes: size };
                self.end_now(upload, Some(failed)).await?;
                work.stage = Stage::Ended;
                Err(error.into())
            }
        }
    }

    pub(super) async fn publish_chunked(
        &self,
        upload: &Arc<Unfinished>,
        chunked: &Chunked,
        came: (u32, Digest),
    ) -> Result<ChunkTaken, ResumableError> {
        let mut ended = chunked.end().await;
        let id = upload.id();
        if *ended {
            return match self.0.registry.get(id) {
                Some(Known::Finished(finished)) => Ok(completed(&finished)),
                _ => Err(ResumableError::Gone),
            };
        }
        let (layout, uploads, whole) = (self.0.uploads.layout.clone(), &self.0.uploads, Arc::clone(upload));
        let durability = uploads.durability;
        let written = blocking(move || match whole.chunked() {
            Some(chunked) => finish_chunks(chunked, &layout, whole.id(), durability),
            None => Err(io::ErrorKind::NotFound.into()),
        });
        let (written, digest) = match written.await {
            Ok(written) => written,
            Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                return Err(self.fail_chunked(upload, &mut ended, UploadError::storage(&error)).await);
            }
            Err(error) => return Err(UploadError::storage(&error).into()),
        };
        match uploads.publish(id, &written, digest, ending(&upload.manifest)).await {
            Ok(transfer) => {
                *ended = true;
                written.staged.published();
                if let Err(error) = chunked.write(Record::Published { last: Some(came) }).await {
                    tracing::warn!(%error, %id, "that an upload is published is not in its log");
                }
                self.remember(upload, Arc::clone(&transfer), Some(came)).await;
                Ok(ChunkTaken::Completed { received: chunked.total, transfer })
            }
            // That can be tried again, by any of its chunks.
            Err(error @ (UploadError::Full | UploadError::Storage(_))) => Err(error.into()),
            Err(error) => Err(self.fail_chunked(upload, &mut ended, error).await),
        }
    }

    async fn fail_chunked(
        &self,
        upload: &Unfinished,
        ended: &mut bool,
        error: UploadError,
    ) -> ResumableError {
        let (id, at) = (upload.id(), Timestamp::now());
        let failed = Change::Failed {
            id,
            at,
            error: error.to_string().into(),
            transferred_bytes: upload.transferred(),
        };
        match self.end_now(upload, Some(failed)).await {
            Ok(()) => {
                *ended = true;
                error.into()
            }
            Err(worse) => worse,
        }
    }
}

/// All chunks are in their places: what is left is the hash of the last ones, and to flush. Blocking.
fn finish_chunks(
    chunked: &Chunked,
    layout: &Layout,
    id: TransferId,
    durability: Durability,
) -> io::Result<(Written, Digest)> {
    let invalid = |what: &str| io::Error::new(io::ErrorKind::InvalidData, what);
    let digest = chunked.advance(layout, id)?.ok_or_else(|| io::Error::other("chunks are missing"))?;
    let (Some(place), Some(content)) = (chunked.place(), chunked.content_length()) else {
        return Err(io::Error::other("chunks have no places"));
    };
    let on_disk = place.on_disk(content).map_err(|error| invalid(&error.to_string()))?;
    let mut staged = Staged::resume(layout, id, on_disk)?;
    staged.cut(on_disk)?;
    let seal = match &place.key {
        None => None,
        Some(key) => {
            let last = chunked.received(chunked.total - 1).map_or(0, |last| last.length);
            if last == 0 && content > 0 {
                end_before(&staged, key, content)?;
            }
            let mut tag = [0; 16];
            let position = on_disk - tag.len() as u64;
            staged.open()?.read_exact_at(&mut tag, position)?;
            Some(Seal { nonce: Hex16(*key.header().file_nonce.as_bytes()), tag: Hex16(tag) })
        }
    };
    // Whatever was set aside behind it goes.
    let file = staged.finish(u64::MAX, durability)?;
    Ok((Written { staged, file: StoredFile { size: content, ..file }, seal }, digest))
}

/// The last chunk is empty: the file ends with the last segment of the one before.
fn end_before(staged: &Staged, key: &FileKey, content: u64) -> io::Result<()> {
    let other = |error: String| io::Error::other(error);
    let container = crypto::Layout::of_plaintext(key.header().geometry, content)
        .map_err(|error| other(error.to_string()))?;
    let last = container.segment(container.segments() - 1).map_err(|error| other(error.to_string()))?;
    let mut segment = vec![0; last.sealed_len()];
    staged.open()?.read_exact_at(&mut segment, last.position)?;
    match key.reseal_as_last(last.number, &mut segment) {
        Ok(_) => staged.write_at(&segment, last.position),
        // It was done before, but the file could not be published then.
        Err(SealError::Tampered { .. }) => Ok(()),
        Err(error) => Err(other(error.to_string())),
    }
}

/// Everything has come: writes the rest, flushes. `None`: it has not the checksum.
pub(super) async fn finish(
    pipeline: Pipeline,
    checksum: Option<Checksum>,
) -> Result<Option<Whole>, ResumableError> {
    let finished = pipeline.end(move |mut writer, hashes| {
        if checksum.is_some_and(|checksum| !hashes.piece.clone().has(&checksum)) {
            return Ok(None);
        }
        writer.settle()?;
        let tail = Zeroizing::new(writer.tail().to_vec());
        Ok(Some(Whole { written: writer.finish()?, hash: hashes.whole, tail }))
    });
    Ok(finished.await.map_err(|error| UploadError::storage(&error))?)
}

pub(super) fn ending(manifest: &Manifest) -> Ending {
    Ending {
        filename: manifest.filename.clone(),
        client: manifest.client(),
        priority: manifest.priority,
        encryption: Some(manifest.sealed),
        sha256: manifest.sha256,
        condition: manifest.condition.clone(),
    }
}
