//! Which upload a chunk belongs to, where its place is, and what is done when all are there.

use std::io::{self, IoSlice};
use std::sync::Arc;
use std::time::Duration;

use super::Resumable;
use super::chunked::{Came, Chunked, Place};
use super::creation::manifest;
use super::model::{Chunk, ChunkTaken, Creation, ResumableError, ResumeInfo};
use super::registry::{Bytes, Finished, Known, Unfinished};
use crate::crypto::{FileKey, Geometry};
use crate::domain::{Change, Client, FileName, Timestamp, TransferId};
use crate::services::pipeline::blocking;
use crate::services::uploads::UploadError;
use crate::store::status::Condition;
use crate::store::upload_log::{Kind, Record};
use crate::store::uploads::Staged;

/// So long after an upload is complete its last chunk may be sent again by a client that has not heard the answer.
const AGAIN: Duration = Duration::from_secs(600);

/// To which upload a chunk belongs.
pub(super) enum Belongs {
    Unfinished(Arc<Unfinished>),
    /// It is complete: the chunk has come before.
    Finished(Arc<Finished>),
    /// There is none yet.
    New,
}

impl Resumable {
    /// What there is of the upload of this name and client that was begun last.
    ///
    /// # Errors
    /// [`ResumableError`]; what is there can't be read.
    pub async fn resume_info(
        &self,
        client: &Client,
        filename: &FileName,
    ) -> Result<Option<ResumeInfo>, ResumableError> {
        let resumable =
            |upload: &Unfinished| matches!(upload.manifest.kind, Kind::Ordered | Kind::Chunks { .. });
        let Some(upload) = self.0.registry.find(client, filename, resumable) else { return Ok(None) };
        let (id, expires_at) = (upload.id(), self.expires_at(&upload));
        let Some(chunked) = upload.chunked() else {
            let progress = self.progress(id).await?;
            let (chunks, total, chunk_size) = (Vec::new(), None, None);
            let received = progress.offset;
            return Ok((!progress.complete).then_some(ResumeInfo {
                id,
                chunks,
                total,
                chunk_size,
                received,
                expires_at,
            }));
        };
        self.look_at(&upload, chunked).await?;
        let chunks = chunked.all().into_iter().map(|(number, chunk)| (number, chunk.sha256)).collect();
        Ok(Some(ResumeInfo {
            id,
            chunks,
            total: Some(chunked.total),
            chunk_size: chunked.place().map(|place| place.size).filter(|size| *size > 0),
            received: chunked.bytes(),
            expires_at,
        }))
    }

    /// To which upload a chunk belongs, of those that are there.
    pub(super) async fn belongs(&self, chunk: &Chunk) -> Result<Belongs, ResumableError> {
        let belongs = match chunk.upload_id {
            Some(id) => match self.known(id)? {
                Known::Finished(finished) => Belongs::Finished(finished),
                Known::Unfinished(upload) => Belongs::Unfinished(upload),
            },
            None => self.belongs_by_name(chunk),
        };
        if let Belongs::Unfinished(upload) = &belongs {
            let chunked = upload.chunked().ok_or(ResumableError::Unknown)?;
            self.look_at(upload, chunked).await?;
        }
        Ok(belongs)
    }

    fn belongs_by_name(&self, chunk: &Chunk) -> Belongs {
        let fits = |upload: &Unfinished| {
            // A file that is said to be another one is not mixed with what is there.
            let (hash, size) = (upload.manifest.sha256, upload.manifest.size);
            let same_size = size.zip(chunk.file_size).is_none_or(|(before, now)| before == now);
            let place = upload.chunked().and_then(Chunked::place);
            let same_chunks = chunk.file_hash.is_none()
                || chunk.size.zip(place).is_none_or(|(size, place)| size == place.size || chunk.total == 1);
            matches!(upload.manifest.kind, Kind::Chunks { .. })
                && (chunk.file_hash.is_none() || chunk.file_hash == hash)
                && same_size
                && same_chunks
        };
        if let Some(upload) = self.0.registry.find(&chunk.client, &chunk.filename, fits) {
            return Belongs::Unfinished(upload);
        }
        let sealed = self.0.uploads.sealing.decide(chunk.encryption);
        let came_before = |upload: &Finished| {
            // Only the chunk that came last is one that was sent again. Others begin anew: who sends a whole file again
            // may have a reason, such as damage to the one that is there.
            let since = Timestamp::now().to_system_time().duration_since(upload.at.to_system_time());
            let is_same = since.is_ok_and(|since| since < AGAIN)
                && upload.last == Some((chunk.number, chunk.hash))
                && chunk.file_hash.is_none_or(|hash| upload.transfer.checksum == Some(hash));
            let Kind::Chunks { total } = upload.manifest.kind else { return false };
            is_same && total == chunk.total && upload.manifest.sealed == sealed && self.stands(upload)
        };
        let finished = self.0.registry.find_finished(&chunk.client, &chunk.filename, came_before);
        finished.map_or(Belongs::New, Belongs::Finished)
    }

    /// Whether what was uploaded is what stands under its name now.
    fn stands(&self, upload: &Finished) -> bool {
        let standing = self.0.uploads.status.file(&upload.transfer.filename);
        standing.is_some_and(|entry| {
            entry.checksum == upload.transfer.checksum && entry.file == upload.transfer.file
        })
    }

    /// The upload to which a chunk of `length` bytes belongs; a new one, if there is none.
    pub(super) async fn join_or_begin(&self, chunk: &Chunk, length: u64) -> Result<Belongs, ResumableError> {
        // First without a turn: to look at what was there when the server began may take its time.
        self.belongs(chunk).await?;
        let _turn = self.one_at_a_time((&chunk.client.id, &chunk.filename)).await;
        let belongs = self.belongs(chunk).await?;
        if !matches!(belongs, Belongs::New) {
            return Ok(belongs);
        }
        let place = match chunk.size {
            _ if chunk.total == 1 => Some(0),
            _ if chunk.number + 1 < chunk.total => Some(length),
            said => said,
        };
        if chunk.number + 1 < chunk.total && chunk.size.is_some_and(|size| size != length) {
            return Err(ResumableError::ChunkConflict("it has not the size that is said of all"));
        }
        let upload = self.begin_chunked(chunk, place).await?;
        self.supersede(&upload, chunk).await;
        Ok(Belongs::Unfinished(upload))
    }

    async fn begin_chunked(
        &self,
        chunk: &Chunk,
        place: Option<u64>,
    ) -> Result<Arc<Unfinished>, ResumableError> {
        let about = place.map(|size| size.saturating_mul(chunk.total.into()));
        let size = chunk.file_size.filter(|_| chunk.total > 0);
        self.check_size(size)?;
        let creation = Creation {
            filename: chunk.filename.clone(),
            client: chunk.client.clone(),
            priority: chunk.priority,
            encryption: chunk.encryption,
            sha256: chunk.file_hash,
            condition: Condition::Any,
            size,
            metadata: None,
            idempotency_key: None,
            partial: false,
            says_its_end: false,
        };
        let seat = self.seat(&creation, size.or(about).unwrap_or(0))?;
        let id = TransferId::new();
        let sealed = self.0.uploads.sealing.decide(chunk.encryption);
        let manifest = manifest(id, &creation, Kind::Chunks { total: chunk.total }, sealed);
        self.announce(&creation, id, sealed).await?;
        let log = match self.write_new(manifest.clone(), None).await {
            Ok(log) => log,
            Err(error) => {
                self.withdraw(&manifest, &error).await;
                return Err(error.into());
            }
        };
        let live = self.0.uploads.status.track(id, size, about);
        let bytes = Bytes::Chunked(Box::new(Chunked::new(chunk.total, log)));
        let upload = Arc::new(Unfinished::new(manifest, Some(live), bytes, seat));
        self.0.registry.insert(Arc::clone(&upload));
        Ok(upload)
    }

    /// A client that sends the same file in chunks of another size goes on with that one.
    async fn supersede(&self, by: &Unfinished, chunk: &Chunk) {
        let is_older = |upload: &Unfinished| {
            upload.id() != by.id()
                && upload.chunked().is_some()
                && chunk.file_hash.is_some()
                && upload.manifest.sha256 == chunk.file_hash
        };
        if let Some(older) = self.0.registry.find(&chunk.client, &chunk.filename, is_older) {
            let (id, at) = (older.id(), Timestamp::now());
            let error = "the client has begun anew, with chunks of another size".into();
            let failed = Change::Failed { id, at, error, transferred_bytes: older.transferred() };
            if let Err(error) = self.end(&older, failed, None).await {
                tracing::debug!(%error, %id, "an upload that was begun anew has ended");
            }
        }
    }

    /// Makes sure that chunks have places: all but the last have `size` bytes.
    pub(super) async fn place(
        &self,
        upload: &Unfinished,
        chunked: &Chunked,
        size: u64,
    ) -> Result<(), ResumableError> {
        let _turn = chunked.placing.lock().await;
        if chunked.place().is_some() {
            return Ok(());
        }
        let aside = chunked.aside();
        if aside.is_some_and(|aside| chunked.total > 1 && aside.received.length > size) {
            return Err(ResumableError::ChunkConflict("the last chunk is not larger than the others"));
        }
        let place = self.find_place(upload, size).await?;
        chunked.write(Record::ChunkSize(size)).await.map_err(|error| UploadError::storage(&error))?;
        chunked.set_place(place);
        self.place_aside(upload, chunked).await.map(drop)
    }

    async fn find_place(&self, upload: &Unfinished, size: u64) -> Result<Place, ResumableError> {
        if !upload.manifest.sealed {
            return Ok(Place { size, key: None });
        }
        let uploads = &self.0.uploads;
        let (layout, durability, keys) = (uploads.layout.clone(), uploads.durability, uploads.keys.clone());
        let id = upload.id();
        let made = blocking(move || {
            let keyring = keys.make().map_err(io::Error::other)?;
            let geometry = Geometry::chunks_of(size).map_err(io::Error::other)?;
            let key = FileKey::create(&keyring, geometry).map_err(io::Error::other)?;
            let mut staged = Staged::resume(&layout, id, 0)?;
            staged.append(&mut [IoSlice::new(&key.header_bytes())])?;
            staged.flush(durability)?;
            Ok(Arc::new(key))
        });
        let key = made.await.map_err(|error| UploadError::storage(&error))?;
        Ok(Place { size, key: Some(key) })
    }

    /// A chunk is in its place: the hash of the whole goes on, and if all are there, the file is published.
    pub(super) async fn go_on_with(
        &self,
        upload: &Arc<Unfinished>,
        came: Came,
    ) -> Result<ChunkTaken, ResumableError> {
        let Some(chunked) = upload.chunked() else { return Err(ResumableError::Unknown) };
        let came = match (chunked.aside(), chunked.place()) {
            // It could not be brought to its place before: there was no room.
            (Some(_), Some(_)) => {
                let _turn = chunked.placing.lock().await;
                self.place_aside(upload, chunked).await?.unwrap_or(came)
            }
            _ => came,
        };
        let bytes = chunked.bytes();
        if let Some(live) = &upload.live {
            chunked.content_length().inspect(|total| live.set_total(*total));
            live.reach(bytes);
        }
        let about = || Some(chunked.place()?.size.saturating_mul(chunked.total.into()));
        let expected = upload.manifest.size.or_else(|| chunked.content_length()).or_else(about);
        upload.seat.expect(expected.map_or(0, |size| size.saturating_sub(bytes)));
        upload.touch(Timestamp::now());
        if came.is_last {
            return self.publish_chunked(upload, chunked, came.chunk).await;
        }
        let (layout, hashing) = (self.0.uploads.layout.clone(), Arc::clone(upload));
        // Nobody waits for it: who comes last finds out what is wrong.
        drop(tokio::task::spawn_blocking(move || {
            hashing.chunked().map(|chunked| chunked.try_advance(&layout, hashing.id()))
        }));
        Ok(ChunkTaken::Uploading { id: upload.id(), received: came.count })
    }
}

/// The answer to a chunk of an upload that is complete.
pub(super) fn completed(finished: &Finished) -> ChunkTaken {
    let received = match finished.manifest.kind {
        Kind::Chunks { total } => total,
        Kind::Ordered | Kind::Partial | Kind::Joined { .. } => 0,
    };
    ChunkTaken::Completed { received, transfer: Arc::clone(&finished.transfer) }
}
