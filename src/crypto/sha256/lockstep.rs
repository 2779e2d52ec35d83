//! SHA-256 in lockstep by Intel's SHA Extensions (Gulley et al., *Intel SHA Extensions*, 2013).
//!
//! A single hash waits most of the time: each pair of its rounds needs the result of the one before, and the unit could begin
//! others meanwhile. Hashes that don't wait for each other fill it.

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::{
        __m128i, _mm_add_epi32, _mm_alignr_epi8, _mm_set_epi32, _mm_set_epi64x, _mm_sha256msg1_epu32,
        _mm_sha256msg2_epu32, _mm_shuffle_epi8,
    };

    use super::super::sha_ni::{add, four_rounds, load, store};
    use super::super::state::{Block, Group, K, State};

    /// That this processor has the instructions: there is no other way to one of these than to have asked it.
    #[derive(Debug, Clone, Copy)]
    pub(in super::super) struct ShaExtensions(());

    impl ShaExtensions {
        /// The standard library asks the processor once and remembers.
        pub(in super::super) fn detect() -> Option<Self> {
            let all = is_x86_feature_detected!("sha")
                && is_x86_feature_detected!("ssse3")
                && is_x86_feature_detected!("sse4.1");
            all.then_some(Self(()))
        }

        /// Advances both states over the same blocks. They share the message schedule, which depends on the bytes alone.
        #[expect(unsafe_code, reason = "instructions that not every x86-64 has")]
        pub(in super::super) fn over_the_same(self, states: &mut [State; 2], blocks: &[Block]) {
            // SAFETY: `self` exists, so `detect` has found all features that `over_the_same` is compiled with.
            unsafe { over_the_same(states, blocks) }
        }

        /// Advances each state over its groups; all have as many.
        #[expect(unsafe_code, reason = "instructions that not every x86-64 has")]
        pub(in super::super) fn compress<const N: usize>(
            self,
            states: &mut [State; N],
            groups: [&[Group]; N],
        ) {
            // SAFETY: `self` exists, so `detect` has found all features that `compress` is compiled with.
            unsafe { compress(states, groups.map(<[Group]>::as_flattened)) }
        }
    }

    #[target_feature(enable = "sha,sse2,ssse3,sse4.1")]
    fn over_the_same(states: &mut [State; 2], blocks: &[Block]) {
        let [mut first, mut second] = [load(&states[0]), load(&states[1])];
        for block in blocks {
            let before = [first, second];
            let mut schedule = words(block);
            for step in 0..16 {
                if step >= 4 {
                    schedule = next_words(schedule);
                }
                let input = with_constants(schedule[step.min(3)], step);
                // Side by side, so that each fills the time in which the other waits.
                first = four_rounds(first, input);
                second = four_rounds(second, input);
            }
            first = add(first, before[0]);
            second = add(second, before[1]);
        }
        *states = [store(first), store(second)];
    }

    #[target_feature(enable = "sha,sse2,ssse3,sse4.1")]
    fn compress<const N: usize>(states: &mut [State; N], blocks: [&[Block]; N]) {
        let count = blocks.iter().map(|blocks| blocks.len()).min().unwrap_or(0);
        let blocks = blocks.map(|blocks| &blocks[..count]);
        let mut variables = states.each_ref().map(|state| load(state));
        for block in 0..count {
            let (block, before) = (blocks.map(|blocks| &blocks[block]), variables);
            let mut schedules: [_; N] = block.map(|block| words(block));
            for step in 0..16 {
                for lane in 0..N {
                    if step >= 4 {
                        schedules[lane] = next_words(schedules[lane]);
                    }
                    let input = with_constants(schedules[lane][step.min(3)], step);
                    variables[lane] = four_rounds(variables[lane], input);
                }
            }
            for lane in 0..N {
                variables[lane] = add(variables[lane], before[lane]);
            }
        }
        *states = variables.map(|variables| store(variables));
    }

    #[inline]
    #[target_feature(enable = "sse2")]
    fn with_constants(words: __m128i, step: usize) -> __m128i {
        let [k0, k1, k2, k3] = K[step].map(u32::cast_signed);
        _mm_add_epi32(words, _mm_set_epi32(k3, k2, k1, k0))
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

#[cfg(target_arch = "x86_64")]
pub(super) use self::x86::ShaExtensions;

#[cfg(not(target_arch = "x86_64"))]
pub(super) use self::none::ShaExtensions;

#[cfg(not(target_arch = "x86_64"))]
mod none {
    use super::super::state::{Block, Group, State};

    /// No such instructions here, and no value of this type.
    #[derive(Debug, Clone, Copy)]
    pub(in super::super) enum ShaExtensions {}

    impl ShaExtensions {
        pub(in super::super) fn detect() -> Option<Self> {
            None
        }

        pub(in super::super) fn over_the_same(self, _: &mut [State; 2], _: &[Block]) {
            match self {}
        }

        pub(in super::super) fn compress<const N: usize>(self, _: &mut [State; N], _: [&[Group]; N]) {
            match self {}
        }
    }
}
