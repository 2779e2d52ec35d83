//! The words of file transfer, and their rules. No I/O here: everything can be tested with values alone.

mod boolean;
mod change;
mod client;
mod digest;
mod file_name;
mod priority;
pub mod progress;
mod seal;
pub mod stats;
mod timestamp;
mod transfer;

pub use boolean::{InvalidBoolean, parse_boolean};
pub use change::{Change, Completion, ImpossibleMove, Start};
pub use client::Client;
pub use digest::{Digest, InvalidDigest};
pub use file_name::{FileName, InvalidFileName};
pub use priority::{InvalidPriority, Priority};
pub use seal::{Hex16, InvalidHex16, Seal};
pub use timestamp::Timestamp;
pub use transfer::{Direction, RecordedTransfer, Status, StoredFile, Transfer, TransferId};
