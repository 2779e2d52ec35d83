//! SHA-256 of several messages at the same time, each of bytes of its own.
//!
//! A single hash waits most of the time, as [`pair`](super::pair) tells. Four that don't wait for each other fill the unit
//! of the SHA Extensions, if that has nothing but rounds to do: the message schedules are computed beside it, of a group of
//! sixteen blocks ahead, in vectors of AVX-512 (a schedule depends on the bytes alone, so each element of a vector belongs
//! to another block). On a Zen 5 core two, three and four take 0.66, 0.61 and 0.56 of the time that they take one after
//! the other (`benches/crypto.rs`). Where the processor lacks the instructions they go one after the other, by `sha2`.

use std::slice;

use bytes::Bytes;
use sha2::{Digest as _, Sha256};

use super::ahead::Ahead;
use super::state::{BLOCK_LEN, Block, advance, begun};

/// So many go at the same time.
pub const MOST: usize = 4;

/// Blocks whose schedules are computed together.
pub(super) const GROUP: usize = 16;

pub(super) type Group = [Block; GROUP];

const GROUP_LEN: usize = GROUP * BLOCK_LEN;

/// A hash, and what it has to take.
#[derive(Debug)]
pub struct Lane<'a> {
    hash: &'a mut Sha256,
    /// Of the piece before [`pieces`](Self::pieces).
    bytes: &'a [u8],
    pieces: slice::Iter<'a, Bytes>,
}

/// Whether several go faster at the same time than one after the other.
#[must_use]
pub fn go_together() -> bool {
    // Unoptimised, each instruction of it is a call.
    !cfg!(debug_assertions) && Ahead::detect().is_some()
}

/// Each hash takes all of its pieces. It is faster if they are about as long.
pub fn update(lanes: &mut [Lane<'_>]) {
    if !cfg!(debug_assertions) {
        in_lockstep(lanes);
    }
    lanes.iter_mut().for_each(Lane::alone);
}

/// As long as there are two that can.
fn in_lockstep(lanes: &mut [Lane<'_>]) {
    let Some(ahead) = Ahead::detect() else { return };
    for lanes in lanes.chunks_mut(MOST) {
        loop {
            let mut ready: Vec<_> =
                lanes.iter_mut().filter_map(|lane| lane.is_ready().then_some(lane)).collect();
            let went = match &mut ready[..] {
                [a, b, c, d] => together(ahead, [a, b, c, d]),
                [a, b, c] => together(ahead, [a, b, c]),
                [a, b] => together(ahead, [a, b]),
                _ => false,
            };
            if !went {
                break;
            }
        }
    }
}

/// As far as the shortest of them goes.
fn together<const N: usize>(ahead: Ahead, mut lanes: [&mut Lane<'_>; N]) -> bool {
    let count = lanes.iter().map(|lane| lane.groups().len()).min().unwrap_or(0);
    let groups = lanes.each_ref().map(|lane| &lane.groups()[..count]);
    let hashes = lanes.each_mut().map(|lane| &mut *lane.hash);
    let went = advance(hashes, count * GROUP, |states| ahead.compress(states, groups));
    if went {
        for lane in lanes {
            lane.bytes = &lane.bytes[count * GROUP_LEN..];
        }
    }
    went
}

impl<'a> Lane<'a> {
    /// `hash` is to take `pieces`.
    pub fn new(hash: &'a mut Sha256, pieces: &'a [Bytes]) -> Self {
        Self { hash, bytes: &[], pieces: pieces.iter() }
    }

    /// Whether there are groups to take, at the end of a block. What comes before them has been hashed then; otherwise, all.
    fn is_ready(&mut self) -> bool {
        loop {
            let missing = (BLOCK_LEN - begun(self.hash)) % BLOCK_LEN;
            if self.bytes.len() >= missing + GROUP_LEN {
                let (head, rest) = self.bytes.split_at(missing);
                self.hash.update(head);
                self.bytes = rest;
                return true;
            }
            self.hash.update(self.bytes);
            self.bytes = &[];
            match self.pieces.next() {
                Some(piece) => self.bytes = piece,
                None => return false,
            }
        }
    }

    fn groups(&self) -> &'a [Group] {
        self.bytes.as_chunks().0.as_chunks().0
    }

    /// Takes what is left.
    fn alone(&mut self) {
        self.hash.update(self.bytes);
        self.bytes = &[];
        self.pieces.by_ref().for_each(|piece| self.hash.update(piece));
    }
}

#[cfg(test)]
#[path = "lanes_tests.rs"]
mod tests;
