//! Smart File Transfer.

pub mod client;
pub mod domain;
