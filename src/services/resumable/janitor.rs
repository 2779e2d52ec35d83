//! Uploads that nobody goes on with are given up after a while.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::Resumable;
use super::model::ResumableError;
use super::registry::{Bytes, Unfinished};
use crate::domain::{Change, Timestamp};

/// It is looked at least so often.
const SELDOM: Duration = Duration::from_secs(60);
/// And at most so often.
const OFTEN: Duration = Duration::from_millis(500);

/// What a look has removed.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Swept {
    /// Unfinished uploads that had expired.
    pub expired: usize,
    /// Complete ones of which nothing is remembered any more; their files stay.
    pub forgotten: usize,
}

impl Resumable {
    /// Looks for uploads that have expired, from time to time, until it is told to stop.
    pub async fn run_janitor(self, stop: CancellationToken) {
        let pause = (self.0.limits.expiry / 10).clamp(OFTEN, SELDOM);
        while stop.run_until_cancelled(tokio::time::sleep(pause)).await.is_some() {
            let Swept { expired, forgotten } = self.sweep().await;
            if expired + forgotten > 0 {
                tracing::info!(expired, forgotten, "unfinished uploads have expired");
            }
        }
    }

    /// Removes what has expired.
    pub async fn sweep(&self) -> Swept {
        let mut swept = Swept::default();
        let before: Timestamp = (Timestamp::now().to_system_time() - self.0.limits.expiry).into();
        for upload in self.0.registry.unfinished() {
            // One that is being sent is touched by its end.
            if upload.touched() < before && !upload.is_busy() {
                let (id, at) = (upload.id(), Timestamp::now());
                let error = "the upload has expired: nothing came for too long".into();
                let transferred_bytes = upload.transferred();
                let failed = Change::Failed { id, at, error, transferred_bytes };
                match self.end(&upload, failed, Some(before)).await {
                    Ok(()) => swept.expired += 1,
                    Err(ResumableError::TakenOver | ResumableError::Gone) => {}
                    Err(error) => {
                        tracing::warn!(%error, %id, "an upload that has expired could not be removed")
                    }
                }
            }
        }
        let forgotten = self.0.registry.forget_before(before);
        swept.forgotten = forgotten.len();
        self.remove_logs(forgotten).await;
        swept
    }
}

impl Unfinished {
    fn is_busy(&self) -> bool {
        match &self.bytes {
            Bytes::Ordered(ordered) => ordered.try_take().is_none(),
            Bytes::Chunked(chunked) => chunked.is_busy(),
        }
    }
}
