//! Random choices that can be made again: everything comes from a seed that is printed.

use std::ops::Range;

/// A generator of random numbers (SplitMix64).
#[derive(Debug, Clone)]
pub struct Random(u64);

impl Random {
    pub const fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The seed of a test: what the environment variable says, or one of the moment.
    pub fn seed(variable: &str) -> u64 {
        let given = std::env::var(variable).ok().map(|text| text.parse().expect("a seed is a whole number"));
        given.unwrap_or_else(|| {
            let since = std::time::UNIX_EPOCH.elapsed().expect("a time after 1970");
            Self::new(since.as_nanos() as u64).next() % 1_000_000_000
        })
    }

    /// One of its own for a part of the test, so that what one part draws does not shift what another draws.
    pub fn fork(&mut self) -> Self {
        Self(self.next())
    }

    pub const fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub fn within(&mut self, range: Range<u64>) -> u64 {
        range.start + self.next() % (range.end - range.start)
    }

    /// True in so many of a hundred cases.
    pub fn percent(&mut self, percent: u64) -> bool {
        self.next() % 100 < percent
    }

    pub fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[self.within(0..from.len() as u64) as usize]
    }
}
