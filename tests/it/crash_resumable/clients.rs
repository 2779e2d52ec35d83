//! Clients that go on with uploads until the server is gone, and remember what they were told.

use std::net::SocketAddr;

use base64::Engine as _;
use bytes::Bytes;
use futures_util::future::join_all;
use futures_util::stream;
use reqwest::{Body, RequestBuilder};
use serde_json::Value;
use sha2::Digest as _;

use super::upload::{Chunks, InOrder, Outcome, Upload, Way};
use crate::support::random::Random;
use crate::support::{http_client, sha256};

/// The server is gone.
#[derive(Debug)]
pub struct Gone;

/// What a client was told, in sum.
#[derive(Debug, Default)]
pub struct Told {
    pub chunks: usize,
    pub offsets: usize,
    pub completed: usize,
}

impl Told {
    pub fn add(&mut self, other: &Self) {
        self.chunks += other.chunks;
        self.offsets += other.offsets;
        self.completed += other.completed;
    }
}

/// A client.
pub struct Sender {
    http: reqwest::Client,
    address: SocketAddr,
    random: Random,
    pub told: Told,
}

/// An answer.
pub struct Reply {
    pub status: u16,
    headers: http::HeaderMap,
    pub body: Vec<u8>,
}

impl Reply {
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().expect("ASCII"))
    }

    pub fn offset(&self) -> usize {
        self.header("upload-offset").parse().expect("an offset")
    }

    /// `Null` where the server was gone before its body had come.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or(Value::Null)
    }

    #[track_caller]
    pub fn expect(self, statuses: &[u16]) -> Self {
        let text = String::from_utf8_lossy(&self.body);
        assert!(statuses.contains(&self.status), "{}, not {statuses:?}: {text}", self.status);
        self
    }
}

const TUS: (&str, &str) = ("Tus-Resumable", "1.0.0");
const DRAFT: (&str, &str) = ("Upload-Draft-Interop-Version", "8");

impl Sender {
    pub fn new(address: SocketAddr, random: Random) -> Self {
        Self { http: http_client(), address, random, told: Told::default() }
    }

    fn request(&self, method: &str, path: &str) -> RequestBuilder {
        let url = format!("http://{}{path}", self.address);
        self.http.request(method.parse().expect("a method"), url)
    }

    pub async fn get(&self, path: &str) -> Result<Reply, Gone> {
        send(self.request("GET", path)).await
    }

    pub async fn head(&self, path: &str) -> Result<Reply, Gone> {
        send(self.request("HEAD", path).header(TUS.0, TUS.1)).await
    }

    /// Goes on with an upload, by so many requests at most.
    pub async fn go_on(&mut self, upload: &mut Upload, steps: usize) -> Result<(), Gone> {
        let mut way = std::mem::replace(&mut upload.way, Way::Joined(Vec::new()));
        let mut result = Ok(());
        for _ in 0..steps {
            if result.is_err() || upload.is_complete() {
                break;
            }
            result = match &mut way {
                Way::Chunks(chunks) => self.chunks(upload, chunks).await,
                Way::Tus { part, deferred } => self.tus(upload, part, *deferred).await,
                Way::Joined(parts) => self.join(upload, parts).await,
                Way::Draft(part) => self.draft(upload, part).await,
                Way::Put { part, began } => self.put(upload, part, began).await,
            };
        }
        self.told.completed += usize::from(upload.is_complete());
        upload.way = way;
        result
    }

    /// What is sent next: a piece, sometimes all.
    fn draw_end(&mut self, part: &InOrder) -> usize {
        let left = part.length() - part.told;
        match self.random.within(0..10) {
            0..2 => part.length(),
            2..4 => part.told + left.min(1),
            _ => part.told + self.random.within(0..(left as u64).min(300_000) + 1) as usize,
        }
    }

    async fn tus(&mut self, upload: &mut Upload, part: &mut InOrder, deferred: bool) -> Result<(), Gone> {
        let is_part = part.key != upload.client;
        let end = self.draw_end(part);
        let mut bytes = upload.bytes.slice(part.range.start + part.told..part.range.start + end);
        let mut request = match &part.path {
            Some(path) => self.request("PATCH", path).header(TUS.0, TUS.1).header("Upload-Offset", part.told),
            None => self.creation(upload, &part.key),
        };
        let creates = part.path.is_none();
        match (creates, deferred) {
            (true, true) => request = request.header("Upload-Defer-Length", "1"),
            (true, false) => request = request.header("Upload-Length", part.length()),
            (false, true) if end == part.length() => request = request.header("Upload-Length", part.length()),
            (false, _) => {}
        }
        if creates && is_part {
            request = request.header("Upload-Concat", "partial");
        }
        // Of an empty file the length is all that there is to tell.
        let with_bytes = !creates || self.random.percent(50) && part.length() > 0;
        let mut wrong = false;
        if with_bytes {
            request = request.header("Content-Type", "application/offset+octet-stream");
            if self.random.percent(30) {
                // Where nothing is left to come, the length alone completes it.
                wrong = !bytes.is_empty() && self.random.percent(20);
                let of: &[u8] = if wrong { b"something else" } else { &bytes };
                request = request.header("Upload-Checksum", format!("sha256 {}", digest(of)));
            }
        } else {
            bytes = Bytes::new();
        }
        let reached = if with_bytes { end } else { 0 };
        let completes = reached == part.length() && !is_part && (!creates || !deferred) && !wrong;
        if completes {
            upload.outcome = Outcome::Unknown;
        }
        let reply = send(request.body(bytes)).await?;
        if wrong && reply.status == 460 {
            if creates {
                part.path = Some(reply.header("location").to_owned());
            }
            return Ok(());
        }
        let reply = reply.expect(if creates { &[201] } else { &[204] });
        if creates {
            part.path = Some(reply.header("location").to_owned());
        }
        // One that was found by its key may be further.
        part.is_told(reply.offset());
        self.told.offsets += 1;
        if part.is_whole() && !is_part && (completes || !deferred) {
            upload.outcome = Outcome::Complete;
        }
        Ok(())
    }

    /// Begins an upload, or finds it by its key.
    pub async fn find(&self, upload: &Upload, part: &InOrder, deferred: bool) -> Result<Reply, Gone> {
        let request = self.creation(upload, &part.key);
        let request = match deferred {
            true => request.header("Upload-Defer-Length", "1"),
            false => request.header("Upload-Length", part.length()),
        };
        Ok(send(request).await?.expect(&[201]))
    }

    pub async fn delete(&self, path: &str) -> Result<Reply, Gone> {
        send(self.request("DELETE", path).header(TUS.0, TUS.1)).await
    }

    fn creation(&self, upload: &Upload, key: &str) -> RequestBuilder {
        let encode = |text: &str| base64::engine::general_purpose::STANDARD.encode(text);
        let sealed = upload.sealed.to_string();
        let metadata = format!("filename {},encryption {}", encode(&upload.name), encode(&sealed));
        self.request("POST", "/uploads/")
            .header(TUS.0, TUS.1)
            .header("X-Client-ID", &upload.client)
            .header("Idempotency-Key", key)
            .header("Upload-Metadata", metadata)
    }

    async fn join(&mut self, upload: &mut Upload, parts: &mut [InOrder]) -> Result<(), Gone> {
        if let Some(part) = parts.iter_mut().find(|part| !part.is_whole()) {
            return self.tus(upload, part, false).await;
        }
        let paths: Vec<_> = parts.iter().filter_map(|part| part.path.as_deref()).collect();
        let request = self.creation(upload, &upload.client);
        let request = request.header("Upload-Concat", format!("final;{}", paths.join(" ")));
        upload.outcome = Outcome::Unknown;
        send(request).await?.expect(&[201]);
        upload.outcome = Outcome::Complete;
        Ok(())
    }

    async fn draft(&mut self, upload: &mut Upload, part: &mut InOrder) -> Result<(), Gone> {
        let end = self.draw_end(part);
        let bytes = upload.bytes.slice(part.told..end);
        // That all is there, and that this was all, are two things.
        let completes = end == part.length() && self.random.percent(80);
        let request = match &part.path {
            Some(path) => self
                .request("PATCH", path)
                .header("Upload-Offset", part.told)
                .header("Content-Type", "application/partial-upload"),
            None => {
                let query = format!("filename={}&encryption={}", upload.name, upload.sealed);
                self.request("POST", &format!("/uploads/?{query}"))
                    .header("X-Client-ID", &upload.client)
                    .header("Idempotency-Key", &part.key)
            }
        };
        if completes {
            upload.outcome = Outcome::Unknown;
        }
        let request = request.header(DRAFT.0, DRAFT.1);
        let request = request.header("Upload-Complete", if completes { "?1" } else { "?0" });
        let creates = part.path.is_none();
        // One that is found by its key, and has bytes already, goes on from there.
        let statuses: &[u16] = if creates { &[200, 201, 409] } else { &[200, 201, 204] };
        let reply = send(request.body(bytes)).await?.expect(statuses);
        if creates {
            part.path = Some(reply.header("location").to_owned());
        }
        part.is_told(reply.offset());
        self.told.offsets += 1;
        if reply.header("upload-complete") == "?1" {
            assert!(completes || creates);
            upload.outcome = Outcome::Complete;
        }
        Ok(())
    }

    async fn put(&mut self, upload: &mut Upload, part: &mut InOrder, began: &mut bool) -> Result<(), Gone> {
        let path = format!("/files/{}?encryption={}", upload.name, upload.sealed);
        let put = self.request("PUT", &path).header("X-Client-ID", &upload.client);
        if !*began {
            *began = true;
            let sent = self.random.within(1 << 20..upload.bytes.len() as u64) as usize;
            let pieces = [Ok(upload.bytes.slice(..sent)), Err(std::io::Error::other("hung up"))];
            let put = put.header("Content-Length", upload.bytes.len());
            let broken = put.body(Body::wrap_stream(stream::iter(pieces))).send().await;
            assert!(broken.is_err(), "half a file was taken");
            // Who did not wait would have two uploads. Where too little had arrived, it has failed.
            loop {
                let info = self.resume_info(upload).await?;
                if info["can_resume"] == true {
                    part.is_told(info["received_bytes"].as_u64().expect("a number") as usize);
                    self.told.offsets += 1;
                    return Ok(());
                }
                let status = self.get(&format!("/status/{}", upload.name)).await?.json();
                if status["client_id"] == upload.client && status["status"] == "failed" {
                    return Ok(());
                }
            }
        }
        let end = self.draw_end(part).max(part.told + 1);
        // What is the whole begins anew.
        let end = if part.told == 0 { end.min(part.length() - 1) } else { end };
        let completes = end == part.length();
        if completes {
            upload.outcome = Outcome::Unknown;
        }
        let range = format!("bytes {}-{}/{}", part.told, end - 1, part.length());
        let put = put.header("Content-Range", range).body(upload.bytes.slice(part.told..end));
        let reply = send(put).await?.expect(&[200, 201, 202, 409]);
        let answer = reply.json();
        match reply.status {
            // It was kept later than it was asked for.
            409 => part.is_told(answer["expected_offset"].as_u64().expect("a number") as usize),
            202 => {
                if let Some(received) = answer["received_bytes"].as_u64() {
                    assert_eq!(received, end as u64);
                }
                part.is_told(end);
                self.told.offsets += 1;
            }
            _ => upload.outcome = Outcome::Complete,
        }
        Ok(())
    }

    pub async fn resume_info(&self, upload: &Upload) -> Result<Value, Gone> {
        let path = format!("/resume_info/{}?client_id={}", upload.name, upload.client);
        Ok(self.get(&path).await?.expect(&[200]).json())
    }

    async fn chunks(&mut self, upload: &mut Upload, chunks: &mut Chunks) -> Result<(), Gone> {
        let mut missing: Vec<_> = (0..chunks.total).filter(|n| !chunks.acknowledged.contains(n)).collect();
        let mut next = Vec::new();
        for _ in 0..self.random.within(1..5) {
            if !missing.is_empty() {
                next.push(missing.swap_remove(self.random.within(0..missing.len() as u64) as usize));
            }
        }
        // Nothing tells an old client's repetition, that comes behind the last one, from another file.
        if let Some(again) = chunks.acknowledged.first()
            && (chunks.described || !missing.is_empty())
            && self.random.percent(30)
        {
            next.push(*again);
        }
        let wrong = self.random.percent(5).then(|| next[0]);
        if missing.is_empty() {
            upload.outcome = Outcome::Unknown;
        }
        let requests = next.iter().map(|number| {
            let id = chunks.id.as_deref().filter(|_| chunks.described);
            send(self.chunk(upload, chunks, *number, id, wrong == Some(*number)))
        });
        let mut gone = Ok(());
        for (number, reply) in next.clone().into_iter().zip(join_all(requests.collect::<Vec<_>>()).await) {
            let reply = match reply {
                Ok(reply) if wrong == Some(number) => {
                    let code = reply.expect(&[400, 409]).json()["code"].clone();
                    assert!(["chunk_hash_mismatch", "chunk_conflict"].contains(&code.as_str().unwrap_or("")));
                    continue;
                }
                Ok(reply) => reply.expect(&[200]).json(),
                Err(Gone) => {
                    gone = Err(Gone);
                    continue;
                }
            };
            chunks.acknowledged.insert(number);
            self.told.chunks += 1;
            chunks.id = reply["upload_id"].as_str().map(str::to_owned).or(chunks.id.take());
            if reply["status"] == "completed" {
                assert_eq!(reply["hash"], upload.sha256, "{reply}");
                upload.outcome = Outcome::Complete;
            }
        }
        if gone.is_ok() && chunks.acknowledged.len() == chunks.total && !upload.is_complete() {
            panic!("all chunks were taken, and nobody was told that it is complete: {upload:?}, {chunks:?}");
        }
        gone
    }

    /// The request that brings a chunk.
    pub fn chunk(
        &self,
        upload: &Upload,
        chunks: &Chunks,
        number: usize,
        id: Option<&str>,
        wrong: bool,
    ) -> RequestBuilder {
        let bytes = upload.bytes.slice(chunks.range(number, upload.bytes.len()));
        let hash = if wrong { sha256(b"something else") } else { sha256(&bytes) };
        let mut fields = vec![
            ("filename", upload.name.clone()),
            ("chunk_number", number.to_string()),
            ("total_chunks", chunks.total.to_string()),
            ("chunk_hash", hash),
            ("encryption", upload.sealed.to_string()),
            ("client_id", upload.client.clone()),
        ];
        if chunks.described {
            fields.push(("file_hash", upload.sha256.clone()));
            fields.push(("file_size", upload.bytes.len().to_string()));
        }
        fields.extend(id.map(|id| ("upload_id", id.to_owned())));
        if chunks.sized {
            fields.push(("chunk_size", chunks.size.to_string()));
        }
        let form =
            fields.iter().fold(crate::support::Form::new(), |form, (name, value)| form.field(name, value));
        let form = form.part("Content-Disposition: form-data; name=\"chunk\"; filename=\"chunk\"", &bytes);
        let content_type = form.content_type();
        self.request("POST", "/upload_chunk").header("Content-Type", content_type).body(form.finish())
    }
}

/// Sends a request.
pub async fn send(request: RequestBuilder) -> Result<Reply, Gone> {
    // The head of an answer has come: what it says was said, whether or not its body comes too.
    let answer = request.send().await.map_err(|_| Gone)?;
    let (status, headers) = (answer.status().as_u16(), answer.headers().clone());
    let body = answer.bytes().await.unwrap_or_default().to_vec();
    Ok(Reply { status, headers, body })
}

fn digest(bytes: &[u8]) -> String {
    base64::engine::general_purpose::STANDARD.encode(sha2::Sha256::digest(bytes))
}
