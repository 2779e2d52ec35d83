//! What the bytes of an upload are on their way from whoever receives them to the threads that hash and write them.

use std::ops::Range;

use bytes::Bytes;

/// Each piece may hold a buffer of this size.
pub(super) const LEAST_WEIGHT: usize = 8 << 10;

/// Bytes that follow each other, and what is to be done with them. They may be secret: it is not `Debug`.
pub(super) enum Piece {
    /// Hash them and write them; the [writer](super::writer) seals, if that is asked for.
    Data(Bytes),
    /// Hash them: they are being [sealed](super::ahead), and come in that form or as [`Write`](Self::Write) later.
    Hash(Bytes),
    /// Write them as they are: these segments of the container.
    Sealed { segments: Range<u64>, bytes: Bytes },
    /// Write them, sealed: they have been hashed.
    Write(Bytes),
}

impl Piece {
    /// What is to be hashed of it.
    pub(super) const fn hashed(&self) -> Option<&Bytes> {
        match self {
            Self::Data(bytes) | Self::Hash(bytes) => Some(bytes),
            Self::Sealed { .. } | Self::Write(_) => None,
        }
    }

    /// Cuts off what there is to be hashed, up to `most`. Whole: a piece of which nothing is.
    pub(super) fn split_to(&mut self, most: usize) -> Self {
        match self {
            Self::Data(bytes) => Self::Data(bytes.split_to(most.min(bytes.len()))),
            Self::Hash(bytes) => Self::Hash(bytes.split_to(most.min(bytes.len()))),
            Self::Sealed { segments, bytes } => {
                Self::Sealed { segments: segments.clone(), bytes: std::mem::take(bytes) }
            }
            Self::Write(bytes) => Self::Write(std::mem::take(bytes)),
        }
    }

    /// Bytes of memory that it holds, about.
    pub(super) fn weight(&self) -> usize {
        match self {
            Self::Data(bytes) | Self::Hash(bytes) => bytes.len().max(LEAST_WEIGHT),
            Self::Sealed { bytes, .. } | Self::Write(bytes) => bytes.len(),
        }
    }

    pub(super) const fn is_empty(&self) -> bool {
        match self {
            Self::Data(bytes) | Self::Hash(bytes) | Self::Write(bytes) | Self::Sealed { bytes, .. } => {
                bytes.is_empty()
            }
        }
    }
}
