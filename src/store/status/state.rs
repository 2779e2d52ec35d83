//! The state in memory: what `apply` has made so far, with the indexes that answers are read from.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::ops::Bound;
use std::sync::Arc;

use super::snapshot::Content;
use crate::domain::{Digest, FileName, StoredFile, Transfer, TransferId};

/// What stands under a name, as it is listed and served.
#[derive(Debug, Clone, PartialEq)]
pub struct FileEntry {
    /// Its name.
    pub filename: FileName,
    /// Size and time; `None` where a record of version "1.0" does not say.
    pub file: Option<StoredFile>,
    /// SHA-256; `None` for a file that was put there behind the server's back.
    pub checksum: Option<Digest>,
    /// Whether it is sealed.
    pub encryption: bool,
}

/// All that is known of one name.
#[derive(Debug, Default)]
struct Name {
    /// The upload whose content stands under the name.
    standing: Option<TransferId>,
    /// Every transfer of the name that is kept, by its last change: the last one is what `/status/{filename}` shows.
    attempts: VecDeque<TransferId>,
}

/// Last change and id: unique even where a file of version "1.0" bears no numbers.
type Place = (u64, TransferId);

/// Every transfer that is kept. Bounded: those that run are bounded by the connections and those that stand by the
/// files; of the others the oldest go when there are more than `history_limit`.
#[derive(Debug)]
pub(super) struct State {
    pub(super) seq: u64,
    history_limit: usize,
    transfers: HashMap<TransferId, Arc<Transfer>>,
    names: BTreeMap<FileName, Name>,
    /// The current transfer of each name, by its last change.
    recent: BTreeMap<Place, ()>,
    /// Transfers that have ended and do not stand: what the limit counts.
    ended: BTreeMap<Place, ()>,
    foreign: BTreeMap<FileName, StoredFile>,
    standing: usize,
}

fn place(transfer: &Transfer) -> Place {
    (transfer.seq, transfer.id)
}

impl State {
    pub(super) fn new(history_limit: usize) -> Self {
        Self {
            seq: 0,
            history_limit,
            transfers: HashMap::new(),
            names: BTreeMap::new(),
            recent: BTreeMap::new(),
            ended: BTreeMap::new(),
            foreign: BTreeMap::new(),
            standing: 0,
        }
    }

    pub(super) fn get(&self, id: TransferId) -> Option<&Arc<Transfer>> {
        self.transfers.get(&id)
    }

    /// Puts in the new state of a transfer. An older state than the one that is known changes nothing.
    pub(super) fn put(&mut self, transfer: Arc<Transfer>) {
        self.seq = self.seq.max(transfer.seq);
        let before = self.transfers.get(&transfer.id).cloned();
        if before.as_ref().is_some_and(|before| before.seq >= transfer.seq) {
            return;
        }
        if let Some(before) = before {
            self.detach(&before);
        }
        self.attach(transfer);
        while self.ended.len() > self.history_limit
            && let Some(((_, oldest), ())) = self.ended.pop_first()
        {
            if let Some(oldest) = self.transfers.remove(&oldest) {
                self.detach(&oldest);
            }
        }
    }

    fn attach(&mut self, transfer: Arc<Transfer>) {
        let name = self.names.entry(transfer.filename.clone()).or_default();
        if let Some(shown) = name.attempts.back().and_then(|id| self.transfers.get(id)) {
            self.recent.remove(&place(shown));
        }
        name.attempts.push_back(transfer.id);
        self.recent.insert(place(&transfer), ());
        if transfer.is_stored() {
            self.foreign.remove(&transfer.filename);
            match name.standing.replace(transfer.id).and_then(|id| self.transfers.get(&id)) {
                Some(replaced) => _ = self.ended.insert(place(replaced), ()),
                None => self.standing += 1,
            }
        } else if transfer.status.is_terminal() {
            self.ended.insert(place(&transfer), ());
        }
        self.transfers.insert(transfer.id, transfer);
    }

    fn detach(&mut self, transfer: &Transfer) {
        self.recent.remove(&place(transfer));
        self.ended.remove(&place(transfer));
        let Some(name) = self.names.get_mut(&transfer.filename) else { return };
        // Newest transfers change, oldest ones go: either end is near.
        let from_back = name.attempts.iter().rev().take(8).position(|id| *id == transfer.id);
        let index = match from_back {
            Some(back) => Some(name.attempts.len() - 1 - back),
            None => name.attempts.iter().position(|id| *id == transfer.id),
        };
        if let Some(index) = index {
            name.attempts.remove(index);
        }
        match name.attempts.back() {
            None => _ = self.names.remove(&transfer.filename),
            Some(shown) => {
                if let Some(shown) = self.transfers.get(shown) {
                    self.recent.insert(place(shown), ());
                }
            }
        }
    }

    /// The transfer of this name whose state changed last.
    pub(super) fn current(&self, name: &FileName) -> Option<&Arc<Transfer>> {
        self.transfers.get(self.names.get(name)?.attempts.back()?)
    }

    /// What stands under a name.
    pub(super) fn file(&self, name: &FileName) -> Option<FileEntry> {
        if let Some(standing) = self.standing(name) {
            return Some(entry(standing));
        }
        self.foreign.get_key_value(name).map(foreign_entry)
    }

    pub(super) fn standing(&self, name: &FileName) -> Option<&Arc<Transfer>> {
        self.transfers.get(self.names.get(name)?.standing.as_ref()?)
    }

    /// Up to `limit` files by name, after the first `offset`.
    pub(super) fn files(&self, offset: usize, limit: usize) -> Vec<FileEntry> {
        let mut ours =
            self.names.values().filter_map(|name| self.transfers.get(name.standing.as_ref()?)).peekable();
        let mut foreign = self.foreign.iter().peekable();
        let merged = std::iter::from_fn(|| match (ours.peek(), foreign.peek()) {
            (Some(our), Some((name, _))) if our.filename <= **name => ours.next().map(entry),
            (_, Some(_)) => foreign.next().map(foreign_entry),
            (_, None) => ours.next().map(entry),
        });
        merged.skip(offset).take(limit).collect()
    }

    /// How many files there are.
    pub(super) fn file_count(&self) -> usize {
        self.standing + self.foreign.len()
    }

    /// How many names have a transfer.
    pub(super) fn name_count(&self) -> usize {
        self.names.len()
    }

    /// Up to `limit` current transfers, the last changed first, below `before` (exclusive).
    pub(super) fn recent(&self, before: Option<Place>, limit: usize) -> Vec<Arc<Transfer>> {
        let end = before.map_or(Bound::Unbounded, Bound::Excluded);
        let range = self.recent.range((Bound::Unbounded, end)).rev().take(limit);
        range.filter_map(|((_, id), ())| self.transfers.get(id).cloned()).collect()
    }

    /// Every transfer that has begun and not ended.
    pub(super) fn running(&self) -> Vec<Arc<Transfer>> {
        self.transfers.values().filter(|transfer| !transfer.status.is_terminal()).cloned().collect()
    }

    /// Every name under which something of ours stands.
    pub(super) fn standing_names(&self) -> Vec<Arc<Transfer>> {
        let standing = self.names.values().filter_map(|name| name.standing.as_ref());
        standing.filter_map(|id| self.transfers.get(id).cloned()).collect()
    }

    /// What stood under this name is gone, or is not what was recorded.
    pub(super) fn lose_file(&mut self, name: &FileName) {
        let lost = self.names.get_mut(name).and_then(|name| name.standing.take());
        if let Some(lost) = lost.and_then(|id| self.transfers.get(&id)) {
            self.standing -= 1;
            self.ended.insert(place(lost), ());
        }
    }

    /// A file that no transfer of ours brought.
    pub(super) fn add_foreign(&mut self, name: FileName, file: StoredFile) {
        self.foreign.insert(name, file);
    }

    /// Everything, to be written down: clones of pointers, so that whoever waits does not wait for the writing.
    pub(super) fn content(&self) -> Content {
        let mut content =
            Content { current: Vec::with_capacity(self.names.len()), earlier: Vec::new(), seq: self.seq };
        for name in self.names.values() {
            let mut attempts = name.attempts.iter().filter_map(|id| self.transfers.get(id).cloned());
            content.current.extend(attempts.next_back());
            content.earlier.extend(attempts);
        }
        content
    }
}

fn entry(standing: &Arc<Transfer>) -> FileEntry {
    FileEntry {
        filename: standing.filename.clone(),
        file: standing.file.clone(),
        checksum: standing.checksum,
        encryption: standing.encryption,
    }
}

fn foreign_entry((name, file): (&FileName, &StoredFile)) -> FileEntry {
    FileEntry { filename: name.clone(), file: Some(file.clone()), checksum: None, encryption: false }
}
