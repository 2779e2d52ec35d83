//! What the tests of this module share.

use std::io::{Cursor, Read};
use std::sync::Arc;

use super::*;

pub(super) fn keyring() -> Keyring {
    Keyring::new("DevKey1234567890", [""; 0]).unwrap()
}

/// Small sizes, so that a small container has all there is: chunks of a whole segment and a short one.
pub(super) fn small() -> Geometry {
    Geometry::new(64, 100).unwrap()
}

/// Bytes of which no two segments are alike.
pub(super) fn plaintext(len: usize) -> Vec<u8> {
    (0..len as u32).map(|i| (i.wrapping_mul(0x9E37_79B9) >> 24) as u8).collect()
}

/// Seals in order, in pieces of this many bytes.
pub(super) fn seal_in_pieces(key: &Arc<FileKey>, plaintext: &[u8], piece: usize, batch: usize) -> Vec<u8> {
    let mut container = key.header_bytes().to_vec();
    let mut sealer = Sealer::from_segment(Arc::clone(key), 0).unwrap().with_batch(batch);
    for mut piece in plaintext.chunks(piece.max(1)) {
        while let Some(sealed) = sealer.push(&mut piece).unwrap() {
            assert_eq!(sealed.position, container.len() as u64);
            container.extend_from_slice(sealed.bytes);
        }
    }
    let end = sealer.finish(Ends::File).unwrap();
    assert_eq!(end.position, container.len() as u64);
    assert!(end.bytes.ends_with(end.tag.as_bytes()));
    container.extend_from_slice(&end.bytes);
    container
}

pub(super) fn seal(geometry: Geometry, plaintext: &[u8]) -> Vec<u8> {
    let key = Arc::new(FileKey::create(&keyring(), geometry).unwrap());
    seal_in_pieces(&key, plaintext, usize::MAX, LANES)
}

pub(super) fn read_to_end(mut from: impl Read) -> std::io::Result<Vec<u8>> {
    let mut all = Vec::new();
    from.read_to_end(&mut all).map(|_| all)
}

/// Every way of opening the whole of a container must refuse it, and none may give a byte.
pub(super) fn assert_refused(container: &[u8], what: &str) {
    assert!(open_to_vec(&keyring(), container).is_err(), "opened in memory: {what}");
    let streamed = OpenStream::new(Cursor::new(container), &keyring()).map(|mut stream| {
        let mut some = [0; 1];
        stream.read(&mut some)
    });
    // At this size the stream opens all segments at once.
    assert!(!matches!(streamed, Ok(Ok(_))), "opened as a stream: {what}");
}
