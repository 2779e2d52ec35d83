//! What may stand where, by what clients were told.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use reqwest::{Client, StatusCode, Url};
use serde_json::Value;

use super::clients::{Attempt, Outcome};
use crate::support::{http_client, sha256};

/// Everything that was ever attempted.
#[derive(Default)]
pub struct Ledger {
    names: BTreeMap<String, Name>,
}

#[derive(Default)]
struct Name {
    /// What stood when it was last looked at.
    standing: Option<Attempt>,
    /// What was attempted since then.
    since: Vec<Attempt>,
}

impl Name {
    /// Everything that may stand now.
    fn allowed(&self) -> Vec<&Attempt> {
        let acknowledged = || self.since.iter().filter(|attempt| attempt.is_acknowledged());
        let mut allowed: Vec<_> = self
            .since
            .iter()
            .filter(|attempt| match attempt.outcome {
                Outcome::Nothing => false,
                // Its moment may have been any until the kill.
                Outcome::Unknown => true,
                // Nothing may stand that was acknowledged before something began that was acknowledged too.
                Outcome::Acknowledged { at } => !acknowledged().any(|later| later.began > at),
            })
            .collect();
        if acknowledged().next().is_none() {
            allowed.extend(&self.standing);
        }
        allowed
    }

    fn must_stand(&self) -> bool {
        self.standing.is_some() || self.since.iter().any(Attempt::is_acknowledged)
    }
}

impl Ledger {
    pub fn add(&mut self, attempts: Vec<Attempt>) {
        for attempt in attempts {
            self.names.entry(attempt.name.clone()).or_default().since.push(attempt);
        }
    }

    /// Compares everything with what the server shows; gives the number of contents that were looked at.
    pub async fn check(&mut self, directory: &Path, address: SocketAddr, thoroughly: bool) -> usize {
        let server =
            Server { http: http_client(), url: Url::parse(&format!("http://{address}/")).expect("a URL") };
        let on_disk = names_on_disk(&directory.join("storage"));
        let listed = server.listing().await;
        let statuses = server.statuses().await;
        // So a name never stands twice, plain and sealed.
        assert_eq!(
            on_disk,
            listed.keys().cloned().collect::<Vec<_>>(),
            "what is in the directory and what is listed"
        );
        for name in &on_disk {
            assert!(self.names.contains_key(name), "{name:?} was never attempted");
        }
        let mut checked = 0;
        for (name, known) in &mut self.names {
            let Some(entry) = listed.get(name) else {
                assert!(!known.must_stand(), "{name:?} is gone; expected one of {:#?}", known.allowed());
                known.since.clear();
                continue;
            };
            let allowed = known.allowed();
            let checksum =
                entry["checksum"].as_str().unwrap_or_else(|| panic!("no digest is known: {entry}"));
            let found = allowed.iter().find(|attempt| attempt.sha256 == checksum);
            let found = Attempt::clone(found.unwrap_or_else(|| {
                panic!("{name:?} is {entry}, expected one of {allowed:#?}, of {:#?}", known.since)
            }));
            assert_eq!(entry["size"], found.size, "{entry}");
            if thoroughly || !known.since.is_empty() {
                server.check_content(&found, statuses.get(name)).await;
                checked += 1;
            }
            known.standing = Some(found);
            known.since.clear();
        }
        checked
    }
}

struct Server {
    http: Client,
    url: Url,
}

impl Server {
    fn url(&self, components: &[&str]) -> Url {
        let mut url = self.url.clone();
        url.path_segments_mut().expect("an http URL").clear().extend(components);
        url
    }

    async fn get(&self, url: Url) -> Value {
        let answer = self.http.get(url).send().await.expect("an answer");
        assert_eq!(answer.status(), StatusCode::OK);
        answer.json().await.expect("JSON")
    }

    /// `GET /files`, page by page.
    async fn listing(&self) -> BTreeMap<String, Value> {
        let mut listed = BTreeMap::new();
        loop {
            let mut url = self.url(&["files"]);
            url.set_query(Some(&format!("limit=1000&offset={}", listed.len())));
            let mut page = self.get(url).await;
            let Value::Array(files) = page["files"].take() else { panic!("no list: {page}") };
            if files.is_empty() {
                assert_eq!(page["total_count"], listed.len());
                return listed;
            }
            for file in files {
                let name = file["filename"].as_str().expect("a name").to_owned();
                assert!(listed.insert(name, file).is_none(), "listed twice");
            }
        }
    }

    /// `GET /status`: nothing may still be running.
    async fn statuses(&self) -> BTreeMap<String, Value> {
        let mut all = self.get(self.url(&["status"])).await;
        let Value::Array(transfers) = all["transfers"].take() else { panic!("no list: {all}") };
        for transfer in &transfers {
            let why = transfer["error"].as_str().unwrap_or_default();
            match transfer["status"].as_str() {
                Some("completed") => {}
                Some("failed") => assert!(!why.is_empty(), "it does not say why: {transfer}"),
                _ => panic!("nothing runs, and yet {transfer}"),
            }
        }
        let name = |transfer: &Value| transfer["filename"].as_str().expect("a name").to_owned();
        transfers.into_iter().map(|transfer| (name(&transfer), transfer)).collect()
    }

    /// Content, ETag and status say the same.
    async fn check_content(&self, expected: &Attempt, status: Option<&Value>) {
        let answer = self.http.get(self.url(&["files", &expected.name])).send().await.expect("an answer");
        assert_eq!(answer.status(), StatusCode::OK, "{expected:?}");
        assert_eq!(answer.headers()["etag"], format!("\"{}\"", expected.sha256));
        let bytes = answer.bytes().await.expect("a body");
        assert_eq!(sha256(&bytes), expected.sha256, "the content is not what its ETag says");
        let status = status.unwrap_or_else(|| panic!("no status of {:?}", expected.name));
        let one = self.get(self.url(&["status", &expected.name])).await;
        assert_eq!(&one, status);
        // An attempt that failed later is what is shown of the name.
        if one["status"] == "completed" {
            assert_eq!(one["checksum"], expected.sha256, "{one}");
            assert_eq!(one["total_bytes"], expected.size, "{one}");
            // Contents so small are not each one's own.
            if expected.size >= 32 {
                let id = one["client_id"].as_str().expect("an id");
                assert!(id.starts_with(&expected.tag), "{one} is told of another upload than {expected:?}");
                assert_eq!(one["encryption"], expected.sealed, "{one}");
            }
        }
    }
}

fn names_on_disk(storage: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(storage).expect("the storage directory");
    let mut names: Vec<_> =
        entries.map(|entry| entry.expect("an entry").file_name().into_string().expect("UTF-8")).collect();
    names.retain(|name| name != ".sft");
    let sealed = std::fs::read_dir(storage.join(".sft/encrypted")).expect("the containers");
    names.extend(sealed.map(|entry| entry.expect("an entry").file_name().into_string().expect("UTF-8")));
    names.sort();
    names
}

/// Which files are half-written beside the status, whatever their names: the inode, and when it was written to.
pub fn half_written(directory: &Path) -> BTreeMap<String, (u64, i64, i64)> {
    let entries = std::fs::read_dir(directory).expect("a directory").map(|entry| entry.expect("an entry"));
    let half =
        entries.filter_map(|entry| Some((entry.file_name().into_string().ok()?, entry.metadata().ok()?)));
    half.filter(|(name, _)| name.ends_with(".tmp"))
        .map(|(name, metadata)| (name, (metadata.ino(), metadata.mtime(), metadata.mtime_nsec())))
        .collect()
}

/// Right after a start nothing is there but published files, the status and its journal; `before`: what the kill left
/// half-written. (What is half-written now may be the server's at work.)
pub fn check_directory(directory: &Path, before: &BTreeMap<String, (u64, i64, i64)>) {
    for (name, file) in half_written(directory) {
        assert_ne!(before.get(&name), Some(&file), "{name} is left over");
    }
    let names = |path: &Path| -> Vec<String> {
        let entries = std::fs::read_dir(path).expect("a directory");
        entries.map(|entry| entry.expect("an entry").file_name().into_string().expect("UTF-8")).collect()
    };
    assert_eq!(
        names(&directory.join("storage/.sft/uploads")),
        Vec::<String>::new(),
        "left over from uploads"
    );
    let in_private = names(&directory.join("storage/.sft"));
    assert!(
        in_private.iter().all(|name| ["uploads", "encrypted", "lock"].contains(&name.as_str())),
        "{in_private:?}"
    );
    let segment =
        |name: &str| name.strip_prefix("status.json.journal.").is_some_and(|n| n.parse::<u64>().is_ok());
    let known = |name: &str| {
        ["storage", "status.json", "status.json.backup", "status.json.journal", "status.json.lock"]
            .contains(&name)
            || segment(name)
    };
    let strange: Vec<_> =
        names(directory).into_iter().filter(|name| !known(name) && !name.ends_with(".tmp")).collect();
    assert!(strange.is_empty(), "left over beside the status: {strange:?}");
}
