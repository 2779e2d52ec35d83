//! A chunk that has come whole: to its place, if it is not there yet, and into the log.

use std::io;
use std::sync::Arc;

use bytes::Bytes;
use sha2::Sha256;

use super::Resumable;
use super::aside::read_part;
use super::assemble::{Belongs, completed};
use super::chunked::{Chunked, Received};
use super::model::{Chunk, ChunkTaken, ResumableError};
use super::registry::Unfinished;
use super::slot::Slot;
use crate::crypto::{Ends, FileKey, Keyring};
use crate::domain::TransferId;
use crate::services::pipeline::blocking;
use crate::services::uploads::UploadError;
use crate::services::writer::{Opening, Target, Writer, Written};
use crate::store::{atomic, uploads};

/// The content of a chunk that has no place yet.
pub(super) enum Content {
    Memory(Vec<Bytes>),
    File { written: Written, sealed: bool },
}

impl Content {
    fn write_to(&self, writer: &mut Writer, keyring: Option<&Keyring>) -> io::Result<()> {
        match self {
            Self::Memory(pieces) => writer.append(pieces),
            Self::File { written, sealed } => {
                read_part(&written.staged.open()?, keyring.filter(|_| *sealed), |bytes| {
                    writer.append(&[bytes])
                })
            }
        }
    }
}

impl Resumable {
    /// A chunk has come that is there already.
    pub(super) async fn came_before(&self, chunk: &Chunk, length: u64) -> Result<ChunkTaken, ResumableError> {
        let upload = match self.belongs(chunk).await? {
            Belongs::Finished(finished) => return Ok(completed(&finished)),
            Belongs::Unfinished(upload) => upload,
            Belongs::New => return Err(ResumableError::Gone),
        };
        let Some(chunked) = upload.chunked() else { return Err(ResumableError::Unknown) };
        match chunked.received(chunk.number) {
            Some(there) => self.compare(&upload, there, chunk, length).await,
            None => Err(ResumableError::TakenOver),
        }
    }

    async fn compare(
        &self,
        upload: &Arc<Unfinished>,
        there: Received,
        chunk: &Chunk,
        length: u64,
    ) -> Result<ChunkTaken, ResumableError> {
        if there != (Received { length, sha256: chunk.hash }) {
            return Err(ResumableError::ChunkConflict("another chunk of this number is there"));
        }
        let Some(chunked) = upload.chunked() else { return Err(ResumableError::Unknown) };
        self.go_on_with(upload, chunked.came_again(chunk.number, chunk.hash)).await
    }

    /// Brings a chunk that has waited to its place, or has it wait for that.
    pub(super) async fn bring(
        &self,
        upload: &Arc<Unfinished>,
        chunk: &Chunk,
        length: u64,
        content: Content,
    ) -> Result<ChunkTaken, ResumableError> {
        let Some(chunked) = upload.chunked() else { return Err(ResumableError::Unknown) };
        let is_last = chunk.number + 1 == chunked.total;
        self.check_against(upload, chunked, chunk, Some(length))?;
        let size = match chunk.size {
            _ if chunked.total == 1 => Some(0),
            _ if !is_last => Some(length),
            said => said,
        };
        if let Some(size) = size {
            self.place(upload, chunked, size).await?;
            self.check_against(upload, chunked, chunk, Some(length))?;
        }
        let number = chunk.number;
        let slot = Chunked::slot(upload, number).await?;
        if let Some(there) = chunked.received(number) {
            return self.compare(upload, there, chunk, length).await;
        }
        let keyring = self.0.uploads.keys.get();
        let id = upload.id();
        let Some(place) = chunked.place() else {
            let (part, key) = (TransferId::new(), self.0.uploads.key(upload.manifest.sealed).await?);
            let target = self.target(id, length);
            let written = blocking(move || write_part(target, part, key, &content, keyring.as_deref()));
            written.await.map_err(|error| UploadError::storage(&error))?;
            let received = Received { length, sha256: chunk.hash };
            let came = match chunked.note(number, received, Some(part)).await {
                Ok(came) => came,
                Err(error) => {
                    let path = self.0.uploads.layout.upload_chunk(id, part);
                    if let Err(error) = blocking(move || atomic::remove_if_there(&path)).await {
                        tracing::warn!(%error, %id, "a chunk that was not taken could not be removed");
                    }
                    return Err(error);
                }
            };
            drop(slot);
            // Another chunk may have found the places meanwhile.
            let _turn = chunked.placing.lock().await;
            let came = self.place_aside(upload, chunked).await?.unwrap_or(came);
            return self.go_on_with(upload, came).await;
        };
        let opening = Opening::Chunk { key: place.key, number, size: place.size };
        let (target, ends) = (self.target(id, length), ends(number, chunked));
        let written = blocking(move || {
            let mut writer = Writer::open(target, opening)?;
            content.write_to(&mut writer, keyring.as_deref())?;
            writer.finish_chunk(ends)
        });
        written.await.map_err(|error| UploadError::storage(&error))?;
        self.take(upload, chunked, chunk, length, slot, None).await
    }

    /// A chunk is in its place, and flushed: that is written down.
    pub(super) async fn take(
        &self,
        upload: &Arc<Unfinished>,
        chunked: &Chunked,
        chunk: &Chunk,
        length: u64,
        slot: Slot,
        whole: Option<Sha256>,
    ) -> Result<ChunkTaken, ResumableError> {
        let received = Received { length, sha256: chunk.hash };
        let came = chunked.note(chunk.number, received, None).await?;
        if let Some(whole) = whole {
            chunked.follow(chunk.number, whole);
        }
        drop(slot);
        self.go_on_with(upload, came).await
    }
}

pub(super) fn ends(number: u32, chunked: &Chunked) -> Ends {
    if number + 1 == chunked.total { Ends::File } else { Ends::Chunk }
}

fn write_part(
    target: Target,
    part: TransferId,
    key: Option<Arc<FileKey>>,
    content: &Content,
    keyring: Option<&Keyring>,
) -> io::Result<()> {
    let (layout, durability) = (target.layout.clone(), target.durability);
    let mut writer = Writer::open(target, Opening::Part { key, part })?;
    content.write_to(&mut writer, keyring)?;
    let mut written = writer.finish()?;
    // Its name must be there after a loss of power, as the log is going to say.
    uploads::flush_names(&layout, durability)?;
    written.staged.keep();
    Ok(())
}
