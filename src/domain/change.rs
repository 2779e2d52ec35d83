//! What can happen to a transfer: the only way in which one changes.

use super::{
    Client, Digest, Direction, FileName, Priority, Seal, Status, StoredFile, Timestamp, Transfer, TransferId,
};

/// One thing that happened to one transfer.
#[derive(Debug, Clone, PartialEq)]
pub enum Change {
    /// It began.
    Started(Start),
    /// It is done.
    Completed(Completion),
    /// All bytes of a download were sent.
    Sent {
        /// Which transfer.
        id: TransferId,
        /// When.
        at: Timestamp,
        /// SHA-256 of the file, if it is known.
        checksum: Option<Digest>,
    },
    /// It ended with an error.
    Failed {
        /// Which transfer.
        id: TransferId,
        /// When.
        at: Timestamp,
        /// Why, for a person.
        error: Box<str>,
        /// Bytes that had come through.
        transferred_bytes: u64,
    },
    /// A complete upload was sealed anew, under another key or in another container; the content is the same.
    Resealed {
        /// Which transfer.
        id: TransferId,
        /// The container now.
        seal: Seal,
        /// What stands under the name now.
        file: StoredFile,
    },
    /// It ended long ago, on an older server, and all that was recorded there is taken over.
    Imported(Box<Transfer>),
    /// It was ended on request.
    Cancelled {
        /// Which transfer.
        id: TransferId,
        /// When.
        at: Timestamp,
        /// Bytes that had come through.
        transferred_bytes: u64,
    },
}

/// How a transfer begins.
#[derive(Debug, Clone, PartialEq)]
pub struct Start {
    /// A new id.
    pub id: TransferId,
    /// The name of the file, as far as it is known: a form may bear another after the file.
    pub filename: FileName,
    /// Upload or download.
    pub direction: Direction,
    /// Who.
    pub client: Client,
    /// Whether the file is to be sealed.
    pub encryption: bool,
    /// How urgent.
    pub priority: Priority,
    /// Bytes to come; `None` if the client has not said.
    pub total_bytes: Option<u64>,
    /// When.
    pub at: Timestamp,
}

/// How a transfer ended well.
#[derive(Debug, Clone, PartialEq)]
pub struct Completion {
    /// Which transfer.
    pub id: TransferId,
    /// When.
    pub at: Timestamp,
    /// The name at last.
    pub filename: FileName,
    /// The client at last.
    pub client: Client,
    /// The priority at last.
    pub priority: Priority,
    /// Which container holds it; `None`: it is not sealed.
    pub seal: Option<Seal>,
    /// SHA-256 of the content.
    pub checksum: Digest,
    /// What stands under the name.
    pub file: StoredFile,
}

/// A change that can't follow the state that the transfer is in.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ImpossibleMove {
    /// The id is not known.
    #[error("no transfer has the id {0}")]
    Unknown(TransferId),
    /// The id is taken.
    #[error("a transfer with the id {0} has already begun")]
    BegunTwice(TransferId),
    /// The transfer has ended, or (for a change that only follows an end) has not.
    #[error("the transfer {id} is {status:?} and can't change so")]
    Ended {
        /// Which transfer.
        id: TransferId,
        /// Where it is.
        status: Status,
    },
}

impl Change {
    /// The transfer that changes.
    pub const fn id(&self) -> TransferId {
        match self {
            Self::Started(start) => start.id,
            Self::Completed(completion) => completion.id,
            Self::Imported(transfer) => transfer.id,
            Self::Sent { id, .. }
            | Self::Failed { id, .. }
            | Self::Resealed { id, .. }
            | Self::Cancelled { id, .. } => *id,
        }
    }

    /// The name under which something may stand by this change that did not before.
    pub const fn filename(&self) -> Option<&FileName> {
        match self {
            Self::Completed(completion) => Some(&completion.filename),
            Self::Imported(transfer) => Some(&transfer.filename),
            Self::Started(_)
            | Self::Sent { .. }
            | Self::Failed { .. }
            | Self::Resealed { .. }
            | Self::Cancelled { .. } => None,
        }
    }

    /// The state after this change, given the one before (`None`: the id is not known).
    ///
    /// # Errors
    /// [`ImpossibleMove`] if this change can't follow that state: nothing ends twice, begins twice or goes on
    /// without having begun.
    pub fn apply(self, before: Option<&Transfer>, seq: u64) -> Result<Transfer, ImpossibleMove> {
        let id = self.id();
        let before = match (before, self) {
            (None, Self::Started(start)) => return Ok(start.into_transfer(seq)),
            (None, Self::Imported(transfer)) => return Ok(Transfer { seq, ..*transfer }),
            (Some(_), Self::Started(_) | Self::Imported(_)) => return Err(ImpossibleMove::BegunTwice(id)),
            (None, _) => return Err(ImpossibleMove::Unknown(id)),
            (Some(before), Self::Resealed { seal, file, .. }) if before.is_stored() && before.encryption => {
                let seal = Some(Box::new(seal));
                return Ok(Transfer { seal, file: Some(file), seq, ..before.clone() });
            }
            (Some(before), change)
                if before.status.is_terminal() || matches!(change, Self::Resealed { .. }) =>
            {
                return Err(ImpossibleMove::Ended { id, status: before.status });
            }
            (Some(before), change) => (before.clone(), change),
        };
        let (mut transfer, change) = before;
        transfer.seq = seq;
        transfer.eta = None;
        match change {
            // Answered above.
            Self::Started(_) | Self::Imported(_) | Self::Resealed { .. } => {}
            Self::Completed(completion) => {
                let size = completion.file.size;
                transfer.status = Status::Completed;
                transfer.updated_at = completion.at;
                transfer.filename = completion.filename;
                transfer.client = completion.client;
                transfer.priority = completion.priority;
                transfer.encryption = completion.seal.is_some();
                transfer.seal = completion.seal.map(Box::new);
                transfer.checksum = Some(completion.checksum);
                transfer.file = Some(completion.file);
                transfer.progress = 100;
                transfer.eta = Some(0);
                transfer.transferred_bytes = size;
                transfer.total_bytes = Some(size);
                transfer.speed = mean_speed(size, transfer.created_at, completion.at);
            }
            Self::Sent { at, checksum, .. } => {
                let sent = transfer.total_bytes.unwrap_or(0);
                transfer.status = Status::Completed;
                transfer.checksum = checksum;
                transfer.eta = Some(0);
                transfer.end(at, sent);
            }
            Self::Failed { at, error, transferred_bytes, .. } => {
                transfer.status = Status::Failed;
                transfer.error = Some(error);
                transfer.end(at, transferred_bytes);
            }
            Self::Cancelled { at, transferred_bytes, .. } => {
                transfer.status = Status::Cancelled;
                transfer.end(at, transferred_bytes);
            }
        }
        Ok(transfer)
    }
}

impl Transfer {
    fn end(&mut self, at: Timestamp, transferred_bytes: u64) {
        self.updated_at = at;
        self.transferred_bytes = transferred_bytes;
        self.progress = super::progress::percent(transferred_bytes, self.total_bytes);
        self.speed = mean_speed(transferred_bytes, self.created_at, at);
    }
}

impl Start {
    fn into_transfer(self, seq: u64) -> Transfer {
        Transfer {
            id: self.id,
            filename: self.filename,
            direction: self.direction,
            status: match self.direction {
                Direction::Upload => Status::Uploading,
                Direction::Download => Status::Downloading,
            },
            checksum: None,
            encryption: self.encryption,
            priority: self.priority,
            progress: 0,
            speed: 0,
            eta: None,
            transferred_bytes: 0,
            total_bytes: self.total_bytes,
            client: self.client,
            retry_count: 0,
            created_at: self.at,
            updated_at: self.at,
            error: None,
            file: None,
            seal: None,
            seq,
        }
    }
}

/// Bytes a second from `from` to `to`; what took less than a microsecond counts as one.
fn mean_speed(bytes: u64, from: Timestamp, to: Timestamp) -> u64 {
    let elapsed = to.to_system_time().duration_since(from.to_system_time()).unwrap_or_default();
    let micros = elapsed.as_micros().max(1);
    u64::try_from(u128::from(bytes) * 1_000_000 / micros).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn start() -> Start {
        Start {
            id: TransferId::new(),
            filename: FileName::clean("a.txt").unwrap(),
            direction: Direction::Upload,
            client: Client::new("::1", "", None),
            encryption: false,
            priority: Priority::default(),
            total_bytes: Some(200),
            at: Timestamp::parse("2026-01-01T00:00:00Z").unwrap(),
        }
    }

    fn complete(start: &Start) -> Change {
        Change::Completed(Completion {
            id: start.id,
            at: Timestamp::parse("2026-01-01T00:00:02Z").unwrap(),
            filename: FileName::clean("b.txt").unwrap(),
            client: start.client.clone().with_id("me"),
            priority: Priority::try_from(3).unwrap(),
            seal: None,
            checksum: Digest::new([1; 32]),
            file: StoredFile { size: 100, modified: start.at },
        })
    }

    fn fail(start: &Start) -> Change {
        Change::Failed { id: start.id, at: start.at, error: "hung up".into(), transferred_bytes: 50 }
    }

    #[test]
    fn an_upload_begins_and_completes() {
        let start = start();
        let begun = Change::Started(start.clone()).apply(None, 1).unwrap();
        assert_eq!((begun.status, begun.progress, begun.seq), (Status::Uploading, 0, 1));
        let done = complete(&start).apply(Some(&begun), 2).unwrap();
        assert_eq!((done.status, done.progress, done.seq), (Status::Completed, 100, 2));
        assert_eq!(done.filename.as_str(), "b.txt", "a name that came after the file counts");
        assert_eq!((done.total_bytes, done.speed, done.eta), (Some(100), 50, Some(0)));
    }

    #[test]
    fn a_failed_upload_says_how_far_it_got() {
        let start = start();
        let begun = Change::Started(start.clone()).apply(None, 1).unwrap();
        let failed = fail(&start).apply(Some(&begun), 2).unwrap();
        assert_eq!((failed.status, failed.progress, failed.transferred_bytes), (Status::Failed, 25, 50));
        assert_eq!(failed.error.as_deref(), Some("hung up"));
    }

    #[test]
    fn nothing_ends_twice_begins_twice_or_goes_on_without_a_beginning() {
        let start = start();
        let id = start.id;
        let begun = Change::Started(start.clone()).apply(None, 1).unwrap();
        assert_eq!(
            Change::Started(start.clone()).apply(Some(&begun), 2),
            Err(ImpossibleMove::BegunTwice(id))
        );
        assert_eq!(complete(&start).apply(None, 1), Err(ImpossibleMove::Unknown(id)));
        for end in [complete(&start), fail(&start)] {
            let ended = end.apply(Some(&begun), 2).unwrap();
            for again in [complete(&start), fail(&start)] {
                assert_eq!(
                    again.apply(Some(&ended), 3),
                    Err(ImpossibleMove::Ended { id, status: ended.status })
                );
            }
        }
    }
}
