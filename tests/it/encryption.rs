//! Sealed files: as safe, as fast to reach into and as easy to have as plain ones, and nobody's but the key's.

use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::support::secret::{holding, marked};
use crate::support::{Answer, Form, Raw, TestApp, content, sha256};

const KEY: (&str, &str) = ("encryption_key", "a key for these tests");
const MIB: usize = 1 << 20;

/// Behind the server's back.
#[expect(clippy::disallowed_methods, reason = "no crash is expected here")]
fn put(path: impl AsRef<Path>, bytes: impl AsRef<[u8]>) {
    std::fs::write(path, bytes).unwrap();
}

async fn app() -> TestApp {
    TestApp::with(&[KEY]).await
}

fn container(app: &TestApp, name: &str) -> PathBuf {
    app.storage().join(".sft/encrypted").join(name)
}

async fn seal(app: &TestApp, name: &str, bytes: &[u8]) -> Value {
    let answer = app.put(&format!("{name}?encryption=true"), bytes.to_vec()).await;
    assert!([200, 201].contains(&answer.status), "{}", answer.text());
    answer.json()
}

#[tokio::test]
async fn files_of_every_size_come_back_whole_by_every_way_in() {
    let app = app().await;
    for size in [0, 1, 32_767, 32_768, 32_769, 65_536, 262_144, 262_145, MIB, MIB + 1, 5 * MIB + 7] {
        let bytes = content(size, size as u64);
        let answers = [
            app.put("put.bin?encryption=true", bytes.clone()).await,
            app.put_with("header.bin", &[("x-encryption", "yes")], bytes.clone()).await,
            app.post(Form::new().field("encryption", "true").file("before.bin", &bytes)).await,
            app.post(Form::with_file("after.bin", &bytes).field("encryption", "true")).await,
        ];
        for answer in answers {
            let answer = answer.json();
            assert_eq!(answer["hash"], sha256(&bytes), "{size}: {answer}");
            assert_eq!((&answer["size"], &answer["encryption"]), (&size.into(), &true.into()));
            for member in ["nonce", "tag"] {
                let hex = answer[member].as_str().unwrap();
                assert!(hex.len() == 32 && hex.bytes().all(|digit| digit.is_ascii_hexdigit()), "{answer}");
            }
        }
        for name in ["put.bin", "header.bin", "before.bin", "after.bin"] {
            assert!(app.download(name).await == bytes, "{size}: {name}");
            assert!(!app.storage().join(name).exists());
            assert!(size == 0 || holding(&app.storage(), &bytes[..size.min(64)]).is_empty() || size < 16);
        }
    }
    let listed = app.get("/files").await.json();
    assert_eq!(listed["files"][0]["size"], 5 * MIB + 7);
    assert_eq!(listed["files"][0]["encryption"], true);
    app.nothing_is_left().await;
}

#[tokio::test]
async fn what_is_to_be_sealed_does_not_touch_the_disk_before() {
    let app = app().await;
    let (bytes, marker) = marked(6 * MIB);
    let mut put = app.connect().await;
    let length = bytes.len().to_string();
    put.send_head("PUT /files/put.bin", &[("Content-Length", &length), ("X-Encryption", "true")]).await;
    let mut post = app.connect().await;
    let form = Form::new().field("encryption", "1").file("form.bin", &bytes);
    let content_type = form.content_type();
    let body = form.finish();
    let length = body.len().to_string();
    post.send_head("POST /upload", &[("Content-Type", &content_type), ("Content-Length", &length)]).await;
    put.send(&bytes[..5 * MIB]).await;
    post.send(&body[..5 * MIB]).await;
    for name in ["put.bin", "form.bin"] {
        app.status_becomes(name, |status| status["transferred_bytes"].as_u64() >= Some(4 << 20)).await;
    }
    assert!(holding(app.directory(), marker).is_empty(), "during the uploads");
    put.send(&bytes[5 * MIB..]).await;
    post.send(&body[5 * MIB..]).await;
    put.answer().await.expect(201);
    post.answer().await.expect(200);
    // What comes before the option waits in memory, up to a bound.
    let (small, _) = marked(900 << 10);
    app.post(Form::with_file("after.bin", &small).field("encryption", "true")).await.expect(200);
    let (large, _) = marked(3 * MIB);
    app.post(Form::with_file("large.bin", &large).field("encryption", "true")).await.expect(200);
    assert!(holding(app.directory(), marker).is_empty(), "after the uploads");
    assert!(app.download("large.bin").await == large);
    app.nothing_is_left().await;
}

#[tokio::test]
async fn ranges_and_conditions_are_those_of_the_plain_file() {
    let app = app().await;
    let bytes = content(3 * MIB + 500, 3);
    app.put("plain.bin", bytes.clone()).await.expect(201);
    seal(&app, "sealed.bin", &bytes).await;
    let etag = format!("\"{}\"", sha256(&bytes));
    let edge = 32_768;
    let mut ranges =
        vec!["bytes=0-0".to_owned(), "bytes=-1".into(), "bytes=-3146227".into(), "bytes=5-4".into()];
    ranges.push("bytes=3146227-".into());
    ranges.push("bytes=0-99,70000-70001, 3000000-".into());
    for start in [edge - 1, edge, edge + 1, 16 * edge - 1, 16 * edge] {
        for length in [1, 2, edge, 16 * edge + 3] {
            ranges.push(format!("bytes={start}-{}", start + length - 1));
        }
    }
    for range in &ranges {
        let ask = async |name: &str| app.get_with(&format!("/download/{name}"), &[("range", range)]).await;
        let (plain, sealed) = (ask("plain.bin").await, ask("sealed.bin").await);
        assert_eq!(sealed.status, plain.status, "{range}");
        for header in ["content-range", "etag", "content-length", "repr-digest", "accept-ranges"] {
            assert_eq!(sealed.header(header), plain.header(header), "{range}: {header}");
        }
        if !range.contains(',') {
            assert!(sealed.body == plain.body, "{range}");
        } else {
            let text = |answer: &Answer| String::from_utf8_lossy(&answer.body).len();
            assert_eq!(text(&sealed), text(&plain));
        }
    }
    let with = async |header: (&str, &str)| app.get_with("/download/sealed.bin", &[header]).await;
    with(("if-none-match", &etag)).await.expect(304);
    with(("if-match", "\"other\"")).await.error(412, "precondition_failed");
    let stale = app.get_with("/download/sealed.bin", &[("range", "bytes=0-0"), ("if-range", "\"x\"")]).await;
    assert!(stale.expect(200).body == bytes);
    let head = app.send("HEAD", "/download/sealed.bin", &[], Vec::new()).await.expect(200);
    assert_eq!(head.header("content-length"), bytes.len().to_string());
}

#[tokio::test]
async fn the_container_can_be_had_and_has_a_tag_of_its_own() {
    let app = app().await;
    let bytes = content(100_000, 4);
    let answer = seal(&app, "a.txt", &bytes).await;
    let given = app.get("/download/a.txt?decrypt=false").await.expect(200);
    assert_eq!(given.body, std::fs::read(container(&app, "a.txt")).unwrap());
    assert_eq!(given.header("content-type"), "application/octet-stream");
    assert_eq!(given.header("repr-digest"), "", "the digest is that of the content");
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    assert_eq!(answer["nonce"], hex(&given.body[24..40]));
    assert_eq!(answer["tag"], hex(&given.body[given.body.len() - 16..]));
    let etag = given.header("etag").to_owned();
    let part =
        app.get_with("/download/a.txt?decrypt=false", &[("range", "bytes=8-"), ("if-range", &etag)]).await;
    assert!(part.expect(206).body == given.body[8..]);
    seal(&app, "a.txt", &bytes).await;
    let again = app.get("/download/a.txt?decrypt=false").await.expect(200);
    assert_ne!(again.header("etag"), etag, "the same content, sealed again");
    app.put("plain.txt", "hello").await.expect(201);
    assert_eq!(app.get("/download/plain.txt?decrypt=false").await.expect(200).body, b"hello");
}

#[tokio::test]
async fn what_was_tampered_with_is_an_error_before_the_first_byte_or_breaks_off() {
    let app = app().await;
    let bytes = content(4 * MIB, 5);
    seal(&app, "a.bin", &bytes).await;
    let path = container(&app, "a.bin");
    let whole = std::fs::read(&path).unwrap();
    let with = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut bytes = whole.clone();
        change(&mut bytes);
        put(&path, bytes);
    };
    let refused = async |what: &str| {
        let answer = app.get("/download/a.bin").await;
        assert_eq!(answer.status, 500, "{what}");
        assert_eq!(answer.error(500, "decryption_failed")["filename"], "a.bin");
        let status = app.status("a.bin").await;
        assert_eq!(
            (&status["status"], &status["direction"]),
            (&"failed".into(), &"download".into()),
            "{what}"
        );
        assert!(status["error"].as_str().unwrap().len() > 10, "{what}: {status}");
    };
    for at in [0, 8, 13, 30, 47, 48, 60, 1000, 65_600] {
        with(&|bytes| bytes[at] ^= 1);
        refused(&format!("a bit at {at}")).await;
    }
    with(&|bytes| *bytes.last_mut().unwrap() ^= 1);
    refused("the last bit").await;
    with(&|bytes| bytes.truncate(bytes.len() - 1));
    refused("cut off inside of a segment").await;
    with(&|bytes| bytes.truncate(48 + 10 * (32_768 + 24)));
    refused("cut off at a segment's end").await;
    with(&|bytes| bytes.truncate(20));
    refused("cut off in the header").await;
    with(&|bytes| bytes.extend_from_slice(b"more"));
    refused("added to").await;
    // The first range is whole, what follows is not.
    with(&|bytes| bytes[3 * MIB] ^= 1);
    let mut raw = Raw::connect(app.address).await;
    raw.send_head("GET /download/a.bin", &[]).await;
    raw.head().await.expect(200);
    let got = raw.until_closed().await;
    assert!(got.len() < bytes.len() && got == bytes[..got.len()], "{} bytes", got.len());
    assert!(got.len() <= 3 * MIB, "nothing that was not verified");
    app.status_becomes("a.bin", |status| status["status"] == "failed").await;
    // Where it is whole, it is given.
    let part = app.get_with("/download/a.bin", &[("range", "bytes=0-99999")]).await.expect(206);
    assert!(part.body == bytes[..100_000]);
    put(&path, &whole);
    assert!(app.download("a.bin").await == bytes);
}

#[tokio::test]
async fn a_container_in_anothers_place_is_noticed() {
    let app = app().await;
    seal(&app, "mine.bin", b"what I stored").await;
    seal(&app, "theirs.bin", b"what they stored").await;
    std::fs::copy(container(&app, "theirs.bin"), container(&app, "mine.bin")).unwrap();
    app.get("/download/mine.bin").await.error(500, "decryption_failed");
    assert_eq!(app.download("theirs.bin").await, b"what they stored");
    // An earlier one of the same name too.
    let earlier = std::fs::read(container(&app, "theirs.bin")).unwrap();
    seal(&app, "theirs.bin", b"what they stored later").await;
    put(container(&app, "theirs.bin"), earlier);
    app.get("/download/theirs.bin").await.error(500, "decryption_failed");
    // A file of the older format is none of ours.
    put(container(&app, "mine.bin"), content(500, 1));
    app.get("/download/mine.bin").await.error(500, "decryption_failed");
}

#[tokio::test]
async fn plain_and_sealed_replace_each_other() {
    let app = app().await;
    app.put("a.txt", "plain one").await.expect(201);
    seal(&app, "a.txt", b"sealed one").await;
    assert!(!app.storage().join("a.txt").exists(), "what was replaced is gone");
    assert_eq!(app.download("a.txt").await, b"sealed one");
    app.put("a.txt?encryption=true&overwrite=false", "no").await.error(409, "already_exists");
    app.put("a.txt?overwrite=false", "no").await.error(409, "already_exists");
    app.put("a.txt", "plain two").await.expect(200);
    assert!(!container(&app, "a.txt").exists(), "what was replaced is gone");
    assert_eq!(app.download("a.txt").await, b"plain two");
    app.put("a.txt?encryption=true&overwrite=false", "no").await.error(409, "already_exists");
    assert_eq!(app.names().await, ["a.txt"]);
    // A failed attempt leaves what stands.
    app.put(&format!("a.txt?encryption=true&sha256={}", sha256(b"x")), "y")
        .await
        .error(422, "checksum_mismatch");
    assert_eq!(app.download("a.txt").await, b"plain two");
    app.nothing_is_left().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_name_that_many_replace_all_the_time_is_always_there_and_whole() {
    let app = app().await;
    // Every content begins with its own SHA-256.
    let version = |seed: u64| {
        let rest = content(100_000, seed);
        [sha256(&rest).as_bytes(), &rest].concat()
    };
    seal(&app, "busy.bin", &version(0)).await;
    let (url, http) = (app.url("/files/busy.bin"), app.http.clone());
    let writers: Vec<_> = (1..=4)
        .map(|writer| {
            let (url, http, versions) = (
                url.clone(),
                http.clone(),
                (0..25).map(|round| version(writer * 100 + round)).collect::<Vec<_>>(),
            );
            tokio::spawn(async move {
                for (round, bytes) in versions.into_iter().enumerate() {
                    let sealed = writer == 4 || round % 4 != 3;
                    let put =
                        http.put(&url).query(&[("encryption", sealed)]).body(bytes).send().await.unwrap();
                    assert!(put.status().is_success());
                }
            })
        })
        .collect();
    let mut reads = 0;
    while writers.iter().any(|writer| !writer.is_finished()) {
        let answer = app.get("/download/busy.bin").await.expect(200);
        let (digest, rest) = answer.body.split_at(64);
        assert_eq!(sha256(rest).as_bytes(), digest, "of two versions");
        app.get("/download/busy.bin?decrypt=false").await.expect(200);
        reads += 1;
    }
    for writer in writers {
        writer.await.unwrap();
    }
    assert!(reads > 3, "{reads}");
    assert_eq!(app.status("busy.bin").await["status"], "completed");
    app.nothing_is_left().await;
}

#[tokio::test]
async fn a_slow_reader_gets_the_whole_of_what_it_began_to_read() {
    let app = app().await;
    let bytes = content(24 * MIB, 6);
    seal(&app, "a.bin", &bytes).await;
    let mut raw = Raw::with_small_buffers(app.address).await;
    raw.send_head("GET /download/a.bin", &[]).await;
    raw.head().await.expect(200);
    seal(&app, "a.bin", b"another").await;
    app.put("a.bin", "and plain").await.expect(200);
    assert!(raw.take(bytes.len()).await == bytes);
}

#[tokio::test]
async fn the_server_may_seal_whatever_is_asked() {
    for (setting, asked, sealed) in [
        ("required", "", true),
        ("required", "encryption=false", true),
        ("default-on", "", true),
        ("default-on", "encryption=false", false),
        ("optional", "", false),
    ] {
        let app = TestApp::with(&[KEY, ("encryption", setting)]).await;
        let bytes = content(3 * MIB, 7);
        let answers = [
            app.put(&format!("put.bin?{asked}"), bytes.clone()).await,
            app.post_to(&format!("/upload?{asked}"), &[], Form::with_file("form.bin", &bytes)).await,
            match asked.split_once('=') {
                Some((name, value)) => {
                    app.post(Form::with_file("after.bin", &bytes).field(name, value)).await
                }
                None => app.post(Form::with_file("after.bin", &bytes)).await,
            },
        ];
        for answer in answers {
            assert_eq!(answer.json()["encryption"], sealed, "{setting}, {asked}");
        }
        for name in ["put.bin", "form.bin", "after.bin"] {
            assert_eq!(container(&app, name).exists(), sealed, "{setting}, {asked}, {name}");
            assert_eq!(app.storage().join(name).exists(), !sealed);
            assert!(app.download(name).await == bytes);
        }
        app.nothing_is_left().await;
    }
}

#[tokio::test]
async fn a_key_is_made_when_it_is_first_needed_and_a_changed_one_opens_what_it_sealed() {
    let app = TestApp::start().await;
    let made = app.storage().join(".sft/secret.key");
    app.put("plain.txt", "hello").await.expect(201);
    assert!(!made.exists(), "nobody needs it yet");
    seal(&app, "made.txt", b"under the made key").await;
    let stopped = app.stop().await;
    let key = std::fs::read_to_string(&made).unwrap();
    // A key that is set later.
    let app = TestApp::on(stopped.directory(), &[KEY]).await;
    assert_eq!(app.download("made.txt").await, b"under the made key");
    seal(&app, "set.txt", b"under the first key").await;
    let stopped = app.stop().await;
    // Another one, and the first is not given.
    let app = TestApp::on(stopped.directory(), &[("encryption_key", "quite another key")]).await;
    let refused = app.get("/download/set.txt").await.error(500, "decryption_failed").to_string();
    assert!(!refused.contains("another key") && !refused.contains(key.trim()), "{refused}");
    assert_eq!(app.download("made.txt").await, b"under the made key");
    let stopped = app.stop().await;
    let old = [
        ("encryption_key", "quite another key"),
        ("encryption_key_old", "a key that is older than that,a key for these tests"),
    ];
    let app = TestApp::on(stopped.directory(), &old).await;
    assert_eq!(app.download("set.txt").await, b"under the first key");
    assert_eq!(app.download("made.txt").await, b"under the made key");
}

#[tokio::test]
async fn a_start_finds_sealed_files_moved_copied_and_forgotten() {
    let app = app().await;
    let bytes = content(200_000, 8);
    seal(&app, "a.bin", &bytes).await;
    seal(&app, "gone.bin", b"gone").await;
    let stopped = app.stop().await;
    let storage = stopped.directory().join("storage");
    // As a copy of the storage has them: with other times.
    let path = storage.join(".sft/encrypted/a.bin");
    let copy = std::fs::read(&path).unwrap();
    std::fs::remove_file(&path).unwrap();
    put(&path, copy);
    std::fs::remove_file(storage.join(".sft/encrypted/gone.bin")).unwrap();
    let app = TestApp::on(stopped.directory(), &[KEY]).await;
    assert!(app.download("a.bin").await == bytes);
    assert_eq!(app.names().await, ["a.bin"]);
    app.get("/download/gone.bin").await.error(404, "not_found");
    let stopped = app.stop().await;
    // The status is lost, the files are not.
    for entry in std::fs::read_dir(stopped.directory()).unwrap() {
        let path = entry.unwrap().path();
        if path.is_file() {
            std::fs::remove_file(path).unwrap();
        }
    }
    let app = TestApp::on(stopped.directory(), &[KEY]).await;
    let status = app.status("a.bin").await;
    assert_eq!((&status["status"], &status["encryption"]), (&"completed".into(), &true.into()));
    assert_eq!(status["checksum"], sha256(&bytes));
    assert!(app.download("a.bin").await == bytes);
}
