//! Which way several hashes go at the same time, and how many of them.
//!
//! - [`ShaExtensions`]: two in lockstep. Their unit does no more than that on Intel's cores, where two take 0.8 of the time that
//!   they take one after the other;
//! - [`Ahead`]: up to four in lockstep, their message schedules beside it in AVX-512: 0.56 of the time on a Zen 5;
//! - [`Wide`]: eight in vectors, without the SHA Extensions: 0.61 of the time on an Emerald Rapids.
//!
//! What is fast on one processor is slow on another, sometimes by far, and none of them says so. So each way that the processor
//! has is measured, once, when the first is needed: that takes a millisecond or some. All give the same hashes.

use std::hint::black_box;
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use sha2::{Digest as _, Sha256};

use super::ahead::Ahead;
use super::lockstep::ShaExtensions;
use super::state::{BLOCK_LEN, GROUP, GROUP_LEN, Group, State};
use super::wide::{self, Wide};

/// More never go at the same time.
pub(super) const MOST: usize = wide::LANES;

/// How hashes go at the same time.
#[derive(Debug, Clone, Copy)]
pub(super) enum Way {
    Lockstep(ShaExtensions),
    Ahead(Ahead),
    Wide(Wide),
}

impl Way {
    /// Those that the processor has.
    pub(super) fn all() -> Vec<Self> {
        let lockstep = ShaExtensions::detect().map(Self::Lockstep);
        let ahead = Ahead::detect().map(Self::Ahead);
        let wide = Wide::detect().map(Self::Wide);
        [lockstep, ahead, wide].into_iter().flatten().collect()
    }
}

/// For each number of hashes that are ready, how many of them go together, and which way.
#[derive(Debug)]
pub(super) struct Plan<W = Way>([Option<(W, usize)>; MOST + 1]);

/// So many hashes at the same time take so long this way.
#[derive(Debug, Clone, Copy)]
struct Cost<W> {
    way: W,
    count: usize,
    time: Duration,
}

impl<W> Cost<W> {
    fn each(&self) -> Duration {
        self.time / self.count as u32
    }
}

impl Plan {
    /// What is fastest on this processor.
    pub(super) fn measured() -> &'static Self {
        static PLAN: LazyLock<Plan> = LazyLock::new(|| {
            // Unoptimised, each instruction is a call.
            let ways = if cfg!(debug_assertions) { Vec::new() } else { Way::all() };
            let alone = time(Duration::MAX, |groups| {
                black_box(Sha256::digest(groups.as_flattened().as_flattened()));
            });
            let costs: Vec<_> = ways.into_iter().flat_map(|way| costs(way, alone)).collect();
            Plan::of(alone, &costs)
        });
        &PLAN
    }
}

impl<W: Copy> Plan<W> {
    /// The least time for each hash; a single one takes `alone`.
    fn of(alone: Duration, costs: &[Cost<W>]) -> Self {
        // What gains next to nothing is not worth waiting for others.
        let worthwhile = alone * 19 / 20;
        Self(std::array::from_fn(|ready| {
            let possible = costs.iter().filter(|cost| cost.count <= ready && cost.each() < worthwhile);
            possible.min_by_key(|cost| cost.each()).map(|cost| (cost.way, cost.count))
        }))
    }

    /// Of so many that are ready. `None`: they go one after the other.
    pub(super) fn next(&self, ready: usize) -> Option<(W, usize)> {
        self.0[ready.min(MOST)]
    }

    /// So many are fastest, each taken for itself.
    pub(super) fn best(&self) -> usize {
        self.next(MOST).map_or(1, |(_, count)| count)
    }
}

/// What each number of hashes takes.
fn costs(way: Way, alone: Duration) -> Vec<Cost<Way>> {
    let cost = |count, time| Cost { way, count, time };
    match way {
        Way::Lockstep(cpu) => {
            vec![cost(2, together(alone, |states: &mut [_; 2], groups| cpu.compress(states, groups)))]
        }
        Way::Ahead(cpu) => {
            let four = together(alone, |states: &mut [_; 4], groups| cpu.compress(states, groups));
            if four > 4 * alone {
                return Vec::new();
            }
            let two = together(alone, |states: &mut [_; 2], groups| cpu.compress(states, groups));
            let three = together(alone, |states: &mut [_; 3], groups| cpu.compress(states, groups));
            vec![cost(2, two), cost(3, three), cost(4, four)]
        }
        Way::Wide(cpu) => {
            let time = together(alone, |states: &mut [_; MOST], groups| cpu.compress(states, groups));
            (2..=MOST).map(|count| cost(count, time)).collect()
        }
    }
}

fn together<const N: usize>(alone: Duration, compress: impl Fn(&mut [State; N], [&[Group]; N])) -> Duration {
    time(alone * N as u32, |groups| {
        let mut states = [State::default(); N];
        compress(&mut states, [groups; N]);
        black_box(states);
    })
}

/// The shortest of some times that `hash` takes for a few KiB: whatever else the machine does makes it longer. What is slower than
/// `most` is not tried again.
fn time(most: Duration, hash: impl Fn(&[Group])) -> Duration {
    const TIMES: usize = 6;
    let groups = vec![[[7; BLOCK_LEN]; GROUP]; (16 << 10) / GROUP_LEN];
    let mut least = Duration::MAX;
    for _ in 0..TIMES {
        let begun = Instant::now();
        hash(black_box(&groups));
        least = least.min(begun.elapsed());
        if least > most.saturating_mul(2) {
            break;
        }
    }
    least
}

#[cfg(test)]
impl Plan {
    /// One after the other.
    pub(super) const fn none() -> Self {
        Self([None; MOST + 1])
    }
}

#[cfg(test)]
impl Way {
    /// This way, wherever it can.
    pub(super) fn always(self) -> Plan {
        let most = match self {
            Self::Lockstep(_) => 2,
            Self::Ahead(_) => 4,
            Self::Wide(_) => MOST,
        };
        let time = Duration::from_micros(1);
        let costs: Vec<_> = (2..=most).map(|count| Cost { way: self, count, time }).collect();
        Plan::of(Duration::from_secs(1), &costs)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn cost(way: &'static str, count: usize, micros: u64) -> Cost<&'static str> {
        Cost { way, count, time: Duration::from_micros(micros) }
    }

    fn plan(alone: u64, costs: &[Cost<&'static str>]) -> Vec<Option<(&'static str, usize)>> {
        let plan = Plan::of(Duration::from_micros(alone), costs);
        (0..=MOST).map(|ready| plan.next(ready)).collect()
    }

    /// As measured on an Emerald Rapids, where four by the SHA Extensions beside AVX-512 are a hundred times slower.
    #[test]
    fn what_is_slow_is_not_done() {
        let costs = [
            cost("lockstep", 2, 16),
            cost("ahead", 2, 2400),
            cost("ahead", 4, 5000),
            cost("wide", 5, 50),
            cost("wide", 6, 50),
            cost("wide", 7, 50),
            cost("wide", 8, 50),
        ];
        let (two, wide) = (Some(("lockstep", 2)), |count| Some(("wide", count)));
        assert_eq!(plan(10, &costs), [None, None, two, two, two, two, two, wide(7), wide(8)]);
        assert_eq!(Plan::of(Duration::from_micros(10), &costs).best(), 8);
    }

    #[test]
    fn as_many_as_are_there_go_together() {
        let costs = [cost("ahead", 2, 13), cost("ahead", 3, 18), cost("ahead", 4, 22)];
        let ahead = |count| Some(("ahead", count));
        let four = ahead(4);
        assert_eq!(plan(10, &costs), [None, None, ahead(2), ahead(3), four, four, four, four, four]);
    }

    #[test]
    fn where_nothing_is_gained_they_go_one_after_the_other() {
        assert_eq!(plan(10, &[]), [None; MOST + 1]);
        assert_eq!(plan(10, &[cost("lockstep", 2, 20), cost("wide", 8, 77)]), [None; MOST + 1]);
        assert_eq!(Plan::<&str>::of(Duration::from_micros(10), &[]).best(), 1);
    }

    #[test]
    fn more_than_ever_go_at_the_same_time_are_as_many() {
        let plan = Plan::of(Duration::from_micros(10), &[cost("wide", 8, 40)]);
        assert_eq!(plan.next(99), Some(("wide", 8)));
    }

    #[test]
    fn what_is_far_too_slow_is_tried_once() {
        let tried = std::cell::Cell::new(0);
        let try_it = |_: &[Group]| {
            tried.set(tried.get() + 1);
            std::thread::yield_now();
        };
        _ = time(Duration::ZERO, try_it);
        assert_eq!(tried.take(), 1);
        _ = time(Duration::MAX, try_it);
        assert!(tried.get() > 1);
    }
}
