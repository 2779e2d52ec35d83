//! How many chunks are on their way at once.
//!
//! Nobody knows beforehand what a network and a server can take. So it is tried: after each round (as many chunks as are on
//! their way) the speed of all of them together is compared with that of the round before. Faster: a step further in the same
//! direction. Slower: a step back. A chunk that fails halves the number, as TCP does, and once only for all that were
//! under way then.

use std::time::Duration;

use tokio::time::Instant;

/// Never more, whatever is measured: each holds a connection and up to some MiB of memory.
pub(super) const MOST: usize = 8;
/// Where nobody says how many.
const USUAL: usize = 4;
/// Differences that count as such.
const FASTER: f64 = 1.05;
const SLOWER: f64 = 0.9;

#[derive(Debug)]
pub(super) struct Window {
    size: usize,
    most: usize,
    /// The size after the first chunk, which goes alone: the server then knows the upload.
    usual: usize,
    proven: bool,
    growing: bool,
    /// Bytes a second in the round before.
    before: Option<f64>,
    began: Instant,
    chunks: usize,
    bytes: u64,
    halved: Instant,
}

impl Window {
    /// `most`: what the user allows.
    pub(super) fn new(most: Option<usize>, now: Instant) -> Self {
        let usual = most.unwrap_or(USUAL).clamp(1, MOST);
        let most = most.map_or(MOST, |_| usual);
        let (size, proven, growing, before) = (1, false, true, None);
        Self { size, most, usual, proven, growing, before, began: now, chunks: 0, bytes: 0, halved: now }
    }

    /// How many there may be.
    pub(super) fn size(&self) -> usize {
        self.size
    }

    /// A chunk has arrived.
    pub(super) fn arrived(&mut self, bytes: u64, now: Instant) {
        if !self.proven {
            self.proven = true;
            self.size = self.usual;
            self.start_round(now);
            return;
        }
        self.chunks += 1;
        self.bytes += bytes;
        if self.chunks < self.size {
            return;
        }
        let speed = self.bytes as f64 / (now - self.began).max(Duration::from_micros(1)).as_secs_f64();
        let step = match self.before {
            None => true,
            Some(before) if speed > before * FASTER => true,
            Some(before) if speed < before * SLOWER => {
                self.growing = !self.growing;
                true
            }
            Some(_) => false,
        };
        if step {
            self.size = if self.growing { self.size + 1 } else { self.size - 1 }.clamp(1, self.most);
        }
        self.before = Some(speed);
        self.start_round(now);
    }

    /// An attempt that began at `began` has failed.
    pub(super) fn failed(&mut self, began: Instant, now: Instant) {
        // It was under way when another failed: the same trouble, which has been answered.
        if self.proven && began < self.halved {
            return;
        }
        self.size = (self.size / 2).max(1);
        self.halved = now;
        (self.growing, self.before) = (true, None);
        self.start_round(now);
    }

    fn start_round(&mut self, now: Instant) {
        (self.began, self.chunks, self.bytes) = (now, 0, 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Lets rounds pass on a network that carries so many bytes a second when `n` chunks are on their way.
    fn rounds(window: &mut Window, now: &mut Instant, count: usize, speed: impl Fn(usize) -> f64) {
        for _ in 0..count {
            let size = window.size();
            *now += Duration::from_secs_f64(size as f64 * 1e6 / speed(size));
            for _ in 0..size {
                window.arrived(1_000_000, *now);
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_first_chunk_goes_alone() {
        let mut now = Instant::now();
        let mut window = Window::new(None, now);
        assert_eq!(window.size(), 1);
        rounds(&mut window, &mut now, 1, |_| 1e6);
        assert_eq!(window.size(), USUAL);
    }

    #[tokio::test(start_paused = true)]
    async fn it_grows_while_that_makes_it_faster() {
        let mut now = Instant::now();
        let mut window = Window::new(None, now);
        rounds(&mut window, &mut now, 20, |n| 1e6 * n as f64);
        assert_eq!(window.size(), MOST);
    }

    #[tokio::test(start_paused = true)]
    async fn it_stays_where_more_is_no_faster() {
        let mut now = Instant::now();
        let mut window = Window::new(None, now);
        rounds(&mut window, &mut now, 100, |_| 1e6);
        assert_eq!(window.size(), USUAL + 1);
    }

    #[tokio::test(start_paused = true)]
    async fn it_shrinks_where_more_is_slower() {
        let mut now = Instant::now();
        let mut window = Window::new(None, now);
        for _ in 0..10 {
            rounds(&mut window, &mut now, 10, |n| 1e6 / n as f64);
            assert!(window.size() <= 3, "{}", window.size());
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_failure_halves_it_once_for_all_that_were_under_way() {
        let mut now = Instant::now();
        let mut window = Window::new(None, now);
        rounds(&mut window, &mut now, 20, |n| 1e6 * n as f64);
        let second = Duration::from_secs(1);
        for failed in 0..8 {
            window.failed(now, now + second + Duration::from_millis(failed));
        }
        assert_eq!(window.size(), 4);
        now += 2 * second;
        window.failed(now, now + second);
        assert_eq!(window.size(), 2);
        for outage in 2..10 {
            window.failed(now + outage * second, now + outage * second);
        }
        assert_eq!(window.size(), 1);
        now += 20 * second;
        rounds(&mut window, &mut now, 20, |n| 1e6 * n as f64);
        assert_eq!(window.size(), MOST, "it recovers");
    }

    #[tokio::test(start_paused = true)]
    async fn what_the_user_allows_is_kept() {
        for (most, expected) in [(1, 1), (2, 2), (4, 4), (8, 8), (100, MOST), (0, 1)] {
            let mut now = Instant::now();
            let mut window = Window::new(Some(most), now);
            rounds(&mut window, &mut now, 20, |n| 1e6 * n as f64);
            assert_eq!(window.size(), expected, "{most}");
        }
    }
}
