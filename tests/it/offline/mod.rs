//! The commands that work on a storage directory without a server: the real binary.

mod decrypt;
mod harness;
mod import;
mod rekey;
mod verify;
