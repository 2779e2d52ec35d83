//! The scrub: reads every file again and again, beside everything else, so that damage is found while there still is a backup.

use std::time::Duration;

use bytes::Bytes;
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;

use super::downloads::{DownloadError, Downloads};
use super::reading::{Fault, Reading};
use super::storage::Storage;
use crate::domain::{Client, FileName};
use crate::store::status::FileEntry;

/// Reads what stands and compares it with its recorded SHA-256.
pub struct Scrub {
    storage: Storage,
    downloads: Downloads,
    /// Bytes a second, at most.
    rate: u64,
}

/// What one pass has found.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Pass {
    /// Files that are as recorded.
    pub good: usize,
    /// Files that are not: damaged or missing. Their status says so.
    pub damaged: usize,
    /// Files of which it can't be known: their key is not there, or the system does not let us read them.
    pub unknown: usize,
    /// Bytes of content that were read.
    pub bytes: u64,
}

/// Keeps to a rate. What was lost by waiting for a slow disk is not made up for.
struct Pace {
    rate: u64,
    next: Instant,
}

impl Pace {
    /// Cancel-safe.
    async fn keep(&mut self, bytes: usize) {
        let takes = Duration::from_secs_f64(bytes as f64 / self.rate as f64);
        self.next = self.next.max(Instant::now()) + takes;
        tokio::time::sleep_until(self.next).await;
    }
}

impl Scrub {
    /// A scrub of these files, at so many bytes a second.
    pub fn new(storage: &Storage, rate: u64) -> Self {
        let Storage { files, status, keys, .. } = storage.clone();
        Self { storage: storage.clone(), downloads: Downloads::new(files, status, keys), rate: rate.max(1) }
    }

    /// Makes a pass now, and one whenever `interval` has passed since the one before began, until it is told to stop.
    pub async fn run(self, interval: Duration, stop: CancellationToken) {
        let mut passes = tokio::time::interval(interval);
        // One that takes longer is followed by the next at once.
        passes.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let forever = async {
            loop {
                passes.tick().await;
                let began = Instant::now();
                let Pass { good, damaged, unknown, bytes } = self.pass().await;
                let took = began.elapsed();
                tracing::info!(
                    good,
                    damaged,
                    unknown,
                    bytes,
                    ?took,
                    "every file was read and compared with its SHA-256"
                );
            }
        };
        tokio::select! {
            () = stop.cancelled() => {}
            () = forever => {}
        }
    }

    /// Reads every file that stands, once. Can be dropped at any moment.
    pub async fn pass(&self) -> Pass {
        let mut pass = Pass::default();
        let mut pace = Pace { rate: self.rate, next: Instant::now() };
        let names: Vec<FileName> =
            self.storage.status.standing().iter().map(|transfer| transfer.filename.clone()).collect();
        for name in names {
            match self.check(&name, &mut pace, &mut pass.bytes).await {
                None => {}
                Some(Ok(())) => pass.good += 1,
                Some(Err(fault @ (Fault::Damaged(_) | Fault::Missing))) => {
                    pass.damaged += 1;
                    self.record(&name, &fault);
                }
                Some(Err(fault)) => {
                    pass.unknown += 1;
                    tracing::warn!(filename = name.as_str(), error = %fault, "a file can't be compared with its SHA-256");
                }
            }
        }
        pass
    }

    /// In the status once, in the log in every pass.
    fn record(&self, name: &FileName, fault: &Fault) {
        let is_sealed = self.storage.status.file(name).is_some_and(|entry| entry.encryption);
        let why = match fault {
            // In the words of a download: it is one damage, whoever has found it.
            Fault::Damaged(why) if is_sealed => DownloadError::Decryption(why.clone()).to_string(),
            fault => fault.to_string(),
        };
        tracing::warn!(filename = name.as_str(), error = %why, "a file is not what was recorded");
        self.downloads.record_damage(name, Client::new("", "scrub", None), &why);
    }

    /// Compares one file; `None`: nothing is recorded, or the file was replaced meanwhile.
    async fn check(&self, name: &FileName, pace: &mut Pace, bytes: &mut u64) -> Option<Result<(), Fault>> {
        let status = &self.storage.status;
        let entry = status.file(name).filter(|entry| entry.checksum.is_some())?;
        let compared = self.compare(entry.clone(), pace, bytes).await;
        if compared.is_err() {
            // A file takes its name a moment before it is recorded.
            status.settled().await;
            if status.file(name).as_ref() != Some(&entry) {
                return None;
            }
        }
        Some(compared)
    }

    async fn compare(&self, entry: FileEntry, pace: &mut Pace, bytes: &mut u64) -> Result<(), Fault> {
        let (files, keyring) = (self.storage.files.clone(), self.storage.keys.get());
        let mut reading = blocking(move || Reading::open(&files, keyring.as_deref(), &entry)).await?;
        loop {
            let piece: Bytes;
            (reading, piece) = blocking(move || reading.next().map(|piece| (reading, piece))).await?;
            if piece.is_empty() {
                return reading.finish();
            }
            *bytes += piece.len() as u64;
            pace.keep(piece.len()).await;
        }
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Fault> + Send + 'static,
) -> Result<T, Fault> {
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|error| Err(Fault::Unreadable(error.to_string())))
}
