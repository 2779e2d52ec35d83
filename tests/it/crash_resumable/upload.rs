//! One upload, and what its client has been told of it.

use std::collections::BTreeSet;
use std::ops::Range;

use bytes::Bytes;

use crate::support::random::Random;
use crate::support::{content, sha256};

/// A file on its way.
pub struct Upload {
    pub name: String,
    /// Its client's id, and its `Idempotency-Key`.
    pub client: String,
    pub bytes: Bytes,
    pub sha256: String,
    pub sealed: bool,
    pub way: Way,
    pub outcome: Outcome,
}

/// What its client knows of its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// The request that completes it has never been sent.
    Open,
    /// It was sent, and no answer came.
    Unknown,
    /// A 2xx said so.
    Complete,
}

/// How it comes.
#[derive(Debug)]
pub enum Way {
    Chunks(Chunks),
    Tus {
        part: InOrder,
        deferred: bool,
    },
    /// tus: parts that are joined at the end.
    Joined(Vec<InOrder>),
    Draft(InOrder),
    /// A PUT that breaks off and goes on by `Content-Range`.
    Put {
        part: InOrder,
        began: bool,
    },
}

/// Bytes that come in order.
#[derive(Debug)]
pub struct InOrder {
    /// Where it is, once its client has been told.
    pub path: Option<String>,
    pub key: String,
    /// Which bytes of the file.
    pub range: Range<usize>,
    /// The highest offset that was told.
    pub told: usize,
}

impl InOrder {
    fn new(key: String, range: Range<usize>) -> Self {
        Self { path: None, key, range, told: 0 }
    }

    pub fn length(&self) -> usize {
        self.range.len()
    }

    pub fn is_whole(&self) -> bool {
        self.path.is_some() && self.told == self.length()
    }

    /// The server says that it is so far: never less than it said before.
    #[track_caller]
    pub fn is_told(&mut self, offset: usize) {
        assert!(
            (self.told..=self.length()).contains(&offset),
            "{offset} is told, after {} of {}: {self:?}",
            self.told,
            self.length()
        );
        self.told = offset;
    }
}

/// Numbered chunks.
#[derive(Debug)]
pub struct Chunks {
    pub size: usize,
    pub total: usize,
    /// Whether the client says what the file has and how large it is; an old one does not.
    pub described: bool,
    /// Whether the client says how large its chunks are.
    pub sized: bool,
    pub id: Option<String>,
    pub acknowledged: BTreeSet<usize>,
}

impl Chunks {
    pub fn range(&self, number: usize, length: usize) -> Range<usize> {
        number * self.size..((number + 1) * self.size).min(length)
    }
}

impl Upload {
    /// One that has not begun. `tag` is its own.
    pub fn draw(name: String, tag: &str, random: &mut Random) -> Self {
        let kind = random.within(0..100);
        let length = match (kind, random.within(0..100)) {
            // Less is not worth keeping of a PUT that breaks off.
            (90.., _) => random.within((1 << 20) + 1..3 << 20),
            (_, 0..3) => 0,
            (_, 3..6) => 1,
            (_, 6..60) => random.within(2..60_000),
            // At the edges of segments.
            (_, 60..70) => random.within(1..5) * 65_536 + random.within(0..3) - 1,
            (_, 70..96) => random.within(60_000..400_000),
            // More than what waits in memory.
            _ => random.within(400_000..3 << 20),
        } as usize;
        let in_order = |range| InOrder::new(tag.to_owned(), range);
        let way = match kind {
            0..40 => {
                let size = length.div_ceil(random.within(1..13) as usize).max(1);
                // Where it comes out even, some clients send an empty one behind.
                let more = usize::from(length > 0 && length.is_multiple_of(size) && random.percent(10));
                Way::Chunks(Chunks {
                    size,
                    total: length.div_ceil(size).max(1) + more,
                    described: random.percent(50),
                    sized: random.percent(50),
                    id: None,
                    acknowledged: BTreeSet::new(),
                })
            }
            40..65 => Way::Tus { part: in_order(0..length), deferred: random.percent(30) },
            65..75 => {
                let middle = random.within(0..length as u64 + 1) as usize;
                let ranges = [0..middle, middle..length];
                let numbered = ranges.into_iter().enumerate();
                Way::Joined(numbered.map(|(n, range)| InOrder::new(format!("{tag}-{n}"), range)).collect())
            }
            75..90 => Way::Draft(in_order(0..length)),
            _ => Way::Put { part: in_order(0..length), began: false },
        };
        let seed = random.next();
        let bytes = content(length, seed);
        Self {
            name,
            client: tag.to_owned(),
            sha256: sha256(&bytes),
            bytes: bytes.into(),
            sealed: random.percent(40),
            way,
            outcome: Outcome::Open,
        }
    }

    pub fn is_complete(&self) -> bool {
        self.outcome == Outcome::Complete
    }
}

impl std::fmt::Debug for Upload {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { name, client, bytes, sealed, way, outcome, .. } = self;
        let length = bytes.len();
        write!(f, "{name} of {client}, {length} bytes, sealed: {sealed}, {outcome:?}: {way:?}")
    }
}
