//! Reading the journal: whole lines are changes, a torn end is dropped, anything else is told.

use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::path::{Path, PathBuf};

use super::journal::{Active, Header, Line, segments};
use crate::domain::Transfer;
use crate::store::lines::check;

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

/// Where a journal that was read begins and ends.
#[derive(Debug, Default)]
pub(super) struct Replayed {
    /// The active segment; `None` if there is none.
    pub(super) active: Option<Active>,
    /// The number before which the journal knows nothing, that one included; `None` if there is no journal.
    pub(super) after: Option<u64>,
    /// The last number in it.
    pub(super) last: u64,
    /// Bytes of a torn end that are to be dropped.
    pub(super) torn: u64,
}

/// What is wrong with which line.
type Fault = (u64, &'static str);

/// Reads all segments in order and hands every change that comes after `snapshot_seq` to `apply`.
pub(super) fn replay(
    snapshot: &Path,
    snapshot_seq: u64,
    mut apply: impl FnMut(Transfer),
) -> Result<Replayed, JournalError> {
    let io = |path: &Path| {
        let path = path.to_owned();
        move |source| JournalError::Io { path, source }
    };
    let mut replayed = Replayed::default();
    for (closed, path) in segments(snapshot).map_err(io(snapshot))? {
        let mut segment = Segment {
            replayed: &mut replayed,
            snapshot_seq,
            number: 0,
            whole: 0,
            first_seq: None,
            torn: None,
        };
        let file = File::open(&path).map_err(io(&path))?;
        let length = file.metadata().map_err(io(&path))?.len();
        let fault = match segment.read(BufReader::with_capacity(1 << 18, file), &mut apply) {
            Ok(()) => segment.end(closed, length).err(),
            Err(Stop::Io(source)) => return Err(JournalError::Io { path, source }),
            Err(Stop::Fault(fault)) => Some(fault),
        };
        if let Some((line, what)) = fault {
            return Err(JournalError::Damaged { path, snapshot: snapshot.to_owned(), line, what });
        }
    }
    Ok(replayed)
}

enum Stop {
    Io(io::Error),
    Fault(Fault),
}

struct Segment<'a> {
    replayed: &'a mut Replayed,
    snapshot_seq: u64,
    /// The line that is being read, from 1.
    number: u64,
    /// Bytes of the lines that count.
    whole: u64,
    first_seq: Option<u64>,
    /// The first line that is not whole: nothing from there on counts.
    torn: Option<u64>,
}

impl Segment<'_> {
    fn read(&mut self, mut reader: impl BufRead, apply: &mut impl FnMut(Transfer)) -> Result<(), Stop> {
        let mut bytes = Vec::new();
        loop {
            bytes.clear();
            let read = reader.read_until(b'\n', &mut bytes).map_err(Stop::Io)?;
            if read == 0 {
                return Ok(());
            }
            self.number += 1;
            match check(&bytes) {
                None => _ = self.torn.get_or_insert(self.number),
                Some(json) => {
                    self.line(json, apply).map_err(|(number, what)| Stop::Fault((number, what)))?;
                    if self.torn.is_none() {
                        self.whole += read as u64;
                    }
                }
            }
        }
    }

    fn line(&mut self, json: &[u8], apply: &mut impl FnMut(Transfer)) -> Result<(), Fault> {
        let number = self.number;
        let here = |what| (number, what);
        if self.number == 1 {
            let header: Header = serde_json::from_slice(json).map_err(|_| here("it is no header"))?;
            if header.journal != 1 {
                return Err(here("its version is not known to this server"));
            }
            self.follow(header.after())?;
            self.replayed.last = header.first_seq.saturating_sub(1);
            self.first_seq = Some(header.first_seq);
            return Ok(());
        }
        let line: Line = serde_json::from_slice(json).map_err(|_| here("it is no change"))?;
        if let Some(torn) = self.torn {
            // What was being flushed when the power went may be there in part; what had been flushed must be there.
            return if line.flushed > self.replayed.last {
                Err((
                    torn,
                    "its checksum does not match, and it was flushed before what follows it was written",
                ))
            } else {
                Ok(())
            };
        }
        self.follow(line.after())?;
        let transfer = line.transfer.into_transfer(None).map_err(|_| here("it names no file"))?;
        if transfer.seq != line.seq {
            return Err(here("it has two numbers"));
        }
        self.replayed.last = line.seq;
        if line.seq > self.snapshot_seq {
            apply(transfer);
        }
        Ok(())
    }

    /// What comes after number `after` has been reached; checks that nothing is missing before it.
    fn follow(&mut self, after: u64) -> Result<(), Fault> {
        match self.replayed.after {
            None => self.replayed.after = Some(after),
            Some(_) if after == self.replayed.last || after <= self.snapshot_seq => {}
            Some(_) => return Err((self.number, "changes before it are missing")),
        }
        Ok(())
    }

    fn end(&mut self, closed: Option<u64>, length: u64) -> Result<(), Fault> {
        // The header is flushed before the segment takes its name.
        let first_seq = self.first_seq.ok_or((1, "it has no whole header"))?;
        if closed.is_none() {
            self.replayed.torn = length.saturating_sub(self.whole);
            let last = self.replayed.last;
            self.replayed.active = Some(Active { length: self.whole, first_seq, last });
        } else if let Some(torn) = self.torn {
            return Err((torn, "its checksum does not match, and a closed segment has no torn end"));
        } else if closed != Some(first_seq) {
            return Err((1, "it is not the segment that its name says"));
        }
        Ok(())
    }
}
