//! Where everything is: every path is computed here.

use std::io;
use std::path::{Path, PathBuf};

use super::os;
use crate::domain::{FileName, TransferId};

/// The paths of one server's storage directory and status file.
#[derive(Debug, Clone)]
pub struct Layout {
    root: PathBuf,
    status: PathBuf,
}

impl Layout {
    /// The layout of the storage directory `root` with the status file `status`.
    pub const fn new(root: PathBuf, status: PathBuf) -> Self {
        Self { root, status }
    }

    /// Makes the directories that are missing, so that they stay after a loss of power.
    ///
    /// # Errors
    /// What the system says.
    pub fn create(&self) -> io::Result<()> {
        create_flushed(&self.uploads())?;
        create_flushed(&self.encrypted())?;
        create_flushed(self.status_directory())
    }

    /// The storage directory: files under their own names.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// A published file.
    pub fn file(&self, name: &FileName) -> PathBuf {
        self.root.join(name.as_str())
    }

    /// The server's own directory; no file's name can begin with a dot.
    pub fn private(&self) -> PathBuf {
        self.root.join(".sft")
    }

    /// Containers of sealed files, under the files' names.
    pub fn encrypted(&self) -> PathBuf {
        self.private().join("encrypted")
    }

    /// The container of a sealed file.
    pub fn sealed(&self, name: &FileName) -> PathBuf {
        self.encrypted().join(name.as_str())
    }

    /// The key that was made because none was set.
    pub fn secret_key(&self) -> PathBuf {
        self.private().join("secret.key")
    }

    /// Uploads in progress.
    pub fn uploads(&self) -> PathBuf {
        self.private().join("uploads")
    }

    /// The data of an upload in progress.
    pub fn upload_data(&self, id: TransferId) -> PathBuf {
        self.uploads().join(format!("{id}.data"))
    }

    /// What is known of an upload that can be resumed.
    pub fn upload_log(&self, id: TransferId) -> PathBuf {
        self.uploads().join(format!("{id}.log"))
    }

    /// A chunk of an upload whose place in the data is not known yet.
    pub fn upload_chunk(&self, id: TransferId, part: TransferId) -> PathBuf {
        self.uploads().join(format!("{id}.{part}.chunk"))
    }

    /// Locked by the server that owns the directory.
    pub fn lock(&self) -> PathBuf {
        self.private().join("lock")
    }

    /// The status file.
    pub fn status(&self) -> &Path {
        &self.status
    }

    /// The directory of the status file.
    pub fn status_directory(&self) -> &Path {
        match self.status.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        }
    }
}

/// Makes a directory and those above it; flushes the one in which each is made.
fn create_flushed(path: &Path) -> io::Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    create_flushed(parent)?;
    match std::fs::create_dir(path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists || !path.is_dir() => return Err(error),
        _ => {}
    }
    os::sync_directory(&os::open_directory(parent)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directories_are_made_once_and_a_file_in_their_place_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::new(dir.path().join("a/b/storage"), dir.path().join("c/status.json"));
        layout.create().unwrap();
        layout.create().unwrap();
        assert!(layout.uploads().is_dir() && layout.status_directory().is_dir());
        let file = dir.path().join("file");
        crate::store::atomic::create_new(&file).unwrap();
        let error = Layout::new(file.join("storage"), file.join("status.json")).create().unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AlreadyExists);
    }
}
