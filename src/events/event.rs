//! One event, serialised once for all who get it.

use std::fmt;
use std::str::FromStr;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use serde::Serialize;
use serde_json::value::{RawValue, to_raw_value};

use crate::domain::{Digest, Direction, FileName, Status, Transfer, TransferId};

/// What an event says of a transfer.
#[derive(Serialize)]
struct Update<'a> {
    filename: &'a FileName,
    status: Status,
    progress: u8,
    speed: u64,
    eta: Option<u64>,
    transferred_bytes: u64,
    total_bytes: Option<u64>,
    id: TransferId,
    direction: Direction,
    seq: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    checksum: Option<&'a Digest>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<&'a str>,
}

/// Something that subscribers are told.
#[derive(Debug)]
pub struct Event {
    /// The file, of which a transfer changed; `None`: the counters.
    filename: Option<FileName>,
    data: Box<RawValue>,
    /// As a JSON frame: to who watches this file, and to who watches all.
    framed: [OnceLock<Bytes>; 2],
}

impl Event {
    /// `seq`: the number of the change, or the last one before where the change of this transfer has none.
    pub(super) fn of(transfer: &Transfer, seq: u64) -> serde_json::Result<Self> {
        let update = Update {
            filename: &transfer.filename,
            status: transfer.status,
            progress: transfer.progress,
            speed: transfer.speed,
            eta: transfer.eta,
            transferred_bytes: transfer.transferred_bytes,
            total_bytes: transfer.total_bytes,
            id: transfer.id,
            direction: transfer.direction,
            seq,
            checksum: transfer.checksum.as_ref(),
            error: transfer.error.as_deref(),
        };
        Self::new(Some(transfer.filename.clone()), &update)
    }

    /// The counters.
    pub(super) fn stats(stats: &impl Serialize) -> serde_json::Result<Self> {
        Self::new(None, stats)
    }

    fn new(filename: Option<FileName>, data: &impl Serialize) -> serde_json::Result<Self> {
        Ok(Self { filename, data: to_raw_value(data)?, framed: Default::default() })
    }

    /// The file, of which a transfer changed; `None`: the counters.
    pub const fn filename(&self) -> Option<&FileName> {
        self.filename.as_ref()
    }

    /// What it says, as JSON in one line.
    pub fn data(&self) -> &RawValue {
        &self.data
    }

    /// What it is called: `watched` says whether for who watches this file, or for who watches all.
    pub const fn name(&self, watched: bool) -> &'static str {
        match (&self.filename, watched) {
            (None, _) => "stats_update",
            (Some(_), true) => "status_update",
            (Some(_), false) => "transfer_update",
        }
    }

    /// `{"event": …, "data": …}`, made once.
    pub fn framed(&self, watched: bool) -> Bytes {
        let made = self.framed[usize::from(watched)].get_or_init(|| frame(self.name(watched), &self.data));
        made.clone()
    }
}

/// `{"event": …, "data": …}` as JSON in one line.
pub fn frame(name: &str, data: &RawValue) -> Bytes {
    // Names of events need no escapes.
    format!("{{\"event\":\"{name}\",\"data\":{data}}}").into()
}

/// How far somebody has seen the stream: the last change of the status, the last download that ended, and of which run of
/// the server (another one has told of no downloads yet). Written as `SEQ.DOWNLOADS.RUN`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Cursor {
    /// The last change of the status.
    pub seq: u64,
    /// The last download that ended.
    pub downloads: u64,
    /// Which run of the server.
    pub run: u32,
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{:x}", self.seq, self.downloads, self.run)
    }
}

/// A text that is no cursor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not the id of an event")]
pub struct InvalidCursor;

impl FromStr for Cursor {
    type Err = InvalidCursor;

    fn from_str(text: &str) -> Result<Self, InvalidCursor> {
        let mut parts = text.trim().splitn(3, '.');
        let mut part = || parts.next().ok_or(InvalidCursor);
        let number = |text: &str| text.parse().map_err(|_| InvalidCursor);
        let (seq, downloads) = (number(part()?)?, number(part()?)?);
        let run = u32::from_str_radix(part()?, 16).map_err(|_| InvalidCursor)?;
        Ok(Self { seq, downloads, run })
    }
}

/// Events that are sent together, in order.
#[derive(Debug)]
pub struct Batch {
    /// The events; at most [`Batch::MOST`].
    pub events: Vec<Arc<Event>>,
    /// How far who has them has seen; `None` where more follow that belong to them.
    pub cursor: Option<Cursor>,
}

impl Batch {
    /// The most events in one.
    pub const MOST: usize = 512;
}
