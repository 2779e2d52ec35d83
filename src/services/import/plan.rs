//! What there is to be taken over.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};

use super::Refusal;
use crate::domain::{FileName, Status, Transfer};
use crate::store::older::{self, OlderError};

/// What is there to be taken.
#[derive(Debug)]
pub struct Plan {
    /// In the order of their last changes.
    pub(super) entries: Vec<Entry>,
    /// What can't be taken, by its name there.
    pub(super) refused: Vec<(String, Refusal)>,
}

#[derive(Debug)]
pub(super) struct Entry {
    pub(super) key: String,
    pub(super) transfer: Transfer,
    /// The file of one that is complete; it may lead nowhere.
    pub(super) file: Option<PathBuf>,
}

/// Reads what the older server has left.
///
/// # Errors
/// The status file can't be read; the directory can't be, as an [`OlderError::Io`].
pub fn plan(from: &Path, status: &Path) -> Result<Plan, OlderError> {
    let records = older::read_status(status)?;
    let (mut entries, mut refused) = (Vec::new(), Vec::new());
    for record in records {
        match record.transfer {
            Ok(transfer) => entries.push(entry(from, record.key, transfer)),
            Err(error) => refused.push((record.key, error.into())),
        }
    }
    // Of those with one name the one that bears it comes first, then the last changed one.
    entries.sort_by_key(|entry| (entry.transfer.updated_at, entry.transfer.id));
    let bears_it = |entry: &Entry| entry.key == entry.transfer.filename.as_str();
    let mut owners: HashMap<FileName, &str> = HashMap::new();
    for entry in entries.iter().rev().filter(|entry| entry.file.is_some()) {
        let owner = owners.entry(entry.transfer.filename.clone()).or_insert(&entry.key);
        if bears_it(entry) {
            *owner = &entry.key;
        }
    }
    let owners: HashMap<FileName, String> =
        owners.into_iter().map(|(name, key)| (name, key.to_owned())).collect();
    let recorded: HashSet<PathBuf> = entries.iter().filter_map(|entry| entry.file.clone()).collect();
    entries.retain(|entry| {
        let name = &entry.transfer.filename;
        let owner = owners.get(name).filter(|owner| entry.file.is_some() && **owner != entry.key);
        let Some(other) = owner.cloned() else { return true };
        refused.push((entry.key.clone(), Refusal::SameName { name: name.clone(), other }));
        false
    });
    let found = older::files(from).map_err(|source| OlderError::Io { path: from.to_owned(), source })?;
    let status = status.canonicalize().ok();
    for path in found {
        if !recorded.contains(&path) && path.canonicalize().ok() != status {
            let shown = path.strip_prefix(from).unwrap_or(&path).to_string_lossy().into_owned();
            refused.push((shown, Refusal::NotRecorded));
        }
    }
    Ok(Plan { entries, refused })
}

fn entry(from: &Path, key: String, mut transfer: Transfer) -> Entry {
    if !transfer.status.is_terminal() {
        transfer.status = Status::Failed;
        transfer.error = Some("the older server ended before the transfer was complete".into());
    }
    let file = transfer.is_stored().then(|| {
        // A key that leads elsewhere has no file in the directory.
        older::file(from, &key, transfer.encryption).unwrap_or_default()
    });
    Entry { key, transfer, file }
}
