//! The committer: the one thread through which every change goes.
//!
//! It takes all the requests that wait, and for all of them together: writes down the changes that nobody waits for,
//! publishes the files of those that are complete, flushes the directory, appends their changes to the journal,
//! flushes it, changes the memory, and only then answers. So an answer costs at most three flushes, shared by all
//! that waited (group commit), and no reader hears of what a crash could undo.

use std::collections::HashSet;
use std::fs::File;
use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender};
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use super::journal::{self, Journal};
use super::snapshot::{self, Content};
use super::{CommitError, Condition, Publish, Reply, Shared};
use crate::domain::{Change, FileName, Transfer};
use crate::store::{Durability, atomic, is_full, os};

/// The most requests that share one flush.
const BATCH: usize = 1024;
/// How long changes that nobody waits for may stay unflushed, and how often it is looked whether a snapshot is due.
const TICK: Duration = Duration::from_secs(1);
/// A snapshot is due when the journal has outgrown the last one, and at least this.
const SMALLEST_JOURNAL: u64 = 1 << 20;
/// Room kept in the journal for changes that nobody waits for: on a full disk, uploads fail, and that is written down.
const SPARE: u64 = 1 << 16;
/// … or when something has changed and so long has passed,
const SNAPSHOT_INTERVAL: Duration = Duration::from_secs(60);
/// … but writing snapshots may take one part in so many of the time.
const SNAPSHOT_SHARE: u32 = 50;

/// What the committer is asked.
pub(super) enum Request {
    /// Nobody waits for this one: it is flushed with the next.
    Note(Change),
    /// Somebody waits.
    Commit(Box<Commit>),
    /// The snapshot that was being written is durable, or why it is not.
    SnapshotWritten(std::io::Result<u64>),
    /// Write a snapshot now and end.
    Stop,
}

/// A change for which somebody waits.
pub(super) struct Commit {
    pub(super) change: Change,
    pub(super) publish: Option<Publish>,
    pub(super) reply: Reply,
}

pub(super) struct Committer {
    pub(super) shared: Arc<Shared>,
    pub(super) requests: Receiver<Request>,
    pub(super) sender: Sender<Request>,
    pub(super) journal: Journal,
    pub(super) status_path: PathBuf,
    /// The storage directory, in which files are published.
    pub(super) directory: File,
    pub(super) durability: Durability,
    pub(super) snapshots: Snapshots,
}

/// When snapshots were written, and up to which change.
pub(super) struct Snapshots {
    /// Bytes of the last one.
    pub(super) bytes: u64,
    /// The last change in the last one; what the *next* one's success makes the backup's.
    pub(super) seq: u64,
    /// The last change in the one that is being written.
    pub(super) writing: Option<(u64, Instant)>,
    pub(super) last: Instant,
    pub(super) cost: Duration,
}

/// A change that is ready to be written down, and whoever waits for it.
struct Accepted {
    transfer: Arc<Transfer>,
    reply: Reply,
}

impl Committer {
    pub(super) fn run(mut self) {
        loop {
            let first = match self.requests.recv_timeout(TICK) {
                Ok(request) => Some(request),
                Err(RecvTimeoutError::Timeout) => None,
                Err(RecvTimeoutError::Disconnected) => Some(Request::Stop),
            };
            let Some(first) = first else {
                self.tick();
                continue;
            };
            let mut notes = Vec::new();
            let mut commits = Vec::new();
            let mut stop = false;
            let waiting = std::iter::once(first).chain(std::iter::from_fn(|| self.requests.try_recv().ok()));
            let mut written = None;
            for request in waiting.take(BATCH) {
                match request {
                    Request::Note(change) => notes.push(change),
                    Request::Commit(commit) => commits.push(*commit),
                    Request::SnapshotWritten(result) => written = Some(result),
                    Request::Stop => stop = true,
                }
            }
            self.note(notes);
            self.commit(commits);
            if let Some(result) = written {
                self.snapshot_written(result);
            }
            if stop {
                self.stop();
                return;
            }
            if self.journal.length() > self.snapshots.bytes.max(SMALLEST_JOURNAL) {
                self.begin_snapshot();
            }
        }
    }

    /// Writes down changes that nobody waits for. One that can't be written, on a full disk, counts all the same: that
    /// a transfer failed must not be forgotten, and to the next start it is one that a crash cut short.
    fn note(&mut self, changes: Vec<Change>) {
        for change in changes {
            let transfer = match self.apply(change, self.seq() + 1) {
                Ok(transfer) => transfer,
                Err(error) => {
                    tracing::error!(%error, "an impossible change was refused");
                    continue;
                }
            };
            let mut line = Vec::new();
            let written = self
                .check_usable()
                .and_then(|()| {
                    journal::write_change(&mut line, transfer.seq, &transfer).map_err(CommitError::storage)
                })
                .and_then(|()| self.journal.append(&line).map_err(CommitError::storage));
            if let Err(error) = written {
                tracing::warn!(%error, id = %transfer.id, "a change is not in the journal");
            }
            self.put([transfer]);
        }
    }

    /// Commits changes in groups in which no name stands twice: a condition must see what the one before it did.
    fn commit(&mut self, commits: Vec<Commit>) {
        let mut group = Vec::new();
        let mut names: HashSet<FileName> = HashSet::new();
        for commit in commits {
            let name = match &commit.change {
                Change::Completed(completion) => Some(completion.filename.clone()),
                _ => None,
            };
            if name.is_some_and(|name| !names.insert(name)) {
                self.commit_group(std::mem::take(&mut group));
                names.clear();
                if let Change::Completed(completion) = &commit.change {
                    names.insert(completion.filename.clone());
                }
            }
            group.push(commit);
        }
        self.commit_group(group);
    }

    fn commit_group(&mut self, group: Vec<Commit>) {
        if group.is_empty() {
            return;
        }
        let mut lines = Vec::new();
        let mut accepted = Vec::with_capacity(group.len());
        let mut published = false;
        let mut seq = self.seq();
        for Commit { change, publish, reply } in group {
            seq += 1;
            let written = lines.len();
            let result = self.prepare(change, seq, &mut lines).and_then(|transfer| {
                if let Some(publish) = publish {
                    self.publish(&publish, &transfer.filename)?;
                    published = true;
                }
                Ok(transfer)
            });
            match result {
                Ok(transfer) => accepted.push(Accepted { transfer, reply }),
                Err(error) => {
                    seq -= 1;
                    lines.truncate(written);
                    reply.send(Err(error));
                }
            }
        }
        match self.make_durable(&lines, published) {
            Ok(()) => {
                self.put(accepted.iter().map(|accepted| Arc::clone(&accepted.transfer)));
                for Accepted { transfer, reply } in accepted {
                    reply.send(Ok(transfer));
                }
            }
            Err(error) => {
                // Files may have taken their names although nothing says so: as after a crash at this point, the next
                // start finds out. Until then nothing more is acknowledged.
                self.shared.usable.store(false, Ordering::Release);
                tracing::error!(%error, "the journal can't be written: nothing more is accepted until a restart");
                for Accepted { reply, .. } in accepted {
                    reply.send(Err(CommitError::Unusable));
                }
            }
        }
    }

    /// Checks a change and appends its line to `lines`; makes sure that the journal has room for it.
    fn prepare(
        &mut self,
        change: Change,
        seq: u64,
        lines: &mut Vec<u8>,
    ) -> Result<Arc<Transfer>, CommitError> {
        self.check_usable()?;
        let transfer = self.apply(change, seq)?;
        journal::write_change(lines, seq, &transfer).map_err(CommitError::storage)?;
        self.journal.reserve(lines.len() as u64 + SPARE).map_err(CommitError::storage)?;
        Ok(transfer)
    }

    fn publish(&self, publish: &Publish, name: &FileName) -> Result<(), CommitError> {
        let standing = self.shared.state().file(name);
        let holds = match &publish.condition {
            Condition::Any => true,
            Condition::New => standing.is_none(),
            Condition::Matches(None) => standing.is_some(),
            Condition::Matches(Some(digests)) => {
                standing.and_then(|file| file.checksum).is_some_and(|digest| digests.contains(&digest))
            }
            Condition::MatchesNone(digests) => {
                standing.and_then(|file| file.checksum).is_none_or(|digest| !digests.contains(&digest))
            }
        };
        if !holds {
            return Err(CommitError::Condition);
        }
        let new = matches!(publish.condition, Condition::New);
        atomic::publish(&publish.staged, &publish.target, new).map_err(|error| match error.kind() {
            std::io::ErrorKind::AlreadyExists if new => CommitError::Condition,
            std::io::ErrorKind::IsADirectory => CommitError::NameTaken,
            _ => CommitError::storage(error),
        })
    }

    fn make_durable(&mut self, lines: &[u8], published: bool) -> std::io::Result<()> {
        if published {
            self.durability.sync_directory(&self.directory)?;
        }
        self.journal.append(lines)?;
        self.journal.sync()
    }

    fn apply(&self, change: Change, seq: u64) -> Result<Arc<Transfer>, CommitError> {
        let state = self.shared.state();
        let before = state.get(change.id()).map(|before| &**before);
        Ok(Arc::new(change.apply(before, seq)?))
    }

    fn seq(&self) -> u64 {
        self.shared.state().seq
    }

    fn put(&self, transfers: impl IntoIterator<Item = Arc<Transfer>>) {
        let mut state = self.shared.state.write().unwrap_or_else(PoisonError::into_inner);
        for transfer in transfers {
            if transfer.status.is_terminal() {
                self.shared.forget_live(transfer.id);
            }
            state.put(transfer);
        }
    }

    fn check_usable(&self) -> Result<(), CommitError> {
        if self.shared.usable.load(Ordering::Acquire) { Ok(()) } else { Err(CommitError::Unusable) }
    }

    /// Nothing was asked for a while.
    fn tick(&mut self) {
        if let Err(error) = self.journal.sync() {
            self.shared.usable.store(false, Ordering::Release);
            tracing::error!(%error, "the journal can't be flushed: nothing more is accepted until a restart");
        }
        let due = self.snapshots.last + SNAPSHOT_INTERVAL.max(self.snapshots.cost * SNAPSHOT_SHARE);
        if self.seq() > self.snapshots.seq && Instant::now() >= due {
            self.begin_snapshot();
        }
    }

    /// Closes the journal's segment and writes a snapshot on a thread of its own: nobody waits for it.
    fn begin_snapshot(&mut self) {
        if self.snapshots.writing.is_some() {
            return;
        }
        let Some(content) = self.rotate() else { return };
        self.snapshots.writing = Some((content.seq, Instant::now()));
        let (path, durability, sender) = (self.status_path.clone(), self.durability, self.sender.clone());
        let thread = std::thread::Builder::new().name("sft-snapshot".into()).spawn(move || {
            // The committer may have ended meanwhile; it then wrote one itself.
            _ = sender.send(Request::SnapshotWritten(snapshot::write(&path, &content, durability)));
        });
        if let Err(error) = thread {
            self.snapshot_written(Err(error));
        }
    }

    fn rotate(&mut self) -> Option<Content> {
        let content = self.shared.state().content();
        match self.journal.rotate(content.seq + 1) {
            Ok(()) => Some(content),
            Err(error) => {
                tracing::error!(%error, "the journal's segment could not be closed; it grows on");
                self.snapshots.last = Instant::now();
                None
            }
        }
    }

    fn snapshot_written(&mut self, result: std::io::Result<u64>) {
        let Some((seq, begun)) = self.snapshots.writing.take() else { return };
        self.snapshots.last = Instant::now();
        self.snapshots.cost = begun.elapsed();
        match result {
            Ok(bytes) => {
                // The snapshot before is the backup now: what it holds is not needed in the journal.
                let backup_seq = std::mem::replace(&mut self.snapshots.seq, seq);
                self.snapshots.bytes = bytes;
                if let Err(error) = journal::remove_up_to(&self.status_path, backup_seq) {
                    tracing::warn!(%error, "old journal segments could not be removed");
                }
            }
            Err(error) if is_full(&error) => {
                tracing::error!(%error, "no room for a snapshot of the status; the journal holds everything");
            }
            Err(error) => tracing::error!(%error, "the status snapshot could not be written"),
        }
    }

    fn stop(&mut self) {
        while self.snapshots.writing.is_some() {
            match self.requests.recv() {
                Ok(Request::SnapshotWritten(result)) => self.snapshot_written(result),
                Ok(Request::Note(change)) => self.note(vec![change]),
                Ok(Request::Commit(commit)) => self.commit(vec![*commit]),
                Ok(Request::Stop) => {}
                Err(_) => break,
            }
        }
        if self.seq() > self.snapshots.seq
            && let Some(content) = self.rotate()
        {
            self.snapshots.writing = Some((content.seq, Instant::now()));
            let result = snapshot::write(&self.status_path, &content, self.durability);
            self.snapshot_written(result);
        }
        if let Err(error) = self.journal.sync() {
            tracing::error!(%error, "the journal could not be flushed");
        }
    }
}

/// Opens the directory in which files are published.
pub(super) fn open_directory(layout: &crate::store::Layout) -> std::io::Result<File> {
    os::open_directory(layout.root())
}
