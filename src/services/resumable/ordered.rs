//! An upload whose bytes come in order: one at a time brings them, and the newest counts.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use sha2::Sha256;
use zeroize::Zeroizing;

use super::memory;
use super::turns::Turns;
use crate::crypto::{FileKey, Keyring};
use crate::services::checksum::Hashes;
use crate::services::writer::{Opening, Writer};
use crate::store::upload_log::{Manifest, Record, UploadLog};

/// What brings the bytes in order.
pub(super) type Ordered = Turns<Work>;

/// How an upload stands, for the one whose turn it is.
pub(super) struct Work {
    pub(super) durable: Arc<Mutex<Durable>>,
    /// Bytes in all, if that is known.
    pub(super) size: Option<u64>,
    pub(super) key: Option<Arc<FileKey>>,
    pub(super) keyring: Option<Arc<Keyring>>,
    pub(super) stage: Stage,
}

/// Where an upload is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    /// Bytes are to come.
    Open,
    /// All are there. It is to be published, unless it is a part.
    Whole,
    /// It has been published, has failed, or was given up.
    Ended,
}

/// What survives a crash. Locked for moments, by whoever writes.
#[derive(Debug)]
pub(super) struct Durable {
    pub(super) log: UploadLog,
    pub(super) offset: u64,
    pub(super) hash: Sha256,
    /// Plain bytes before `offset` that do not fill a segment yet, if it is sealed.
    pub(super) tail: Arc<Zeroizing<Vec<u8>>>,
}

impl Work {
    pub(super) fn durable(&self) -> MutexGuard<'_, Durable> {
        self.durable.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is needed to write on.
    pub(super) fn opening(&self) -> (Opening, Hashes) {
        let durable = self.durable();
        let (key, offset, tail) = (self.key.clone(), durable.offset, Arc::clone(&durable.tail));
        let mut hashes = Hashes::default();
        hashes.whole = durable.hash.clone();
        (Opening::Resume { key, offset, tail }, hashes)
    }

    /// What makes durable what a writer has written.
    pub(super) fn checkpoint(
        &self,
        manifest: &Manifest,
    ) -> impl Fn(&mut Writer, &Hashes) -> io::Result<()> + Send + Sync + use<> {
        let durable = Arc::clone(&self.durable);
        let keyring = self.keyring.clone().filter(|_| manifest.sealed);
        let mut manifest = manifest.clone();
        manifest.size = self.size;
        move |writer, hashes| {
            writer.settle()?;
            writer.flush()?;
            let mut durable = durable.lock().unwrap_or_else(PoisonError::into_inner);
            durable.remember(writer.length(), &hashes.whole, writer.tail(), keyring.as_deref(), &manifest)
        }
    }
}

impl Durable {
    /// Nothing has arrived yet.
    pub(super) fn new(log: UploadLog) -> Self {
        Self { log, offset: 0, hash: Sha256::default(), tail: Arc::default() }
    }

    /// Writes down how far it is.
    pub(super) fn remember(
        &mut self,
        offset: u64,
        hash: &Sha256,
        tail: &[u8],
        keyring: Option<&Keyring>,
        manifest: &Manifest,
    ) -> io::Result<()> {
        if offset <= self.offset {
            return Ok(());
        }
        // What of the tail was there before has been written down before.
        let known = self.offset.saturating_sub(offset - tail.len() as u64);
        let new = usize::try_from(known).ok().and_then(|known| tail.get(known..)).unwrap_or_default();
        self.log.append(&Record::Offset { offset, memory: memory::write(hash, new, keyring)? })?;
        self.advance(offset, hash, tail);
        if self.log.is_long() {
            let memory = memory::write(hash, tail, keyring)?;
            self.log.rewrite(manifest, &[Record::Offset { offset, memory }])?;
        }
        Ok(())
    }

    pub(super) fn advance(&mut self, offset: u64, hash: &Sha256, tail: &[u8]) {
        self.offset = offset;
        self.hash = hash.clone();
        self.tail = Arc::new(Zeroizing::new(tail.to_vec()));
    }
}

/// The tail at `offset` of a sealed upload, of what was the tail before and what is new.
pub(super) fn joined_tail(offset: u64, before: &[u8], new: &[u8], segment: u64) -> Zeroizing<Vec<u8>> {
    let mut tail = Zeroizing::new(before.to_vec());
    tail.extend_from_slice(new);
    // The last segment that is begun waits, even if it is whole: it may be the last of all.
    let wanted = offset - offset.saturating_sub(1) / segment * segment;
    let surplus = tail.len().saturating_sub(usize::try_from(wanted).unwrap_or(usize::MAX));
    tail.drain(..surplus);
    tail
}
