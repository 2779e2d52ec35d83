//! How far a transfer is: percent, speed and time to go.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::Transfer;

/// Whole percent of `total` that `done` is, rounded down: 100 only when all is through. 0 where the total is not known.
pub fn percent(done: u64, total: Option<u64>) -> u8 {
    match total {
        None => 0,
        Some(0) => 100,
        Some(total) => u8::try_from((u128::from(done) * 100 / u128::from(total)).min(100)).unwrap_or(100),
    }
}

/// Smooths the speed of a running transfer.
///
/// An exponentially weighted mean over time: a reading counts half after [`Meter::HALF_LIFE`]. Readings closer than
/// [`Meter::SHORTEST`] are gathered into one, so that the size of the pieces in which bytes arrive does not show.
#[derive(Debug, Clone)]
pub struct Meter {
    done: u64,
    counted: u64,
    since: Instant,
    speed: Option<f64>,
}

impl Meter {
    /// After this long a reading counts half.
    pub const HALF_LIFE: Duration = Duration::from_secs(2);
    /// The shortest stretch of time that makes a reading.
    pub const SHORTEST: Duration = Duration::from_millis(100);

    /// A meter at zero bytes.
    pub const fn new(now: Instant) -> Self {
        Self { done: 0, counted: 0, since: now, speed: None }
    }

    /// `bytes` more are through.
    pub fn add(&mut self, bytes: u64, now: Instant) {
        self.done = self.done.saturating_add(bytes);
        let elapsed = now.saturating_duration_since(self.since);
        if elapsed < Self::SHORTEST {
            return;
        }
        let reading = (self.done - self.counted) as f64 / elapsed.as_secs_f64();
        let kept = 0.5_f64.powf(elapsed.as_secs_f64() / Self::HALF_LIFE.as_secs_f64());
        self.speed = Some(self.speed.map_or(reading, |speed| speed * kept + reading * (1.0 - kept)));
        self.counted = self.done;
        self.since = now;
    }

    /// Bytes that are through.
    pub const fn done(&self) -> u64 {
        self.done
    }

    /// Bytes a second, at `now`: it falls while nothing arrives. 0 before the first reading.
    pub fn speed(&self, now: Instant) -> u64 {
        let mut at_now = self.clone();
        at_now.add(0, now);
        at_now.speed.unwrap_or(0.0) as u64
    }

    /// Whole seconds until `total` is through, rounded up; `None` where the total or the speed is not known.
    pub fn eta(&self, total: Option<u64>, now: Instant) -> Option<u64> {
        let left = total?.saturating_sub(self.done);
        match (left, self.speed(now)) {
            (0, _) => Some(0),
            (_, 0) => None,
            (left, speed) => Some(left.div_ceil(speed)),
        }
    }
}

/// How far a running transfer is: told by whoever moves its bytes, read by whoever shows it.
///
/// Every kind of transfer reports here, and only here: a body, a chunk, a part of a batch.
#[derive(Debug)]
pub struct Live {
    state: Mutex<LiveState>,
    at_most: Option<u64>,
}

#[derive(Debug)]
struct LiveState {
    meter: Meter,
    total: Option<u64>,
}

impl Live {
    /// A transfer at zero bytes. `total`: bytes there will be, if that is known; `at_most`: no more than these will come.
    /// Where only that is known (the length of a form: its file, and some fields), percent and time to go follow it, and
    /// the total stays unknown.
    pub fn new(total: Option<u64>, at_most: Option<u64>, now: Instant) -> Self {
        Self { state: Mutex::new(LiveState { meter: Meter::new(now), total }), at_most }
    }

    /// The client has said how many bytes there will be.
    pub fn set_total(&self, total: u64) {
        self.state().total = Some(total);
    }

    /// So many bytes were through before: they count as done, and not for the speed.
    pub fn go_on_from(&self, done: u64) {
        let mut state = self.state();
        state.meter = Meter { done, counted: done, ..Meter::new(Instant::now()) };
    }

    /// So many bytes are through in all. Fewer than before, since some came to nothing, change nothing: progress never
    /// goes back.
    pub fn reach(&self, done: u64) {
        let mut state = self.state();
        let more = done.saturating_sub(state.meter.done());
        state.meter.add(more, Instant::now());
    }

    /// `bytes` more are through.
    pub fn add(&self, bytes: u64) {
        self.add_at(bytes, Instant::now());
    }

    /// `bytes` more are through, at `now`.
    pub fn add_at(&self, bytes: u64, now: Instant) {
        self.state().meter.add(bytes, now);
    }

    /// Bytes that are through.
    pub fn done(&self) -> u64 {
        self.state().meter.done()
    }

    /// Whole percent.
    pub fn percent(&self) -> u8 {
        let state = self.state();
        percent(state.meter.done(), state.total.or(self.at_most))
    }

    /// Writes into a transfer how far it is at `now`.
    pub fn show(&self, transfer: &mut Transfer, now: Instant) {
        let LiveState { meter, total } = &*self.state();
        transfer.total_bytes = total.or(transfer.total_bytes);
        let total = total.or(self.at_most);
        transfer.transferred_bytes = meter.done();
        transfer.progress = percent(meter.done(), total);
        transfer.speed = meter.speed(now);
        transfer.eta = meter.eta(total, now);
    }

    /// A plain lock: nothing waits while it is held.
    fn state(&self) -> MutexGuard<'_, LiveState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percent_is_whole_and_full_only_at_the_end() {
        for (done, total, expected) in [
            (0, Some(100), 0),
            (99, Some(100), 99),
            (999, Some(1000), 99),
            (1000, Some(1000), 100),
            (2000, Some(1000), 100),
            (0, Some(0), 100),
            (5, None, 0),
            (u64::MAX - 1, Some(u64::MAX), 99),
        ] {
            assert_eq!(percent(done, total), expected, "{done} of {total:?}");
        }
    }

    #[test]
    fn a_steady_stream_has_its_own_speed() {
        let start = Instant::now();
        let mut meter = Meter::new(start);
        for tick in 1..=100_u32 {
            meter.add(1_000, start + Duration::from_millis(10) * tick);
        }
        let now = start + Duration::from_secs(1);
        let speed = meter.speed(now);
        assert!((99_999..=100_000).contains(&speed), "{speed}");
        assert_eq!(meter.eta(Some(250_000), now), Some(2));
        assert_eq!(meter.eta(Some(100_000), now), Some(0));
        assert_eq!(meter.eta(None, now), None);
    }

    #[test]
    fn the_speed_of_a_stalled_stream_halves_every_half_life() {
        let start = Instant::now();
        let mut meter = Meter::new(start);
        meter.add(100_000, start + Duration::from_secs(1));
        let stalled = meter.speed(start + Duration::from_secs(1) + Meter::HALF_LIFE);
        assert!((49_999..=50_000).contains(&stalled), "{stalled}");
    }

    #[test]
    fn a_burst_is_smoothed_and_the_time_to_go_follows_the_speed() {
        let start = Instant::now();
        let mut meter = Meter::new(start);
        // 1 MB/s for ten half-lives, then ten times that for one half-life: half-way between the two.
        for tick in 1..=200_u32 {
            meter.add(100_000, start + Duration::from_millis(100) * tick);
        }
        let fast = start + Duration::from_secs(20);
        for tick in 1..=20_u32 {
            meter.add(1_000_000, fast + Duration::from_millis(100) * tick);
        }
        let now = fast + Meter::HALF_LIFE;
        let speed = meter.speed(now);
        assert!((5_490_000..=5_510_000).contains(&speed), "{speed}");
        let left = 11_000_000;
        assert_eq!(meter.eta(Some(meter.done() + left), now), Some(left.div_ceil(speed)));
        assert_eq!(
            meter.eta(Some(meter.done() + left), now + Meter::HALF_LIFE),
            Some(5),
            "it stalls: half the speed"
        );
    }

    #[test]
    fn where_only_a_limit_is_known_the_percent_follows_it_and_is_never_full() {
        let start = Instant::now();
        let live = Live::new(None, Some(1_000), start);
        live.add_at(999, start + Duration::from_secs(1));
        assert_eq!((live.percent(), live.done()), (99, 999));
        let unknown = Live::new(None, None, start);
        unknown.add_at(5_000, start + Duration::from_secs(1));
        assert_eq!((unknown.percent(), unknown.done()), (0, 5_000));
    }

    #[test]
    fn before_the_first_reading_nothing_is_claimed() {
        let start = Instant::now();
        let mut meter = Meter::new(start);
        meter.add(5_000_000, start + Duration::from_millis(1));
        assert_eq!((meter.speed(start + Duration::from_millis(2)), meter.done()), (0, 5_000_000));
        assert_eq!(meter.eta(Some(10_000_000), start + Duration::from_millis(2)), None);
    }
}
