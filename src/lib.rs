//! Smart File Transfer.

pub mod domain;
