//! The log of an upload that can be resumed: what it is, and what of it has arrived.
//!
//! A text file beside the upload's data, one fact a line, each with its checksum:
//!
//! ```text
//! 4c1d92e0 {"upload":1,"id":"…","filename":"a.bin","client_ip":"10.0.0.1",…,"created_at":"…"}
//! 9be20f11 {"offset":{"offset":8388608,"hash":"…"}}
//! 77a0c3d5 {"chunk":{"number":3,"length":1048576,"sha256":"…"}}
//! ```
//!
//! The data is flushed first, then the line is appended and flushed, then the client is told: so a line speaks of bytes
//! that are there. A last line that is not whole was torn by a crash, never acknowledged, and is dropped. Damage before it
//! is told.

use std::fs::{File, OpenOptions};
use std::io::{self, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::lines::{check, write_line};
use super::status::Condition;
use super::{Durability, Layout, atomic};
use crate::domain::{Client, Digest, FileName, Priority, Timestamp, TransferId};

/// The format's version.
const VERSION: u32 = 1;
/// A log that has grown by so many bytes beyond what it needs is written anew.
const SLACK: u64 = 256 << 10;

/// Which format it is.
#[derive(Deserialize)]
struct Version {
    upload: u32,
}

/// What an upload is, from its first line on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    upload: u32,
    /// Its id: that of the transfer.
    pub id: TransferId,
    /// The name that it takes at the end.
    pub filename: FileName,
    client_ip: Box<str>,
    client_agent: Box<str>,
    client_id: Box<str>,
    /// How urgent it is.
    pub priority: Priority,
    /// Whether it is sealed.
    pub sealed: bool,
    /// What its content must have, if the client has said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sha256: Option<Digest>,
    /// What must stand under the name when it is published.
    #[serde(default)]
    pub condition: Condition,
    /// Bytes in all, if the client said so at the beginning.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<u64>,
    /// tus: `Upload-Metadata`, as it was sent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metadata: Option<Box<str>>,
    /// The same key of the same client gives the same upload.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idempotency_key: Option<Box<str>>,
    /// It is complete when the client says so, not when its size is reached.
    #[serde(default)]
    pub says_its_end: bool,
    /// How its bytes come.
    pub kind: Kind,
    /// When it began.
    pub created_at: Timestamp,
}

/// How the bytes of an upload come.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// In order.
    Ordered,
    /// In order, to be joined with others.
    Partial,
    /// All at once: joined of parts.
    Joined {
        /// Which.
        parts: Vec<TransferId>,
        /// tus: the list of their URLs, as it was sent.
        list: Box<str>,
    },
    /// In numbered chunks.
    Chunks {
        /// How many.
        total: u32,
    },
}

impl Manifest {
    /// A new one.
    pub fn new(id: TransferId, filename: FileName, client: &Client, kind: Kind) -> Self {
        Self {
            upload: VERSION,
            id,
            filename,
            client_ip: (*client.ip).into(),
            client_agent: client.agent.clone(),
            client_id: (*client.id).into(),
            priority: Priority::default(),
            sealed: false,
            sha256: None,
            condition: Condition::Any,
            size: None,
            metadata: None,
            idempotency_key: None,
            says_its_end: false,
            kind,
            created_at: Timestamp::now(),
        }
    }

    /// Who sends it.
    pub fn client(&self) -> Client {
        Client::new(&*self.client_ip, &self.client_agent, Some(&self.client_id))
    }
}

/// What happened to an upload.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Record {
    /// The client has said how long it will be.
    Size(u64),
    /// Everything up to here is there.
    Offset {
        /// Bytes from the first on.
        offset: u64,
        /// What is needed to go on: see [`Memory`].
        memory: Memory,
    },
    /// Everything is there; it could not be published yet.
    Whole,
    /// All chunks but the last have so many bytes (0: there is only one): now each has its place.
    ChunkSize(u64),
    /// The last chunk is there, in a file of its own, as its place is not known yet.
    Aside {
        /// Which file.
        part: TransferId,
        /// Its bytes.
        length: u64,
        /// What it has.
        sha256: Digest,
    },
    /// A chunk is there.
    Chunk {
        /// Its number, from 0.
        number: u32,
        /// Its bytes.
        length: u64,
        /// What it has.
        sha256: Digest,
    },
    /// What was found of a chunk is not what had arrived: it is missing again.
    Lost(u32),
    /// It was published; this log is kept for those who ask again.
    Published {
        /// Of an upload in chunks: the one that came last, and what it has.
        last: Option<(u32, Digest)>,
    },
}

/// What an upload must remember to go on, beside its data: the state of its SHA-256 and, if it is sealed, plain bytes
/// that do not fill a segment yet. The latter is why it is sealed then as a whole.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Memory {
    /// Base64.
    Plain(Box<str>),
    /// A container, in Base64.
    Sealed(Box<str>),
}

/// A log that can't be read.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The system refused.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// Damage that is no torn end.
    #[error("the log of the upload is damaged at line {line}")]
    Damaged {
        /// Which line, from 1.
        line: usize,
    },
    /// Another server has written it.
    #[error("the log of the upload is of version {0}, which is not known to this server")]
    Version(u32),
    /// There is nothing in it: the upload was never acknowledged.
    #[error("the log of the upload is empty")]
    Empty,
}

/// A log that is appended to. It keeps no file open: there may be thousands of them.
#[derive(Debug)]
pub struct UploadLog {
    path: PathBuf,
    length: u64,
    /// How long it was when it was last written as a whole.
    needed: u64,
    durability: Durability,
}

impl UploadLog {
    /// Begins the log of an upload.
    ///
    /// # Errors
    /// What the system says; nothing is left behind.
    pub fn create(layout: &Layout, manifest: &Manifest, durability: Durability) -> io::Result<Self> {
        let path = layout.upload_log(manifest.id);
        let mut log = Self { path, length: 0, needed: 0, durability };
        log.rewrite(manifest, &[])?;
        Ok(log)
    }

    /// Reads a log: what the upload is, and what has happened to it. A torn end is cut off.
    ///
    /// # Errors
    /// [`LogError`].
    pub fn open(path: &Path, durability: Durability) -> Result<(Self, Manifest, Vec<Record>), LogError> {
        let content = std::fs::read(path)?;
        let mut lines = content.split_inclusive(|byte| *byte == b'\n').enumerate();
        let (mut manifest, mut records, mut whole) = (None, Vec::new(), 0);
        for (index, line) in &mut lines {
            let damaged = LogError::Damaged { line: index + 1 };
            let Some(json) = check(line) else {
                // Every line was flushed before the next: only the last can be torn.
                if whole + line.len() < content.len() {
                    return Err(damaged);
                }
                break;
            };
            if index == 0 {
                let Version { upload } = serde_json::from_slice(json).map_err(|_| damaged)?;
                if upload != VERSION {
                    return Err(LogError::Version(upload));
                }
                let damaged = LogError::Damaged { line: 1 };
                manifest = Some(serde_json::from_slice::<Manifest>(json).map_err(|_| damaged)?);
            } else {
                records.push(serde_json::from_slice(json).map_err(|_| damaged)?);
            }
            whole += line.len();
        }
        let manifest = manifest.ok_or(LogError::Empty)?;
        let length = whole as u64;
        let log = Self { path: path.to_owned(), length, needed: length, durability };
        Ok((log, manifest, records))
    }

    /// Writes something down. When this returns, it is durable. Blocking.
    ///
    /// # Errors
    /// What the system says; it is as if nothing had been written then.
    pub fn append(&mut self, record: &Record) -> io::Result<()> {
        let mut line = Vec::new();
        write_line(&mut line, record)?;
        let mut file = OpenOptions::new().write(true).open(&self.path)?;
        let written = self.write(&mut file, &line);
        match written {
            Ok(()) => self.length += line.len() as u64,
            // What can't be cut off is cut off by the next one, or dropped as a torn end.
            Err(_) => _ = file.set_len(self.length),
        }
        written
    }

    fn write(&self, file: &mut File, line: &[u8]) -> io::Result<()> {
        if file.metadata()?.len() > self.length {
            file.set_len(self.length)?;
        }
        file.seek(SeekFrom::Start(self.length))?;
        file.write_all(line)?;
        self.durability.sync_data(file)
    }

    /// Whether most of the log is history by now: then it should be [rewritten](Self::rewrite).
    pub const fn is_long(&self) -> bool {
        self.length > 2 * self.needed + SLACK
    }

    /// Replaces the whole log, atomically. Blocking.
    ///
    /// # Errors
    /// What the system says; the log is as before then.
    pub fn rewrite(&mut self, manifest: &Manifest, records: &[Record]) -> io::Result<()> {
        let mut lines = Vec::new();
        write_line(&mut lines, manifest)?;
        records.iter().try_for_each(|record| write_line(&mut lines, record))?;
        atomic::replace(&self.path, self.durability, |file| file.write_all(&lines))?;
        self.length = lines.len() as u64;
        self.needed = self.length;
        Ok(())
    }

    /// When it was last written to.
    ///
    /// # Errors
    /// What the system says.
    pub fn touched(&self) -> io::Result<Timestamp> {
        Ok(std::fs::metadata(&self.path)?.modified()?.into())
    }

    /// Removes it.
    ///
    /// # Errors
    /// What the system says.
    pub fn remove(&self) -> io::Result<()> {
        atomic::remove_if_there(&self.path)
    }
}

/// The logs that are there, with the ids in their names.
///
/// # Errors
/// What the system says.
pub fn list(layout: &Layout) -> io::Result<Vec<(TransferId, PathBuf)>> {
    let mut logs = Vec::new();
    for entry in std::fs::read_dir(layout.uploads())? {
        let path = entry?.path();
        let id = path.file_name().and_then(|name| name.to_str()?.strip_suffix(".log")?.parse().ok());
        logs.extend(id.map(|id| (id, path)));
    }
    Ok(logs)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layout(dir: &Path) -> Layout {
        let layout = Layout::new(dir.join("storage"), dir.join("status.json"));
        layout.create().unwrap();
        layout
    }

    fn manifest() -> Manifest {
        let client = Client::new("10.0.0.1", "curl/8", Some("desk"));
        let name = FileName::clean("a b.txt").unwrap();
        let mut manifest = Manifest::new(TransferId::new(), name, &client, Kind::Chunks { total: 7 });
        manifest.condition = Condition::New;
        manifest.metadata = Some("filename YQ==".into());
        manifest
    }

    fn chunk(number: u32) -> Record {
        Record::Chunk { number, length: 5, sha256: Digest::new([3; 32]) }
    }

    #[test]
    fn what_was_written_is_read_and_a_torn_end_is_dropped() {
        let dir = tempfile::tempdir().unwrap();
        let (layout, manifest) = (layout(dir.path()), manifest());
        let mut log = UploadLog::create(&layout, &manifest, Durability::Power).unwrap();
        let records = [
            Record::Size(33),
            chunk(2),
            Record::Lost(2),
            Record::Published { last: Some((2, Digest::new([3; 32]))) },
        ];
        records.iter().for_each(|record| log.append(record).unwrap());
        let path = layout.upload_log(manifest.id);
        assert_eq!(list(&layout).unwrap(), [(manifest.id, path.clone())]);
        let whole = std::fs::read(&path).unwrap();
        for torn in 0..40 {
            let mut file = OpenOptions::new().write(true).open(&path).unwrap();
            file.seek(SeekFrom::Start(whole.len() as u64 - torn)).unwrap();
            file.set_len(whole.len() as u64 - torn).unwrap();
            let (mut log, read, found) = UploadLog::open(&path, Durability::Process).unwrap();
            assert_eq!(read, manifest);
            let there = if torn == 0 { 4 } else { 3 };
            assert_eq!(found, records[..there], "{torn} bytes are missing");
            assert_eq!(read.client(), manifest.client());
            if torn > 0 {
                log.append(&records[3]).unwrap();
                assert_eq!(std::fs::read(&path).unwrap(), whole, "what comes next takes its place");
            }
        }
    }

    #[test]
    fn damage_before_the_end_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let (layout, manifest) = (layout(dir.path()), manifest());
        let mut log = UploadLog::create(&layout, &manifest, Durability::Power).unwrap();
        (0..3).for_each(|number| log.append(&chunk(number)).unwrap());
        let path = layout.upload_log(manifest.id);
        let whole = std::fs::read(&path).unwrap();
        let second = whole.iter().position(|byte| *byte == b'\n').unwrap() + 20;
        let mut damaged = whole.clone();
        damaged[second] ^= 1;
        atomic::replace(&path, Durability::Process, |file| file.write_all(&damaged)).unwrap();
        let error = UploadLog::open(&path, Durability::Power).unwrap_err();
        assert!(matches!(error, LogError::Damaged { line: 2 }), "{error}");
        atomic::replace(&path, Durability::Process, |_| Ok(())).unwrap();
        assert!(matches!(UploadLog::open(&path, Durability::Power), Err(LogError::Empty)));
    }

    #[test]
    fn a_log_that_is_mostly_history_is_written_anew() {
        let dir = tempfile::tempdir().unwrap();
        let (layout, manifest) = (layout(dir.path()), manifest());
        let mut log = UploadLog::create(&layout, &manifest, Durability::Process).unwrap();
        let memory = Memory::Sealed("x".repeat(40_000).into());
        let mut offset = 0;
        while !log.is_long() {
            offset += 1;
            log.append(&Record::Offset { offset, memory: memory.clone() }).unwrap();
        }
        assert!(offset > 5);
        let last = Record::Offset { offset, memory };
        log.rewrite(&manifest, std::slice::from_ref(&last)).unwrap();
        assert!(!log.is_long());
        let (_, read, records) = UploadLog::open(&layout.upload_log(manifest.id), Durability::Power).unwrap();
        assert_eq!((read, records), (manifest, vec![last]));
    }
}
