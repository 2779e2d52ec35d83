use proptest::prelude::*;

use super::*;

/// No two blocks alike, and no two lanes.
fn bytes(lane: usize, len: usize) -> Bytes {
    (0..len as u32).map(|i| ((i + lane as u32 * 77).wrapping_mul(0x9E37_79B1) >> 24) as u8).collect()
}

/// Lengths at the edges of blocks and of groups.
fn len() -> impl Strategy<Value = usize> {
    let edges = [0, 1, 63, 64, 65, 1023, 1024, 1025, 1087, 1088, 2047, 2048, 2049, 3072, 5000];
    prop_oneof![prop::sample::select(edges.to_vec()), 0_usize..4000]
}

/// Each way that this processor has, taken wherever it can be.
fn plans() -> impl Strategy<Value = Plan> {
    let ways = Way::all();
    (0..=ways.len()).prop_map(move |way| ways.get(way).map_or_else(Plan::none, |way| way.always()))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn any_pieces_after_any_prefixes_are_as_from_sha2(
        uploads in prop::collection::vec((0_usize..200, prop::collection::vec(len(), 0..4)), 0..11),
        plan in plans(),
    ) {
        let prefixes: Vec<_> = uploads.iter().map(|(prefix, _)| vec![7; *prefix]).collect();
        let pieces: Vec<Vec<_>> = uploads
            .iter()
            .enumerate()
            .map(|(lane, (_, pieces))| pieces.iter().map(|&len| bytes(lane, len)).collect())
            .collect();
        let mut hashes: Vec<_> = prefixes.iter().map(Sha256::new_with_prefix).collect();
        let mut lanes: Vec<_> =
            hashes.iter_mut().zip(&pieces).map(|(hash, pieces)| Lane::new(hash, pieces)).collect();
        // As optimised builds do.
        at_the_same_time(&mut lanes, &plan);
        update(&mut lanes);
        for (lane, hash) in hashes.into_iter().enumerate() {
            let expected = pieces[lane].iter().fold(Sha256::new_with_prefix(&prefixes[lane]), |hash, piece| {
                hash.chain_update(piece)
            });
            prop_assert_eq!(hash.finalize(), expected.finalize(), "lane {}", lane);
        }
    }
}

/// What one begins the others end, for each number of lanes and groups.
#[test]
fn any_number_go_together() {
    for way in Way::all() {
        for (count, groups) in (0..=MOST + 3).flat_map(|count| [1, 2, 3].map(|groups| (count, groups))) {
            let pieces: Vec<_> =
                (0..count).map(|lane| [bytes(lane, groups * GROUP_LEN + lane * 100)]).collect();
            let mut hashes = vec![Sha256::new(); count];
            let mut lanes: Vec<_> =
                hashes.iter_mut().zip(&pieces).map(|(hash, pieces)| Lane::new(hash, pieces)).collect();
            at_the_same_time(&mut lanes, &way.always());
            lanes.iter_mut().for_each(Lane::alone);
            for (hash, [piece]) in hashes.into_iter().zip(&pieces) {
                assert_eq!(
                    hash.finalize(),
                    Sha256::digest(piece),
                    "{way:?}: {count} lanes of {groups} groups"
                );
            }
        }
    }
}

/// The tests here hold on any machine; this says that the fast ways are among what they test.
#[test]
fn go_at_the_same_time_where_they_can() {
    for way in Way::all() {
        let pieces = [bytes(0, GROUP_LEN), bytes(1, 3 * GROUP_LEN + 7)].map(|piece| [piece]);
        let mut hashes = [Sha256::new(), Sha256::new()];
        let [first, second] = &mut hashes;
        let mut lanes = [Lane::new(first, &pieces[0]), Lane::new(second, &pieces[1])];
        at_the_same_time(&mut lanes, &way.always());
        let left = lanes.map(|lane| lane.bytes.len() + lane.pieces.map(Bytes::len).sum::<usize>());
        assert_eq!(left, [0, 2 * GROUP_LEN + 7], "{way:?}");
    }
}

/// NIST's vectors: a million times "a", behind different beginnings of it.
#[test]
fn known_vector() {
    for way in Way::all() {
        let rest: Vec<_> = (0..MOST).map(|lane| [Bytes::from(vec![b'a'; 1_000_000 - 50 * lane])]).collect();
        let mut hashes: Vec<_> =
            (0..MOST).map(|lane| Sha256::new_with_prefix(vec![b'a'; 50 * lane])).collect();
        let mut lanes: Vec<_> =
            hashes.iter_mut().zip(&rest).map(|(hash, pieces)| Lane::new(hash, pieces)).collect();
        at_the_same_time(&mut lanes, &way.always());
        lanes.iter_mut().for_each(Lane::alone);
        for hash in hashes {
            let hex: String = hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
            assert_eq!(hex, "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0", "{way:?}");
        }
    }
}
