//! The start: what was unfinished when the server ended goes on.

use std::collections::{BTreeMap, HashSet};
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex};

use sha2::Sha256;
use zeroize::Zeroizing;

use super::Resumable;
use super::chunked::{Aside, Chunked, Place, Received};
use super::memory;
use super::model::ResumableError;
use super::ordered::{Durable, Ordered, Stage, Work, joined_tail};
use super::registry::{Bytes, Finished, Unfinished};
use crate::crypto::{FileKey, HEADER_LEN, Header, Keyring};
use crate::domain::{Change, Direction, Start, Status, Timestamp, TransferId};
use crate::services::pipeline::blocking;
use crate::store::Durability;
use crate::store::files::OpenFile;
use crate::store::upload_log::{self, Kind, LogError, Manifest, Record, UploadLog};
use crate::store::uploads::{self, Staged};

/// What was found.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Restored {
    /// Unfinished uploads that can go on.
    pub unfinished: usize,
    /// Complete ones that are remembered.
    pub finished: usize,
    /// Unfinished ones that are damaged: they have failed.
    pub damaged: usize,
    /// Logs of uploads that have ended otherwise.
    pub removed: usize,
}

/// Why an upload does not go on.
pub(super) enum Lost {
    /// It is damaged: what is wrong.
    Damaged(String),
    /// It was never acknowledged, or has ended: nothing of it is needed.
    Needless,
    /// Not now: it is left as it is.
    Later(String),
}

impl From<io::Error> for Lost {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::InvalidData => Self::Damaged(error.to_string()),
            _ => Self::Later(error.to_string()),
        }
    }
}

/// What the log of an upload says.
pub(super) struct Read {
    pub(super) log: UploadLog,
    pub(super) manifest: Manifest,
    pub(super) records: Vec<Record>,
    pub(super) touched: Timestamp,
}

impl Resumable {
    /// Reads the logs of all uploads. To be called once, after what was recorded has been made to agree with the disk.
    ///
    /// # Errors
    /// What the system says of the directory.
    pub async fn restore(&self) -> io::Result<Restored> {
        let mut restored = Restored::default();
        let layout = self.0.uploads.layout.clone();
        let logs = blocking(move || upload_log::list(&layout)).await?;
        let (mut finished, mut later) = (Vec::new(), HashSet::new());
        for (id, path) in logs {
            let durability = self.0.uploads.durability;
            let read = blocking(move || Ok(read(&path, durability))).await?;
            match read.and_then(|read| self.restore_one(id, read, &mut finished)) {
                Ok(None) => restored.finished += 1,
                Ok(Some(upload)) => {
                    restored.unfinished += 1;
                    self.0.registry.insert(upload);
                }
                Err(Lost::Needless) => {
                    restored.removed += 1;
                    self.give_up(id, "the server ended before the upload had begun".into()).await;
                }
                Err(Lost::Later(error)) => {
                    tracing::error!(%id, error, "an unfinished upload can't go on now: it is left as it is");
                    later.insert(id);
                }
                Err(Lost::Damaged(error)) => {
                    restored.damaged += 1;
                    tracing::error!(%id, error, "an unfinished upload is damaged");
                    self.give_up(id, error).await;
                }
            }
        }
        self.remove_chunks_but_those_of(later).await?;
        finished.sort_unstable_by_key(|(at, _)| *at);
        for (_, finished) in finished {
            let forgotten = self.0.registry.end(finished.manifest.id, Some(finished));
            self.remove_logs(forgotten).await;
        }
        Ok(restored)
    }

    /// Removes the files of chunks that no log speaks of, or no more.
    async fn remove_chunks_but_those_of(&self, later: HashSet<TransferId>) -> io::Result<()> {
        let asides = self.0.registry.unfinished().into_iter().filter_map(|upload| {
            let aside = upload.chunked()?.aside()?;
            Some((upload.id(), aside.part))
        });
        let (asides, layout) = (asides.collect::<HashSet<_>>(), self.0.uploads.layout.clone());
        let is_wanted = move |id, part| later.contains(&id) || asides.contains(&(id, part));
        blocking(move || uploads::remove_chunks(&layout, is_wanted)).await
    }

    /// Publishes what was complete when the server ended, but had no name yet. Those who wait for one of them wait for this.
    pub async fn go_on(&self) {
        let mut failed = 0;
        for upload in self.0.registry.unfinished() {
            let (this, id) = (self.clone(), upload.id());
            let published = self.to_the_end(async move { this.publish_whole(upload).await });
            if let Err(error) = published.await {
                failed += 1;
                tracing::error!(%error, %id, "an upload that is complete could not be published");
            }
        }
        if failed > 0 {
            tracing::warn!(failed, "complete uploads are published when they are asked for");
        }
    }

    async fn publish_whole(&self, upload: Arc<Unfinished>) -> Result<(), ResumableError> {
        match &upload.bytes {
            Bytes::Ordered(ordered) => {
                let whole = ordered.try_take().is_some_and(|work| work.stage == Stage::Whole);
                if whole && !upload.is_partial() {
                    self.publish_again(&upload).await?;
                }
            }
            Bytes::Chunked(chunked) => {
                if chunked.has_all() {
                    self.look_at(&upload, chunked).await?;
                }
                let last = chunked.total - 1;
                if let Some(received) = chunked.received(last).filter(|_| chunked.is_whole()) {
                    self.publish_chunked(&upload, chunked, (last, received.sha256)).await?;
                }
            }
        }
        Ok(())
    }

    /// It has failed, if it has not ended otherwise, and what came of it goes.
    async fn give_up(&self, id: TransferId, error: String) {
        let failed = Change::Failed { id, at: Timestamp::now(), error: error.into(), transferred_bytes: 0 };
        if self.0.uploads.status.transfer(id).is_some_and(|transfer| !transfer.status.is_terminal()) {
            self.0.uploads.status.note(failed);
        }
        let layout = self.0.uploads.layout.clone();
        if let Err(error) = blocking(move || uploads::remove(&layout, id)).await {
            tracing::warn!(%error, %id, "what is left of an upload could not be removed");
        }
    }

    /// `None`: it is complete, and among the `finished`.
    fn restore_one(
        &self,
        id: TransferId,
        read: Read,
        finished: &mut Vec<(Timestamp, Finished)>,
    ) -> Result<Option<Arc<Unfinished>>, Lost> {
        if read.manifest.id != id {
            return Err(Lost::Damaged("the log is that of another upload".into()));
        }
        let transfer = self.0.uploads.status.transfer(id);
        match transfer {
            Some(transfer) if transfer.status == Status::Completed => {
                // Where the server ended before it could say so, it is the last that came.
                let last = read.records.iter().rev().find_map(|record| match *record {
                    Record::Published { last } => last,
                    Record::Chunk { number, sha256, .. } => Some((number, sha256)),
                    _ => None,
                });
                let Read { manifest, touched, .. } = read;
                finished.push((touched, Finished::new(manifest, transfer, last, touched)));
                return Ok(None);
            }
            Some(transfer) if transfer.status.is_terminal() => return Err(Lost::Needless),
            Some(_) => {}
            None if read.manifest.kind == Kind::Partial => {}
            None if read.records.iter().any(|record| matches!(record, Record::Published { .. })) => {
                return Err(Lost::Needless);
            }
            // An older status has been put back: it is told again that it began.
            None => self.0.uploads.status.note(Change::Started(start(&read.manifest))),
        }
        match read.manifest.kind {
            // Joining is done in one go.
            Kind::Joined { .. } => Err(Lost::Needless),
            Kind::Ordered | Kind::Partial => self.restore_ordered(read).map(Some),
            Kind::Chunks { .. } => self.restore_chunked(read).map(Some),
        }
    }

    fn restore_ordered(&self, read: Read) -> Result<Arc<Unfinished>, Lost> {
        let Read { log, manifest, records, touched } = read;
        let keyring = self.0.uploads.keys.get();
        let key = match manifest.sealed {
            true => Some(self.file_key(&manifest, keyring.as_deref())?),
            false => None,
        };
        let (mut offset, mut hash, mut tail) = (0, Sha256::default(), Zeroizing::new(Vec::new()));
        let whole = records.last() == Some(&Record::Whole);
        let mut size = manifest.size;
        for record in records {
            match record {
                Record::Size(said) => size = Some(said),
                Record::Offset { offset: reached, memory } => {
                    let (at, new) = memory::read(&memory, keyring.as_deref())?;
                    (offset, hash) = (reached, at);
                    if let Some(key) = &key {
                        let segment = key.header().geometry.segment_size().into();
                        tail = joined_tail(offset, &tail, &new, segment);
                    }
                }
                Record::Whole
                | Record::ChunkSize(_)
                | Record::Aside { .. }
                | Record::Chunk { .. }
                | Record::Lost(_)
                | Record::Published { .. } => {}
            }
        }
        self.check_data(&manifest, offset, key.as_deref(), tail.len() as u64)?;
        let shown = manifest.kind != Kind::Partial;
        let ends_here = size == Some(offset) && !manifest.says_its_end;
        let stage = if whole || ends_here { Stage::Whole } else { Stage::Open };
        let live = shown.then(|| self.0.uploads.status.track(manifest.id, size, None));
        live.as_ref().inspect(|live| live.go_on_from(offset));
        let seat = self.old_seat(&manifest, size.unwrap_or(offset).saturating_sub(offset))?;
        let durable = Durable { log, offset, hash, tail: Arc::new(tail) };
        let durable = Arc::new(Mutex::new(durable));
        let work = Work { durable, size, key, keyring, stage };
        let upload = Unfinished::new(manifest, live, Bytes::Ordered(Ordered::new(work)), seat);
        upload.touch(touched);
        Ok(Arc::new(upload))
    }

    fn old_seat(&self, manifest: &Manifest, reserved: u64) -> Result<super::registry::Seat, Lost> {
        let seat = self.0.registry.seat(&manifest.client(), reserved, None, |_| true);
        seat.map_err(|error| Lost::Later(error.to_string()))
    }

    /// The key of a container that has been begun.
    fn file_key(&self, manifest: &Manifest, keyring: Option<&Keyring>) -> Result<Arc<FileKey>, Lost> {
        let open = OpenFile::at(&self.0.uploads.layout.upload_data(manifest.id)).map_err(missing)?;
        let header = Header::parse(&header_of(&open)?).map_err(|error| Lost::Damaged(error.to_string()))?;
        let key = keyring.and_then(|keyring| FileKey::for_header(header, keyring));
        key.map(Arc::new).ok_or_else(|| Lost::Later("there is no key to go on with".into()))
    }

    fn restore_chunked(&self, read: Read) -> Result<Arc<Unfinished>, Lost> {
        let Read { log, manifest, records, touched } = read;
        let Kind::Chunks { total } = manifest.kind else { return Err(Lost::Needless) };
        OpenFile::at(&self.0.uploads.layout.upload_data(manifest.id)).map_err(missing)?;
        let Logged { place, received, aside } = Logged::read(&records, &manifest);
        let place = match (place, manifest.sealed) {
            (None, _) => None,
            (Some(size), false) => Some(Place { size, key: None }),
            (Some(size), true) => {
                let key = self.file_key(&manifest, self.0.uploads.keys.get().as_deref())?;
                Some(Place { size, key: Some(key) })
            }
        };
        let about = place.as_ref().map(|place| place.size.saturating_mul(total.into()));
        let chunked = Chunked::restored(total, log, place, received, aside);
        let bytes = chunked.bytes();
        let size = manifest.size.or_else(|| chunked.content_length());
        let live = self.0.uploads.status.track(manifest.id, size, about);
        live.go_on_from(bytes);
        let seat = self.old_seat(&manifest, size.or(about).unwrap_or(bytes).saturating_sub(bytes))?;
        let upload = Unfinished::new(manifest, Some(live), Bytes::Chunked(Box::new(chunked)), seat);
        upload.touch(touched);
        Ok(Arc::new(upload))
    }

    /// Whether the data is there that the log speaks of.
    fn check_data(
        &self,
        manifest: &Manifest,
        offset: u64,
        key: Option<&FileKey>,
        tail: u64,
    ) -> Result<(), Lost> {
        let found = OpenFile::at(&self.0.uploads.layout.upload_data(manifest.id)).map_err(missing)?;
        let expected = match key {
            None => offset,
            Some(key) => {
                let geometry = key.header().geometry;
                let segments = offset.saturating_sub(tail) / u64::from(geometry.segment_size());
                geometry.segment_position(segments).map_err(|error| Lost::Damaged(error.to_string()))?
            }
        };
        if found.stored().size < expected {
            return Err(Lost::Damaged("the data of the upload is cut short".into()));
        }
        // What was on its way when the server ended was never told, and its space may be needed.
        Staged::resume(&self.0.uploads.layout, manifest.id, expected)?.cut(expected)?;
        Ok(())
    }
}

fn start(manifest: &Manifest) -> Start {
    Start {
        id: manifest.id,
        filename: manifest.filename.clone(),
        direction: Direction::Upload,
        client: manifest.client(),
        encryption: manifest.sealed,
        priority: manifest.priority,
        total_bytes: manifest.size,
        at: manifest.created_at,
    }
}

fn missing(error: io::Error) -> Lost {
    match error.kind() {
        io::ErrorKind::NotFound => Lost::Damaged("the data of the upload is missing".into()),
        _ => error.into(),
    }
}

fn read(path: &Path, durability: Durability) -> Result<Read, Lost> {
    let read = UploadLog::open(path, durability)
        .and_then(|(log, manifest, records)| Ok(Read { touched: log.touched()?, log, manifest, records }));
    read.map_err(|error| match error {
        LogError::Empty => Lost::Needless,
        other @ LogError::Version(_) => Lost::Later(other.to_string()),
        LogError::Io(error) => error.into(),
        damaged @ LogError::Damaged { .. } => Lost::Damaged(damaged.to_string()),
    })
}

/// What the log says of the chunks.
#[derive(Default)]
struct Logged {
    place: Option<u64>,
    received: BTreeMap<u32, Received>,
    aside: Option<Aside>,
}

impl Logged {
    fn read(records: &[Record], manifest: &Manifest) -> Self {
        let Kind::Chunks { total } = manifest.kind else { return Self::default() };
        let mut logged = Self::default();
        for record in records {
            match *record {
                Record::ChunkSize(size) => logged.place = Some(size),
                Record::Chunk { number, length, sha256 } if number < total => {
                    logged.received.insert(number, Received { length, sha256 });
                    if number + 1 == total {
                        logged.aside = None;
                    }
                }
                Record::Aside { part, length, sha256 } => {
                    let received = Received { length, sha256 };
                    logged.aside = Some(Aside { part, received });
                }
                Record::Lost(number) => {
                    if logged.received.remove(&number).is_none() && number + 1 == total {
                        logged.aside = None;
                    }
                }
                Record::Chunk { .. }
                | Record::Size(_)
                | Record::Offset { .. }
                | Record::Whole
                | Record::Published { .. } => {}
            }
        }
        logged
    }
}

/// The header of a container that has been begun.
fn header_of(file: &OpenFile) -> io::Result<[u8; HEADER_LEN]> {
    let mut header = [0; HEADER_LEN];
    file.read_exact_at(&mut header, 0)?;
    Ok(header)
}
