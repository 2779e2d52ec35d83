//! An upload in one request that broke off: what arrived is kept, and it goes on as one that comes in order.

use std::sync::{Arc, Mutex};

use zeroize::Zeroizing;

use super::Resumable;
use super::ordered::{Durable, Ordered, Stage, Work};
use super::registry::{Bytes, Unfinished};
use crate::domain::{Change, Timestamp};
use crate::services::pipeline::{Pipeline, blocking};
use crate::services::resumable::{Creation, ResumableError};
use crate::services::uploads::{Upload, UploadError};
use crate::store::upload_log::{Kind, Manifest, UploadLog};
use crate::store::uploads;

/// What is less is sent again as fast as it is resumed.
const LEAST: u64 = 1 << 20;

/// What of an upload goes on.
struct Kept {
    durable: Durable,
    key: Option<Arc<crate::crypto::FileKey>>,
}

impl Resumable {
    /// Keeps what arrived of an upload whose request broke off, if that is worth it and its size is known. If not, the
    /// upload is given back, to be given up. Goes on to its end even if nobody waits any more: the client is gone.
    ///
    /// # Errors
    /// The upload, as it was.
    pub async fn keep(&self, mut upload: Upload, creation: Creation) -> Result<(), Box<Upload>> {
        let worth_it =
            upload.received() >= LEAST && creation.size.is_some_and(|size| size > upload.received());
        let has_room = |bytes| self.0.uploads.space.has_room_for(bytes);
        let left = creation.size.unwrap_or(0).saturating_sub(upload.received());
        let seat = self.0.registry.seat(&creation.client, left, Some(&self.0.limits), has_room);
        let (true, Ok(seat)) = (worth_it, seat) else { return Err(Box::new(upload)) };
        let Some(pipeline) = upload.interrupt() else { return Err(Box::new(upload)) };
        let this = self.clone();
        let kept = self.to_the_end(async move {
            let id = upload.id();
            let manifest = super::creation::manifest(id, &creation, Kind::Ordered, upload.is_sealed());
            this.give_up_older(&creation).await;
            match this.write_kept(pipeline, manifest.clone()).await {
                Ok(Kept { durable, key }) => {
                    let offset = durable.offset;
                    let keyring = this.0.uploads.keys.get();
                    let durable = Arc::new(Mutex::new(durable));
                    let work = Work { durable, size: creation.size, key, keyring, stage: Stage::Open };
                    let live = this.0.uploads.status.live(id);
                    let bytes = Bytes::Ordered(Ordered::new(work));
                    this.0.registry.insert(Arc::new(Unfinished::new(manifest, live, bytes, seat)));
                    upload.goes_on();
                    tracing::info!(transfer = %id, bytes = offset, "an upload that broke off can be resumed");
                }
                Err(error) => {
                    let layout = this.0.uploads.layout.clone();
                    _ = blocking(move || uploads::remove(&layout, id)).await;
                    upload.fail(&error.to_string()).await;
                }
            }
            Ok::<_, ResumableError>(())
        });
        // A panic in it has told why.
        kept.await.or(Ok(()))
    }

    /// Who sends the whole again does not go on with what broke off before.
    async fn give_up_older(&self, creation: &Creation) {
        let broke_off = |upload: &Unfinished| {
            let Manifest { kind, metadata, says_its_end, idempotency_key, .. } = &upload.manifest;
            *kind == Kind::Ordered && metadata.is_none() && !says_its_end && idempotency_key.is_none()
        };
        if let Some(older) = self.0.registry.find(&creation.client, &creation.filename, broke_off) {
            let (id, at) = (older.id(), Timestamp::now());
            let error = "the client has sent the file anew".into();
            let failed = Change::Failed { id, at, error, transferred_bytes: older.transferred() };
            if let Err(error) = self.end(&older, failed, None).await {
                tracing::debug!(%error, %id, "an upload that is sent anew has ended");
            }
        }
    }

    async fn write_kept(&self, pipeline: Pipeline, manifest: Manifest) -> Result<Kept, UploadError> {
        let (layout, durability) = (self.0.uploads.layout.clone(), self.0.uploads.durability);
        let keyring = self.0.uploads.keys.get().filter(|_| manifest.sealed);
        let kept = pipeline.end(move |mut writer, hashes| {
            writer.settle()?;
            writer.flush()?;
            writer.give_back()?;
            let (offset, tail) = (writer.length(), Zeroizing::new(writer.tail().to_vec()));
            let key = writer.keep();
            let log = UploadLog::create(&layout, &manifest, durability)?;
            let mut durable = Durable::new(log);
            durable.remember(offset, &hashes.whole, &tail, keyring.as_deref(), &manifest)?;
            Ok(Kept { durable, key })
        });
        kept.await.map_err(|error| UploadError::storage(&error))
    }
}
