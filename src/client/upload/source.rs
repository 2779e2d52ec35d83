//! The file that is sent, as it is on this machine.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use sha2::{Digest as _, Sha256};

use super::UploadError;
use crate::client::hash::{self, Fingerprint, blocking, feed, finish};
use crate::client::progress::{Event, Observer, Phase};
use crate::domain::Digest;

/// What is known of a file from an earlier attempt, so that it is not hashed again unless it has changed since.
#[derive(Debug, Default)]
pub(in crate::client) struct Known(Option<Fingerprint>);

/// An open file, and what it is.
#[derive(Debug, Clone)]
pub(in crate::client) struct Source {
    pub(in crate::client) file: Arc<File>,
    pub(in crate::client) found: Fingerprint,
}

impl Known {
    /// Opens a file and hashes it, unless it is still as it was.
    pub(in crate::client) async fn open(
        &mut self,
        path: &Path,
        observer: &Observer,
    ) -> Result<Source, UploadError> {
        let known = self.0.take();
        let (at, observer) = (path.to_owned(), Arc::clone(observer));
        let hashed = blocking(move |stop| {
            // Asked before it is opened: opening a pipe waits for the other end.
            if !std::fs::metadata(&at)?.is_file() {
                return Ok(None);
            }
            let mut file = File::open(&at)?;
            let metadata = file.metadata()?;
            let (size, modified) = (metadata.len(), metadata.modified().ok());
            if let Some(found) = known.filter(|known| (known.size, known.modified) == (size, modified)) {
                return Ok(Some(Source { file: Arc::new(file), found }));
            }
            observer(Event::Started { phase: Phase::Hashing, done: 0, total: Some(size) });
            let mut hasher = Sha256::new();
            feed(&mut hasher, &mut file, size, &stop, &observer)?;
            let found = Fingerprint { size, modified, digest: finish(hasher) };
            Ok(Some(Source { file: Arc::new(file), found }))
        });
        match hashed.await {
            Ok(Some(source)) => {
                self.0 = Some(source.found);
                Ok(source)
            }
            Ok(None) => Err(UploadError::NotAFile(path.to_owned())),
            Err(error) => Err(UploadError::of_reading(path, error)),
        }
    }
}

impl Source {
    /// The SHA-256 of a part.
    ///
    /// # Errors
    /// [`UploadError::Changed`] if the file is no longer as it was found: what was hashed then is not what would be sent now.
    pub(in crate::client) async fn digest(
        &self,
        range: Range<u64>,
        path: &Path,
    ) -> Result<Digest, UploadError> {
        let Self { file, found } = self.clone();
        let hashed = blocking(move |stop| {
            let metadata = file.metadata()?;
            if (metadata.len(), metadata.modified().ok()) != (found.size, found.modified) {
                return Ok(None);
            }
            hash::part(&file, range, &stop).map(Some)
        });
        match hashed.await {
            Ok(Some(digest)) => Ok(digest),
            Ok(None) => Err(UploadError::Changed(path.to_owned())),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                Err(UploadError::Changed(path.to_owned()))
            }
            Err(error) => Err(UploadError::of_reading(path, error)),
        }
    }
}
