//! The last chunk, where it has come before all others: it waits in a file of its own until its place is known. And what had
//! arrived before a start: whether it is still there.

use std::io;
use std::path::Path;
use std::sync::Arc;

use sha2::{Digest as _, Sha256};

use super::Resumable;
use super::chunked::{Came, Chunked, Received};
use super::model::ResumableError;
use super::registry::Unfinished;
use crate::crypto::{Ends, Keyring, OpenError, OpenStream};
use crate::services::keys::Keys;
use crate::services::pipeline::blocking;
use crate::services::uploads::UploadError;
use crate::services::writer::{Opening, Writer, copy};
use crate::store::atomic;
use crate::store::files::OpenFile;

impl Resumable {
    /// Brings the last chunk to its place, if it waits aside.
    pub(super) async fn place_aside(
        &self,
        upload: &Unfinished,
        chunked: &Chunked,
    ) -> Result<Option<Came>, ResumableError> {
        let (Some(aside), Some(place)) = (chunked.aside(), chunked.place()) else { return Ok(None) };
        let (number, id) = (chunked.total - 1, upload.id());
        let path = self.0.uploads.layout.upload_chunk(id, aside.part);
        let opening = Opening::Chunk { key: place.key, number, size: place.size };
        let (target, sealed) = (self.target(id, aside.received.length), upload.manifest.sealed);
        let keys = self.0.uploads.keys.clone();
        let from = path.clone();
        let placed = blocking(move || {
            let mut writer = Writer::open(target, opening)?;
            let take = |bytes: &[u8]| writer.append(&[bytes]);
            if !is_whole(&from, &aside.received, keyring(&keys, sealed)?.as_deref(), take)? {
                return Ok(false);
            }
            writer.finish_chunk(Ends::File)?;
            Ok(true)
        });
        if !placed.await.map_err(|error| UploadError::storage(&error))? {
            return self.lose_aside(upload, chunked).await.map(|()| None);
        }
        let came = chunked.note(number, aside.received, None).await?;
        if let Err(error) = blocking(move || atomic::remove_if_there(&path)).await {
            tracing::warn!(%error, %id, "a chunk that was brought to its place could not be removed");
        }
        Ok(Some(came))
    }

    /// The last chunk has waited aside, and is not what had arrived.
    async fn lose_aside(&self, upload: &Unfinished, chunked: &Chunked) -> Result<(), ResumableError> {
        tracing::error!(id = %upload.id(), "the last chunk of an unfinished upload is damaged: it is missing again");
        let lost = chunked.lose(&[chunked.total - 1]).await;
        lost.map_err(|error| UploadError::storage(&error).into())
    }

    /// After a start, before anything is told: whether what had arrived is still there.
    pub(super) async fn look_at(
        &self,
        upload: &Arc<Unfinished>,
        chunked: &Chunked,
    ) -> Result<(), ResumableError> {
        if !chunked.is_new() {
            return Ok(());
        }
        // To the end: who asks may not have the patience, and asks again.
        let (this, upload) = (self.clone(), Arc::clone(upload));
        self.to_the_end(async move {
            let Some(chunked) = upload.chunked() else { return Err(ResumableError::Unknown) };
            this.look_at_once(&upload, chunked).await
        })
        .await
    }

    async fn look_at_once(&self, upload: &Arc<Unfinished>, chunked: &Chunked) -> Result<(), ResumableError> {
        let _turn = chunked.placing.lock().await;
        if !chunked.is_new() {
            return Ok(());
        }
        let (layout, looking) = (self.0.uploads.layout.clone(), Arc::clone(upload));
        let damaged = blocking(move || match looking.chunked() {
            Some(chunked) => chunked.damaged(&layout, looking.id()),
            None => Ok(Vec::new()),
        });
        let storage = |error: io::Error| UploadError::storage(&error);
        let damaged = damaged.await.map_err(storage)?;
        if !damaged.is_empty() {
            tracing::error!(id = %upload.id(), chunks = ?damaged, "chunks of an unfinished upload are damaged: they are missing again");
            chunked.lose(&damaged).await.map_err(storage)?;
        }
        if let (Some(aside), None) = (chunked.aside(), chunked.place()) {
            let path = self.0.uploads.layout.upload_chunk(upload.id(), aside.part);
            let (keys, sealed) = (self.0.uploads.keys.clone(), upload.manifest.sealed);
            let whole = blocking(move || {
                is_whole(&path, &aside.received, keyring(&keys, sealed)?.as_deref(), |_| Ok(()))
            });
            if !whole.await.map_err(storage)? {
                self.lose_aside(upload, chunked).await?;
            }
        }
        self.place_aside(upload, chunked).await?;
        chunked.looked_at();
        Ok(())
    }
}

/// Reads a chunk that was written to a file of its own; with a keyring, it is sealed there.
pub(super) fn read_part(
    part: &OpenFile,
    keyring: Option<&Keyring>,
    take: impl FnMut(&[u8]) -> io::Result<()>,
) -> io::Result<()> {
    match keyring {
        None => copy(part.reader(), take),
        Some(keyring) => copy(OpenStream::new(part.reader(), keyring)?, take),
    }
}

/// The same, and whether it is there and what had arrived: what was taken must be thrown away if not. Blocking.
fn is_whole(
    path: &Path,
    expected: &Received,
    keyring: Option<&Keyring>,
    mut take: impl FnMut(&[u8]) -> io::Result<()>,
) -> io::Result<bool> {
    let mut hash = Sha256::new();
    let read = OpenFile::at(path).and_then(|part| {
        read_part(&part, keyring, |bytes| {
            hash.update(bytes);
            take(bytes)
        })
    });
    match read {
        Ok(()) => Ok(*expected.sha256.as_bytes() == <[u8; 32]>::from(hash.finalize())),
        // A start with the key finds it again.
        Err(error) if is_unknown_key(&error) => Err(error),
        Err(error) => match error.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof => Ok(false),
            _ => Err(error),
        },
    }
}

fn is_unknown_key(error: &io::Error) -> bool {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<OpenError>());
    matches!(inner, Some(OpenError::UnknownKey(_)))
}

/// What opens a chunk, if it is sealed.
fn keyring(keys: &Keys, sealed: bool) -> io::Result<Option<Arc<Keyring>>> {
    match (sealed, keys.get()) {
        (false, _) => Ok(None),
        (true, None) => Err(io::Error::other("there is no key to open a chunk with")),
        (true, keyring) => Ok(keyring),
    }
}
