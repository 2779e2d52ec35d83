//! The snapshot: the status file as people and older servers know it, with what they do not need beside it.
//!
//! ```json
//! {
//! "transfers": {
//! "a.txt": {"status": "completed", …}
//! },
//! "history": [
//! ],
//! "queue": [],
//! "metadata": {"last_updated": "…", "total_transfers": 1, "version": "1.0", "seq": 7},
//! "crc32": "5d1f0a3c"
//! }
//! ```
//!
//! `transfers` has the latest of each name, `history` what came before it, one a line for `grep` and `diff`. `seq` is
//! the number of the last change that the snapshot holds: the journal goes on from there. `crc32` (IEEE 802.3) covers every
//! byte before its key, so that damage is found; who edits the file by hand takes that line out (and the comma before).
//! Files of version "1.0" have neither `seq` nor `crc32` nor `history`.

use std::fmt;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::de::{MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};

use crate::domain::{RecordedTransfer, Timestamp, Transfer};
use crate::store::{Durability, atomic};

const KEY: &str = "\"crc32\"";

/// Why a snapshot can't be read.
#[derive(Debug, thiserror::Error)]
pub(super) enum SnapshotError {
    /// The system refused.
    #[error("cannot read {}: {source}", .path.display())]
    Io {
        /// The snapshot.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It is not whole.
    #[error("{} is damaged: {what}", .path.display())]
    Damaged {
        /// The snapshot.
        path: PathBuf,
        /// What is wrong with it.
        what: String,
    },
}

/// What a snapshot holds.
#[derive(Debug)]
pub(super) struct Snapshot {
    /// Every transfer, in no order.
    pub(super) transfers: Vec<Arc<Transfer>>,
    /// The last change that it holds; `None`: a file of version "1.0".
    pub(super) seq: Option<u64>,
    /// Its size.
    pub(super) bytes: u64,
}

/// The path of the snapshot before.
pub(super) fn backup_path(path: &Path) -> PathBuf {
    atomic::with_suffix(path, ".backup")
}

/// What is written: the latest transfer of each name, and the others.
pub(super) struct Content {
    pub(super) current: Vec<Arc<Transfer>>,
    pub(super) earlier: Vec<Arc<Transfer>>,
    pub(super) seq: u64,
}

/// Replaces the snapshot; the one before becomes the backup. Gives the bytes written.
pub(super) fn write(path: &Path, content: &Content, durability: Durability) -> io::Result<u64> {
    let mut bytes = 0;
    let prepared = atomic::prepare(path, durability, |file| {
        let mut out = Checksummed { inner: file, hasher: crc32fast::Hasher::new(), bytes: 0 };
        write_content(&mut out, content)?;
        let checksum = out.hasher.clone().finalize();
        writeln!(out, "{KEY}: \"{checksum:08x}\"\n}}")?;
        bytes = out.bytes;
        Ok(())
    })?;
    if path.exists() {
        keep_as_backup(path, durability)?;
    }
    prepared.publish(durability)?;
    Ok(bytes)
}

/// Makes the snapshot the backup too, by a second link: there is never a moment without a snapshot. Where links are
/// not to be had it is moved, and until the new one stands the backup is all there is, which is as good.
fn keep_as_backup(path: &Path, durability: Durability) -> io::Result<()> {
    let backup = backup_path(path);
    let link = atomic::with_suffix(&backup, ".tmp");
    atomic::remove_if_there(&link)?;
    let from = if std::fs::hard_link(path, &link).is_ok() { &link } else { path };
    atomic::rename(from, &backup, durability)?;
    // It is still there if the backup was the same file already: rename(2) then does nothing.
    atomic::remove_if_there(&link)
}

fn write_content(out: &mut impl Write, content: &Content) -> io::Result<()> {
    out.write_all(b"{\n\"transfers\": {")?;
    let mut comma = "\n";
    for transfer in &content.current {
        out.write_all(comma.as_bytes())?;
        serde_json::to_writer(&mut *out, &transfer.filename)?;
        out.write_all(b": ")?;
        serde_json::to_writer(&mut *out, transfer)?;
        comma = ",\n";
    }
    out.write_all(b"\n},\n\"history\": [")?;
    comma = "\n";
    for transfer in &content.earlier {
        out.write_all(comma.as_bytes())?;
        serde_json::to_writer(&mut *out, transfer)?;
        comma = ",\n";
    }
    writeln!(
        out,
        "\n],\n\"queue\": [],\n\"metadata\": {{\"last_updated\": \"{}\", \"total_transfers\": {}, \"version\": \"1.0\", \"seq\": {}}},",
        Timestamp::now(),
        content.current.len(),
        content.seq
    )
}

struct Checksummed<W> {
    inner: W,
    hasher: crc32fast::Hasher,
    bytes: u64,
}

impl<W: Write> Write for Checksummed<W> {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        let written = self.inner.write(buffer)?;
        self.hasher.update(&buffer[..written]);
        self.bytes += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

/// Reads a snapshot; `None` if there is no such file.
pub(super) fn read(path: &Path) -> Result<Option<Snapshot>, SnapshotError> {
    let bytes = match std::fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(SnapshotError::Io { path: path.to_owned(), source }),
    };
    parse(&bytes).map(Some).map_err(|what| SnapshotError::Damaged { path: path.to_owned(), what })
}

fn parse(bytes: &[u8]) -> Result<Snapshot, String> {
    let document: Document = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
    if let Some(recorded) = &document.crc32 {
        // The key is the last one; its place in the text is looked for from the end.
        let tail = bytes.len().saturating_sub(64);
        let place = bytes[tail..].windows(KEY.len()).rposition(|window| window == KEY.as_bytes());
        let covered = place.map(|place| &bytes[..tail + place]).unwrap_or_default();
        if *recorded != format!("{:08x}", crc32fast::hash(covered)) {
            return Err(
                "its checksum does not match; if you edited it by hand, take out its line \"crc32\"".into()
            );
        }
    }
    let mut transfers = document.transfers.0;
    transfers.extend(document.history.0);
    Ok(Snapshot { transfers, seq: document.metadata.seq, bytes: bytes.len() as u64 })
}

#[derive(Deserialize)]
struct Document {
    transfers: Named,
    #[serde(default)]
    history: Listed,
    #[serde(default)]
    metadata: Metadata,
    crc32: Option<String>,
}

#[derive(Default, Deserialize)]
struct Metadata {
    seq: Option<u64>,
}

/// `{NAME: {…}, …}`, read straight into a list: a million of them must not stand in memory twice.
struct Named(Vec<Arc<Transfer>>);

impl<'de> Deserialize<'de> for Named {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reader;
        impl<'de> Visitor<'de> for Reader {
            type Value = Named;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("transfers by file name")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Named, A::Error> {
                let mut transfers = Vec::new();
                while let Some(name) = map.next_key::<String>()? {
                    let recorded: RecordedTransfer = map.next_value()?;
                    let transfer = recorded.into_transfer(Some(&name)).map_err(|why| {
                        serde::de::Error::custom(format!("the transfer {name:?} can't be read: {why}"))
                    })?;
                    transfers.push(Arc::new(transfer));
                }
                Ok(Named(transfers))
            }
        }
        deserializer.deserialize_map(Reader)
    }
}

#[derive(Default)]
struct Listed(Vec<Arc<Transfer>>);

impl<'de> Deserialize<'de> for Listed {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reader;
        impl<'de> Visitor<'de> for Reader {
            type Value = Listed;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list of transfers")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Listed, A::Error> {
                let mut transfers = Vec::new();
                while let Some(recorded) = list.next_element::<RecordedTransfer>()? {
                    let transfer = recorded.into_transfer(None).map_err(serde::de::Error::custom)?;
                    transfers.push(Arc::new(transfer));
                }
                Ok(Listed(transfers))
            }
        }
        deserializer.deserialize_seq(Reader)
    }
}
