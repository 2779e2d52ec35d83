//! The answers of the server that the client reads. Members that are missing or new are no errors: the server may be older
//! or newer than the client.

use std::collections::HashMap;

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

/// The answer to a chunk.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct ChunkTaken {
    /// `uploading` or `completed`; then the answer has all members of [`Uploaded`] too.
    pub status: String,
    /// The upload that the chunk is a part of, where the server says.
    pub upload_id: Option<String>,
}

/// The answer of `/resume_info/{filename}`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
pub struct ResumeInfo {
    /// The numbers of the chunks that are there, from 0.
    #[serde(default)]
    pub received_chunks: Vec<u64>,
    /// Whether there is an upload that can be gone on with.
    #[serde(default)]
    pub can_resume: bool,
    /// Which upload that is.
    pub upload_id: Option<String>,
    /// How many chunks it has.
    pub total_chunks: Option<u64>,
    /// Bytes of each of them but the last.
    pub chunk_size: Option<u64>,
    /// SHA-256 of chunks that are there.
    #[serde(default, deserialize_with = "digests")]
    pub chunk_hashes: HashMap<u64, Digest>,
}

/// The answer of `/ping`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Pong {
    /// The server's clock, in seconds since 1970.
    pub server_timestamp: Option<f64>,
    /// Milliseconds.
    pub latency_ms: Option<f64>,
    /// `excellent`, `good`, `poor`, `unstable` or `unknown`.
    pub network_quality: String,
    /// Bytes.
    pub recommended_chunk_size: u64,
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

/// An object from numbers to digests. What can't be read is left out: a digest that is not known is not compared.
fn digests<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<HashMap<u64, Digest>, D::Error> {
    let Value::Object(members) = Value::deserialize(deserializer)? else { return Ok(HashMap::new()) };
    let member =
        |(number, hash): (&String, &Value)| Some((number.parse().ok()?, hash.as_str()?.parse().ok()?));
    Ok(members.iter().filter_map(member).collect())
}

/// Seconds, with or without a fraction.
fn whole_seconds<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<u64>, D::Error> {
    Ok(Option::<f64>::deserialize(deserializer)?.map(|seconds| seconds.max(0.0) as u64))
}
