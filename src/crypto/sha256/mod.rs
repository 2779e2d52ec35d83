//! SHA-256 (FIPS 180-4), several at a time. The hashes are those of `sha2`; what is longer than a few blocks passes it by.
//!
//! - [`pair`]: two over the same bytes, for hardly more than the price of one;
//! - [`lanes`]: up to eight over bytes of their own, in about half of the time, by what is fastest on the processor.

mod ahead;
pub mod lanes;
mod lockstep;
pub mod pair;
#[cfg(target_arch = "x86_64")]
mod sha_ni;
mod state;
mod ways;
mod wide;

pub use lanes::Lane;
pub use pair::Sha256Pair;
