//! Events: every change of every transfer, in order, to whoever watches.
//!
//! ```text
//! committer ─► pending ─► Feed (running transfers, coalescing) ─► broadcast of batches ─► a Subscription each
//! downloads ─►                    ▲ ten ticks a second: progress
//! ```
//!
//! - The first and the last state of a transfer are always told; between them its progress, at most ten times a second.
//! - A newcomer gets a receiver and a snapshot at one point of the stream: nothing that comes later is older.
//! - Who is too slow misses batches, and reads what it missed from the status: every transfer that ended, then the
//!   present. Nobody waits for it, and nothing is kept for it.
//! - An event is serialised once for all.
//! - While nobody watches, a change costs a look at a flag.

mod downloads;
mod event;
mod feed;
mod hub;
mod subscription;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use crate::domain::progress::Live;
use crate::domain::stats::Stats;
use crate::domain::{FileName, Transfer, TransferId};

pub use self::downloads::RunningDownload;
pub use self::event::{Batch, Cursor, Event, frame};
pub use self::hub::Hub;
pub use self::subscription::{Missed, Present, Subscription, TooSlow};

/// The place of a change in a listing that goes on.
pub type Place = (u64, TransferId);

/// Where the hub reads what it is not told: the status.
pub trait Source: Send + Sync + 'static {
    /// The last change and, as of that moment, every transfer that runs.
    fn position(&self) -> (u64, Vec<Arc<Transfer>>);
    /// How far a running transfer is.
    fn live(&self, id: TransferId) -> Option<Arc<Live>>;
    /// Transfers that changed after `since`, as [`crate::store::status::StatusStore::changed`] has them.
    fn changed(&self, since: u64, page: Option<Place>, limit: usize) -> (Vec<Arc<Transfer>>, Option<Place>);
    /// The transfers of up to `limit` names, the last changed first.
    fn recent(&self, limit: usize) -> Vec<Arc<Transfer>>;
    /// The transfer of a name whose state changed last.
    fn current(&self, name: &FileName) -> Option<Arc<Transfer>>;
    /// How many names have a transfer.
    fn name_count(&self) -> usize;
    /// The counters.
    fn stats(&self) -> Stats;
}
