//! Counters over all transfers, kept as they change: to read them costs the same with a million transfers as with one.

use std::borrow::{Borrow, Cow};
use std::collections::HashMap;
use std::hash::Hash;
use std::sync::Arc;

use serde::Serialize;
use serde_json::{Map, Value};

use super::{Direction, Status, Transfer};

/// Kinds of files that are told apart; the rest is told as [`OTHER`]. Whoever invents endings must not make every answer
/// larger.
const KINDS: usize = 100;
/// Files without an ending, with a strange one, and those of rare kinds.
const OTHER: &str = "other";
/// The longest ending that counts as one.
const LONGEST: usize = 16;

/// What is counted.
#[derive(Debug, Default)]
pub struct Tally {
    transfers: u64,
    completed: u64,
    failed: u64,
    cancelled: u64,
    encrypted: u64,
    /// Bytes of those that are complete, and how long they took.
    bytes: u64,
    micros: u64,
    clients: HashMap<Arc<str>, u64>,
    kinds: HashMap<Box<str>, u64>,
}

/// The counters, as they are shown.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Stats {
    /// Transfers that are known.
    pub total_transfers: u64,
    /// Bytes of those that are complete.
    pub total_bytes: u64,
    /// The same in MiB.
    pub total_size_mb: f64,
    /// How many are complete.
    pub completed_count: u64,
    /// How many failed.
    pub failed_count: u64,
    /// How many run.
    pub active_count: u64,
    /// Percent of those that completed or failed that completed.
    pub success_rate: f64,
    /// MiB a second: all bytes of those that are complete by all the time that they took.
    pub average_speed_mbps: f64,
    /// How many clients there were.
    pub total_clients: u64,
    /// Complete transfers by the ending of the file's name.
    pub file_types: Map<String, Value>,
    /// Complete transfers whose file is sealed.
    pub encrypted_count: u64,
    /// Transfers that wait.
    pub queue_length: u64,
}

impl Tally {
    /// A transfer has this state. Only uploads count: of downloads there is but damage that was found.
    pub fn add(&mut self, transfer: &Transfer) {
        if transfer.direction == Direction::Download {
            return;
        }
        self.count(transfer, |counter, by| *counter = counter.saturating_add(by));
        count_in(&mut self.clients, &transfer.client.id, || Arc::clone(&transfer.client.id));
        if transfer.status == Status::Completed {
            let kind = kind(transfer.filename.as_str());
            count_in(&mut self.kinds, &kind, || kind.as_ref().into());
        }
    }

    /// A transfer that was added no longer has this state.
    pub fn remove(&mut self, transfer: &Transfer) {
        if transfer.direction == Direction::Download {
            return;
        }
        self.count(transfer, |counter, by| *counter = counter.saturating_sub(by));
        count_out(&mut self.clients, &transfer.client.id);
        if transfer.status == Status::Completed {
            count_out(&mut self.kinds, &kind(transfer.filename.as_str()));
        }
    }

    fn count(&mut self, transfer: &Transfer, change: impl Fn(&mut u64, u64)) {
        change(&mut self.transfers, 1);
        match transfer.status {
            Status::Completed => {
                change(&mut self.completed, 1);
                change(&mut self.encrypted, u64::from(transfer.encryption));
                change(&mut self.bytes, transfer.transferred_bytes);
                change(&mut self.micros, micros(transfer));
            }
            Status::Failed => change(&mut self.failed, 1),
            Status::Cancelled => change(&mut self.cancelled, 1),
            Status::Pending | Status::Uploading | Status::Downloading | Status::Processing => {}
        }
    }

    /// The counters now.
    pub fn stats(&self) -> Stats {
        let ended = self.completed + self.failed;
        let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
        let seconds = self.micros as f64 / 1e6;
        let ratio = |part: f64, whole: f64| if whole > 0.0 { part / whole } else { 0.0 };
        Stats {
            total_transfers: self.transfers,
            total_bytes: self.bytes,
            total_size_mb: hundredths(mib(self.bytes)),
            completed_count: self.completed,
            failed_count: self.failed,
            active_count: self.transfers - ended - self.cancelled,
            success_rate: hundredths(ratio(self.completed as f64 * 100.0, ended as f64)),
            average_speed_mbps: hundredths(ratio(mib(self.bytes), seconds)),
            total_clients: self.clients.len() as u64,
            file_types: self.file_types(),
            encrypted_count: self.encrypted,
            queue_length: 0,
        }
    }

    fn file_types(&self) -> Map<String, Value> {
        let mut kinds: Vec<_> = self.kinds.iter().map(|(kind, count)| (kind.as_ref(), *count)).collect();
        if kinds.len() > KINDS {
            kinds.sort_unstable_by(|(a, many), (b, few)| few.cmp(many).then(a.cmp(b)));
            let rest: u64 = kinds.drain(KINDS..).map(|(_, count)| count).sum();
            match kinds.iter_mut().find(|(kind, _)| *kind == OTHER) {
                Some((_, count)) => *count += rest,
                None => kinds.push((OTHER, rest)),
            }
        }
        kinds.into_iter().map(|(kind, count)| (kind.to_owned(), count.into())).collect()
    }
}

/// One more under this key, which is made only if it is new.
fn count_in<K>(counts: &mut HashMap<K, u64>, key: &str, own: impl FnOnce() -> K)
where
    K: Borrow<str> + Hash + Eq,
{
    match counts.get_mut(key) {
        Some(count) => *count += 1,
        None => _ = counts.insert(own(), 1),
    }
}

/// One less; a key that counts nothing is forgotten.
fn count_out<K>(counts: &mut HashMap<K, u64>, key: &str)
where
    K: Borrow<str> + Hash + Eq,
{
    if let Some(count) = counts.get_mut(key) {
        *count -= 1;
        if *count == 0 {
            counts.remove(key);
        }
    }
}

/// The ending of a name, in lower case, with its dot.
fn kind(filename: &str) -> Cow<'static, str> {
    match filename.rsplit_once('.') {
        Some((_, ending))
            if (1..=LONGEST).contains(&ending.len()) && ending.bytes().all(|b| b.is_ascii_alphanumeric()) =>
        {
            Cow::Owned(format!(".{}", ending.to_ascii_lowercase()))
        }
        _ => Cow::Borrowed(OTHER),
    }
}

/// How long a transfer took.
fn micros(transfer: &Transfer) -> u64 {
    let (from, to) = (transfer.created_at.to_system_time(), transfer.updated_at.to_system_time());
    let elapsed = to.duration_since(from).unwrap_or_default();
    u64::try_from(elapsed.as_micros()).unwrap_or(u64::MAX)
}

fn hundredths(value: f64) -> f64 {
    (value * 100.0).round() / 100.0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{
        Change, Client, Completion, Digest, Direction, FileName, Hex16, Priority, Seal, Start, StoredFile,
        Timestamp, TransferId,
    };

    fn at(seconds: u64) -> Timestamp {
        (std::time::SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(seconds)).into()
    }

    fn started(name: &str, client: &str) -> Transfer {
        let start = Start {
            id: TransferId::new(),
            filename: FileName::clean(name).unwrap(),
            direction: Direction::Upload,
            client: Client::new(client, "", None),
            encryption: false,
            priority: Priority::default(),
            total_bytes: None,
            at: at(0),
        };
        Change::Started(start).apply(None, 1).unwrap()
    }

    fn completed(transfer: &Transfer, size: u64, seconds: u64) -> Transfer {
        let completion = Completion {
            id: transfer.id,
            at: at(seconds),
            filename: transfer.filename.clone(),
            client: transfer.client.clone(),
            priority: transfer.priority,
            seal: (size == 0).then_some(Seal { nonce: Hex16([0; 16]), tag: Hex16([0; 16]) }),
            checksum: Digest::new([0; 32]),
            file: StoredFile { size, modified: at(0) },
        };
        Change::Completed(completion).apply(Some(transfer), 2).unwrap()
    }

    #[test]
    fn nothing_yet_is_zeros() {
        let stats = serde_json::to_value(Tally::default().stats()).unwrap();
        let members = stats.as_object().unwrap();
        assert_eq!(members.len(), 12);
        assert!(members.values().all(|value| value.as_f64() == Some(0.0) || value == &serde_json::json!({})));
    }

    #[test]
    fn what_goes_in_and_out_is_counted_once() {
        let mut tally = Tally::default();
        let mut step = |before: Option<&Transfer>, after: Option<&Transfer>| {
            before.into_iter().for_each(|before| tally.remove(before));
            after.into_iter().for_each(|after| tally.add(after));
            tally.stats()
        };
        let (a, b, c) = (started("a.TXT", "x"), started("b.txt", "x"), started("c", "y"));
        step(None, Some(&a));
        step(None, Some(&b));
        assert_eq!(step(None, Some(&c)).active_count, 3);
        step(Some(&a), Some(&completed(&a, 3 << 20, 2)));
        step(Some(&c), Some(&completed(&c, 0, 1)));
        let failed = Change::Failed { id: b.id, at: at(9), error: "x".into(), transferred_bytes: 7 };
        let failed = failed.apply(Some(&b), 3).unwrap();
        let stats = step(Some(&b), Some(&failed));
        let expected = Stats {
            total_transfers: 3,
            total_bytes: 3 << 20,
            total_size_mb: 3.0,
            completed_count: 2,
            failed_count: 1,
            active_count: 0,
            success_rate: 66.67,
            average_speed_mbps: 1.0,
            total_clients: 2,
            file_types: serde_json::json!({".txt": 1, "other": 1}).as_object().unwrap().clone(),
            encrypted_count: 1,
            queue_length: 0,
        };
        assert_eq!(stats, expected);
        step(Some(&completed(&a, 3 << 20, 2)), None);
        step(Some(&completed(&c, 0, 1)), None);
        assert_eq!(step(Some(&failed), None), Tally::default().stats(), "what is forgotten counts no more");
    }

    #[test]
    fn however_many_kinds_there_are_an_answer_stays_small() {
        let mut tally = Tally::default();
        for number in 0..1000 {
            let transfer = started(&format!("x.k{number}"), "x");
            tally.add(&completed(&transfer, 1, 1));
        }
        let kinds = tally.stats().file_types;
        assert_eq!((kinds.len(), &kinds[OTHER]), (KINDS + 1, &Value::from(900)));
    }
}
