//! One test for each thing that somebody with access to the disk can do.

use std::ops::Range;

use super::test_support::*;
use super::*;

/// 250 bytes in chunks of 100 and segments of 64: segments of 64, 36, 64, 36 and 50 bytes.
const LEN: usize = 250;

fn container() -> Vec<u8> {
    seal(small(), &plaintext(LEN))
}

/// Where a segment of [`container`] stands.
fn segment(number: u64) -> Range<usize> {
    let place = Layout::of_plaintext(small(), LEN as u64).unwrap().segment(number).unwrap();
    place.position as usize..place.position as usize + place.sealed_len()
}

/// `container` with the bytes of this range replaced.
fn replaced(container: &[u8], at: Range<usize>, with: &[u8]) -> Vec<u8> {
    [&container[..at.start], with, &container[at.end..]].concat()
}

#[test]
fn the_untouched_container_opens() {
    assert_eq!(open_to_vec(&keyring(), &container()).unwrap(), plaintext(LEN));
}

#[test]
fn every_single_flipped_bit() {
    let container = container();
    for bit in 0..container.len() * 8 {
        let mut flipped = container.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        assert_refused(&flipped, &format!("bit {bit} flipped"));
    }
}

#[test]
fn every_single_flipped_bit_is_seen_by_whoever_opens_that_segment_alone() {
    let container = container();
    let opener = Opener::new(&container, container.len() as u64, &keyring()).unwrap();
    for number in 0..opener.layout().segments() {
        let sealed = &container[segment(number)];
        for bit in 0..sealed.len() * 8 {
            let mut flipped = sealed.to_vec();
            flipped[bit / 8] ^= 1 << (bit % 8);
            let before = flipped.clone();
            let error = opener.open_segments(number, &mut flipped).unwrap_err();
            assert_eq!(error, OpenError::Tampered { segment: number });
            assert_eq!(flipped, before, "nothing may be decrypted");
        }
    }
}

#[test]
fn a_flipped_bit_in_the_header_is_seen_by_whoever_opens_any_segment() {
    let container = container();
    for bit in 0..HEADER_LEN * 8 {
        let mut flipped = container.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        let Ok(opener) = Opener::new(&flipped, flipped.len() as u64, &keyring()) else { continue };
        for number in 0..opener.layout().segments() {
            let place = opener.layout().container_range(number..number + 1).unwrap();
            let mut sealed = flipped[place.start as usize..place.end as usize].to_vec();
            assert!(opener.open_segments(number, &mut sealed).is_err(), "bit {bit}, segment {number}");
        }
    }
}

#[test]
fn damage_is_named_and_what_is_before_it_opens_still() {
    let mut container = container();
    container[segment(3).start + 20] ^= 1;
    let opener = Opener::new(&container, container.len() as u64, &keyring()).unwrap();
    let mut before = container[segment(0).start..segment(2).end].to_vec();
    assert_eq!(opener.open_segments(0, &mut before).unwrap(), &plaintext(LEN)[..164]);
    let mut across = container[segment(2).start..segment(4).end].to_vec();
    assert_eq!(opener.open_segments(2, &mut across), Err(OpenError::Tampered { segment: 3 }));
    assert_eq!(open_to_vec(&keyring(), &container), Err(OpenError::Tampered { segment: 3 }));
}

#[test]
fn swapped_segments() {
    let container = container();
    for (a, b) in [(0, 2), (1, 3)] {
        let swapped = replaced(&container, segment(a), &container[segment(b)]);
        assert_refused(
            &replaced(&swapped, segment(b), &container[segment(a)]),
            "segments of one length swapped",
        );
    }
    let swapped = [&container[..segment(0).start], &container[segment(1)], &container[segment(0)]].concat();
    assert_refused(&replaced(&container, 0..segment(1).end, &swapped), "segments of two lengths swapped");
}

#[test]
fn swapped_chunks() {
    let container = container();
    let (first, second) = (segment(0).start..segment(1).end, segment(2).start..segment(3).end);
    let swapped = replaced(&container, first.clone(), &container[second.clone()]);
    assert_refused(&replaced(&swapped, second, &container[first]), "chunks swapped");
}

#[test]
fn repeated_segments() {
    let container = container();
    assert_refused(&replaced(&container, segment(2), &container[segment(0)]), "one in place of another");
    for number in 0..5 {
        let twice =
            replaced(&container, segment(number).end..segment(number).end, &container[segment(number)]);
        assert_refused(&twice, "one more");
    }
}

#[test]
fn dropped_segments() {
    let container = container();
    for number in 0..5 {
        assert_refused(&replaced(&container, segment(number), b""), "a segment");
    }
    assert_refused(&replaced(&container, segment(0).start..segment(1).end, b""), "the first chunk");
    assert_refused(&replaced(&container, segment(2).start..segment(3).end, b""), "a chunk in the middle");
}

#[test]
fn added_segments() {
    let container = container();
    let other = seal(small(), &plaintext(30));
    let empty = seal(small(), b"");
    for added in
        [&container[segment(1)], &container[segment(4)], &other[48..], &empty[48..], &[0; 24], &[0; 60]]
    {
        for at in [48, segment(1).end, segment(2).end, container.len()] {
            assert_refused(&replaced(&container, at..at, added), "a segment added");
        }
    }
}

#[test]
fn truncated_anywhere() {
    for plain in [LEN, 64, 100, 200, 0] {
        let container = seal(small(), &plaintext(plain));
        for len in 0..container.len() {
            assert_refused(&container[..len], &format!("cut off at {len}"));
        }
    }
}

#[test]
fn truncated_at_a_segment_whose_end_is_verified_first() {
    let container = container();
    for number in 0..4 {
        let cut = &container[..segment(number).end];
        let opener = Opener::new(cut, cut.len() as u64, &keyring()).unwrap();
        let mut last = container[segment(number)].to_vec();
        assert_eq!(opener.verify_end(&mut last), Err(OpenError::Tampered { segment: number }));
    }
}

#[test]
fn extended_by_anything() {
    let container = container();
    for more in 1..200 {
        assert_refused(&[&container[..], &vec![0; more]].concat(), &format!("{more} bytes added"));
    }
}

#[test]
fn a_header_of_another_file() {
    let (container, other) = (container(), container());
    assert_refused(&replaced(&container, 0..HEADER_LEN, &other[..HEADER_LEN]), "of the same size and key");
}

#[test]
fn a_header_with_other_sizes() {
    // One segment: it would stand at the same place whatever the sizes.
    let container = seal(small(), &plaintext(10));
    for (segment_size, chunk_size) in [(128, 100), (64, 0), (64, 101)] {
        let mut header = Header::parse(&container).unwrap();
        header.geometry = Geometry::new(segment_size, chunk_size).unwrap();
        assert_refused(&replaced(&container, 0..HEADER_LEN, &header.encode()), "sizes changed");
    }
}

#[test]
fn segments_of_another_file() {
    let (container, other) = (container(), container());
    for number in 0..5 {
        assert_refused(&replaced(&container, segment(number), &other[segment(number)]), "of another file");
    }
    assert_refused(
        &replaced(&container, segment(4), &seal(small(), &plaintext(50))[48..]),
        "its only one as our last",
    );
}

#[test]
fn a_last_segment_moved_forward_and_a_middle_one_as_the_last() {
    let container = seal(small(), &plaintext(264)); // 64, 36, 64, 36, 64
    let first_as_last = [&container[..HEADER_LEN], &container[segment(4).start..]].concat();
    assert_refused(&first_as_last, "the last one alone");
    assert_refused(
        &replaced(&container, segment(4).start..container.len(), &container[segment(2)]),
        "the third as last",
    );
}

#[test]
fn a_wrong_key() {
    let container = container();
    let other = Keyring::new("another key, of the right length", [""; 0]).unwrap();
    let id = keyring().current_id();
    assert_eq!(open_to_vec(&other, &container), Err(OpenError::UnknownKey(id)));
    let message = OpenError::UnknownKey(id).to_string();
    assert!(message.contains(&id.to_string()), "{message}");

    // The id of the other key written over ours: found, and no good.
    let forged = replaced(&container, 16..24, other.current_id().as_bytes());
    assert_eq!(open_to_vec(&other, &forged), Err(OpenError::Tampered { segment: 0 }));
    assert_eq!(open_to_vec(&keyring(), &forged), Err(OpenError::UnknownKey(other.current_id())));
    let both = Keyring::new("another key, of the right length", ["DevKey1234567890"]).unwrap();
    assert_eq!(open_to_vec(&both, &forged), Err(OpenError::Tampered { segment: 0 }));
    assert_eq!(open_to_vec(&both, &container).unwrap(), plaintext(LEN));
}

#[test]
fn an_empty_file_is_not_made_of_another() {
    let container = container();
    assert_refused(&container[..HEADER_LEN], "a header alone");
    let empty = seal(small(), b"");
    assert_refused(
        &replaced(&container, HEADER_LEN..container.len(), &empty[HEADER_LEN..]),
        "another's empty segment",
    );
    assert_refused(
        &replaced(&empty, HEADER_LEN..empty.len(), &container[HEADER_LEN..]),
        "an empty file's header",
    );
}

#[test]
fn the_older_format_under_a_new_name() {
    let old = include_bytes!("../../tests/fixtures/older-deployment/storage/encrypted/secret-70000.bin");
    assert_eq!(open_to_vec(&keyring(), old), Err(OpenError::Header(HeaderError::Magic)));
}

#[test]
fn a_stream_that_is_tampered_with_while_it_is_read_ends_in_an_error() {
    let plain = plaintext(64 * 40); // more than a batch of segments
    let mut container = seal(Geometry::new(64, 0).unwrap(), &plain);
    let damaged = HEADER_LEN + 88 * 20 + 30;
    container[damaged] ^= 1;
    let mut stream = OpenStream::new(std::io::Cursor::new(&container), &keyring()).unwrap();
    let mut got = Vec::new();
    let error = std::io::Read::read_to_end(&mut stream, &mut got).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::InvalidData);
    assert!(error.to_string().contains("segment 20"), "{error}");
    assert_eq!(got, plain[..64 * 16], "what was verified, and no more");
    assert_eq!(std::io::Read::read(&mut stream, &mut [0; 10]).unwrap(), 0);
}
