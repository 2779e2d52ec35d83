//! Receiving a chunk.

use std::io;
use std::sync::Arc;

use bytes::Bytes;
use sha2::{Digest as _, Sha256};

use super::Resumable;
use super::assemble::{Belongs, completed};
use super::chunked::{Chunked, Place};
use super::model::{Chunk, ChunkTaken, ResumableError};
use super::placing::{Content, ends};
use super::registry::Unfinished;
use super::slot::Slot;
use crate::domain::{Digest, TransferId};
use crate::services::checksum::Hashes;
use crate::services::pipeline::{Pipeline, blocking};
use crate::services::uploads::UploadError;
use crate::services::writer::Opening;

/// So much of a chunk waits in memory as long as its place is not known; more of it goes to a file of its own.
const PATIENCE: usize = 1 << 20;

/// Chunks that are larger are read back to be hashed, rather than hashed twice.
const LARGE: u64 = 256 << 10;

/// A chunk that is being received. Dropped before its end, it was never there.
pub struct Incoming {
    resumable: Resumable,
    sink: Option<Sink>,
    received: u64,
    limit: u64,
}

/// Where its bytes go.
enum Sink {
    /// Nowhere: it is there already.
    Compared(Sha256),
    /// Into its place.
    Placed { slot: Slot, upload: Arc<Unfinished>, place: Place, number: u32, pipeline: Pipeline },
    /// They wait.
    Held { pieces: Vec<Bytes>, length: usize, sealed: bool },
    /// Into a file of its own.
    Aside { pipeline: Pipeline, sealed: bool },
}

impl Resumable {
    /// Begins to receive a chunk. `said`: all that is said of it, if that stands before it in its request; else it waits
    /// until it is known where it belongs. Cancel-safe.
    ///
    /// # Errors
    /// [`ResumableError`]: what can be known already.
    pub async fn begin_chunk(&self, said: Option<&Chunk>) -> Result<Incoming, ResumableError> {
        let sink = match said {
            Some(chunk) => self.sink(chunk).await?,
            None => self.held(None),
        };
        let limit = self.0.limits.chunk_size;
        Ok(Incoming { resumable: self.clone(), sink: Some(sink), received: 0, limit })
    }

    fn held(&self, encryption: Option<bool>) -> Sink {
        let sealed = self.0.uploads.sealing.decide(encryption);
        Sink::Held { pieces: Vec::new(), length: 0, sealed }
    }

    async fn sink(&self, chunk: &Chunk) -> Result<Sink, ResumableError> {
        self.check_chunk(chunk)?;
        let upload = match self.belongs(chunk).await? {
            Belongs::Finished(_) => return Ok(Sink::Compared(Sha256::new())),
            Belongs::New => return Ok(self.held(chunk.encryption)),
            Belongs::Unfinished(upload) => upload,
        };
        let Some(chunked) = upload.chunked() else { return Err(ResumableError::Unknown) };
        self.check_against(&upload, chunked, chunk, None)?;
        upload.touch(crate::domain::Timestamp::now());
        let number = chunk.number;
        let (Some(place), None) = (chunked.place(), chunked.received(number)) else {
            let is_there = chunked.received(number).is_some();
            return Ok(if is_there {
                Sink::Compared(Sha256::new())
            } else {
                self.held(Some(upload.manifest.sealed))
            });
        };
        let slot = Chunked::slot(&upload, number).await?;
        if chunked.received(number).is_some() {
            return Ok(Sink::Compared(Sha256::new()));
        }
        let opening = Opening::Chunk { key: place.key.clone(), number, size: place.size };
        let hashes = match chunked.before(number) {
            Some(whole) => Hashes::following(whole),
            None if place.size > LARGE => Hashes::later(),
            None => Hashes::default(),
        };
        // All but the last are as long as that.
        let expected = if number + 1 < chunked.total { place.size } else { 0 };
        let pipeline = Pipeline::new(self.target(upload.id(), expected), opening, hashes);
        Ok(Sink::Placed { slot, upload, place, number, pipeline })
    }

    /// What can't be of any chunk.
    fn check_chunk(&self, chunk: &Chunk) -> Result<(), ResumableError> {
        if chunk.total == 0 {
            return Err(ResumableError::InvalidChunk("total_chunks: takes a whole number from 1"));
        }
        if chunk.total > self.0.limits.chunks {
            return Err(ResumableError::InvalidChunk(
                "total_chunks: more chunks than are taken; make them larger",
            ));
        }
        if chunk.total > 1 && chunk.size == Some(0) {
            return Err(ResumableError::InvalidChunk("chunk_size: takes a whole number from 1"));
        }
        if chunk.number >= chunk.total {
            return Err(ResumableError::InvalidChunk(
                "chunk_number: takes a whole number below total_chunks",
            ));
        }
        self.check_size(chunk.file_size)
    }

    pub(super) fn check_against(
        &self,
        upload: &Unfinished,
        chunked: &Chunked,
        chunk: &Chunk,
        length: Option<u64>,
    ) -> Result<(), ResumableError> {
        let sealed = self.0.uploads.sealing.decide(chunk.encryption);
        chunked.check(&upload.manifest, chunk, sealed, length)?;
        let end = chunked.place().map(|place| place.start(chunk.number).saturating_add(length.unwrap_or(0)));
        self.check_size(end)
    }

    fn aside(&self, sealed: bool, key: Option<Arc<crate::crypto::FileKey>>) -> Sink {
        let part = TransferId::new();
        let opening = Opening::Part { key, part };
        Sink::Aside { pipeline: Pipeline::new(self.target(part, 0), opening, Hashes::default()), sealed }
    }
}

impl Incoming {
    /// Bytes of the chunk that have come so far.
    pub const fn received(&self) -> u64 {
        self.received
    }

    /// Resolves as soon as somebody newer brings the same chunk: then it should be dropped. Cancel-safe.
    pub async fn superseded(&self) {
        match &self.sink {
            Some(Sink::Placed { slot, .. }) => slot.superseded().await,
            _ => std::future::pending().await,
        }
    }

    /// Takes the next bytes of the chunk. After an error it can only be dropped.
    ///
    /// # Errors
    /// [`ResumableError::TooLarge`], [`ResumableError::ChunkConflict`], [`ResumableError::Upload`].
    pub async fn push(&mut self, bytes: Bytes) -> Result<(), ResumableError> {
        self.received += bytes.len() as u64;
        if self.received > self.limit {
            return Err(ResumableError::TooLarge { limit: self.limit });
        }
        let storage = |error: io::Error| UploadError::storage(&error);
        match self.sink.as_mut() {
            None => {}
            Some(Sink::Compared(hash)) => hash.update(&bytes),
            Some(Sink::Placed { place, pipeline, .. }) => {
                // What is behind belongs to the next one.
                if place.size > 0 && self.received > place.size {
                    return Err(ResumableError::ChunkConflict("all chunks but the last have one size"));
                }
                pipeline.push(bytes).await.map_err(storage)?;
            }
            Some(Sink::Aside { pipeline, .. }) => pipeline.push(bytes).await.map_err(storage)?,
            Some(Sink::Held { pieces, length, sealed }) => {
                *length += bytes.len() + size_of::<Bytes>();
                pieces.push(bytes);
                if *length > PATIENCE {
                    let (pieces, sealed) = (std::mem::take(pieces), *sealed);
                    let key = self.resumable.0.uploads.key(sealed).await?;
                    let mut aside = self.resumable.aside(sealed, key);
                    if let Sink::Aside { pipeline, .. } = &mut aside {
                        for piece in pieces {
                            pipeline.push(piece).await.map_err(storage)?;
                        }
                    }
                    self.sink = Some(aside);
                }
            }
        }
        Ok(())
    }

    /// The chunk has come whole. When this returns, it is durable, or refused. Goes on to its end even if nobody waits.
    ///
    /// # Errors
    /// [`ResumableError`]; the chunk was never there then.
    pub async fn finish(self, chunk: Chunk) -> Result<ChunkTaken, ResumableError> {
        let resumable = self.resumable.clone();
        resumable.to_the_end(self.run_to_the_end(chunk)).await
    }

    async fn run_to_the_end(mut self, chunk: Chunk) -> Result<ChunkTaken, ResumableError> {
        let this = self.resumable.clone();
        this.check_chunk(&chunk)?;
        let length = self.received;
        if length == 0 && chunk.number + 1 < chunk.total {
            return Err(ResumableError::InvalidChunk("chunk: only the last one may be empty"));
        }
        let expected = chunk.hash;
        let storage = |error: io::Error| UploadError::storage(&error);
        let same = |actual: Digest| match actual == expected {
            true => Ok(()),
            false => Err(ResumableError::ChunkHash { expected, actual }),
        };
        let content = match self.sink.take() {
            None => return Err(ResumableError::Unknown),
            Some(Sink::Compared(hash)) => {
                same(Digest::new(hash.finalize().into()))?;
                return this.came_before(&chunk, length).await;
            }
            Some(Sink::Placed { slot, upload, place, number, pipeline }) => {
                let Some(chunked) = upload.chunked() else { return Err(ResumableError::Unknown) };
                let checked = match number == chunk.number {
                    true => this.check_against(&upload, chunked, &chunk, Some(length)),
                    false => Err(ResumableError::InvalidChunk("chunk_number: stands there twice")),
                };
                if let Err(error) = checked {
                    pipeline.abandon().await;
                    return Err(error);
                }
                let ends = ends(number, chunked);
                let written = pipeline.end(move |writer, hashes| {
                    let (actual, whole) = hashes.of_chunk();
                    if actual.is_none_or(|actual| actual == expected) {
                        writer.finish_chunk(ends)?;
                    }
                    Ok((actual, whole))
                });
                let (actual, whole) = match written.await.map_err(|error| chunked.failed(&error))? {
                    (Some(actual), whole) => (actual, whole),
                    (None, _) => {
                        let layout = this.0.uploads.layout.clone();
                        let hashed = Chunked::hash_in_turn(&upload, layout, place, number, length);
                        hashed.await.map_err(|error| chunked.failed(&error))?
                    }
                };
                same(actual)?;
                return this.take(&upload, chunked, &chunk, length, slot, whole).await;
            }
            Some(Sink::Held { pieces, .. }) => {
                let hashed = blocking(move || {
                    let mut hash = Sha256::new();
                    pieces.iter().for_each(|piece| hash.update(piece));
                    Ok((pieces, Digest::new(hash.finalize().into())))
                });
                let (pieces, actual) = hashed.await.map_err(storage)?;
                same(actual)?;
                Content::Memory(pieces)
            }
            Some(Sink::Aside { pipeline, sealed }) => {
                let written = pipeline.end(|writer, hashes| Ok((writer.finish()?, hashes.digest())));
                let (written, actual) = written.await.map_err(storage)?;
                same(actual)?;
                Content::File { written, sealed }
            }
        };
        let upload = match this.join_or_begin(&chunk, length).await? {
            Belongs::Finished(finished) => return Ok(completed(&finished)),
            Belongs::Unfinished(upload) => upload,
            Belongs::New => return Err(ResumableError::Unknown),
        };
        this.bring(&upload, &chunk, length, content).await
    }
}

impl Drop for Incoming {
    fn drop(&mut self) {
        // Nobody else may write in its place before this one has let go.
        if let Some(Sink::Placed { slot, pipeline, .. }) = self.sink.take()
            && !pipeline.is_gathering()
            && let Ok(runtime) = tokio::runtime::Handle::try_current()
        {
            runtime.spawn(async move {
                pipeline.abandon().await;
                drop(slot);
            });
        }
    }
}
