//! Eight SHA-256 in the elements of vectors: a vector has the same variable, or the same word, of all eight.
//!
//! Rotations and functions of three operands are single instructions of AVX-512, here on vectors of 256 bits: sixteen hashes
//! in 512 bits are faster still, but seldom is there so much to hash at a time.

/// So many go at the same time.
pub(super) const LANES: usize = 8;

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::{
        __m256i, _MM_HINT_T0, _mm_prefetch, _mm256_add_epi32, _mm256_extract_epi32,
        _mm256_permute2x128_si256, _mm256_ror_epi32, _mm256_set_epi32, _mm256_set_epi64x, _mm256_set1_epi32,
        _mm256_setzero_si256, _mm256_shuffle_epi8, _mm256_srli_epi32, _mm256_ternarylogic_epi32,
        _mm256_unpackhi_epi32, _mm256_unpackhi_epi64, _mm256_unpacklo_epi32, _mm256_unpacklo_epi64,
    };

    use super::super::state::{BLOCK_LEN, Block, Group, K, State};
    use super::LANES;

    /// That this processor has the instructions: there is no other way to one of these than to have asked it.
    #[derive(Debug, Clone, Copy)]
    pub(in super::super) struct Wide(());

    impl Wide {
        /// The standard library asks the processor once and remembers.
        pub(in super::super) fn detect() -> Option<Self> {
            let all = is_x86_feature_detected!("avx2")
                && is_x86_feature_detected!("avx512f")
                && is_x86_feature_detected!("avx512vl");
            all.then_some(Self(()))
        }

        /// Advances each state over its groups; all have as many. Fewer than eight take as long as eight, more there can't be.
        #[expect(unsafe_code, reason = "instructions that not every x86-64 has")]
        pub(in super::super) fn compress<const N: usize>(
            self,
            states: &mut [State; N],
            groups: [&[Group]; N],
        ) {
            const { assert!(N > 0 && N <= LANES) };
            // What is in the lanes that are not needed is for nothing.
            let filled = std::array::from_fn(|lane| groups[lane.min(N - 1)].as_flattened());
            let mut all = [states[N - 1]; LANES];
            all[..N].copy_from_slice(states);
            // SAFETY: `self` exists, so `detect` has found all features that `compress` is compiled with.
            unsafe { compress(&mut all, filled) }
            states.copy_from_slice(&all[..N]);
        }
    }

    /// The working variables a to h, or eight words of the schedule.
    type Eight = [__m256i; 8];

    #[target_feature(enable = "avx2,avx512f,avx512vl")]
    fn compress(states: &mut [State; LANES], blocks: [&[Block]; LANES]) {
        let count = blocks.iter().map(|blocks| blocks.len()).min().unwrap_or(0);
        let blocks = blocks.map(|blocks| &blocks[..count]);
        let mut variables: Eight = std::array::from_fn(|i| vector(states.map(|state| state[i])));
        for block in 0..count {
            let (block, before) = (blocks.map(|blocks| &blocks[block]), variables);
            block.iter().for_each(|block| prefetch(block));
            let words = [half::<0>(block), half::<1>(block)];
            variables = sixteen_rounds::<0>(variables, words);
            let words = schedule(words);
            variables = sixteen_rounds::<1>(variables, words);
            let words = schedule(words);
            variables = sixteen_rounds::<2>(variables, words);
            variables = sixteen_rounds::<3>(variables, schedule(words));
            variables = std::array::from_fn(|i| add(variables[i], before[i]));
        }
        let words = variables.map(|variable| elements(variable));
        *states = std::array::from_fn(|lane| words.map(|word| word[lane]));
    }

    #[inline]
    #[target_feature(enable = "avx2,avx512f,avx512vl")]
    fn sixteen_rounds<const Q: usize>(variables: Eight, [first, second]: [Eight; 2]) -> Eight {
        let variables = eight_rounds(variables, first, [K[4 * Q], K[4 * Q + 1]]);
        eight_rounds(variables, second, [K[4 * Q + 2], K[4 * Q + 3]])
    }

    /// After eight rounds each variable is in its place again (FIPS 180-4, section 6.2.2, step 3).
    #[inline]
    #[target_feature(enable = "avx2,avx512f,avx512vl")]
    fn eight_rounds([a, b, c, d, e, f, g, h]: Eight, w: Eight, k: [[u32; 4]; 2]) -> Eight {
        let [[k0, k1, k2, k3], [k4, k5, k6, k7]] = k;
        let (d, h) = round([a, b, c, d, e, f, g, h], w[0], k0);
        let (c, g) = round([h, a, b, c, d, e, f, g], w[1], k1);
        let (b, f) = round([g, h, a, b, c, d, e, f], w[2], k2);
        let (a, e) = round([f, g, h, a, b, c, d, e], w[3], k3);
        let (h, d) = round([e, f, g, h, a, b, c, d], w[4], k4);
        let (g, c) = round([d, e, f, g, h, a, b, c], w[5], k5);
        let (f, b) = round([c, d, e, f, g, h, a, b], w[6], k6);
        let (e, a) = round([b, c, d, e, f, g, h, a], w[7], k7);
        [a, b, c, d, e, f, g, h]
    }

    /// What becomes of d and h. The others only change their names.
    #[inline]
    #[target_feature(enable = "avx2,avx512f,avx512vl")]
    fn round([a, b, c, d, e, f, g, h]: Eight, w: __m256i, k: u32) -> (__m256i, __m256i) {
        let input = add(h, add(w, _mm256_set1_epi32(k.cast_signed())));
        let t1 = add(input, add(big_sigma1(e), choose(e, f, g)));
        (add(d, t1), add(t1, add(big_sigma0(a), majority(a, b, c))))
    }

    /// The next sixteen words (section 6.2.2, step 1).
    #[inline]
    #[target_feature(enable = "avx2,avx512f,avx512vl")]
    fn schedule([first, second]: [Eight; 2]) -> [Eight; 2] {
        // Written out: a loop would keep them in memory.
        let ([w0, w1, w2, w3, w4, w5, w6, w7], [w8, w9, w10, w11, w12, w13, w14, w15]) = (first, second);
        let w0 = next_word(w0, w1, w9, w14);
        let w1 = next_word(w1, w2, w10, w15);
        let w2 = next_word(w2, w3, w11, w0);
        let w3 = next_word(w3, w4, w12, w1);
        let w4 = next_word(w4, w5, w13, w2);
        let w5 = next_word(w5, w6, w14, w3);
        let w6 = next_word(w6, w7, w15, w4);
        let w7 = next_word(w7, w8, w0, w5);
        let w8 = next_word(w8, w9, w1, w6);
        let w9 = next_word(w9, w10, w2, w7);
        let w10 = next_word(w10, w11, w3, w8);
        let w11 = next_word(w11, w12, w4, w9);
        let w12 = next_word(w12, w13, w5, w10);
        let w13 = next_word(w13, w14, w6, w11);
        let w14 = next_word(w14, w15, w7, w12);
        let w15 = next_word(w15, w0, w8, w13);
        [[w0, w1, w2, w3, w4, w5, w6, w7], [w8, w9, w10, w11, w12, w13, w14, w15]]
    }

    /// From those 16, 15, 7 and 2 places before.
    #[inline]
    #[target_feature(enable = "avx2,avx512f,avx512vl")]
    fn next_word(w16: __m256i, w15: __m256i, w7: __m256i, w2: __m256i) -> __m256i {
        add(add(w16, sigma0(w15)), add(w7, sigma1(w2)))
    }

    /// Section 4.1.2, (4.2).
    #[inline]
    #[target_feature(enable = "avx512f,avx512vl")]
    fn choose(x: __m256i, y: __m256i, z: __m256i) -> __m256i {
        _mm256_ternarylogic_epi32::<0b1100_1010>(x, y, z)
    }

    /// (4.3).
    #[inline]
    #[target_feature(enable = "avx512f,avx512vl")]
    fn majority(x: __m256i, y: __m256i, z: __m256i) -> __m256i {
        _mm256_ternarylogic_epi32::<0b1110_1000>(x, y, z)
    }

    /// (4.4).
    #[inline]
    #[target_feature(enable = "avx512f,avx512vl")]
    fn big_sigma0(x: __m256i) -> __m256i {
        xor(_mm256_ror_epi32::<2>(x), _mm256_ror_epi32::<13>(x), _mm256_ror_epi32::<22>(x))
    }

    /// (4.5).
    #[inline]
    #[target_feature(enable = "avx512f,avx512vl")]
    fn big_sigma1(x: __m256i) -> __m256i {
        xor(_mm256_ror_epi32::<6>(x), _mm256_ror_epi32::<11>(x), _mm256_ror_epi32::<25>(x))
    }

    /// (4.6).
    #[inline]
    #[target_feature(enable = "avx2,avx512f,avx512vl")]
    fn sigma0(x: __m256i) -> __m256i {
        xor(_mm256_ror_epi32::<7>(x), _mm256_ror_epi32::<18>(x), _mm256_srli_epi32::<3>(x))
    }

    /// (4.7).
    #[inline]
    #[target_feature(enable = "avx2,avx512f,avx512vl")]
    fn sigma1(x: __m256i) -> __m256i {
        xor(_mm256_ror_epi32::<17>(x), _mm256_ror_epi32::<19>(x), _mm256_srli_epi32::<10>(x))
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512vl")]
    fn xor(x: __m256i, y: __m256i, z: __m256i) -> __m256i {
        _mm256_ternarylogic_epi32::<0b1001_0110>(x, y, z)
    }

    #[inline]
    #[target_feature(enable = "avx2")]
    fn add(x: __m256i, y: __m256i) -> __m256i {
        _mm256_add_epi32(x, y)
    }

    /// What another core has received is far away, and eight streams are more than the processor foresees.
    #[inline]
    #[expect(unsafe_code, reason = "the instruction takes a pointer")]
    fn prefetch(block: &Block) {
        const AHEAD: usize = 8 * BLOCK_LEN;
        // SAFETY: it is a hint, which is allowed to name any address (Intel SDM, volume 2, PREFETCHh).
        unsafe { _mm_prefetch::<_MM_HINT_T0>(block.as_ptr().wrapping_add(AHEAD).cast()) }
    }

    /// Eight words of the message, big-endian: those of the first half of each block, or of the second.
    #[inline]
    #[target_feature(enable = "avx2")]
    fn half<const H: usize>(blocks: [&Block; LANES]) -> Eight {
        let (low, high) = (0x0405_0607_0001_0203, 0x0C0D_0E0F_0809_0A0B);
        let swap = _mm256_set_epi64x(high, low, high, low);
        transposed(blocks.map(|block| {
            let (parts, _) = block.as_chunks();
            // Four next to each other become one load.
            let [p0, p1, p2, p3] = [0, 1, 2, 3].map(|i| i64::from_le_bytes(parts[4 * H + i]));
            _mm256_shuffle_epi8(_mm256_set_epi64x(p3, p2, p1, p0), swap)
        }))
    }

    /// From eight words of a lane to one word of eight lanes.
    #[inline]
    #[target_feature(enable = "avx2")]
    fn transposed(rows: Eight) -> Eight {
        let mut pairs = [_mm256_setzero_si256(); 8];
        for i in [0, 2, 4, 6] {
            pairs[i] = _mm256_unpacklo_epi32(rows[i], rows[i + 1]);
            pairs[i + 1] = _mm256_unpackhi_epi32(rows[i], rows[i + 1]);
        }
        let mut fours = pairs;
        for i in [0, 4] {
            fours[i] = _mm256_unpacklo_epi64(pairs[i], pairs[i + 2]);
            fours[i + 1] = _mm256_unpackhi_epi64(pairs[i], pairs[i + 2]);
            fours[i + 2] = _mm256_unpacklo_epi64(pairs[i + 1], pairs[i + 3]);
            fours[i + 3] = _mm256_unpackhi_epi64(pairs[i + 1], pairs[i + 3]);
        }
        let mut words = fours;
        for i in 0..4 {
            words[i] = _mm256_permute2x128_si256::<0x20>(fours[i], fours[i + 4]);
            words[i + 4] = _mm256_permute2x128_si256::<0x31>(fours[i], fours[i + 4]);
        }
        words
    }

    #[inline]
    #[target_feature(enable = "avx2")]
    fn vector(elements: [u32; 8]) -> __m256i {
        let [e0, e1, e2, e3, e4, e5, e6, e7] = elements.map(u32::cast_signed);
        _mm256_set_epi32(e7, e6, e5, e4, e3, e2, e1, e0)
    }

    #[inline]
    #[target_feature(enable = "avx2")]
    fn elements(vector: __m256i) -> [u32; 8] {
        let [e0, e1] = [_mm256_extract_epi32::<0>(vector), _mm256_extract_epi32::<1>(vector)];
        let [e2, e3] = [_mm256_extract_epi32::<2>(vector), _mm256_extract_epi32::<3>(vector)];
        let [e4, e5] = [_mm256_extract_epi32::<4>(vector), _mm256_extract_epi32::<5>(vector)];
        let [e6, e7] = [_mm256_extract_epi32::<6>(vector), _mm256_extract_epi32::<7>(vector)];
        [e0, e1, e2, e3, e4, e5, e6, e7].map(i32::cast_unsigned)
    }
}

#[cfg(target_arch = "x86_64")]
pub(super) use self::x86::Wide;

#[cfg(not(target_arch = "x86_64"))]
pub(super) use self::none::Wide;

#[cfg(not(target_arch = "x86_64"))]
mod none {
    use super::super::state::{Group, State};

    /// No such instructions here, and no value of this type.
    #[derive(Debug, Clone, Copy)]
    pub(in super::super) enum Wide {}

    impl Wide {
        pub(in super::super) fn detect() -> Option<Self> {
            None
        }

        pub(in super::super) fn compress<const N: usize>(self, _: &mut [State; N], _: [&[Group]; N]) {
            match self {}
        }
    }
}
