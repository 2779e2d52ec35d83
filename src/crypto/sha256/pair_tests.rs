use proptest::prelude::*;
use sha2::digest::common::hazmat::SerializableState as _;

use super::*;

/// Both ways to begin a pair.
const WAYS: [fn(Sha256, Sha256) -> Sha256Pair; 2] = [Sha256Pair::lockstep, Sha256Pair::apart];

/// No two blocks alike, so that one left out or taken twice shows.
fn bytes(len: usize) -> Vec<u8> {
    (0..len as u32).map(|i| (i.wrapping_mul(0x9E37_79B1) >> 24) as u8).collect()
}

/// What one hash must be in the end, and what the pair made of it.
fn assert_same(hash: Sha256, expected: &[&[u8]], context: &str) {
    let expected = Sha256::new_with_prefix(expected.concat());
    assert_eq!(hash.serialize(), expected.serialize(), "{context}");
    assert_eq!(hash.finalize(), expected.finalize(), "{context}");
}

/// Lengths at the edges of blocks and of what is worthwhile.
fn len() -> impl Strategy<Value = usize> {
    prop_oneof![
        prop::sample::select(vec![
            0, 1, 55, 56, 63, 64, 65, 127, 128, 129, 511, 512, 513, 575, 576, 577, 1023, 1024, 1025
        ]),
        0_usize..1500,
    ]
}

proptest! {
    #[test]
    fn any_pieces_after_any_prefixes_are_as_from_sha2(
        first in len(), second in len(), pieces in prop::collection::vec(len(), 0..8), apart: bool,
    ) {
        let (first, mut second) = (bytes(first), bytes(second));
        second.iter_mut().for_each(|byte| *byte ^= 0xFF);
        let all = bytes(pieces.iter().sum());
        let begin = WAYS[usize::from(apart)];
        let mut pair = begin(Sha256::new_with_prefix(&first), Sha256::new_with_prefix(&second));
        let mut rest = &all[..];
        for piece in pieces {
            let (piece, after) = rest.split_at(piece);
            pair.update(piece);
            rest = after;
        }
        let (one, other) = pair.split();
        assert_same(one, &[&first, &all], "first");
        assert_same(other, &[&second, &all], "second");
    }
}

#[test]
fn every_length_around_the_edges_of_blocks() {
    let all = bytes(WORTHWHILE + 130);
    for begin in WAYS {
        for prefix in [0, 1, 63, 64, 65] {
            for len in (0..=130).chain(WORTHWHILE - 1..=all.len()) {
                let (bytes, prefix) = (&all[..len], &all[..prefix]);
                for piece in [1, 63, 64, 65, WORTHWHILE, WORTHWHILE + 63, WORTHWHILE + 65, all.len()] {
                    // The second has taken a block more: as many bytes of a begun one, but other bytes.
                    let second = [&[7; 64][..], &vec![9; prefix.len()]].concat();
                    let mut pair = begin(Sha256::new_with_prefix(prefix), Sha256::new_with_prefix(&second));
                    bytes.chunks(piece).for_each(|piece| pair.update(piece));
                    let context = format!("{len} in pieces of {piece} after {}", prefix.len());
                    let (one, other) = pair.split();
                    assert_same(one, &[prefix, bytes], &context);
                    assert_same(other, &[&second, bytes], &context);
                }
            }
        }
    }
}

#[test]
fn a_chunk_and_its_file() {
    let (before, chunk) = (bytes(4 << 16), bytes(100_001));
    for begin in WAYS {
        let mut pair = begin(Sha256::new(), Sha256::new_with_prefix(&before));
        chunk.chunks(16_384).for_each(|piece| pair.update(piece));
        let (alone, file) = pair.split();
        assert_same(alone, &[&chunk], "the chunk");
        assert_same(file, &[&before, &chunk], "the file");
    }
}

#[test]
fn a_clone_goes_its_own_way() {
    let [begun, then, otherwise] = [vec![2; 1000], vec![3; 2000], vec![4; 3000]];
    for begin in WAYS {
        let mut pair = begin(Sha256::new(), Sha256::new_with_prefix([1; 64]));
        pair.update(&begun);
        let mut clone = pair.clone();
        pair.update(&then);
        clone.update(&otherwise);
        let ((one, other), (cloned_one, cloned_other)) = (pair.split(), clone.split());
        assert_same(one, &[&begun, &then], "first");
        assert_same(other, &[&[1; 64], &begun, &then], "second");
        assert_same(cloned_one, &[&begun, &otherwise], "first of the clone");
        assert_same(cloned_other, &[&[1; 64], &begun, &otherwise], "second of the clone");
    }
}

/// NIST's vectors: 56 bytes, which is two blocks when padded, and a million times "a" after prefixes of it.
#[test]
fn known_vectors() {
    let hex = |hash: Sha256| hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    for begin in WAYS {
        let mut pair = begin(Sha256::new(), Sha256::new());
        pair.update(b"abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq");
        let (one, other) = pair.split();
        assert_eq!(hex(one), "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1");
        assert_eq!(hex(other), "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1");

        let mut pair = begin(Sha256::new_with_prefix([b'a'; 640]), Sha256::new_with_prefix([b'a'; 64]));
        pair.update(&[b'a'; 1_000_000 - 640]);
        let (one, mut other) = pair.split();
        other.update([b'a'; 576]);
        assert_eq!(hex(one), "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
        assert_eq!(hex(other), "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
    }
}

/// The properties above hold on any machine; this says that the fast way is among what they test.
#[cfg(target_arch = "x86_64")]
#[test]
fn goes_in_lockstep_where_it_can() {
    let able = ShaExtensions::detect().is_some();
    let lockstep = |first: usize, second: usize| {
        let pair = Sha256Pair::lockstep(
            Sha256::new_with_prefix(bytes(first)),
            Sha256::new_with_prefix(bytes(second)),
        );
        pair.lockstep.is_some()
    };
    assert_eq!(lockstep(0, 0), able);
    assert_eq!(lockstep(0, 1 << 20), able);
    assert_eq!(lockstep(63, 127), able);
    assert!(!lockstep(0, 63));
    assert!(!lockstep(1, 2));
    let pair = Sha256Pair::new(Sha256::new(), Sha256::new());
    assert_eq!(pair.lockstep.is_some(), able && !cfg!(debug_assertions), "optimised builds do it");
}
