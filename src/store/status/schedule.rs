//! When snapshots are written.
//!
//! The committer closes the journal's segment and hands the state to a thread of its own: nobody waits for it.

use std::io;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::commit::Committer;
use super::journal;
use super::snapshot;
use crate::store::is_full;

/// A snapshot is due when the journal has outgrown the last one and what it may always have, or when something has
/// changed and so long has passed,
const INTERVAL: Duration = Duration::from_secs(60);
/// … but writing snapshots may take one part in so many of the time,
const SHARE: u32 = 50;
/// … and after one that failed this must have passed.
const RETRY: Duration = Duration::from_secs(10);

/// When snapshots were written, and up to which change.
pub(super) struct Snapshots {
    /// Bytes of the last one.
    bytes: u64,
    /// Bytes that the journal may always have.
    journal: u64,
    /// The last change in the last one: in the backup, once the next one stands.
    seq: u64,
    /// There is none, or none that is whole.
    wanted: bool,
    writing: Option<Writing>,
    last: Instant,
    cost: Duration,
    not_before: Instant,
}

/// A snapshot that is being written.
struct Writing {
    /// The last change in it.
    seq: u64,
    begun: Instant,
    thread: JoinHandle<io::Result<u64>>,
}

impl Snapshots {
    /// The last one has `bytes` and ends at change `seq`; `wanted`: a new one is wanted at once; `journal`: bytes that the
    /// journal may always have.
    pub(super) fn new(bytes: u64, seq: u64, wanted: bool, journal: u64) -> Self {
        let now = Instant::now();
        Self { bytes, journal, seq, wanted, writing: None, last: now, cost: Duration::ZERO, not_before: now }
    }

    fn is_due(&self, seq: u64, journal: u64, now: Instant) -> bool {
        let outgrown = journal > self.bytes.max(self.journal);
        let interval = self.last + INTERVAL.max(self.cost * SHARE);
        now >= self.not_before && (self.wanted || outgrown || (seq > self.seq && now >= interval))
    }
}

impl Committer {
    /// Looks after the snapshot that is being written, or begins one.
    pub(super) fn snapshot_if_due(&mut self) {
        if let Some(writing) = self.snapshots.writing.take_if(|writing| writing.thread.is_finished()) {
            self.finish(writing);
        }
        let due = self.snapshots.is_due(self.seq(), self.journal.length(), Instant::now());
        if due && self.snapshots.writing.is_none() {
            self.begin_snapshot();
        }
    }

    /// Writes down what the last snapshot does not hold.
    pub(super) fn last_snapshot(&mut self) {
        if let Some(writing) = self.snapshots.writing.take() {
            self.finish(writing);
        }
        if self.seq() > self.snapshots.seq || self.snapshots.wanted {
            self.begin_snapshot();
        }
        if let Some(writing) = self.snapshots.writing.take() {
            self.finish(writing);
        }
    }

    fn begin_snapshot(&mut self) {
        // What is in memory then is not what is on disk, and the next start must find what there is.
        if !self.is_usable() {
            return;
        }
        let content = self.shared.state().content();
        if let Err(error) = self.journal.rotate(content.seq + 1) {
            tracing::error!(%error, "the journal's segment could not be closed");
            self.check_journal();
            self.snapshots.not_before = Instant::now() + RETRY;
            return;
        }
        let (path, durability) = (self.status_path.clone(), self.durability);
        let (seq, begun) = (content.seq, Instant::now());
        let thread = std::thread::Builder::new()
            .name("sft-snapshot".into())
            .spawn(move || snapshot::write(&path, &content, durability));
        match thread {
            Ok(thread) => self.snapshots.writing = Some(Writing { seq, begun, thread }),
            Err(error) => self.failed(&error),
        }
    }

    fn finish(&mut self, writing: Writing) {
        let Writing { seq, begun, thread } = writing;
        match thread.join().unwrap_or_else(|_| Err(io::Error::other("its thread panicked"))) {
            Ok(bytes) => self.written(seq, bytes, begun.elapsed()),
            Err(error) => self.failed(&error),
        }
    }

    fn written(&mut self, seq: u64, bytes: u64, cost: Duration) {
        // The snapshot before is the backup now: what it holds is not needed in the journal.
        let backup_seq = std::mem::replace(&mut self.snapshots.seq, seq);
        (self.snapshots.bytes, self.snapshots.cost) = (bytes, cost);
        (self.snapshots.last, self.snapshots.wanted) = (Instant::now(), false);
        if let Err(error) = journal::remove_up_to(&self.status_path, backup_seq) {
            tracing::warn!(%error, "old journal segments could not be removed");
        }
    }

    fn failed(&mut self, error: &io::Error) {
        self.snapshots.not_before = Instant::now() + RETRY;
        if is_full(error) {
            tracing::error!(%error, "no room for a snapshot of the status; the journal holds everything");
        } else {
            tracing::error!(%error, "the status snapshot could not be written");
        }
    }
}
