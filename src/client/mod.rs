//! The client: speaks the public contract to a server, and is what the command line and the end-to-end tests use.
//!
//! A [`Client`] knows one server. Its methods return typed answers and small errors, and print nothing: how far a
//! transfer is, and that it is tried again, is told to an [`Observer`]. Dropping the future of any method ends what it
//! does; a small upload then leaves nothing on the server, a large one its chunks and a download its `.part` file, from which the
//! next one goes on.
//!
//! ```no_run
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use smart_file_transfer::client::{Client, Download, Retries, ServerUrl, Upload, unobserved};
//!
//! let client = Client::new(ServerUrl::parse("127.0.0.1", None)?, None)?;
//! let sent = client.upload(&Upload::new("report.pdf", "report.pdf".parse()?), &unobserved()).await?;
//! println!("{} has SHA-256 {}", sent.value.filename, sent.value.hash);
//! client.download(Download::to_file("report.pdf".parse()?, "copy.pdf"), &unobserved()).await?;
//! # Ok(()) }
//! ```

mod answers;
mod api;
mod body;
mod chunked;
mod disk;
mod download;
mod error;
mod hash;
mod ping;
mod progress;
mod retry;
mod server_url;
#[cfg(test)]
mod stub;
#[cfg(test)]
mod tests;
mod upload;
mod watch;

pub use answers::{
    Answer, ChunkTaken, Health, PageMetadata, Pong, Queued, ResumeInfo, StatusPage, TransferStatus, Uploaded,
};
pub use api::{Client, Timeouts};
pub use download::{Destination, Download, DownloadError, Downloaded};
pub use error::{Error, Refusal, Unreachable};
pub use progress::{Event, Observer, Phase, unobserved};
pub use retry::{Retries, Verdict, parse_retry_after};
pub use server_url::{InvalidServer, ServerUrl};
pub use upload::{Chunked, Chunking, Upload, UploadError};
pub use watch::{Next, Told, Watch};
