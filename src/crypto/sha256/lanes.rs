//! SHA-256 of several messages at the same time, each of bytes of its own.
//!
//! A single hash waits most of the time. There are several ways (`ways.rs`) to do others meanwhile; which one, and of how
//! many hashes, depends on the processor. Where none is faster they go one after the other, by `sha2`.

use std::vec;

use bytes::Bytes;
use sha2::{Digest as _, Sha256};

use super::state::{BLOCK_LEN, GROUP, GROUP_LEN, Group, State, advance, begun};
use super::ways::{self, Plan, Way};

/// More never go at the same time.
pub const MOST: usize = ways::MOST;

/// A hash, and what it has to take.
#[derive(Debug)]
pub struct Lane<'a> {
    hash: &'a mut Sha256,
    /// Of the piece before [`pieces`](Self::pieces).
    bytes: &'a [u8],
    pieces: vec::IntoIter<&'a Bytes>,
}

/// So many are fastest at the same time, each of them taken for itself. 1: they go one after the other.
#[must_use]
pub fn best() -> usize {
    Plan::measured().best()
}

/// Each hash takes all of its pieces. It is faster if they are about as long.
pub fn update(lanes: &mut [Lane<'_>]) {
    at_the_same_time(lanes, Plan::measured());
    lanes.iter_mut().for_each(Lane::alone);
}

/// As long as there are some that can.
fn at_the_same_time(lanes: &mut [Lane<'_>], plan: &Plan) {
    for lanes in lanes.chunks_mut(MOST) {
        loop {
            let mut ready: Vec<_> =
                lanes.iter_mut().filter_map(|lane| lane.is_ready().then_some(lane)).collect();
            let Some((way, count)) = plan.next(ready.len()) else { break };
            let went = match (way, count) {
                (Way::Lockstep(cpu), _) => {
                    first(&mut ready, |states: &mut [_; 2], groups| cpu.compress(states, groups))
                }
                (Way::Ahead(cpu), 2) => {
                    first(&mut ready, |states: &mut [_; 2], groups| cpu.compress(states, groups))
                }
                (Way::Ahead(cpu), 3) => {
                    first(&mut ready, |states: &mut [_; 3], groups| cpu.compress(states, groups))
                }
                (Way::Ahead(cpu), _) => {
                    first(&mut ready, |states: &mut [_; 4], groups| cpu.compress(states, groups))
                }
                (Way::Wide(cpu), 2) => {
                    first(&mut ready, |states: &mut [_; 2], groups| cpu.compress(states, groups))
                }
                (Way::Wide(cpu), 3) => {
                    first(&mut ready, |states: &mut [_; 3], groups| cpu.compress(states, groups))
                }
                (Way::Wide(cpu), 4) => {
                    first(&mut ready, |states: &mut [_; 4], groups| cpu.compress(states, groups))
                }
                (Way::Wide(cpu), 5) => {
                    first(&mut ready, |states: &mut [_; 5], groups| cpu.compress(states, groups))
                }
                (Way::Wide(cpu), 6) => {
                    first(&mut ready, |states: &mut [_; 6], groups| cpu.compress(states, groups))
                }
                (Way::Wide(cpu), 7) => {
                    first(&mut ready, |states: &mut [_; 7], groups| cpu.compress(states, groups))
                }
                (Way::Wide(cpu), _) => {
                    first(&mut ready, |states: &mut [_; 8], groups| cpu.compress(states, groups))
                }
            };
            if !went {
                break;
            }
        }
    }
}

/// The first of those that are ready, as far as the shortest of them goes. `false`: nothing has changed.
fn first<const N: usize>(
    ready: &mut [&mut Lane<'_>],
    compress: impl FnOnce(&mut [State; N], [&[Group]; N]),
) -> bool {
    let Some(lanes) = ready.first_chunk_mut::<N>() else { return false };
    let count = lanes.iter().map(|lane| lane.groups().len()).min().unwrap_or(0);
    let groups = lanes.each_ref().map(|lane| &lane.groups()[..count]);
    let hashes = lanes.each_mut().map(|lane| &mut *lane.hash);
    let went = advance(hashes, count * GROUP, |states| compress(states, groups));
    if went {
        for lane in lanes {
            lane.bytes = &lane.bytes[count * GROUP_LEN..];
        }
    }
    went
}

impl<'a> Lane<'a> {
    /// `hash` is to take `pieces`.
    pub fn new(hash: &'a mut Sha256, pieces: impl IntoIterator<Item = &'a Bytes>) -> Self {
        Self { hash, bytes: &[], pieces: pieces.into_iter().collect::<Vec<_>>().into_iter() }
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
