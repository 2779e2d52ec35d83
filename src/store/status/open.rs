//! Opening the store: the newest whole snapshot and the journal become the state in memory.

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, OnceLock, RwLock, mpsc};
use std::time::{Duration, Instant};

use super::commit::{Committer, Directories};
use super::journal::{self, Journal};
use super::replay::{JournalError, Replayed, replay};
use super::schedule::Snapshots;
use super::snapshot::{self, Snapshot, SnapshotError};
use super::state::State;
use super::{Shared, StatusStore, StatusStoreGuard};
use crate::domain::Transfer;
use crate::store::lock::{Lock, LockError};
use crate::store::{Durability, Layout, atomic, os};

/// Why a status file can't be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another server uses it.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// A journal can't be read.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// Neither the snapshot nor its backup can be read.
    #[error(
        "{snapshot}, and its backup can't stand in for it: {backup}. Nothing was changed. Put back a good copy of one \
         of them, or move both and the journal away to start with an empty status (the files themselves stay)"
    )]
    Snapshot {
        /// What is wrong with the snapshot.
        snapshot: String,
        /// What is wrong with the backup.
        backup: String,
    },
    /// The journal goes on from a snapshot that is not there.
    #[error(
        "{path} is missing although its journal begins at change {first_seq}. Put back a copy of it or of its \
         backup, or move the journal away to start with an empty status (the files themselves stay)",
        path = .path.display()
    )]
    Missing {
        /// The status file.
        path: PathBuf,
        /// The first change in the journal.
        first_seq: u64,
    },
    /// The system refused.
    #[error("cannot use {}: {source}", .path.display())]
    Io {
        /// The status file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// How large the status may grow.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Transfers that are kept beyond those that run and those whose file stands.
    pub history: usize,
    /// Bytes that the journal may always have before a snapshot takes its place: a small one makes starts fast, a
    /// large one makes snapshots rare.
    pub journal: u64,
}

/// What was found at the start.
#[derive(Debug, Default)]
pub struct Opened {
    /// For the log: what was repaired or is missing.
    pub remarks: Vec<String>,
    /// How long reading took.
    pub took: Duration,
    /// How many names have a transfer.
    pub names: usize,
}

impl StatusStore {
    /// Reads the newest whole snapshot and the journal, and starts the committer.
    ///
    /// # Errors
    /// [`OpenError`]; nothing on disk has been changed then, but for what the system refused half-way.
    pub fn open(
        layout: &Layout,
        durability: Durability,
        limits: Limits,
    ) -> Result<(Self, StatusStoreGuard, Opened), OpenError> {
        let (store, committer, opened) = Self::read(layout, durability, limits)?;
        let thread = std::thread::Builder::new().name("sft-commit".into()).spawn(move || committer.run());
        let thread = thread.map_err(|source| OpenError::Io { path: layout.status().to_owned(), source })?;
        let guard = StatusStoreGuard { requests: store.requests.clone(), committer: Some(thread) };
        Ok((store, guard, opened))
    }

    /// Reads as [`open`](Self::open) does and leaves everything on disk as it is: nothing can be committed.
    ///
    /// # Errors
    /// [`OpenError`].
    pub fn read_only(layout: &Layout) -> Result<Self, OpenError> {
        let (_, state, _) = read_state(layout, usize::MAX)?;
        let shared = Shared {
            state: RwLock::new(state),
            live: Mutex::new(HashMap::new()),
            usable: AtomicBool::new(false),
            listener: OnceLock::new(),
        };
        // Nobody receives: every commit is refused.
        let (requests, _) = mpsc::channel();
        Ok(Self { shared: Arc::new(shared), requests })
    }

    /// The store, and a committer that does nothing yet.
    pub(super) fn read(
        layout: &Layout,
        durability: Durability,
        limits: Limits,
    ) -> Result<(Self, Committer, Opened), OpenError> {
        let begun = Instant::now();
        let path = layout.status().to_owned();
        let io = |source| OpenError::Io { path: path.clone(), source };
        let lock = Lock::take_status(&path)?;
        let mut opened = Opened::default();
        let (found, state, replayed) = read_state(layout, limits.history)?;
        if let Some(after) = replayed.after.filter(|after| *after > found.seq) {
            if found.source == Source::None {
                return Err(OpenError::Missing { path, first_seq: after + 1 });
            }
            opened.remarks.push(format!(
                "{} ends at change {} and its journal begins after {after}: it was restored from an older copy, and what \
                 changed between is not known",
                path.display(),
                found.seq,
            ));
        }
        // All is read: from here on the disk changes.
        if let Source::Backup { why, damaged } = &found.source {
            opened.remarks.push(format!("{why}; its backup was read in its place"));
            if *damaged {
                let aside = set_aside(layout, durability).map_err(io)?;
                opened.remarks.push(format!("the damaged file was moved to {}", aside.display()));
            }
        }
        if replayed.torn > 0 {
            let torn = replayed.torn;
            opened
                .remarks
                .push(format!("{torn} bytes at the end of the journal were torn by a crash and dropped"));
        }
        let journal = open_journal(layout, &replayed, state.seq, durability).map_err(io)?;
        remove_temporary(&path).map_err(io)?;
        opened.names = state.name_count();
        opened.took = begun.elapsed();

        let shared = Arc::new(Shared {
            state: RwLock::new(state),
            live: Mutex::new(HashMap::new()),
            usable: AtomicBool::new(true),
            listener: OnceLock::new(),
        });
        // Not bounded by itself: each transfer that runs has at most one note and one commit in it.
        let (sender, requests) = mpsc::channel();
        let committer = Committer {
            shared: Arc::clone(&shared),
            requests,
            journal,
            status_path: path.clone(),
            directories: Directories {
                plain: os::open_directory(layout.root()).map_err(io)?,
                sealed: os::open_directory(&layout.encrypted()).map_err(io)?,
            },
            durability,
            snapshots: Snapshots::new(
                found.bytes,
                found.seq,
                found.source != Source::Snapshot,
                limits.journal,
            ),
            _lock: lock,
        };
        Ok((Self { shared, requests: sender }, committer, opened))
    }
}

/// The newest whole snapshot and what the journal adds to it.
fn read_state(layout: &Layout, history: usize) -> Result<(Found, State, Replayed), OpenError> {
    let mut state = State::new(history);
    let mut found = read_snapshot(layout)?;
    for transfer in std::mem::take(&mut found.transfers) {
        state.put(transfer);
    }
    state.seq = state.seq.max(found.seq);
    let replayed = replay(layout.status(), found.seq, |transfer| state.put(Arc::new(transfer)))?;
    // Numbers that were given away once are not used again, whatever was restored.
    state.seq = state.seq.max(replayed.last);
    Ok((found, state, replayed))
}

fn open_journal(
    layout: &Layout,
    replayed: &Replayed,
    seq: u64,
    durability: Durability,
) -> io::Result<Journal> {
    let Some(active) = replayed.active else {
        return Journal::create(layout.status(), seq + 1, durability);
    };
    let mut journal = Journal::open(layout.status(), active, durability)?;
    if journal.last() < seq {
        journal.skip_to(seq + 1)?;
    }
    // What can be read from now on must stay, and a server that was killed may have flushed neither its last lines nor the
    // last names that it gave.
    journal.sync()?;
    durability.sync_directory(&os::open_directory(layout.status_directory())?)?;
    Ok(journal)
}

/// Removes what a crash has left half-written beside the status file.
fn remove_temporary(status: &Path) -> io::Result<()> {
    for path in [status.to_owned(), snapshot::backup_path(status), journal::active_path(status)] {
        atomic::remove_temporary(&path)?;
    }
    Ok(())
}

/// What was read of snapshots.
struct Found {
    /// In the order of their changes.
    transfers: Vec<Arc<Transfer>>,
    /// The last change; 0 for a file of version "1.0".
    seq: u64,
    bytes: u64,
    source: Source,
}

#[derive(Debug, PartialEq, Eq)]
enum Source {
    Snapshot,
    Backup { why: String, damaged: bool },
    None,
}

impl Found {
    fn new(snapshot: Snapshot, source: Source) -> Self {
        let Snapshot { mut transfers, seq, bytes } = snapshot;
        transfers.sort_unstable_by_key(|transfer| (transfer.seq, transfer.id));
        Self { transfers, seq: seq.unwrap_or(0), bytes, source }
    }
}

/// The snapshot, or its backup where it is missing or damaged. One that the system doesn't let us read is neither.
fn read_snapshot(layout: &Layout) -> Result<Found, OpenError> {
    let path = layout.status();
    let damage = match snapshot::read(path) {
        Ok(Some(snapshot)) => return Ok(Found::new(snapshot, Source::Snapshot)),
        Ok(None) => None,
        Err(SnapshotError::Io { path, source }) => return Err(OpenError::Io { path, source }),
        Err(damage @ SnapshotError::Damaged { .. }) => Some(damage.to_string()),
    };
    let damaged = damage.is_some();
    let why = damage.unwrap_or_else(|| format!("{} is missing", path.display()));
    let backup_path = snapshot::backup_path(path);
    match snapshot::read(&backup_path) {
        Ok(Some(backup)) => Ok(Found::new(backup, Source::Backup { why, damaged })),
        Ok(None) if damaged => {
            let backup = format!("there is no {}", backup_path.display());
            Err(OpenError::Snapshot { snapshot: why, backup })
        }
        Ok(None) => Ok(Found { transfers: Vec::new(), seq: 0, bytes: 0, source: Source::None }),
        Err(SnapshotError::Io { path, source }) => Err(OpenError::Io { path, source }),
        Err(damage @ SnapshotError::Damaged { .. }) => {
            Err(OpenError::Snapshot { snapshot: why, backup: damage.to_string() })
        }
    }
}

/// Moves the damaged snapshot away: the next one must not make it the backup, and somebody may want to look at it.
fn set_aside(layout: &Layout, durability: Durability) -> io::Result<PathBuf> {
    let aside = atomic::with_suffix(layout.status(), ".damaged");
    atomic::rename(layout.status(), &aside, durability)?;
    Ok(aside)
}
