//! Whether the files of a storage directory are what was recorded. Changes nothing. Blocking.

use std::collections::HashMap;
use std::io;

use tokio_util::sync::CancellationToken;

use super::reading::{Fault, Reading};
use crate::crypto::Keyring;
use crate::domain::FileName;
use crate::store::Layout;
use crate::store::files::Files;
use crate::store::scan::{self, Form};
use crate::store::status::{FileEntry, OpenError, StatusStore};

/// Why nothing could be verified.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    /// The status can't be read.
    #[error(transparent)]
    Status(#[from] OpenError),
    /// The storage directory can't be read.
    #[error(transparent)]
    Storage(#[from] io::Error),
}

/// What was found.
#[derive(Debug, Default)]
pub struct Report {
    /// Files that are as recorded.
    pub good: usize,
    /// Bytes of content that were read.
    pub bytes: u64,
    /// The others, by name.
    pub bad: Vec<(FileName, Fault)>,
    /// Whether uploads were cut short that the next start of a server will look after.
    pub unfinished: bool,
}

/// Compares all files, or those that are named, with what is recorded. What is not recorded under any name is bad too.
///
/// Ends early when it is told to stop.
///
/// # Errors
/// [`VerifyError`].
pub fn verify(
    layout: &Layout,
    keyring: Option<&Keyring>,
    names: &[FileName],
    stop: &CancellationToken,
) -> Result<Report, VerifyError> {
    let files = Files::new(layout.clone())?;
    let mut entries: HashMap<FileName, Vec<FileEntry>> = HashMap::new();
    for entry in StatusStore::read_only(layout)?.files(0, usize::MAX).0 {
        entries.insert(entry.filename.clone(), vec![entry]);
    }
    let mut unrecorded = |filename: FileName, encryption: bool| {
        let of_name = entries.entry(filename.clone()).or_default();
        if of_name.iter().all(|entry| entry.encryption != encryption) {
            of_name.push(FileEntry { filename, file: None, checksum: None, encryption, seal: None });
        }
    };
    for (filename, _) in scan::scan(layout.root(), Form::Plain)?.files {
        unrecorded(filename, false);
    }
    for (filename, _) in scan::scan(&layout.encrypted(), Form::Sealed)?.files {
        unrecorded(filename, true);
    }
    let mut report =
        Report { unfinished: std::fs::read_dir(layout.uploads())?.next().is_some(), ..Report::default() };
    let mut named: Vec<FileName> =
        if names.is_empty() { entries.keys().cloned().collect() } else { names.to_vec() };
    named.sort_unstable();
    named.dedup();
    for name in named {
        let Some(of_name) = entries.get(&name) else {
            report.bad.push((name, Fault::Missing));
            continue;
        };
        for entry in of_name {
            match check(&files, keyring, entry, stop, &mut report.bytes) {
                _ if stop.is_cancelled() => return Ok(report),
                Ok(()) => report.good += 1,
                Err(fault) => report.bad.push((name.clone(), fault)),
            }
        }
    }
    Ok(report)
}

/// Reads a file to its end, or until it is told to stop, and compares it with its record.
fn check(
    files: &Files,
    keyring: Option<&Keyring>,
    entry: &FileEntry,
    stop: &CancellationToken,
    bytes: &mut u64,
) -> Result<(), Fault> {
    let mut reading = Reading::open(files, keyring, entry)?;
    while !stop.is_cancelled() {
        let piece = reading.next()?;
        *bytes += piece.len() as u64;
        if piece.is_empty() {
            break;
        }
    }
    reading.finish()
}
