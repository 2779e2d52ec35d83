//! Whose turn it is to write a chunk.

use std::sync::Arc;

use super::chunked::Chunked;
use super::model::ResumableError;
use super::registry::Unfinished;
use super::turns::{Turn, Turns};

/// One's turn to write a chunk. Dropped, it is the next one's.
pub(super) struct Slot {
    upload: Arc<Unfinished>,
    number: u32,
    turns: Option<Arc<Turns<()>>>,
    turn: Option<Turn<()>>,
}

impl Slot {
    /// Resolves as soon as somebody newer brings the same chunk.
    pub(super) async fn superseded(&self) {
        match &self.turn {
            Some(turn) => turn.newer.cancelled().await,
            None => std::future::pending().await,
        }
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        drop((self.turn.take(), self.turns.take()));
        if let Some(chunked) = self.upload.chunked() {
            let mut state = chunked.state();
            if state.writing.get(&self.number).is_some_and(|turns| Arc::strong_count(turns) == 1) {
                state.writing.remove(&self.number);
            }
        }
    }
}

impl Chunked {
    /// Waits for one's turn to write a chunk: whoever writes it is made to let go. Cancel-safe.
    pub(super) async fn slot(upload: &Arc<Unfinished>, number: u32) -> Result<Slot, ResumableError> {
        let Some(chunked) = upload.chunked() else { return Err(ResumableError::Unknown) };
        let turns = {
            let mut state = chunked.state();
            if state.closed {
                return Err(ResumableError::Gone);
            }
            Arc::clone(state.writing.entry(number).or_default())
        };
        // Before waiting: who is cancelled here leaves nothing behind either.
        let mut slot =
            Slot { upload: Arc::clone(upload), number, turns: Some(Arc::clone(&turns)), turn: None };
        let turn = turns.take().await;
        drop(turns);
        slot.turn = Some(turn?);
        Ok(slot)
    }
}
