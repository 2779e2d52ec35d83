//! Encryption at rest: bytes and keys, nothing of files or HTTP.
//!
//! Pure and synchronous: the caller does the I/O, at the positions that [`layout`] computes.
//!
//! - [`keyring`]: `ENCRYPTION_KEY` and the old ones; keys of files by HKDF; key ids;
//! - [`container`]: the format, byte by byte, and its header; [`layout`]: where each segment stands;
//! - [`file_key`]: the key of one container, shared by all who seal or open parts of it;
//! - [`seal`] and [`open`]: plaintext to segments and back;
//! - [`eax_lanes`]: EAX, many segments at a time;
//! - [`single_message`]: the older format, read only;
//! - [`sha256`]: several SHA-256 at a time.

pub mod bytes;
pub mod container;
mod eax_blocks;
pub mod eax_lanes;
pub mod file_key;
pub mod keyring;
pub mod layout;
pub mod open;
pub mod seal;
pub mod sha256;
pub mod single_message;

pub use bytes::{FileNonce, KeyId, Tag};
pub use container::{HEADER_LEN, Header, HeaderError};
pub use eax_lanes::{LANES, is_fast};
pub use file_key::FileKey;
pub use keyring::{Keyring, KeyringError, MIN_KEY_LEN};
pub use layout::{Geometry, Layout, LayoutError, SEGMENT_OVERHEAD, Segment, Touched};
pub use open::{OpenError, OpenStream, Opener, open_to_vec};
pub use seal::{Ends, SealError, Sealed, SealedEnd, Sealer, seal_to_vec};
pub use sha256::Sha256Pair;
pub use single_message::{SingleMessage, SingleMessageError};

#[cfg(test)]
mod attack_tests;
#[cfg(test)]
mod round_trip_tests;
#[cfg(test)]
mod test_support;
