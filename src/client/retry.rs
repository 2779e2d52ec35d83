//! When a failed attempt is worth another, and when that comes.

use std::fmt::Display;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use http::StatusCode;

use tokio::time::Instant;

use super::progress::{Event, Observer};

/// How often a failed transfer is tried again, and how long it waits before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retries {
    /// How many attempts may follow the first; 0: none.
    pub limit: u32,
    /// The wait before the first retry. Each further one is twice as long, up to 16 times this.
    pub first_wait: Duration,
}

impl Retries {
    /// A server that asks for more by `Retry-After` does not get it: nobody watches a command that stands still for longer.
    pub const LONGEST_WAIT: Duration = Duration::from_secs(120);

    /// `limit` retries after 1, 2, 4, 8, 16, 16, … seconds.
    pub const fn new(limit: u32) -> Self {
        Self { limit, first_wait: Duration::from_secs(1) }
    }

    /// The wait before retry number `retry` (from 1): the longer of what stands above and what the server asked for.
    pub fn wait(&self, retry: u32, asked_for: Option<Duration>) -> Duration {
        let own = self.first_wait * (1 << retry.saturating_sub(1).min(4));
        asked_for.map_or(own, |asked| own.max(asked.min(Self::LONGEST_WAIT)))
    }
}

impl Default for Retries {
    /// Three.
    fn default() -> Self {
        Self::new(3)
    }
}

/// Whether an error can go away by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// The same attempt would fail the same way.
    Final,
    /// Another attempt may go well.
    Again {
        /// The server's `Retry-After`, as a wait from now.
        after: Option<Duration>,
    },
}

/// The verdict on an answer with this status.
///
/// Of the 5xx only those that speak of the moment: 501 (not implemented), 505 (version), 507 (storage full), 508 and
/// 511 stay as they are until a person does something.
pub(super) fn verdict_on(status: StatusCode, after: Option<Duration>) -> Verdict {
    match status.as_u16() {
        408 | 429 | 500 | 502 | 503 | 504 => Verdict::Again { after },
        _ => Verdict::Final,
    }
}

/// Errors of attempts that can be repeated.
pub(super) trait Retryable: Display {
    fn verdict(&self) -> Verdict;
}

/// Counts the attempts of one transfer.
pub(super) struct Backoff {
    retries: Retries,
    used: u32,
}

impl Backoff {
    pub(super) fn new(retries: Retries) -> Self {
        Self { retries, used: 0 }
    }

    /// Starts the count anew: the attempt that just broke had moved the transfer on.
    pub(super) fn moved_on(&mut self) {
        self.used = 0;
    }

    /// Waits for the time of the next attempt.
    ///
    /// # Errors
    /// `error` itself, if no other attempt is worth it or left.
    pub(super) async fn pause<E: Retryable>(&mut self, error: E, observer: &Observer) -> Result<(), E> {
        let Verdict::Again { after } = error.verdict() else { return Err(error) };
        if self.used >= self.retries.limit {
            return Err(error);
        }
        self.used += 1;
        let wait = self.retries.wait(self.used, after);
        observer(Event::Retrying { error: &error, wait, retry: self.used, retries: self.retries.limit });
        tokio::time::sleep(wait).await;
        Ok(())
    }
}

/// For several transfers at once: tells of a retry only if none that was told of is still being waited for. One outage is told
/// once, not once for each connection that it hit.
pub(super) fn quieter(observer: &Observer) -> Observer {
    let (observer, until) = (Arc::clone(observer), Mutex::new(None));
    Arc::new(move |event| {
        if let Event::Retrying { wait, .. } = event {
            let mut until = until.lock().unwrap_or_else(PoisonError::into_inner);
            let now = Instant::now();
            if until.is_some_and(|until| now < until) {
                return;
            }
            *until = now.checked_add(wait);
        }
        observer(event);
    })
}

/// Reads a `Retry-After` (RFC 9110 §10.2.3), whole seconds or a date, as a wait from `now`. A date that has passed is no wait.
pub fn parse_retry_after(text: &str, now: SystemTime) -> Option<Duration> {
    let text = text.trim();
    if text.bytes().all(|byte| byte.is_ascii_digit()) && !text.is_empty() {
        return Some(text.parse().map_or(Duration::MAX, Duration::from_secs));
    }
    let date = httpdate::parse_http_date(text).ok()?;
    Some(date.duration_since(now).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use time::macros::datetime;

    use super::*;
    use crate::client::unobserved;

    #[derive(Debug, PartialEq)]
    struct Failed(Verdict);

    impl Display for Failed {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("failed")
        }
    }

    impl Retryable for Failed {
        fn verdict(&self) -> Verdict {
            self.0
        }
    }

    const AGAIN: Verdict = Verdict::Again { after: None };

    #[test]
    fn only_what_can_get_better_is_tried_again() {
        for (status, again) in [
            (400, false),
            (401, false),
            (403, false),
            (404, false),
            (408, true),
            (409, false),
            (412, false),
            (413, false),
            (416, false),
            (422, false),
            (429, true),
            (500, true),
            (501, false),
            (502, true),
            (503, true),
            (504, true),
            (505, false),
            (507, false),
            (511, false),
        ] {
            let verdict = verdict_on(StatusCode::from_u16(status).unwrap(), None);
            assert_eq!(verdict != Verdict::Final, again, "{status}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn retries_wait_1_2_4_8_16_16_seconds_and_then_give_up() {
        let mut backoff = Backoff::new(Retries::new(6));
        for seconds in [1, 2, 4, 8, 16, 16] {
            let before = Instant::now();
            backoff.pause(Failed(AGAIN), &unobserved()).await.unwrap();
            assert_eq!(before.elapsed().as_secs(), seconds);
        }
        let before = Instant::now();
        assert_eq!(backoff.pause(Failed(AGAIN), &unobserved()).await, Err(Failed(AGAIN)));
        assert!(before.elapsed().is_zero());
    }

    #[tokio::test(start_paused = true)]
    async fn what_cannot_get_better_does_not_wait() {
        let before = Instant::now();
        let mut backoff = Backoff::new(Retries::new(3));
        assert!(backoff.pause(Failed(Verdict::Final), &unobserved()).await.is_err());
        assert!(Backoff::new(Retries::new(0)).pause(Failed(AGAIN), &unobserved()).await.is_err());
        assert!(before.elapsed().is_zero());
    }

    #[tokio::test(start_paused = true)]
    async fn each_retry_is_announced_with_its_wait() {
        let told = Arc::new(Mutex::new(Vec::new()));
        let observer: Observer = {
            let told = Arc::clone(&told);
            Arc::new(move |event| {
                if let Event::Retrying { error, wait, retry, retries } = event {
                    told.lock().unwrap().push((error.to_string(), wait.as_secs(), retry, retries));
                }
            })
        };
        let mut backoff = Backoff::new(Retries::new(3));
        let asked = |seconds| Failed(Verdict::Again { after: Some(Duration::from_secs(seconds)) });
        backoff.pause(asked(5), &observer).await.unwrap();
        backoff.pause(asked(0), &observer).await.unwrap();
        backoff.moved_on();
        backoff.pause(asked(86_400), &observer).await.unwrap();
        let expected = [(5, 1), (2, 2), (120, 1)].map(|(wait, retry)| ("failed".to_owned(), wait, retry, 3));
        assert_eq!(*told.lock().unwrap(), expected);
    }

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        let now = datetime!(2026-11-23 08:00:00 UTC).into();
        for (text, seconds) in [
            ("0", Some(0)),
            (" 30 ", Some(30)),
            ("99999999999999999999", Some(u64::MAX)),
            ("Mon, 23 Nov 2026 08:00:07 GMT", Some(7)),
            ("Mon, 23 Nov 2026 07:59:00 GMT", Some(0)),
            ("Monday, 23-Nov-26 08:00:09 GMT", Some(9)),
            ("", None),
            ("-1", None),
            ("1.5", None),
            ("soon", None),
        ] {
            assert_eq!(parse_retry_after(text, now).map(|wait| wait.as_secs()), seconds, "{text:?}");
        }
    }
}
