//! A server that takes chunks, as the contract has it, in memory; it fails when a test says so.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};

use axum::response::Response;
use bytes::Bytes;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::client::stub::{Seen, Stub, answer};
use crate::domain::Digest;

pub(super) fn hex(content: &[u8]) -> String {
    Digest::new(Sha256::digest(content).into()).to_string()
}

/// A chunk as it came.
#[derive(Debug, Clone, Default)]
pub(super) struct Chunk {
    /// The fields in their order, the file part included.
    pub(super) fields: Vec<(String, String)>,
    pub(super) bytes: Bytes,
}

impl Chunk {
    /// Reads a form that is well-formed, unless it was broken off.
    fn read(seen: &Seen) -> Option<Self> {
        let boundary = seen.header("content-type").unwrap().split_once("boundary=").unwrap().1;
        let delimiter = format!("--{boundary}");
        let ends: Vec<usize> = memchr::memmem::find_iter(&seen.body, delimiter.as_bytes()).collect();
        if !seen.body.ends_with(format!("{delimiter}--\r\n").as_bytes()) {
            return None;
        }
        let mut chunk = Self::default();
        for pair in ends.windows(2) {
            let part = seen.body.slice(pair[0] + delimiter.len() + 2..pair[1] - 2);
            let head = memchr::memmem::find(&part, b"\r\n\r\n").unwrap();
            let (header, content) = (std::str::from_utf8(&part[..head]).unwrap(), part.slice(head + 4..));
            let name = header.split_once(" name=\"").unwrap().1.split('"').next().unwrap().to_owned();
            if name == "chunk" {
                chunk.bytes = content;
                chunk.fields.push((name, String::new()));
            } else {
                chunk.fields.push((name, String::from_utf8(content.to_vec()).unwrap()));
            }
        }
        Some(chunk)
    }

    pub(super) fn field(&self, name: &str) -> Option<&str> {
        self.fields.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    pub(super) fn number(&self, name: &str) -> u64 {
        self.field(name).unwrap().parse().unwrap()
    }
}

/// An upload that is not complete.
#[derive(Debug, Clone, Default)]
pub(super) struct Unfinished {
    pub(super) id: u64,
    pub(super) file_hash: String,
    pub(super) chunk_size: u64,
    pub(super) total: u64,
    pub(super) chunks: BTreeMap<u64, Bytes>,
}

#[derive(Default)]
pub(super) struct Store {
    pub(super) upload: Option<Unfinished>,
    pub(super) stored: Option<Vec<u8>>,
    /// Chunks that came, the refused ones included.
    pub(super) came: Vec<Chunk>,
    uploads: u64,
}

/// What a test does to a chunk, with its count from 0: an answer before it is looked at, or none.
type Script = dyn Fn(usize, &Chunk, &mut Store) -> Option<Response> + Send + Sync;

pub(super) struct Server {
    pub(super) stub: Stub,
    store: Arc<Mutex<Store>>,
}

impl Server {
    pub(super) async fn start() -> Self {
        Self::failing(|_, _, _| None).await
    }

    /// Fails as the script says.
    pub(super) async fn failing(
        script: impl Fn(usize, &Chunk, &mut Store) -> Option<Response> + Send + Sync + 'static,
    ) -> Self {
        let store = Arc::new(Mutex::new(Store::default()));
        let shared = Arc::clone(&store);
        let stub = Stub::answering(move |_, seen| shared.lock().unwrap().answer(seen, &script)).await;
        Self { stub, store }
    }

    pub(super) fn store(&self) -> MutexGuard<'_, Store> {
        self.store.lock().unwrap()
    }

    /// The numbers of the chunks that came.
    pub(super) fn numbers(&self) -> Vec<u64> {
        self.store().came.iter().map(|chunk| chunk.number("chunk_number")).collect()
    }
}

impl Store {
    fn answer(&mut self, seen: &Seen, script: &Script) -> Response {
        let path = seen.uri.path();
        match path.split('/').nth(1).unwrap() {
            "ping" => {
                json_answer(&json!({"network_quality": "excellent", "recommended_chunk_size": 1 << 20}))
            }
            "resume_info" => json_answer(&self.resume_info()),
            "upload_chunk" => {
                let Some(chunk) = Chunk::read(seen) else { return refuse(400, "incomplete_body") };
                self.came.push(chunk.clone());
                let count = self.came.len() - 1;
                script(count, &chunk, self).unwrap_or_else(|| self.take(&chunk))
            }
            "status" => match &self.stored {
                None => refuse(404, "not_found"),
                Some(bytes) => json_answer(&json!({"filename": "a", "status": "completed",
                    "checksum": hex(bytes), "total_bytes": bytes.len()})),
            },
            "files" => {
                self.stored = Some(seen.body.to_vec());
                json_answer(&self.completed("a"))
            }
            _ => refuse(404, "unknown_path"),
        }
    }

    fn resume_info(&self) -> Value {
        let Some(upload) = &self.upload else { return json!({"received_chunks": [], "can_resume": false}) };
        let hashes: BTreeMap<String, String> =
            upload.chunks.iter().map(|(number, bytes)| (number.to_string(), hex(bytes))).collect();
        json!({"received_chunks": upload.chunks.keys().collect::<Vec<_>>(), "can_resume": true,
            "upload_id": upload.id.to_string(), "total_chunks": upload.total,
            "chunk_size": upload.chunk_size, "chunk_hashes": hashes})
    }

    pub(super) fn take(&mut self, chunk: &Chunk) -> Response {
        if hex(&chunk.bytes) != chunk.field("chunk_hash").unwrap() {
            return refuse(400, "chunk_hash_mismatch");
        }
        let (file_hash, chunk_size) = (chunk.field("file_hash").unwrap(), chunk.number("chunk_size"));
        let same =
            |upload: &&mut Unfinished| upload.file_hash == file_hash && upload.chunk_size == chunk_size;
        if self.upload.as_mut().filter(same).is_none() {
            self.uploads += 1;
            self.upload = Some(Unfinished {
                id: self.uploads,
                file_hash: file_hash.to_owned(),
                chunk_size,
                total: chunk.number("total_chunks"),
                chunks: BTreeMap::new(),
            });
        }
        let upload = self.upload.as_mut().unwrap();
        upload.chunks.insert(chunk.number("chunk_number"), chunk.bytes.clone());
        let received = upload.chunks.len() as u64;
        if received < upload.total {
            return json_answer(&json!({"success": true, "chunks_received": received, "status": "uploading",
                "upload_id": upload.id.to_string()}));
        }
        let bytes = upload.chunks.values().flatten().copied().collect::<Vec<u8>>();
        let whole = hex(&bytes) == file_hash;
        self.upload = None;
        if !whole {
            return refuse(422, "checksum_mismatch");
        }
        self.stored = Some(bytes);
        let mut done = self.completed(chunk.field("filename").unwrap());
        done["chunks_received"] = received.into();
        json_answer(&done)
    }

    fn completed(&self, name: &str) -> Value {
        let bytes = self.stored.as_deref().unwrap_or_default();
        json!({"success": true, "filename": name, "hash": hex(bytes), "status": "completed",
            "encryption": false, "size": bytes.len(), "priority": 0})
    }
}

pub(super) fn json_answer(body: &Value) -> Response {
    answer(200, &[("content-type", "application/json")], body.to_string())
}

pub(super) fn refuse(status: u16, code: &str) -> Response {
    answer(status, &[], json!({"success": false, "error": code, "code": code}).to_string())
}
