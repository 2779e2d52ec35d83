//! The start after an end of any kind: what was cut short is told, what is left of it removed.

use std::collections::HashMap;
use std::io;
use std::path::Path;
use std::time::Duration;

use sha2::{Digest as _, Sha256};

use super::Layout;
use super::files::Files;
use super::status::StatusStore;
use crate::domain::{
    Change, Completion, Digest, Direction, FileName, StoredFile, Timestamp, Transfer, TransferId,
};

/// File systems stamp files by a coarser clock than the one that transfers are stamped by.
const CLOCK_SLACK: Duration = Duration::from_secs(2);

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
/// An upload takes its name before the journal says so. One that began and never ended is therefore complete if its
/// data file is gone and what stands under its name is not what is recorded for it: its digest is then computed and it is
/// recorded as completed. Everything else that began and never ended has failed.
///
/// # Errors
/// What the system says.
pub async fn recover(layout: &Layout, files: &Files, status: &StatusStore) -> io::Result<Recovered> {
    let mut recovered = Recovered::default();
    let mut on_disk = scan(layout.root())?;
    for transfer in status.running() {
        let change = match adopt(layout, files, status, &transfer)? {
            Some(completion) => {
                recovered.adopted += 1;
                tracing::info!(id = %transfer.id, filename = %transfer.filename, "an upload that was published but not acknowledged is complete");
                Change::Completed(completion)
            }
            None => {
                recovered.failed += 1;
                Change::Failed {
                    id: transfer.id,
                    at: Timestamp::now(),
                    error: "the server ended before the transfer was complete".into(),
                    transferred_bytes: transfer.transferred_bytes,
                }
            }
        };
        status.commit(change, None).await.map_err(io::Error::other)?;
    }
    recovered.removed = remove_leftovers(&layout.uploads())?;
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

fn adopt(
    layout: &Layout,
    files: &Files,
    status: &StatusStore,
    transfer: &Transfer,
) -> io::Result<Option<Completion>> {
    if transfer.direction != Direction::Upload || layout.upload_data(transfer.id).exists() {
        return Ok(None);
    }
    let open = match files.open(&transfer.filename) {
        Ok(open) => open,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let recorded = status.file(&transfer.filename).and_then(|entry| entry.file);
    // What was there before this upload began is not its doing.
    let began = transfer.created_at.to_system_time() - CLOCK_SLACK;
    if recorded.as_ref() == Some(open.stored()) || open.stored().modified.to_system_time() < began {
        return Ok(None);
    }
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
    Ok(Some(Completion {
        id: transfer.id,
        at: Timestamp::now(),
        filename: transfer.filename.clone(),
        client: transfer.client.clone(),
        priority: transfer.priority,
        encryption: transfer.encryption,
        checksum: Digest::new(hasher.finalize().into()),
        file: open.stored().clone(),
    }))
}

/// The regular files of the storage directory under names that can be asked for.
fn scan(root: &Path) -> io::Result<HashMap<FileName, StoredFile>> {
    let mut found = HashMap::new();
    for entry in std::fs::read_dir(root)? {
        let entry = entry?;
        let raw = entry.file_name();
        let name = raw.to_str().and_then(|raw| FileName::clean(raw).ok());
        let Some(name) = name.filter(|name| name.as_str() == raw) else { continue };
        let metadata = entry.metadata()?;
        if metadata.is_file() {
            found.insert(name, StoredFile { size: metadata.len(), modified: metadata.modified()?.into() });
        }
    }
    Ok(found)
}

/// Removes the data files of uploads: none is running.
fn remove_leftovers(uploads: &Path) -> io::Result<usize> {
    let mut removed = 0;
    for entry in std::fs::read_dir(uploads)? {
        let path = entry?.path();
        let id =
            path.file_stem().and_then(|stem| stem.to_str()).and_then(|stem| stem.parse::<TransferId>().ok());
        if id.is_some() && path.extension().is_some_and(|extension| extension == "data") {
            std::fs::remove_file(&path)?;
            removed += 1;
        }
    }
    Ok(removed)
}
