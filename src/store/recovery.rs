//! The start after an end of any kind: what was cut short is told, what is left of it removed.

use std::collections::HashMap;
use std::fs::OpenOptions;
use std::io;
use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};

use super::files::Files;
use super::status::{CommitError, StatusStore};
use super::{Layout, atomic, os};
use crate::domain::{
    Change, Completion, Digest, Direction, FileName, StoredFile, Timestamp, Transfer, TransferId,
};

/// What was found and mended.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Recovered {
    /// Uploads that had been published when the server ended, but not yet acknowledged.
    pub adopted: usize,
    /// Transfers that were cut short.
    pub failed: usize,
    /// Data files that were removed.
    pub removed: usize,
    /// Files that are recorded but gone.
    pub missing: Vec<FileName>,
    /// Files that no transfer brought, or that were replaced behind the server's back.
    pub foreign: usize,
}

/// Makes memory and disk agree. To be called once, before anything is served.
///
/// An upload takes its name before the journal says so, and keeps its name among the uploads until then
/// ([`atomic::publish`]). One that began and never ended is therefore complete if its data file is one that also stands
/// under a name: its digest is then computed and it is recorded as completed, under that name. Everything else that began
/// and never ended has failed.
///
/// # Errors
/// What the system says.
pub async fn recover(layout: &Layout, files: &Files, status: &StatusStore) -> io::Result<Recovered> {
    let mut recovered = Recovered::default();
    let Scan { files: mut on_disk, linked } = scan(layout.root())?;
    let mut running = status.running();
    running.sort_unstable_by_key(|transfer| transfer.seq);
    let (mut published, mut keep) = (Vec::new(), Vec::new());
    for transfer in running {
        if let Some(name) = published_as(layout, &transfer, &linked)? {
            published.push((transfer, name));
            continue;
        }
        recovered.failed += 1;
        // First, as it makes room; a start that is cut short here finds the same again.
        let data = layout.upload_data(transfer.id);
        recovered.removed += usize::from(data.exists());
        atomic::remove_if_there(&data)?;
        let change = Change::Failed {
            id: transfer.id,
            at: Timestamp::now(),
            error: "the server ended before the transfer was complete".into(),
            transferred_bytes: transfer.transferred_bytes,
        };
        commit(status, change).await?;
    }
    if !published.is_empty() {
        // What they hold and how they are called may not be flushed yet, and from now on it is told.
        for (transfer, _) in &published {
            OpenOptions::new().write(true).open(layout.upload_data(transfer.id))?.sync_all()?;
        }
        os::sync_directory(&os::open_directory(layout.root())?)?;
    }
    // After those that failed: of a name, what stands is what is told.
    for (transfer, name) in published {
        recovered.adopted += 1;
        tracing::info!(id = %transfer.id, filename = %name, "an upload that was published but not acknowledged is complete");
        if commit(status, Change::Completed(complete(files, &transfer, name)?)).await? == Recorded::InMemory {
            // The next start must find it again.
            keep.push(layout.upload_data(transfer.id));
        }
    }
    recovered.removed += remove_leftovers(&layout.uploads(), &keep)?;
    for transfer in status.standing() {
        if transfer.encryption {
            continue;
        }
        let found = on_disk.remove(&transfer.filename);
        match (&found, &transfer.file) {
            // A record of version "1.0" does not say what it stands for: its digest is not vouched for.
            (Some(_), None) => {}
            (Some(found), Some(recorded)) if found == recorded => {}
            (Some(_), Some(_)) => {
                recovered.foreign += 1;
                status.differs(&transfer.filename, found);
            }
            (None, _) => {
                recovered.missing.push(transfer.filename.clone());
                status.differs(&transfer.filename, None);
            }
        }
    }
    for (name, file) in on_disk {
        recovered.foreign += 1;
        status.differs(&name, Some(file));
    }
    Ok(recovered)
}

#[derive(PartialEq, Eq)]
enum Recorded {
    OnDisk,
    InMemory,
}

/// A full disk is no reason not to start: downloads can go on, and files be deleted.
async fn commit(status: &StatusStore, change: Change) -> io::Result<Recorded> {
    match status.commit(change.clone(), None).await {
        Ok(_) => Ok(Recorded::OnDisk),
        Err(CommitError::Full(_)) => {
            status.note(change);
            Ok(Recorded::InMemory)
        }
        Err(error) => Err(io::Error::other(error)),
    }
}

/// Under which name the data of an upload stands.
fn published_as(
    layout: &Layout,
    transfer: &Transfer,
    linked: &HashMap<(u64, u64), FileName>,
) -> io::Result<Option<FileName>> {
    if transfer.direction != Direction::Upload {
        return Ok(None);
    }
    match std::fs::symlink_metadata(layout.upload_data(transfer.id)) {
        Ok(metadata) => Ok(os::identity(&metadata).and_then(|identity| linked.get(&identity).cloned())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

fn complete(files: &Files, transfer: &Transfer, filename: FileName) -> io::Result<Completion> {
    let open = files.open(&filename)?;
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; 1 << 18];
    let mut offset = 0;
    loop {
        match open.read_at(&mut buffer, offset)? {
            0 => break,
            read => {
                hasher.update(&buffer[..read]);
                offset += read as u64;
            }
        }
    }
    Ok(Completion {
        id: transfer.id,
        at: Timestamp::now(),
        filename,
        client: transfer.client.clone(),
        priority: transfer.priority,
        // It stands among the plain files, whatever was asked for.
        encryption: false,
        checksum: Digest::new(hasher.finalize().into()),
        file: open.stored().clone(),
    })
}

/// What stands in the storage directory.
#[derive(Default)]
struct Scan {
    /// The regular files under names that can be asked for.
    files: HashMap<FileName, StoredFile>,
    /// Those of them that have another name too, by what they are.
    linked: HashMap<(u64, u64), FileName>,
}

fn scan(root: &Path) -> io::Result<Scan> {
    let mut scan = Scan::default();
    for entry in std::fs::read_dir(root)? {
        let entry = entry?;
        let raw = entry.file_name();
        let name = raw.to_str().and_then(|raw| FileName::clean(raw).ok());
        let Some(name) = name.filter(|name| name.as_str() == raw) else { continue };
        let metadata = match entry.metadata() {
            // Somebody is tidying up.
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            metadata => metadata?,
        };
        if metadata.is_file() {
            if let Some(identity) = os::identity(&metadata) {
                scan.linked.insert(identity, name.clone());
            }
            scan.files
                .insert(name, StoredFile { size: metadata.len(), modified: metadata.modified()?.into() });
        }
    }
    Ok(scan)
}

/// Removes the data files of uploads but these: none is running.
fn remove_leftovers(uploads: &Path, keep: &[PathBuf]) -> io::Result<usize> {
    let mut removed = 0;
    for entry in std::fs::read_dir(uploads)? {
        let path = entry?.path();
        if keep.contains(&path) {
            continue;
        }
        let name = path.file_name().and_then(|name| name.to_str()).and_then(|name| name.split_once('.'));
        if name.is_some_and(|(id, kind)| {
            id.parse::<TransferId>().is_ok() && matches!(kind, "data" | "data.publishing")
        }) {
            std::fs::remove_file(&path)?;
            removed += 1;
        }
    }
    Ok(removed)
}

#[cfg(test)]
mod tests;
