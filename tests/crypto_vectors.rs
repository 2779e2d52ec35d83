//! The container as others see it: the committed test vectors, and an independent decoder and encoder in Python.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use std::io::{Cursor, Read, Write as _};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use serde_json::Value;
use smart_file_transfer::crypto::{
    Ends, FileKey, Geometry, HEADER_LEN, Keyring, OpenStream, Opener, Sealer, open_to_vec,
};

const KEY: &str = "DevKey1234567890";

fn keyring() -> Keyring {
    Keyring::new(KEY, [""; 0]).unwrap()
}

fn plaintext(len: u64) -> Vec<u8> {
    (0..len).map(|i| (i * 7 + i / 256) as u8).collect()
}

fn from_hex(text: &str) -> Vec<u8> {
    text.as_bytes()
        .chunks(2)
        .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap())
        .collect()
}

fn vectors() -> Value {
    serde_json::from_str(include_str!("vectors/container/vectors.json")).unwrap()
}

#[test]
fn the_vectors_open() {
    let mut opened = 0;
    for vector in vectors()["opens"].as_array().unwrap() {
        let name = &vector["name"];
        let Some(container) = vector["container"].as_str().map(from_hex) else { continue };
        let expected = plaintext(vector["plaintext_len"].as_u64().unwrap());
        assert_eq!(open_to_vec(&keyring(), &container).unwrap(), expected, "{name}");
        let opener = Opener::new(&container, container.len() as u64, &keyring()).unwrap();
        assert_eq!(u64::from(opener.header().geometry.segment_size()), vector["segment_size"], "{name}");
        assert_eq!(opener.header().geometry.chunk_size(), vector["chunk_size"], "{name}");
        opened += 1;
    }
    assert_eq!(opened, 9);
}

#[test]
fn the_tampered_vectors_are_refused() {
    let vectors = vectors();
    let refused = vectors["refused"].as_array().unwrap();
    assert_eq!(refused.len(), 15);
    for vector in refused {
        let container = from_hex(vector["container"].as_str().unwrap());
        assert!(open_to_vec(&keyring(), &container).is_err(), "{}", vector["name"]);
        let mut some = Vec::new();
        let streamed = OpenStream::new(Cursor::new(&container), &keyring())
            .and_then(|mut all| all.read_to_end(&mut some));
        assert!(streamed.is_err() && some.is_empty(), "{}", vector["name"]);
    }
}

/// The Python with PyCryptodome in it, or a printed word on why the test is skipped. `SFT_TEST_PYTHON` names another
/// than `python3`.
fn python() -> Option<String> {
    let python = std::env::var("SFT_TEST_PYTHON").unwrap_or_else(|_| "python3".to_owned());
    let check = Command::new(&python).args(["-c", "from Crypto.Cipher import AES; AES.MODE_EAX"]).output();
    if check.is_ok_and(|output| output.status.success()) {
        return Some(python);
    }
    eprintln!("skipped: `{python}` with PyCryptodome is needed (pip install pycryptodome)");
    None
}

/// Runs `tests/support/container.py` over a file of these bytes; what it printed, unless it failed.
fn run(python: &str, command: &str, input: &[u8], sizes: &[u64]) -> Option<Vec<u8>> {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(input).unwrap();
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/support/container.py");
    let output = Command::new(python)
        .arg("-B")
        .arg(script)
        .args([command, KEY])
        .arg(file.path())
        .args(sizes.iter().map(u64::to_string))
        .output()
        .unwrap();
    output.status.success().then_some(output.stdout)
}

fn seal(geometry: Geometry, mut plaintext: &[u8]) -> Vec<u8> {
    let key = Arc::new(FileKey::create(&keyring(), geometry).unwrap());
    let mut container = key.header_bytes().to_vec();
    let mut sealer = Sealer::from_segment(key, 0).unwrap();
    while let Some(sealed) = sealer.push(&mut plaintext).unwrap() {
        container.extend_from_slice(sealed.bytes);
    }
    container.extend_from_slice(&sealer.finish(Ends::File).unwrap().bytes);
    container
}

/// Segment size, chunk size and length; the lengths are at the edges of segments, chunks and batches.
const SIZES: [(u32, u64, u64); 9] = [
    (65_536, 0, 0),
    (65_536, 0, 1),
    (65_536, 0, 65_536),
    (65_536, 0, 65_537),
    (65_536, 0, 1_048_577),
    (65_536, 100_000, 350_000),
    (64, 0, 2_000),
    (64, 100, 1_001),
    (1_024, 5, 23),
];

#[test]
fn the_python_decoder_opens_what_we_seal() {
    let Some(python) = python() else { return };
    for (segment, chunk, len) in SIZES {
        let container = seal(Geometry::new(segment, chunk).unwrap(), &plaintext(len));
        let opened = run(&python, "open", &container, &[]);
        assert!(opened == Some(plaintext(len)), "segments of {segment}, chunks of {chunk}, {len} bytes");
        let mut flipped = container;
        *flipped.last_mut().unwrap() ^= 1;
        assert_eq!(run(&python, "open", &flipped, &[]), None);
        assert_eq!(run(&python, "open", &flipped[..HEADER_LEN], &[]), None);
    }
}

#[test]
fn we_open_what_the_python_encoder_seals() {
    let Some(python) = python() else { return };
    for (segment, chunk, len) in SIZES {
        let sealed =
            run(&python, "seal", &plaintext(len), &[segment.into(), chunk]).expect("the encoder works");
        let opened = open_to_vec(&keyring(), &sealed).unwrap();
        assert!(opened == plaintext(len), "segments of {segment}, chunks of {chunk}, {len} bytes");
    }
}
