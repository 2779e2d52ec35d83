//! Uploads that survive anything: they go on where they were after a broken connection, a restart, a crash.

mod model;

use std::sync::Arc;

use futures_util::Stream;

pub use self::model::{Append, Broken, Checksum, Concat, Creation, Piece, Progress, ResumableError};
use crate::domain::{Client, FileName, TransferId};

/// Unfinished uploads; cheap to clone.
#[derive(Clone, Default)]
pub struct Resumable(#[allow(dead_code)] Arc<Inner>);

#[derive(Default)]
struct Inner {}

impl Resumable {
    /// The unfinished upload of this name that this client has begun last and that goes on in order.
    pub fn find(&self, client: &Client, filename: &FileName) -> Option<TransferId> {
        _ = (client, filename);
        None
    }

    /// The most bytes that an upload may have; `None`: what fits.
    pub fn max_size(&self) -> Option<u64> {
        None
    }

    /// How long an upload is kept without a byte.
    pub fn expiry(&self) -> std::time::Duration {
        std::time::Duration::from_secs(24 * 3600)
    }

    /// Begins an upload, or finds the one that was begun with this key. One of no bytes is complete at once. When this
    /// returns, the upload is durable.
    ///
    /// # Errors
    /// [`ResumableError`].
    pub async fn create(&self, creation: Creation) -> Result<Progress, ResumableError> {
        _ = creation;
        Err(ResumableError::Unknown)
    }

    /// Joins complete parts to an upload, and publishes it.
    ///
    /// # Errors
    /// [`ResumableError`]; the parts are as before then.
    pub async fn join(&self, creation: Creation, parts: Vec<TransferId>) -> Result<Progress, ResumableError> {
        _ = (creation, parts);
        Err(ResumableError::Unknown)
    }

    /// How far an upload is. A connection that still holds it lets go, and what it brought is durable when this returns.
    ///
    /// # Errors
    /// [`ResumableError::Unknown`], [`ResumableError::Gone`].
    pub async fn progress(&self, id: TransferId) -> Result<Progress, ResumableError> {
        _ = id;
        Err(ResumableError::Unknown)
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
        _ = (id, append, body);
        Err(ResumableError::Unknown)
    }

    /// Gives an upload up, and removes what came of it. A complete one is forgotten, its file stays.
    ///
    /// # Errors
    /// [`ResumableError::Unknown`], [`ResumableError::Gone`].
    pub async fn cancel(&self, id: TransferId) -> Result<(), ResumableError> {
        _ = id;
        Err(ResumableError::Unknown)
    }
}
