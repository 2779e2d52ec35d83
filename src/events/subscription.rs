//! One who watches.

use std::sync::Arc;

use serde_json::value::RawValue;
use tokio::sync::broadcast;
use tokio::sync::broadcast::error::{RecvError, TryRecvError};

use super::event::{Batch, Cursor, Event};
use super::hub::{Hub, PAGE, lock};
use super::{Place, Source as _};
use crate::domain::stats::Stats;
use crate::domain::{FileName, Transfer};

/// Batches were missed: [`Subscription::missed`] has what they said.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("events were missed")]
pub struct TooSlow;

/// Receives everything, in order, and always knows how far it has come.
///
/// Memory: a place in the hub's channel, whatever is going on and however slow it is read.
pub struct Subscription {
    hub: Hub,
    receiver: broadcast::Receiver<Arc<Batch>>,
    cursor: Cursor,
    /// Set while what was missed is being read.
    missing: Option<Missing>,
}

/// What is still to be read of what was missed.
#[derive(Clone, Copy)]
struct Missing {
    since: Cursor,
    page: Option<Place>,
}

/// A part of what was missed.
#[derive(Debug)]
pub struct Missed {
    /// Transfers that have ended, in the order of the changes of their names.
    pub events: Vec<Arc<Event>>,
    /// Whether that is all: what comes next is the present, and then what is new.
    pub done: bool,
}

/// How things stand at one point of the stream.
#[derive(Debug)]
pub struct Present {
    /// What came before this point and was not received yet.
    pub before: Vec<Arc<Batch>>,
    /// All that is going on: the transfers that run, and the last ones.
    pub all: Arc<RawValue>,
    /// The transfer of each name that was asked for; `None` if there is none.
    pub names: Vec<Option<Arc<Transfer>>>,
    /// The counters.
    pub stats: Stats,
}

impl Subscription {
    pub(super) const fn new(hub: Hub, receiver: broadcast::Receiver<Arc<Batch>>, cursor: Cursor) -> Self {
        Self { hub, receiver, cursor, missing: None }
    }

    /// How far it has come; `None` while something before is still missing.
    pub const fn cursor(&self) -> Option<Cursor> {
        if self.missing.is_none() { Some(self.cursor) } else { None }
    }

    pub(super) const fn rewind(&mut self, cursor: Cursor) {
        self.missing = Some(Missing { since: cursor, page: None });
    }

    /// The next events.
    ///
    /// Cancel-safe.
    ///
    /// # Errors
    /// [`TooSlow`]: some were missed. Nothing more comes until [`Subscription::missed`] was asked to its end.
    pub async fn next(&mut self) -> Result<Arc<Batch>, TooSlow> {
        if self.missing.is_some() {
            return Err(TooSlow);
        }
        match self.receiver.recv().await {
            Ok(batch) => {
                self.cursor = batch.cursor.unwrap_or(self.cursor);
                Ok(batch)
            }
            Err(RecvError::Lagged(_)) => {
                self.rewind(self.cursor);
                Err(TooSlow)
            }
            // The hub, of which this holds a handle, does not close.
            Err(RecvError::Closed) => std::future::pending().await,
        }
    }

    /// The next part of what was missed. Short: at most some hundred names are looked at.
    pub fn missed(&mut self) -> Missed {
        let Some(Missing { since, page }) = self.missing else {
            return Missed { events: Vec::new(), done: true };
        };
        let inner = &self.hub.0;
        let mut feed = lock(&inner.feed);
        inner.tell_now(&mut feed);
        let told = feed.cursor();
        let (mut transfers, next) = inner.changed(since.seq, page, PAGE);
        transfers.retain(|transfer| transfer.status.is_terminal() && transfer.seq <= told.seq);
        let mut events: Vec<_> = transfers
            .iter()
            .filter_map(|transfer| Event::of(transfer, transfer.seq).ok().map(Arc::new))
            .collect();
        let done = next.is_none();
        if done {
            events.extend(feed.downloads_since(since).cloned());
            self.receiver = inner.batches.subscribe();
            self.cursor = told;
        }
        self.missing = next.map(|page| Missing { since, page: Some(page) });
        Missed { events, done }
    }

    /// How things stand now, for who begins to watch something more.
    ///
    /// # Errors
    /// [`TooSlow`]: what was missed must be read first.
    pub fn present(&mut self, names: &[FileName]) -> Result<Present, TooSlow> {
        if self.missing.is_some() {
            return Err(TooSlow);
        }
        let hub = self.hub.clone();
        let mut feed = lock(&hub.0.feed);
        hub.0.tell_now(&mut feed);
        let mut before = Vec::new();
        loop {
            match self.receiver.try_recv() {
                Ok(batch) => {
                    self.cursor = batch.cursor.unwrap_or(self.cursor);
                    before.push(batch);
                }
                Err(TryRecvError::Lagged(_)) => {
                    self.rewind(self.cursor);
                    return Err(TooSlow);
                }
                Err(TryRecvError::Empty | TryRecvError::Closed) => break,
            }
        }
        let all = feed.snapshot(&*hub.0).unwrap_or_else(|error| {
            tracing::error!(%error, "the status can't be written as JSON");
            RawValue::NULL.to_owned().into()
        });
        let names = names.iter().map(|name| feed.current(name, &*hub.0)).collect();
        Ok(Present { before, all, names, stats: hub.0.stats() })
    }
}
