//! Two SHA-256 (FIPS 180-4, section 6.2) over the same bytes.
//!
//! A chunk is hashed by itself and as the next bytes of its file. With the instructions of Intel's SHA Extensions (Gulley
//! et al., *Intel SHA Extensions*, 2013) a single hash waits most of the time: each pair of its rounds needs the result
//! of the one before, and only every second issue slot of the unit is used. Two hashes don't wait for each other. In
//! lockstep they fill the unit, and share the message schedule, which depends on the bytes alone: on a Zen 5 core
//! both take 1.3 times as long as one, where one after the other takes twice as long (`benches/crypto.rs`).
//!
//! The hashes themselves stay those of `sha2`. Only whole blocks pass it by: the states are taken out, advanced, and put
//! back. Where the processor lacks the instructions, or the hashes do not reach the ends of their blocks at the same
//! byte, `sha2` takes the bytes for one after the other.

use sha2::{Digest as _, Sha256};

use self::sha_extensions::ShaExtensions;
use super::state::{BLOCK_LEN, Block, advance, begun};

/// In fewer bytes, taking the states out and putting them back costs more than lockstep gains (`benches/crypto.rs`).
const WORTHWHILE: usize = 8 * BLOCK_LEN;

/// Two SHA-256 of which both take the same bytes from now on.
#[derive(Debug, Clone)]
pub struct Sha256Pair {
    hashes: [Sha256; 2],
    /// `None` when each has to go its own way.
    lockstep: Option<Lockstep>,
}

#[derive(Debug, Clone, Copy)]
struct Lockstep {
    cpu: ShaExtensions,
    /// Bytes of a begun block that each hash holds: as many in both, not necessarily the same.
    begun: usize,
}

impl Sha256Pair {
    /// Goes on with both. It is faster if both have taken the same number of bytes modulo 64; any are right.
    pub fn new(first: Sha256, second: Sha256) -> Self {
        // Unoptimised, each instruction below is a call, and lockstep takes a hundred times as long as `sha2`.
        if cfg!(debug_assertions) { Self::apart(first, second) } else { Self::lockstep(first, second) }
    }

    /// In lockstep, if they and the processor can.
    fn lockstep(first: Sha256, second: Sha256) -> Self {
        let begun = begun(&first);
        let aligned = begun == super::state::begun(&second);
        let lockstep = ShaExtensions::detect().filter(|_| aligned).map(|cpu| Lockstep { cpu, begun });
        Self { hashes: [first, second], lockstep }
    }

    fn apart(first: Sha256, second: Sha256) -> Self {
        Self { hashes: [first, second], lockstep: None }
    }

    /// Both take these bytes. Large pieces are faster: states are taken out and put back once for each.
    pub fn update(&mut self, bytes: &[u8]) {
        let Some(Lockstep { cpu, begun }) = self.lockstep else { return self.one_after_the_other(bytes) };
        self.lockstep = Some(Lockstep { cpu, begun: (begun + bytes.len()) % BLOCK_LEN });
        let missing = (BLOCK_LEN - begun) % BLOCK_LEN;
        match bytes.split_at_checked(missing) {
            Some((head, rest)) if rest.len() >= WORTHWHILE => {
                self.one_after_the_other(head);
                let (blocks, tail) = rest.as_chunks();
                self.in_lockstep(cpu, blocks);
                self.one_after_the_other(tail);
            }
            _ => self.one_after_the_other(bytes),
        }
    }

    /// Both, as they are now.
    pub fn split(self) -> (Sha256, Sha256) {
        let [first, second] = self.hashes;
        (first, second)
    }

    fn one_after_the_other(&mut self, bytes: &[u8]) {
        for hash in &mut self.hashes {
            hash.update(bytes);
        }
    }

    /// Both are at the end of a block.
    fn in_lockstep(&mut self, cpu: ShaExtensions, blocks: &[Block]) {
        let [first, second] = &mut self.hashes;
        if !advance([first, second], blocks.len(), |states| cpu.compress(states, blocks)) {
            self.one_after_the_other(blocks.as_flattened());
        }
    }
}

#[cfg(target_arch = "x86_64")]
mod sha_extensions {
    use std::arch::x86_64::{
        __m128i, _mm_add_epi32, _mm_alignr_epi8, _mm_set_epi32, _mm_set_epi64x, _mm_sha256msg1_epu32,
        _mm_sha256msg2_epu32, _mm_shuffle_epi8,
    };

    use super::super::sha_ni::{add, four_rounds, load, store};
    use super::super::state::{Block, K, State};

    /// That this processor has the instructions: there is no other way to one of these than to have asked it.
    #[derive(Debug, Clone, Copy)]
    pub(super) struct ShaExtensions(());

    impl ShaExtensions {
        /// The standard library asks the processor once and remembers.
        pub(super) fn detect() -> Option<Self> {
            let all = is_x86_feature_detected!("sha")
                && is_x86_feature_detected!("ssse3")
                && is_x86_feature_detected!("sse4.1");
            all.then_some(Self(()))
        }

        /// Advances both states over the same blocks.
        #[expect(unsafe_code, reason = "instructions that not every x86-64 has")]
        pub(super) fn compress(self, states: &mut [State; 2], blocks: &[Block]) {
            // SAFETY: `self` exists, so `detect` has found all features that `compress` is compiled with.
            unsafe { compress(states, blocks) }
        }
    }

    #[target_feature(enable = "sha,sse2,ssse3,sse4.1")]
    fn compress(states: &mut [State; 2], blocks: &[Block]) {
        let [mut first, mut second] = [load(&states[0]), load(&states[1])];
        for block in blocks {
            let before = [first, second];
            let mut schedule = words(block);
            for step in 0..16 {
                if step >= 4 {
                    schedule = next_words(schedule);
                }
                let now = schedule[step.min(3)];
                let [k0, k1, k2, k3] = K[step].map(u32::cast_signed);
                let input = _mm_add_epi32(now, _mm_set_epi32(k3, k2, k1, k0));
                // Side by side, so that each fills the time in which the other waits.
                first = four_rounds(first, input);
                second = four_rounds(second, input);
            }
            first = add(first, before[0]);
            second = add(second, before[1]);
        }
        *states = [store(first), store(second)];
    }

    /// From the last sixteen words of the schedule to the next four, with the twelve before them.
    #[inline]
    #[target_feature(enable = "sha,sse2,ssse3")]
    fn next_words([w0, w1, w2, w3]: [__m128i; 4]) -> [__m128i; 4] {
        let sum = _mm_add_epi32(_mm_sha256msg1_epu32(w0, w1), _mm_alignr_epi8::<4>(w3, w2));
        [w1, w2, w3, _mm_sha256msg2_epu32(sum, w3)]
    }

    /// The sixteen big-endian words of a block.
    #[inline]
    #[target_feature(enable = "sse2,ssse3")]
    fn words(block: &Block) -> [__m128i; 4] {
        let swap = _mm_set_epi64x(0x0C0D_0E0F_0809_0A0B, 0x0405_0607_0001_0203);
        let (halves, _) = block.as_chunks();
        // Two halves next to each other become one load.
        std::array::from_fn(|i| {
            let [low, high] = [i64::from_le_bytes(halves[2 * i]), i64::from_le_bytes(halves[2 * i + 1])];
            _mm_shuffle_epi8(_mm_set_epi64x(high, low), swap)
        })
    }
}

#[cfg(not(target_arch = "x86_64"))]
mod sha_extensions {
    use super::super::state::{Block, State};

    /// No such instructions here, and no value of this type.
    #[derive(Debug, Clone, Copy)]
    pub(super) enum ShaExtensions {}

    impl ShaExtensions {
        pub(super) fn detect() -> Option<Self> {
            None
        }

        pub(super) fn compress(self, _: &mut [State; 2], _: &[Block]) {
            match self {}
        }
    }
}

#[cfg(test)]
#[path = "pair_tests.rs"]
mod tests;
