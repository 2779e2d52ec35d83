//! The rules: what may happen when. Nothing here knows of HTTP.

pub mod access;
mod ahead;
pub(crate) mod checksum;
pub mod decrypt;
pub mod downloads;
pub mod import;
pub mod keys;
pub mod live;
pub mod network;
mod piece;
mod pipeline;
pub use self::pipeline::BLOCKING_THREADS;
pub mod reading;
pub mod rekey;
pub mod resumable;
pub mod scrub;
pub mod space;
pub mod storage;
mod stream;
mod threads;
pub(crate) use self::threads::{settle, start as start_threads};
mod to_the_end;
pub mod uploads;
pub mod verify;
pub(crate) mod writer;
