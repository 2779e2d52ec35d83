//! Which uploads can be resumed, and how many there may be.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::chunked::Chunked;
use super::model::ResumableError;
use super::ordered::Ordered;
use crate::domain::progress::Live;
use crate::domain::{Client, Digest, FileName, Timestamp, Transfer, TransferId};
use crate::store::upload_log::Manifest;

/// So many uploads that are complete are remembered for those who ask again.
const FINISHED: usize = 1000;

/// How many, how large, how long.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Bytes of an upload; `None`: what fits.
    pub size: Option<u64>,
    /// Chunks of an upload.
    pub chunks: u32,
    /// Bytes of a chunk.
    pub chunk_size: u64,
    /// Unfinished uploads, in all.
    pub unfinished: usize,
    /// Unfinished uploads of one address.
    pub per_client: usize,
    /// Bytes that unfinished uploads may still have to come, in all; `None`: what fits.
    pub reserved: Option<u64>,
    /// How long one is kept without a byte.
    pub expiry: Duration,
}

/// An unfinished upload.
pub(super) struct Unfinished {
    pub(super) manifest: Manifest,
    /// How far it is; a part of another upload is not shown.
    pub(super) live: Option<Arc<Live>>,
    pub(super) bytes: Bytes,
    touched: Mutex<Timestamp>,
    pub(super) seat: Seat,
}

/// How its bytes come.
pub(super) enum Bytes {
    Ordered(Ordered),
    Chunked(Box<Chunked>),
}

/// An upload that is complete and published, for those who ask again.
pub(super) struct Finished {
    pub(super) manifest: Manifest,
    pub(super) transfer: Arc<Transfer>,
    /// Of an upload in chunks: the one that came last, and what it has.
    pub(super) last: Option<(u32, Digest)>,
    pub(super) at: Timestamp,
}

impl Unfinished {
    pub(super) fn new(manifest: Manifest, live: Option<Arc<Live>>, bytes: Bytes, seat: Seat) -> Self {
        Self { manifest, live, bytes, touched: Mutex::new(Timestamp::now()), seat }
    }

    pub(super) const fn id(&self) -> TransferId {
        self.manifest.id
    }

    /// It is wanted: it expires later.
    pub(super) fn touch(&self, at: Timestamp) {
        *lock(&self.touched) = at;
    }

    pub(super) fn touched(&self) -> Timestamp {
        *lock(&self.touched)
    }

    /// Whether it is of this client: the same id, or the same address of one that has named no id.
    pub(super) fn is_of(&self, client: &Client) -> bool {
        is_of(&self.manifest, client)
    }
}

fn is_of(manifest: &Manifest, client: &Client) -> bool {
    let owner = manifest.client();
    owner.id == client.id || (client.id == client.ip && owner.ip == client.ip)
}

impl Finished {
    pub(super) fn new(
        manifest: Manifest,
        transfer: Arc<Transfer>,
        last: Option<(u32, Digest)>,
        at: Timestamp,
    ) -> Self {
        Self { manifest, transfer, last, at }
    }
}

/// An upload that is known.
#[derive(Clone)]
pub(super) enum Known {
    Unfinished(Arc<Unfinished>),
    Finished(Arc<Finished>),
}

#[derive(Default)]
pub(super) struct Registry {
    state: Mutex<State>,
    counts: Arc<Mutex<Counts>>,
}

#[derive(Default)]
struct State {
    unfinished: HashMap<TransferId, Arc<Unfinished>>,
    finished: HashMap<TransferId, Arc<Finished>>,
    /// The finished ones, the oldest first.
    order: VecDeque<TransferId>,
    /// Which upload a client has begun with a key.
    keys: HashMap<(Box<str>, Box<str>), TransferId>,
}

#[derive(Default)]
struct Counts {
    clients: HashMap<Arc<str>, usize>,
    total: usize,
    /// Bytes that are still to come.
    reserved: u64,
}

/// What an unfinished upload takes of the limits; given back when it is dropped.
pub(super) struct Seat {
    counts: Arc<Mutex<Counts>>,
    ip: Arc<str>,
    /// Bytes that are still to come.
    reserved: Mutex<u64>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Seat {
    /// So many bytes are still to come now.
    pub(super) fn expect(&self, bytes: u64) {
        let mut reserved = lock(&self.reserved);
        let mut counts = lock(&self.counts);
        counts.reserved = counts.reserved.saturating_sub(*reserved).saturating_add(bytes);
        *reserved = bytes;
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.expect(0);
        let mut counts = lock(&self.counts);
        counts.total -= 1;
        if let Some(count) = counts.clients.get_mut(&self.ip) {
            *count -= 1;
            if *count == 0 {
                counts.clients.remove(&self.ip);
            }
        }
    }
}

impl Registry {
    /// Takes a seat for an upload of `size` bytes; `has_room` says whether so many fit beside all that is still to come.
    /// `limits`: `None` for those that were there before this server began.
    pub(super) fn seat(
        &self,
        client: &Client,
        size: u64,
        limits: Option<&Limits>,
        has_room: impl FnOnce(u64) -> bool,
    ) -> Result<Seat, ResumableError> {
        let mut counts = lock(&self.counts);
        let of_client = counts.clients.get(&client.ip).copied().unwrap_or(0);
        if let Some(limits) = limits {
            if counts.total >= limits.unfinished {
                return Err(ResumableError::TooMany { limit: limits.unfinished });
            }
            if of_client >= limits.per_client {
                return Err(ResumableError::TooMany { limit: limits.per_client });
            }
            let reserved = counts.reserved.saturating_add(size);
            if limits.reserved.is_some_and(|limit| reserved > limit) || !has_room(reserved) {
                return Err(crate::services::uploads::UploadError::Full.into());
            }
        }
        counts.total += 1;
        counts.reserved = counts.reserved.saturating_add(size);
        counts.clients.insert(Arc::clone(&client.ip), of_client + 1);
        let (counts, ip) = (Arc::clone(&self.counts), Arc::clone(&client.ip));
        Ok(Seat { counts, ip, reserved: Mutex::new(size) })
    }

    pub(super) fn insert(&self, upload: Arc<Unfinished>) {
        let mut state = lock(&self.state);
        state.remember_key(&upload.manifest);
        state.unfinished.insert(upload.id(), upload);
    }

    pub(super) fn get(&self, id: TransferId) -> Option<Known> {
        let state = lock(&self.state);
        let unfinished = state.unfinished.get(&id).cloned().map(Known::Unfinished);
        unfinished.or_else(|| state.finished.get(&id).cloned().map(Known::Finished))
    }

    /// Which upload the client has begun with this key.
    pub(super) fn by_key(&self, client: &Client, key: &str) -> Option<TransferId> {
        lock(&self.state).keys.get(&((*client.id).into(), key.into())).copied()
    }

    /// The unfinished upload of this client and name that was begun last, of those for which `wanted` says so.
    pub(super) fn find(
        &self,
        client: &Client,
        filename: &FileName,
        wanted: impl Fn(&Unfinished) -> bool,
    ) -> Option<Arc<Unfinished>> {
        let state = lock(&self.state);
        let mine = state
            .unfinished
            .values()
            .filter(|upload| upload.manifest.filename == *filename && upload.is_of(client) && wanted(upload));
        mine.max_by_key(|upload| upload.id()).cloned()
    }

    /// The same among those that are complete.
    pub(super) fn find_finished(
        &self,
        client: &Client,
        filename: &FileName,
        wanted: impl Fn(&Finished) -> bool,
    ) -> Option<Arc<Finished>> {
        let state = lock(&self.state);
        let mine = state.finished.values().filter(|upload| {
            upload.manifest.filename == *filename && is_of(&upload.manifest, client) && wanted(upload)
        });
        mine.max_by_key(|upload| upload.manifest.id).cloned()
    }

    /// An unfinished upload has ended; if it is complete, it is remembered. Gives those that are remembered no longer.
    #[must_use = "their logs are to be removed"]
    pub(super) fn end(&self, id: TransferId, finished: Option<Finished>) -> Vec<TransferId> {
        let mut state = lock(&self.state);
        let ended = state.unfinished.remove(&id);
        match finished {
            Some(finished) => {
                state.remember_key(&finished.manifest);
                state.finished.insert(id, Arc::new(finished));
                state.order.push_back(id);
            }
            None => ended.iter().for_each(|ended| state.forget_key(&ended.manifest)),
        }
        let mut forgotten = Vec::new();
        while state.order.len() > FINISHED {
            forgotten.extend(state.forget_oldest());
        }
        forgotten
    }

    /// Forgets those that were complete before this. Gives their ids.
    #[must_use = "their logs are to be removed"]
    pub(super) fn forget_before(&self, before: Timestamp) -> Vec<TransferId> {
        let mut state = lock(&self.state);
        let mut forgotten = Vec::new();
        while let Some(oldest) = state.order.front()
            && state.finished.get(oldest).is_none_or(|finished| finished.at < before)
        {
            forgotten.extend(state.forget_oldest());
        }
        forgotten
    }

    /// Forgets one that is complete.
    pub(super) fn forget(&self, id: TransferId) {
        let mut state = lock(&self.state);
        state.order.retain(|other| *other != id);
        if let Some(finished) = state.finished.remove(&id) {
            state.forget_key(&finished.manifest);
        }
    }

    pub(super) fn unfinished(&self) -> Vec<Arc<Unfinished>> {
        lock(&self.state).unfinished.values().cloned().collect()
    }
}

impl State {
    fn remember_key(&mut self, manifest: &Manifest) {
        if let Some(key) = &manifest.idempotency_key {
            self.keys.insert(((*manifest.client().id).into(), key.clone()), manifest.id);
        }
    }

    fn forget_key(&mut self, manifest: &Manifest) {
        if let Some(key) = &manifest.idempotency_key {
            self.keys.remove(&((*manifest.client().id).into(), key.clone()));
        }
    }

    fn forget_oldest(&mut self) -> Option<TransferId> {
        let oldest = self.order.pop_front()?;
        if let Some(finished) = self.finished.remove(&oldest) {
            self.forget_key(&finished.manifest);
        }
        Some(oldest)
    }
}
