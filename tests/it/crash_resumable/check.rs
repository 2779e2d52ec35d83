//! What must be there after a start, by what clients were told.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use serde_json::Value;

use super::clients::{Gone, Sender, send};
use super::upload::{Chunks, InOrder, Outcome, Upload, Way};
use crate::support::sha256;

/// A name, what stands under it, and what is on its way to it.
#[derive(Debug)]
pub struct Slot {
    pub name: String,
    /// What was acknowledged last: its SHA-256.
    pub standing: Option<String>,
    pub upload: Option<Upload>,
}

/// Compares everything with what the server shows.
pub async fn check(directory: &Path, sender: &Sender, slots: &mut [Slot], thoroughly: bool) {
    for upload in slots.iter_mut().filter_map(|slot| slot.upload.as_mut()) {
        settle(sender, upload).await.expect("the server is there");
    }
    let listed = listing(sender).await;
    assert_eq!(names_on_disk(&directory.join("storage")), listed.keys().cloned().collect::<Vec<_>>());
    for name in listed.keys() {
        assert!(slots.iter().any(|slot| slot.name == *name), "{name} was never sent");
    }
    for slot in slots {
        let stands = listed.get(&slot.name);
        if let Some(upload) = &mut slot.upload {
            let is_there = stands == Some(&upload.sha256);
            match upload.outcome {
                Outcome::Complete => assert!(is_there, "LOST: {upload:?}, {stands:?} stands there"),
                // The draft's: a length that was told once and is reached completes it at a start, as tus's does.
                Outcome::Open if is_there && matches!(&upload.way, Way::Draft(part) if part.is_whole()) => {
                    upload.outcome = Outcome::Complete;
                }
                Outcome::Unknown if is_there => upload.outcome = Outcome::Complete,
                Outcome::Open if is_there => {
                    panic!("not all of it was sent, and it stands there: {upload:?}")
                }
                Outcome::Unknown | Outcome::Open => {
                    upload.outcome = Outcome::Open;
                    assert_eq!(stands, slot.standing.as_ref(), "before {upload:?} is complete");
                }
            }
            let goes_on = what_was_told_is_there(sender, upload).await;
            goes_on.expect("the server is there");
        } else {
            assert_eq!(stands, slot.standing.as_ref(), "LOST: {}", slot.name);
        }
        let complete = slot.upload.take_if(|upload| upload.is_complete());
        if let Some(upload) = &complete {
            slot.standing = Some(upload.sha256.clone());
            is_known_as_complete(sender, upload).await;
        }
        if let Some(sha256) = slot.standing.as_deref().filter(|_| thoroughly || complete.is_some()) {
            holds(sender, &slot.name, sha256).await.expect("the server is there");
        }
    }
}

/// Asks how far an upload is: when this returns, it is published if it ever will be without another request.
async fn settle(sender: &Sender, upload: &mut Upload) -> Result<(), Gone> {
    let mut way = std::mem::replace(&mut upload.way, Way::Joined(Vec::new()));
    match &mut way {
        Way::Chunks(chunks) => settle_chunks(sender, upload, chunks).await?,
        Way::Tus { part, deferred } => settle_in_order(sender, upload, part, *deferred).await?,
        Way::Draft(part) => settle_in_order(sender, upload, part, true).await?,
        Way::Joined(parts) => {
            for part in parts.iter_mut().filter(|_| upload.outcome == Outcome::Open) {
                settle_in_order(sender, upload, part, false).await?;
            }
        }
        Way::Put { part, .. } => {
            let info = sender.resume_info(upload).await?;
            if info["can_resume"] == true {
                let received = info["received_bytes"].as_u64().expect("a number") as usize;
                assert!(received >= part.told, "LOST: {info} of {upload:?}, {part:?}");
                part.is_told(received);
            } else {
                assert!(part.told == 0 || upload.outcome != Outcome::Open, "LOST: {upload:?}, {part:?}");
            }
        }
    }
    upload.way = way;
    Ok(())
}

async fn settle_in_order(
    sender: &Sender,
    upload: &Upload,
    part: &mut InOrder,
    deferred: bool,
) -> Result<(), Gone> {
    let Some(path) = &part.path else {
        if upload.outcome != Outcome::Open {
            let found = sender.find(upload, part, deferred).await?;
            part.is_told(found.offset());
            // The draft's tells where the file is.
            part.path = Some(found.header("location").to_owned());
        }
        return Ok(());
    };
    if path.starts_with("/uploads/") {
        part.is_told(sender.head(path).await?.expect(&[200]).offset());
    }
    Ok(())
}

async fn settle_chunks(sender: &Sender, upload: &mut Upload, chunks: &mut Chunks) -> Result<(), Gone> {
    let info = sender.resume_info(upload).await?;
    if info["can_resume"] != true {
        let none = chunks.acknowledged.is_empty() || upload.outcome != Outcome::Open;
        assert!(none, "LOST: {upload:?}, {chunks:?}");
        return Ok(());
    }
    let numbers = info["received_chunks"].as_array().expect("numbers").iter();
    let received: BTreeSet<_> = numbers.map(|n| n.as_u64().expect("a number") as usize).collect();
    assert!(received.is_superset(&chunks.acknowledged), "LOST: {received:?} of {upload:?}, {chunks:?}");
    for number in &received {
        let expected = sha256(&upload.bytes[chunks.range(*number, upload.bytes.len())]);
        assert_eq!(info["chunk_hashes"][number.to_string()], expected);
    }
    chunks.acknowledged = received;
    chunks.id = info["upload_id"].as_str().map(str::to_owned);
    if chunks.acknowledged.len() == chunks.total {
        // All are there, and perhaps it is being published just now.
        let again = sender.chunk(upload, chunks, 0, chunks.id.as_deref(), false);
        let answer = send(again).await?.expect(&[200]).json();
        assert_eq!(answer["status"], "completed", "{answer}");
    }
    Ok(())
}

/// Parts of what is not joined yet are all there; of what is, none is needed.
async fn what_was_told_is_there(sender: &Sender, upload: &mut Upload) -> Result<(), Gone> {
    let complete = upload.is_complete();
    let Way::Joined(parts) = &mut upload.way else { return Ok(()) };
    for part in parts {
        let Some(path) = &part.path else { continue };
        let reply = sender.head(path).await?;
        if complete {
            if reply.expect(&[200, 404, 410]).status == 200 {
                sender.delete(path).await?.expect(&[204]);
            }
        } else {
            part.is_told(reply.expect(&[200]).offset());
        }
    }
    Ok(())
}

/// Who asks again hears that it is complete.
async fn is_known_as_complete(sender: &Sender, upload: &Upload) {
    if let Way::Tus { part, .. } | Way::Draft(part) = &upload.way
        && let Some(path) = part.path.as_deref().filter(|path| path.starts_with("/uploads/"))
    {
        let told = sender.head(path).await.expect("the server is there").expect(&[200]);
        assert_eq!(told.offset(), upload.bytes.len());
        assert!(told.header("upload-expires").is_empty(), "what is complete does not expire");
    }
}

/// What is under a name has these bytes.
pub async fn holds(sender: &Sender, name: &str, expected: &str) -> Result<(), Gone> {
    let answer = sender.get(&format!("/files/{name}")).await?.expect(&[200]);
    // A server that is killed in the middle of its answer has not answered.
    if answer.header("content-length").parse() != Ok(answer.body.len()) {
        return Err(Gone);
    }
    assert_eq!(answer.header("etag"), format!("\"{expected}\""));
    assert_eq!(sha256(&answer.body), expected, "{name} has other bytes");
    Ok(())
}

/// Each name with its SHA-256.
async fn listing(sender: &Sender) -> BTreeMap<String, String> {
    let answer = sender.get("/files?limit=1000").await.expect("the server is there").expect(&[200]).json();
    let text = |value: &Value| value.as_str().expect("a text").to_owned();
    let files = answer["files"].as_array().expect("files").iter();
    files.map(|file| (text(&file["filename"]), text(&file["checksum"]))).collect()
}

fn names(directory: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(directory).expect("a directory");
    entries.map(|entry| entry.expect("an entry").file_name().into_string().expect("UTF-8")).collect()
}

fn names_on_disk(storage: &Path) -> Vec<String> {
    let mut on_disk = names(storage);
    on_disk.retain(|name| name != ".sft");
    on_disk.extend(names(&storage.join(".sft/encrypted")));
    on_disk.sort();
    on_disk
}

/// What is among the uploads of a server that has stopped: of each a log, of those that are unfinished what has arrived.
/// Gives how many are unfinished.
pub fn check_leftovers(directory: &Path) -> usize {
    let all = names(&directory.join("storage/.sft/uploads"));
    let mut unfinished = 0;
    for name in &all {
        let (id, kind) = name.split_once('.').expect("an id and a kind");
        let has = |kind: &str| all.contains(&format!("{id}.{kind}"));
        match kind {
            "log" => unfinished += usize::from(has("data")),
            "data" => assert!(has("log"), "{name} is left over: {all:?}"),
            _ => assert!(kind.ends_with(".chunk") && has("data"), "{name} is left over"),
        }
    }
    unfinished
}
