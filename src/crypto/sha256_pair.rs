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

use sha2::digest::common::hazmat::SerializableState;
use sha2::{Digest as _, Sha256};

use sha_extensions::ShaExtensions;

/// Length in bytes of a block of SHA-256.
const BLOCK_LEN: usize = 64;

/// In fewer bytes, taking the states out and putting them back costs more than lockstep gains (`benches/crypto.rs`).
const WORTHWHILE: usize = 8 * BLOCK_LEN;

type Block = [u8; BLOCK_LEN];

/// The working variables a to h of one hash (FIPS 180-4, section 6.2.2).
type State = [u32; 8];

// A hash as sha2 0.11 serializes it, little-endian: the eight words of the state, the number of blocks it has taken, then
// the length of the block it has begun, followed by the bytes of that.
const WORDS: std::ops::Range<usize> = 0..32;
const BLOCKS_TAKEN: std::ops::Range<usize> = 32..40;
const BEGUN_LEN: usize = 40;

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
        let begun = usize::from(first.serialize()[BEGUN_LEN]);
        let aligned = begun == usize::from(second.serialize()[BEGUN_LEN]);
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
        let mut serialized = self.hashes.each_ref().map(SerializableState::serialize);
        debug_assert!(serialized.iter().all(|hash| hash[BEGUN_LEN] == 0));
        let mut states = serialized.each_ref().map(|hash| {
            let (words, _) = hash[WORDS].as_chunks();
            std::array::from_fn(|i| u32::from_le_bytes(words[i]))
        });
        cpu.compress(&mut states, blocks);
        for (hash, state) in serialized.iter_mut().zip(&states) {
            let (words, _) = hash[WORDS].as_chunks_mut();
            for (word, value) in words.iter_mut().zip(state) {
                *word = value.to_le_bytes();
            }
            let (counts, _) = hash[BLOCKS_TAKEN].as_chunks_mut();
            for count in counts {
                *count = u64::from_le_bytes(*count).wrapping_add(blocks.len() as u64).to_le_bytes();
            }
        }
        match serialized.each_ref().map(Sha256::deserialize) {
            [Ok(first), Ok(second)] => self.hashes = [first, second],
            // Not with the layout above; `self.hashes` are then as they were, and `sha2` can do it alone.
            _ => self.one_after_the_other(blocks.as_flattened()),
        }
    }
}

#[cfg(target_arch = "x86_64")]
mod sha_extensions {
    use std::arch::x86_64::{
        __m128i, _mm_add_epi32, _mm_alignr_epi8, _mm_extract_epi32, _mm_set_epi32, _mm_set_epi64x,
        _mm_sha256msg1_epu32, _mm_sha256msg2_epu32, _mm_sha256rnds2_epu32, _mm_shuffle_epi8,
        _mm_shuffle_epi32,
    };

    use super::{Block, State};

    /// The constants of the 64 rounds (FIPS 180-4, section 4.2.2), four to a step.
    #[rustfmt::skip]
    const K: [[u32; 4]; 16] = [
        [0x428a_2f98, 0x7137_4491, 0xb5c0_fbcf, 0xe9b5_dba5],
        [0x3956_c25b, 0x59f1_11f1, 0x923f_82a4, 0xab1c_5ed5],
        [0xd807_aa98, 0x1283_5b01, 0x2431_85be, 0x550c_7dc3],
        [0x72be_5d74, 0x80de_b1fe, 0x9bdc_06a7, 0xc19b_f174],
        [0xe49b_69c1, 0xefbe_4786, 0x0fc1_9dc6, 0x240c_a1cc],
        [0x2de9_2c6f, 0x4a74_84aa, 0x5cb0_a9dc, 0x76f9_88da],
        [0x983e_5152, 0xa831_c66d, 0xb003_27c8, 0xbf59_7fc7],
        [0xc6e0_0bf3, 0xd5a7_9147, 0x06ca_6351, 0x1429_2967],
        [0x27b7_0a85, 0x2e1b_2138, 0x4d2c_6dfc, 0x5338_0d13],
        [0x650a_7354, 0x766a_0abb, 0x81c2_c92e, 0x9272_2c85],
        [0xa2bf_e8a1, 0xa81a_664b, 0xc24b_8b70, 0xc76c_51a3],
        [0xd192_e819, 0xd699_0624, 0xf40e_3585, 0x106a_a070],
        [0x19a4_c116, 0x1e37_6c08, 0x2748_774c, 0x34b0_bcb5],
        [0x391c_0cb3, 0x4ed8_aa4a, 0x5b9c_ca4f, 0x682e_6ff3],
        [0x748f_82ee, 0x78a5_636f, 0x84c8_7814, 0x8cc7_0208],
        [0x90be_fffa, 0xa450_6ceb, 0xbef9_a3f7, 0xc671_78f2],
    ];

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

    /// The working variables as the instructions want them.
    #[derive(Clone, Copy)]
    struct Lane {
        abef: __m128i,
        cdgh: __m128i,
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

    /// Two rounds, and two more; `input` is the sum of four words of the schedule and their constants.
    #[inline]
    #[target_feature(enable = "sha,sse2")]
    fn four_rounds(Lane { abef, cdgh }: Lane, input: __m128i) -> Lane {
        // After two rounds the old a, b, e, f are the new c, d, g, h.
        let next = _mm_sha256rnds2_epu32(cdgh, abef, input);
        let upper = _mm_shuffle_epi32::<0b1110>(input);
        Lane { abef: _mm_sha256rnds2_epu32(abef, next, upper), cdgh: next }
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

    #[inline]
    #[target_feature(enable = "sse2")]
    fn add(a: Lane, b: Lane) -> Lane {
        Lane { abef: _mm_add_epi32(a.abef, b.abef), cdgh: _mm_add_epi32(a.cdgh, b.cdgh) }
    }

    #[inline]
    #[target_feature(enable = "sse2")]
    fn load(state: &State) -> Lane {
        let [a, b, c, d, e, f, g, h] = state.map(u32::cast_signed);
        Lane { abef: _mm_set_epi32(a, b, e, f), cdgh: _mm_set_epi32(c, d, g, h) }
    }

    #[inline]
    #[target_feature(enable = "sse2,sse4.1")]
    fn store(Lane { abef, cdgh }: Lane) -> State {
        let [a, b] = [_mm_extract_epi32::<3>(abef), _mm_extract_epi32::<2>(abef)];
        let [c, d] = [_mm_extract_epi32::<3>(cdgh), _mm_extract_epi32::<2>(cdgh)];
        let [e, f] = [_mm_extract_epi32::<1>(abef), _mm_extract_epi32::<0>(abef)];
        let [g, h] = [_mm_extract_epi32::<1>(cdgh), _mm_extract_epi32::<0>(cdgh)];
        [a, b, c, d, e, f, g, h].map(i32::cast_unsigned)
    }
}

#[cfg(not(target_arch = "x86_64"))]
mod sha_extensions {
    use super::{Block, State};

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
#[path = "sha256_pair_tests.rs"]
mod tests;
