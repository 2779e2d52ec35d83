//! The journal: what has changed since the snapshot.
//!
//! A text file, one change a line:
//!
//! ```text
//! 8c736521 {"journal":1,"first_seq":1}
//! 5d1f0a3c {"seq":1,"transfer":{"id":"…","filename":"a.txt","status":"uploading",…}}
//! ```
//!
//! - 8 hexadecimal digits: CRC-32 (IEEE 802.3) of the JSON text after the space, so that damage is found;
//! - the JSON: first the header with the format's version and the first number in this segment, then for each change
//!   its number, one higher than the one before, and the *whole* transfer as it is after the change: replaying a line
//!   twice, or over a newer snapshot, changes nothing;
//! - a line feed: what has none was torn by a crash.
//!
//! A line is appended and flushed before anybody is told of the change. So the torn end of the last segment was never
//! acknowledged and is dropped. Damage that has whole lines after it is an error: it is told, not skipped.
//!
//! When a snapshot begins, the active segment (`….journal`) is closed (`….journal.N`, with N its first number) and a new one begun.
//! A closed segment is removed once the *backup* snapshot covers it: so the backup and what is left of the journal are
//! as good as the snapshot.

use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::domain::{RecordedTransfer, Transfer};
use crate::store::{Durability, atomic, os};

/// Space is set aside in steps of this many bytes, so that a full disk shows before a file is published.
const RESERVE: u64 = 1 << 20;

#[derive(Serialize, Deserialize)]
struct Header {
    journal: u32,
    first_seq: u64,
}

#[derive(Serialize)]
struct Written<'a> {
    seq: u64,
    transfer: &'a Transfer,
}

#[derive(Deserialize)]
struct Read {
    seq: u64,
    transfer: RecordedTransfer,
}

/// Why a journal can't be read.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// The system refused.
    #[error("cannot read {}: {source}", .path.display())]
    Io {
        /// The segment.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Damage that is no torn end.
    #[error(
        "{} is damaged at line {line} ({what}). Nothing was changed. Put back a good copy of it, or move it away to \
         start from {} without the changes it holds (the files themselves stay)", .path.display(), .snapshot.display()
    )]
    Damaged {
        /// The segment.
        path: PathBuf,
        /// The snapshot that it goes with.
        snapshot: PathBuf,
        /// Which line, from 1.
        line: u64,
        /// What is wrong with it.
        what: &'static str,
    },
}

/// The active segment, open for appending.
#[derive(Debug)]
pub(super) struct Journal {
    snapshot: PathBuf,
    file: File,
    length: u64,
    reserved: u64,
    first_seq: u64,
    durability: Durability,
    unsynced: bool,
}

/// The path of the active segment.
pub(super) fn active_path(snapshot: &Path) -> PathBuf {
    atomic::with_suffix(snapshot, ".journal")
}

impl Journal {
    /// Begins an empty active segment; its first change will be number `first_seq`.
    pub(super) fn create(snapshot: &Path, first_seq: u64, durability: Durability) -> io::Result<Self> {
        let path = active_path(snapshot);
        let mut header = Vec::new();
        write_line(&mut header, &Header { journal: 1, first_seq })?;
        atomic::replace(&path, durability, |file| file.write_all(&header))?;
        Self::open(snapshot, header.len() as u64, first_seq, durability)
    }

    /// Opens the active segment to append after its first `length` bytes, which are whole; the rest is cut off.
    pub(super) fn open(
        snapshot: &Path,
        length: u64,
        first_seq: u64,
        durability: Durability,
    ) -> io::Result<Self> {
        let mut file = OpenOptions::new().write(true).open(active_path(snapshot))?;
        if file.metadata()?.len() != length {
            file.set_len(length)?;
            durability.sync_data(&file)?;
        }
        file.seek(SeekFrom::Start(length))?;
        Ok(Self {
            snapshot: snapshot.to_owned(),
            file,
            length,
            reserved: length,
            first_seq,
            durability,
            unsynced: false,
        })
    }

    /// Bytes in the active segment.
    pub(super) const fn length(&self) -> u64 {
        self.length
    }

    /// Makes sure that `bytes` more can be appended: asked before a file is published, because an upload whose
    /// change can't be written down must not take its name.
    pub(super) fn reserve(&mut self, bytes: u64) -> io::Result<()> {
        let needed = self.length + bytes;
        if needed > self.reserved {
            let end = needed.next_multiple_of(RESERVE);
            os::reserve(&self.file, self.reserved, end - self.reserved)?;
            self.reserved = end;
        }
        Ok(())
    }

    /// Appends whole lines in one write: they survive the end of the process. On an error the segment is as before.
    pub(super) fn append(&mut self, lines: &[u8]) -> io::Result<()> {
        if let Err(error) = self.file.write_all(lines) {
            self.file.set_len(self.length)?;
            self.file.seek(SeekFrom::Start(self.length))?;
            // What was set aside beyond the end is gone with it.
            self.reserved = self.length;
            return Err(error);
        }
        self.length += lines.len() as u64;
        self.unsynced = true;
        Ok(())
    }

    /// Flushes what was appended: it survives loss of power. After an error nothing can be known of what is on disk,
    /// and the journal must not be used again.
    pub(super) fn sync(&mut self) -> io::Result<()> {
        if self.unsynced {
            self.durability.sync_data(&self.file)?;
            self.unsynced = false;
        }
        Ok(())
    }

    /// Closes the active segment and begins the next, whose first change will be number `first_seq`.
    pub(super) fn rotate(&mut self, first_seq: u64) -> io::Result<()> {
        if first_seq == self.first_seq {
            return Ok(());
        }
        self.file.sync_data()?;
        let active = active_path(&self.snapshot);
        atomic::rename(&active, &closed_path(&self.snapshot, self.first_seq), self.durability)?;
        *self = Self::create(&self.snapshot, first_seq, self.durability)?;
        Ok(())
    }
}

fn closed_path(snapshot: &Path, first_seq: u64) -> PathBuf {
    atomic::with_suffix(&active_path(snapshot), &format!(".{first_seq}"))
}

/// The segments of a journal in order, each with its first number if it is a closed one.
fn segments(snapshot: &Path) -> io::Result<Vec<(Option<u64>, PathBuf)>> {
    let active = active_path(snapshot);
    let directory = active.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let prefix = format!("{}.", active.file_name().unwrap_or_default().to_string_lossy());
    let mut found = Vec::new();
    for entry in std::fs::read_dir(directory)? {
        let entry = entry?;
        let name = entry.file_name();
        if let Some(number) = name.to_str().and_then(|name| name.strip_prefix(&prefix)?.parse().ok()) {
            found.push((Some(number), entry.path()));
        }
    }
    found.sort_unstable();
    if active.exists() {
        found.push((None, active));
    }
    Ok(found)
}

/// Removes the closed segments that hold nothing after change number `seq`.
pub(super) fn remove_up_to(snapshot: &Path, seq: u64) -> io::Result<()> {
    let segments = segments(snapshot)?;
    for pair in segments.windows(2) {
        let next_first = match pair[1].0 {
            Some(first) => first,
            None => first_seq_of(&pair[1].1)?,
        };
        if next_first <= seq + 1 {
            std::fs::remove_file(&pair[0].1)?;
        }
    }
    Ok(())
}

fn first_seq_of(path: &Path) -> io::Result<u64> {
    let mut line = Vec::new();
    BufReader::new(File::open(path)?).read_until(b'\n', &mut line)?;
    let header = check(&line).and_then(|json| serde_json::from_slice::<Header>(json).ok());
    header.map(|header| header.first_seq).ok_or_else(|| io::Error::other("the journal has no header"))
}

/// Where a journal that was read ends.
#[derive(Debug)]
pub(super) struct JournalEnd {
    /// Whole bytes of the active segment, its first number; `None` if there is none.
    pub(super) active: Option<(u64, u64)>,
    /// The first number of the oldest segment; `None` if there is none.
    pub(super) first_seq: Option<u64>,
    /// Bytes of a torn end that were dropped.
    pub(super) torn: u64,
}

/// Reads all segments in order and hands every change to `apply`.
pub(super) fn replay(
    snapshot: &Path,
    mut apply: impl FnMut(u64, Transfer),
) -> Result<JournalEnd, JournalError> {
    let io = |path: &Path| {
        let path = path.to_owned();
        move |source| JournalError::Io { path, source }
    };
    let mut end = JournalEnd { active: None, first_seq: None, torn: 0 };
    for (closed, path) in segments(snapshot).map_err(io(snapshot))? {
        let damaged = |line, what| JournalError::Damaged {
            path: path.clone(),
            snapshot: snapshot.to_owned(),
            line,
            what,
        };
        let mut reader = BufReader::with_capacity(1 << 18, File::open(&path).map_err(io(&path))?);
        let (mut line, mut number, mut whole, mut bad) = (Vec::new(), 0, 0, None);
        let mut first_seq = None;
        loop {
            line.clear();
            let read = reader.read_until(b'\n', &mut line).map_err(io(&path))?;
            if read == 0 {
                break;
            }
            number += 1;
            let Some(json) = check(&line) else {
                bad.get_or_insert(number);
                continue;
            };
            if let Some(bad) = bad {
                return Err(damaged(bad, "its checksum does not match, and whole lines follow"));
            }
            if first_seq.is_none() {
                let header: Header =
                    serde_json::from_slice(json).map_err(|_| damaged(number, "no header"))?;
                if header.journal != 1 {
                    return Err(damaged(number, "its version is not known to this server"));
                }
                first_seq = Some(header.first_seq);
            } else {
                let change: Read =
                    serde_json::from_slice(json).map_err(|_| damaged(number, "it is no change"))?;
                let transfer =
                    change.transfer.into_transfer(None).ok_or_else(|| damaged(number, "it names no file"))?;
                apply(change.seq, transfer);
            }
            whole += read as u64;
        }
        end.first_seq = end.first_seq.or(first_seq);
        match (closed, bad) {
            (Some(_), Some(bad)) => return Err(damaged(bad, "a closed segment has no torn end")),
            (Some(_), None) => {}
            // The header is written before the segment takes its name: without one it is not ours.
            (None, _) if first_seq.is_none() => return Err(damaged(1, "no header")),
            (None, _) => {
                let length = std::fs::metadata(&path).map_err(io(&path))?.len();
                end.torn = length.saturating_sub(whole);
                end.active = first_seq.map(|first| (whole, first));
            }
        }
    }
    Ok(end)
}

/// Appends the line of a change to `lines`.
pub(super) fn write_change(lines: &mut Vec<u8>, seq: u64, transfer: &Transfer) -> io::Result<()> {
    write_line(lines, &Written { seq, transfer })
}

fn write_line(lines: &mut Vec<u8>, value: &impl Serialize) -> io::Result<()> {
    let start = lines.len();
    lines.extend_from_slice(b"00000000 ");
    serde_json::to_writer(&mut *lines, value)?;
    let checksum = crc32fast::hash(&lines[start + 9..]);
    lines[start..start + 8].copy_from_slice(format!("{checksum:08x}").as_bytes());
    lines.push(b'\n');
    Ok(())
}

/// The JSON of a whole line.
fn check(line: &[u8]) -> Option<&[u8]> {
    let line = line.strip_suffix(b"\n")?;
    let (checksum, json) = (line.get(..8)?, line.get(9..)?);
    let checksum = u32::from_str_radix(str::from_utf8(checksum).ok()?, 16).ok()?;
    (line[8] == b' ' && crc32fast::hash(json) == checksum).then_some(json)
}
