//! This end of a download: the bytes that are here, and their hash.

use std::io::{self, Seek, Write};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use sha2::{Digest as _, Sha256};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::part::{Part, Unopened, Version};
use super::{Destination, DownloadError};
use crate::client::disk;
use crate::client::hash::{feed, finish};
use crate::client::progress::{Event, Observer, Phase};
use crate::domain::Digest;

/// Where the bytes go, how many are there, and their running hash. All of it blocks.
pub(super) struct Local {
    target: Target,
    hasher: Sha256,
    have: u64,
    version: Option<Version>,
    /// Whether bytes of an earlier run are among them: they may have been damaged since.
    inherited: bool,
}

enum Target {
    Part(Part),
    /// Takes bytes and does not give them back.
    Stream(Box<dyn Write + Send>),
}

impl Local {
    /// Looks at what an earlier run has left for this `url`, and hashes it; what is of no use is dropped.
    pub(super) fn open(
        destination: Destination,
        url: &str,
        stop: &CancellationToken,
        observer: &Observer,
    ) -> Result<Self, DownloadError> {
        let fresh = |target| Self { target, hasher: Sha256::new(), have: 0, version: None, inherited: false };
        let path = match destination {
            Destination::Stream(stream) => return Ok(fresh(Target::Stream(stream))),
            Destination::File(path) => path,
        };
        let mut part = Part::open(&path).map_err(|unopened| match unopened {
            Unopened::Busy(path) => DownloadError::Busy(path),
            Unopened::NotAFile(path) => DownloadError::NotAFile(path),
            Unopened::Io(path, source) => DownloadError::Write { to: shown(&path), source },
        })?;
        let failed = |source| DownloadError::Write { to: shown(&path), source };
        let length = part.file.metadata().map_err(failed)?.len();
        let version = part.version().filter(|version| {
            version.format == Version::FORMAT
                && version.url == url
                && version.etag.is_some()
                && version.total.is_none_or(|total| length <= total)
        });
        let (Some(version), 1..) = (version, length) else {
            part.clear().map_err(failed)?;
            return Ok(fresh(Target::Part(part)));
        };
        observer(Event::Started { phase: Phase::Checking, done: 0, total: Some(length) });
        let mut hasher = Sha256::new();
        part.file.rewind().map_err(failed)?;
        feed(&mut hasher, &mut part.file, length, stop, observer).map_err(failed)?;
        Ok(Self { target: Target::Part(part), hasher, have: length, version: Some(version), inherited: true })
    }

    /// Bytes that are there.
    pub(super) fn have(&self) -> u64 {
        self.have
    }

    /// What they are of.
    pub(super) fn version(&self) -> Option<&Version> {
        self.version.as_ref()
    }

    /// Drops what is there; the bytes to come are of `version`.
    ///
    /// # Errors
    /// [`DownloadError::Changed`] where bytes have been passed on and cannot be taken back.
    pub(super) fn start(&mut self, version: Option<Version>) -> Result<(), DownloadError> {
        let started = match (&mut self.target, &version) {
            (Target::Part(part), Some(version)) => part.start(version),
            (Target::Part(part), None) => part.clear(),
            (Target::Stream(_), _) if self.have > 0 => return Err(DownloadError::Changed),
            (Target::Stream(_), _) => Ok(()),
        };
        started.map_err(|source| self.failed(source))?;
        (self.hasher, self.have, self.version, self.inherited) = (Sha256::new(), 0, version, false);
        Ok(())
    }

    /// Sees to it that there is room for the rest.
    pub(super) fn reserve(&self, total: Option<u64>) -> Result<(), DownloadError> {
        let (Target::Part(part), Some(total)) = (&self.target, total) else { return Ok(()) };
        let missing = total.saturating_sub(self.have);
        disk::reserve(&part.file, self.have, missing).map_err(|source| DownloadError::NoRoom {
            to: shown(part.path()),
            missing,
            source,
        })
    }

    /// Writes what comes, until there is no more.
    pub(super) fn take(
        &mut self,
        pieces: &mut mpsc::Receiver<Bytes>,
        observer: &Observer,
    ) -> Result<(), DownloadError> {
        while let Some(piece) = pieces.blocking_recv() {
            let written = match &mut self.target {
                Target::Part(part) => part.file.write_all(&piece),
                Target::Stream(stream) => stream.write_all(&piece),
            };
            if let Err(source) = written {
                return Err(self.give_up(source));
            }
            self.hasher.update(&piece);
            self.have += piece.len() as u64;
            observer(Event::Advanced(piece.len() as u64));
        }
        Ok(())
    }

    /// A write that failed may have written some of its bytes, which are not in the hash: they are cut off again.
    fn give_up(&mut self, source: io::Error) -> DownloadError {
        if let Target::Part(part) = &mut self.target {
            let _ =
                part.file.set_len(self.have).and_then(|()| part.file.seek(io::SeekFrom::Start(self.have)));
        }
        self.failed(source)
    }

    /// Compares what is there with what the server said that it is, and gives it its name.
    pub(super) fn finish(&mut self) -> Result<(Option<PathBuf>, Digest, bool), DownloadError> {
        let found = finish(self.hasher.clone());
        let expected = self.version.as_ref().and_then(|version| version.sha256);
        if let Some(expected) = expected.filter(|expected| *expected != found) {
            let inherited = self.inherited;
            if let Target::Part(part) = &mut self.target {
                part.clear().map_err(|source| DownloadError::Write { to: shown(part.path()), source })?;
                (self.hasher, self.have, self.version, self.inherited) = (Sha256::new(), 0, None, false);
            }
            return Err(DownloadError::Mismatch { expected, found, inherited });
        }
        let published = match &mut self.target {
            Target::Part(part) => part.publish().map(|path| Some(path.to_owned())),
            Target::Stream(stream) => stream.flush().map(|()| None),
        };
        let path = published.map_err(|source| self.failed(source))?;
        Ok((path, found, expected.is_some()))
    }

    fn failed(&self, source: io::Error) -> DownloadError {
        let to = match &self.target {
            Target::Part(part) => shown(part.path()),
            Target::Stream(_) => "the output".to_owned(),
        };
        DownloadError::Write { to, source }
    }
}

fn shown(path: &Path) -> String {
    path.display().to_string()
}
