use std::io::Cursor;
use std::ops::Range;
use std::sync::Arc;

use proptest::prelude::*;

use super::test_support::*;
use super::*;

fn key(geometry: Geometry) -> Arc<FileKey> {
    Arc::new(FileKey::create(&keyring(), geometry).unwrap())
}

/// Lengths at the edges of blocks, segments, chunks and batches of small geometries.
fn len() -> impl Strategy<Value = usize> {
    prop_oneof![
        prop::sample::select(vec![
            0, 1, 15, 16, 17, 63, 64, 65, 99, 100, 101, 127, 128, 129, 199, 200, 201, 1023, 1024, 1025, 1599,
            1600, 1601
        ]),
        0_usize..2500,
    ]
}

fn geometry() -> impl Strategy<Value = Geometry> {
    (6_u32..=8, prop::sample::select(vec![0, 1, 16, 63, 64, 65, 100, 128, 1000]))
        .prop_map(|(log, chunk)| Geometry::new(1 << log, chunk).unwrap())
}

proptest! {
    #[test]
    fn what_is_sealed_in_any_pieces_opens(
        geometry in geometry(), len in len(), piece in 1_usize..400, batch in 1_usize..20,
    ) {
        let plain = plaintext(len);
        let container = seal_in_pieces(&key(geometry), &plain, piece, batch);
        let layout = Layout::of_plaintext(geometry, len as u64).unwrap();
        prop_assert_eq!(container.len() as u64, layout.container_len());
        prop_assert!(open_to_vec(&keyring(), &container).unwrap() == plain);
        let stream = OpenStream::new(Cursor::new(&container), &keyring()).unwrap();
        prop_assert!(read_to_end(stream).unwrap() == plain);
    }

    #[test]
    fn any_range_equals_the_slice(geometry in geometry(), len in len(), a in 0_usize..2500, b in 0_usize..2500) {
        let (start, end) = (a.min(b).min(len), a.max(b).min(len));
        let plain = plaintext(len);
        let container = seal_in_pieces(&key(geometry), &plain, usize::MAX, LANES);
        let opener = Opener::new(&container, container.len() as u64, &keyring()).unwrap();
        let touched = opener.layout().touched(start as u64..end as u64).unwrap();
        let mut sealed = container[touched.container.start as usize..touched.container.end as usize].to_vec();
        let opened = opener.open_segments(touched.segments.start, &mut sealed).unwrap();
        prop_assert!(opened[touched.skip..][..end - start] == plain[start..end]);
    }

    #[test]
    fn chunks_sealed_apart_make_the_container(
        log in 6_u32..=8, chunk in prop::sample::select(vec![1_usize, 16, 63, 64, 65, 100, 128, 1000]),
        len in 1_usize..2500, backwards: bool,
    ) {
        let key = key(Geometry::new(1 << log, chunk as u64).unwrap());
        let plain = plaintext(len);
        let layout = Layout::of_plaintext(key.header().geometry, len as u64).unwrap();
        let mut container = vec![0; layout.container_len() as usize];
        container[..HEADER_LEN].copy_from_slice(&key.header_bytes());
        let mut chunks: Vec<(usize, &[u8])> = plain.chunks(chunk).enumerate().collect();
        let last = chunks.len() - 1;
        if backwards {
            chunks.reverse();
        }
        for (number, mut input) in chunks {
            let mut sealer = Sealer::chunk(Arc::clone(&key), number as u64).unwrap().with_batch(3);
            let mut write = |position: u64, bytes: &[u8]| {
                container[position as usize..][..bytes.len()].copy_from_slice(bytes);
            };
            while let Some(sealed) = sealer.push(&mut input).unwrap() {
                write(sealed.position, sealed.bytes);
            }
            let end = sealer.finish(if number == last { Ends::File } else { Ends::Chunk }).unwrap();
            write(end.position, &end.bytes);
        }
        prop_assert!(open_to_vec(&keyring(), &container).unwrap() == plain);
    }

    #[test]
    fn an_upload_that_pauses_anywhere_goes_on(geometry in geometry(), len in len(), pauses in prop::collection::vec(1_usize..300, 1..20)) {
        let plain = plaintext(len);
        let header = key(geometry).header_bytes();
        let mut container = header.to_vec();
        let (mut at, mut segment, mut tail) = (0, 0, Vec::new());
        for pause in pauses {
            // Nothing but the header, the segment number and the tail survives from one round to the next.
            let key = FileKey::for_header(Header::parse(&header).unwrap(), &keyring()).unwrap();
            let mut sealer = Sealer::from_segment(Arc::new(key), segment).unwrap().with_batch(2);
            let piece = plain[at..].get(..pause).unwrap_or(&plain[at..]);
            at += piece.len();
            for mut input in [&tail[..], piece] {
                while let Some(sealed) = sealer.push(&mut input).unwrap() {
                    prop_assert_eq!(sealed.position, container.len() as u64);
                    container.extend_from_slice(sealed.bytes);
                }
            }
            if let Some(sealed) = sealer.flush().unwrap() {
                prop_assert_eq!(sealed.position, container.len() as u64);
                container.extend_from_slice(sealed.bytes);
            }
            prop_assert!(sealer.flush().unwrap().is_none());
            (segment, tail) = (sealer.next_segment(), sealer.tail().to_vec());
            prop_assert!(tail.len() <= geometry.whole_segment_len(segment));
        }
        let mut sealer = Sealer::from_segment(key_of(&header), segment).unwrap();
        for mut input in [&tail[..], &plain[at..]] {
            while let Some(sealed) = sealer.push(&mut input).unwrap() {
                container.extend_from_slice(sealed.bytes);
            }
        }
        container.extend_from_slice(&sealer.finish(Ends::File).unwrap().bytes);
        prop_assert!(open_to_vec(&keyring(), &container).unwrap() == plain);
    }

    #[test]
    fn what_others_have_sealed_is_skipped(geometry in geometry(), len in len(), runs in prop::collection::vec((any::<bool>(), 1_u64..20), 1..10)) {
        let (key, plain) = (key(geometry), plaintext(len));
        let layout = Layout::of_plaintext(geometry, len as u64).unwrap();
        let mut container = vec![0; layout.container_len() as usize];
        let mut write = |position: u64, bytes: &[u8]| container[position as usize..][..bytes.len()].copy_from_slice(bytes);
        write(0, &key.header_bytes());
        let mut sealer = Sealer::from_segment(Arc::clone(&key), 0).unwrap().with_batch(3);
        let mut next = 0;
        for (elsewhere, count) in runs {
            // The last segment of a file is nobody else's.
            let segments = next..(next + count).min(layout.segments() - 1);
            next = segments.end;
            let start = geometry.segment_start(segments.start).unwrap() as usize;
            let mut input = &plain[start..geometry.segment_start(segments.end).unwrap() as usize];
            if elsewhere {
                let mut other = Sealer::segments(Arc::clone(&key), segments.clone()).unwrap();
                prop_assert_eq!(other.end_segment(), Some(segments.end));
                prop_assert!(other.push(&mut input).unwrap().is_none());
                if !segments.is_empty() {
                    let end = other.finish(Ends::Chunk).unwrap();
                    write(end.position, &end.bytes);
                }
                if let Some(waited) = sealer.skip(segments).unwrap() {
                    write(waited.position, waited.bytes);
                }
            } else {
                while let Some(sealed) = sealer.push(&mut input).unwrap() {
                    write(sealed.position, sealed.bytes);
                }
            }
        }
        let mut input = &plain[geometry.segment_start(next).unwrap() as usize..];
        while let Some(sealed) = sealer.push(&mut input).unwrap() {
            write(sealed.position, sealed.bytes);
        }
        let end = sealer.finish(Ends::File).unwrap();
        write(end.position, &end.bytes);
        prop_assert!(open_to_vec(&keyring(), &container).unwrap() == plain);
    }
}

#[test]
fn only_what_comes_next_is_skipped() {
    let mut sealer = Sealer::from_segment(key(small()), 0).unwrap();
    assert!(sealer.push(&mut &[1; 64][..]).unwrap().is_none());
    assert_eq!(sealer.skip(0..2).unwrap_err(), SealError::Skip, "it has one of them itself");
    assert_eq!(sealer.skip(2..3).unwrap_err(), SealError::Skip, "one is missing");
    assert_eq!(sealer.skip(Range { start: 1, end: 0 }).unwrap_err(), SealError::Skip);
    assert!(sealer.push(&mut &[1; 1][..]).unwrap().is_none());
    assert_eq!(sealer.skip(1..2).unwrap_err(), SealError::Skip, "it has some of it");
}

#[test]
fn a_sealer_of_some_segments_takes_no_more_and_no_less() {
    let sealer = || Sealer::segments(key(small()), 1..3).unwrap();
    let mut some = sealer();
    assert!(some.push(&mut &[1; 36 + 63][..]).unwrap().is_none());
    assert_eq!(some.finish(Ends::Chunk).unwrap_err(), SealError::ChunkTooShort);
    let mut more = sealer();
    assert_eq!(more.push(&mut &[1; 36 + 65][..]).unwrap_err(), SealError::ChunkTooLong);
    for (start, end) in [(1, u64::MAX), (2, 1)] {
        let refused = Sealer::segments(key(small()), Range { start, end });
        assert_eq!(refused.unwrap_err(), SealError::TooLong);
    }
}

fn key_of(header: &[u8]) -> Arc<FileKey> {
    Arc::new(FileKey::for_header(Header::parse(header).unwrap(), &keyring()).unwrap())
}

#[test]
fn the_default_geometry_at_its_edges() {
    const SEGMENT: usize = 32 * 1024;
    // Empty; around a segment; a whole batch, and one byte more: then the batch is sealed before the end is known.
    for len in [0, 1, SEGMENT - 1, SEGMENT, SEGMENT + 1, LANES * SEGMENT, LANES * SEGMENT + 1] {
        let plain = plaintext(len);
        let container = seal_to_vec(&keyring(), &plain).unwrap();
        assert!(open_to_vec(&keyring(), &container).unwrap() == plain, "{len}");
        let stream = OpenStream::new(Cursor::new(&container), &keyring()).unwrap();
        assert!(read_to_end(stream).unwrap() == plain, "{len}");
    }
}

#[test]
fn no_more_than_a_batch_waits_in_memory() {
    let mut sealer = Sealer::chunk(key(Geometry::default()), 0).unwrap().with_batch(4);
    let plain = plaintext(1_000_000);
    let mut input = &plain[..];
    while let Some(sealed) = sealer.push(&mut input).unwrap() {
        assert_eq!(sealed.bytes.len(), 4 * (32 * 1024 + SEGMENT_OVERHEAD));
    }
    assert!(sealer.finish(Ends::File).unwrap().bytes.len() <= 4 * (32 * 1024 + SEGMENT_OVERHEAD));
}

#[test]
fn several_threads_seal_and_open_one_file() {
    let key = key(Geometry::new(64, 1000).unwrap());
    let plain = plaintext(8000);
    let mut container = key.header_bytes().to_vec();
    let chunks: Vec<Vec<u8>> = std::thread::scope(|scope| {
        let handles: Vec<_> = plain
            .chunks(1000)
            .enumerate()
            .map(|(number, mut chunk)| {
                let key = Arc::clone(&key);
                scope.spawn(move || {
                    let mut sealer = Sealer::chunk(key, number as u64).unwrap();
                    assert!(sealer.push(&mut chunk).unwrap().is_none(), "fits a batch");
                    sealer.finish(if number == 7 { Ends::File } else { Ends::Chunk }).unwrap().bytes
                })
            })
            .collect();
        handles.into_iter().map(|handle| handle.join().unwrap()).collect()
    });
    container.extend(chunks.concat());
    let opener = Opener::new(&container, container.len() as u64, &keyring()).unwrap();
    std::thread::scope(|scope| {
        for chunk in 0..8_u64 {
            let (opener, plain, container) = (&opener, &plain, &container);
            scope.spawn(move || {
                let touched = opener.layout().touched(chunk * 1000..(chunk + 1) * 1000).unwrap();
                let place = touched.container.start as usize..touched.container.end as usize;
                let mut sealed = container[place].to_vec();
                let opened = opener.open_segments(touched.segments.start, &mut sealed).unwrap();
                assert_eq!(opened, &plain[chunk as usize * 1000..][..1000]);
            });
        }
    });
}

#[test]
fn a_chunk_must_have_its_size() {
    let short = |ends| {
        let mut sealer = Sealer::chunk(key(small()), 1).unwrap();
        sealer.push(&mut &[0; 99][..]).unwrap();
        sealer.finish(ends).map(|_| ())
    };
    assert_eq!(short(Ends::Chunk), Err(SealError::ChunkTooShort));
    assert_eq!(short(Ends::File), Ok(()));
    let mut sealer = Sealer::chunk(key(small()), 1).unwrap();
    assert_eq!(sealer.push(&mut &[0; 101][..]).map(|_| ()), Err(SealError::ChunkTooLong));
    assert_eq!(
        Sealer::chunk(key(small()), 1).unwrap().finish(Ends::File).map(|_| ()),
        Err(SealError::EmptyEnd)
    );
    assert_eq!(Sealer::chunk(key(Geometry::default()), 1).map(|_| ()), Err(SealError::TooLong));
}

#[test]
fn a_last_chunk_that_shows_only_afterwards_is_sealed_again() {
    let key = key(small());
    let plain = plaintext(200);
    let mut container = key.header_bytes().to_vec();
    for (number, mut chunk) in plain.chunks(100).enumerate() {
        let mut sealer = Sealer::chunk(Arc::clone(&key), number as u64).unwrap();
        sealer.push(&mut chunk).unwrap();
        container.extend_from_slice(&sealer.finish(Ends::Chunk).unwrap().bytes);
    }
    assert_refused(&container, "no segment says that it is the last");
    let last = Layout::of_plaintext(small(), 200).unwrap().segment(3).unwrap();
    let bytes = &mut container[last.position as usize..];
    let tag = key.reseal_as_last(3, bytes).unwrap();
    assert!(bytes.ends_with(tag.as_bytes()));
    let resealed = bytes.to_vec();
    assert_eq!(key.reseal_as_last(3, bytes), Err(SealError::Tampered { segment: 3 }), "is the last already");
    assert_eq!(bytes, resealed);
    assert_eq!(key.reseal_as_last(3, &mut bytes[1..]), Err(SealError::Segments));
    assert_eq!(open_to_vec(&keyring(), &container).unwrap(), plain);
}

#[test]
fn a_chunk_sealed_again_with_other_bytes_shares_no_keystream() {
    let key = key(small());
    let seal = |byte: u8| {
        let mut sealer = Sealer::chunk(Arc::clone(&key), 0).unwrap();
        sealer.push(&mut &[byte; 100][..]).unwrap();
        sealer.finish(Ends::Chunk).unwrap().bytes
    };
    let (first, again) = (seal(0x00), seal(0xFF));
    let difference: Vec<u8> = first[8..72].iter().zip(&again[8..72]).map(|(a, b)| a ^ b).collect();
    assert_ne!(difference, [0xFF; 64], "the difference of the ciphertexts is that of the plaintexts");
}

#[test]
fn buffers_that_hold_no_whole_segments_are_refused_untouched() {
    let key = key(small());
    for (first, ends, len) in [
        (0, Ends::Chunk, 0),
        (0, Ends::File, 0),
        (0, Ends::Chunk, 87),      // one short of a whole segment
        (0, Ends::Chunk, 88 + 59), // the second one, at the chunk's end, has 36 + 24
        (0, Ends::File, 23),
        (1, Ends::File, 24), // empty, and not the first
        (0, Ends::File, 88 + 24),
        (1 << 56, Ends::Chunk, 88),
        (u64::MAX, Ends::File, 30),
    ] {
        let mut buffer = vec![7; len];
        assert!(key.seal_segments(first, ends, &mut buffer).is_err(), "{first} {ends:?} {len}");
        assert_eq!(buffer, vec![7; len]);
    }
    let container = seal(small(), &plaintext(250));
    let opener = Opener::new(&container, container.len() as u64, &keyring()).unwrap();
    for len in [1, 23, 87, 89, 88 + 59] {
        assert_eq!(opener.open_segments(0, &mut vec![0; len]), Err(OpenError::Segments));
    }
    let beyond = OpenError::Layout(LayoutError::NoSuchSegment(u64::MAX));
    assert_eq!(opener.open_segments(u64::MAX, &mut [0; 30]), Err(beyond));
    assert_eq!(opener.open_segments(0, &mut []).unwrap(), b"");
}

#[test]
fn nothing_secret_is_shown() {
    let key = key(small());
    let mut sealer = Sealer::chunk(Arc::clone(&key), 0).unwrap();
    sealer.push(&mut &[77; 30][..]).unwrap();
    let shown = format!("{sealer:?} {:?}", keyring());
    assert!(!shown.contains("77, 77") && !shown.contains("DevKey"), "{shown}");
}
