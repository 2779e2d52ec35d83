//! The working variables in the registers of Intel's SHA Extensions, and the rounds.

use std::arch::x86_64::{
    __m128i, _mm_add_epi32, _mm_extract_epi32, _mm_set_epi32, _mm_sha256rnds2_epu32, _mm_shuffle_epi32,
};

use super::state::State;

/// The working variables as the instructions want them.
#[derive(Clone, Copy)]
pub(super) struct Variables {
    abef: __m128i,
    cdgh: __m128i,
}

/// Two rounds, and two more; `input` is the sum of four words of the schedule and their constants.
#[inline]
#[target_feature(enable = "sha,sse2")]
pub(super) fn four_rounds(Variables { abef, cdgh }: Variables, input: __m128i) -> Variables {
    // After two rounds the old a, b, e, f are the new c, d, g, h.
    let next = _mm_sha256rnds2_epu32(cdgh, abef, input);
    let upper = _mm_shuffle_epi32::<0b1110>(input);
    Variables { abef: _mm_sha256rnds2_epu32(abef, next, upper), cdgh: next }
}

#[inline]
#[target_feature(enable = "sse2")]
pub(super) fn add(a: Variables, b: Variables) -> Variables {
    Variables { abef: _mm_add_epi32(a.abef, b.abef), cdgh: _mm_add_epi32(a.cdgh, b.cdgh) }
}

#[inline]
#[target_feature(enable = "sse2")]
pub(super) fn load(state: &State) -> Variables {
    let [a, b, c, d, e, f, g, h] = state.map(u32::cast_signed);
    Variables { abef: _mm_set_epi32(a, b, e, f), cdgh: _mm_set_epi32(c, d, g, h) }
}

#[inline]
#[target_feature(enable = "sse2,sse4.1")]
pub(super) fn store(Variables { abef, cdgh }: Variables) -> State {
    let [a, b] = [_mm_extract_epi32::<3>(abef), _mm_extract_epi32::<2>(abef)];
    let [c, d] = [_mm_extract_epi32::<3>(cdgh), _mm_extract_epi32::<2>(cdgh)];
    let [e, f] = [_mm_extract_epi32::<1>(abef), _mm_extract_epi32::<0>(abef)];
    let [g, h] = [_mm_extract_epi32::<1>(cdgh), _mm_extract_epi32::<0>(cdgh)];
    [a, b, c, d, e, f, g, h].map(i32::cast_unsigned)
}
