//! Beginning an upload whose bytes come in order.

use std::hash::{BuildHasher as _, RandomState};
use std::io::IoSlice;
use std::sync::{Arc, LazyLock, Mutex};

use super::Resumable;
use super::model::{Append, Creation, Progress, ResumableError};
use super::ordered::{Durable, Ordered, Stage, Work};
use super::registry::{Bytes, Seat, Unfinished};
use crate::crypto::FileKey;
use crate::domain::{Change, Direction, Start, Timestamp, TransferId};
use crate::services::pipeline::blocking;
use crate::services::uploads::UploadError;
use crate::store::upload_log::{Kind, Manifest, UploadLog};
use crate::store::uploads::{self, Staged};

static HASHER: LazyLock<RandomState> = LazyLock::new(RandomState::new);

impl Resumable {
    pub(super) async fn create_or_find(&self, creation: Creation) -> Result<Progress, ResumableError> {
        let Some(key) = creation.idempotency_key.clone() else { return self.create_new(creation).await };
        let _turn = self.one_at_a_time((&creation.client.id, &key)).await;
        if let Some(id) = self.0.registry.by_key(&creation.client, &key) {
            match self.progress(id).await {
                // It has expired meanwhile, or was given up.
                Err(ResumableError::Gone | ResumableError::Unknown) => {}
                known => return known,
            }
        }
        self.create_new(creation).await
    }

    /// Waits until nobody else begins an upload for the same `what`.
    pub(super) async fn one_at_a_time(
        &self,
        what: impl std::hash::Hash,
    ) -> Option<tokio::sync::MutexGuard<'_, ()>> {
        let turns = &self.0.turns;
        let index = HASHER.hash_one(what) % turns.len() as u64;
        let turn = turns.get(usize::try_from(index).unwrap_or(0))?;
        Some(turn.lock().await)
    }

    async fn create_new(&self, creation: Creation) -> Result<Progress, ResumableError> {
        self.check_size(creation.size)?;
        let size = creation.size.unwrap_or(0);
        let seat = self.seat(&creation, size)?;
        let id = TransferId::new();
        let kind = if creation.partial { Kind::Partial } else { Kind::Ordered };
        let sealed = self.0.uploads.sealing.decide(creation.encryption);
        let key = self.0.uploads.key(sealed).await?;
        let manifest = manifest(id, &creation, kind, sealed);
        if !creation.partial {
            self.announce(&creation, id, sealed).await?;
        }
        let log = match self.write_new(manifest.clone(), key.clone()).await {
            Ok(log) => log,
            Err(error) => {
                self.withdraw(&manifest, &error).await;
                return Err(error.into());
            }
        };
        let live = (!creation.partial).then(|| self.0.uploads.status.track(id, creation.size, None));
        let work = Work {
            durable: Arc::new(Mutex::new(Durable::new(log))),
            size: creation.size,
            key,
            keyring: self.0.uploads.keys.get(),
            stage: Stage::Open,
        };
        let upload = Arc::new(Unfinished::new(manifest, live, Bytes::Ordered(Ordered::new(work)), seat));
        self.0.registry.insert(upload);
        if creation.size == Some(0) {
            let append = Append { length: Some(0), ..Append::default() };
            return self.append_to_the_end(id, append, futures_util::stream::empty()).await;
        }
        self.progress(id).await
    }

    pub(super) fn seat(&self, creation: &Creation, size: u64) -> Result<Seat, ResumableError> {
        let has_room = |bytes| self.0.uploads.space.has_room_for(bytes);
        self.0.registry.seat(&creation.client, size, Some(&self.0.limits), has_room)
    }

    /// Writes down that an upload begins. A start that finds no log of it knows that it was never acknowledged.
    pub(super) async fn announce(
        &self,
        creation: &Creation,
        id: TransferId,
        sealed: bool,
    ) -> Result<(), UploadError> {
        let started = Change::Started(Start {
            id,
            filename: creation.filename.clone(),
            direction: Direction::Upload,
            client: creation.client.clone(),
            encryption: sealed,
            priority: creation.priority,
            total_bytes: creation.size,
            at: Timestamp::now(),
        });
        let committed = self.0.uploads.status.commit(started, None).await;
        committed.map(drop).map_err(|error| match error {
            crate::store::status::CommitError::Full(_) => UploadError::Full,
            error => UploadError::Storage(error.to_string()),
        })
    }

    /// It did not begin after all.
    pub(super) async fn withdraw(&self, manifest: &Manifest, error: &UploadError) {
        let (id, at) = (manifest.id, Timestamp::now());
        if manifest.kind != Kind::Partial {
            let error = error.to_string().into();
            self.0.uploads.status.note(Change::Failed { id, at, error, transferred_bytes: 0 });
        }
        let layout = self.0.uploads.layout.clone();
        if let Err(error) = blocking(move || uploads::remove(&layout, id)).await {
            tracing::warn!(%error, %id, "what came of an upload could not be removed");
        }
    }

    /// Makes the data file and the log of an upload.
    pub(super) async fn write_new(
        &self,
        manifest: Manifest,
        key: Option<Arc<FileKey>>,
    ) -> Result<UploadLog, UploadError> {
        let (layout, durability) = (self.0.uploads.layout.clone(), self.0.uploads.durability);
        let written = blocking(move || {
            let mut staged = Staged::create_kept(&layout, manifest.id)?;
            if let Some(key) = key {
                staged.append(&mut [IoSlice::new(&key.header_bytes())])?;
                staged.flush(durability)?;
            }
            UploadLog::create(&layout, &manifest, durability)
        });
        written.await.map_err(|error| UploadError::storage(&error))
    }
}

pub(super) fn manifest(id: TransferId, creation: &Creation, kind: Kind, sealed: bool) -> Manifest {
    let mut manifest = Manifest::new(id, creation.filename.clone(), &creation.client, kind);
    manifest.priority = creation.priority;
    manifest.sealed = sealed;
    manifest.sha256 = creation.sha256;
    manifest.condition = creation.condition.clone();
    manifest.size = creation.size;
    manifest.metadata = creation.metadata.clone();
    manifest.idempotency_key = creation.idempotency_key.clone();
    manifest.says_its_end = creation.says_its_end;
    manifest
}
