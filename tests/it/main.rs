//! Tests of the real server over a real socket.

#![expect(unreachable_pub, reason = "one binary: its modules share what they make public")]
#![allow(clippy::expect_used, clippy::unwrap_used, clippy::panic, reason = "a test that can't go on panics")]

mod support;

mod access;
mod broken_bodies;
mod chunks;
mod cli;
mod concurrency;
mod connections;
mod content_range;
mod crash;
mod crash_resumable;
mod downloads;
mod encryption;
mod errors;
mod fields;
mod flaky;
mod full_disk;
mod idle;
mod live;
mod main_job;
mod names;
mod offline;
mod order_of_writes;
mod ping;
mod ranges;
mod restarts;
mod resumable_draft;
mod scrub;
mod status;
mod stopping;
mod too_large;
mod tus;
mod unfinished;
mod uploads;
