//! What is computed of the bytes of an upload: its SHA-256, and checksums that clients send with a piece of it.

use md5::Md5;
use sha1::Sha1;
use sha2::{Digest as _, Sha256};

use crate::crypto::Sha256Pair;
use crate::domain::Digest;

/// What a piece of an upload must have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Checksum {
    /// SHA-1.
    Sha1([u8; 20]),
    /// SHA-256.
    Sha256([u8; 32]),
    /// MD5.
    Md5([u8; 16]),
}

/// Computes what may be asked of a piece; nothing, by default.
#[derive(Clone, Default)]
pub(super) struct PieceHash {
    sha1: Option<Sha1>,
    sha256: Option<Sha256>,
    md5: Option<Md5>,
}

impl PieceHash {
    /// For a checksum that is known before the piece.
    pub(super) fn of(checksum: &Checksum) -> Self {
        match checksum {
            Checksum::Sha1(_) => Self { sha1: Some(Sha1::new()), ..Self::default() },
            Checksum::Sha256(_) => Self { sha256: Some(Sha256::new()), ..Self::default() },
            Checksum::Md5(_) => Self { md5: Some(Md5::new()), ..Self::default() },
        }
    }

    /// For one that comes after it.
    pub(super) fn of_any() -> Self {
        Self { sha1: Some(Sha1::new()), sha256: Some(Sha256::new()), md5: Some(Md5::new()) }
    }

    pub(super) fn update(&mut self, bytes: &[u8]) {
        if let Some(sha1) = &mut self.sha1 {
            sha1.update(bytes);
        }
        if let Some(sha256) = &mut self.sha256 {
            sha256.update(bytes);
        }
        if let Some(md5) = &mut self.md5 {
            md5.update(bytes);
        }
    }

    fn is_none(&self) -> bool {
        self.sha1.is_none() && self.sha256.is_none() && self.md5.is_none()
    }

    /// Whether the piece has it; `false` if that was not computed.
    pub(super) fn has(self, checksum: &Checksum) -> bool {
        match checksum {
            Checksum::Sha1(expected) => self.sha1.is_some_and(|hash| hash.finalize() == *expected),
            Checksum::Sha256(expected) => self.sha256.is_some_and(|hash| hash.finalize() == *expected),
            Checksum::Md5(expected) => self.md5.is_some_and(|hash| hash.finalize() == *expected),
        }
    }
}

/// What is computed of the bytes that pass.
#[derive(Clone, Default)]
pub(super) struct Hashes {
    /// SHA-256 of the whole file, or of the chunk.
    pub(super) whole: Sha256,
    /// In its place: the SHA-256 of the chunk, and that of the whole file whose next bytes it is.
    pair: Option<Box<Sha256Pair>>,
    /// Nothing is computed now.
    pub(super) later: bool,
    /// What the client has sent a checksum of.
    pub(super) piece: PieceHash,
}

impl Hashes {
    /// Of a chunk that follows on what has been hashed of the whole file.
    pub(super) fn following(whole: Sha256) -> Self {
        let pair = Sha256Pair::new(Sha256::default(), whole);
        Self { pair: Some(Box::new(pair)), ..Self::default() }
    }

    /// Of what will be read back and hashed later.
    pub(super) fn later() -> Self {
        Self { later: true, ..Self::default() }
    }

    pub(super) fn update(&mut self, bytes: &[u8]) {
        match &mut self.pair {
            Some(pair) => pair.update(bytes),
            None if self.later => {}
            None => self.whole.update(bytes),
        }
        self.piece.update(bytes);
    }

    /// Whether nothing but [`whole`](Self::whole) is.
    pub(super) fn are_only_whole(&self) -> bool {
        self.pair.is_none() && !self.later && self.piece.is_none()
    }

    /// The SHA-256 of a chunk, if it was computed, and that of the whole file with it, if it followed on that.
    pub(super) fn of_chunk(self) -> (Option<Digest>, Option<Sha256>) {
        let digest = |hash: Sha256| Digest::new(hash.finalize().into());
        match self.pair {
            Some(pair) => {
                let (chunk, whole) = pair.split();
                (Some(digest(chunk)), Some(whole))
            }
            None => ((!self.later).then(|| digest(self.whole)), None),
        }
    }

    pub(super) fn digest(self) -> Digest {
        Digest::new(self.whole.finalize().into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 1321 A.5, FIPS 180-4: of "abc".
    #[test]
    fn a_piece_has_its_checksums_and_no_others() {
        let sha1 = [
            0xa9, 0x99, 0x3e, 0x36, 0x47, 0x06, 0x81, 0x6a, 0xba, 0x3e, 0x25, 0x71, 0x78, 0x50, 0xc2, 0x6c,
            0x9c, 0xd0, 0xd8, 0x9d,
        ];
        let md5 = 0x9001_5098_3cd2_4fb0_d696_3f7d_28e1_7f72_u128.to_be_bytes();
        let sha256 = Sha256::digest("abc").into();
        for checksum in [Checksum::Sha1(sha1), Checksum::Sha256(sha256), Checksum::Md5(md5)] {
            for (mut hash, bytes, expected) in [
                (PieceHash::of(&checksum), "abc", true),
                (PieceHash::of_any(), "abc", true),
                (PieceHash::of_any(), "abd", false),
                (PieceHash::default(), "abc", false),
            ] {
                let (head, tail) = bytes.split_at(1);
                hash.update(head.as_bytes());
                hash.update(tail.as_bytes());
                assert_eq!(hash.has(&checksum), expected, "{checksum:?} of {bytes}");
            }
        }
    }
}
