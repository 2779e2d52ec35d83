//! Sealing and opening in segments of the usual size (32 KiB) on one core: our container, the lanes alone, and the `eax` and `aes-gcm`
//! crates over the same bytes; two SHA-256 of the same bytes. `cargo bench --bench crypto`.

#![allow(missing_docs, clippy::unwrap_used)]

use std::hint::black_box;
use std::sync::Arc;

use aes_gcm::Aes128Gcm;
use aes_gcm::aead::{AeadInOut, KeyInit};
use bytes::Bytes;
use criterion::measurement::WallTime;
use criterion::{BenchmarkGroup, Criterion, Throughput, criterion_group, criterion_main};
use eax::Eax;
use sha2::{Digest as _, Sha256};
use smart_file_transfer::crypto::eax_lanes::{EaxLanes, Lane};
use smart_file_transfer::crypto::layout::DEFAULT_SEGMENT_SIZE;
use smart_file_transfer::crypto::sha256::lanes;
use smart_file_transfer::crypto::{
    Ends, FileKey, Geometry, Keyring, LANES, Opener, SEGMENT_OVERHEAD, Sealer, Sha256Pair, seal_to_vec,
};

const SEGMENT: usize = DEFAULT_SEGMENT_SIZE as usize;
/// 32 batches of sixteen segments, 16 MiB: more than the caches of a core hold, as a file would be.
const SEGMENTS: usize = 32 * LANES;
const TOTAL: usize = SEGMENTS * SEGMENT;
/// The container's segments are not aligned; the others get the same stride.
const STRIDE: usize = SEGMENT + SEGMENT_OVERHEAD;

fn lanes<'a>(data: &'a mut [u8], tags: &'a mut [[u8; 16]], first: usize) -> Vec<Lane<'a>> {
    let mut lanes = Vec::with_capacity(LANES);
    for (index, (segment, tag)) in data.chunks_mut(STRIDE).zip(tags).enumerate() {
        let nonce = ((first + index) as u128).to_be_bytes();
        lanes.push(Lane { nonce, data: &mut segment[8..8 + SEGMENT], tag });
    }
    lanes
}

/// An AEAD of the RustCrypto family, segment by segment.
fn aead<A: AeadInOut>(group: &mut BenchmarkGroup<'_, WallTime>, name: &str, open: bool, aead: &A) {
    let mut data = vec![7_u8; SEGMENTS * STRIDE];
    let pristine = {
        let nonce = Default::default();
        let mut segment = vec![7_u8; SEGMENT];
        let tag = aead.encrypt_inout_detached(&nonce, b"", segment.as_mut_slice().into()).unwrap();
        (segment, tag, nonce)
    };
    group.bench_function(name, |b| {
        b.iter(|| {
            for segment in data.chunks_mut(STRIDE) {
                let segment = &mut segment[8..8 + SEGMENT];
                if open {
                    // Opening replaces the ciphertext. The copy is paid by all that open, ours too.
                    segment.copy_from_slice(&pristine.0);
                    aead.decrypt_inout_detached(&pristine.2, b"", segment.into(), &pristine.1).unwrap();
                } else {
                    black_box(aead.encrypt_inout_detached(&pristine.2, b"", segment.into()).unwrap());
                }
            }
        });
    });
}

fn seal(c: &mut Criterion) {
    let mut group = c.benchmark_group("seal");
    group.throughput(Throughput::Bytes(TOTAL as u64));
    let keyring = Keyring::new("DevKey1234567890", [""; 0]).unwrap();
    let key = Arc::new(FileKey::create(&keyring, Geometry::default()).unwrap());

    let mut data = vec![7_u8; SEGMENTS * STRIDE];
    group.bench_function("segments in place", |b| {
        b.iter(|| {
            for (batch, segments) in data.chunks_mut(LANES * STRIDE).enumerate() {
                key.seal_segments((batch * LANES) as u64, Ends::Chunk, segments).unwrap();
            }
        });
    });
    let plaintext = vec![7_u8; TOTAL];
    group.bench_function("sealer", |b| {
        b.iter(|| {
            let mut sealer = Sealer::chunk(Arc::clone(&key), 0).unwrap();
            let mut input = &plaintext[..];
            while let Some(sealed) = sealer.push(&mut input).unwrap() {
                black_box(sealed.bytes);
            }
            black_box(sealer.finish(Ends::File).unwrap());
        });
    });
    let eax = EaxLanes::new(&[7; 16], b"");
    let mut tags = [[0; 16]; LANES];
    group.bench_function("lanes", |b| {
        b.iter(|| {
            for (batch, segments) in data.chunks_mut(LANES * STRIDE).enumerate() {
                eax.seal(&mut lanes(segments, &mut tags, batch * LANES));
            }
        });
    });
    group.bench_function("one lane", |b| {
        b.iter(|| {
            for (batch, segments) in data.chunks_mut(STRIDE).enumerate() {
                eax.seal(&mut lanes(segments, &mut tags, batch));
            }
        });
    });
    aead(&mut group, "eax crate", false, &Eax::<aes::Aes128>::new(&[7; 16].into()));
    aead(&mut group, "aes-gcm crate", false, &Aes128Gcm::new(&[7; 16].into()));
    group.finish();
}

fn open(c: &mut Criterion) {
    let mut group = c.benchmark_group("open");
    group.throughput(Throughput::Bytes(TOTAL as u64));
    let keyring = Keyring::new("DevKey1234567890", [""; 0]).unwrap();
    let file = seal_to_vec(&keyring, &vec![7; TOTAL]).unwrap();
    let opener = Opener::new(&file, file.len() as u64, &keyring).unwrap();
    let mut buffer = vec![0; LANES * STRIDE];
    group.bench_function("opener", |b| {
        b.iter(|| {
            for (batch, segments) in file[48..].chunks(LANES * STRIDE).enumerate() {
                let buffer = &mut buffer[..segments.len()];
                buffer.copy_from_slice(segments);
                black_box(opener.open_segments((batch * LANES) as u64, buffer).unwrap());
            }
        });
    });
    let eax = EaxLanes::new(&[7; 16], b"");
    let mut sealed = vec![7_u8; SEGMENTS * STRIDE];
    let mut tags = vec![[0; 16]; SEGMENTS];
    for (batch, (segments, tags)) in sealed.chunks_mut(LANES * STRIDE).zip(tags.chunks_mut(LANES)).enumerate()
    {
        eax.seal(&mut lanes(segments, tags, batch * LANES));
    }
    group.bench_function("lanes", |b| {
        b.iter(|| {
            let batches = sealed.chunks(LANES * STRIDE).zip(tags.chunks_mut(LANES));
            for (batch, (segments, tags)) in batches.enumerate() {
                buffer[..segments.len()].copy_from_slice(segments);
                eax.open(&mut lanes(&mut buffer, tags, batch * LANES)).unwrap();
            }
        });
    });
    aead(&mut group, "eax crate", true, &Eax::<aes::Aes128>::new(&[7; 16].into()));
    aead(&mut group, "aes-gcm crate", true, &Aes128Gcm::new(&[7; 16].into()));
    group.finish();
}

/// A chunk of 1 MiB: by itself, and as the next bytes of its file.
fn sha256(c: &mut Criterion) {
    let mut group = c.benchmark_group("sha256");
    let chunk = vec![7_u8; 1024 * 1024];
    group.throughput(Throughput::Bytes(chunk.len() as u64));
    let file = Sha256::new_with_prefix([7; 4096]);
    group.bench_function("once", |b| b.iter(|| Sha256::new_with_prefix(&chunk).finalize()));
    group.bench_function("twice, one after the other", |b| {
        b.iter(|| (Sha256::new_with_prefix(&chunk).finalize(), file.clone().chain_update(&chunk).finalize()));
    });
    // As the bytes of a request arrive, and all at once.
    for piece in [1024, 16 * 1024, chunk.len()] {
        group.bench_function(format!("pair, in pieces of {piece}"), |b| {
            b.iter(|| {
                let mut pair = Sha256Pair::new(Sha256::new(), file.clone());
                chunk.chunks(piece).for_each(|piece| pair.update(piece));
                let (first, second) = pair.split();
                (first.finalize(), second.finalize())
            });
        });
    }
    // Of as many uploads, bytes of their own.
    let pieces = vec![Bytes::from(vec![7; 256 * 1024]); 4];
    for count in 1..=lanes::MOST {
        group.throughput(Throughput::Bytes((count * chunk.len()) as u64));
        group.bench_function(format!("{count} side by side"), |b| {
            b.iter(|| {
                let mut hashes = vec![Sha256::new(); count];
                let mut lanes: Vec<_> =
                    hashes.iter_mut().map(|hash| lanes::Lane::new(hash, &pieces)).collect();
                lanes::update(&mut lanes);
                hashes
            });
        });
    }
    group.finish();
}

criterion_group!(benches, seal, open, sha256);
criterion_main!(benches);
