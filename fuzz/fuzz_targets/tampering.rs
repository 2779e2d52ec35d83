//! A genuine container, put together anew as the input says: pieces of it and of another one, with bytes changed. It
//! opens only where it is what was sealed, and then to what was sealed.

#![no_main]

use std::io::{Cursor, Read};
use std::sync::{Arc, LazyLock};

use libfuzzer_sys::fuzz_target;
use smart_file_transfer::crypto::{Ends, FileKey, Geometry, Keyring, OpenStream, Opener, Sealer, open_to_vec};

static KEYRING: LazyLock<Keyring> = LazyLock::new(|| Keyring::new("DevKey1234567890", [""; 0]).unwrap());
/// Two files of one geometry: segments of 64, 36, 64, 36 and 50 bytes.
static FILES: LazyLock<[Vec<u8>; 2]> = LazyLock::new(|| [seal(1), seal(2)]);

fn plaintext(file: u8) -> Vec<u8> {
    (0..250).map(|i| i ^ (file << 4)).collect()
}

fn seal(file: u8) -> Vec<u8> {
    let key = Arc::new(FileKey::create(&KEYRING, Geometry::new(64, 100).unwrap()).unwrap());
    let mut container = key.header_bytes().to_vec();
    let mut sealer = Sealer::from_segment(key, 0).unwrap();
    assert!(sealer.push(&mut &plaintext(file)[..]).unwrap().is_none());
    container.extend_from_slice(&sealer.finish(Ends::File).unwrap().bytes);
    container
}

/// Steps of four bytes: what to do, where, how far, with what.
fn put_together(input: &[u8]) -> Vec<u8> {
    const EDGES: [usize; 7] = [0, 48, 136, 196, 284, 344, 418];
    let mut container = FILES[0].clone();
    for &[what, from, to, with] in input.as_chunks::<4>().0.iter().take(64) {
        let edge = |n: u8| EDGES[n as usize % EDGES.len()].min(container.len());
        let any = |n: u8| usize::from(n) * 2 % (container.len() + 1);
        match what % 6 {
            0 if !container.is_empty() => {
                let at = (usize::from(from) * 256 + usize::from(to)) % container.len();
                container[at] ^= with;
            }
            1 => {
                let part = edge(from).min(edge(to))..edge(from).max(edge(to));
                container.drain(part);
            }
            2 => container.truncate(any(from)),
            3 => {
                let source = &FILES[usize::from(with) % 2];
                let (start, end) = (EDGES[from as usize % 7], EDGES[to as usize % 7]);
                let at = edge(with >> 1);
                container.splice(at..at, source[start.min(end)..start.max(end)].iter().copied());
            }
            4 => {
                let source = &FILES[usize::from(with) % 2];
                let (start, end) = (EDGES[from as usize % 7], EDGES[to as usize % 7]);
                let part = start.min(end).min(container.len())..start.max(end).min(container.len());
                container.splice(part.clone(), source[part].iter().copied());
            }
            _ => container.extend(std::iter::repeat_n(with, from.into())),
        }
        container.truncate(4096);
    }
    container
}

fuzz_target!(|input: &[u8]| {
    let container = put_together(input);
    // A whole container in another's place is genuine.
    let genuine = FILES.iter().position(|file| *file == container);
    let expected = genuine.map(|file| plaintext(file as u8 + 1));
    assert_eq!(open_to_vec(&KEYRING, &container).ok(), expected);

    let mut streamed = Vec::new();
    let stream = OpenStream::new(Cursor::new(&container), &KEYRING);
    let whole = stream.and_then(|mut stream| stream.read_to_end(&mut streamed)).is_ok();
    assert_eq!(whole, genuine.is_some());
    assert!(whole || streamed.is_empty());

    // Segment by segment: one opens only to the plaintext of its own place in the file of its header.
    let Ok(opener) = Opener::new(&container, container.len() as u64, &KEYRING) else { return };
    for number in 0..opener.layout().segments() {
        let place = opener.layout().segment(number).unwrap();
        let mut bytes = container[place.position as usize..][..place.sealed_len()].to_vec();
        if let Ok(opened) = opener.open_segments(number, &mut bytes) {
            let of_file = FILES.iter().position(|file| file[..48] == container[..48]).unwrap();
            assert_eq!(opened, &plaintext(of_file as u8 + 1)[place.start as usize..][..place.len]);
        }
    }
});
