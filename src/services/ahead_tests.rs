use std::fs;
use std::path::PathBuf;

use proptest::prelude::*;
use tempfile::TempDir;
use zeroize::Zeroizing;

use super::*;
use crate::crypto::{Geometry, Keyring, open_to_vec};
use crate::services::stream::tests::target;
use crate::services::writer::{Target, Writer};

/// Whether a batch is begun while the threads are behind, and after how many bytes what has come is handed over.
#[derive(Debug, Clone, Copy)]
struct Round {
    is_behind: bool,
    length: usize,
    hands_over: bool,
}

fn rounds() -> impl Strategy<Value = Vec<Round>> {
    let round = (any::<bool>(), 0_usize..2500, prop::bool::weighted(0.3));
    prop::collection::vec(
        round.prop_map(|(is_behind, length, hands_over)| Round { is_behind, length, hands_over }),
        1..8,
    )
}

fn keyring() -> Keyring {
    Keyring::new("DevKey1234567890", [""; 0]).unwrap()
}

pub(in super::super) fn key(segment_size: u32, chunk_size: u64) -> Arc<FileKey> {
    let geometry = Geometry::new(segment_size, chunk_size).unwrap();
    Arc::new(FileKey::create(&keyring(), geometry).unwrap())
}

pub(in super::super) fn plaintext(length: usize) -> Vec<u8> {
    (0..length as u32).map(|i| (i.wrapping_mul(0x9E37_79B9) >> 24) as u8).collect()
}

/// An upload's place on the disk.
struct Place {
    target: Target,
    data: PathBuf,
    _dir: TempDir,
}

impl Place {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (target, data) = target(dir.path());
        Self { target, data, _dir: dir }
    }

    fn open(&self, opening: &Opening) -> Writer {
        Writer::open(self.target.clone(), opening.clone()).unwrap()
    }
}

/// Has `plaintext` written as it would be by a thread. Gives what would be hashed.
fn write(writer: &mut Writer, opening: &Opening, plaintext: &[u8], rounds: &[Round]) -> Vec<u8> {
    let (mut hashed, mut rest) = (Vec::new(), plaintext);
    let mut ahead = SealAhead::at_any_speed(opening).unwrap();
    let mut take = |writer: &mut Writer, pieces: Vec<Piece>| {
        pieces.iter().filter_map(Piece::hashed).for_each(|bytes| hashed.extend_from_slice(bytes));
        writer.take(&pieces).unwrap();
    };
    for round in rounds {
        let (piece, after) = rest.split_at(round.length.min(rest.len()));
        rest = after;
        take(writer, ahead.take(Bytes::copy_from_slice(piece), || round.is_behind).unwrap());
        if round.hands_over {
            take(writer, ahead.hand_over().unwrap());
            // Nothing is missing now.
            writer.settle().unwrap();
        }
    }
    take(writer, ahead.take(Bytes::copy_from_slice(rest), || true).unwrap());
    take(writer, ahead.hand_over().unwrap());
    hashed
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, ..ProptestConfig::default() })]

    #[test]
    fn it_does_not_matter_who_seals(length in 0_usize..9000, rounds in rounds()) {
        let (place, plain) = (Place::new(), plaintext(length));
        let opening = Opening::New(Some(key(64, 0)));
        let mut writer = place.open(&opening);
        let hashed = write(&mut writer, &opening, &plain, &rounds);
        prop_assert!(hashed == plain);
        prop_assert_eq!(writer.length(), length as u64);
        let written = writer.finish().unwrap();
        prop_assert_eq!(written.file.size, length as u64);
        let container = fs::read(&place.data).unwrap();
        prop_assert!(container.ends_with(&written.seal.unwrap().tag.0));
        prop_assert!(open_to_vec(&keyring(), &container).unwrap() == plain);
    }

    /// Of which the last bytes are not sealed yet.
    #[test]
    fn an_upload_goes_on_within_a_segment(before in 0_usize..3000, after in 0_usize..5000, rounds in rounds()) {
        let (place, plain) = (Place::new(), plaintext(before + after));
        let key = key(64, 0);
        let mut writer = place.open(&Opening::New(Some(Arc::clone(&key))));
        writer.append(&[&plain[..before]]).unwrap();
        writer.settle().unwrap();
        let tail = Arc::new(Zeroizing::new(writer.tail().to_vec()));
        writer.keep();
        drop(writer);
        let opening = Opening::Resume { key: Some(key), offset: before as u64, tail };
        let mut writer = place.open(&opening);
        let hashed = write(&mut writer, &opening, &plain[before..], &rounds);
        prop_assert!(hashed == plain[before..]);
        writer.finish().unwrap();
        prop_assert!(open_to_vec(&keyring(), &fs::read(&place.data).unwrap()).unwrap() == plain);
    }

    /// Their last segments are shorter.
    #[test]
    fn chunks_make_a_file(chunk in 1_usize..2500, last in 1_usize..2500, rounds in rounds()) {
        let (place, last) = (Place::new(), last.min(chunk));
        let plain = plaintext(2 * chunk + last);
        let key = key(64, chunk as u64);
        // The header is whole only when an upload begins.
        place.open(&Opening::New(Some(Arc::clone(&key)))).keep();
        for (number, content) in plain.chunks(chunk).enumerate() {
            let opening = Opening::Chunk { key: Some(Arc::clone(&key)), number: number as u32, size: chunk as u64 };
            let mut writer = place.open(&opening);
            let hashed = write(&mut writer, &opening, content, &rounds);
            prop_assert!(hashed == content);
            writer.finish_chunk(if number == 2 { Ends::File } else { Ends::Chunk }).unwrap();
        }
        prop_assert!(open_to_vec(&keyring(), &fs::read(&place.data).unwrap()).unwrap() == plain);
    }
}

#[test]
fn batches_are_sealed_while_threads_are_behind_and_no_others() {
    const BATCH: usize = LANES * 64;
    let plain = plaintext(4 * BATCH);
    let opening = Opening::New(Some(key(64, 0)));
    let mut ahead = SealAhead::at_any_speed(&opening).unwrap();
    let mut take = |batch: usize, length: usize, is_behind: bool| {
        let piece = Bytes::copy_from_slice(&plain[batch * BATCH..][..length]);
        ahead.take(piece, || is_behind).unwrap()
    };
    assert!(matches!(take(0, BATCH, false)[..], [Piece::Data(_)]));
    assert!(matches!(take(1, BATCH, true)[..], [Piece::Hash(_)]), "it may be the end of the file");
    let next = take(2, 1, false);
    assert!(matches!(&next[..], [Piece::Sealed { segments, .. }, Piece::Data(_)] if *segments == (16..32)));
    assert!(matches!(take(2, BATCH - 1, true)[..], [Piece::Data(_)]), "it is the writer's");
    assert!(matches!(take(3, 1, true)[..], [Piece::Hash(_)]));
}

#[test]
fn plain_uploads_are_left_alone() {
    assert!(SealAhead::of(&Opening::New(None)).is_none());
}

#[test]
fn more_than_a_chunk_is_refused() {
    let (place, key) = (Place::new(), key(64, 100));
    place.open(&Opening::New(Some(Arc::clone(&key)))).keep();
    let opening = Opening::Chunk { key: Some(key), number: 0, size: 100 };
    let mut ahead = SealAhead::at_any_speed(&opening).unwrap();
    let mut writer = place.open(&opening);
    let pieces = ahead.take(Bytes::from(plaintext(101)), || true).unwrap();
    let error = writer.take(&pieces).unwrap_err();
    assert_eq!(error.to_string(), SealError::ChunkTooLong.to_string());
}

/// A file must not end where something is missing.
#[test]
fn what_was_hashed_must_have_been_written() {
    let place = Place::new();
    let opening = Opening::New(Some(key(64, 0)));
    let hashed = || Piece::Hash(Bytes::from_static(&[1; 64]));
    let sealed = |segments: Range<u64>| Piece::Sealed { segments, bytes: Bytes::from_static(&[2; 88]) };
    let refused = |pieces: &[Piece]| {
        let mut writer = place.open(&opening);
        let error =
            writer.take(pieces).and_then(|()| writer.settle()).and_then(|()| writer.finish().map(drop));
        error.unwrap_err().to_string()
    };
    let out_of_step = "what was sealed is not what was hashed";
    assert_eq!(refused(&[hashed()]), out_of_step);
    assert_eq!(refused(&[sealed(0..1)]), out_of_step);
    assert_eq!(refused(&[Piece::Write(Bytes::from_static(&[1; 64]))]), out_of_step);
    assert_eq!(refused(&[hashed(), sealed(1..2)]), SealError::Skip.to_string());
    let mut plain = place.open(&Opening::New(None));
    assert_eq!(plain.take(&[hashed(), sealed(0..1)]).unwrap_err().to_string(), out_of_step);
}
