//! Smart File Transfer.

pub mod cli;
pub mod client;
pub mod domain;
