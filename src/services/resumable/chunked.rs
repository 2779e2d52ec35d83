//! An upload whose bytes come in numbered chunks, in any order and at the same time.
//!
//! All chunks but the last are of one size. So as soon as that is known each has its place in the data file, and is
//! written there: at the end nothing is copied together. Only a last chunk that comes before all others waits in a file
//! of its own.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::model::{Chunk, ResumableError};
use super::prefix::Prefix;
use super::registry::Unfinished;
use super::turns::Turns;
use crate::crypto::{FileKey, Layout as Container, LayoutError};
use crate::domain::{Digest, TransferId};
use crate::services::uploads::UploadError;
use crate::store::upload_log::{Manifest, Record, UploadLog};

/// What there is of an upload.
pub(super) struct Chunked {
    pub(super) total: u32,
    state: Mutex<State>,
    /// Locked while it is written, on blocking threads.
    log: Arc<Mutex<UploadLog>>,
    /// Locked by whoever hashes, on blocking threads; elsewhere, tried.
    pub(super) prefix: Mutex<Prefix>,
    /// Up to which chunk the hash of the whole has come.
    pub(super) hashed: tokio::sync::watch::Sender<u32>,
    /// One at a time finds the chunks their places, or looks whether they are whole.
    pub(super) placing: tokio::sync::Mutex<()>,
    /// One at a time ends it; whether it has ended.
    ending: tokio::sync::Mutex<bool>,
}

#[derive(Default)]
pub(super) struct State {
    place: Option<Place>,
    received: BTreeMap<u32, Received>,
    aside: Option<Aside>,
    /// Chunks that are being written.
    pub(super) writing: HashMap<u32, Arc<Turns<()>>>,
    /// Bytes of those that are there.
    bytes: u64,
    /// Whether what was there when the server began has been looked at.
    looked_at: bool,
    pub(super) closed: bool,
}

/// Where chunks belong.
#[derive(Debug, Clone)]
pub(super) struct Place {
    /// Bytes of all chunks but the last; 0: there is only one.
    pub(super) size: u64,
    pub(super) key: Option<Arc<FileKey>>,
}

/// A chunk that is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Received {
    pub(super) length: u64,
    pub(super) sha256: Digest,
}

/// A chunk came: what there was then.
#[derive(Debug, Clone, Copy)]
pub(super) struct Came {
    /// Its number, and what it has.
    pub(super) chunk: (u32, Digest),
    /// How many are there.
    pub(super) count: u32,
    /// Whether it made the file whole.
    pub(super) is_last: bool,
}

/// The last chunk, in a file of its own: it is not among the others then.
#[derive(Debug, Clone, Copy)]
pub(super) struct Aside {
    pub(super) part: TransferId,
    pub(super) received: Received,
}

impl Place {
    /// Where the content of a chunk begins.
    pub(super) fn start(&self, number: u32) -> u64 {
        self.size.saturating_mul(number.into())
    }

    /// How long the data file is that holds so many bytes of content.
    pub(super) fn on_disk(&self, content: u64) -> Result<u64, LayoutError> {
        match &self.key {
            None => Ok(content),
            Some(key) => Ok(Container::of_plaintext(key.header().geometry, content)?.container_len()),
        }
    }
}

impl State {
    fn count(&self) -> u32 {
        u32::try_from(self.received.len() + usize::from(self.aside.is_some())).unwrap_or(u32::MAX)
    }

    /// Whether all are in their places.
    fn is_whole(&self, total: u32) -> bool {
        self.received.len() == total as usize
    }
}

impl Chunked {
    /// A new one, of so many chunks.
    pub(super) fn new(total: u32, log: UploadLog) -> Self {
        Self {
            total,
            state: Mutex::new(State { looked_at: true, ..State::default() }),
            log: Arc::new(Mutex::new(log)),
            prefix: Mutex::default(),
            hashed: tokio::sync::watch::Sender::default(),
            placing: tokio::sync::Mutex::new(()),
            ending: tokio::sync::Mutex::new(false),
        }
    }

    /// One that was there when the server began.
    pub(super) fn restored(
        total: u32,
        log: UploadLog,
        place: Option<Place>,
        received: BTreeMap<u32, Received>,
        aside: Option<Aside>,
    ) -> Self {
        let chunked = Self::new(total, log);
        let bytes = received.values().map(|chunk| chunk.length).sum();
        *chunked.state() = State { place, received, aside, bytes, ..State::default() };
        chunked
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn place(&self) -> Option<Place> {
        self.state().place.clone()
    }

    pub(super) fn set_place(&self, place: Place) {
        self.state().place = Some(place);
    }

    /// A chunk that is there.
    pub(super) fn received(&self, number: u32) -> Option<Received> {
        let state = self.state();
        let aside = state.aside.filter(|_| number + 1 == self.total).map(|aside| aside.received);
        state.received.get(&number).copied().or(aside)
    }

    /// A chunk that is in its place.
    pub(super) fn placed(&self, number: u32) -> Option<(Place, Received)> {
        let state = self.state();
        Some((state.place.clone()?, *state.received.get(&number)?))
    }

    /// All that are there, in order.
    pub(super) fn all(&self) -> Vec<(u32, Received)> {
        let state = self.state();
        let aside = state.aside;
        let mut all: Vec<_> = state.received.iter().map(|(number, chunk)| (*number, *chunk)).collect();
        all.extend(aside.map(|aside| (self.total - 1, aside.received)));
        all
    }

    /// Bytes of those that are there.
    pub(super) fn bytes(&self) -> u64 {
        let state = self.state();
        state.bytes + state.aside.map_or(0, |aside| aside.received.length)
    }

    /// A chunk has come that was there already.
    pub(super) fn came_again(&self, number: u32, sha256: Digest) -> Came {
        let state = self.state();
        // It may be that all are there and the file could not be published.
        Came { chunk: (number, sha256), count: state.count(), is_last: state.is_whole(self.total) }
    }

    /// Whether all are there.
    pub(super) fn has_all(&self) -> bool {
        self.state().count() == self.total
    }

    /// Whether all are in their places.
    pub(super) fn is_whole(&self) -> bool {
        self.state().is_whole(self.total)
    }

    pub(super) fn aside(&self) -> Option<Aside> {
        self.state().aside
    }

    /// Bytes of the whole file, once that can be told.
    pub(super) fn content_length(&self) -> Option<u64> {
        let last = self.received(self.total - 1)?;
        let place = self.place()?;
        Some(place.start(self.total - 1).saturating_add(last.length))
    }

    /// Writes down that a chunk is there: in its place, or aside. Says what there is now.
    ///
    /// # Errors
    /// [`ResumableError::Gone`]: the upload has ended meanwhile; [`ResumableError::Upload`]: it can't be written.
    pub(super) async fn note(
        &self,
        number: u32,
        received: Received,
        aside: Option<TransferId>,
    ) -> Result<Came, ResumableError> {
        let Received { length, sha256 } = received;
        let written = self.write(match aside {
            None => Record::Chunk { number, length, sha256 },
            Some(part) => Record::Aside { part, length, sha256 },
        });
        written.await.map_err(|error| self.failed(&error))?;
        let mut state = self.state();
        if state.closed {
            return Err(ResumableError::Gone);
        }
        let mut is_new = false;
        match aside {
            Some(part) => state.aside = Some(Aside { part, received }),
            None => {
                is_new = state.received.insert(number, received).is_none();
                if is_new {
                    state.bytes += length;
                }
                if number + 1 == self.total {
                    state.aside = None;
                }
            }
        }
        let count = state.count();
        Ok(Came { chunk: (number, sha256), count, is_last: is_new && state.is_whole(self.total) })
    }

    /// Appends to the log.
    pub(super) async fn write(&self, record: Record) -> io::Result<()> {
        let log = Arc::clone(&self.log);
        crate::services::pipeline::blocking(move || {
            log.lock().unwrap_or_else(PoisonError::into_inner).append(&record)
        })
        .await
    }

    /// What was found is not what had arrived.
    pub(super) async fn lose(&self, numbers: &[u32]) -> io::Result<()> {
        for number in numbers {
            self.write(Record::Lost(*number)).await?;
            let mut state = self.state();
            if let Some(lost) = state.received.remove(number) {
                state.bytes -= lost.length;
            } else if number + 1 == self.total {
                state.aside = None;
            }
        }
        Ok(())
    }

    /// Whether it still has to be looked at.
    pub(super) fn is_new(&self) -> bool {
        !self.state().looked_at
    }

    pub(super) fn looked_at(&self) {
        self.state().looked_at = true;
    }

    /// Whether the chunks from `first` up to `number` are there or on their way.
    pub(super) fn come_soon(&self, first: u32, number: u32) -> bool {
        /// Nobody sends more at a time.
        const MOST: u32 = 16;
        let state = self.state();
        number.saturating_sub(first) <= MOST
            && (first..number)
                .all(|number| state.received.contains_key(&number) || state.writing.contains_key(&number))
    }

    /// Whether somebody writes to it.
    pub(super) fn is_busy(&self) -> bool {
        !self.state().writing.is_empty() || self.ending.try_lock().is_err()
    }

    /// One's turn to end it.
    pub(super) async fn end(&self) -> tokio::sync::MutexGuard<'_, bool> {
        self.ending.lock().await
    }

    /// Nothing more is taken. Gives one's turn to end it.
    pub(super) async fn close(&self) -> Result<tokio::sync::MutexGuard<'_, bool>, ResumableError> {
        let ended = self.ending.lock().await;
        if *ended {
            return Err(ResumableError::Gone);
        }
        let mut state = self.state();
        state.closed = true;
        state.writing.values().for_each(|turns| _ = turns.supersede());
        drop(state);
        Ok(ended)
    }

    /// What it means for a chunk that something can't be written.
    pub(super) fn failed(&self, error: &io::Error) -> ResumableError {
        // Its files are gone.
        if self.state().closed { ResumableError::Gone } else { UploadError::storage(error).into() }
    }

    /// It goes on after all.
    pub(super) fn reopen(&self) {
        self.state().closed = false;
    }

    /// Whether what a request says of a chunk goes with what is there.
    pub(super) fn check(
        &self,
        manifest: &Manifest,
        chunk: &Chunk,
        sealed: bool,
        length: Option<u64>,
    ) -> Result<(), ResumableError> {
        let conflict = |what| Err(ResumableError::ChunkConflict(what));
        if chunk.filename != manifest.filename {
            return conflict("the upload has another name");
        }
        if chunk.total != self.total {
            return conflict("the upload has another number of chunks");
        }
        if chunk.encryption.is_some() && sealed != manifest.sealed {
            return conflict("the upload began with another encryption");
        }
        if manifest.size.zip(chunk.file_size).is_some_and(|(before, now)| before != now) {
            return conflict("the file has another size");
        }
        let Some(place) = self.place() else { return Ok(()) };
        let is_last = chunk.number + 1 == self.total;
        if self.total > 1 && chunk.size.is_some_and(|size| size != place.size) {
            return conflict("the upload has chunks of another size");
        }
        let Some(length) = length else { return Ok(()) };
        if !is_last && length != place.size {
            return conflict("all chunks but the last have one size");
        }
        if self.total > 1 && length > place.size {
            return conflict("the last chunk is not larger than the others");
        }
        let end = place.start(chunk.number).saturating_add(length);
        if is_last && manifest.size.is_some_and(|size| size != end) {
            return conflict("the chunks do not make up the size of the file");
        }
        Ok(())
    }
}

impl Unfinished {
    /// How its bytes come, in chunks.
    pub(super) fn chunked(&self) -> Option<&Chunked> {
        match &self.bytes {
            super::registry::Bytes::Chunked(chunked) => Some(chunked),
            super::registry::Bytes::Ordered(_) => None,
        }
    }
}
