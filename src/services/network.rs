//! How good the way to each client is, judged by how long its pings take: which size of chunk is worth sending over it.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

use serde::Serialize;

/// Samples of a client that count: the latest.
const SAMPLES: usize = 10;
/// Fewer say nothing.
const FEWEST: usize = 3;
/// Clients that are remembered. Who pings under ever new ids pushes out others, and fills no memory.
const CLIENTS: usize = 10_000;
/// A longer latency is a clock that is wrong, not a network.
const LONGEST_MS: f64 = 60_000.0;

/// What the latencies of a client amount to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Quality {
    /// Short and even.
    Excellent,
    /// A usual link.
    Good,
    /// Long, or uneven.
    Poor,
    /// Very long.
    Unstable,
    /// There are too few samples to tell.
    Unknown,
}

impl Quality {
    /// The size of chunk, in bytes, that is recommended: what a chunk loses when it breaks is sent again.
    pub const fn chunk_size(self) -> u64 {
        match self {
            Self::Excellent => 1 << 20,
            Self::Good | Self::Unknown => 512 << 10,
            Self::Poor => 256 << 10,
            Self::Unstable => 128 << 10,
        }
    }

    fn of(samples: &VecDeque<f64>) -> Self {
        if samples.len() < FEWEST {
            return Self::Unknown;
        }
        let mean = mean(samples);
        let count = samples.len() as f64;
        let squares: f64 = samples.iter().map(|sample| (sample - mean).powi(2)).sum();
        // Of a sample, not of a population: there are few of them.
        let deviation = (squares / (count - 1.0)).sqrt();
        match (mean, deviation) {
            (..50.0, ..20.0) => Self::Excellent,
            (..150.0, ..50.0) => Self::Good,
            (..300.0, _) => Self::Poor,
            _ => Self::Unstable,
        }
    }
}

/// What a ping has shown.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Judgement {
    /// The latency of this ping in milliseconds; where it is impossible, the mean of the client's others, or 0.
    pub latency_ms: f64,
    /// What the client's latest pings amount to.
    pub quality: Quality,
}

/// The latencies of the clients.
///
/// A plain mutex: it is held for a look-up and a few additions, never across an `.await`.
#[derive(Debug, Clone, Default)]
pub struct Network(Arc<Mutex<Clients>>);

#[derive(Debug, Default)]
struct Clients {
    known: HashMap<Arc<str>, Known>,
    /// The clients by when they last pinged, the longest ago first.
    by_use: BTreeMap<u64, Arc<str>>,
    uses: u64,
}

#[derive(Debug)]
struct Known {
    samples: VecDeque<f64>,
    used: u64,
}

impl Network {
    /// Takes a client's latency in milliseconds, and judges. One that is impossible (negative: the clocks differ; over a minute)
    /// is not counted.
    pub fn judge(&self, client: &str, latency_ms: f64) -> Judgement {
        // A panic while it was held leaves at worst a client that is forgotten late.
        let mut clients = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if (0.0..=LONGEST_MS).contains(&latency_ms) {
            let samples = clients.used(client);
            if samples.len() == SAMPLES {
                samples.pop_front();
            }
            samples.push_back(latency_ms);
            return Judgement { latency_ms, quality: Quality::of(samples) };
        }
        let Some(known) = clients.known.get(client) else {
            return Judgement { latency_ms: 0.0, quality: Quality::Unknown };
        };
        Judgement { latency_ms: mean(&known.samples), quality: Quality::of(&known.samples) }
    }
}

impl Clients {
    /// The samples of a client that pings now; who has not for the longest time makes room for a new one.
    fn used(&mut self, client: &str) -> &mut VecDeque<f64> {
        self.uses += 1;
        let used = self.uses;
        let key = match self.known.get_key_value(client) {
            Some((key, known)) => {
                self.by_use.remove(&known.used);
                Arc::clone(key)
            }
            None => {
                if self.known.len() >= CLIENTS
                    && let Some((_, oldest)) = self.by_use.pop_first()
                {
                    self.known.remove(&oldest);
                }
                Arc::from(client)
            }
        };
        self.by_use.insert(used, Arc::clone(&key));
        let known = self.known.entry(key).or_insert_with(|| Known { samples: VecDeque::new(), used });
        known.used = used;
        &mut known.samples
    }
}

/// Of at least one sample.
fn mean(samples: &VecDeque<f64>) -> f64 {
    samples.iter().sum::<f64>() / samples.len().max(1) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(samples: &[f64]) -> Judgement {
        let network = Network::default();
        let judged: Vec<_> = samples.iter().map(|sample| network.judge("a", *sample)).collect();
        judged[judged.len() - 1]
    }

    #[test]
    fn the_latest_pings_decide() {
        use Quality::*;
        for (samples, quality) in [
            (&[1.0][..], Unknown),
            (&[1.0, 1.0], Unknown),
            (&[0.0, 0.0, 0.0], Excellent),
            (&[49.0, 49.0, 49.9], Excellent),
            (&[50.0, 50.0, 50.0], Good),
            // Mean 40, deviation 20: even enough is less than that.
            (&[20.0, 40.0, 60.0], Good),
            (&[149.0, 149.0, 149.0], Good),
            (&[150.0, 150.0, 150.0], Poor),
            // Mean 100, deviation 50.
            (&[50.0, 100.0, 150.0], Poor),
            (&[0.0, 0.0, 890.0], Poor),
            (&[300.0, 300.0, 300.0], Unstable),
            (&[60_000.0, 60_000.0, 60_000.0], Unstable),
        ] {
            assert_eq!(after(samples).quality, quality, "{samples:?}");
        }
    }

    #[test]
    fn only_ten_pings_are_remembered() {
        let mut samples = vec![60_000.0; 5];
        samples.extend([1.0; 9]);
        assert_eq!(after(&samples).quality, Quality::Unstable);
        samples.push(1.0);
        assert_eq!(after(&samples).quality, Quality::Excellent);
    }

    #[test]
    fn an_impossible_latency_is_not_counted_and_never_told() {
        for impossible in [-0.001, -3_600_000.0, 60_000.1, f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
            assert_eq!(after(&[impossible]), Judgement { latency_ms: 0.0, quality: Quality::Unknown });
            let counted = after(&[10.0, 20.0, impossible, 30.0]);
            assert_eq!(counted, Judgement { latency_ms: 30.0, quality: Quality::Excellent }, "{impossible}");
            let last = after(&[10.0, 20.0, 30.0, impossible]);
            assert_eq!(last, Judgement { latency_ms: 20.0, quality: Quality::Excellent }, "{impossible}");
        }
    }

    #[test]
    fn better_networks_get_larger_chunks() {
        for (quality, kib) in [
            (Quality::Excellent, 1024),
            (Quality::Good, 512),
            (Quality::Poor, 256),
            (Quality::Unstable, 128),
            (Quality::Unknown, 512),
        ] {
            assert_eq!(quality.chunk_size(), kib << 10);
        }
    }

    #[test]
    fn clients_are_told_apart_and_the_longest_silent_is_forgotten_first() {
        let network = Network::default();
        for client in ["kept", "forgotten"] {
            for _ in 0..3 {
                network.judge(client, 1.0);
            }
        }
        for stranger in 0..CLIENTS - 2 {
            network.judge(&stranger.to_string(), 500.0);
        }
        assert_eq!(network.judge("kept", 1.0).quality, Quality::Excellent);
        network.judge("one more", 500.0);
        assert_eq!(network.judge("kept", 1.0).quality, Quality::Excellent);
        assert_eq!(network.judge("forgotten", -1.0).quality, Quality::Unknown);
        let clients = network.0.lock().unwrap();
        assert_eq!((clients.known.len(), clients.by_use.len()), (CLIENTS, CLIENTS));
    }
}
