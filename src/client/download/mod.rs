//! Fetching a file.

mod headers;
mod local;
mod part;
mod ranges;
#[cfg(test)]
mod ranges_tests;
#[cfg(test)]
mod tests;

use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use http::StatusCode;
use http::header::{IF_RANGE, RANGE};
use reqwest::{Response, Url};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use self::headers::Plan;
use self::local::Local;
use self::part::Version;
use self::ranges::{Missing, Wanted};
use super::progress::{Event, Observer, Phase};
use super::retry::{Backoff, Retryable, Verdict};
use super::{Client, Error, Retries};
use crate::domain::{Digest, FileName};

/// Pieces (of at most some hundred KiB) that have arrived and are not yet written: memory stays below a few MiB.
const AHEAD: usize = 8;
/// An attempt that brought this much counts as a step forward: the retries are counted anew.
const STEP: u64 = 1 << 20;

/// A file that is to be fetched.
pub struct Download {
    /// What it is called on the server.
    pub name: FileName,
    /// Where it goes.
    pub to: Destination,
    /// `false`: as it is stored, sealed if it is.
    pub decrypt: bool,
    /// What is done about failures.
    pub retries: Retries,
    /// How many connections fetch a file of more than 4 MiB; 1: one request for the whole.
    pub connections: usize,
}

/// Where a download goes.
pub enum Destination {
    /// To a file, which is replaced once the new one is whole; until then the bytes are in `PATH.part`, from which a later
    /// download of the same file goes on.
    File(PathBuf),
    /// To something that takes bytes one after the other, such as standard output. They are out before they could be
    /// checked: the error, if there is one, comes last.
    Stream(Box<dyn Write + Send>),
}

impl Download {
    /// Connections where nobody says how many.
    pub const CONNECTIONS: usize = 4;

    /// A download of `name` to `path`, with nothing special about it.
    pub fn to_file(name: FileName, path: impl Into<PathBuf>) -> Self {
        let (to, retries) = (Destination::File(path.into()), Retries::default());
        Self { name, to, decrypt: true, retries, connections: Self::CONNECTIONS }
    }
}

/// A file that was fetched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Downloaded {
    /// Where it is, if it is in a file.
    pub path: Option<PathBuf>,
    /// Its size in bytes.
    pub size: u64,
    /// Its SHA-256.
    pub digest: Digest,
    /// Whether the server stated a SHA-256 to compare it with (one of ours always does).
    pub verified: bool,
    /// How many bytes an earlier run had left.
    pub resumed_from: u64,
}

/// A download failed. What had the name before is still there, untouched.
#[derive(Debug, thiserror::Error)]
pub enum DownloadError {
    /// The exchange with the server failed. What has arrived is kept.
    #[error(transparent)]
    Exchange(#[from] Error),
    /// The bytes cannot be written. What has arrived is kept.
    #[error("cannot write {to}: {source}")]
    Write {
        /// What.
        to: String,
        /// Why.
        source: io::Error,
    },
    /// There is no room for what is missing.
    #[error("cannot write {to}: there is no room for the {missing} bytes that are missing")]
    NoRoom {
        /// What.
        to: String,
        /// How many bytes it is about.
        missing: u64,
        /// What the system said.
        source: io::Error,
    },
    /// Another process is downloading to the same place.
    #[error("{} is in use: another download to this place is running", .0.display())]
    Busy(PathBuf),
    /// Something else stands where the file is to be.
    #[error("{} is there, and is no regular file", .0.display())]
    NotAFile(PathBuf),
    /// The bytes are not those that the server has. They are removed.
    #[error("the download was damaged: SHA-256 {found} instead of {expected}")]
    Mismatch {
        /// What it should be.
        expected: Digest,
        /// What it is.
        found: Digest,
        /// Whether bytes of an earlier run were among them.
        inherited: bool,
    },
    /// The file on the server is another one now, and what has been passed on of the old one cannot be taken back.
    #[error("the file changed on the server while it was being passed on")]
    Changed,
}

impl Retryable for DownloadError {
    fn verdict(&self) -> Verdict {
        match self {
            Self::Exchange(error) => error.verdict(),
            // What an earlier run left may have been damaged since, by a power cut for one. The whole is fetched anew.
            Self::Mismatch { inherited: true, .. } => Verdict::Again { after: None },
            Self::Mismatch { .. }
            | Self::Write { .. }
            | Self::NoRoom { .. }
            | Self::Busy(_)
            | Self::NotAFile(_)
            | Self::Changed => Verdict::Final,
        }
    }
}

/// Locked only by work that blocks, never across an `.await`.
type Shared = Arc<Mutex<Local>>;

impl Client {
    /// Fetches a file, goes on where an earlier attempt or run has stopped, and compares it with its SHA-256 before it gets its
    /// name; tries again what can get better.
    ///
    /// A large file comes in ranges over several connections at once; they are written in their order, so that what is there
    /// is always the beginning of the file. Dropping the future stops it; what has arrived stays in the `.part` file.
    ///
    /// # Errors
    /// [`DownloadError`], of the last attempt.
    pub async fn download(
        &self,
        download: Download,
        observer: &Observer,
    ) -> Result<Downloaded, DownloadError> {
        let mut url = self.server.endpoint(&["download", download.name.as_str()]);
        if !download.decrypt {
            url.query_pairs_mut().append_pair("decrypt", "false");
        }
        let how = How { url, retries: download.retries, connections: download.connections };
        let local = open(download.to, &how.url, observer).await?;
        let mut resumed_from = Some(on(&local, |local| Ok(local.have())).await?);
        let mut backoff = Backoff::new(download.retries);
        loop {
            let before = on(&local, |local| Ok(local.have())).await?;
            let outcome = match self.fetch(&how, &local, observer, &mut resumed_from).await {
                Ok(()) => on(&local, |local| Ok((local.finish()?, local.have()))).await,
                Err(Broke::ForGood(error)) => return Err(error),
                Err(Broke::Once(error)) => Err(error),
            };
            match outcome {
                Ok(((path, digest, verified), size)) => {
                    let resumed_from = resumed_from.unwrap_or_default();
                    return Ok(Downloaded { path, size, digest, verified, resumed_from });
                }
                Err(error) => {
                    if on(&local, |local| Ok(local.have())).await? >= before + STEP {
                        backoff.moved_on();
                    }
                    if matches!(error, DownloadError::Mismatch { .. }) {
                        resumed_from = None;
                    }
                    backoff.pause(error, observer).await?;
                }
            }
        }
    }

    /// One attempt: afterwards all bytes are there, whether they are the right ones or not.
    async fn fetch(
        &self,
        how: &How,
        local: &Shared,
        observer: &Observer,
        resumed_from: &mut Option<u64>,
    ) -> Result<(), Broke> {
        let mut in_ranges = how.connections > 1;
        loop {
            let (have, version) = on(local, |local| {
                // Bytes of an unknown version cannot be added to.
                if local.have() > 0 && local.version().is_none_or(|version| version.etag.is_none()) {
                    local.start(None)?;
                }
                Ok((local.have(), local.version().cloned()))
            })
            .await?;
            let etag = version.as_ref().and_then(|version| version.etag.as_deref());
            let mut request = self.http.get(how.url.clone());
            if let (1.., Some(etag)) = (have, etag) {
                request = request.header(IF_RANGE, etag);
            }
            if in_ranges {
                request = request.header(RANGE, format!("bytes={have}-{}", have + ranges::RANGE - 1));
            } else if have > 0 {
                request = request.header(RANGE, format!("bytes={have}-"));
            }
            let response = self.send(request, self.timeouts.answer).await.map_err(DownloadError::from)?;
            if in_ranges && (response.status() == StatusCode::PARTIAL_CONTENT || is_empty(&response, have)) {
                let Some((range, total)) = headers::piece(response.headers(), have, etag) else {
                    // It cannot be put together of ranges, or it is empty: it is asked for as a whole.
                    in_ranges = false;
                    continue;
                };
                if have == 0 {
                    let version = how.version(&response);
                    on(local, |local| local.start(Some(version))).await?;
                }
                if range.end == total {
                    return Ok(self.receive(response, local, have, observer).await?);
                }
                let tag = headers::strong_tag(response.headers()).or(version.and_then(|known| known.etag));
                let wanted = self.wanted(how, tag.unwrap_or_default(), total, observer);
                match wanted.receive(response, range, local).await {
                    Ok(()) => return Ok(()),
                    // Asked again, the server gives the other file. By one request: whatever made the ranges not fit must not
                    // do so for ever.
                    Err(Missing::Replaced) => {
                        in_ranges = false;
                        continue;
                    }
                    Err(Missing::Failed(error)) => return Err(Broke::ForGood(error)),
                }
            }
            let Some(plan) = headers::plan(response.status(), response.headers(), have, etag) else {
                return Err(DownloadError::from(self.no_file(response).await).into());
            };
            match plan {
                Plan::Complete => return Ok(()),
                Plan::Rest => return Ok(self.receive(response, local, have, observer).await?),
                Plan::Whole | Plan::Anew => {
                    if have > 0 {
                        *resumed_from = None;
                        observer(Event::StartedOver);
                    }
                    let version = (plan == Plan::Whole).then(|| how.version(&response));
                    on(local, |local| local.start(version)).await?;
                    if plan == Plan::Whole {
                        return Ok(self.receive(response, local, 0, observer).await?);
                    }
                }
            }
        }
    }

    fn wanted(&self, how: &How, tag: String, total: u64, observer: &Observer) -> Arc<Wanted> {
        Arc::new(Wanted {
            client: self.clone(),
            url: how.url.clone(),
            tag,
            total,
            retries: how.retries,
            connections: how.connections,
            observer: Arc::clone(observer),
        })
    }

    /// Writes a body to where `have` bytes are already.
    async fn receive(
        &self,
        mut response: Response,
        local: &Shared,
        have: u64,
        observer: &Observer,
    ) -> Result<(), DownloadError> {
        let total = headers::total(response.status(), response.headers());
        on(local, move |local| local.reserve(total)).await?;
        observer(Event::Started { phase: Phase::Receiving, done: have, total });
        let (sender, mut pieces) = mpsc::channel(AHEAD);
        let watched = Arc::clone(observer);
        let writer = on(local, move |local| local.take(&mut pieces, &watched).map(|()| local.have()));
        let reader = async move {
            let mut arrived = have;
            while let Some(piece) = self.next_piece(&mut response).await? {
                arrived += piece.len() as u64;
                if sender.send(piece).await.is_err() {
                    // The writer has stopped, and says why.
                    break;
                }
            }
            Ok::<u64, Error>(arrived)
        };
        let (written, arrived) = tokio::join!(writer, reader);
        let written = written?;
        arrived?;
        match total {
            Some(total) if written != total => {
                let detail = format!("{written} of {total} bytes have arrived");
                Err(Error::Broken { server: self.server.clone(), detail }.into())
            }
            _ => Ok(()),
        }
    }

    /// The error for an answer that brings no file.
    async fn no_file(&self, response: Response) -> Error {
        let status = response.status();
        if status.is_success() {
            let detail = format!("{status} to a request for a whole file");
            return Error::Unexpected { server: self.server.clone(), detail };
        }
        self.refused(response).await
    }
}

/// How a file is asked for.
struct How {
    url: Url,
    retries: Retries,
    connections: usize,
}

impl How {
    /// The version that an answer brings.
    fn version(&self, response: &Response) -> Version {
        let headers = response.headers();
        Version {
            format: Version::FORMAT,
            url: shown(&self.url),
            etag: headers::strong_tag(headers),
            total: headers::total(response.status(), headers),
            sha256: headers::sha256(headers),
        }
    }
}

/// Why an attempt has ended.
enum Broke {
    /// Another one may go better.
    Once(DownloadError),
    /// Each of its connections has been tried again for itself.
    ForGood(DownloadError),
}

impl From<DownloadError> for Broke {
    fn from(error: DownloadError) -> Self {
        Self::Once(error)
    }
}

/// Whether an answer says that no byte of a file is there: an empty one has no ranges.
fn is_empty(response: &Response, have: u64) -> bool {
    response.status() == StatusCode::RANGE_NOT_SATISFIABLE && have == 0
}

async fn open(to: Destination, url: &Url, observer: &Observer) -> Result<Shared, DownloadError> {
    let stop = CancellationToken::new();
    let _stop_if_dropped = stop.clone().drop_guard();
    let (url, observer) = (shown(url), Arc::clone(observer));
    let opened = tokio::task::spawn_blocking(move || Local::open(to, &url, &stop, &observer));
    opened.await.map_err(broken_off)?.map(|local| Arc::new(Mutex::new(local)))
}

/// Does something with this end of a download on a thread that may block.
async fn on<T: Send + 'static>(
    local: &Shared,
    work: impl FnOnce(&mut Local) -> Result<T, DownloadError> + Send + 'static,
) -> Result<T, DownloadError> {
    let local = Arc::clone(local);
    let work = move || work(&mut local.lock().unwrap_or_else(PoisonError::into_inner));
    tokio::task::spawn_blocking(work).await.map_err(broken_off)?
}

fn broken_off(error: tokio::task::JoinError) -> DownloadError {
    DownloadError::Write { to: "the output".to_owned(), source: io::Error::other(error) }
}

/// A URL without user name and password: it is kept on disk.
fn shown(url: &Url) -> String {
    let mut url = url.clone();
    // Both can only fail for URLs without a host.
    let _ = url.set_username("");
    let _ = url.set_password(None);
    url.into()
}
