//! The answers of the server that the client reads. Members that are missing or new are no errors: the server may be older
//! or newer than the client.

use serde::Deserialize;
use serde_json::Value;

use crate::domain::{Digest, FileName, Timestamp};

/// An answer, and the JSON that it was read from.
#[derive(Debug, Clone)]
pub struct Answer<T> {
    /// What the client understands of it.
    pub value: T,
    /// The whole, as it came.
    pub json: Value,
}

/// The answer to an upload.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Uploaded {
    /// The name under which the file can be asked for.
    pub filename: FileName,
    /// SHA-256 of its content.
    pub hash: Digest,
    /// Its size in bytes.
    pub size: u64,
    /// Whether it is sealed at rest.
    #[serde(default)]
    pub encryption: bool,
}

/// The answer of `/health`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Health {
    /// `ok`.
    pub status: String,
    /// The server's clock.
    pub timestamp: Option<Timestamp>,
    /// The server's version.
    pub version: Option<String>,
    /// Whole seconds since it started.
    #[serde(default, deserialize_with = "whole_seconds")]
    pub uptime_seconds: Option<u64>,
}

/// The answer of `/status`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct StatusPage {
    /// Transfers, as far as this page goes.
    pub transfers: Vec<TransferStatus>,
    /// What waits, the most urgent first.
    #[serde(default)]
    pub queue: Vec<Queued>,
    /// About all transfers.
    #[serde(default)]
    pub metadata: PageMetadata,
}

/// What `/status` says about all transfers.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
pub struct PageMetadata {
    /// How many there are, on this page or not.
    pub total_transfers: Option<u64>,
}

/// A transfer that waits.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Queued {
    /// The name of the file.
    pub filename: String,
    /// 0 to 10.
    #[serde(default)]
    pub priority: u8,
}

/// One transfer, as `/status` and `/status/{filename}` have it. Text stays text: it is only shown.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct TransferStatus {
    /// The name of the file.
    pub filename: String,
    /// `pending`, `uploading`, `downloading`, `processing`, `completed`, `failed` or `cancelled`.
    pub status: String,
    /// `upload` or `download`.
    pub direction: Option<String>,
    /// SHA-256 of the content, once known.
    pub checksum: Option<String>,
    /// Whether the file is sealed at rest.
    #[serde(default)]
    pub encryption: bool,
    /// 0 to 10.
    #[serde(default)]
    pub priority: u8,
    /// Percent.
    #[serde(default)]
    pub progress: f64,
    /// Bytes a second.
    #[serde(default)]
    pub speed: Option<f64>,
    /// Seconds to go.
    pub eta: Option<f64>,
    /// Bytes that are through.
    #[serde(default)]
    pub transferred_bytes: u64,
    /// Bytes in all, once known.
    pub total_bytes: Option<u64>,
    /// Who.
    pub client_ip: Option<String>,
    /// Who, as the client calls itself.
    pub client_id: Option<String>,
    /// How often it was tried again.
    #[serde(default)]
    pub retry_count: u32,
    /// When it began.
    pub created_at: Option<String>,
    /// When it last changed.
    pub updated_at: Option<String>,
    /// Why it failed.
    pub error: Option<String>,
}

/// Seconds, with or without a fraction.
fn whole_seconds<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<u64>, D::Error> {
    Ok(Option::<f64>::deserialize(deserializer)?.map(|seconds| seconds.max(0.0) as u64))
}
