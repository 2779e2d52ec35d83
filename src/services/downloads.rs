//! Downloads: what stands under a name, whole, for as long as somebody reads it.

use std::io;
use std::sync::Arc;

use super::keys::Keys;
use super::pipeline::blocking;
use crate::domain::{
    Change, Client, Digest, Direction, FileName, Priority, Seal, Start, StoredFile, Timestamp, TransferId,
};
use crate::store::files::{Files, OpenFile};
use crate::store::sealed::{self, SealedError, SealedFile};
use crate::store::status::{FileEntry, StatusStore};

/// Opens files for download.
#[derive(Clone)]
pub struct Downloads {
    files: Files,
    status: StatusStore,
    keys: Keys,
}

/// Why a file can't be had.
#[derive(Debug, thiserror::Error)]
pub enum DownloadError {
    /// Nothing stands under the name.
    #[error("there is no such file")]
    NotFound,
    /// It is sealed and can't be opened: damaged, tampered with, or sealed under a key that is not there.
    #[error("the file can't be decrypted: {0}")]
    Decryption(String),
    /// The storage can't be read.
    #[error("the storage can't be read: {0}")]
    Storage(String),
}

impl From<SealedError> for DownloadError {
    fn from(error: SealedError) -> Self {
        match error {
            SealedError::Io(error) => error.into(),
            SealedError::Open(_) | SealedError::Swapped | SealedError::NoKey => {
                Self::Decryption(error.to_string())
            }
        }
    }
}

impl From<io::Error> for DownloadError {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::NotFound => Self::NotFound,
            _ => Self::Storage(error.to_string()),
        }
    }
}

/// In which form a sealed file is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wanted {
    /// As it was uploaded.
    Content,
    /// As it is stored: the container.
    Stored,
}

/// A file that is open for download.
#[derive(Debug)]
pub struct Download {
    /// Its bytes, readable at any offset.
    pub content: Content,
    /// Its name.
    pub filename: FileName,
    /// Size and time of what is given.
    pub file: StoredFile,
    /// SHA-256 of what is given, if it is known and vouched for: a file that was put there or changed behind the
    /// server's back has none.
    pub checksum: Option<Digest>,
    /// Which container it is, where that is what is given.
    pub container: Option<Seal>,
}

/// The bytes of a download.
#[derive(Debug, Clone)]
pub enum Content {
    /// A file as it is.
    Plain(Arc<OpenFile>),
    /// What a container holds.
    Sealed(Arc<SealedFile>),
}

/// How often it is looked anew at what stands under a name that is being replaced all the time.
const LOOKS: usize = 64;

impl Downloads {
    /// Downloads of these files.
    pub const fn new(files: Files, status: StatusStore, keys: Keys) -> Self {
        Self { files, status, keys }
    }

    /// Opens what stands under a name. Of a sealed file the end is verified. Cancel-safe.
    ///
    /// # Errors
    /// [`DownloadError`].
    pub async fn open(&self, filename: &FileName, wanted: Wanted) -> Result<Download, DownloadError> {
        let mut entry = self.status.file(filename);
        for _ in 0..LOOKS {
            let opened = match &entry {
                Some(sealed) if sealed.encryption => self.open_sealed(filename, sealed.clone(), wanted).await,
                _ => self.open_plain(filename, entry.as_ref()).await,
            };
            let is_odd = entry.is_some()
                && matches!(opened, Err(DownloadError::NotFound | DownloadError::Decryption(_)));
            if !is_odd {
                return opened;
            }
            // A file takes its name a moment before it is recorded, and another one's form.
            self.status.settled().await;
            if !self.status.is_usable() {
                // It may be never recorded before a restart: nothing is known of it.
                return Err(DownloadError::Storage("the status can't be written".into()));
            }
            let now = self.status.file(filename);
            if now == entry {
                return opened;
            }
            entry = now;
        }
        Err(DownloadError::Storage("the file is being replaced all the time".into()))
    }

    async fn open_plain(
        &self,
        filename: &FileName,
        entry: Option<&FileEntry>,
    ) -> Result<Download, DownloadError> {
        let file = match self.files.open_cached(filename)? {
            Some(file) => file,
            None => {
                let (files, filename) = (self.files.clone(), filename.clone());
                blocking(move || files.open(&filename)).await?
            }
        };
        let stored = file.stored().clone();
        let recorded = entry.filter(|entry| entry.file.as_ref() == Some(&stored));
        Ok(Download {
            content: Content::Plain(Arc::new(file)),
            filename: filename.clone(),
            checksum: recorded.and_then(|entry| entry.checksum),
            file: stored,
            container: None,
        })
    }

    async fn open_sealed(
        &self,
        filename: &FileName,
        mut entry: FileEntry,
        wanted: Wanted,
    ) -> Result<Download, DownloadError> {
        let (files, name) = (self.files.clone(), filename.clone());
        let keyring = self.keys.get();
        if wanted == Wanted::Stored {
            // Whoever has the key elsewhere may have the container from a server that has none.
            let opened = blocking(move || {
                let file = files.open_sealed(&name)?;
                let container = sealed::seal_of(&file)?;
                Ok((file, container))
            });
            let (file, container) = opened.await?;
            return Ok(Download {
                filename: filename.clone(),
                file: file.stored().clone(),
                content: Content::Plain(Arc::new(file)),
                checksum: None,
                container: Some(container),
            });
        }
        let opened = blocking(move || {
            let file = files.open_sealed(&name)?;
            Ok(SealedFile::open(file, keyring.as_deref(), None))
        });
        let sealed = opened.await??;
        if entry.seal.is_some_and(|recorded| recorded != sealed.seal()) {
            // Whoever has just replaced it may not have been recorded when it was looked.
            self.status.settled().await;
            entry = match self.status.file(filename) {
                Some(now) if now.seal == Some(sealed.seal()) => now,
                _ => return Err(SealedError::Swapped.into()),
            };
        }
        let modified = entry.file.as_ref().unwrap_or(sealed.file().stored()).modified;
        Ok(Download {
            filename: filename.clone(),
            file: StoredFile { size: sealed.content_length(), modified },
            checksum: entry.checksum,
            content: Content::Sealed(Arc::new(sealed)),
            container: None,
        })
    }

    /// Records that a file was found to be damaged: its status says so, and the log. Whoever asks for it again finds nothing
    /// new.
    pub fn record_damage(&self, filename: &FileName, client: Client, why: &str) {
        let told = self.status.current(filename).is_some_and(|last| last.error.as_deref() == Some(why));
        if told {
            return;
        }
        let id = TransferId::new();
        let at = Timestamp::now();
        tracing::error!(transfer = %id, filename = filename.as_str(), error = why, "a file is damaged");
        self.status.note(Change::Started(Start {
            id,
            filename: filename.clone(),
            direction: Direction::Download,
            client,
            encryption: self.status.file(filename).is_some_and(|entry| entry.encryption),
            priority: Priority::default(),
            total_bytes: None,
            at,
        }));
        self.status.note(Change::Failed { id, at, error: why.into(), transferred_bytes: 0 });
    }
}
