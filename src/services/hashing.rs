//! The hashes of the uploads that stream, computed by a few threads for all of them.
//!
//! An upload hands over what is to be hashed, writes it meanwhile, and goes on. A thread takes what waits of several
//! uploads and hashes it [side by side](crate::crypto::sha256::lanes), where the processor can: that takes little more than
//! half of the time. Half of the threads take what comes at once, the others where it is enough for all of its lanes: so
//! what waits while threads are busy goes together, and with few uploads on many cores each has its own.

use std::collections::VecDeque;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, LazyLock, Mutex, MutexGuard, PoisonError};
use std::thread;

use bytes::Bytes;

use super::checksum::Hashes;
use crate::crypto::sha256::{Lane, lanes};

/// Bytes of an upload that may wait to be hashed; what is handed over together may be more.
const WAITING: usize = 256 << 10;
/// Who had to wait goes on when no more than so many are left: it hands over much at a time then.
const FEW: usize = WAITING / 2;
/// Bytes of an upload that are hashed before others have their turn.
const TURN: usize = 256 << 10;
/// Each piece may hold a buffer of this size.
const LEAST_WEIGHT: usize = 8 << 10;

/// What is computed of the bytes of one upload. Dropped, what waits is forgotten.
pub(super) struct Hashing(Way);

enum Way {
    /// Nothing is computed, or there are no threads for it.
    Here(Box<Hashes>),
    There(Arc<Upload>),
}

struct Upload {
    /// Whether it can be hashed side by side with others.
    is_plain: bool,
    state: Mutex<State>,
    progress: Condvar,
}

struct State {
    /// `None` while a thread has them, and if it has failed.
    hashes: Option<Hashes>,
    waiting: VecDeque<Bytes>,
    /// Of what waits and of what a thread has.
    weight: usize,
    /// Whether a thread has it, or will.
    is_due: bool,
    /// Whether somebody waits for [`Upload::progress`].
    is_awaited: bool,
}

impl Hashing {
    /// Goes on with `hashes`.
    pub(super) fn new(hashes: Hashes) -> Self {
        if hashes.are_none() || THREADS.count == 0 {
            return Self(Way::Here(Box::new(hashes)));
        }
        let is_plain = hashes.are_only_whole();
        let state = State {
            hashes: Some(hashes),
            waiting: VecDeque::new(),
            weight: 0,
            is_due: false,
            is_awaited: false,
        };
        Self(Way::There(Arc::new(Upload { is_plain, state: Mutex::new(state), progress: Condvar::new() })))
    }

    /// Has the next bytes hashed; waits while too many wait. Blocking.
    ///
    /// # Errors
    /// Of an earlier call.
    pub(super) fn update(&mut self, pieces: &[Bytes]) -> io::Result<()> {
        match &mut self.0 {
            _ if pieces.is_empty() => {}
            Way::Here(hashes) => pieces.iter().for_each(|piece| hashes.update(piece)),
            Way::There(upload) => {
                let mut state = upload.wait_while(|state| state.weight >= WAITING);
                if state.has_failed() {
                    return Err(failed());
                }
                state.weight += pieces.iter().map(weight).sum::<usize>();
                state.waiting.extend(pieces.iter().cloned());
                if !std::mem::replace(&mut state.is_due, true) {
                    drop(state);
                    THREADS.give(Arc::clone(upload));
                }
            }
        }
        Ok(())
    }

    /// The hashes of all that came. Blocking.
    ///
    /// # Errors
    /// They could not be computed.
    pub(super) fn so_far(&self) -> io::Result<Hashes> {
        match &self.0 {
            Way::Here(hashes) => Ok(hashes.as_ref().clone()),
            Way::There(upload) => upload.wait_while(|state| state.is_due).hashes.clone().ok_or_else(failed),
        }
    }
}

impl Drop for Hashing {
    fn drop(&mut self) {
        if let Way::There(upload) = &self.0 {
            upload.state().waiting.clear();
        }
    }
}

impl State {
    fn has_failed(&self) -> bool {
        !self.is_due && self.hashes.is_none()
    }
}

impl Upload {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait_while(&self, condition: impl Fn(&State) -> bool) -> MutexGuard<'_, State> {
        let mut state = self.state();
        while condition(&state) {
            state.is_awaited = true;
            state = self.progress.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state
    }

    /// What a thread does next of it.
    fn take(&self) -> Option<(Hashes, Vec<Bytes>)> {
        let mut state = self.state();
        let (mut pieces, mut left) = (Vec::new(), TURN);
        while left > 0
            && let Some(mut piece) = state.waiting.pop_front()
        {
            if piece.len() > left {
                state.waiting.push_front(piece.split_off(left));
            }
            left -= piece.len();
            pieces.push(piece);
        }
        Some((state.hashes.take()?, pieces))
    }

    /// A thread has done `pieces`, or failed. Whether there is more to do.
    fn put_back(&self, done: Option<(Hashes, Vec<Bytes>)>) -> bool {
        let mut state = self.state();
        match done {
            Some((hashes, pieces)) => {
                state.hashes = Some(hashes);
                drop(pieces);
            }
            None => {
                // Some bytes may be missing in them.
                state.hashes = None;
                state.waiting.clear();
            }
        }
        state.weight = state.waiting.iter().map(weight).sum();
        state.is_due = !state.waiting.is_empty();
        if state.is_awaited && state.weight <= FEW {
            state.is_awaited = false;
            self.progress.notify_all();
        }
        state.is_due
    }
}

fn weight(piece: &Bytes) -> usize {
    piece.len().max(LEAST_WEIGHT)
}

fn failed() -> io::Error {
    io::Error::other("the hash could not be computed")
}

/// Threads that hash, as many as there are cores. They wait for work as long as the process lives.
struct Threads {
    shared: Arc<Shared>,
    count: usize,
}

struct Shared {
    due: Mutex<Due>,
    more: Condvar,
    /// So many are put to work before uploads wait for each other.
    eager: usize,
    /// So many uploads go together.
    most: usize,
}

#[derive(Default)]
struct Due {
    uploads: VecDeque<Arc<Upload>>,
    busy: usize,
    asleep: usize,
}

impl Due {
    /// Whose turn it is: up to `most`, if they can go together.
    fn next(&mut self, most: usize) -> Vec<Arc<Upload>> {
        let plain = self.uploads.iter().take(most).take_while(|upload| upload.is_plain).count();
        let count = plain.max(1).min(self.uploads.len());
        self.uploads.drain(..count).collect()
    }
}

static THREADS: LazyLock<Threads> = LazyLock::new(Threads::start);

impl Threads {
    fn start() -> Self {
        let cores = thread::available_parallelism().map_or(1, usize::from);
        let (eager, most) = if lanes::go_together() { (cores.div_ceil(2), lanes::MOST) } else { (cores, 1) };
        let shared = Arc::new(Shared { due: Mutex::default(), more: Condvar::new(), eager, most });
        let start = |_: &usize| {
            let shared = Arc::clone(&shared);
            thread::Builder::new().name("sft-hash".to_owned()).spawn(move || shared.work()).is_ok()
        };
        let count = (0..cores).filter(start).count();
        Self { shared, count }
    }

    fn give(&self, upload: Arc<Upload>) {
        let mut due = self.shared.due();
        due.uploads.push_back(upload);
        self.shared.wake(&due);
    }
}

impl Shared {
    fn due(&self) -> MutexGuard<'_, Due> {
        self.due.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Wakes a thread if there is enough for one more.
    fn wake(&self, due: &Due) {
        let is_enough = due.busy < self.eager
            || due.uploads.len() >= self.most
            || due.uploads.iter().any(|upload| !upload.is_plain);
        if is_enough && !due.uploads.is_empty() && due.asleep > 0 {
            self.more.notify_one();
        }
    }

    fn work(&self) -> ! {
        let mut due = self.due();
        loop {
            while due.uploads.is_empty() {
                due.asleep += 1;
                due = self.more.wait(due).unwrap_or_else(PoisonError::into_inner);
                due.asleep -= 1;
            }
            let idle = self.eager.saturating_sub(due.busy).max(1);
            let most = due.uploads.len().div_ceil(idle).min(self.most);
            let mut uploads = due.next(most);
            due.busy += 1;
            self.wake(&due);
            drop(due);
            turn(&mut uploads);
            due = self.due();
            due.busy -= 1;
            due.uploads.extend(uploads);
        }
    }
}

/// Keeps those of which there is more to do.
fn turn(uploads: &mut Vec<Arc<Upload>>) {
    let done = catch_unwind(AssertUnwindSafe(|| {
        let mut work: Vec<_> = uploads.iter().map(|upload| upload.take()).collect();
        let mut together = Vec::new();
        for (hashes, pieces) in work.iter_mut().flatten() {
            if hashes.are_only_whole() {
                together.push(Lane::new(&mut hashes.whole, pieces));
            } else {
                pieces.iter().for_each(|piece| hashes.update(piece));
            }
        }
        lanes::update(&mut together);
        drop(together);
        work
    }));
    // A panic costs these uploads, no others.
    let mut done = done.unwrap_or_default().into_iter();
    uploads.retain(|upload| upload.put_back(done.next().flatten()));
}

#[cfg(test)]
#[path = "hashing_tests.rs"]
mod tests;
