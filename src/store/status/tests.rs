//! The store, told by what happens to it. Most tests drive the committer by hand: a request is served when the test
//! says so, a snapshot is written when the test says so, and dropping the committer is what `kill -9` is.

mod committing;
mod crash;
mod damage;
mod format;
#[cfg(target_os = "linux")]
mod full_disk;
mod journal;
mod round_trip;
mod sequences;

use std::fs::OpenOptions;
use std::io::{IoSlice, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use sha2::Digest as _;
use tokio::sync::oneshot;

use super::commit::{Commit, Committer, Request};
use super::{
    CommitError, Condition, FileEntry, Limits, OpenError, Opened, Publish, Reply, StatusStore,
    StatusStoreGuard,
};
use crate::domain::{
    Change, Client, Completion, Digest, Direction, FileName, Priority, Start, StoredFile, Timestamp,
    Transfer, TransferId,
};
use crate::store::uploads::Staged;
use crate::store::{Durability, Layout};

/// No snapshot that the test does not ask for, but where its journal is very long.
pub(in crate::store) fn limits(history: usize) -> Limits {
    Limits { history, journal: 1 << 20 }
}

pub(in crate::store) fn name(name: &str) -> FileName {
    FileName::clean(name).unwrap()
}

pub(in crate::store) fn digest(content: &[u8]) -> Digest {
    Digest::new(sha2::Sha256::digest(content).into())
}

/// Writes a file as anybody but the server may.
pub(in crate::store) fn put(path: &Path, content: &[u8]) {
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).open(path).unwrap();
    file.write_all(content).unwrap();
}

pub(in crate::store) fn upload_of(filename: &str) -> Start {
    Start {
        id: TransferId::new(),
        filename: name(filename),
        direction: Direction::Upload,
        client: Client::new("192.0.2.7", "tests", Some("desk-7")),
        encryption: false,
        priority: Priority::default(),
        total_bytes: Some(5),
        at: Timestamp::now(),
    }
}

pub(in crate::store) fn completed(
    id: TransferId,
    filename: &str,
    checksum: Digest,
    file: StoredFile,
) -> Change {
    Change::Completed(Completion {
        id,
        at: Timestamp::now(),
        filename: name(filename),
        client: Client::new("192.0.2.7", "tests", Some("desk-8")),
        priority: Priority::try_from(3).unwrap(),
        seal: None,
        checksum,
        file,
    })
}

pub(in crate::store) fn failed(id: TransferId) -> Change {
    Change::Failed { id, at: Timestamp::now(), error: "hung up".into(), transferred_bytes: 2 }
}

/// A storage directory and a status file.
pub(in crate::store) struct Home {
    _dir: Option<tempfile::TempDir>,
    pub(in crate::store) layout: Layout,
}

impl Home {
    pub(in crate::store) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        Self { layout: Self::at(dir.path()), _dir: Some(dir) }
    }

    fn at(dir: &Path) -> Layout {
        let layout = Layout::new(dir.join("storage"), dir.join("state/status.json"));
        layout.create().unwrap();
        layout
    }

    /// The file with that after the status file's name.
    fn beside(&self, suffix: &str) -> PathBuf {
        crate::store::atomic::with_suffix(self.layout.status(), suffix)
    }

    fn journal(&self) -> PathBuf {
        self.beside(".journal")
    }

    fn backup(&self) -> PathBuf {
        self.beside(".backup")
    }

    pub(in crate::store) fn open(&self) -> ByHand {
        self.try_open().unwrap_or_else(|error| panic!("{error}"))
    }

    fn try_open(&self) -> Result<ByHand, OpenError> {
        self.try_open_with(Durability::Process, 1000)
    }

    fn open_with(&self, durability: Durability, history_limit: usize) -> ByHand {
        self.try_open_with(durability, history_limit).unwrap_or_else(|error| panic!("{error}"))
    }

    fn try_open_with(&self, durability: Durability, history_limit: usize) -> Result<ByHand, OpenError> {
        let (store, committer, opened) = StatusStore::read(&self.layout, durability, limits(history_limit))?;
        Ok(ByHand { store, committer, opened, layout: self.layout.clone() })
    }

    fn run(&self) -> (StatusStore, StatusStoreGuard) {
        let (store, guard, _) = StatusStore::open(&self.layout, Durability::Power, limits(1000)).unwrap();
        (store, guard)
    }

    /// Everything beside the status file, by name: to see that nothing has changed.
    fn files(&self) -> Vec<(String, Vec<u8>)> {
        let entries = std::fs::read_dir(self.layout.status_directory()).unwrap();
        let mut files: Vec<_> = entries
            .map(|entry| entry.unwrap())
            .map(|entry| (entry.file_name().into_string().unwrap(), std::fs::read(entry.path()).unwrap()))
            .filter(|(name, _)| !name.ends_with(".lock"))
            .collect();
        files.sort();
        files
    }

    fn file_names(&self) -> Vec<String> {
        let names = self.files().into_iter().map(|(name, _)| name.replacen("status.json", "", 1));
        names.collect()
    }
}

/// A store whose committer does what the test says when it says so.
pub(in crate::store) struct ByHand {
    pub(in crate::store) store: StatusStore,
    committer: Committer,
    opened: Opened,
    layout: Layout,
}

type Answer = oneshot::Receiver<Result<Arc<Transfer>, CommitError>>;

fn request(change: Change, publish: Option<Publish>) -> (Request, Answer) {
    let (sender, answer) = oneshot::channel();
    (Request::Commit(Box::new(Commit { change, publish, reply: Reply(sender) })), answer)
}

impl ByHand {
    fn serve(&mut self, requests: Vec<Request>) {
        assert!(!self.committer.serve(requests));
    }

    pub(in crate::store) fn note(&mut self, change: Change) {
        self.serve(vec![Request::Note(change)]);
    }

    fn commit(&mut self, change: Change, publish: Option<Publish>) -> Result<Arc<Transfer>, CommitError> {
        let (request, mut answer) = request(change, publish);
        self.serve(vec![request]);
        answer.try_recv().unwrap()
    }

    /// Notes that an upload has begun.
    pub(in crate::store) fn begin(&mut self, filename: &str) -> TransferId {
        let start = upload_of(filename);
        let id = start.id;
        self.note(Change::Started(start));
        id
    }

    pub(in crate::store) fn stage(&self, id: TransferId, content: &[u8]) -> (Staged, StoredFile) {
        let length = content.len() as u64;
        let mut staged = Staged::create(&self.layout, id, length).unwrap();
        staged.append(&mut [IoSlice::new(content)]).unwrap();
        let file = staged.finish(length, Durability::Process).unwrap();
        (staged, file)
    }

    pub(in crate::store) fn publish(&self, staged: &Staged, filename: &str, condition: Condition) -> Publish {
        Publish::new(&self.layout, staged.path(), &name(filename), false, condition)
    }

    /// Completes an upload that has begun, maybe under another name.
    fn complete(
        &mut self,
        id: TransferId,
        filename: &str,
        content: &[u8],
        condition: Condition,
    ) -> Result<Arc<Transfer>, CommitError> {
        let (staged, file) = self.stage(id, content);
        let publish = self.publish(&staged, filename, condition);
        let result = self.commit(completed(id, filename, digest(content), file), Some(publish));
        staged.published();
        result
    }

    pub(in crate::store) fn upload(&mut self, filename: &str, content: &[u8]) -> Arc<Transfer> {
        let id = self.begin(filename);
        self.complete(id, filename, content, Condition::Any).unwrap()
    }

    /// Writes a snapshot and waits for it.
    fn snapshot(&mut self) {
        self.committer.last_snapshot();
    }

    /// Ends the store as a server does that is told to.
    fn stop(mut self) {
        assert!(self.committer.serve(vec![Request::Stop]));
        self.committer.stop();
    }

    /// `kill -9`.
    pub(in crate::store) fn kill(self) {
        drop(self.committer);
    }

    pub(in crate::store) fn view(&self) -> View {
        View::of(&self.store)
    }
}

/// Everything that the store can be asked for.
#[derive(Debug, PartialEq)]
pub(in crate::store) struct View {
    seq: u64,
    current: Vec<Arc<Transfer>>,
    earlier: Vec<Arc<Transfer>>,
    recent: Vec<Arc<Transfer>>,
    files: Vec<FileEntry>,
    running: Vec<Arc<Transfer>>,
    standing: Vec<Arc<Transfer>>,
}

impl View {
    fn of(store: &StatusStore) -> Self {
        let content = store.shared.state().content();
        let mut recent: Vec<Arc<Transfer>> = Vec::new();
        loop {
            let page = store.recent(recent.last().map(|last| &**last), 3);
            if page.is_empty() {
                break;
            }
            recent.extend(page);
        }
        assert_eq!(store.recent(None, usize::MAX), recent, "pages are the whole");
        assert_eq!(recent.len(), store.name_count());
        assert!(recent.is_sorted_by_key(|transfer| std::cmp::Reverse((transfer.seq, transfer.id))));
        for transfer in &recent {
            assert_eq!(store.current(&transfer.filename).as_ref(), Some(transfer));
        }
        let (mut files, mut count) = (Vec::new(), 0);
        loop {
            let (page, all) = store.files(files.len(), 2);
            count = count.max(all);
            if page.is_empty() {
                break;
            }
            files.extend(page);
        }
        assert_eq!(files.len(), count);
        assert!(files.is_sorted_by_key(|file: &FileEntry| file.filename.clone()));
        for file in &files {
            assert_eq!(store.file(&file.filename).as_ref(), Some(file));
        }
        let mut running = store.running();
        running.sort_by_key(|transfer| transfer.seq);
        Self {
            seq: content.seq,
            current: content.current,
            earlier: content.earlier,
            recent,
            files,
            running,
            standing: store.standing(),
        }
    }
}
