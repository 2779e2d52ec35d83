use std::sync::Barrier;

use sha2::{Digest as _, Sha256};

use super::super::checksum::{Checksum, PieceHash};
use super::*;
use crate::domain::Digest;

/// Of a length that no block divides.
const PIECE: usize = (64 << 10) + 11;

fn piece(upload: usize, number: usize) -> Bytes {
    let byte = |i: usize| (i.wrapping_mul(upload + 3) >> 3) as u8 ^ number as u8;
    (0..PIECE).map(byte).collect()
}

/// Several at once, more than lanes, hash each its own bytes; some have more to compute, or nothing.
#[test]
fn each_upload_gets_the_hash_of_its_bytes() {
    const UPLOADS: usize = 11;
    let at_once = Barrier::new(UPLOADS);
    thread::scope(|scope| {
        for upload in 0..UPLOADS {
            let at_once = &at_once;
            scope.spawn(move || {
                let whole: Vec<Bytes> = (0..12).map(|number| piece(upload, number)).collect();
                let expected = Sha256::digest(whole.concat());
                let checksum = Checksum::Sha256(expected.into());
                let mut hashes = Hashes::default();
                match upload {
                    9 => hashes = Hashes::following(Sha256::new_with_prefix("before")),
                    10 => hashes.piece = PieceHash::of(&checksum),
                    _ => {}
                }
                let mut hashing = Hashing::new(hashes);
                at_once.wait();
                for (number, pieces) in whole.chunks(3).enumerate() {
                    hashing.update(pieces).unwrap();
                    if upload % 2 == 0 {
                        let so_far = hashing.so_far().unwrap();
                        let expected = Sha256::digest(whole[..3 * (number + 1)].concat());
                        if so_far.are_only_whole() {
                            assert_eq!(so_far.digest(), Digest::new(expected.into()), "upload {upload}");
                        }
                    }
                }
                let hashes = hashing.so_far().unwrap();
                match upload {
                    9 => {
                        let (chunk, file) = hashes.of_chunk();
                        assert_eq!(chunk, Some(Digest::new(expected.into())));
                        let all = Sha256::new_with_prefix("before").chain_update(whole.concat());
                        assert_eq!(file.map(Sha256::finalize), Some(all.finalize()));
                    }
                    10 => assert!(hashes.piece.has(&checksum)),
                    _ => assert_eq!(hashes.digest(), Digest::new(expected.into()), "upload {upload}"),
                }
            });
        }
    });
}

#[test]
fn what_is_to_be_hashed_later_is_not_hashed_now() {
    let mut hashing = Hashing::new(Hashes::later());
    assert!(matches!(hashing.0, Way::Here(_)));
    hashing.update(&[piece(0, 0)]).unwrap();
    assert_eq!(hashing.so_far().unwrap().digest(), Digest::new(Sha256::digest("").into()));
}

fn upload(hashes: Hashes) -> Arc<Upload> {
    match Hashing::new(hashes).0 {
        Way::There(ref upload) => Arc::clone(upload),
        Way::Here(_) => panic!("there are no threads"),
    }
}

/// Nothing runs here: the turns are taken by hand.
#[test]
fn a_turn_takes_a_part_and_the_rest_stays_due() {
    let upload = upload(Hashes::default());
    let all = [Bytes::from(vec![1; TURN / 2]), Bytes::from(vec![2; TURN]), Bytes::from(vec![3; 5])];
    upload.state().waiting.extend(all.clone());
    let (mut hashes, mut lengths) = (Hashes::default(), Vec::new());
    loop {
        let (_, pieces) = upload.take().unwrap();
        assert!(upload.state().hashes.is_none(), "a thread has them");
        lengths.push(pieces.iter().map(Bytes::len).sum::<usize>());
        pieces.iter().for_each(|piece| hashes.update(piece));
        if !upload.put_back(Some((hashes.clone(), pieces))) {
            break;
        }
    }
    assert_eq!(lengths, [TURN, TURN / 2 + 5]);
    assert_eq!(upload.state().weight, 0);
    assert_eq!(hashes.digest(), Digest::new(Sha256::digest(all.concat()).into()));
}

#[test]
fn who_waits_is_told_of_a_failure() {
    let upload = upload(Hashes::default());
    upload.state().waiting.push_back(piece(0, 0));
    upload.state().weight = WAITING;
    upload.state().is_due = true;
    let mut hashing = Hashing(Way::There(Arc::clone(&upload)));
    thread::scope(|scope| {
        let updating = scope.spawn(move || hashing.update(&[piece(0, 1)]).map_err(|error| error.to_string()));
        while !upload.state().is_awaited {
            thread::yield_now();
        }
        let work = upload.take();
        assert!(work.is_some());
        // As after a panic.
        assert!(!upload.put_back(None));
        assert_eq!(updating.join().unwrap(), Err("the hash could not be computed".to_owned()));
    });
    assert!(Hashing(Way::There(upload)).so_far().is_err());
}

#[test]
fn those_go_together_that_can() {
    let chunk = || upload(Hashes::following(Sha256::new()));
    let plain = || upload(Hashes::default());
    let mut due = Due { uploads: [chunk(), plain(), plain(), plain(), chunk()].into(), ..Due::default() };
    let turns = [4, 2, 4, 4].map(|most| due.next(most).len());
    assert_eq!(turns, [1, 2, 1, 1]);
    assert!(due.next(4).is_empty());
}
