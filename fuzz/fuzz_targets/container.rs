//! Any bytes as a container, under a key that their header names: never a panic, never an overflow, never memory beyond a
//! batch of the largest segments, and nothing opens, since nothing was sealed.
//!
//! The first byte says which length the container claims to have: its own, or that in the next eight.

#![no_main]

use std::io::{Cursor, Read};
use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use smart_file_transfer::crypto::{Header, Keyring, OpenStream, Opener, SingleMessage, open_to_vec};

static KEYRING: LazyLock<Keyring> = LazyLock::new(|| Keyring::new("DevKey1234567890", [""; 0]).unwrap());

fuzz_target!(|data: &[u8]| {
    let Some((&[claims, len @ ..], container)) = data.split_first_chunk::<9>() else { return };
    let mut container = container.to_vec();
    if claims & 1 == 0
        && let (Some(magic), Some(id)) = (container.get(..10), container.get(16..24))
        && (magic != b"\x89SFTEAX\n\x01\x01" || id != KEYRING.current_id().as_bytes())
    {
        // Spares the fuzzer the guessing of constants.
        container[..10].copy_from_slice(b"\x89SFTEAX\n\x01\x01");
        container[16..24].copy_from_slice(KEYRING.current_id().as_bytes());
    }
    if let Ok(header) = Header::parse(&container) {
        assert_eq!(header.encode()[..], container[..48]);
    }
    let len = if claims & 2 == 0 { container.len() as u64 } else { u64::from_be_bytes(len) };
    if let Ok(opener) = Opener::new(&container, len, &KEYRING) {
        let layout = *opener.layout();
        assert_eq!(layout.container_len(), len);
        let last = layout.segment(layout.segments() - 1).unwrap();
        assert_eq!(last.position + last.sealed_len() as u64, len);
        assert_eq!(last.start + last.len as u64, layout.plaintext_len());
        for at in [0, layout.plaintext_len() / 2, layout.plaintext_len().saturating_sub(1)] {
            let end = layout.plaintext_len().min(at.saturating_add(100_000));
            let touched = layout.touched(at..end).unwrap();
            assert!(touched.container.end <= len);
            let (start, end) = (touched.container.start as usize, touched.container.end as usize);
            if let Some(segments) = container.get(start..end)
                && !segments.is_empty()
            {
                let mut copy = segments.to_vec();
                assert!(opener.open_segments(touched.segments.start, &mut copy).is_err());
                assert_eq!(copy, segments, "nothing may be decrypted");
            }
        }
    }
    assert!(open_to_vec(&KEYRING, &container).is_err());
    let streamed = OpenStream::new(Cursor::new(&container), &KEYRING);
    assert!(streamed.and_then(|mut stream| stream.read(&mut [0; 1])).is_err());
    assert!(SingleMessage::verify(Cursor::new(&container), &KEYRING).is_err());
});
