//! Downloads that run: they are shown while they do, and are in no journal.

use std::sync::Arc;
use std::time::Instant;

use super::Hub;
use super::hub::lock;
use crate::domain::progress::Live;
use crate::domain::{
    Change, Client, Digest, Direction, FileName, Priority, Start, Timestamp, Transfer, TransferId,
};

/// A download of at most so many bytes is over as soon as it has begun: it is not registered while nobody watches.
const SMALL: u64 = 256 << 10;

/// A download that is shown. Dropped, it has ended: well, if all its bytes were handed to the connection.
pub struct RunningDownload {
    hub: Hub,
    transfer: Arc<Transfer>,
    live: Arc<Live>,
    checksum: Option<Digest>,
    total: u64,
    failure: Option<String>,
}

impl Hub {
    /// A download of `total` bytes begins. `None`: it need not be told of.
    pub fn download(
        &self,
        filename: &FileName,
        client: &Client,
        checksum: Option<Digest>,
        total: u64,
    ) -> Option<RunningDownload> {
        if total <= SMALL && !self.is_watched() {
            return None;
        }
        let start = Start {
            id: TransferId::new(),
            filename: filename.clone(),
            direction: Direction::Download,
            client: client.clone(),
            encryption: false,
            priority: Priority::default(),
            total_bytes: Some(total),
            at: Timestamp::now(),
        };
        // A transfer can always begin.
        let transfer = Arc::new(Change::Started(start).apply(None, 0).ok()?);
        let live = Arc::new(Live::new(Some(total), None, Instant::now()));
        let mut downloads = lock(&self.0.downloads);
        downloads.insert(transfer.id, (Arc::clone(&transfer), Arc::clone(&live)));
        // Under the lock: whoever begins to watch sees it running, or is told that it began.
        self.offer(&transfer);
        drop(downloads);
        Some(RunningDownload { hub: self.clone(), transfer, live, checksum, total, failure: None })
    }
}

impl RunningDownload {
    /// So many bytes more were handed to the connection.
    pub fn add(&self, bytes: u64) {
        self.live.add(bytes);
    }

    /// It will not come to its end, for this reason; for a person.
    pub fn fail(&mut self, why: impl Into<String>) {
        self.failure = Some(why.into());
    }
}

impl Drop for RunningDownload {
    fn drop(&mut self) {
        let done = self.live.done();
        let (id, at) = (self.transfer.id, Timestamp::now());
        let change = match self.failure.take() {
            None if done >= self.total => Change::Sent { id, at, checksum: self.checksum },
            failure => {
                let hung_up =
                    || "the client hung up, or the server stopped, before the download was complete".into();
                let error = failure.unwrap_or_else(hung_up).into();
                Change::Failed { id, at, error, transferred_bytes: done }
            }
        };
        let mut downloads = lock(&self.hub.0.downloads);
        downloads.remove(&id);
        // What has begun can end.
        if let Ok(ended) = change.apply(Some(&self.transfer), 0) {
            self.hub.offer(&Arc::new(ended));
        }
    }
}
