//! Uploads that survive anything: they go on where they were after a broken connection, a restart, a crash.
//!
//! What has arrived of one is in its data file, and its log says so ([`crate::store::upload_log`]): first the data is
//! flushed, then the log, then the client is told. At its end an upload is verified and published as every other.

mod append;
mod aside;
mod assemble;
mod chunked;
mod completion;
mod creation;
mod incoming;
mod janitor;
mod join;
mod keep;
mod memory;
mod model;
mod ordered;
mod placing;
mod prefix;
mod registry;
mod restore;
mod slot;
mod turns;

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures_util::{FutureExt as _, Stream};

pub use self::incoming::Incoming;
pub use self::model::{
    Append, Broken, Checksum, Chunk, ChunkTaken, Concat, Creation, Piece, Progress, ResumableError,
    ResumeInfo,
};
use self::ordered::{Ordered, Stage, Work};
pub use self::registry::Limits;
use self::registry::{Bytes, Finished, Known, Registry, Unfinished};
pub use self::restore::Restored;
use super::pipeline::blocking;
use super::to_the_end::to_the_end;
use super::uploads::{UploadError, Uploads};
use crate::domain::{Change, Client, Digest, FileName, Timestamp, Transfer, TransferId};
use crate::store::status::CommitError;
use crate::store::upload_log::Kind;
use crate::store::uploads;

/// Unfinished uploads; cheap to clone.
#[derive(Clone)]
pub struct Resumable(Arc<Inner>);

struct Inner {
    uploads: Uploads,
    limits: Limits,
    registry: Registry,
    /// Creations with a key wait for those with the same one: two must not make two uploads.
    turns: [tokio::sync::Mutex<()>; 64],
}

impl Resumable {
    /// Uploads that end as those of `uploads` do.
    pub fn new(uploads: Uploads, limits: Limits) -> Self {
        let turns = std::array::from_fn(|_| tokio::sync::Mutex::new(()));
        Self(Arc::new(Inner { uploads, limits, registry: Registry::default(), turns }))
    }

    /// The most bytes that an upload may have; `None`: what fits.
    pub fn max_size(&self) -> Option<u64> {
        self.0.limits.size
    }

    /// How long an upload is kept without a byte.
    pub fn expiry(&self) -> Duration {
        self.0.limits.expiry
    }

    /// The unfinished upload of this name that this client has begun last and that goes on in order.
    pub fn find(&self, client: &Client, filename: &FileName) -> Option<TransferId> {
        let ordered = |upload: &Unfinished| upload.manifest.kind == Kind::Ordered;
        Some(self.0.registry.find(client, filename, ordered)?.id())
    }

    /// Begins an upload, or finds the one that was begun with this key. One of no bytes is complete at once. When this
    /// returns, the upload is durable.
    ///
    /// # Errors
    /// [`ResumableError`].
    pub async fn create(&self, creation: Creation) -> Result<Progress, ResumableError> {
        let this = self.clone();
        self.to_the_end(async move { this.create_or_find(creation).await }).await
    }

    /// Joins complete parts to an upload, and publishes it. The parts are used up then: who asks again for the same ones
    /// gets the same upload. `list`: tus's list of their URLs, as it was sent.
    ///
    /// # Errors
    /// [`ResumableError`]; the parts are as before then.
    pub async fn join(
        &self,
        creation: Creation,
        parts: Vec<TransferId>,
        list: Box<str>,
    ) -> Result<Progress, ResumableError> {
        let this = self.clone();
        self.to_the_end(async move { this.join_parts(creation, parts, list).await }).await
    }

    /// How far an upload is. A connection that still holds it lets go, and what it brought is durable when this returns.
    /// Cancel-safe.
    ///
    /// # Errors
    /// [`ResumableError::Unknown`], [`ResumableError::Gone`]; where everything has come but could not be published, why.
    pub async fn progress(&self, id: TransferId) -> Result<Progress, ResumableError> {
        let upload = match self.known(id)? {
            Known::Finished(finished) => return Ok(Self::of_finished(&finished)),
            Known::Unfinished(upload) => upload,
        };
        let turn = upload.ordered()?.look().await;
        match turn.work.stage {
            Stage::Ended => self.after_the_end(id),
            Stage::Whole if !upload.is_partial() => {
                drop(turn);
                let this = self.clone();
                self.to_the_end(async move { this.publish_again(&upload).await }).await
            }
            Stage::Open | Stage::Whole => Ok(self.of_unfinished(&upload, &turn.work)),
        }
    }

    /// Adds a body to an upload, and publishes it if that was the last. A connection that still holds the upload lets go
    /// first. Goes on to its end even if nobody waits any more: what has come is kept.
    ///
    /// # Errors
    /// [`ResumableError`].
    pub async fn append<S>(&self, id: TransferId, append: Append, body: S) -> Result<Progress, ResumableError>
    where
        S: Stream<Item = Result<Piece, Broken>> + Send + Unpin + 'static,
    {
        let this = self.clone();
        self.to_the_end(async move { this.append_to_the_end(id, append, body).await }).await
    }

    /// Gives an upload up, and removes what came of it. A complete one is forgotten, its file stays.
    ///
    /// # Errors
    /// [`ResumableError::Unknown`], [`ResumableError::Gone`]; [`UploadError::Storage`] if that can't be made durable.
    pub async fn cancel(&self, id: TransferId) -> Result<(), ResumableError> {
        let this = self.clone();
        self.to_the_end(async move {
            match this.known(id)? {
                Known::Finished(_) => {
                    this.0.registry.forget(id);
                    this.remove_logs(vec![id]).await;
                    Ok(())
                }
                Known::Unfinished(upload) => {
                    let (at, transferred_bytes) = (Timestamp::now(), upload.transferred());
                    let cancelled = Change::Cancelled { id, at, transferred_bytes };
                    this.end(&upload, cancelled, None).await
                }
            }
        })
        .await
    }

    /// Does `work` to its end, whether or not somebody waits for it: a stop of the server does.
    async fn to_the_end<T: Send + 'static>(
        &self,
        work: impl Future<Output = Result<T, ResumableError>> + Send + 'static,
    ) -> Result<T, ResumableError> {
        // A bug is told once, by the panic's own message, and costs this work only.
        let work = AssertUnwindSafe(work).catch_unwind();
        let done = to_the_end(&self.0.uploads.running, work).await;
        done.unwrap_or_else(|_| Err(UploadError::Storage("the work on the upload has failed".into()).into()))
    }

    /// An upload that is known here.
    fn known(&self, id: TransferId) -> Result<Known, ResumableError> {
        self.0.registry.get(id).ok_or_else(|| match self.0.uploads.status.transfer(id) {
            Some(transfer) if transfer.status.is_terminal() => ResumableError::Gone,
            _ => ResumableError::Unknown,
        })
    }

    /// What is told of an upload that has ended while somebody waited for it.
    fn after_the_end(&self, id: TransferId) -> Result<Progress, ResumableError> {
        match self.0.registry.get(id) {
            Some(Known::Finished(finished)) => Ok(Self::of_finished(&finished)),
            _ => Err(ResumableError::Gone),
        }
    }

    fn of_finished(finished: &Finished) -> Progress {
        let size = finished.transfer.total_bytes.unwrap_or(0);
        let concat = match &finished.manifest.kind {
            Kind::Joined { list, .. } => Some(Concat::Final(list.clone())),
            Kind::Ordered | Kind::Partial | Kind::Chunks { .. } => None,
        };
        Progress {
            id: finished.manifest.id,
            offset: size,
            size: Some(size),
            complete: true,
            expires_at: None,
            metadata: finished.manifest.metadata.clone(),
            concat,
            transfer: Some(Arc::clone(&finished.transfer)),
        }
    }

    fn of_unfinished(&self, upload: &Unfinished, work: &Work) -> Progress {
        let complete = work.stage == Stage::Whole;
        Progress {
            id: upload.id(),
            offset: work.durable().offset,
            size: work.size,
            complete,
            expires_at: Some(self.expires_at(upload)),
            metadata: upload.manifest.metadata.clone(),
            concat: upload.is_partial().then_some(Concat::Partial),
            transfer: None,
        }
    }

    fn expires_at(&self, upload: &Unfinished) -> Timestamp {
        (upload.touched().to_system_time() + self.0.limits.expiry).into()
    }

    /// Ends an upload before it is complete: writes down why, and removes what came of it. Whoever holds it lets go first.
    /// `unless_since`: not if somebody has wanted it since then.
    async fn end(
        &self,
        upload: &Unfinished,
        why: Change,
        unless_since: Option<Timestamp>,
    ) -> Result<(), ResumableError> {
        let is_wanted = || unless_since.is_some_and(|since| upload.touched() >= since);
        match &upload.bytes {
            Bytes::Ordered(ordered) => {
                let mut turn = ordered.take().await?;
                if is_wanted() {
                    return Err(ResumableError::TakenOver);
                }
                if turn.work.stage == Stage::Ended {
                    return Err(ResumableError::Gone);
                }
                self.end_now(upload, Some(why)).await?;
                turn.work.stage = Stage::Ended;
            }
            Bytes::Chunked(chunked) => {
                let mut ended = chunked.close().await?;
                let result = match is_wanted() {
                    true => Err(ResumableError::TakenOver),
                    false => self.end_now(upload, Some(why)).await,
                };
                *ended = result.is_ok();
                if result.is_err() {
                    chunked.reopen();
                }
                result?;
            }
        }
        Ok(())
    }

    /// The same where nobody else works on it.
    async fn end_now(&self, upload: &Unfinished, why: Option<Change>) -> Result<(), ResumableError> {
        let id = upload.id();
        // A part is no transfer.
        if let Some(why) = why.filter(|_| !upload.is_partial()) {
            match self.0.uploads.status.commit(why.clone(), None).await {
                Ok(_) => {}
                // What makes room must not wait for room.
                Err(CommitError::Full(_)) => self.0.uploads.status.note(why),
                Err(error) => return Err(UploadError::Storage(error.to_string()).into()),
            }
        }
        let forgotten = self.0.registry.end(id, None);
        self.remove_logs(forgotten).await;
        let layout = self.0.uploads.layout.clone();
        if let Err(error) = blocking(move || uploads::remove(&layout, id)).await {
            tracing::warn!(%error, %id, "what came of an upload could not be removed");
        }
        Ok(())
    }

    /// It is published: it is remembered for those who ask again.
    async fn remember(&self, upload: &Unfinished, transfer: Arc<Transfer>, last: Option<(u32, Digest)>) {
        let finished = Finished::new(upload.manifest.clone(), transfer, last, Timestamp::now());
        let forgotten = self.0.registry.end(upload.id(), Some(finished));
        self.remove_logs(forgotten).await;
    }

    async fn remove_logs(&self, ids: Vec<TransferId>) {
        if ids.is_empty() {
            return;
        }
        let layout = self.0.uploads.layout.clone();
        let removed = blocking(move || ids.iter().try_for_each(|id| uploads::remove(&layout, *id))).await;
        if let Err(error) = removed {
            tracing::warn!(%error, "the log of an upload could not be removed");
        }
    }
}

impl Unfinished {
    fn is_partial(&self) -> bool {
        self.manifest.kind == Kind::Partial
    }

    fn transferred(&self) -> u64 {
        self.live.as_ref().map_or(0, |live| live.done())
    }

    /// How its bytes come, in order.
    fn ordered(&self) -> Result<&Ordered, ResumableError> {
        match &self.bytes {
            Bytes::Ordered(ordered) => Ok(ordered),
            Bytes::Chunked(_) => Err(ResumableError::Unknown),
        }
    }
}

#[cfg(test)]
mod tests;
