//! What is told and what is not: the stream of events as a value, without time or tasks of its own.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::Serialize;
use serde_json::value::{RawValue, to_raw_value};

use super::Source;
use super::event::{Batch, Cursor, Event};
use crate::domain::progress::Live;
use crate::domain::{FileName, Timestamp, Transfer, TransferId};

/// Downloads that ended, kept for who missed them: they are in no journal.
const ENDED: usize = 4096;
/// Transfers in a snapshot: first those that run, then the last changed, of these at most [`RECENT`]. More are told of as
/// they move, and `/status` has them all.
const SNAPSHOT: usize = 500;
const RECENT: usize = 100;
/// How often a transfer that stands still is told of, while its speed falls.
const STALLED: Duration = Duration::from_secs(1);
/// How often the counters are told, and how soon after something completed.
const STATS: Duration = Duration::from_secs(5);
const STATS_SOON: Duration = Duration::from_millis(500);

/// A transfer that runs, as it was last told of.
struct Running {
    transfer: Arc<Transfer>,
    live: Option<Arc<Live>>,
    told: Instant,
}

/// The stream: what was told last, so that a newcomer sees just that, and nothing older after it.
pub(super) struct Feed {
    cursor: Cursor,
    running: HashMap<TransferId, Running>,
    ended: VecDeque<Arc<Event>>,
    stats_told: Option<Instant>,
    completed: bool,
    /// The snapshot for newcomers, until something changes.
    snapshot: Option<Arc<RawValue>>,
    out: Vec<Arc<Event>>,
}

/// What a newcomer is told: all that is going on.
#[derive(Serialize)]
struct Snapshot<'a> {
    transfers: HashMap<&'a FileName, &'a Transfer>,
    queue: [(); 0],
    metadata: Metadata,
}

#[derive(Serialize)]
struct Metadata {
    total_transfers: usize,
    returned_count: usize,
    last_updated: Option<Timestamp>,
    version: &'static str,
}

impl Feed {
    /// A stream of a run of the server.
    pub(super) fn new(run: u32) -> Self {
        Self {
            cursor: Cursor { run, ..Cursor::default() },
            running: HashMap::new(),
            ended: VecDeque::new(),
            stats_told: None,
            completed: false,
            snapshot: None,
            out: Vec::new(),
        }
    }

    /// Begins here: after this change, with these transfers running.
    pub(super) fn begin(&mut self, seq: u64, running: Vec<Arc<Transfer>>, source: &dyn Source, now: Instant) {
        self.cursor.seq = seq;
        self.running.clear();
        self.snapshot = None;
        for transfer in running {
            self.start(transfer, source, now);
        }
    }

    pub(super) const fn cursor(&self) -> Cursor {
        self.cursor
    }

    fn start(&mut self, transfer: Arc<Transfer>, source: &dyn Source, now: Instant) {
        let live = source.live(transfer.id);
        self.running.insert(transfer.id, Running { transfer, live, told: now });
    }

    /// A change, in the order of changes. One that lies before the beginning is dropped.
    pub(super) fn change(&mut self, transfer: Arc<Transfer>, source: &dyn Source, now: Instant) {
        // What is in no journal has no number: a download that is told of here alone.
        let unnumbered = transfer.seq == 0;
        if !unnumbered {
            if transfer.seq <= self.cursor.seq {
                return;
            }
            self.cursor.seq = transfer.seq;
        }
        let event = self.tell(&transfer);
        if !transfer.status.is_terminal() {
            self.start(transfer, source, now);
            return;
        }
        self.running.remove(&transfer.id);
        self.completed = true;
        if let Some(event) = event.filter(|_| unnumbered) {
            self.cursor.downloads += 1;
            if self.ended.len() == ENDED {
                self.ended.pop_front();
            }
            self.ended.push_back(event);
        }
    }

    /// The end of a transfer that was missed: the beginning comes after it.
    pub(super) fn missed(&mut self, transfer: &Transfer) {
        self.completed = true;
        self.tell(transfer);
    }

    /// Tells how far running transfers are, those that moved; and the counters, when it is time. Says how many moved.
    pub(super) fn tick(&mut self, source: &dyn Source, now: Instant) -> usize {
        let mut moved = Vec::new();
        for (id, running) in &mut self.running {
            // It is registered just after the transfer was noted.
            if running.live.is_none() {
                running.live = source.live(*id);
            }
            let Some(live) = &running.live else { continue };
            let mut transfer = Transfer::clone(&running.transfer);
            live.show(&mut transfer, now);
            let advanced = transfer.transferred_bytes != running.transfer.transferred_bytes;
            let slower = transfer.speed != running.transfer.speed
                && now.saturating_duration_since(running.told) >= STALLED;
            if advanced || slower {
                running.transfer = Arc::new(transfer);
                running.told = now;
                moved.push(Arc::clone(&running.transfer));
            }
        }
        for transfer in &moved {
            self.tell(transfer);
        }
        let wait = if self.completed { STATS_SOON } else { STATS };
        if self.stats_told.is_none_or(|told| now.saturating_duration_since(told) >= wait) {
            (self.stats_told, self.completed) = (Some(now), false);
            self.out.extend(Event::stats(&source.stats()).ok().map(Arc::new));
        }
        moved.len()
    }

    fn tell(&mut self, transfer: &Transfer) -> Option<Arc<Event>> {
        self.snapshot = None;
        let seq = if transfer.seq == 0 { self.cursor.seq } else { transfer.seq };
        match Event::of(transfer, seq) {
            Ok(event) => {
                let event = Arc::new(event);
                self.out.push(Arc::clone(&event));
                Some(event)
            }
            Err(error) => {
                tracing::error!(%error, "an event can't be written as JSON");
                None
            }
        }
    }

    /// What there is to send.
    pub(super) fn take(&mut self) -> Vec<Batch> {
        let events = std::mem::take(&mut self.out);
        let cursor = self.cursor;
        // Who has the first of several has not seen everything up to the cursor yet.
        let last = events.len().div_ceil(Batch::MOST);
        let batches = events.chunks(Batch::MOST).enumerate();
        batches
            .map(|(number, events)| Batch {
                events: events.to_vec(),
                cursor: (number + 1 == last).then_some(cursor),
            })
            .collect()
    }

    /// What a newcomer is told: made once for all who come at one point of the stream.
    pub(super) fn snapshot(&mut self, source: &dyn Source) -> serde_json::Result<Arc<RawValue>> {
        if let Some(snapshot) = &self.snapshot {
            return Ok(Arc::clone(snapshot));
        }
        let recent = source.recent(RECENT);
        // What the status knows beyond the point at which the stream is will be told as an event.
        let settled = recent.iter().filter(|recent| {
            recent.status.is_terminal()
                && recent.seq <= self.cursor.seq
                && !self.running.contains_key(&recent.id)
        });
        let mut running: Vec<_> = self.running.values().map(|running| &*running.transfer).collect();
        running.sort_unstable_by_key(|transfer| transfer.id);
        let mut transfers = HashMap::new();
        for transfer in settled.map(|transfer| &**transfer).take(RECENT) {
            transfers.insert(&transfer.filename, transfer);
        }
        // Of two that run under one name, the later one is shown; where there is no room for all, the later ones.
        let skipped = running.len().saturating_sub(SNAPSHOT.saturating_sub(transfers.len()));
        for transfer in &running[skipped..] {
            transfers.insert(&transfer.filename, transfer);
        }
        let metadata = Metadata {
            total_transfers: source.name_count(),
            returned_count: transfers.len(),
            last_updated: transfers.values().map(|transfer| transfer.updated_at).max(),
            version: "1.0",
        };
        let snapshot: Arc<RawValue> = to_raw_value(&Snapshot { transfers, queue: [], metadata })?.into();
        self.snapshot = Some(Arc::clone(&snapshot));
        Ok(snapshot)
    }

    /// The state of a name's transfer, as it was last told: the upload or download of it that began last, if one runs.
    pub(super) fn current(&self, name: &FileName, source: &dyn Source) -> Option<Arc<Transfer>> {
        let of_name = self.running.values().filter(|running| running.transfer.filename == *name);
        let running = of_name.max_by_key(|running| running.transfer.id).map(|running| &running.transfer);
        running.cloned().or_else(|| source.current(name))
    }

    /// Downloads that ended after `since`, of those that are still known.
    pub(super) fn downloads_since(&self, since: Cursor) -> impl Iterator<Item = &Arc<Event>> {
        let seen = if since.run == self.cursor.run { since.downloads } else { 0 };
        let missed = usize::try_from(self.cursor.downloads.saturating_sub(seen)).unwrap_or(usize::MAX);
        self.ended.iter().skip(self.ended.len().saturating_sub(missed))
    }
}
