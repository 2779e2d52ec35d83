//! The state in memory: what `apply` has made so far, with the indexes that answers are read from.

use std::borrow::Borrow;
use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet, HashSet, VecDeque};
use std::hash::{Hash, Hasher};
use std::ops::Bound;
use std::sync::Arc;

use super::snapshot::Content;
use crate::domain::stats::{Stats, Tally};
use crate::domain::{Digest, FileName, Seal, StoredFile, Transfer, TransferId};

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
    /// In which container, if that is recorded.
    pub seal: Option<Seal>,
}

/// What a name stands for.
#[derive(Debug)]
struct Name {
    /// The transfer whose state changed last: what `/status/{filename}` shows.
    current: Arc<Transfer>,
    /// The upload whose content stands under the name.
    standing: Option<Arc<Transfer>>,
}

/// A transfer, found by its id: a million ids need not stand in memory twice.
#[derive(Debug)]
struct ById(Arc<Transfer>);

impl Borrow<TransferId> for ById {
    fn borrow(&self) -> &TransferId {
        &self.0.id
    }
}

impl Hash for ById {
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        self.0.id.hash(hasher);
    }
}

impl PartialEq for ById {
    fn eq(&self, other: &Self) -> bool {
        self.0.id == other.0.id
    }
}

impl Eq for ById {}

/// Last change and id: unique even where a file of version "1.0" bears no numbers.
pub type Place = (u64, TransferId);

/// Every transfer that is kept. Bounded: those that run are bounded by the connections and those that stand by the
/// files; of the others the oldest go when there are more than `history_limit`.
#[derive(Debug)]
pub(super) struct State {
    pub(super) seq: u64,
    history_limit: usize,
    transfers: HashSet<ById>,
    names: BTreeMap<FileName, Name>,
    /// The transfers of a name before the current one, by their last change. Most names have none.
    earlier: BTreeMap<FileName, VecDeque<Arc<Transfer>>>,
    /// The current transfer of each name, by its last change.
    recent: BTreeSet<Place>,
    /// Transfers that have ended and do not stand: what the limit counts.
    ended: BTreeSet<Place>,
    foreign: BTreeMap<FileName, StoredFile>,
    standing: usize,
    tally: Tally,
}

/// Of one name, so many earlier transfers are told of to whoever missed them.
const EARLIER: usize = 256;

fn place(transfer: &Transfer) -> Place {
    (transfer.seq, transfer.id)
}

impl State {
    pub(super) fn new(history_limit: usize) -> Self {
        Self {
            seq: 0,
            history_limit,
            transfers: HashSet::new(),
            names: BTreeMap::new(),
            earlier: BTreeMap::new(),
            recent: BTreeSet::new(),
            ended: BTreeSet::new(),
            foreign: BTreeMap::new(),
            standing: 0,
            tally: Tally::default(),
        }
    }

    pub(super) fn get(&self, id: TransferId) -> Option<&Arc<Transfer>> {
        self.transfers.get(&id).map(|ById(transfer)| transfer)
    }

    /// Puts in the new state of a transfer. An older state than the one that is known changes nothing.
    ///
    /// States come in the order of their numbers.
    pub(super) fn put(&mut self, transfer: Arc<Transfer>) {
        self.seq = self.seq.max(transfer.seq);
        let before = self.get(transfer.id).cloned();
        if before.as_ref().is_some_and(|before| before.seq >= transfer.seq) {
            return;
        }
        if let Some(before) = before {
            self.detach(&before);
        }
        self.attach(transfer);
        while self.ended.len() > self.history_limit
            && let Some((_, oldest)) = self.ended.pop_first()
        {
            if let Some(ById(oldest)) = self.transfers.take(&oldest) {
                self.detach(&oldest);
            }
        }
    }

    fn attach(&mut self, transfer: Arc<Transfer>) {
        self.tally.add(&transfer);
        self.recent.insert(place(&transfer));
        let name = match self.names.entry(transfer.filename.clone()) {
            Entry::Vacant(vacant) => vacant.insert(Name { current: Arc::clone(&transfer), standing: None }),
            Entry::Occupied(occupied) => {
                let name = occupied.into_mut();
                let before = std::mem::replace(&mut name.current, Arc::clone(&transfer));
                self.recent.remove(&place(&before));
                self.earlier.entry(before.filename.clone()).or_default().push_back(before);
                name
            }
        };
        if transfer.is_stored() {
            self.foreign.remove(&transfer.filename);
            match name.standing.replace(Arc::clone(&transfer)) {
                Some(replaced) => _ = self.ended.insert(place(&replaced)),
                None => self.standing += 1,
            }
        } else if transfer.status.is_terminal() {
            self.ended.insert(place(&transfer));
        }
        self.transfers.replace(ById(transfer));
    }

    fn detach(&mut self, transfer: &Transfer) {
        self.tally.remove(transfer);
        self.ended.remove(&place(transfer));
        let Some(name) = self.names.get_mut(&transfer.filename) else { return };
        if name.standing.take_if(|standing| standing.id == transfer.id).is_some() {
            self.standing -= 1;
        }
        let Some(earlier) = self.earlier.get_mut(&transfer.filename) else {
            self.names.remove(&transfer.filename);
            self.recent.remove(&place(transfer));
            return;
        };
        if name.current.id == transfer.id {
            self.recent.remove(&place(transfer));
            if let Some(before) = earlier.pop_back() {
                self.recent.insert(place(&before));
                name.current = before;
            }
        } else if let Ok(index) = earlier.binary_search_by_key(&place(transfer), |earlier| place(earlier)) {
            earlier.remove(index);
        }
        if earlier.is_empty() {
            self.earlier.remove(&transfer.filename);
        }
    }

    /// The transfer of this name whose state changed last.
    pub(super) fn current(&self, name: &FileName) -> Option<&Arc<Transfer>> {
        Some(&self.names.get(name)?.current)
    }

    /// What stands under a name.
    pub(super) fn file(&self, name: &FileName) -> Option<FileEntry> {
        if let Some(standing) = self.names.get(name).and_then(|name| name.standing.as_ref()) {
            return Some(entry(standing));
        }
        self.foreign.get_key_value(name).map(foreign_entry)
    }

    /// Up to `limit` files by name, after the first `offset`.
    pub(super) fn files(&self, offset: usize, limit: usize) -> Vec<FileEntry> {
        let mut ours = self.names.values().filter_map(|name| name.standing.as_ref()).peekable();
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
        range.filter_map(|(_, id)| self.get(*id).cloned()).collect()
    }

    /// Transfers that changed after `since`: those of up to `limit` names whose last change is after `page`, and the place of
    /// the last of these names, if there may be more.
    pub(super) fn changed(
        &self,
        since: u64,
        page: Option<Place>,
        limit: usize,
    ) -> (Vec<Arc<Transfer>>, Option<Place>) {
        let begin = page.unwrap_or((since, TransferId::MAX));
        let names = self.recent.range((Bound::Excluded(begin), Bound::Unbounded)).take(limit);
        let (mut found, mut last, mut count) = (Vec::new(), None, 0);
        for (_, id) in names {
            let Some(current) = self.get(*id) else { continue };
            if let Some(earlier) = self.earlier.get(&current.filename) {
                let missed = earlier.iter().rev().take(EARLIER).take_while(|earlier| earlier.seq > since);
                found.extend(missed.collect::<Vec<_>>().into_iter().rev().cloned());
            }
            found.push(Arc::clone(current));
            (last, count) = (Some(place(current)), count + 1);
        }
        (found, last.filter(|_| count == limit))
    }

    /// The counters.
    pub(super) fn stats(&self) -> Stats {
        self.tally.stats()
    }

    /// Every transfer that has begun and not ended.
    pub(super) fn running(&self) -> Vec<Arc<Transfer>> {
        let all = self.transfers.iter().map(|ById(transfer)| transfer);
        all.filter(|transfer| !transfer.status.is_terminal()).cloned().collect()
    }

    /// Every name under which something of ours stands.
    pub(super) fn standing_names(&self) -> Vec<Arc<Transfer>> {
        self.names.values().filter_map(|name| name.standing.clone()).collect()
    }

    /// What stood under this name is gone, or is not what was recorded.
    pub(super) fn lose_file(&mut self, name: &FileName) {
        if let Some(lost) = self.names.get_mut(name).and_then(|name| name.standing.take()) {
            self.standing -= 1;
            self.ended.insert(place(&lost));
        }
    }

    /// A file that no transfer of ours brought.
    pub(super) fn add_foreign(&mut self, name: FileName, file: StoredFile) {
        self.foreign.insert(name, file);
    }

    /// Everything, to be written down: clones of pointers, so that whoever waits does not wait for the writing.
    pub(super) fn content(&self) -> Content {
        Content {
            current: self.names.values().map(|name| Arc::clone(&name.current)).collect(),
            earlier: self.earlier.values().flatten().cloned().collect(),
            seq: self.seq,
        }
    }
}

fn entry(standing: &Arc<Transfer>) -> FileEntry {
    FileEntry {
        filename: standing.filename.clone(),
        file: standing.file.clone(),
        checksum: standing.checksum,
        encryption: standing.encryption,
        seal: standing.seal.as_deref().copied(),
    }
}

fn foreign_entry((name, file): (&FileName, &StoredFile)) -> FileEntry {
    FileEntry {
        filename: name.clone(),
        file: Some(file.clone()),
        checksum: None,
        encryption: false,
        seal: None,
    }
}
