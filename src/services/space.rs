//! Whether there is room: asked before bytes are read, where their number is known, and as they come, where it is not.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use crate::store::uploads::Staged;
use crate::store::{Layout, os};

/// Where it is not known how much will come, space is set aside in steps of so many bytes.
const STEP: u64 = 8 << 20;

/// Watches the free space of the storage directory.
#[derive(Debug, Clone)]
pub struct Space {
    layout: Layout,
    min_free: u64,
    /// Held while space is set aside: two uploads must not both take the last of it.
    turn: Arc<Mutex<()>>,
}

impl Space {
    /// Keeps `min_free` bytes free.
    pub fn new(layout: Layout, min_free: u64) -> Self {
        Self { layout, min_free, turn: Arc::default() }
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

    /// Sets space aside for an upload that is to have `length` bytes at once, and for some more if it has outgrown what
    /// it was expected to have. Blocking.
    ///
    /// # Errors
    /// `StorageFull` if less would stay free than is to; what else the system says.
    pub fn reserve(&self, staged: &mut Staged, length: u64) -> io::Result<()> {
        if length <= staged.reserved() {
            return Ok(());
        }
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        let more = length - staged.reserved();
        if !self.has_room_for(more) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        // Not the last of it.
        let step = if staged.has_space() && self.has_room_for(4 * (more + STEP)) { STEP } else { 0 };
        staged.reserve(length + step)
    }
}
