//! What a transfer tells while it runs.

use std::fmt::Display;
use std::sync::Arc;
use std::time::Duration;

/// Is called as a transfer goes on: often, from any thread, and must return soon.
pub type Observer = Arc<dyn Fn(Event<'_>) + Send + Sync>;

/// For a transfer that nobody watches.
pub fn unobserved() -> Observer {
    Arc::new(|_| ())
}

/// Something happened in a transfer.
pub enum Event<'a> {
    /// A phase begins (again, after a retry).
    Started {
        /// Which.
        phase: Phase,
        /// Bytes that are through already: what an earlier attempt left.
        done: u64,
        /// Bytes in all, where that is known.
        total: Option<u64>,
    },
    /// That many more bytes are through.
    Advanced(u64),
    /// That many bytes that were told as through are not: what they were a part of is sent again.
    Lost(u64),
    /// An upload goes on where an earlier run has stopped.
    Resuming {
        /// Chunks that the server has.
        have: u64,
        /// Chunks in all.
        total: u64,
    },
    /// What was there of a transfer is of no use (the file has changed, or it was damaged): it begins at its first byte.
    StartedOver,
    /// An attempt failed; another follows.
    Retrying {
        /// What went wrong.
        error: &'a dyn Display,
        /// How long it waits before.
        wait: Duration,
        /// Which retry it will be, from 1.
        retry: u32,
        /// How many there are at most.
        retries: u32,
    },
}

/// What a transfer is at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// The file that is to be sent is read for its SHA-256.
    Hashing,
    /// Bytes go to the server.
    Sending,
    /// What an earlier run left is read for its SHA-256.
    Checking,
    /// Bytes come from the server.
    Receiving,
}
