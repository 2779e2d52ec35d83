//! The only code that touches the storage directory and the status file.
//!
//! What is on disk, and what an answer promises, is told in `docs/STORAGE.md`. Everything here is synchronous:
//! callers bring it to a blocking thread, but for what is named "cached", which never waits for a disk.

pub mod atomic;
pub(crate) mod buffers;
pub mod files;
mod layout;
mod lines;
pub mod lock;
pub mod older;
pub mod os;
pub mod recovery;
pub mod scan;
pub mod sealed;
pub mod status;
pub mod upload_log;
pub mod uploads;

use std::io;

pub use layout::Layout;

/// What an acknowledgement is worth.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize, clap::ValueEnum,
)]
#[serde(rename_all = "lowercase")]
pub enum Durability {
    /// It survives loss of power: everything is flushed to the device before an answer.
    #[default]
    Power,
    /// It survives the end of the process, `kill -9` included, but not of the machine: nothing is flushed.
    Process,
}

impl Durability {
    /// Flushes a file's content and length, if this durability asks for it.
    ///
    /// # Errors
    /// What the system says; the content must then be taken for lost.
    pub fn sync_data(self, file: &std::fs::File) -> io::Result<()> {
        match self {
            Self::Power => file.sync_data(),
            Self::Process => Ok(()),
        }
    }

    /// Flushes a directory, so that names made or replaced in it stay, if this durability asks for it.
    ///
    /// # Errors
    /// What the system says.
    pub fn sync_directory(self, directory: &std::fs::File) -> io::Result<()> {
        match self {
            Self::Power => os::sync_directory(directory),
            Self::Process => Ok(()),
        }
    }
}

/// Whether an error means that there is no room: a full disk, or a quota.
pub fn is_full(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge
    )
}
