//! The hub: takes changes from where they are made, and sends them to whoever watches.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, broadcast};
use tokio::time::Instant;

use super::event::{Batch, Cursor};
use super::feed::Feed;
use super::{Place, Source, Subscription};
use crate::domain::progress::Live;
use crate::domain::stats::Stats;
use crate::domain::{FileName, Transfer, TransferId};

/// Between two looks at how far transfers are: at least, and at most.
const TICK: Duration = Duration::from_millis(100);
const SLOWEST: Duration = Duration::from_secs(1);
/// Where many watch many, progress is told more seldom: about so many times a second, over all subscribers. Beginnings and ends
/// are told at once all the same.
const PROGRESS_A_SECOND: u64 = 100_000;
/// Between two batches: what changes meanwhile goes together, so that many small transfers wake subscribers seldom.
const GATHER: Duration = Duration::from_millis(5);
/// Batches that a slow subscriber may be behind before it misses some: with [`Batch::MOST`] events each, some 20 MiB for
/// all together. It then reads what it missed from the status.
const BATCHES: usize = 128;
/// Changes that may wait for the hub. Where a machine is so busy that more come, the hub itself reads from the status what it
/// missed: only that a transfer began may then go untold.
const PENDING: usize = 1 << 14;
/// The stream goes on so long after the last subscriber has left: it may only be reconnecting.
const LINGER: Duration = Duration::from_secs(30);
/// Names of the status that are looked at, at once.
pub(super) const PAGE: usize = 512;

/// A handle to the hub; cheap to clone.
#[derive(Clone)]
pub struct Hub(pub(super) Arc<Inner>);

pub(super) struct Inner {
    status: Box<dyn Source>,
    /// Whether changes are taken. Plain locks, all of them: nothing waits while they are held. They are taken in the order
    /// `feed`, `downloads`, `pending`.
    watched: AtomicBool,
    pub(super) feed: Mutex<Feed>,
    pub(super) downloads: Mutex<Downloads>,
    pending: Mutex<Pending>,
    wake: Notify,
    pub(super) batches: broadcast::Sender<Arc<Batch>>,
}

/// Downloads that run, and how far they are.
type Downloads = HashMap<TransferId, (Arc<Transfer>, Arc<Live>)>;

#[derive(Default)]
struct Pending {
    changes: Vec<Arc<Transfer>>,
    overflowed: bool,
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Hub {
    /// A hub that nobody watches. [`Hub::run`] makes it work.
    pub fn new(status: impl Source) -> Self {
        let run = crc32fast::hash(TransferId::new().to_string().as_bytes());
        Self(Arc::new(Inner {
            status: Box::new(status),
            watched: AtomicBool::new(false),
            feed: Mutex::new(Feed::new(run)),
            downloads: Mutex::default(),
            pending: Mutex::default(),
            wake: Notify::new(),
            batches: broadcast::channel(BATCHES).0,
        }))
    }

    /// Whether anybody watches.
    pub fn is_watched(&self) -> bool {
        self.0.watched.load(Ordering::Acquire)
    }

    /// A change that can be read from the status now. Called in the order of changes; returns at once.
    pub fn offer(&self, transfer: &Arc<Transfer>) {
        if !self.is_watched() {
            return;
        }
        let mut pending = lock(&self.0.pending);
        if pending.changes.len() < PENDING {
            pending.changes.push(Arc::clone(transfer));
        } else {
            pending.overflowed = true;
        }
        drop(pending);
        self.0.wake.notify_one();
    }

    /// Offers what it is called with, as long as there is a hub: for [`crate::store::status::StatusStore::on_change`], which
    /// the hub itself reads.
    pub fn listener(&self) -> impl Fn(&Arc<Transfer>) + Send + Sync + use<> {
        let inner = Arc::downgrade(&self.0);
        move |transfer| {
            if let Some(inner) = inner.upgrade() {
                Self(inner).offer(transfer);
            }
        }
    }

    /// Watches everything from now on.
    pub fn subscribe(&self) -> Subscription {
        let mut feed = lock(&self.0.feed);
        self.0.begin(&mut feed);
        Subscription::new(self.clone(), self.0.batches.subscribe(), feed.cursor())
    }

    /// Watches everything since `cursor`, which another subscription had come to: it is as one that missed what came after.
    pub fn resume(&self, cursor: Cursor) -> Subscription {
        let mut subscription = self.subscribe();
        subscription.rewind(cursor);
        subscription
    }

    /// Tells subscribers of changes, until it is dropped. To be run once.
    ///
    /// Cancel-safe: what was not told yet is told by the next run.
    pub async fn run(&self) {
        let (mut left, mut next) = (None, Instant::now());
        loop {
            if !self.is_watched() {
                self.0.wake.notified().await;
                continue;
            }
            let due = tokio::select! {
                () = self.0.wake.notified() => false,
                () = tokio::time::sleep_until(next) => true,
            };
            let moved = self.0.tell(due);
            let watching = self.0.batches.receiver_count();
            if due {
                next = Instant::now() + pause(moved, watching);
            }
            if watching > 0 {
                left = None;
            } else if left.get_or_insert_with(Instant::now).elapsed() >= LINGER {
                left = None;
                self.0.end();
            }
            tokio::time::sleep(GATHER).await;
        }
    }
}

/// How long until it is looked again how far transfers are.
fn pause(moved: usize, watching: usize) -> Duration {
    let told = (moved as u64).saturating_mul(watching as u64);
    Duration::from_millis(told.saturating_mul(1000) / PROGRESS_A_SECOND).clamp(TICK, SLOWEST)
}

impl Inner {
    /// From now on changes are taken.
    fn begin(&self, feed: &mut Feed) {
        let downloads = lock(&self.downloads);
        if self.watched.swap(true, Ordering::AcqRel) {
            return;
        }
        *lock(&self.pending) = Pending::default();
        let (seq, mut running) = self.status.position();
        running.extend(downloads.values().map(|(transfer, _)| Arc::clone(transfer)));
        drop(downloads);
        feed.begin(seq, running, self, Instant::now().into_std());
        // The run waits for this.
        self.wake.notify_one();
    }

    fn end(&self) {
        // Nobody can subscribe meanwhile.
        let _feed = lock(&self.feed);
        if self.batches.receiver_count() == 0 {
            self.watched.store(false, Ordering::Release);
        }
    }

    /// Sends what is to be told now; `due`: also how far transfers are. Says how many of them have moved.
    fn tell(&self, due: bool) -> usize {
        let mut feed = lock(&self.feed);
        self.tell_changes(&mut feed);
        let moved = if due { feed.tick(self, Instant::now().into_std()) } else { 0 };
        self.send(&mut feed);
        moved
    }

    /// Sends the changes that wait: what is read from the status then is hardly ahead of the stream.
    pub(super) fn tell_now(&self, feed: &mut Feed) {
        self.tell_changes(feed);
        self.send(feed);
    }

    fn tell_changes(&self, feed: &mut Feed) {
        let Pending { changes, overflowed } = std::mem::take(&mut *lock(&self.pending));
        let now = Instant::now().into_std();
        for change in changes {
            feed.change(change, self, now);
        }
        if overflowed {
            self.read_missed(feed, now);
        }
    }

    /// The hub itself missed changes.
    fn read_missed(&self, feed: &mut Feed, now: std::time::Instant) {
        tracing::warn!("too many changes at once: subscribers are not told of each beginning");
        let (seq, mut running) = self.status.position();
        let (since, mut page) = (feed.cursor().seq, None);
        loop {
            let (mut missed, next) = self.status.changed(since, page, PAGE);
            missed.retain(|missed| missed.status.is_terminal() && missed.seq <= seq);
            missed.sort_unstable_by_key(|missed| missed.seq);
            for missed in missed {
                feed.missed(&missed);
            }
            self.send(feed);
            if next.is_none() {
                break;
            }
            page = next;
        }
        running.extend(lock(&self.downloads).values().map(|(transfer, _)| Arc::clone(transfer)));
        feed.begin(seq, running, self, now);
    }

    fn send(&self, feed: &mut Feed) {
        for batch in feed.take() {
            // Nobody there is no failure.
            _ = self.batches.send(Arc::new(batch));
        }
    }
}

/// The status, and the downloads beside it, which are in no journal.
impl Source for Inner {
    fn position(&self) -> (u64, Vec<Arc<Transfer>>) {
        self.status.position()
    }

    fn live(&self, id: TransferId) -> Option<Arc<Live>> {
        let download = lock(&self.downloads).get(&id).map(|(_, live)| Arc::clone(live));
        download.or_else(|| self.status.live(id))
    }

    fn changed(&self, since: u64, page: Option<Place>, limit: usize) -> (Vec<Arc<Transfer>>, Option<Place>) {
        self.status.changed(since, page, limit)
    }

    fn recent(&self, limit: usize) -> Vec<Arc<Transfer>> {
        self.status.recent(limit)
    }

    fn current(&self, name: &FileName) -> Option<Arc<Transfer>> {
        self.status.current(name)
    }

    fn name_count(&self) -> usize {
        self.status.name_count()
    }

    fn stats(&self) -> Stats {
        self.status.stats()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_is_told_more_seldom_where_many_watch_many() {
        for (moved, watching, millis) in [
            (0, 0, 100),
            (1, 1, 100),
            (50, 200, 100),
            (50, 1_000, 500),
            (50, 10_000, 1_000),
            (usize::MAX, 2, 1_000),
        ] {
            assert_eq!(pause(moved, watching), Duration::from_millis(millis), "{moved} × {watching}");
        }
    }
}
