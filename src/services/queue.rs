//! What is on its way from one stage of an upload to the next.
//!
//! Whoever takes gets all that waits, and whoever sends is woken only when all has been taken. So a busy pair of stages
//! wakes each other once for a batch: with a wake-up for each piece, a tenth of an upload's processor time went there.

use std::future::poll_fn;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::task::{Poll, Waker};

/// Something that can wait in a queue.
pub(super) trait Weight {
    /// Bytes of memory that it holds, about.
    fn weight(&self) -> usize;
}

/// A queue that is full as soon as `most` bytes wait in it. What was sent together waits together, even if it is more.
pub(super) fn queue<T: Weight>(most: usize) -> (Sender<T>, Receiver<T>) {
    let state = State { waiting: Vec::new(), weight: 0, sender: None, is_idle: false, is_closed: false };
    let shared = Arc::new(Shared { most, state: Mutex::new(state), filled: Condvar::new() });
    (Sender(Arc::clone(&shared)), Receiver(shared))
}

/// Sends to the other end. Dropped, it ends the queue behind what waits.
pub(super) struct Sender<T>(Arc<Shared<T>>);

/// Takes what was sent. Dropped, it closes the queue.
pub(super) struct Receiver<T>(Arc<Shared<T>>);

/// The other end is gone.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Closed;

struct Shared<T> {
    most: usize,
    state: Mutex<State<T>>,
    filled: Condvar,
}

struct State<T> {
    waiting: Vec<T>,
    weight: usize,
    /// Who waits until there is room.
    sender: Option<Waker>,
    /// Whether the receiver waits.
    is_idle: bool,
    /// Whether one of the two ends is gone.
    is_closed: bool,
}

impl<T> Shared<T> {
    fn state(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T: Weight> Sender<T> {
    /// Sends all of `items`, once there is room. Cancel-safe: what was not sent is still there.
    ///
    /// # Errors
    /// [`Closed`]: nobody is going to take them.
    pub(super) async fn send(&self, items: &mut Vec<T>) -> Result<(), Closed> {
        poll_fn(|context| {
            let mut state = self.0.state();
            if state.is_closed {
                return Poll::Ready(Err(Closed));
            }
            if state.weight >= self.0.most {
                state.sender = Some(context.waker().clone());
                return Poll::Pending;
            }
            state.weight += items.iter().map(Weight::weight).sum::<usize>();
            state.waiting.append(items);
            if std::mem::take(&mut state.is_idle) {
                self.0.filled.notify_one();
            }
            Poll::Ready(Ok(()))
        })
        .await
    }
}

impl<T> Receiver<T> {
    /// Puts all that waits into `items`, which is empty; waits until there is something. `false`: nothing comes any
    /// more. Blocking.
    pub(super) fn take(&mut self, items: &mut Vec<T>) -> bool {
        let mut state = self.0.state();
        while state.waiting.is_empty() && !state.is_closed {
            state.is_idle = true;
            state = self.0.filled.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        // The two take turns, so that neither has to grow again.
        std::mem::swap(&mut state.waiting, items);
        state.weight = 0;
        let sender = state.sender.take();
        drop(state);
        sender.into_iter().for_each(Waker::wake);
        !items.is_empty()
    }
}

impl<T> Drop for Sender<T> {
    fn drop(&mut self) {
        self.0.state().is_closed = true;
        self.0.filled.notify_one();
    }
}

impl<T> Drop for Receiver<T> {
    fn drop(&mut self) {
        let mut state = self.0.state();
        state.is_closed = true;
        let (waiting, sender) = (std::mem::take(&mut state.waiting), state.sender.take());
        drop(state);
        drop(waiting);
        sender.into_iter().for_each(Waker::wake);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use futures_util::FutureExt as _;

    use super::*;

    impl Weight for u32 {
        fn weight(&self) -> usize {
            1
        }
    }

    fn taken(receiver: &mut Receiver<u32>) -> Vec<u32> {
        let mut items = Vec::new();
        receiver.take(&mut items);
        items
    }

    #[tokio::test]
    async fn all_that_waits_is_taken_at_once_and_makes_room() {
        let (sender, mut receiver) = queue(2);
        sender.send(&mut vec![1]).await.unwrap();
        sender.send(&mut vec![2, 3]).await.unwrap();
        let mut more = vec![4];
        assert_eq!(sender.send(&mut more).now_or_never(), None, "it is full");
        let (sent, first) = tokio::join!(sender.send(&mut more), async { taken(&mut receiver) });
        assert_eq!((sent, first), (Ok(()), vec![1, 2, 3]));
        assert_eq!(taken(&mut receiver), [4]);
    }

    #[tokio::test]
    async fn who_is_cancelled_has_sent_nothing() {
        let (sender, mut receiver) = queue(1);
        sender.send(&mut vec![1]).await.unwrap();
        let mut more = vec![2];
        assert_eq!(sender.send(&mut more).now_or_never(), None);
        assert_eq!(more, [2]);
        assert_eq!(taken(&mut receiver), [1]);
        sender.send(&mut more).await.unwrap();
        drop(sender);
        assert_eq!(taken(&mut receiver), [2], "what waits comes before the end");
        assert!(!receiver.take(&mut Vec::new()));
    }

    #[tokio::test]
    async fn who_waits_for_room_hears_that_nobody_takes() {
        let (sender, receiver) = queue(1);
        sender.send(&mut vec![1]).await.unwrap();
        let mut more = vec![2];
        let (sent, ()) = tokio::join!(sender.send(&mut more), async { drop(receiver) });
        assert_eq!(sent, Err(Closed));
        assert_eq!(sender.send(&mut more).await, Err(Closed));
    }

    #[tokio::test]
    async fn who_waits_for_something_is_woken_by_it_and_by_the_end() {
        let (sender, mut receiver) = queue(1);
        let (tell, told) = mpsc::channel();
        let taking = std::thread::spawn(move || {
            let mut items = Vec::new();
            while receiver.take(&mut items) {
                tell.send(std::mem::take(&mut items)).unwrap();
            }
        });
        for number in 0..100 {
            sender.send(&mut vec![number]).await.unwrap();
        }
        drop(sender);
        taking.join().unwrap();
        assert_eq!(told.iter().flatten().collect::<Vec<_>>(), (0..100).collect::<Vec<_>>());
    }
}
