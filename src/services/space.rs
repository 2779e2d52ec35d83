//! Whether there is room: asked before bytes are read, where their number is known.

use crate::store::{Layout, os};

/// Watches the free space of the storage directory.
#[derive(Debug, Clone)]
pub struct Space {
    layout: Layout,
    min_free: u64,
}

impl Space {
    /// Keeps `min_free` bytes free.
    pub const fn new(layout: Layout, min_free: u64) -> Self {
        Self { layout, min_free }
    }

    /// Whether `bytes` more may be stored. Where the system does not say how much is free, they may.
    ///
    /// One `statvfs(2)`: local file systems answer it from memory (under 2 µs), so it is not worth a blocking thread.
    pub fn has_room_for(&self, bytes: u64) -> bool {
        match os::free_space(self.layout.root()) {
            Ok(Some(free)) => free >= bytes.saturating_add(self.min_free),
            Ok(None) => true,
            Err(error) => {
                tracing::error!(%error, "the free space can't be asked for");
                false
            }
        }
    }
}
