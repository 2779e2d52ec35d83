//! The StatusStore: every transfer, in memory and on disk.
//!
//! A change goes one way: *change → journal → memory → events*. What can be read here has been written down.

mod commit;
mod journal;
mod open;
mod replay;
mod schedule;
mod snapshot;
mod state;
#[cfg(test)]
pub(super) mod tests;

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex, OnceLock, PoisonError, RwLock, RwLockReadGuard};
use std::thread::JoinHandle;
use std::time::Instant;

use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;

use self::commit::{Commit, Request};
use self::state::State;
use super::{Layout, is_full};
use crate::domain::stats::Stats;
use crate::domain::{Change, Digest, FileName, ImpossibleMove, StoredFile, Transfer, TransferId};

pub use self::open::{Limits, OpenError, Opened};
pub use self::replay::JournalError;
pub use self::state::{FileEntry, Place};
pub use crate::domain::progress::Live;

/// Why a change was not committed. Nothing has changed then, but where it says so.
#[derive(Debug, thiserror::Error)]
pub enum CommitError {
    /// The change can't follow the state of the transfer.
    #[error(transparent)]
    Impossible(#[from] ImpossibleMove),
    /// What stands under the name is not what the condition asks for.
    #[error("what stands under the name does not meet the condition")]
    Condition,
    /// A directory that somebody made stands under the name.
    #[error("a directory stands under the name")]
    NameTaken,
    /// There is no room.
    #[error("the storage is full: {0}")]
    Full(io::Error),
    /// The system refused.
    #[error("the storage can't be written: {0}")]
    Io(io::Error),
    /// A flush has failed, now or before, or the store is closed: nothing is accepted. As after a crash at this point,
    /// the next start finds out whether the change had come through.
    #[error("the status can't be written since an earlier failure")]
    Unusable,
}

impl CommitError {
    fn storage(error: io::Error) -> Self {
        if is_full(&error) { Self::Full(error) } else { Self::Io(error) }
    }
}

/// What must stand under a name for a file to be published there (RFC 9110 §13.1). It is looked at when the file is
/// published, not when the upload begins: two uploads of one new name can't both be the first.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Condition {
    /// Anything or nothing.
    #[default]
    Any,
    /// Nothing: `overwrite=false`, `If-None-Match: *`.
    New,
    /// A file (`If-Match: *`), or one with one of these digests.
    Matches(Option<Vec<Digest>>),
    /// Nothing, or a file with none of these digests.
    MatchesNone(Vec<Digest>),
}

/// A whole, flushed file that is to take its name.
#[derive(Debug)]
pub struct Publish {
    /// Where it is.
    staged: PathBuf,
    /// Where the plain file of its name stands.
    plain: PathBuf,
    /// Where the container of its name stands.
    sealed: PathBuf,
    /// Whether it is a container.
    is_sealed: bool,
    /// If.
    condition: Condition,
}

impl Publish {
    /// What is staged takes this name, among the plain files or the containers, under this condition.
    pub fn new(
        layout: &Layout,
        staged: &Path,
        name: &FileName,
        is_sealed: bool,
        condition: Condition,
    ) -> Self {
        let (plain, sealed) = (layout.file(name), layout.sealed(name));
        Self { staged: staged.to_owned(), plain, sealed, is_sealed, condition }
    }

    /// Where it is.
    #[cfg(test)]
    pub(super) fn staged(&self) -> &Path {
        &self.staged
    }

    /// What it is to be called.
    pub(super) fn target(&self) -> &Path {
        if self.is_sealed { &self.sealed } else { &self.plain }
    }

    /// What must not stand beside it.
    fn counterpart(&self) -> &Path {
        if self.is_sealed { &self.plain } else { &self.sealed }
    }
}

/// Where the answer to a commit goes.
struct Reply(oneshot::Sender<Result<Arc<Transfer>, CommitError>>);

impl Reply {
    fn send(self, result: Result<Arc<Transfer>, CommitError>) {
        // Who asked may have hung up: what was committed stays so all the same.
        _ = self.0.send(result);
    }
}

/// What the committer and its askers share.
struct Shared {
    /// Written by the committer alone, for moments; a plain lock, as nothing waits while it holds it.
    state: RwLock<State>,
    /// How far running transfers are. Not durable.
    live: Mutex<HashMap<TransferId, Arc<Live>>>,
    usable: AtomicBool,
    /// Told of every change that can be read, in order.
    listener: OnceLock<Listener>,
}

/// Who is told of changes. Called by the committer: it must return at once.
type Listener = Box<dyn Fn(&Arc<Transfer>) + Send + Sync>;

impl Shared {
    fn state(&self) -> RwLockReadGuard<'_, State> {
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn live(&self, id: TransferId) -> Option<Arc<Live>> {
        self.live.lock().unwrap_or_else(PoisonError::into_inner).get(&id).cloned()
    }

    fn forget_live(&self, id: TransferId) {
        self.live.lock().unwrap_or_else(PoisonError::into_inner).remove(&id);
    }
}

/// A handle to the store; cheap to clone.
#[derive(Clone)]
pub struct StatusStore {
    shared: Arc<Shared>,
    requests: Sender<Request>,
}

/// Ends the store; dropped, it waits until everything is on disk.
pub struct StatusStoreGuard {
    requests: Sender<Request>,
    committer: Option<JoinHandle<()>>,
}

impl StatusStore {
    /// Hands in a change that nobody waits for: that a transfer began, failed or was given up. It survives the end of
    /// the process as soon as it can be read here, and loss of power about a second later.
    pub fn note(&self, change: Change) {
        if self.requests.send(Request::Note(change)).is_err() {
            tracing::warn!("a change came after the store was closed");
        }
    }

    /// Waits until every change that was handed in before can be read here.
    pub async fn settled(&self) {
        let (sender, settled) = oneshot::channel();
        if self.requests.send(Request::Settled(sender)).is_ok() {
            // Not answered: the store is closed, and nothing changes any more.
            _ = settled.await;
        }
    }

    /// Commits a change and, with it, publishes a file. When the answer is there, both survive what the durability says.
    ///
    /// Cancel-safe in this sense: once called, the change is committed or refused whether or not somebody waits.
    ///
    /// # Errors
    /// [`CommitError`]; the transfer is then as it was, and a staged file still where it was.
    pub fn commit(
        &self,
        change: Change,
        publish: Option<Publish>,
    ) -> impl Future<Output = Result<Arc<Transfer>, CommitError>> + Send + use<> {
        let (sender, answer) = oneshot::channel();
        let commit = Commit { change, publish, reply: Reply(sender) };
        // Where the committer is gone, so is the request, and with it the sender.
        _ = self.requests.send(Request::Commit(Box::new(commit)));
        async { answer.await.unwrap_or(Err(CommitError::Unusable)) }
    }

    /// Has `listener` told of every change from now on, once it can be read here, in the order of the changes. It is called
    /// by the committer, and must return at once. The first one stays.
    pub fn on_change(&self, listener: impl Fn(&Arc<Transfer>) + Send + Sync + 'static) {
        _ = self.shared.listener.set(Box::new(listener));
    }

    /// Registers how far a transfer is, to be shown for as long as it runs; `total` and `at_most` as [`Live::new`] has them.
    pub fn track(&self, id: TransferId, total: Option<u64>, at_most: Option<u64>) -> Arc<Live> {
        let live = Arc::new(Live::new(total, at_most, Instant::now()));
        self.shared.live.lock().unwrap_or_else(PoisonError::into_inner).insert(id, Arc::clone(&live));
        live
    }

    /// How many bytes of a running transfer are through; 0 if it does not run.
    pub fn live_bytes(&self, id: TransferId) -> u64 {
        self.live(id).map_or(0, |live| live.done())
    }

    /// How far a running transfer is.
    pub fn live(&self, id: TransferId) -> Option<Arc<Live>> {
        self.shared.live(id)
    }

    /// The last change and, as of that moment, every transfer that has begun and not ended.
    pub fn position(&self) -> (u64, Vec<Arc<Transfer>>) {
        let state = self.shared.state();
        (state.seq, state.running())
    }

    /// Transfers that changed after `since`, in the order of their names' last changes: those of up to `limit` names after
    /// `page`, and where the next page begins (`None`: nowhere).
    pub fn changed(
        &self,
        since: u64,
        page: Option<Place>,
        limit: usize,
    ) -> (Vec<Arc<Transfer>>, Option<Place>) {
        self.shared.state().changed(since, page, limit)
    }

    /// The counters. Memory: constant, but for a line for each client and each kind of file.
    pub fn stats(&self) -> Stats {
        self.shared.state().stats()
    }

    /// The transfer of this name whose state changed last, as it is now.
    pub fn current(&self, name: &FileName) -> Option<Arc<Transfer>> {
        let transfer = self.shared.state().current(name).cloned()?;
        Some(self.as_of_now(transfer))
    }

    /// A transfer, as it was last written down.
    pub fn transfer(&self, id: TransferId) -> Option<Arc<Transfer>> {
        self.shared.state().get(id).cloned()
    }

    /// The transfers of all names, the last changed first: up to `limit` of those before `before`, which is the
    /// last one of the page before.
    pub fn recent(&self, before: Option<&Transfer>, limit: usize) -> Vec<Arc<Transfer>> {
        let before = before.map(|transfer| (transfer.seq, transfer.id));
        let page = self.shared.state().recent(before, limit);
        page.into_iter().map(|transfer| self.as_of_now(transfer)).collect()
    }

    fn as_of_now(&self, transfer: Arc<Transfer>) -> Arc<Transfer> {
        if transfer.status.is_terminal() {
            return transfer;
        }
        self.live(transfer.id).map_or_else(
            || Arc::clone(&transfer),
            |live| {
                let mut now = Transfer::clone(&transfer);
                live.show(&mut now, Instant::now());
                Arc::new(now)
            },
        )
    }

    /// What stands under a name, as far as it is recorded.
    pub fn file(&self, name: &FileName) -> Option<FileEntry> {
        self.shared.state().file(name)
    }

    /// Up to `limit` files by name, after the first `offset`, and how many there are.
    pub fn files(&self, offset: usize, limit: usize) -> (Vec<FileEntry>, usize) {
        let state = self.shared.state();
        (state.files(offset, limit), state.file_count())
    }

    /// How many names have a transfer.
    pub fn name_count(&self) -> usize {
        self.shared.state().name_count()
    }

    /// Every transfer that has begun and not ended.
    pub fn running(&self) -> Vec<Arc<Transfer>> {
        self.shared.state().running()
    }

    /// The upload that stands under each name.
    pub fn standing(&self) -> Vec<Arc<Transfer>> {
        self.shared.state().standing_names()
    }

    /// Whether changes can be committed.
    pub fn is_usable(&self) -> bool {
        self.shared.usable.load(Ordering::Acquire)
    }

    /// What stood under a name is gone or was replaced behind the server's back (`found`).
    pub(super) fn differs(&self, name: &FileName, found: Option<StoredFile>) {
        let mut state = self.shared.state.write().unwrap_or_else(PoisonError::into_inner);
        state.lose_file(name);
        if let Some(found) = found {
            state.add_foreign(name.clone(), found);
        }
    }
}

impl Drop for StatusStoreGuard {
    fn drop(&mut self) {
        _ = self.requests.send(Request::Stop);
        if let Some(committer) = self.committer.take()
            && committer.join().is_err()
        {
            tracing::error!("the committer panicked");
        }
    }
}
