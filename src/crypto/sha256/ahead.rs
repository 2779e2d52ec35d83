//! Several SHA-256 in lockstep, while the message schedules of the blocks that come next are computed.
//!
//! The unit of the SHA Extensions has nothing but rounds to do: the message schedules of a group of blocks are computed beside it, in
//! vectors of AVX-512 (a schedule depends on the bytes alone, so each element of a vector belongs to another block). On a
//! Zen 5 core two, three and four hashes take 0.66, 0.61 and 0.56 of the time that they take one after the other. On Intel's
//! cores (seen on an Emerald Rapids) it takes a hundred times as long: the SHA Extensions have the encoding of SSE, and wait wherever the
//! upper halves of vector registers are in use. So it is only done where it was [measured](super::ways).

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::{
        __m128i, __m512i, _MM_HINT_T0, _mm_prefetch, _mm_set_epi32, _mm_set_epi64x, _mm512_add_epi32,
        _mm512_broadcast_i32x4, _mm512_castsi128_si512, _mm512_inserti32x4, _mm512_ror_epi32,
        _mm512_setzero_si512, _mm512_shuffle_epi8, _mm512_srli_epi32, _mm512_ternarylogic_epi32,
        _mm512_unpackhi_epi32, _mm512_unpackhi_epi64, _mm512_unpacklo_epi32, _mm512_unpacklo_epi64,
    };

    use super::super::sha_ni::{Variables, add, four_rounds, load, store};
    use super::super::state::{Block, Group, K, State};

    /// That this processor has the instructions: there is no other way to one of these than to have asked it.
    #[derive(Debug, Clone, Copy)]
    pub(in super::super) struct Ahead(());

    impl Ahead {
        /// The standard library asks the processor once and remembers.
        pub(in super::super) fn detect() -> Option<Self> {
            let all = is_x86_feature_detected!("sha")
                && is_x86_feature_detected!("ssse3")
                && is_x86_feature_detected!("sse4.1")
                && is_x86_feature_detected!("avx512f")
                && is_x86_feature_detected!("avx512bw");
            all.then_some(Self(()))
        }

        /// Advances each state over its groups; all have as many.
        #[expect(unsafe_code, reason = "instructions that not every x86-64 has")]
        pub(in super::super) fn compress<const N: usize>(
            self,
            states: &mut [State; N],
            groups: [&[Group]; N],
        ) {
            // SAFETY: `self` exists, so `detect` has found all features that `compress` is compiled with.
            unsafe { compress(states, groups) }
        }
    }

    /// Four words of the schedules of a group: vector `i` has those of blocks `i`, `i + 4`, `i + 8` and `i + 12`.
    type Words = [__m512i; 4];

    /// The schedules of a group in each lane, with the constants added, for four rounds at a time.
    type Schedules<const N: usize> = [[Words; N]; 16];

    /// The last sixteen words of the schedules of a group. A vector has the same word of all blocks.
    type Window = [__m512i; 16];

    #[target_feature(enable = "sha,ssse3,sse4.1,avx512f,avx512bw")]
    fn compress<const N: usize>(states: &mut [State; N], groups: [&[Group]; N]) {
        let count = groups.iter().map(|groups| groups.len()).min().unwrap_or(0);
        let Some(last) = count.checked_sub(1) else { return };
        let groups = groups.map(|groups| &groups[..count]);
        let mut variables = states.each_ref().map(|state| load(state));
        let zero = _mm512_setzero_si512();
        let mut windows = [[zero; 16]; N];
        let mut schedules = [[[[zero; 4]; N]; 16]; 2];
        let [now, next] = &mut schedules;
        let (mut now, mut next) = (now, next);
        for quarter in 0..4 {
            let first = groups.map(|groups| &groups[0]);
            schedule::<N, 0>(next, &mut windows, first, quarter);
            schedule::<N, 1>(next, &mut windows, first, quarter);
            schedule::<N, 2>(next, &mut windows, first, quarter);
            schedule::<N, 3>(next, &mut windows, first, quarter);
        }
        for group in 0..count {
            std::mem::swap(&mut now, &mut next);
            // Behind the last one that one again: it is for nothing, but nothing has to be asked in the loop.
            let following = groups.map(|groups| &groups[(group + 1).min(last)]);
            let then = groups.map(|groups| groups.as_ptr().wrapping_add(group + 2));
            for quarter in 0..4 {
                // A sixteenth of the one, and a block of the other: the processor does both at once.
                let fetch = |i| then.iter().for_each(|group| prefetch(group.cast(), 4 * quarter + i));
                fetch(0);
                schedule::<N, 0>(next, &mut windows, following, quarter);
                block::<N, 0>(&mut variables, now, quarter);
                fetch(1);
                schedule::<N, 1>(next, &mut windows, following, quarter);
                block::<N, 1>(&mut variables, now, quarter);
                fetch(2);
                schedule::<N, 2>(next, &mut windows, following, quarter);
                block::<N, 2>(&mut variables, now, quarter);
                fetch(3);
                schedule::<N, 3>(next, &mut windows, following, quarter);
                block::<N, 3>(&mut variables, now, quarter);
            }
        }
        *states = variables.map(|variables| store(variables));
    }

    /// Four words of each lane's schedule, from `16 * quarter + 4 * I` on.
    #[inline]
    #[target_feature(enable = "sha,ssse3,sse4.1,avx512f,avx512bw")]
    fn schedule<const N: usize, const I: usize>(
        schedules: &mut Schedules<N>,
        windows: &mut [Window; N],
        groups: [&Group; N],
        quarter: usize,
    ) {
        let step = 4 * quarter + I;
        for lane in 0..N {
            let words = match quarter {
                0 => begin::<I>(groups[lane], &mut windows[lane]),
                _ => go_on::<I>(&mut windows[lane]),
            };
            schedules[step][lane] = with_constants(words, step);
        }
    }

    /// Block `4 * quarter + I` of each lane.
    #[inline]
    #[target_feature(enable = "sha,ssse3,sse4.1,avx512f,avx512bw")]
    fn block<const N: usize, const I: usize>(
        variables: &mut [Variables; N],
        schedules: &Schedules<N>,
        quarter: usize,
    ) {
        let before = *variables;
        for words in schedules {
            for lane in 0..N {
                // Side by side, so that each fills the time in which the others wait.
                variables[lane] = four_rounds(variables[lane], part(&words[lane][I], quarter));
            }
        }
        for lane in 0..N {
            variables[lane] = add(variables[lane], before[lane]);
        }
    }

    /// What another core has received is far away, and the lanes go too fast to wait for it.
    #[inline]
    #[expect(unsafe_code, reason = "the instruction takes a pointer")]
    fn prefetch(group: *const Block, block: usize) {
        // SAFETY: it is a hint, which is allowed to name any address (Intel SDM, volume 2, PREFETCHh).
        unsafe { _mm_prefetch::<_MM_HINT_T0>(group.wrapping_add(block).cast()) }
    }

    /// Words `4 * Q` to `4 * Q + 3` of a block are those of the message, big-endian.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw")]
    fn begin<const Q: usize>(group: &Group, window: &mut Window) -> Words {
        let swap = _mm_set_epi64x(0x0C0D_0E0F_0809_0A0B, 0x0405_0607_0001_0203);
        let words: Words = std::array::from_fn(|i| {
            let words = _mm512_castsi128_si512(sixteen_bytes::<Q>(&group[i]));
            let words = _mm512_inserti32x4::<1>(words, sixteen_bytes::<Q>(&group[i + 4]));
            let words = _mm512_inserti32x4::<2>(words, sixteen_bytes::<Q>(&group[i + 8]));
            let words = _mm512_inserti32x4::<3>(words, sixteen_bytes::<Q>(&group[i + 12]));
            _mm512_shuffle_epi8(words, _mm512_broadcast_i32x4(swap))
        });
        window[4 * Q..4 * Q + 4].copy_from_slice(&transposed(words));
        words
    }

    #[inline]
    #[target_feature(enable = "sse2")]
    fn sixteen_bytes<const Q: usize>(block: &Block) -> __m128i {
        let (halves, _) = block.as_chunks();
        // Two halves next to each other become one load.
        let [low, high] = [i64::from_le_bytes(halves[2 * Q]), i64::from_le_bytes(halves[2 * Q + 1])];
        _mm_set_epi64x(high, low)
    }

    /// The next four words, in the place `4 * Q` of those sixteen before (FIPS 180-4, section 6.2.2, step 1).
    #[inline]
    #[target_feature(enable = "avx512f")]
    fn go_on<const Q: usize>(window: &mut Window) -> Words {
        for i in 4 * Q..4 * Q + 4 {
            let [old, second, tenth, last_but_one] = [0, 1, 9, 14].map(|back| window[(i + back) % 16]);
            let sum = _mm512_add_epi32(_mm512_add_epi32(old, sigma0(second)), tenth);
            window[i] = _mm512_add_epi32(sum, sigma1(last_but_one));
        }
        transposed([window[4 * Q], window[4 * Q + 1], window[4 * Q + 2], window[4 * Q + 3]])
    }

    /// Section 4.1.2, (4.6).
    #[inline]
    #[target_feature(enable = "avx512f")]
    fn sigma0(x: __m512i) -> __m512i {
        xor(_mm512_ror_epi32::<7>(x), _mm512_ror_epi32::<18>(x), _mm512_srli_epi32::<3>(x))
    }

    /// Section 4.1.2, (4.7).
    #[inline]
    #[target_feature(enable = "avx512f")]
    fn sigma1(x: __m512i) -> __m512i {
        xor(_mm512_ror_epi32::<17>(x), _mm512_ror_epi32::<19>(x), _mm512_srli_epi32::<10>(x))
    }

    #[inline]
    #[target_feature(enable = "avx512f")]
    fn xor(x: __m512i, y: __m512i, z: __m512i) -> __m512i {
        _mm512_ternarylogic_epi32::<0b1001_0110>(x, y, z)
    }

    #[inline]
    #[target_feature(enable = "avx512f")]
    fn with_constants(words: Words, step: usize) -> Words {
        let [k0, k1, k2, k3] = K[step].map(u32::cast_signed);
        words.map(|words| _mm512_add_epi32(words, _mm512_broadcast_i32x4(_mm_set_epi32(k3, k2, k1, k0))))
    }

    /// From four words of a block in each quarter of a vector to one word of four blocks, and back.
    #[inline]
    #[target_feature(enable = "avx512f")]
    fn transposed([a, b, c, d]: Words) -> Words {
        let [low, high] = [_mm512_unpacklo_epi32(a, b), _mm512_unpackhi_epi32(a, b)];
        let [low2, high2] = [_mm512_unpacklo_epi32(c, d), _mm512_unpackhi_epi32(c, d)];
        [
            _mm512_unpacklo_epi64(low, low2),
            _mm512_unpackhi_epi64(low, low2),
            _mm512_unpacklo_epi64(high, high2),
            _mm512_unpackhi_epi64(high, high2),
        ]
    }

    /// A quarter of a vector in memory.
    #[inline]
    #[expect(unsafe_code, reason = "to load a part of a vector")]
    fn part(words: &__m512i, quarter: usize) -> __m128i {
        // SAFETY: both are plain bits, four of the one are as large as the other, which needs no more alignment.
        let parts: &[__m128i; 4] = unsafe { &*std::ptr::from_ref(words).cast() };
        parts[quarter]
    }
}

#[cfg(target_arch = "x86_64")]
pub(super) use self::x86::Ahead;

#[cfg(not(target_arch = "x86_64"))]
pub(super) use self::none::Ahead;

#[cfg(not(target_arch = "x86_64"))]
mod none {
    use super::super::state::{Group, State};

    /// No such instructions here, and no value of this type.
    #[derive(Debug, Clone, Copy)]
    pub(in super::super) enum Ahead {}

    impl Ahead {
        pub(in super::super) fn detect() -> Option<Self> {
            None
        }

        pub(in super::super) fn compress<const N: usize>(self, _: &mut [State; N], _: [&[Group]; N]) {
            match self {}
        }
    }
}
