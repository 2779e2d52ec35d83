//! The start after an end of any kind: what was cut short is told, what is left of it removed.

use std::collections::{HashMap, HashSet};
use std::fs::OpenOptions;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};

use super::files::Files;
use super::scan::{Form, Scan, scan};
use super::sealed::{SealedError, SealedFile};
use super::status::{CommitError, FileEntry, StatusStore};
use super::{Layout, atomic, os, upload_log};
use crate::crypto::{Keyring, OpenError, OpenStream};
use crate::domain::{
    Change, Client, Completion, Digest, Direction, FileName, Priority, Seal, Start, StoredFile, Timestamp,
    Transfer, TransferId,
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
pub async fn recover(
    layout: &Layout,
    files: &Files,
    status: &StatusStore,
    keyring: Option<&Keyring>,
) -> io::Result<Recovered> {
    let mut recovered = Recovered::default();
    let Scan { files: mut on_disk, mut linked } = scan(layout.root(), Form::Plain)?;
    let Scan { files: mut containers, linked: linked_containers } = scan(&layout.encrypted(), Form::Sealed)?;
    linked.extend(linked_containers);
    let mut running = status.running();
    running.sort_unstable_by_key(|transfer| transfer.seq);
    let (mut published, mut keep) = (Vec::new(), Vec::new());
    // What can be resumed is none of our business: see `services::resumable`.
    let resumable: HashSet<TransferId> = upload_log::list(layout)?.into_iter().map(|(id, _)| id).collect();
    for transfer in running {
        if let Some(place) = published_as(layout, &transfer, &linked)? {
            let checked = match place.1 {
                Form::Plain => Ok(()),
                Form::Sealed => content(files, &place.0, keyring).map(drop),
            };
            match checked {
                Ok(()) => {
                    published.push((transfer, place));
                    continue;
                }
                Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                    tracing::error!(id = %transfer.id, filename = %place.0, %error, "an upload that was published is damaged");
                }
                // A start with the key, or from a disk that can be read, finds it again.
                Err(error) if error.get_ref().is_some_and(|inner| inner.is::<SealedError>()) => {
                    tracing::error!(id = %transfer.id, filename = %place.0, %error, "an upload that was published can't be opened");
                    keep.push(layout.upload_data(transfer.id));
                    continue;
                }
                Err(error) => return Err(error),
            }
        }
        if resumable.contains(&transfer.id) {
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
        for directory in [layout.root(), &layout.encrypted()] {
            os::sync_directory(&os::open_directory(directory)?)?;
        }
    }
    // After those that failed: of a name, what stands is what is told.
    for (transfer, (name, form)) in published {
        recovered.adopted += 1;
        let completion = complete(files, &transfer, name.clone(), form, keyring)?;
        remove_replaced(layout, status.file(&name), form, &mut on_disk, &mut containers)?;
        tracing::info!(id = %transfer.id, filename = %name, "an upload that was published but not acknowledged is complete");
        if commit(status, Change::Completed(completion)).await? == Recorded::InMemory {
            // The next start must find it again.
            keep.push(layout.upload_data(transfer.id));
        }
    }
    // Of what is complete by now, only the log is needed.
    let ended = |id: &TransferId| status.transfer(*id).is_some_and(|transfer| transfer.status.is_terminal());
    let unfinished = resumable.into_iter().filter(|id| !ended(id)).collect();
    recovered.removed += remove_leftovers(&layout.uploads(), &keep, &unfinished)?;
    for transfer in status.standing() {
        if transfer.encryption {
            let container = containers.remove(&transfer.filename);
            match sealed_stands(files, &transfer, container.as_ref(), keyring) {
                Standing::Same => {}
                Standing::Resealed(change) => _ = commit(status, change).await?,
                // It is there, and every download says what is wrong with it.
                Standing::Damaged(why) => {
                    tracing::error!(filename = %transfer.filename, error = %why, "a sealed file is not what was recorded");
                }
                Standing::Missing => {
                    recovered.missing.push(transfer.filename.clone());
                    status.differs(&transfer.filename, None);
                    continue;
                }
            }
            if on_disk.remove(&transfer.filename).is_some() {
                tracing::warn!(filename = %transfer.filename, "a plain file that somebody has put there is not served: the sealed one of its name is");
            }
            continue;
        }
        let found = on_disk.remove(&transfer.filename);
        if found.is_some() && containers.remove(&transfer.filename).is_some() {
            tracing::warn!(filename = %transfer.filename, "a container of which nothing is recorded is left alone: a plain file of its name is");
        }
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
    for (name, _) in containers {
        match adopt(files, &name, keyring) {
            Ok(changes) => {
                recovered.adopted += 1;
                tracing::warn!(filename = %name, "a sealed file of which nothing was recorded is recorded now");
                for change in changes {
                    commit(status, change).await?;
                }
                on_disk.remove(&name);
            }
            Err(error) => {
                tracing::error!(filename = %name, %error, "a sealed file of which nothing is recorded can't be opened");
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

/// Removes what an upload that is adopted has replaced in the other form, and was not removed any more.
fn remove_replaced(
    layout: &Layout,
    recorded: Option<FileEntry>,
    form: Form,
    on_disk: &mut HashMap<FileName, StoredFile>,
    containers: &mut HashMap<FileName, StoredFile>,
) -> io::Result<()> {
    let Some(FileEntry { filename, file, encryption, .. }) = recorded else { return Ok(()) };
    let path = match form {
        // A record of version "1.0" does not say what it stands for.
        Form::Sealed if !encryption && (file.is_none() || file.as_ref() == on_disk.get(&filename)) => {
            on_disk.remove(&filename);
            layout.file(&filename)
        }
        Form::Plain if encryption => {
            containers.remove(&filename);
            layout.sealed(&filename)
        }
        _ => return Ok(()),
    };
    atomic::remove_if_there(&path)?;
    let directory = path.parent().unwrap_or(layout.root());
    os::sync_directory(&os::open_directory(directory)?)
}

/// Under which name the data of an upload stands.
fn published_as(
    layout: &Layout,
    transfer: &Transfer,
    linked: &HashMap<(u64, u64), (FileName, Form)>,
) -> io::Result<Option<(FileName, Form)>> {
    if transfer.direction != Direction::Upload {
        return Ok(None);
    }
    match std::fs::symlink_metadata(layout.upload_data(transfer.id)) {
        Ok(metadata) => Ok(os::identity(&metadata).and_then(|identity| linked.get(&identity).cloned())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

fn complete(
    files: &Files,
    transfer: &Transfer,
    filename: FileName,
    form: Form,
    keyring: Option<&Keyring>,
) -> io::Result<Completion> {
    let (checksum, file, seal) = match form {
        Form::Plain => {
            let open = files.open(&filename)?;
            (digest(open.reader())?, open.stored().clone(), None)
        }
        Form::Sealed => content(files, &filename, keyring)?,
    };
    Ok(Completion {
        id: transfer.id,
        at: Timestamp::now(),
        filename,
        client: transfer.client.clone(),
        priority: transfer.priority,
        seal,
        checksum,
        file,
    })
}

/// What a container holds, read from end to end, and which one it is.
fn content(
    files: &Files,
    filename: &FileName,
    keyring: Option<&Keyring>,
) -> io::Result<(Digest, StoredFile, Option<Seal>)> {
    let keyring = keyring.ok_or_else(|| io::Error::other(SealedError::NoKey))?;
    let open = files.open_sealed(filename)?;
    // First whether the key is there at all: that is another matter than damage.
    let opened = SealedFile::open(files.open_sealed(filename)?, Some(keyring), None);
    if let Err(error @ SealedError::Open(OpenError::UnknownKey(_))) = opened {
        return Err(io::Error::other(error));
    }
    let checksum = digest(OpenStream::new(open.reader(), keyring)?)?;
    let modified = open.stored().modified;
    let sealed = SealedFile::open(open, Some(keyring), None).map_err(io::Error::other)?;
    Ok((checksum, StoredFile { size: sealed.content_length(), modified }, Some(sealed.seal())))
}

fn digest(mut from: impl Read) -> io::Result<Digest> {
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; 1 << 18];
    loop {
        match from.read(&mut buffer)? {
            0 => return Ok(Digest::new(hasher.finalize().into())),
            read => hasher.update(&buffer[..read]),
        }
    }
}

/// What a recorded container is now.
enum Standing {
    Same,
    /// Another one with the same content: sealing it anew was cut short before that was written down.
    Resealed(Change),
    Damaged(String),
    Missing,
}

fn sealed_stands(
    files: &Files,
    transfer: &Transfer,
    found: Option<&StoredFile>,
    keyring: Option<&Keyring>,
) -> Standing {
    let Some(found) = found else { return Standing::Missing };
    if transfer.file.as_ref().is_some_and(|recorded| recorded.modified == found.modified) {
        return Standing::Same;
    }
    let opened = files.open_sealed(&transfer.filename).map_err(SealedError::from);
    match opened.and_then(|file| SealedFile::open(file, keyring, transfer.seal.as_deref())) {
        // A copy of the storage has other times.
        Ok(_) => return Standing::Same,
        Err(SealedError::Swapped) => {}
        Err(error) => return Standing::Damaged(error.to_string()),
    }
    match content(files, &transfer.filename, keyring) {
        Ok((checksum, file, Some(seal))) if Some(checksum) == transfer.checksum => {
            Standing::Resealed(Change::Resealed { id: transfer.id, seal, file })
        }
        Ok(_) => Standing::Damaged(SealedError::Swapped.to_string()),
        Err(error) => Standing::Damaged(error.to_string()),
    }
}

/// The changes that record a container of which nothing is known.
fn adopt(files: &Files, filename: &FileName, keyring: Option<&Keyring>) -> io::Result<[Change; 2]> {
    let (checksum, file, seal) = content(files, filename, keyring)?;
    let (id, client, priority) = (TransferId::new(), Client::new("", "", None), Priority::default());
    let at = Timestamp::now();
    let filename = filename.clone();
    Ok([
        Change::Started(Start {
            id,
            filename: filename.clone(),
            direction: Direction::Upload,
            client: client.clone(),
            encryption: true,
            priority,
            total_bytes: Some(file.size),
            at,
        }),
        Change::Completed(Completion { id, at, filename, client, priority, seal, checksum, file }),
    ])
}

/// Removes the data files of uploads but these, and but those of uploads that can go on: none is running.
fn remove_leftovers(uploads: &Path, keep: &[PathBuf], unfinished: &HashSet<TransferId>) -> io::Result<usize> {
    let mut removed = 0;
    for entry in std::fs::read_dir(uploads)? {
        let path = entry?.path();
        if keep.contains(&path) {
            continue;
        }
        let name = path.file_name().and_then(|name| name.to_str()).and_then(|name| name.split_once('.'));
        let is_ours = |kind: &str| {
            matches!(kind, "data" | "data.publishing" | "data.replacement" | "log.tmp")
                || kind.ends_with(".chunk")
        };
        let leftover = name.is_some_and(|(id, kind)| {
            // The data of an upload that can go on are needed, what beside them was made for a moment is not.
            id.parse::<TransferId>().is_ok_and(|id| {
                is_ours(kind) && (!unfinished.contains(&id) || !(kind == "data" || kind.ends_with(".chunk")))
            })
        });
        if leftover {
            std::fs::remove_file(&path)?;
            removed += 1;
        }
    }
    Ok(removed)
}

#[cfg(test)]
mod tests;
