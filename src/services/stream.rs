//! An upload that streams: what waits to be hashed and written, and whose turn it is.
//!
//! Bytes wait in memory, up to a bound, until one of the [threads](super::threads) that serve all uploads takes them. A full
//! stream holds the receiver back, and by TCP the client: memory is bounded whatever the file's size. Whoever pushes is woken
//! only when half of it has gone: a wake-up for each piece would cost a tenth of an upload's processor time.
//!
//! What takes long, such as a flush, is a [`Step`]: it waits in line like the bytes, and is done on a blocking thread.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Poll, Waker};

use bytes::Bytes;
use tokio::runtime::Handle;

use super::checksum::Hashes;
use super::piece::Piece;
use super::threads;
use super::writer::Writer;

/// An upload at some point: what is written, and the hashes of that.
pub(super) struct Work {
    pub(super) writer: Writer,
    pub(super) hashes: Hashes,
}

/// Something to do at a certain point of an upload, on a blocking thread. `None`: the stream is over, whatever waits.
pub(super) type Step = Box<dyn FnOnce(Work) -> io::Result<Option<Work>> + Send>;

/// What waits in a stream.
pub(super) enum Item {
    Piece(Piece),
    Step(Step),
}

/// Where the bytes of an upload are pushed. Dropped before its last step was pushed, it is given up: what waits is forgotten.
pub(super) struct Stream {
    shared: Arc<Shared>,
    /// Whether its last step is on its way.
    is_ending: bool,
}

struct Shared {
    /// So many bytes may wait; what is pushed together may be more.
    most: usize,
    /// Where steps are done.
    runtime: Handle,
    state: Mutex<State>,
}

struct State {
    waiting: VecDeque<Item>,
    /// Of what waits and of what a thread has.
    weight: usize,
    place: Place,
    /// Who waits for room, or for the end.
    waker: Option<Waker>,
}

/// Where the work is.
enum Place {
    /// Here: nothing is to be done.
    Here(Box<Work>),
    /// A [`Turn`] has it.
    Away,
    /// Nothing is done any more. The error is told once.
    Over(Option<io::Error>),
}

impl Stream {
    /// Begins with what `open` gives. To be called in a tokio runtime.
    pub(super) fn open(most: usize, open: impl FnOnce() -> io::Result<Work> + Send + 'static) -> Self {
        let runtime = Handle::current();
        let state = State { waiting: VecDeque::new(), weight: 0, place: Place::Away, waker: None };
        let shared = Arc::new(Shared { most, runtime, state: Mutex::new(state) });
        let turn = Turn::new(&shared, None);
        shared.runtime.spawn_blocking(move || turn.pass_on(open().map(Some)));
        Self { shared, is_ending: false }
    }

    /// Takes all of `items`, once there is room. Cancel-safe: what was not taken is still there.
    ///
    /// # Errors
    /// What hashing or writing said, once.
    pub(super) async fn push(&self, items: &mut Vec<Item>) -> io::Result<()> {
        let turn = poll_fn(|context| {
            let mut state = self.shared.state();
            if let Place::Over(error) = &mut state.place {
                return Poll::Ready(Err(error.take().unwrap_or_else(given_up)));
            }
            if state.weight >= self.shared.most {
                state.waker = Some(context.waker().clone());
                return Poll::Pending;
            }
            state.weight += items.iter().map(weight).sum::<usize>();
            state.waiting.extend(items.drain(..));
            Poll::Ready(Ok(self.shared.begin(&mut state)))
        });
        turn.await?.into_iter().for_each(Turn::go_on);
        Ok(())
    }

    /// Whether so much waits that who pushes will soon have to.
    pub(super) fn is_behind(&self) -> bool {
        self.shared.state().weight >= self.shared.most / 2
    }

    /// The last item: dropping the stream does not give it up any more.
    ///
    /// # Errors
    /// As [`push`](Self::push).
    pub(super) async fn push_last(&mut self, step: Step) -> io::Result<()> {
        self.push(&mut vec![Item::Step(step)]).await?;
        self.is_ending = true;
        Ok(())
    }

    /// Waits until nothing is done any more. Gives the error, if it was not told before. Cancel-safe.
    pub(super) async fn over(&self) -> Option<io::Error> {
        poll_fn(|context| {
            let mut state = self.shared.state();
            if let Place::Over(error) = &mut state.place {
                return Poll::Ready(error.take());
            }
            state.waker = Some(context.waker().clone());
            Poll::Pending
        })
        .await
    }

    /// Nothing of what waits is done any more.
    pub(super) fn give_up(&self) {
        let mut state = self.shared.state();
        let forgotten = std::mem::take(&mut state.waiting);
        // To remove a large file takes its time.
        state.waiting.push_back(Item::Step(Box::new(|work| {
            drop(work);
            Ok(None)
        })));
        let turn = self.shared.begin(&mut state);
        drop(state);
        drop(forgotten);
        turn.into_iter().for_each(Turn::go_on);
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        if !self.is_ending {
            self.give_up();
        }
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A turn, if there is something to do and nobody does it.
    fn begin(self: &Arc<Self>, state: &mut State) -> Option<Turn> {
        if state.waiting.is_empty() || !matches!(state.place, Place::Here(_)) {
            return None;
        }
        match std::mem::replace(&mut state.place, Place::Away) {
            Place::Here(work) => Some(Turn::new(self, Some(work))),
            Place::Away | Place::Over(_) => None,
        }
    }
}

fn weight(item: &Item) -> usize {
    match item {
        Item::Piece(piece) => piece.weight(),
        Item::Step(_) => 0,
    }
}

fn given_up() -> io::Error {
    io::Error::other("the upload was given up")
}

/// Has the work of a stream. Dropped, that is lost, and then the stream is over: a panic costs no other uploads than those
/// whose turn it was.
pub(super) struct Turn {
    shared: Arc<Shared>,
    work: Option<Box<Work>>,
    is_put_back: bool,
}

impl Turn {
    fn new(shared: &Arc<Shared>, work: Option<Box<Work>>) -> Self {
        Self { shared: Arc::clone(shared), work, is_put_back: false }
    }

    pub(super) fn work(&mut self) -> Option<&mut Work> {
        self.work.as_deref_mut()
    }

    /// Whether nothing is computed but the one hash that goes side by side with others.
    pub(super) fn is_plain(&self) -> bool {
        self.work.as_ref().is_some_and(|work| work.hashes.are_only_whole())
    }

    /// The pieces that are next, with what is hashed of them up to a multiple of `most`: a write that ends within a page of the file
    /// costs half as much again.
    pub(super) fn take(&mut self, most: usize) -> Vec<Piece> {
        let begun = self.work.as_ref().map_or(0, |work| work.writer.length() % most as u64);
        let (mut pieces, mut left) = (Vec::new(), most - begun as usize);
        let mut state = self.shared.state();
        while let Some(Item::Piece(piece)) = state.waiting.front_mut() {
            if left == 0 && piece.hashed().is_some() {
                break;
            }
            let next = piece.split_to(left);
            left -= next.hashed().map_or(0, Bytes::len);
            if piece.is_empty() {
                state.waiting.pop_front();
            }
            pieces.push(next);
        }
        pieces
    }

    /// What was taken is done. Gives the next turn, if more bytes wait; a step that is next is begun.
    pub(super) fn put_back(mut self, result: io::Result<()>) -> Option<Self> {
        if let Err(error) = result {
            let runtime = self.shared.runtime.clone();
            // To remove a large file takes its time.
            runtime.spawn_blocking(move || self.fail(error));
            return None;
        }
        let mut state = self.shared.state();
        state.weight = state.waiting.iter().map(weight).sum();
        let waker = if state.weight <= self.shared.most / 2 { state.waker.take() } else { None };
        let (mut more, mut step) = (false, None);
        match state.waiting.pop_front() {
            Some(Item::Step(first)) => step = Some(first),
            Some(data) => {
                state.waiting.push_front(data);
                more = true;
            }
            None => {
                if let Some(work) = self.work.take() {
                    state.place = Place::Here(work);
                    self.is_put_back = true;
                }
            }
        }
        drop(state);
        waker.into_iter().for_each(Waker::wake);
        if let Some(step) = step {
            let runtime = self.shared.runtime.clone();
            runtime.spawn_blocking(move || self.step(step));
            return None;
        }
        more.then_some(self)
    }

    /// Blocking.
    fn step(mut self, step: Step) {
        if let Some(work) = self.work.take() {
            self.pass_on(step(*work));
        }
    }

    /// `result` has come of what was done apart from the threads.
    fn pass_on(mut self, result: io::Result<Option<Work>>) {
        match result {
            Ok(Some(work)) => {
                self.work = Some(Box::new(work));
                self.go_on();
            }
            Ok(None) => self.end(None),
            Err(error) => self.end(Some(error)),
        }
    }

    fn go_on(self) {
        self.put_back(Ok(())).into_iter().for_each(threads::give);
    }

    /// What was written is removed before anybody is told.
    fn fail(mut self, error: io::Error) {
        self.work = None;
        self.end(Some(error));
    }

    /// Nothing is done any more.
    fn end(&mut self, error: Option<io::Error>) {
        self.is_put_back = true;
        let mut state = self.shared.state();
        state.place = Place::Over(error);
        state.weight = 0;
        let (waiting, waker) = (std::mem::take(&mut state.waiting), state.waker.take());
        drop(state);
        drop(waiting);
        waker.into_iter().for_each(Waker::wake);
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        if !self.is_put_back {
            self.work = None;
            self.end(Some(io::Error::other("the upload could not be hashed or written")));
        }
    }
}

#[cfg(test)]
#[path = "stream_tests.rs"]
pub(super) mod tests;
