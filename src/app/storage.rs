//! Taking a storage directory into possession: by a server, or by a command that works without one.

use std::io;

use super::{Held, StartError};
use crate::config::Settings;
use crate::services::keys::Keys;
use crate::services::space::Space;
use crate::services::storage::Storage;
use crate::store::Layout;
use crate::store::files::Files;
use crate::store::lock::Lock;
use crate::store::recovery;
use crate::store::status::{self, Opened, StatusStore};

/// Locks the directory and reads keys and status. Nothing is mended yet: see [`mend`].
///
/// # Errors
/// [`StartError`].
pub fn take(settings: &Settings) -> Result<(Storage, Held, Opened), StartError> {
    let layout = Layout::new(settings.upload_dir.clone(), settings.log_file.clone());
    layout.create().map_err(|source| unusable(settings, source))?;
    let lock = Lock::take(&layout.lock(), layout.root())?;
    let current = settings.encryption_key.as_ref().map(|key| key.as_str());
    let keys = Keys::load(layout.secret_key(), current, &settings.encryption_key_old)?;
    let limits = status::Limits { history: settings.history_limit, journal: settings.journal_size };
    let durability = settings.durability;
    let (status, guard, opened) = StatusStore::open(&layout, durability, limits)?;
    for remark in &opened.remarks {
        tracing::warn!("{remark}");
    }
    let files = Files::new(layout.clone()).map_err(|source| unusable(settings, source))?;
    let space = Space::new(layout.clone(), settings.min_free_space);
    let storage = Storage { layout, files, status, keys, space, durability };
    Ok((storage, Held { _status: guard, _lock: lock }, opened))
}

/// Makes status and directory agree, and logs what was found.
///
/// # Errors
/// [`StartError::Storage`].
pub async fn mend(settings: &Settings, storage: &Storage, opened: &Opened) -> Result<(), StartError> {
    let keyring = storage.keys.get();
    let recovered = recovery::recover(&storage.layout, &storage.files, &storage.status, keyring.as_deref());
    let recovered = recovered.await.map_err(|source| unusable(settings, source))?;
    let (adopted, failed, removed, foreign) =
        (recovered.adopted, recovered.failed, recovered.removed, recovered.foreign);
    tracing::info!(names = opened.names, took = ?opened.took, adopted, failed, removed, foreign, "status read");
    for name in &recovered.missing {
        tracing::warn!(
            filename = name.as_str(),
            "a file that is recorded is missing from the storage directory"
        );
    }
    Ok(())
}

pub(super) fn unusable(settings: &Settings, source: io::Error) -> StartError {
    StartError::Storage { path: settings.upload_dir.clone(), source }
}
