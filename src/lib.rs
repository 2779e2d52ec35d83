//! Smart File Transfer.

pub mod domain;
pub mod store;
