//! The words of resumable uploads.

use std::sync::Arc;

use bytes::Bytes;

use crate::domain::{Client, Digest, FileName, Priority, Timestamp, Transfer, TransferId};
pub use crate::services::checksum::Checksum;
use crate::services::uploads::UploadError;
use crate::store::status::Condition;

/// What a new upload is to be.
#[derive(Debug, Clone)]
pub struct Creation {
    /// The name that it takes at the end.
    pub filename: FileName,
    /// Who sends it.
    pub client: Client,
    /// How urgent it is.
    pub priority: Priority,
    /// Whether it is to be sealed, if the client has said.
    pub encryption: Option<bool>,
    /// What its content must have, if the client has said.
    pub sha256: Option<Digest>,
    /// What must stand under the name when it is published.
    pub condition: Condition,
    /// Bytes in all, if that is known.
    pub size: Option<u64>,
    /// tus: `Upload-Metadata`, as it was sent.
    pub metadata: Option<Box<str>>,
    /// The same key of the same client gives the same upload.
    pub idempotency_key: Option<Box<str>>,
    /// tus: a part of an upload that is joined later. It is never published by itself.
    pub partial: bool,
    /// It is complete when the client says so, not when its size is reached.
    pub says_its_end: bool,
}

/// How tus's concatenation concerns an upload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Concat {
    /// It is a part.
    Partial,
    /// It was joined of parts: the list, as it was sent.
    Final(Box<str>),
}

/// How far an upload is. What it says is durable.
#[derive(Debug, Clone)]
pub struct Progress {
    /// Its id: that of the transfer.
    pub id: TransferId,
    /// Bytes that are there, from the first on.
    pub offset: u64,
    /// Bytes in all, if that is known.
    pub size: Option<u64>,
    /// Whether everything is there, and published unless it is a part.
    pub complete: bool,
    /// When it is given up unless something comes; `None`: it is complete.
    pub expires_at: Option<Timestamp>,
    /// tus: `Upload-Metadata`, as it was sent.
    pub metadata: Option<Box<str>>,
    /// tus: concatenation.
    pub concat: Option<Concat>,
    /// The transfer, once it is published: what the answer to it is made of.
    pub transfer: Option<Arc<Transfer>>,
}

/// How a request adds to an upload.
#[derive(Debug, Clone, Default)]
pub struct Append {
    /// Where the client says that it goes on.
    pub offset: u64,
    /// Bytes in all, if the client says so now.
    pub size: Option<u64>,
    /// Whether the upload ends with this body; `None`: it ends when its size is reached.
    pub complete: Option<bool>,
    /// Bytes of this body, if that is known.
    pub length: Option<u64>,
    /// What this body must have, if the client has said. A body that has something else is not taken.
    pub checksum: Option<Checksum>,
    /// The client says what the body must have after it ([`Piece::Checksum`]).
    pub checksum_follows: bool,
}

/// What a body is made of.
#[derive(Debug, Clone)]
pub enum Piece {
    /// Bytes of the file.
    Data(Bytes),
    /// What they must have: a trailer.
    Checksum(Checksum),
}

/// What a request says of the chunk that it brings.
#[derive(Debug, Clone)]
pub struct Chunk {
    /// The name that the upload takes at the end.
    pub filename: FileName,
    /// Who sends it.
    pub client: Client,
    /// Its number, from 0.
    pub number: u32,
    /// How many there are.
    pub total: u32,
    /// What it must have.
    pub hash: Digest,
    /// Of which upload it is, if the client has said; else that of its name and client.
    pub upload_id: Option<TransferId>,
    /// Bytes of all chunks but the last, if the client has said.
    pub size: Option<u64>,
    /// Bytes of the whole file, if the client has said.
    pub file_size: Option<u64>,
    /// What the whole file must have, if the client has said.
    pub file_hash: Option<Digest>,
    /// Whether it is to be sealed, if the client has said.
    pub encryption: Option<bool>,
    /// How urgent it is.
    pub priority: Priority,
}

/// What came of a chunk.
#[derive(Debug, Clone)]
pub enum ChunkTaken {
    /// It is there, and durable; others are missing.
    Uploading {
        /// Of which upload it is.
        id: TransferId,
        /// How many are there.
        received: u32,
    },
    /// That was the last: the file is published.
    Completed {
        /// How many there were.
        received: u32,
        /// The transfer.
        transfer: Arc<Transfer>,
    },
}

/// What there is of an upload that can go on.
#[derive(Debug, Clone)]
pub struct ResumeInfo {
    /// Its id.
    pub id: TransferId,
    /// The chunks that are there, in order, and what each has; of an upload that goes on in order, none.
    pub chunks: Vec<(u32, Digest)>,
    /// How many there will be; `None`: it goes on in order.
    pub total: Option<u32>,
    /// Bytes of all chunks but the last, if that is known.
    pub chunk_size: Option<u64>,
    /// Bytes that are there.
    pub received: u64,
    /// When it is given up unless something comes.
    pub expires_at: Timestamp,
}

/// Why a body ended before its end.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Broken {
    /// The client hung up.
    #[error("the request ended before its body was complete")]
    HungUp(String),
    /// Nothing came for too long.
    #[error("nothing came for too long")]
    TimedOut,
    /// A trailer that can't be used.
    #[error("the trailer can't be read")]
    Trailer,
}

/// Why a request on a resumable upload was not done. What it brought has changed nothing then, but where it says so.
#[derive(Debug, thiserror::Error)]
pub enum ResumableError {
    /// There never was one of this id, or it is long forgotten.
    #[error("no upload of this id is known")]
    Unknown,
    /// It has expired, was cancelled or failed.
    #[error("the upload has expired, was cancelled or has failed")]
    Gone,
    /// The client goes on from elsewhere.
    #[error("the upload goes on at {expected}, not at {provided}")]
    Offset {
        /// Where it goes on.
        expected: u64,
        /// Where the client wanted to.
        provided: u64,
        /// How far it is.
        progress: Box<Progress>,
    },
    /// Everything is there: nothing can be added.
    #[error("the upload is complete")]
    Complete(Box<Progress>),
    /// What was said of the size does not agree with what was said before, or with what came.
    #[error("the lengths that were given do not agree")]
    Inconsistent,
    /// Larger than an upload may be.
    #[error("the upload is larger than {limit} bytes")]
    TooLarge {
        /// The most bytes that it may have.
        limit: u64,
    },
    /// The body did not have its checksum: the upload is as before.
    #[error("the body does not have the checksum that was sent with it")]
    PieceChecksum,
    /// An upload that was joined of others takes no bytes of its own.
    #[error("the upload was joined of others")]
    Joined,
    /// What was to be joined are no parts, or not of this client, or not complete.
    #[error("the parts can't be joined: {0}")]
    Parts(&'static str),
    /// Too many are unfinished, of this client or in all.
    #[error("there are {limit} unfinished uploads already")]
    TooMany {
        /// How many there may be.
        limit: usize,
    },
    /// What a chunk's request says of it can't be.
    #[error("{0}")]
    InvalidChunk(&'static str),
    /// A chunk is not what its request says. It is not taken.
    #[error("the chunk has the SHA-256 {actual}, not {expected}")]
    ChunkHash {
        /// What the request says.
        expected: Digest,
        /// What came.
        actual: Digest,
    },
    /// A chunk contradicts what is there. Nothing has changed.
    #[error("the chunk does not go with what is there: {0}")]
    ChunkConflict(&'static str),
    /// Another request of this upload has come meanwhile: what had arrived is kept, and it goes on from there.
    #[error("another request has taken the upload over")]
    TakenOver,
    /// The body broke off: what had come is kept, and durable.
    #[error(transparent)]
    Broken(#[from] Broken),
    /// A reason that single uploads have too.
    #[error(transparent)]
    Upload(#[from] UploadError),
}
