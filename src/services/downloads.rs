//! Downloads: what stands under a name, whole, for as long as somebody reads it.

use std::io;
use std::sync::Arc;

use super::pipeline::blocking;
use crate::domain::{Digest, FileName, StoredFile};
use crate::store::files::{Files, OpenFile};
use crate::store::status::StatusStore;

/// Opens files for download.
#[derive(Clone)]
pub struct Downloads {
    files: Files,
    status: StatusStore,
}

/// Why a file can't be had.
#[derive(Debug, thiserror::Error)]
pub enum DownloadError {
    /// Nothing stands under the name.
    #[error("there is no such file")]
    NotFound,
    /// The storage can't be read.
    #[error("the storage can't be read: {0}")]
    Storage(String),
}

/// A file that is open for download.
#[derive(Debug)]
pub struct Download {
    /// The file, readable at any offset.
    pub file: Arc<OpenFile>,
    /// Its name.
    pub filename: FileName,
    /// SHA-256 of its content, if it is known and vouched for: a file that was put there or changed behind the
    /// server's back has none.
    pub checksum: Option<Digest>,
}

impl Download {
    /// Size and time of its content.
    pub fn stored(&self) -> &StoredFile {
        self.file.stored()
    }
}

impl Downloads {
    /// Downloads of these files.
    pub const fn new(files: Files, status: StatusStore) -> Self {
        Self { files, status }
    }

    /// Opens what stands under a name.
    ///
    /// # Errors
    /// [`DownloadError`].
    pub async fn open(&self, filename: FileName) -> Result<Download, DownloadError> {
        let opened = match self.files.open_cached(&filename) {
            Ok(Some(file)) => Ok(file),
            Err(error) => Err(error),
            Ok(None) => {
                let (files, filename) = (self.files.clone(), filename.clone());
                blocking(move || files.open(&filename)).await
            }
        };
        let file = opened.map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => DownloadError::NotFound,
            _ => DownloadError::Storage(error.to_string()),
        })?;
        let entry = self.status.file(&filename);
        let checksum =
            entry.filter(|entry| entry.file.as_ref() == Some(file.stored())).and_then(|entry| entry.checksum);
        Ok(Download { file: Arc::new(file), filename, checksum })
    }
}
