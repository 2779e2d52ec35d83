//! How good the network is: `POST /ping`.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::json;
use tokio::time::Instant;

use super::answers::{Answer, Pong};
use super::{Client, Error};

/// Pings after which the server has enough samples: it wants three, and the first has nothing to report yet.
const PINGS: u32 = 4;
/// So long at most is a transfer held up by them.
const PATIENCE: Duration = Duration::from_secs(3);

impl Client {
    /// Asks the server how good the network is. `measured` is how long an exchange with it took; without one, nothing is counted.
    ///
    /// # Errors
    /// [`Error`]. It is not tried again.
    pub async fn ping(&self, measured: Option<Duration>) -> Result<Answer<Pong>, Error> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64();
        // By the clocks alone, which differ, a good network could look bad: an impossible latency is not counted.
        let rtt_ms = measured.map_or(-1.0, |time| time.as_secs_f64() * 1000.0);
        let request = self.http.post(self.server.endpoint(&["ping"]));
        let request = request.json(&json!({"timestamp": now, "rtt_ms": rtt_ms}));
        let response = self.send(request, self.timeouts.idle).await?;
        self.json(self.accept(response).await?).await
    }

    /// The size of chunk that the server recommends after a few pings. `None` where it doesn't say, or not soon: a
    /// recommendation is not worth more than that.
    pub(super) async fn recommended_chunk_size(&self) -> Option<u64> {
        let asked = async {
            let mut recommended = None;
            let mut measured = None;
            for _ in 0..PINGS {
                let began = Instant::now();
                recommended = Some(self.ping(measured).await.ok()?.value.recommended_chunk_size);
                measured = Some(began.elapsed());
            }
            recommended
        };
        tokio::time::timeout(PATIENCE, asked).await.ok().flatten()
    }
}
