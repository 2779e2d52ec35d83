//! A storage directory that is ours to work on: what servers and commands without one build upon.

use super::keys::Keys;
use super::space::Space;
use super::writer::Target;
use crate::domain::TransferId;
use crate::store::files::Files;
use crate::store::status::StatusStore;
use crate::store::{Durability, Layout};

/// Its parts; cheap to clone.
#[derive(Clone)]
pub struct Storage {
    /// Where everything is.
    pub layout: Layout,
    /// What is published.
    pub files: Files,
    /// Every transfer.
    pub status: StatusStore,
    /// What seals and opens.
    pub keys: Keys,
    /// What is free.
    pub space: Space,
    /// What an acknowledgement is worth.
    pub durability: Durability,
}

impl Storage {
    /// A data file of about `expected` bytes of content.
    pub(crate) fn target(&self, id: TransferId, expected: u64) -> Target {
        let Self { layout, space, durability, .. } = self.clone();
        Target { layout, id, expected, space, durability }
    }
}
