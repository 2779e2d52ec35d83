//! All chunks of an upload are there: the file is published.

use std::io;
use std::sync::Arc;

use super::Resumable;
use super::append::ending;
use super::assemble::completed;
use super::chunked::Chunked;
use super::model::{ChunkTaken, ResumableError};
use super::registry::{Known, Unfinished};
use crate::crypto::{self, FileKey, SealError};
use crate::domain::{Change, Digest, Hex16, Seal, StoredFile, Timestamp, TransferId};
use crate::services::pipeline::blocking;
use crate::services::uploads::UploadError;
use crate::services::writer::Written;
use crate::store::upload_log::Record;
use crate::store::uploads::Staged;
use crate::store::{Durability, Layout};

impl Resumable {
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
            Some(chunked) => finish(chunked, &layout, whole.id(), durability),
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
fn finish(
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
