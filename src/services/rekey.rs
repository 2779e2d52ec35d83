//! Seals anew, under the present key, what an old one has sealed.

use tokio_util::sync::CancellationToken;

use super::keys::new_file_key;
use super::reading::{Fault, Reading};
use super::storage::Storage;
use super::writer::{Writer, Written};
use crate::crypto::Keyring;
use crate::domain::{Change, FileName, Transfer};
use crate::store::status::{Condition, Publish};

/// What was done.
#[derive(Debug, Default)]
pub struct Report {
    /// Containers that were sealed anew.
    pub resealed: usize,
    /// Those that were under the present key already.
    pub current: usize,
    /// Bytes of content that were sealed.
    pub bytes: u64,
    /// What could not be done, by name: it is as it was.
    pub bad: Vec<(FileName, Fault)>,
}

/// Seals every container anew that is not under the present key, one after the other. Content that is not what was
/// recorded is left where it is.
///
/// Can be cut short at any moment, and called again: a container takes the place of the old one by a rename, before the
/// status says so, and the next start knows one by the content of the other. Ends early when it is told to stop.
pub async fn rekey(storage: &Storage, stop: &CancellationToken) -> Report {
    let mut report = Report::default();
    let mut sealed = storage.status.standing();
    sealed.retain(|transfer| transfer.encryption);
    sealed.sort_unstable_by(|a, b| a.filename.cmp(&b.filename));
    for transfer in sealed {
        if stop.is_cancelled() || !storage.status.is_usable() {
            break;
        }
        match reseal(storage, &transfer, stop).await {
            _ if stop.is_cancelled() => break,
            Ok(None) => report.current += 1,
            Ok(Some(size)) => {
                report.resealed += 1;
                report.bytes += size;
            }
            Err(fault) => report.bad.push((transfer.filename.clone(), fault)),
        }
    }
    report
}

/// Seals one container anew and says how large its content is; `None`: it is under the present key already.
async fn reseal(
    storage: &Storage,
    transfer: &Transfer,
    stop: &CancellationToken,
) -> Result<Option<u64>, Fault> {
    let Some(keyring) = storage.keys.get() else {
        return Err(Fault::UnknownKey("there is no key to open it with".into()));
    };
    let sealing = {
        let (storage, transfer, stop) = (storage.clone(), transfer.clone(), stop.clone());
        tokio::task::spawn_blocking(move || seal(&storage, &transfer, &keyring, &stop))
    };
    let sealed = sealing.await.map_err(|error| Fault::NotStored(error.to_string()))??;
    let Some(Written { staged, file, seal: Some(seal) }) = sealed else { return Ok(None) };
    let name = &transfer.filename;
    let publish = Publish::new(&storage.layout, staged.path(), name, true, Condition::Any);
    let size = file.size;
    let change = Change::Resealed { id: transfer.id, seal, file };
    let committed = storage.status.commit(change, Some(publish)).await;
    committed.map_err(|error| Fault::NotStored(error.to_string()))?;
    staged.published();
    Ok(Some(size))
}

/// Writes the new container beside the old one. Blocking.
fn seal(
    storage: &Storage,
    transfer: &Transfer,
    keyring: &Keyring,
    stop: &CancellationToken,
) -> Result<Option<Written>, Fault> {
    let entry = storage.status.file(&transfer.filename).ok_or(Fault::Missing)?;
    let mut reading = Reading::open(&storage.files, Some(keyring), &entry)?;
    let Some(container) = reading.sealed().filter(|container| !container.is_current(keyring)) else {
        return Ok(None);
    };
    let target = storage.target(transfer.id, container.content_length());
    let key = new_file_key(keyring).map_err(Fault::writing)?;
    let mut writer = Writer::create(target, Some(key)).map_err(Fault::writing)?;
    while !stop.is_cancelled() {
        let piece = reading.next()?;
        if piece.is_empty() {
            break;
        }
        writer.append(&[piece]).map_err(Fault::writing)?;
    }
    // What goes must be what was recorded: of anything else the old container is the only witness.
    reading.finish()?;
    writer.finish().map(Some).map_err(Fault::writing)
}
