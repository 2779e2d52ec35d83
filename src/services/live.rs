//! What is going on, as the hub of events reads it from the status.

use std::sync::Arc;

use crate::domain::progress::Live;
use crate::domain::stats::Stats;
use crate::domain::{FileName, Transfer, TransferId};
use crate::events::{Hub, Place, Source};
use crate::store::status::StatusStore;

/// A hub that is told of every change of this status.
pub fn watch(status: &StatusStore) -> Hub {
    let hub = Hub::new(status.clone());
    status.on_change(hub.listener());
    hub
}

impl Source for StatusStore {
    fn position(&self) -> (u64, Vec<Arc<Transfer>>) {
        self.position()
    }

    fn live(&self, id: TransferId) -> Option<Arc<Live>> {
        self.live(id)
    }

    fn changed(&self, since: u64, page: Option<Place>, limit: usize) -> (Vec<Arc<Transfer>>, Option<Place>) {
        self.changed(since, page, limit)
    }

    fn recent(&self, limit: usize) -> Vec<Arc<Transfer>> {
        self.recent(None, limit)
    }

    fn current(&self, name: &FileName) -> Option<Arc<Transfer>> {
        self.current(name)
    }

    fn name_count(&self) -> usize {
        self.name_count()
    }

    fn stats(&self) -> Stats {
        self.stats()
    }
}
