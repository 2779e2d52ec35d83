//! Uploads: from the first byte to the answer that says it is safe.

use std::io;
use std::sync::Arc;

use bytes::Bytes;
use tokio_util::task::TaskTracker;

use super::checksum::Hashes;
use super::keys::Keys;
use super::pipeline::{Pipeline, blocking};
use super::space::Space;
use super::to_the_end::to_the_end;
use super::writer::{Opening, Target, Written};
use crate::crypto::FileKey;
use crate::domain::{
    Change, Client, Completion, Digest, Direction, FileName, Priority, Start, Timestamp, Transfer, TransferId,
};
use crate::store::status::{CommitError, Condition, Live, Publish, StatusStore};
use crate::store::{Durability, Layout, files, is_full};

/// Takes uploads.
#[derive(Clone)]
pub struct Uploads {
    pub(super) layout: Layout,
    pub(super) status: StatusStore,
    pub(super) space: Space,
    pub(super) keys: Keys,
    pub(super) sealing: Sealing,
    max_file_size: u64,
    pub(super) durability: Durability,
    /// What goes on to its end whether or not somebody waits.
    pub(super) running: TaskTracker,
}

/// Which files are sealed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Sealing {
    /// Those that ask for it.
    Optional,
    /// All but those that ask not to be.
    DefaultOn,
    /// All, whatever they ask.
    Required,
}

impl Sealing {
    /// Whether a file is sealed that asks so, or says nothing.
    pub fn decide(self, asked: Option<bool>) -> bool {
        match self {
            Self::Optional => asked.unwrap_or(false),
            Self::DefaultOn => asked.unwrap_or(true),
            Self::Required => true,
        }
    }
}

/// Why an upload was not taken. What stood under the name before stands there still.
#[derive(Debug, thiserror::Error)]
pub enum UploadError {
    /// Larger than one request may bring.
    #[error("the file is larger than {limit} bytes")]
    TooLarge {
        /// The most bytes that one request may bring.
        limit: u64,
    },
    /// The content is not what the client said it would be.
    #[error("the content has the SHA-256 {actual}, not {expected}")]
    ChecksumMismatch {
        /// What the client said.
        expected: Digest,
        /// What came.
        actual: Digest,
    },
    /// What stands under the name does not meet the condition.
    #[error("what stands under the name does not meet the condition")]
    Condition(Condition),
    /// A directory stands under the name.
    #[error("a directory stands under the name")]
    NameTaken,
    /// The client hung up, or stopped sending.
    #[error("the upload was not sent to its end: {0}")]
    Incomplete(String),
    /// There is no room.
    #[error("there is not enough space in the storage")]
    Full,
    /// The storage can't be written.
    #[error("the storage can't be written: {0}")]
    Storage(String),
}

impl UploadError {
    pub(super) fn storage(error: &io::Error) -> Self {
        if is_full(error) { Self::Full } else { Self::Storage(error.to_string()) }
    }
}

/// What is known of an upload when its first byte comes.
#[derive(Debug, Clone)]
pub struct Beginning {
    /// Its name, as far as it is known.
    pub filename: FileName,
    /// Who sends it.
    pub client: Client,
    /// How urgent it is.
    pub priority: Priority,
    /// Whether it is to be sealed, if the client has said.
    pub encryption: Option<bool>,
    /// Whether the client can still say so, after the file.
    pub may_change: bool,
    /// Bytes to come, if the client has said: the file's own size (shown as the total).
    pub size: Option<u64>,
    /// Bytes to come at most, if the client has said: space is set aside for them.
    pub at_most: Option<u64>,
}

/// What is known of an upload when its last byte has come: fields may stand after the file.
#[derive(Debug, Clone)]
pub struct Ending {
    /// Its name.
    pub filename: FileName,
    /// Who sent it.
    pub client: Client,
    /// How urgent it is.
    pub priority: Priority,
    /// Whether it is to be sealed, if the client has said.
    pub encryption: Option<bool>,
    /// What its content must have, if the client has said.
    pub sha256: Option<Digest>,
    /// What must stand under the name.
    pub condition: Condition,
}

impl Uploads {
    /// Uploads of files up to `max_file_size` bytes.
    pub fn new(
        layout: Layout,
        status: StatusStore,
        space: Space,
        keys: Keys,
        sealing: Sealing,
        max_file_size: u64,
        durability: Durability,
    ) -> Self {
        let running = TaskTracker::new();
        Self { layout, status, space, keys, sealing, max_file_size, durability, running }
    }

    /// Waits until what goes on without its client has come to its end: publishing, and keeping what broke off. To be called
    /// when no connection is left, before the process ends. Cancel-safe.
    pub async fn ended(&self) {
        self.running.close();
        self.running.wait().await;
    }

    /// The most bytes that one request may bring.
    pub const fn max_file_size(&self) -> u64 {
        self.max_file_size
    }

    /// Looks whether an upload can be taken, before its first byte is read.
    ///
    /// # Errors
    /// What can be known already: too large, no room, a condition that can't come true.
    pub fn admit(&self, beginning: &Beginning, condition: &Condition) -> Result<(), UploadError> {
        if beginning.size.is_some_and(|size| size > self.max_file_size) {
            return Err(UploadError::TooLarge { limit: self.max_file_size });
        }
        let at_most = beginning.at_most.or(beginning.size).unwrap_or(0).min(self.max_file_size);
        if !self.space.has_room_for(at_most) {
            return Err(UploadError::Full);
        }
        let hopeless = match condition {
            Condition::New => self.is_taken(&beginning.filename),
            Condition::Matches(_) => !self.is_taken(&beginning.filename),
            Condition::Any | Condition::MatchesNone(_) => false,
        };
        if hopeless { Err(UploadError::Condition(condition.clone())) } else { Ok(()) }
    }

    /// Whether a file stands under a name now, whoever put it there. One `lstat(2)`; what counts is looked at again when
    /// a file is published.
    pub fn is_taken(&self, filename: &FileName) -> bool {
        self.status.file(filename).is_some_and(|entry| entry.encryption)
            || files::standing(&self.layout.file(filename)).is_ok_and(|file| file.is_some())
    }

    /// Begins an upload that was admitted. Cancel-safe.
    ///
    /// # Errors
    /// [`UploadError::Storage`]: there is no key to seal it with.
    pub async fn begin(&self, beginning: Beginning) -> Result<Upload, UploadError> {
        let sealed = self.sealing.decide(beginning.encryption);
        let key = self.key(sealed).await?;
        let id = TransferId::new();
        let filename = beginning.filename.clone();
        let expected = beginning.at_most.or(beginning.size).unwrap_or(0).min(self.max_file_size);
        self.status.note(Change::Started(Start {
            id,
            filename: beginning.filename,
            direction: Direction::Upload,
            client: beginning.client,
            encryption: sealed,
            priority: beginning.priority,
            total_bytes: beginning.size,
            at: Timestamp::now(),
        }));
        let target = Target {
            layout: self.layout.clone(),
            id,
            expected,
            space: self.space.clone(),
            durability: self.durability,
        };
        let pipeline = Pipeline::new(target.clone(), Opening::New(key), Hashes::default());
        let undecided = beginning.may_change && !sealed;
        Ok(Upload {
            pipeline: Some(if undecided { pipeline.undecided() } else { pipeline }),
            target,
            sealed,
            live: self.status.track(id, beginning.size, beginning.at_most),
            received: 0,
            filename,
            attempt: Attempt { id, status: self.status.clone(), ended: None },
            uploads: self.clone(),
        })
    }

    /// Gives a whole, flushed upload its name. The caller does away with what is staged, or keeps it.
    ///
    /// # Errors
    /// [`UploadError`]; it has no name then.
    pub(super) async fn publish(
        &self,
        id: TransferId,
        written: &Written,
        actual: Digest,
        ending: Ending,
    ) -> Result<Arc<Transfer>, UploadError> {
        if let Some(expected) = ending.sha256.filter(|expected| *expected != actual) {
            return Err(UploadError::ChecksumMismatch { expected, actual });
        }
        let sealed = written.seal.is_some();
        let staged = written.staged.path();
        let publish = Publish::new(&self.layout, staged, &ending.filename, sealed, ending.condition.clone());
        let completion = Completion {
            id,
            at: Timestamp::now(),
            filename: ending.filename,
            client: ending.client,
            priority: ending.priority,
            seal: written.seal,
            checksum: actual,
            file: written.file.clone(),
        };
        let commit = self.status.commit(Change::Completed(completion), Some(publish));
        commit.await.map_err(|error| match error {
            CommitError::Condition => UploadError::Condition(ending.condition),
            CommitError::NameTaken => UploadError::NameTaken,
            CommitError::Full(_) => UploadError::Full,
            CommitError::Impossible(_) | CommitError::Io(_) | CommitError::Unusable => {
                UploadError::Storage(error.to_string())
            }
        })
    }

    /// What an upload is sealed with.
    pub(super) async fn key(&self, sealed: bool) -> Result<Option<Arc<FileKey>>, UploadError> {
        match sealed {
            true => self.keys.file_key().await.map(Some).map_err(|error| UploadError::storage(&error)),
            false => Ok(None),
        }
    }
}

/// An upload that runs. Dropped before its end, it has failed and leaves nothing behind.
pub struct Upload {
    uploads: Uploads,
    filename: FileName,
    pipeline: Option<Pipeline>,
    target: Target,
    /// Whether it has been sealed so far.
    sealed: bool,
    live: Arc<Live>,
    received: u64,
    attempt: Attempt,
}

/// Records the end of a transfer, however it comes.
struct Attempt {
    id: TransferId,
    status: StatusStore,
    /// Why it ended; `None`: dropped, since the client hung up or the server stops.
    ended: Option<Result<(), String>>,
}

impl Upload {
    /// Its id.
    pub const fn id(&self) -> TransferId {
        self.attempt.id
    }

    /// Takes the next bytes of the file. After an error the upload can only be given up.
    ///
    /// # Errors
    /// [`UploadError::TooLarge`], [`UploadError::Full`], [`UploadError::Storage`].
    pub async fn push(&mut self, bytes: Bytes) -> Result<(), UploadError> {
        let length = bytes.len() as u64;
        self.received += length;
        if self.received > self.uploads.max_file_size {
            return Err(UploadError::TooLarge { limit: self.uploads.max_file_size });
        }
        if let Some(pipeline) = &mut self.pipeline {
            pipeline.push(bytes).await.map_err(|error| UploadError::storage(&error))?;
        }
        self.live.add(length);
        Ok(())
    }

    /// Bytes of the file that have come so far.
    pub const fn received(&self) -> u64 {
        self.received
    }

    /// Its name, as it was known at the beginning.
    pub const fn filename(&self) -> &FileName {
        &self.filename
    }

    /// Whether it has been sealed so far.
    pub(super) const fn is_sealed(&self) -> bool {
        self.sealed
    }

    /// Its request broke off: gives what has its bytes, once.
    pub(super) fn interrupt(&mut self) -> Option<Pipeline> {
        self.pipeline.take()
    }

    /// It goes on by other requests: it has not ended.
    pub(super) fn goes_on(mut self) {
        self.attempt.ended = Some(Ok(()));
    }

    /// Gives the upload up: what came of it is removed, and the transfer has failed with this error. When this returns,
    /// whoever asks for its status sees so.
    pub async fn fail(mut self, error: &str) {
        self.attempt.ended = Some(Err(error.to_owned()));
        let status = self.attempt.status.clone();
        drop(self);
        status.settled().await;
    }

    /// Verifies, flushes and publishes the file. When this returns, it is as safe as the durability says.
    ///
    /// Runs to its end even if nobody waits any more: all bytes are here.
    ///
    /// # Errors
    /// [`UploadError`]; nothing is left of the upload then.
    pub async fn finish(self, ending: Ending) -> Result<Arc<Transfer>, UploadError> {
        let running = self.uploads.running.clone();
        to_the_end(&running, self.run_to_the_end(ending)).await
    }

    async fn run_to_the_end(mut self, ending: Ending) -> Result<Arc<Transfer>, UploadError> {
        let result = self.publish(ending).await;
        match &result {
            Ok(_) => self.attempt.ended = Some(Ok(())),
            Err(error) => self.fail(&error.to_string()).await,
        }
        result
    }

    /// Waits until everything is written, in the form that the client has asked for at last.
    async fn write(&mut self, ending: &Ending) -> Result<(Written, Digest), UploadError> {
        let Some(mut pipeline) = self.pipeline.take() else {
            return Err(UploadError::Storage("the upload has ended before".into()));
        };
        let sealed = self.uploads.sealing.decide(ending.encryption);
        let key = if sealed == self.sealed { None } else { Some(self.uploads.key(sealed).await?) };
        let convert = key.filter(|key| !pipeline.decide(Opening::New(key.clone())));
        let written = pipeline.end(|writer, hashes| Ok((writer.finish()?, hashes.digest())));
        let (written, digest) = written.await.map_err(|error| UploadError::storage(&error))?;
        let Some(key) = convert else { return Ok((written, digest)) };
        // Bytes were on the disk before the client said how it wants them.
        let (target, keys) = (self.target.clone(), self.uploads.keys.clone());
        let converted = blocking(move || {
            let keyring = keys.make().map_err(io::Error::other)?;
            written.convert(target, key, &keyring)
        });
        Ok((converted.await.map_err(|error| UploadError::storage(&error))?, digest))
    }

    async fn publish(&mut self, ending: Ending) -> Result<Arc<Transfer>, UploadError> {
        let (written, actual) = self.write(&ending).await?;
        let published = self.uploads.publish(self.attempt.id, &written, actual, ending).await;
        match &published {
            Ok(_) => written.staged.published(),
            // Freeing a large file's blocks takes its time.
            Err(_) => _ = tokio::task::spawn_blocking(move || drop(written)),
        }
        published
    }
}

impl Drop for Attempt {
    fn drop(&mut self) {
        let error = match self.ended.take() {
            Some(Ok(())) => return,
            Some(Err(error)) => error,
            None => "the client hung up, or the server stopped, before the upload was complete".into(),
        };
        let transferred_bytes = self.status.live_bytes(self.id);
        self.status.note(Change::Failed {
            id: self.id,
            at: Timestamp::now(),
            error: error.into(),
            transferred_bytes,
        });
    }
}
