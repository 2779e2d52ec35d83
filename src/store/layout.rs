//! Where everything is: every path is computed here.

use std::io;
use std::path::{Path, PathBuf};

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

    /// Makes the directories that are missing.
    ///
    /// # Errors
    /// What the system says.
    pub fn create(&self) -> io::Result<()> {
        std::fs::create_dir_all(self.uploads())?;
        std::fs::create_dir_all(self.status_directory())
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

    /// Uploads in progress.
    pub fn uploads(&self) -> PathBuf {
        self.private().join("uploads")
    }

    /// The data of an upload in progress.
    pub fn upload_data(&self, id: TransferId) -> PathBuf {
        self.uploads().join(format!("{id}.data"))
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
