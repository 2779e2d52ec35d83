//! The directory and the status file of an older server. Read, never written.

use std::io;
use std::path::{Component, Path, PathBuf};

use serde::Deserialize;
use serde_json::{Map, Value};

use crate::domain::{InvalidFileName, RecordedTransfer, Transfer};

/// Why a status file can't be read.
#[derive(Debug, thiserror::Error)]
pub enum OlderError {
    /// The system refused.
    #[error("cannot read {}: {source}", .path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It is no status file, or not a whole one.
    #[error("{} is no status file: {source}", .path.display())]
    Json {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: serde_json::Error,
    },
    /// It is not an older server's.
    #[error("{} is a status file of this server: its directory can be used as it is", .0.display())]
    Ours(PathBuf),
}

/// One entry of the status file.
#[derive(Debug)]
pub struct Record {
    /// What it stands under there, and what its file is called.
    pub key: String,
    /// What it says.
    pub transfer: Result<Transfer, RecordError>,
}

/// Why an entry can't be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// No file can be called so.
    #[error(transparent)]
    Name(#[from] InvalidFileName),
    /// It does not say what it must.
    #[error("its record can't be read: {0}")]
    Members(String),
}

#[derive(Deserialize)]
struct Document {
    transfers: Map<String, Value>,
    #[serde(default)]
    metadata: Map<String, Value>,
}

/// Reads all entries of a status file of version "1.0", in no order.
///
/// # Errors
/// [`OlderError`]. An entry that can't be used is none.
pub fn read_status(path: &Path) -> Result<Vec<Record>, OlderError> {
    let text = std::fs::read(path).map_err(|source| OlderError::Io { path: path.to_owned(), source })?;
    let document: Document =
        serde_json::from_slice(&text).map_err(|source| OlderError::Json { path: path.to_owned(), source })?;
    if document.metadata.contains_key("seq") {
        return Err(OlderError::Ours(path.to_owned()));
    }
    let records = document.transfers.into_iter().map(|(key, value)| {
        let recorded: Result<RecordedTransfer, _> = serde_json::from_value(value);
        let transfer = recorded
            .map_err(|error| RecordError::Members(error.to_string()))
            .and_then(|recorded| recorded.into_transfer(Some(&key)).map_err(RecordError::Name));
        Record { key, transfer }
    });
    Ok(records.collect())
}

/// Where the file of an entry is; `None` for a key that is no file's name, but leads elsewhere.
pub fn file(directory: &Path, key: &str, encrypted: bool) -> Option<PathBuf> {
    let mut components = Path::new(key).components();
    let is_name = matches!((components.next(), components.next()), (Some(Component::Normal(name)), None) if name == key);
    let directory = if encrypted { encrypted_files(directory) } else { directory.to_owned() };
    is_name.then(|| directory.join(key))
}

/// The regular files of the directory, plain and encrypted, but hidden ones.
///
/// # Errors
/// What the system says.
pub fn files(directory: &Path) -> io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let encrypted = encrypted_files(directory);
    for directory in [directory, &encrypted] {
        let entries = match std::fs::read_dir(directory) {
            Err(error) if error.kind() == io::ErrorKind::NotFound && directory == encrypted => continue,
            entries => entries?,
        };
        for entry in entries {
            let entry = entry?;
            if entry.file_type()?.is_file() && !entry.file_name().as_encoded_bytes().starts_with(b".") {
                found.push(entry.path());
            }
        }
    }
    found.sort_unstable();
    Ok(found)
}

fn encrypted_files(directory: &Path) -> PathBuf {
    directory.join("encrypted")
}
