//! The committer: the one thread through which every change goes.
//!
//! It takes all the requests that wait, and for all of them together: writes down the changes that nobody waits for,
//! publishes the files of those that are complete, flushes the directory, appends their changes to the journal,
//! flushes it, changes the memory, and only then answers. So an answer costs at most three flushes, shared by all
//! that waited (group commit), and no reader hears of what a crash could undo.

use std::collections::HashSet;
use std::fs::File;
use std::io;
use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use super::journal::{Journal, Lines};
use super::schedule::Snapshots;
use super::{CommitError, Condition, Publish, Reply, Shared};
use crate::domain::{Change, Digest, FileName, ImpossibleMove, Transfer, TransferId};
use crate::store::lock::Lock;
use crate::store::{Durability, atomic, files};

/// The most requests that share one flush.
const BATCH: usize = 1024;
/// How long changes that nobody waits for may stay unflushed, and how often it is looked whether a snapshot is due.
const TICK: Duration = Duration::from_secs(1);
/// Room kept in the journal for changes that nobody waits for: on a full disk, uploads fail, and that is written down.
const SPARE: u64 = 1 << 16;

/// What the committer is asked.
pub(super) enum Request {
    /// Nobody waits for this one: it is flushed with the next.
    Note(Change),
    /// Somebody waits.
    Commit(Box<Commit>),
    /// Somebody wants to know when everything that was asked before can be read.
    Settled(oneshot::Sender<()>),
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
    pub(super) journal: Journal,
    pub(super) status_path: PathBuf,
    /// The directories in which files are published.
    pub(super) directories: Directories,
    pub(super) durability: Durability,
    pub(super) snapshots: Snapshots,
    /// Held as long as anything is written.
    pub(super) _lock: Lock,
}

/// The storage directory, and that of containers.
pub(super) struct Directories {
    pub(super) plain: File,
    pub(super) sealed: File,
}

/// In which of them files have taken their names.
#[derive(Default)]
struct Published {
    plain: bool,
    sealed: bool,
    /// What goes now that they stand: plain files that sealed ones replace, and the other way round.
    replaced: Vec<PathBuf>,
}

/// Changes that are committed together. No transfer and no name stands twice in it: each is decided on what those
/// before it have done.
#[derive(Default)]
struct Group {
    commits: Vec<Commit>,
    ids: HashSet<TransferId>,
    names: HashSet<FileName>,
}

impl Published {
    const fn any(&self) -> bool {
        self.plain || self.sealed
    }
}

impl Group {
    fn involves(&self, change: &Change) -> bool {
        self.ids.contains(&change.id()) || change.filename().is_some_and(|name| self.names.contains(name))
    }

    fn push(&mut self, commit: Commit) {
        self.ids.insert(commit.change.id());
        self.names.extend(commit.change.filename().cloned());
        self.commits.push(commit);
    }
}

/// A change that is ready to be written down, and whoever waits for it.
struct Accepted {
    transfer: Arc<Transfer>,
    reply: Reply,
}

impl Committer {
    pub(super) fn run(mut self) {
        let mut next_tick = Instant::now() + TICK;
        loop {
            self.snapshot_if_due();
            let first = match self.requests.recv_timeout(next_tick.saturating_duration_since(Instant::now()))
            {
                Ok(request) => Some(request),
                Err(RecvTimeoutError::Timeout) => None,
                Err(RecvTimeoutError::Disconnected) => Some(Request::Stop),
            };
            let waiting: Vec<Request> =
                first.into_iter().chain(self.requests.try_iter()).take(BATCH).collect();
            if self.serve(waiting) {
                self.stop();
                return;
            }
            // However much is asked: what nobody waits for must be flushed too.
            let now = Instant::now();
            if now >= next_tick {
                self.flush();
                next_tick = now + TICK;
            }
        }
    }

    /// Serves requests in the order in which they came; says whether to stop.
    pub(super) fn serve(&mut self, waiting: Vec<Request>) -> bool {
        let mut stop = false;
        let mut group = Group::default();
        let mut settled = Vec::new();
        for request in waiting {
            match request {
                Request::Note(change) => {
                    if group.involves(&change) {
                        self.commit(std::mem::take(&mut group));
                    }
                    self.note(change);
                }
                Request::Commit(commit) => {
                    if group.involves(&commit.change) {
                        self.commit(std::mem::take(&mut group));
                    }
                    group.push(*commit);
                }
                Request::Settled(reply) => settled.push(reply),
                Request::Stop => stop = true,
            }
        }
        self.commit(group);
        // Who asked may have hung up.
        settled.into_iter().for_each(|reply| _ = reply.send(()));
        stop
    }

    /// Writes down a change that nobody waits for. One that can't be written, on a full disk, counts all the same: that
    /// a transfer failed must not be forgotten, and to the next start it is one that a crash cut short.
    fn note(&mut self, change: Change) {
        let transfer = match self.apply(change, self.seq() + 1) {
            Ok(transfer) => transfer,
            Err(CommitError::Impossible(error @ ImpossibleMove::Ended { .. })) => {
                // Whoever hung up was not told how the transfer ended.
                tracing::debug!(%error, "a change came too late");
                return;
            }
            Err(error) => {
                tracing::error!(%error, "an impossible change was refused");
                return;
            }
        };
        let mut lines = self.journal.lines();
        let written = self.check_usable().and_then(|()| {
            lines.push(&transfer).and_then(|()| self.journal.append(&lines)).map_err(CommitError::storage)
        });
        if let Err(error) = written {
            tracing::warn!(%error, id = %transfer.id, "a change is not in the journal");
            self.check_journal();
        }
        self.put([transfer]);
    }

    fn commit(&mut self, group: Group) {
        let mut lines = self.journal.lines();
        let mut accepted = Vec::with_capacity(group.commits.len());
        let mut published = Published::default();
        let mut seq = self.seq();
        for Commit { change, publish, reply } in group.commits {
            let mark = lines.mark();
            // What is sealed anew takes the place of a container, not of a plain file that somebody has put beside it.
            let is_resealed = matches!(change, Change::Resealed { .. });
            let result = self.prepare(change, seq + 1, &mut lines).and_then(|transfer| {
                if let Some(publish) = publish {
                    let recorded = self.shared.state().file(&transfer.filename);
                    if publish.is_sealed && recorded.is_some() {
                        // The next start must know whose container stands there: that its upload began may not be flushed.
                        self.journal.sync().map_err(|_| CommitError::Unusable)?;
                    }
                    self.publish(&publish, &transfer.filename)?;
                    published.plain |= !publish.is_sealed;
                    published.sealed |= publish.is_sealed;
                    // A plain file may stand there though nothing says so; a container is only ours.
                    if !is_resealed && (publish.is_sealed || recorded.is_some_and(|entry| entry.encryption)) {
                        published.replaced.push(publish.counterpart().to_owned());
                    }
                }
                Ok(transfer)
            });
            match result {
                Ok(transfer) => {
                    seq += 1;
                    accepted.push(Accepted { transfer, reply });
                }
                Err(error) => {
                    lines.cut(mark);
                    reply.send(Err(error));
                }
            }
        }
        if accepted.is_empty() {
            self.check_journal();
            return;
        }
        match self.make_durable(&lines, &published) {
            Ok(()) => {
                self.put(accepted.iter().map(|accepted| Arc::clone(&accepted.transfer)));
                for Accepted { transfer, reply } in accepted {
                    reply.send(Ok(transfer));
                }
            }
            // Nothing was written: as if nobody had asked.
            Err(error) if !published.any() && !self.journal.is_broken() => {
                for Accepted { reply, .. } in accepted {
                    reply.send(Err(CommitError::storage(error.kind().into())));
                }
            }
            Err(error) => {
                // Files may have taken their names although nothing says so: as after a crash at this point, the next
                // start finds out. Until then nothing more is acknowledged, and nothing more is written.
                self.fail(&error);
                for Accepted { reply, .. } in accepted {
                    reply.send(Err(CommitError::Unusable));
                }
            }
        }
    }

    /// Checks a change and adds its line to `lines`; makes sure that the journal has room for it.
    fn prepare(&mut self, change: Change, seq: u64, lines: &mut Lines) -> Result<Arc<Transfer>, CommitError> {
        self.check_usable()?;
        let transfer = self.apply(change, seq)?;
        lines.push(&transfer).map_err(CommitError::storage)?;
        self.journal.reserve(lines.len() + SPARE).map_err(CommitError::storage)?;
        Ok(transfer)
    }

    fn publish(&self, publish: &Publish, name: &FileName) -> Result<(), CommitError> {
        if publish.condition != Condition::Any {
            let standing = self.standing(publish, name)?;
            let has = |digests: &[Digest]| {
                standing.as_ref().and_then(|digest| digest.as_ref()).is_some_and(|is| digests.contains(is))
            };
            let holds = match &publish.condition {
                Condition::Any => true,
                Condition::New => standing.is_none(),
                Condition::Matches(None) => standing.is_some(),
                Condition::Matches(Some(digests)) => has(digests),
                Condition::MatchesNone(digests) => !has(digests),
            };
            if !holds {
                return Err(CommitError::Condition);
            }
        }
        if publish.is_sealed && std::fs::symlink_metadata(&publish.plain).is_ok_and(|found| found.is_dir()) {
            return Err(CommitError::NameTaken);
        }
        let new = matches!(publish.condition, Condition::New);
        atomic::publish(&publish.staged, publish.target(), new).map_err(|error| match error.kind() {
            io::ErrorKind::AlreadyExists if new => CommitError::Condition,
            io::ErrorKind::IsADirectory => CommitError::NameTaken,
            _ => CommitError::storage(error),
        })
    }

    /// The digest of what really stands under a name, as far as it is known and vouched for; `None` if nothing does. As a
    /// download has it: what was put there, changed or removed behind the server's back counts as it is.
    fn standing(&self, publish: &Publish, name: &FileName) -> Result<Option<Option<Digest>>, CommitError> {
        let recorded = self.shared.state().file(name);
        if let Some(sealed) = recorded.as_ref().filter(|entry| entry.encryption) {
            return Ok(Some(sealed.checksum));
        }
        let found = files::standing(&publish.plain).map_err(CommitError::storage)?;
        Ok(found.map(|found| {
            recorded.filter(|entry| entry.file.as_ref() == Some(&found)).and_then(|entry| entry.checksum)
        }))
    }

    fn make_durable(&mut self, lines: &Lines, published: &Published) -> io::Result<()> {
        self.sync_directories(published.plain, published.sealed)?;
        // Before it is written down: what has its name is found by the next start, what should be gone would not be.
        let mut removed = false;
        for replaced in &published.replaced {
            match std::fs::remove_file(replaced) {
                Ok(()) => removed = true,
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => {
                    tracing::warn!(%error, path = %replaced.display(), "what was replaced could not be removed");
                }
            }
        }
        if removed {
            self.sync_directories(true, true)?;
        }
        self.journal.append(lines)?;
        self.journal.sync()
    }

    fn sync_directories(&self, plain: bool, sealed: bool) -> io::Result<()> {
        for (asked, directory) in [(plain, &self.directories.plain), (sealed, &self.directories.sealed)] {
            if asked {
                self.durability.sync_directory(directory)?;
            }
        }
        Ok(())
    }

    fn apply(&self, change: Change, seq: u64) -> Result<Arc<Transfer>, CommitError> {
        let state = self.shared.state();
        let before = state.get(change.id()).map(|before| &**before);
        let mut transfer = change.apply(before, seq)?;
        // How far a form's file had come is known by the length of the form alone: what was shown is not taken back.
        if transfer.status.is_terminal()
            && let Some(live) = self.shared.live(transfer.id)
        {
            transfer.progress = transfer.progress.max(live.percent());
        }
        Ok(Arc::new(transfer))
    }

    pub(super) fn seq(&self) -> u64 {
        self.shared.state().seq
    }

    fn put(&self, transfers: impl IntoIterator<Item = Arc<Transfer>> + Clone) {
        let mut state = self.shared.state.write().unwrap_or_else(PoisonError::into_inner);
        for transfer in transfers.clone() {
            if transfer.status.is_terminal() {
                self.shared.forget_live(transfer.id);
            }
            state.put(transfer);
        }
        drop(state);
        if let Some(listener) = self.shared.listener.get() {
            transfers.into_iter().for_each(|transfer| listener(&transfer));
        }
    }

    pub(super) fn is_usable(&self) -> bool {
        self.shared.usable.load(Ordering::Acquire)
    }

    fn check_usable(&self) -> Result<(), CommitError> {
        if self.is_usable() { Ok(()) } else { Err(CommitError::Unusable) }
    }

    /// After an error of the journal's: may it be used again?
    pub(super) fn check_journal(&self) {
        if self.is_usable() && self.journal.is_broken() {
            self.fail(&io::Error::other("see above"));
        }
    }

    fn fail(&self, error: &io::Error) {
        self.shared.usable.store(false, Ordering::Release);
        tracing::error!(%error, "the journal can't be written: nothing more is accepted until a restart");
    }

    /// Flushes what nobody waits for.
    fn flush(&mut self) {
        if self.is_usable()
            && let Err(error) = self.journal.sync()
        {
            self.fail(&error);
        }
    }

    /// Ends, after what has been asked is done.
    pub(super) fn stop(&mut self) {
        self.last_snapshot();
        self.flush();
    }
}

impl Drop for Committer {
    /// Ended, or by a panic: either way nobody answers any more.
    fn drop(&mut self) {
        self.shared.usable.store(false, Ordering::Release);
    }
}
