//! The journal: what has changed since the snapshot.
//!
//! A text file, one change a line:
//!
//! ```text
//! f2cf9908 {"journal":1,"first_seq":1}
//! 5d1f0a3c {"seq":1,"flushed":0,"transfer":{"id":"…","filename":"a.txt","status":"uploading",…}}
//! 0b9e41d7 {"seq":2,"flushed":0,"transfer":{"id":"…","filename":"a.txt","status":"completed",…}}
//! ```
//!
//! - 8 hexadecimal digits: CRC-32 (IEEE 802.3) of the JSON text after the space, so that damage is found;
//! - the JSON: first the header with the format's version and the first number in this segment, then for each change
//!   its number and the *whole* transfer as it is after the change: replaying a line twice, or over a newer snapshot,
//!   changes nothing;
//! - a line feed: what has none was torn by a crash.
//!
//! Numbers rise by one. Where they don't, because changes that nobody waited for found no room on a full disk, the
//! next line or header says which number it comes `after`: so lines and segments that are missing are noticed.
//!
//! A line is appended and flushed before anybody is told of the change. So the torn end of the last segment was never
//! acknowledged and is dropped. A disk may have kept the end of what was being flushed and not its beginning: `flushed`
//! in a line is the last number that had been flushed before. Damage to what some later line says was flushed is an
//! error: it is told, not skipped; all other damage is a torn end. (`DURABILITY=process` flushes nothing and writes the
//! same, as its lines survive what it promises; after a loss of power it may have damage to tell of.)
//!
//! When a snapshot begins, the active segment (`….journal`) is flushed and closed (`….journal.N`, with N its first
//! number) and a new one begun. A closed segment is removed once the *backup* snapshot covers it: so the backup and what
//! is left of the journal are as good as the snapshot.

use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::domain::{RecordedTransfer, Transfer};
use crate::store::lines::{check, write_line};
use crate::store::{Durability, atomic, is_full, os};

/// Space is set aside in steps of this many bytes, so that a full disk shows before a file is published.
const RESERVE: u64 = 1 << 20;

#[derive(Serialize, Deserialize)]
pub(super) struct Header {
    pub(super) journal: u32,
    pub(super) first_seq: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    after: Option<u64>,
}

impl Header {
    /// The last number before this segment.
    pub(super) fn after(&self) -> u64 {
        self.after.unwrap_or(self.first_seq.saturating_sub(1))
    }
}

#[derive(Serialize)]
struct WrittenLine<'a> {
    seq: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    after: Option<u64>,
    flushed: u64,
    transfer: &'a Transfer,
}

#[derive(Deserialize)]
pub(super) struct Line {
    pub(super) seq: u64,
    after: Option<u64>,
    #[serde(default)]
    pub(super) flushed: u64,
    pub(super) transfer: RecordedTransfer,
}

impl Line {
    /// The number of the change before this one.
    pub(super) fn after(&self) -> u64 {
        self.after.unwrap_or(self.seq.saturating_sub(1))
    }
}

/// Lines that are to be appended together.
#[derive(Debug)]
pub(super) struct Lines {
    bytes: Vec<u8>,
    last: u64,
    flushed: u64,
}

impl Lines {
    /// Adds the line of a change, or nothing.
    ///
    /// # Errors
    /// Only if it can't be put into JSON.
    pub(super) fn push(&mut self, transfer: &Transfer) -> io::Result<()> {
        let begin = self.bytes.len();
        let line = WrittenLine {
            seq: transfer.seq,
            after: (transfer.seq != self.last + 1).then_some(self.last),
            flushed: self.flushed,
            transfer,
        };
        if let Err(error) = write_line(&mut self.bytes, &line) {
            self.bytes.truncate(begin);
            return Err(error);
        }
        self.last = transfer.seq;
        Ok(())
    }

    #[cfg(test)]
    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Bytes in all.
    pub(super) fn len(&self) -> u64 {
        self.bytes.len() as u64
    }

    /// Where the next line begins, to come back to.
    pub(super) fn mark(&self) -> (usize, u64) {
        (self.bytes.len(), self.last)
    }

    /// Takes out what was added since.
    pub(super) fn cut(&mut self, (bytes, last): (usize, u64)) {
        self.bytes.truncate(bytes);
        self.last = last;
    }
}

/// The active segment, open for appending.
#[derive(Debug)]
pub(super) struct Journal {
    snapshot: PathBuf,
    file: File,
    length: u64,
    reserved: u64,
    first_seq: u64,
    /// The last number in the journal.
    last: u64,
    /// The last number that is known to be flushed.
    flushed: u64,
    durability: Durability,
    broken: bool,
}

/// The path of the active segment.
pub(super) fn active_path(snapshot: &Path) -> PathBuf {
    atomic::with_suffix(snapshot, ".journal")
}

/// The path of the closed segment that begins with this number.
pub(super) fn closed_path(snapshot: &Path, first_seq: u64) -> PathBuf {
    atomic::with_suffix(&active_path(snapshot), &format!(".{first_seq}"))
}

/// The active segment as it was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Active {
    /// How many of its bytes are whole.
    pub(super) length: u64,
    /// Its first number.
    pub(super) first_seq: u64,
    /// The last number in it, or the one before its first.
    pub(super) last: u64,
}

impl Journal {
    /// Begins an empty active segment; its first change will be number `first_seq`.
    pub(super) fn create(snapshot: &Path, first_seq: u64, durability: Durability) -> io::Result<Self> {
        let (next, length) = prepare(snapshot, first_seq, None, 0, durability)?;
        next.publish(durability)?;
        Self::open(snapshot, Active { length, first_seq, last: first_seq - 1 }, durability)
    }

    /// Opens the active segment to append to what is whole of it; the rest is cut off.
    pub(super) fn open(snapshot: &Path, active: Active, durability: Durability) -> io::Result<Self> {
        let Active { length, first_seq, last } = active;
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
            last,
            // A closed segment has been flushed; a server that was killed may have left the rest in memory only.
            flushed: first_seq.saturating_sub(1),
            durability,
            broken: false,
        })
    }

    /// Bytes in the active segment.
    pub(super) const fn length(&self) -> u64 {
        self.length
    }

    /// The last number in the journal.
    pub(super) const fn last(&self) -> u64 {
        self.last
    }

    /// Whether it must not be used again: nothing can be known of what is on disk.
    pub(super) const fn is_broken(&self) -> bool {
        self.broken
    }

    /// As after a flush that failed.
    #[cfg(test)]
    pub(super) const fn break_it(&mut self) {
        self.broken = true;
    }

    fn check(&self) -> io::Result<()> {
        if self.broken { Err(io::Error::other("the journal has failed before")) } else { Ok(()) }
    }

    /// Begins lines that go on from here. To be appended before others are begun.
    pub(super) const fn lines(&self) -> Lines {
        Lines { bytes: Vec::new(), last: self.last, flushed: self.flushed }
    }

    /// Makes sure that `bytes` more can be appended: asked before a file is published, because an upload whose
    /// change can't be written down must not take its name.
    pub(super) fn reserve(&mut self, bytes: u64) -> io::Result<()> {
        self.check()?;
        let needed = self.length + bytes;
        if needed > self.reserved {
            let up_to = |end| os::reserve(&self.file, self.reserved, end - self.reserved).map(|()| end);
            let step = needed.next_multiple_of(RESERVE);
            self.reserved = match up_to(step) {
                // The last of the disk is used up too.
                Err(error) if is_full(&error) => up_to(needed)?,
                reserved => reserved?,
            };
        }
        Ok(())
    }

    /// Appends lines in one write: they survive the end of the process. On an error the segment is as before, or
    /// broken.
    pub(super) fn append(&mut self, lines: &Lines) -> io::Result<()> {
        self.check()?;
        if let Err(error) = self.file.write_all(&lines.bytes) {
            // Half a line in the middle would be damage.
            let cut =
                self.file.set_len(self.length).and_then(|()| self.file.seek(SeekFrom::Start(self.length)));
            self.broken = cut.is_err();
            // What was set aside beyond the end is gone with it.
            self.reserved = self.length;
            return Err(error);
        }
        self.length += lines.len();
        self.last = lines.last;
        Ok(())
    }

    /// Flushes what was appended: it survives loss of power. After an error it is broken.
    pub(super) fn sync(&mut self) -> io::Result<()> {
        self.check()?;
        if self.flushed != self.last {
            self.durability.sync_data(&self.file).inspect_err(|_| self.broken = true)?;
            self.flushed = self.last;
        }
        Ok(())
    }

    /// Closes the active segment and begins the next, whose first change will be number `first_seq`. On an error the
    /// active segment goes on, or is broken.
    pub(super) fn rotate(&mut self, first_seq: u64) -> io::Result<()> {
        let after = (first_seq != self.last + 1).then_some(self.last);
        self.begin_next(first_seq, after)
    }

    /// Begins a segment after a snapshot that knows more than the journal does: without it, what is missing here would
    /// not be noticed.
    pub(super) fn skip_to(&mut self, first_seq: u64) -> io::Result<()> {
        self.begin_next(first_seq, None)
    }

    fn begin_next(&mut self, first_seq: u64, after: Option<u64>) -> io::Result<()> {
        self.check()?;
        if first_seq == self.first_seq {
            return Ok(());
        }
        // Whatever the durability: a closed segment has no torn end.
        self.file.sync_data().inspect_err(|_| self.broken = true)?;
        // The next one is whole before this one loses its name: a full disk shows here, and the room that is set aside
        // in this one stays of use.
        let (next, length) = prepare(&self.snapshot, first_seq, after, RESERVE, self.durability)?;
        atomic::rename_new(&active_path(&self.snapshot), &closed_path(&self.snapshot, self.first_seq))?;
        let next = next.publish(self.durability).and_then(|()| {
            Self::open(&self.snapshot, Active { length, first_seq, last: first_seq - 1 }, self.durability)
        });
        *self = next.inspect_err(|_| self.broken = true)?;
        self.reserved = RESERVE.max(length);
        Ok(())
    }
}

/// Writes an empty segment beside its place, with room for so much set aside; gives its length too.
fn prepare(
    snapshot: &Path,
    first_seq: u64,
    after: Option<u64>,
    room: u64,
    durability: Durability,
) -> io::Result<(atomic::Prepared, u64)> {
    let mut header = Vec::new();
    write_line(&mut header, &Header { journal: 1, first_seq, after })?;
    let prepared = atomic::prepare(&active_path(snapshot), durability, |file| {
        os::reserve(file.get_ref(), 0, room)?;
        file.write_all(&header)
    })?;
    Ok((prepared, header.len() as u64))
}

/// The segments of a journal in order, each with its first number if it is a closed one.
pub(super) fn segments(snapshot: &Path) -> io::Result<Vec<(Option<u64>, PathBuf)>> {
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

/// Removes the closed segments that hold nothing after change number `seq`, oldest first.
pub(super) fn remove_up_to(snapshot: &Path, seq: u64) -> io::Result<()> {
    let segments = segments(snapshot)?;
    for pair in segments.windows(2) {
        let next_first = match pair[1].0 {
            Some(first) => first,
            None => first_seq_of(&pair[1].1)?,
        };
        if next_first > seq + 1 {
            break;
        }
        std::fs::remove_file(&pair[0].1)?;
    }
    Ok(())
}

fn first_seq_of(path: &Path) -> io::Result<u64> {
    let mut line = Vec::new();
    BufReader::new(File::open(path)?).read_until(b'\n', &mut line)?;
    let header = check(&line).and_then(|json| serde_json::from_slice::<Header>(json).ok());
    header.map(|header| header.first_seq).ok_or_else(|| io::Error::other("the journal has no header"))
}
