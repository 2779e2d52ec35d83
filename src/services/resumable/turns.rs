//! Whose turn it is: one at a time, and the newest counts.

use std::sync::{Arc, Mutex, PoisonError};

use tokio_util::sync::CancellationToken;

use super::model::ResumableError;

/// What one request at a time may work on.
#[derive(Debug, Default)]
pub(super) struct Turns<T> {
    /// Whoever works has this. Not a lock of data: it is held while bytes come, and whoever wants it makes the one who
    /// has it let go.
    turn: Arc<tokio::sync::Mutex<T>>,
    /// Cancelled as soon as somebody newer has come.
    holder: Mutex<CancellationToken>,
}

/// One's turn.
#[derive(Debug)]
pub(super) struct Turn<T> {
    pub(super) work: tokio::sync::OwnedMutexGuard<T>,
    /// Cancelled as soon as somebody newer has come.
    pub(super) newer: CancellationToken,
}

impl<T> Turns<T> {
    pub(super) fn new(work: T) -> Self {
        Self { turn: Arc::new(tokio::sync::Mutex::new(work)), holder: Mutex::new(CancellationToken::new()) }
    }

    /// Waits for one's turn: whoever has it is made to let go. Cancel-safe.
    ///
    /// # Errors
    /// [`ResumableError::TakenOver`]: somebody newer has come meanwhile.
    pub(super) async fn take(&self) -> Result<Turn<T>, ResumableError> {
        let newer = self.supersede();
        let work = Arc::clone(&self.turn).lock_owned().await;
        if newer.is_cancelled() { Err(ResumableError::TakenOver) } else { Ok(Turn { work, newer }) }
    }

    /// The same for who only looks: who comes after it has to wait for a moment, and does not send it away.
    pub(super) async fn look(&self) -> Turn<T> {
        let newer = self.supersede();
        Turn { work: Arc::clone(&self.turn).lock_owned().await, newer }
    }

    /// Whoever has the turn is to let go.
    pub(super) fn supersede(&self) -> CancellationToken {
        let newer = CancellationToken::new();
        let mut holder = self.holder.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::replace(&mut *holder, newer.clone()).cancel();
        newer
    }

    /// One's turn, if nobody has it.
    pub(super) fn try_take(&self) -> Option<tokio::sync::OwnedMutexGuard<T>> {
        Arc::clone(&self.turn).try_lock_owned().ok()
    }
}
