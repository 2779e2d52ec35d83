//! Smart File Transfer.

pub mod crypto;
