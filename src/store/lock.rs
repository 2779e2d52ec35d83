//! One server owns a storage directory and a status file.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::path::{Path, PathBuf};

/// Held for as long as the directory is owned; the system lets go when the process ends, however it ends.
#[derive(Debug)]
pub struct Lock {
    _file: File,
}

/// Why the directory could not be had.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Another server has it.
    #[error("{} is in use by another server{}; stop that one or choose another {}", .owned.display(), .owner, .setting)]
    Taken {
        /// The storage directory, or the status file.
        owned: PathBuf,
        /// ` (process 1234)`, if the other one has said.
        owner: String,
        /// By which setting it was chosen.
        setting: &'static str,
    },
    /// The system refused.
    #[error("cannot lock {}: {source}", .path.display())]
    Io {
        /// The lock file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

impl Lock {
    /// Takes the lock file `path` of the storage directory `directory`.
    ///
    /// # Errors
    /// [`LockError::Taken`] at once if another server has it.
    pub fn take(path: &Path, directory: &Path) -> Result<Self, LockError> {
        Self::take_for(path, directory, "UPLOAD_DIR")
    }

    /// Takes the lock as [`take`](Self::take) does, and writes nothing: for who only reads. `None`: there is nothing to lock, as no
    /// server has ever had the directory.
    ///
    /// # Errors
    /// [`LockError::Taken`] at once if a server has it.
    pub fn take_to_read(path: &Path, directory: &Path) -> Result<Option<Self>, LockError> {
        match File::open(path) {
            Ok(mut file) => {
                lock(&mut file, path, directory, "UPLOAD_DIR")?;
                Ok(Some(Self { _file: file }))
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(LockError::Io { path: path.to_owned(), source }),
        }
    }

    /// Takes the lock of a status file, which two storage directories must not share.
    ///
    /// # Errors
    /// [`LockError::Taken`] at once if another server has it.
    pub(super) fn take_status(status: &Path) -> Result<Self, LockError> {
        Self::take_for(&super::atomic::with_suffix(status, ".lock"), status, "LOG_FILE")
    }

    fn take_for(path: &Path, owned: &Path, setting: &'static str) -> Result<Self, LockError> {
        let io = |source| LockError::Io { path: path.to_owned(), source };
        let mut file =
            OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path).map_err(io)?;
        lock(&mut file, path, owned, setting)?;
        // A courtesy to whoever is refused: on a full disk it is left out.
        let told = file.set_len(0).and_then(|()| file.rewind());
        if let Err(error) = told.and_then(|()| writeln!(file, "{}", std::process::id())) {
            tracing::debug!(%error, path = %path.display(), "the process id could not be written");
        }
        Ok(Self { _file: file })
    }
}

/// Locks the file; says whose it is where somebody has it.
fn lock(file: &mut File, path: &Path, owned: &Path, setting: &'static str) -> Result<(), LockError> {
    match file.try_lock() {
        Ok(()) => Ok(()),
        Err(TryLockError::WouldBlock) => {
            let mut process = String::new();
            let owner = match file.take(32).read_to_string(&mut process) {
                Ok(1..) => format!(" (process {})", process.trim()),
                _ => String::new(),
            };
            Err(LockError::Taken { owned: owned.to_owned(), owner, setting })
        }
        Err(TryLockError::Error(source)) => Err(LockError::Io { path: path.to_owned(), source }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_has_one_owner_at_a_time() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        let first = Lock::take(&path, dir.path()).unwrap();
        let second = Lock::take(&path, dir.path()).unwrap_err();
        assert!(second.to_string().contains(&format!("process {}", std::process::id())), "{second}");
        drop(first);
        Lock::take(&path, dir.path()).unwrap();
    }
}
