//! Takes over the directory and the status file of an older server.

mod plan;

use std::io::{self, Read};
use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};
use tokio_util::sync::CancellationToken;

use self::plan::Entry;
pub use self::plan::{Plan, plan};
use super::keys::{Keys, new_file_key};
use super::reading::Fault;
use super::storage::Storage;
use super::uploads::Sealing;
use super::writer::{Writer, Written, copy};
use crate::crypto::{SingleMessage, SingleMessageError};
use crate::domain::{Change, Digest, FileName, StoredFile, Transfer};
use crate::store::files::OpenFile;
use crate::store::older::RecordError;
use crate::store::status::{CommitError, Condition, FileEntry, Publish, StatusStore};
use crate::store::{Layout, files, uploads};

/// Why something was not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Its record can't be used.
    #[error(transparent)]
    Record(#[from] RecordError),
    /// Two keys give one name.
    #[error("here it would be called {name}, as {other} is")]
    SameName {
        /// The name.
        name: FileName,
        /// The key that has it.
        other: String,
    },
    /// Another file has its name.
    #[error("another file of its name is here already, which stays")]
    Taken,
    /// A file of which no completed transfer is recorded.
    #[error("no completed transfer of it is recorded")]
    NotRecorded,
    /// Its file is not what was recorded, or can't be had or stored.
    #[error(transparent)]
    Fault(#[from] Fault),
}

impl Refusal {
    /// A stable name, for programs.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Record(RecordError::Name(_)) => "invalid_name",
            Self::Record(RecordError::Members(_)) => "invalid_record",
            Self::SameName { .. } => "same_name",
            Self::Taken => "taken",
            Self::NotRecorded => "not_recorded",
            Self::Fault(fault) => fault.code(),
        }
    }
}

/// What was done, or would be.
#[derive(Debug, Default)]
pub struct Report {
    /// Files that were taken.
    pub taken: usize,
    /// Bytes of their content.
    pub bytes: u64,
    /// Records of transfers without a file that were taken.
    pub history: usize,
    /// What had been taken before, or is here in another way.
    pub present: usize,
    /// Of the files that were taken, those that could be compared with nothing.
    pub unchecked: Vec<String>,
    /// What was not taken, by its name there.
    pub refused: Vec<(String, Refusal)>,
}

/// Takes names back that an import which was killed has given and not written down: they are given again. To be called before
/// anything else looks at the directory.
///
/// # Errors
/// What the system says.
pub fn resume(plan: &Plan, layout: &Layout, status: &StatusStore) -> io::Result<()> {
    for Entry { transfer, .. } in &plan.entries {
        if status.transfer(transfer.id).is_none() {
            uploads::take_back(layout, transfer.id, &transfer.filename)?;
        }
    }
    Ok(())
}

/// What stands here under a name that is to be taken.
enum Here {
    Nothing,
    /// This very transfer.
    Same,
    /// A file that nobody has sent: a start has found it, maybe where an import was killed.
    Found(FileEntry),
    /// A file that somebody has sent.
    Sent(FileEntry),
}

fn here(layout: &Layout, status: &StatusStore, transfer: &Transfer) -> Here {
    if status.transfer(transfer.id).is_some() {
        return Here::Same;
    }
    let filename = &transfer.filename;
    match status.file(filename) {
        Some(entry) => {
            let sender = status.current(filename);
            let is_sent = sender.is_some_and(|sender| sender.is_stored() && !sender.client.ip.is_empty());
            if is_sent { Here::Sent(entry) } else { Here::Found(entry) }
        }
        None => match files::standing(&layout.file(filename)) {
            Ok(None) => Here::Nothing,
            Ok(file) => Here::Found(FileEntry {
                filename: filename.clone(),
                file,
                checksum: None,
                encryption: false,
                seal: None,
            }),
            Err(_) => Here::Nothing,
        },
    }
}

/// Reports what would be taken, and writes nothing. Blocking.
pub fn rehearse(
    plan: Plan,
    layout: &Layout,
    status: &StatusStore,
    keys: &Keys,
    stop: &CancellationToken,
) -> Report {
    let mut report = Report { refused: plan.refused, ..Report::default() };
    for Entry { key, transfer, file } in plan.entries {
        if stop.is_cancelled() {
            break;
        }
        // What failed there long ago must not be shown as the last that happened to a file that was sent here.
        let outcome = match (here(layout, status, &transfer), file) {
            (Here::Same, _) | (Here::Sent(_), None) => Ok(Outcome::Present),
            (_, None) => Ok(Outcome::History),
            (Here::Found(found) | Here::Sent(found), Some(_)) => {
                compare(layout, &found, &transfer).map(|_| Outcome::Present)
            }
            (Here::Nothing, Some(file)) => read(&file, &transfer, keys, stop, |_| Ok(()))
                .map(|(size, _)| Outcome::Taken(size))
                .map_err(Refusal::from),
        };
        report.add(key, transfer.checksum.is_some(), outcome);
    }
    report.sorted()
}

/// Takes over everything that can be. Can be cut short at any moment, and called again. Ends early when it is told to stop.
pub async fn import(plan: Plan, storage: &Storage, sealing: Sealing, stop: &CancellationToken) -> Report {
    let mut report = Report { refused: plan.refused, ..Report::default() };
    for Entry { key, transfer, file } in plan.entries {
        if stop.is_cancelled() || !storage.status.is_usable() {
            break;
        }
        let is_checked = transfer.checksum.is_some();
        let outcome = match (here(&storage.layout, &storage.status, &transfer), file) {
            (Here::Same, _) | (Here::Sent(_), None) => Ok(Outcome::Present),
            (_, None) => record(storage, transfer).await.map(|()| Outcome::History),
            (Here::Found(found), Some(_)) => adopt(storage, &found, transfer).await,
            (Here::Sent(found), Some(_)) => {
                compare(&storage.layout, &found, &transfer).map(|_| Outcome::Present)
            }
            (Here::Nothing, Some(file)) => take(storage, sealing, file, transfer, stop).await,
        };
        if stop.is_cancelled() && outcome.is_err() {
            break;
        }
        report.add(key, is_checked, outcome);
    }
    report.sorted()
}

enum Outcome {
    Taken(u64),
    History,
    Present,
}

impl Report {
    fn sorted(mut self) -> Self {
        self.refused.sort_by(|(a, _), (b, _)| a.cmp(b));
        self
    }

    fn add(&mut self, key: String, is_checked: bool, outcome: Result<Outcome, Refusal>) {
        match outcome {
            Ok(Outcome::Taken(size)) => {
                self.taken += 1;
                self.bytes += size;
                if !is_checked {
                    self.unchecked.push(key);
                }
            }
            Ok(Outcome::History) => self.history += 1,
            Ok(Outcome::Present) => self.present += 1,
            Err(refusal) => self.refused.push((key, refusal)),
        }
    }
}

/// Copies or seals a file, and gives it its name and its record in one step.
async fn take(
    storage: &Storage,
    sealing: Sealing,
    path: PathBuf,
    transfer: Transfer,
    stop: &CancellationToken,
) -> Result<Outcome, Refusal> {
    let (of_storage, of_transfer, stop) = (storage.clone(), transfer.clone(), stop.clone());
    let sealed = sealing.decide(Some(transfer.encryption));
    let writing = tokio::task::spawn_blocking(move || write(&of_storage, sealed, &path, &of_transfer, &stop));
    let (written, digest) = writing.await.map_err(|error| Fault::NotStored(error.to_string()))??;
    let Written { staged, file, seal } = written;
    let size = file.size;
    let publish =
        Publish::new(&storage.layout, staged.path(), &transfer.filename, seal.is_some(), Condition::New);
    let transfer = Transfer { seal: seal.map(Box::new), ..complete(transfer, digest, file) };
    let change = Change::Imported(Box::new(Transfer { encryption: transfer.seal.is_some(), ..transfer }));
    storage.status.commit(change, Some(publish)).await.map_err(refused)?;
    staged.published();
    Ok(Outcome::Taken(size))
}

/// Blocking.
fn write(
    storage: &Storage,
    sealed: bool,
    path: &Path,
    transfer: &Transfer,
    stop: &CancellationToken,
) -> Result<(Written, Digest), Fault> {
    if transfer.encryption && storage.keys.get().is_none() {
        // None is to be made: it could open nothing.
        return Err(no_key());
    }
    let key = sealed.then(|| {
        let keyring = storage.keys.make().map_err(io::Error::other)?;
        new_file_key(&keyring)
    });
    let key = key.transpose().map_err(Fault::writing)?;
    let mut writer = Writer::create(storage.target(transfer.id, 0), key).map_err(Fault::writing)?;
    let (_, digest) = read(path, transfer, &storage.keys, stop, |piece| writer.append(&[piece]))?;
    writer.finish().map(|written| (written, digest)).map_err(Fault::writing)
}

/// Reads the content of an older file to its end, and compares it with its record. Blocking.
fn read(
    path: &Path,
    transfer: &Transfer,
    keys: &Keys,
    stop: &CancellationToken,
    mut take: impl FnMut(&[u8]) -> io::Result<()>,
) -> Result<(u64, Digest), Fault> {
    let file = OpenFile::at(path)?;
    let keyring = keys.get();
    let content: Box<dyn Read + '_> = if transfer.encryption {
        let message = SingleMessage::verify(file.reader(), keyring.as_deref().ok_or_else(no_key)?);
        Box::new(message.map_err(|error| match error {
            SingleMessageError::Io(error) => error.into(),
            error => Fault::Damaged(error.to_string()),
        })?)
    } else {
        Box::new(file.reader())
    };
    let (mut size, mut hasher, mut failed) = (0, Sha256::new(), None);
    let copied = copy(content, |piece| {
        if stop.is_cancelled() {
            return Err(io::Error::other("interrupted"));
        }
        size += piece.len() as u64;
        hasher.update(piece);
        take(piece).map_err(|error| {
            failed = Some(Fault::writing(error));
            io::ErrorKind::Other.into()
        })
    });
    copied.map_err(|error| failed.unwrap_or_else(|| error.into()))?;
    let actual = Digest::new(hasher.finalize().into());
    match transfer.checksum {
        Some(expected) if expected != actual => Err(differs(actual, expected)),
        _ => Ok((size, actual)),
    }
}

fn no_key() -> Fault {
    Fault::UnknownKey("there is no key to open it with: ENCRYPTION_KEY is not set".into())
}

fn differs(actual: Digest, expected: Digest) -> Fault {
    Fault::Damaged(format!("its content has the SHA-256 {actual}, not {expected}"))
}

/// A file that stands here already, without a sender, is this one if it has its content: it gets its record.
async fn adopt(storage: &Storage, found: &FileEntry, transfer: Transfer) -> Result<Outcome, Refusal> {
    let digest = compare(&storage.layout, found, &transfer)?;
    let Some(file) = found.file.clone() else { return Err(Refusal::Taken) };
    let complete = complete(transfer, digest, file);
    let seal = found.seal.map(Box::new);
    record(storage, Transfer { encryption: found.encryption, seal, ..complete }).await?;
    Ok(Outcome::Present)
}

/// The digest of what stands here, if it is what is recorded there.
fn compare(layout: &Layout, found: &FileEntry, transfer: &Transfer) -> Result<Digest, Refusal> {
    let actual = match found.checksum {
        Some(known) => known,
        None => {
            let file = OpenFile::at(&layout.file(&found.filename)).map_err(Fault::from)?;
            let mut hasher = Sha256::new();
            let read = copy(file.reader(), |piece| {
                hasher.update(piece);
                Ok(())
            });
            read.map_err(Fault::from)?;
            Digest::new(hasher.finalize().into())
        }
    };
    if transfer.checksum == Some(actual) { Ok(actual) } else { Err(Refusal::Taken) }
}

async fn record(storage: &Storage, transfer: Transfer) -> Result<(), Refusal> {
    let change = Change::Imported(Box::new(transfer));
    storage.status.commit(change, None).await.map(drop).map_err(refused)
}

fn refused(error: CommitError) -> Refusal {
    match error {
        CommitError::Condition | CommitError::NameTaken => Refusal::Taken,
        error => Fault::NotStored(error.to_string()).into(),
    }
}

/// The record of a file that is here now. The older server counted whole requests: the size is that of the file.
fn complete(transfer: Transfer, checksum: Digest, file: StoredFile) -> Transfer {
    Transfer {
        checksum: Some(checksum),
        progress: 100,
        eta: Some(0),
        transferred_bytes: file.size,
        total_bytes: Some(file.size),
        file: Some(file),
        ..transfer
    }
}
