//! A transfer and the states it goes through.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize};
use uuid::Uuid;

use super::{Client, Digest, FileName, Hex16, InvalidFileName, Priority, Seal, Timestamp};

/// Identifies one transfer; sorts by the time at which it was made (UUID version 7, RFC 9562 §5.7).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct TransferId(Uuid);

impl TransferId {
    /// After every other.
    pub const MAX: Self = Self(Uuid::max());

    /// A new one.
    pub fn new() -> Self {
        Self(Uuid::now_v7())
    }

    /// The id of a transfer that is recorded without one: always the same for the same record, and sorted by `at` too.
    pub fn derived(at: Timestamp, key: &str) -> Self {
        use sha2::Digest as _;
        let mut random = [0; 10];
        random.copy_from_slice(&sha2::Sha256::digest(key)[..10]);
        Self(uuid::Builder::from_unix_timestamp_millis(at.unix_millis(), &random).into_uuid())
    }
}

impl Default for TransferId {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Display for TransferId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl FromStr for TransferId {
    type Err = uuid::Error;

    fn from_str(text: &str) -> Result<Self, uuid::Error> {
        text.parse().map(Self)
    }
}

/// Which way the bytes go, seen from the client.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Direction {
    /// From the client to the server.
    #[default]
    Upload,
    /// From the server to the client.
    Download,
}

/// Where a transfer is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// Queued: nothing has been moved yet.
    Pending,
    /// Bytes arrive.
    Uploading,
    /// Bytes leave.
    Downloading,
    /// All bytes are there and are being sealed, joined or looked at.
    Processing,
    /// Done, durable and whole.
    Completed,
    /// Ended by an error; nothing of it is left.
    Failed,
    /// Ended on request; nothing of it is left.
    Cancelled,
}

impl Status {
    /// Whether nothing can follow.
    pub const fn is_terminal(self) -> bool {
        matches!(self, Self::Completed | Self::Failed | Self::Cancelled)
    }

    /// The status as it is written in JSON.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Uploading => "uploading",
            Self::Downloading => "downloading",
            Self::Processing => "processing",
            Self::Completed => "completed",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
        }
    }
}

/// What stands under a name in the storage directory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredFile {
    /// Bytes of its plain content.
    pub size: u64,
    /// When its content last changed, as the file system has it: by this and the size a file that was replaced
    /// behind the server's back is told from the one that was recorded.
    pub modified: Timestamp,
}

/// One attempt to move one file, as it is recorded, shown and journalled.
///
/// Immutable: a [`super::Change`] makes the next one from it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Transfer {
    /// Its own id.
    pub id: TransferId,
    /// The name of the file.
    pub filename: FileName,
    /// Upload or download.
    pub direction: Direction,
    /// Where it is.
    pub status: Status,
    /// SHA-256 of the plain content, once known.
    pub checksum: Option<Digest>,
    /// Whether the file is sealed at rest.
    pub encryption: bool,
    /// How urgent it is.
    pub priority: Priority,
    /// Whole percent, 0 to 100; never goes back.
    pub progress: u8,
    /// Bytes a second: smoothed while it runs, the mean once it has ended.
    pub speed: u64,
    /// Whole seconds to go; `None` where it can't be known.
    pub eta: Option<u64>,
    /// Bytes that are through.
    pub transferred_bytes: u64,
    /// Bytes there are in all; `None` as long as the client has not said.
    pub total_bytes: Option<u64>,
    /// Who.
    #[serde(flatten)]
    pub client: Client,
    /// How often it was tried again.
    pub retry_count: u32,
    /// When it began.
    pub created_at: Timestamp,
    /// When its state last changed.
    pub updated_at: Timestamp,
    /// Why it failed, for a person.
    pub error: Option<Box<str>>,
    /// What was stored, once an upload is complete.
    pub file: Option<StoredFile>,
    /// Which container it is, if it was sealed.
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    pub seal: Option<Box<Seal>>,
    /// The number of the change that made this state: higher is later, over all transfers.
    pub seq: u64,
}

impl Transfer {
    /// Whether this is an upload that is complete: the only thing that can stand under a name.
    pub fn is_stored(&self) -> bool {
        self.direction == Direction::Upload && self.status == Status::Completed
    }
}

/// Reads a text or `null` (as an empty one): older files have both.
fn text_or_null<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Box<str>, D::Error> {
    Ok(Option::<Box<str>>::deserialize(deserializer)?.unwrap_or_default())
}

/// A number of any kind, or `null`: older files have floating-point speeds and times. What is not finite or
/// negative is 0.
fn whole<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u64>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Number {
        Whole(u64),
        Real(f64),
    }
    Ok(Option::<Number>::deserialize(deserializer)?.map(|number| match number {
        Number::Whole(value) => value,
        // A saturating conversion: NaN and negative values become 0.
        Number::Real(value) => value as u64,
    }))
}

/// A transfer as a file has it: ours, or one of version "1.0" in which members may be missing.
#[derive(Debug, Clone, Deserialize)]
pub struct RecordedTransfer {
    id: Option<TransferId>,
    filename: Option<FileName>,
    #[serde(default)]
    direction: Direction,
    status: Status,
    checksum: Option<Digest>,
    #[serde(default)]
    encryption: bool,
    #[serde(default)]
    priority: Priority,
    #[serde(default, deserialize_with = "whole")]
    progress: Option<u64>,
    #[serde(default, deserialize_with = "whole")]
    speed: Option<u64>,
    #[serde(default, deserialize_with = "whole")]
    eta: Option<u64>,
    #[serde(default, deserialize_with = "whole")]
    transferred_bytes: Option<u64>,
    #[serde(default, deserialize_with = "whole")]
    total_bytes: Option<u64>,
    // Not `#[serde(flatten)]`: that reads everything twice, and a million of these are read at a start.
    #[serde(default, deserialize_with = "text_or_null")]
    client_ip: Box<str>,
    #[serde(default, deserialize_with = "text_or_null")]
    client_agent: Box<str>,
    #[serde(default, deserialize_with = "text_or_null")]
    client_id: Box<str>,
    #[serde(default)]
    retry_count: u32,
    created_at: Option<Timestamp>,
    updated_at: Option<Timestamp>,
    error: Option<Box<str>>,
    file: Option<StoredFile>,
    nonce: Option<Hex16>,
    tag: Option<Hex16>,
    #[serde(default)]
    seq: u64,
}

impl RecordedTransfer {
    /// The transfer; `key` is what it stood under, used where it bears no name of its own.
    ///
    /// Cleaning can make one name of two keys. The file of that name in the storage directory is then the one whose key
    /// is the name: the other counts as earlier than all.
    ///
    /// # Errors
    /// If there is no name at all, or none that can be used.
    pub fn into_transfer(self, key: Option<&str>) -> Result<Transfer, InvalidFileName> {
        let filename = match self.filename {
            Some(filename) => filename,
            None => FileName::clean(key.unwrap_or_default())?,
        };
        let created_at = self.created_at.or(self.updated_at).unwrap_or(Timestamp::EPOCH);
        let updated_at = self.updated_at.unwrap_or(created_at);
        let id = self.id.unwrap_or_else(|| match key {
            Some(key) if key != filename.as_str() => TransferId::derived(Timestamp::EPOCH, key),
            _ => TransferId::derived(updated_at, filename.as_str()),
        });
        Ok(Transfer {
            id,
            filename,
            direction: self.direction,
            status: self.status,
            checksum: self.checksum,
            encryption: self.encryption,
            priority: self.priority,
            progress: self.progress.map_or(0, |percent| u8::try_from(percent.min(100)).unwrap_or(100)),
            speed: self.speed.unwrap_or(0),
            eta: self.eta,
            transferred_bytes: self.transferred_bytes.unwrap_or(0),
            total_bytes: self.total_bytes,
            client: Client::recorded(self.client_ip, self.client_agent, self.client_id),
            retry_count: self.retry_count,
            created_at,
            updated_at,
            error: self.error,
            file: self.file,
            seal: self.nonce.zip(self.tag).map(|(nonce, tag)| Box::new(Seal { nonce, tag })),
            seq: self.seq,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_transfer_of_version_1_0_is_read() {
        let recorded: RecordedTransfer = serde_json::from_str(
            r#"{"status": "completed", "checksum": null, "encryption": false, "priority": 4,
                "created_at": "2024-10-24T07:50:04.000000", "updated_at": "2024-10-24T07:51:04.125000", "retry_count": 0,
                "progress": 100, "speed": 34930.97, "eta": 0.5, "transferred_bytes": 70241, "total_bytes": 70241,
                "client_ip": "192.168.1.100", "client_agent": null, "client_id": "192.168.1.100", "unheard_of": []}"#,
        )
        .unwrap();
        let transfer = recorded.into_transfer(Some("a.bin")).unwrap();
        assert_eq!(transfer.speed, 34930);
        assert_eq!(transfer.eta, Some(0));
        assert_eq!(transfer.created_at.to_string(), "2024-10-24T07:50:04Z");
        assert_eq!(&*transfer.client.agent, "");
        assert!(transfer.is_stored());
    }

    #[test]
    fn the_least_that_is_recorded_is_a_status() {
        let recorded: RecordedTransfer = serde_json::from_str(r#"{"status": "failed"}"#).unwrap();
        assert_eq!(
            recorded.clone().into_transfer(None),
            Err(InvalidFileName::Empty),
            "a transfer has a name"
        );
        assert_eq!(recorded.clone().into_transfer(Some("..")), Err(InvalidFileName::Empty));
        let transfer = recorded.into_transfer(Some("a")).unwrap();
        assert_eq!(transfer.created_at.to_string(), "1970-01-01T00:00:00Z");
        assert_eq!(transfer.total_bytes, None);
    }

    #[test]
    fn a_record_without_an_id_gets_the_same_one_at_every_reading() {
        let id = |key: &str, updated: &str| {
            let text = format!(r#"{{"status": "failed", "updated_at": "{updated}"}}"#);
            serde_json::from_str::<RecordedTransfer>(&text).unwrap().into_transfer(Some(key)).unwrap().id
        };
        let (old, new) = ("2024-10-24T07:50:00", "2024-10-24T07:50:01");
        assert_eq!(id("a", old), id("a", old));
        assert_ne!(id("a", old), id("b", old));
        assert!(id("z", old) < id("a", new), "ids sort by time");
        assert!(id(".a", new) < id("a", old), "a key that is not its name is the earlier one");
        assert_ne!(id(".a", new), id("..a", new));
    }

    #[test]
    fn a_transfer_reads_what_it_writes() {
        let transfer = Transfer {
            id: TransferId::new(),
            filename: FileName::clean("ä b.txt").unwrap(),
            direction: Direction::Download,
            status: Status::Failed,
            checksum: Some(Digest::new([7; 32])),
            encryption: true,
            priority: Priority::try_from(9).unwrap(),
            progress: 50,
            speed: 3,
            eta: Some(1),
            transferred_bytes: 1,
            total_bytes: Some(2),
            client: Client::new("::1", "curl", Some("me")),
            retry_count: 3,
            created_at: Timestamp::now(),
            updated_at: Timestamp::now(),
            error: Some("why".into()),
            file: Some(StoredFile { size: 2, modified: std::time::SystemTime::now().into() }),
            seal: Some(Box::new(Seal { nonce: Hex16([1; 16]), tag: Hex16([2; 16]) })),
            seq: u64::from(u32::MAX),
        };
        let text = serde_json::to_string(&transfer).unwrap();
        let read: RecordedTransfer = serde_json::from_str(&text).unwrap();
        assert_eq!(read.into_transfer(None), Ok(transfer));
    }
}
