//! The server's services, built once from the settings and handed down. Nothing is global.

pub mod storage;

use std::sync::Arc;
use std::time::{Duration, Instant};

use ipnet::IpNet;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use crate::config::{CorsOrigins, Settings};
use crate::events::Hub;
use crate::http::serve::Limits;
use crate::services::access::Access;
use crate::services::downloads::Downloads;
use crate::services::keys::KeysError;
use crate::services::live;
use crate::services::network::Network;
use crate::services::resumable::{self, Resumable};
use crate::services::scrub::Scrub;
use crate::services::space::Space;
use crate::services::storage::Storage;
use crate::services::uploads::{Sealing, Uploads};
use crate::store::lock::{Lock, LockError};
use crate::store::status::{OpenError, StatusStore, StatusStoreGuard};
use crate::store::{Durability, Layout};

/// Why a server could not be set up: one line.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The storage directory can't be used.
    #[error("cannot use the storage directory {}: {source}", .path.display())]
    Storage {
        /// The directory.
        path: std::path::PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Another server owns it.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// The status can't be read.
    #[error(transparent)]
    Status(#[from] OpenError),
    /// There are no keys.
    #[error("cannot use the encryption key: {0}")]
    Keys(#[from] KeysError),
    /// The system has no threads to give.
    #[error("cannot start: no thread could be started: {0}")]
    Threads(std::io::Error),
}

/// Why a server is not ready.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NotReady {
    /// It is being stopped.
    #[error("the server is being stopped")]
    Draining,
    /// Its storage can't be written.
    #[error("the storage can't be written")]
    StorageFailed,
    /// There is no room.
    #[error("the storage is full")]
    StorageFull,
}

/// A handle to everything; cheap to clone.
#[derive(Clone)]
pub struct App(Arc<Inner>);

struct Inner {
    settings: Settings,
    layout: Layout,
    status: StatusStore,
    uploads: Uploads,
    resumable: Resumable,
    downloads: Downloads,
    access: Access,
    network: Network,
    space: Space,
    hub: Hub,
    seats: Arc<Semaphore>,
    begun: Instant,
    stopping: CancellationToken,
}

/// What must be held while anything is written, and let go in this order: first the status is written to its end, then the
/// directory is given free.
pub struct Held {
    _status: StatusStoreGuard,
    _lock: Lock,
}

fn resumable_limits(settings: &Settings) -> resumable::Limits {
    resumable::Limits {
        size: settings.max_resumable_size,
        chunks: settings.max_chunks,
        chunk_size: settings.max_file_size,
        unfinished: settings.max_unfinished,
        per_client: settings.max_unfinished_per_client,
        reserved: settings.max_reserved,
        expiry: settings.upload_expiry,
    }
}

impl App {
    /// Takes the storage directory, reads and mends what is there, and builds the services.
    ///
    /// # Errors
    /// [`StartError`].
    pub async fn start(settings: Settings) -> Result<(Self, Held), StartError> {
        crate::services::start_threads().map_err(StartError::Threads)?;
        let (storage, held, opened) = storage::take(&settings)?;
        if settings.encryption != Sealing::Optional {
            // Whoever seals by default should learn now that there is no key, not at the first upload.
            storage.keys.make()?;
        }
        storage::mend(&settings, &storage, &opened).await?;
        if settings.durability == Durability::Process {
            tracing::warn!(
                "DURABILITY=process: what is acknowledged survives the end of the server, but not a loss of power"
            );
        }
        let (begun, stopping) = (Instant::now(), CancellationToken::new());
        let scrub = settings
            .scrub_interval
            .map(|interval| Scrub::new(&storage, settings.scrub_rate).run(interval, stopping.clone()));
        let Storage { layout, files, status, keys, space, durability } = storage;
        let uploads = Uploads::new(
            layout.clone(),
            status.clone(),
            space.clone(),
            keys.clone(),
            settings.encryption,
            settings.max_file_size,
            durability,
        );
        let resumable = Resumable::new(uploads.clone(), resumable_limits(&settings));
        let restored = resumable.restore().await.map_err(|source| storage::unusable(&settings, source))?;
        if restored.unfinished + restored.damaged + restored.removed > 0 {
            let resumable::Restored { unfinished, damaged, removed, .. } = restored;
            tracing::info!(unfinished, damaged, removed, "unfinished uploads read");
        }
        let downloads = Downloads::new(files, status.clone(), keys);
        let access = Access::new(settings.auth, settings.api_keys.iter().map(String::as_str));
        let (hub, seats) = (live::watch(&status), Arc::new(Semaphore::new(settings.max_connections)));
        let (running, until) = (hub.clone(), stopping.clone());
        tokio::spawn(async move { until.run_until_cancelled(running.run()).await });
        let (janitor, until) = (resumable.clone(), stopping.clone());
        tokio::spawn(async move {
            janitor.go_on().await;
            janitor.run_janitor(until).await;
        });
        // After the hub listens: what is found is told to subscribers too.
        scrub.map(tokio::spawn);
        let inner = Inner {
            settings,
            layout,
            status,
            uploads,
            resumable,
            downloads,
            access,
            network: Network::default(),
            space,
            hub,
            seats,
            begun,
            stopping,
        };
        Ok((Self(Arc::new(inner)), held))
    }

    /// Uploads.
    pub fn uploads(&self) -> &Uploads {
        &self.0.uploads
    }

    /// Uploads that survive anything.
    pub fn resumable(&self) -> &Resumable {
        &self.0.resumable
    }

    /// Downloads.
    pub fn downloads(&self) -> &Downloads {
        &self.0.downloads
    }

    /// Every transfer.
    pub fn status(&self) -> &StatusStore {
        &self.0.status
    }

    /// Events.
    pub fn hub(&self) -> &Hub {
        &self.0.hub
    }

    /// One for each subscriber that may be without a connection between its requests.
    pub fn seats(&self) -> &Arc<Semaphore> {
        &self.0.seats
    }

    /// Who may do what.
    pub fn access(&self) -> &Access {
        &self.0.access
    }

    /// How good the ways to the clients are.
    pub fn network(&self) -> &Network {
        &self.0.network
    }

    /// Peers whose word on the client's address counts.
    pub fn trusted_proxies(&self) -> &[IpNet] {
        &self.0.settings.trusted_proxies
    }

    /// Web pages that may use the server.
    pub fn cors_origins(&self) -> &CorsOrigins {
        &self.0.settings.cors_origins
    }

    /// How long a transfer may stand still.
    pub fn idle_timeout(&self) -> Duration {
        self.0.settings.idle_timeout
    }

    /// Limits of the connections.
    pub fn limits(&self) -> Limits {
        let settings = &self.0.settings;
        Limits {
            connections: settings.max_connections,
            header: settings.header_timeout,
            idle: settings.idle_timeout,
            grace: settings.shutdown_grace,
        }
    }

    /// Cancelled as soon as the server is to stop.
    pub fn stopping(&self) -> &CancellationToken {
        &self.0.stopping
    }

    /// How long the server has been running.
    pub fn uptime(&self) -> Duration {
        self.0.begun.elapsed()
    }

    /// Whether the server can do its work now.
    ///
    /// # Errors
    /// [`NotReady`]: why not.
    pub async fn readiness(&self) -> Result<(), NotReady> {
        if self.0.stopping.is_cancelled() {
            return Err(NotReady::Draining);
        }
        if !self.0.status.is_usable() {
            return Err(NotReady::StorageFailed);
        }
        if !self.0.space.has_room_for(0) {
            return Err(NotReady::StorageFull);
        }
        let layout = self.0.layout.clone();
        let probe = tokio::task::spawn_blocking(move || crate::store::uploads::probe(&layout));
        match probe.await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => {
                tracing::error!(%error, "the storage can't be written");
                Err(NotReady::StorageFailed)
            }
            Err(_) => Err(NotReady::StorageFailed),
        }
    }
}
