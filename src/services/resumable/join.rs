//! Joining parts to one upload (tus: concatenation).

use std::io;
use std::sync::Arc;

use super::Resumable;
use super::completion::ending;
use super::creation::manifest;
use super::model::{Creation, Progress, ResumableError};
use super::ordered::Stage;
use super::registry::{Finished, Known};
use crate::crypto::{FileKey, Keyring, OpenStream};
use crate::domain::{Change, Digest, Timestamp, TransferId};
use crate::services::checksum::Hashes;
use crate::services::pipeline::blocking;
use crate::services::uploads::UploadError;
use crate::services::writer::{Opening, Target, Writer, Written, copy};
use crate::store::upload_log::{Kind, Record, UploadLog};

/// So many parts may be joined at once.
const PARTS: usize = 1000;

/// A part, as it is to be read.
struct Part {
    target: Target,
    opening: Opening,
}

impl Resumable {
    pub(super) async fn join_parts(
        &self,
        creation: Creation,
        ids: Vec<TransferId>,
        list: Box<str>,
    ) -> Result<Progress, ResumableError> {
        if ids.is_empty() || ids.len() > PARTS {
            return Err(ResumableError::Parts("there must be 1 to 1000 of them"));
        }
        // Who asks again while they are joined waits for that.
        let _turn = self.one_at_a_time(&ids).await;
        let same =
            |joined: &Finished| matches!(&joined.manifest.kind, Kind::Joined { parts, .. } if *parts == ids);
        if let Some(joined) = self.0.registry.find_finished(&creation.client, &creation.filename, same) {
            return Ok(Self::of_finished(&joined));
        }
        let mut uploads = Vec::with_capacity(ids.len());
        for id in &ids {
            match self.0.registry.get(*id) {
                Some(Known::Unfinished(upload)) if upload.is_partial() && upload.is_of(&creation.client) => {
                    uploads.push(upload);
                }
                _ => return Err(ResumableError::Parts("one of them is no unfinished part")),
            }
        }
        let (mut turns, mut parts, mut total) = (Vec::new(), Vec::new(), 0_u64);
        for (index, upload) in uploads.iter().enumerate() {
            if ids[..index].contains(&upload.id()) {
                return Err(ResumableError::Parts("one of them stands there twice"));
            }
            // A part that still comes would be made to let go: it is not complete.
            let Some(work) = upload.ordered()?.try_take() else {
                return Err(ResumableError::Parts("one of them is not complete"));
            };
            if work.stage != Stage::Whole {
                return Err(ResumableError::Parts("one of them is not complete"));
            }
            let size = work.durable().offset;
            total = total.saturating_add(size);
            parts.push(Part { target: self.target(upload.id(), 0), opening: work.opening().0 });
            turns.push(work);
        }
        self.check_size(Some(total))?;
        let creation = Creation { size: Some(total), ..creation };
        let id = TransferId::new();
        let sealed = self.0.uploads.sealing.decide(creation.encryption);
        let key = self.0.uploads.key(sealed).await?;
        let manifest = manifest(id, &creation, Kind::Joined { parts: ids, list }, sealed);
        self.announce(&creation, id, sealed).await?;
        let live = self.0.uploads.status.track(id, creation.size, None);
        let (target, keyring) = (self.target(id, total), self.0.uploads.keys.get());
        let joined = blocking(move || join(target, key, parts, keyring.as_deref(), |done| live.reach(done)));
        let published = match joined.await {
            Ok((written, digest)) => {
                let published = self.0.uploads.publish(id, &written, digest, ending(&manifest)).await;
                match &published {
                    Ok(_) => written.staged.published(),
                    Err(_) => _ = tokio::task::spawn_blocking(move || drop(written)),
                }
                published
            }
            Err(error) => Err(UploadError::storage(&error)),
        };
        let transfer = match published {
            Ok(transfer) => transfer,
            Err(error) => {
                let (at, why) = (Timestamp::now(), error.to_string().into());
                self.0.uploads.status.note(Change::Failed { id, at, error: why, transferred_bytes: 0 });
                return Err(error.into());
            }
        };
        for (upload, mut work) in uploads.iter().zip(turns) {
            self.end_now(upload, None).await?;
            work.stage = Stage::Ended;
        }
        let (layout, durability) = (self.0.uploads.layout.clone(), self.0.uploads.durability);
        let kept = manifest.clone();
        let noted = blocking(move || {
            UploadLog::create(&layout, &kept, durability)?.append(&Record::Published { last: None })
        });
        if let Err(error) = noted.await {
            tracing::warn!(%error, %id, "that an upload is published is not in a log");
        }
        let finished = Finished::new(manifest, transfer, None, Timestamp::now());
        let forgotten = self.0.registry.end(id, Some(finished));
        self.remove_logs(forgotten).await;
        self.after_the_end(id)
    }
}

/// Writes the parts one behind the other.
fn join(
    target: Target,
    key: Option<Arc<FileKey>>,
    parts: Vec<Part>,
    keyring: Option<&Keyring>,
    done: impl Fn(u64),
) -> io::Result<(Written, Digest)> {
    let mut writer = Writer::create(target, key)?;
    let mut hashes = Hashes::default();
    for part in parts {
        // Of a sealed part, this writes the end.
        let part = Writer::open(part.target, part.opening)?.finish()?;
        let open = part.staged.open()?;
        let mut take = |piece: &[u8]| {
            hashes.update(piece);
            writer.append(&[piece])?;
            done(writer.length());
            Ok(())
        };
        match (part.seal, keyring) {
            (None, _) => copy(open.reader(), &mut take)?,
            (Some(_), Some(keyring)) => copy(OpenStream::new(open.reader(), keyring)?, &mut take)?,
            (Some(_), None) => return Err(io::Error::other("there is no key to open a part with")),
        }
    }
    Ok((writer.finish()?, hashes.digest()))
}
