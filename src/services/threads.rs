//! A few threads that hash and write the uploads that stream, for all of them.
//!
//! A thread takes what waits of several uploads, hashes it [side by side](crate::crypto::sha256::lanes) where the processor
//! can, which takes little more than half of the time, and writes it at once, while caches hold it: to have another thread
//! write costs more than it brings. As long as less than half of the cores are busy, what comes is taken at once; then as soon as
//! it is enough for all lanes. So what waits meanwhile goes together, and with few uploads on many cores each has its own.
//!
//! A disk may let a thread wait. What waits behind that for longer than [`PATIENCE`] is taken by another one.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, LazyLock, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use std::{io, thread};

use super::piece::Piece;
use super::stream::Turn;
use crate::crypto::sha256::{Lane, lanes};

/// Bytes of an upload that are done before others have their turn.
const TURN: usize = 256 << 10;
/// And of one that goes alone: what several hand over fills the cache as well.
const ALONE: usize = 512 << 10;

/// So long uploads wait for others to go with.
const PATIENCE: Duration = Duration::from_millis(10);
/// Threads beside one for each core, for when the disk lets them wait.
const SPARE: usize = 6;

static THREADS: LazyLock<Threads> = LazyLock::new(Threads::start);

/// Has a turn done.
pub(super) fn give(turn: Turn) {
    THREADS.give(turn);
}

/// Starts the threads, if that has not been done.
///
/// # Errors
/// The system has none to give.
pub(crate) fn start() -> io::Result<()> {
    match THREADS.refusal {
        Some(error) if THREADS.count == 0 => Err(error.into()),
        Some(error) => {
            tracing::warn!(error = %io::Error::from(error), threads = THREADS.count, "too few threads could be started");
            Ok(())
        }
        None => {
            let (threads, side_by_side) = (THREADS.count, THREADS.rules.most);
            tracing::debug!(threads, side_by_side, "what uploads are hashed by");
            Ok(())
        }
    }
}

/// Waits until nothing is being hashed or written, but no longer than `most`. Blocking.
pub(crate) fn settle(most: Duration) {
    let end = Instant::now() + most;
    let mut due = THREADS.due();
    while due.busy > 0 || !due.turns.is_empty() {
        let Some(left) = end.checked_duration_since(Instant::now()).filter(|left| !left.is_zero()) else {
            return;
        };
        due = THREADS.idle.wait_timeout(due, left).unwrap_or_else(PoisonError::into_inner).0;
    }
}

/// They wait for work as long as the process lives.
struct Threads {
    due: Mutex<Due>,
    idle: Condvar,
    count: usize,
    refusal: Option<io::ErrorKind>,
    rules: Rules,
}

#[derive(Clone, Copy)]
struct Rules {
    /// So many threads are put to work before uploads wait for each other.
    eager: usize,
    /// So many uploads go together.
    most: usize,
}

#[derive(Default)]
struct Due {
    turns: VecDeque<Turn>,
    busy: usize,
    /// The last one is woken first: caches are as it left them, and its core is its own. To wake them in turn costs some percent.
    asleep: Vec<Arc<Condvar>>,
    /// Whether a thread that is asleep looks after [`PATIENCE`].
    is_watched: bool,
}

impl Due {
    /// Whether there is something to do for one thread more.
    fn is_enough(&self, rules: Rules) -> bool {
        !self.turns.is_empty()
            && (self.busy < rules.eager
                || self.turns.len() >= rules.most
                || !self.turns.iter().all(Turn::is_plain))
    }

    /// Whose turn it is: several, if they can go together, and if no others have nothing to do meanwhile.
    fn next(&mut self, rules: Rules) -> Vec<Turn> {
        let idle = rules.eager.saturating_sub(self.busy).max(1);
        let most = self.turns.len().div_ceil(idle).min(rules.most);
        let mut next: Vec<_> = self.turns.pop_front().into_iter().collect();
        let mut place = 0;
        while next.len() < most
            && next[0].is_plain()
            && let Some(turn) = self.turns.get(place)
        {
            if turn.is_plain() {
                next.extend(self.turns.remove(place));
            } else {
                place += 1;
            }
        }
        next
    }
}

impl Threads {
    fn start() -> Self {
        let cores = thread::available_parallelism().map_or(1, usize::from);
        let rules = match lanes::best() {
            1 => Rules { eager: cores, most: 1 },
            most => Rules { eager: cores.div_ceil(2), most },
        };
        let (mut count, mut refusal) = (0, None);
        for _ in 0..cores + SPARE {
            // What is being made here is there before they have it.
            match thread::Builder::new().name("sft-stream".to_owned()).spawn(|| THREADS.work()) {
                Ok(_) => count += 1,
                Err(error) => refusal = Some(error.kind()),
            }
        }
        let (due, idle) = (Mutex::default(), Condvar::new());
        Self { due, idle, count, refusal, rules }
    }

    fn due(&self) -> MutexGuard<'_, Due> {
        self.due.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn give(&self, turn: Turn) {
        let mut due = self.due();
        due.turns.push_back(turn);
        self.wake(&mut due);
    }

    fn wake(&self, due: &mut Due) {
        if (due.is_enough(self.rules) || !due.is_watched && !due.turns.is_empty())
            && let Some(sleeper) = due.asleep.pop()
        {
            sleeper.notify_one();
        }
    }

    fn work(&self) -> ! {
        let own = Arc::default();
        let mut due = self.due();
        loop {
            due = self.until_due(due, &own);
            let turns = due.next(self.rules);
            due.busy += 1;
            self.wake(&mut due);
            drop(due);
            // A panic costs these uploads, no others.
            let next = catch_unwind(AssertUnwindSafe(|| go(turns))).unwrap_or_default();
            due = self.due();
            due.busy -= 1;
            due.turns.extend(next);
            if due.busy == 0 && due.turns.is_empty() {
                self.idle.notify_all();
            }
        }
    }

    /// `own` is what this thread is woken by.
    fn until_due<'a>(&self, mut due: MutexGuard<'a, Due>, own: &Arc<Condvar>) -> MutexGuard<'a, Due> {
        while !due.is_enough(self.rules) {
            due.asleep.push(Arc::clone(own));
            let is_late;
            if due.turns.is_empty() || due.is_watched {
                due = own.wait(due).unwrap_or_else(PoisonError::into_inner);
                is_late = false;
            } else {
                due.is_watched = true;
                let waited = own.wait_timeout(due, PATIENCE).unwrap_or_else(PoisonError::into_inner);
                due = waited.0;
                due.is_watched = false;
                is_late = waited.1.timed_out() && !due.turns.is_empty();
            }
            // It may have woken by itself.
            due.asleep.retain(|sleeper| !Arc::ptr_eq(sleeper, own));
            if is_late {
                break;
            }
        }
        due
    }
}

/// Hashes and writes what is next of these. Gives those of which there is more to do.
fn go(mut turns: Vec<Turn>) -> Vec<Turn> {
    let size = if turns.len() == 1 { ALONE } else { TURN };
    let taken: Vec<_> = turns.iter_mut().map(|turn| turn.take(size)).collect();
    let mut together = Vec::with_capacity(turns.len());
    for (turn, pieces) in turns.iter_mut().zip(&taken) {
        let hashed = pieces.iter().filter_map(Piece::hashed);
        match turn.work() {
            Some(work) if work.hashes.are_only_whole() => {
                together.push(Lane::new(&mut work.hashes.whole, hashed));
            }
            Some(work) => hashed.for_each(|bytes| work.hashes.update(bytes)),
            None => {}
        }
    }
    lanes::update(&mut together);
    let write = |mut turn: Turn, pieces: Vec<_>| {
        let written = turn.work().map_or(Ok(()), |work| work.writer.take(&pieces));
        drop(pieces);
        turn.put_back(written)
    };
    // A panic in one of them does not cost the others.
    let write = |(turn, pieces)| catch_unwind(AssertUnwindSafe(|| write(turn, pieces))).unwrap_or_default();
    turns.into_iter().zip(taken).filter_map(write).collect()
}

#[cfg(test)]
#[path = "threads_tests.rs"]
mod tests;
