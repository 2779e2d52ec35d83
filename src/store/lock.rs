//! One server owns a storage directory.

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
    #[error("{} is in use by another server{}; stop that one or choose another UPLOAD_DIR", .directory.display(), .owner)]
    Taken {
        /// The storage directory.
        directory: PathBuf,
        /// ` (process 1234)`, if the other one has said.
        owner: String,
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
    /// Takes the lock file `path` of `directory`.
    ///
    /// # Errors
    /// [`LockError::Taken`] at once if another process has it.
    pub fn take(path: &Path, directory: &Path) -> Result<Self, LockError> {
        let io = |source| LockError::Io { path: path.to_owned(), source };
        let mut file =
            OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path).map_err(io)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut process = String::new();
                let owner = match (&file).take(32).read_to_string(&mut process) {
                    Ok(1..) => format!(" (process {})", process.trim()),
                    _ => String::new(),
                };
                return Err(LockError::Taken { directory: directory.to_owned(), owner });
            }
            Err(TryLockError::Error(error)) => return Err(io(error)),
        }
        file.set_len(0).and_then(|()| file.rewind()).map_err(io)?;
        writeln!(file, "{}", std::process::id()).map_err(io)?;
        Ok(Self { _file: file })
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
