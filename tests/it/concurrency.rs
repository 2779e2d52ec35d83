//! Many at once: uploads don't mix, and readers get whole files.

use crate::support::{Form, Raw, TestApp, content, sha256};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_uploads_of_one_name_at_once_each_is_whole_and_one_stands() {
    let app = TestApp::start().await;
    // Large enough to be under way together, and of different lengths.
    let files: Vec<_> = (0..8).map(|n| content(1_000_000 + n * 1000, n as u64)).collect();
    for round in 0..3 {
        let answers = files.iter().enumerate().map(|(n, bytes)| {
            let app = &app;
            async move {
                if n % 2 == 0 {
                    app.put("a.bin", bytes.clone()).await
                } else {
                    app.post(Form::with_file("a.bin", bytes)).await
                }
            }
        });
        let answers = futures_util::future::join_all(answers).await;
        let mut ids = Vec::new();
        for (answer, bytes) in answers.iter().zip(&files) {
            assert!([200, 201].contains(&answer.status), "{}", answer.text());
            assert_eq!(answer.json()["hash"], sha256(bytes), "to each its own");
            assert_eq!(answer.json()["size"], bytes.len());
            ids.push(answer.json()["id"].as_str().unwrap().to_owned());
        }
        let stands = app.get("/download/a.bin").await.expect(200);
        assert!(files.contains(&stands.body), "round {round}: a mixture");
        assert_eq!(stands.header("etag"), format!("\"{}\"", sha256(&stands.body)));
        let status = app.status("a.bin").await;
        assert_eq!(status["status"], "completed");
        assert_eq!(status["checksum"], sha256(&stands.body));
        assert_eq!(status["total_bytes"], stands.body.len());
        assert!(ids.iter().any(|id| status["id"] == **id));
        assert!(app.leftovers().is_empty());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_uploads_that_must_be_the_first_exactly_one_is() {
    let app = TestApp::start().await;
    let answers = (0..8_u64).map(|n| {
        let app = &app;
        async move {
            let bytes = content(300_000, n);
            app.put_with("a.bin", &[("if-none-match", "*")], bytes).await
        }
    });
    let answers = futures_util::future::join_all(answers).await;
    let (first, others): (Vec<_>, Vec<_>) = answers.iter().partition(|answer| answer.status == 201);
    assert_eq!(first.len(), 1);
    others.iter().for_each(|other| _ = other.error(409, "already_exists"));
    assert_eq!(first[0].json()["hash"], sha256(&app.download("a.bin").await));
    app.nothing_is_left().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_files_at_once_all_come_back_whole() {
    let app = TestApp::start().await;
    let work = (0..64_u64).map(|n| {
        let app = &app;
        async move {
            let bytes = content(n as usize * 5_000, n);
            app.put(&format!("{n}.bin"), bytes.clone()).await.expect(201);
            assert!(app.download(&format!("{n}.bin")).await == bytes, "{n}");
            assert_eq!(app.status(&format!("{n}.bin")).await["checksum"], sha256(&bytes));
        }
    });
    futures_util::future::join_all(work).await;
    assert_eq!(app.names().await.len(), 64);
    assert!(app.leftovers().is_empty());
}

#[tokio::test]
async fn a_reader_gets_the_file_it_began_with_however_often_it_is_replaced() {
    let app = TestApp::start().await;
    let old = content(24 << 20, 1);
    app.put("a.bin", old.clone()).await.expect(201);
    let mut reader = Raw::with_small_buffers(app.address).await;
    reader.send_head("GET /download/a.bin", &[]).await;
    let head = reader.head().await.expect(200);
    let mut got = reader.take(1_000_000).await;

    for n in 2..5 {
        app.put("a.bin", content(100_000, n)).await.expect(200);
    }
    assert!(app.download("a.bin").await == content(100_000, 4), "who comes now gets the new one");
    got.extend(reader.take(old.len() - got.len()).await);
    assert!(got == old);
    assert_eq!(head.header("etag"), format!("\"{}\"", sha256(&got)));
}

#[tokio::test]
async fn readers_get_the_old_file_until_the_new_one_is_complete() {
    let app = TestApp::start().await;
    app.put("a.txt", "old").await.expect(201);
    let mut raw = app.connect().await;
    raw.send_head("PUT /files/a.txt", &[("Content-Length", "8")]).await;
    raw.send("new ").await;
    app.status_becomes("a.txt", |status| status["transferred_bytes"] == 4).await;
    assert_eq!(app.download("a.txt").await, b"old");
    raw.send("file").await;
    raw.answer().await.expect(200);
    assert_eq!(app.download("a.txt").await, b"new file");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn readers_never_see_a_half_or_a_mixture_while_files_are_replaced() {
    let app = TestApp::with(&[("durability", "process")]).await;
    let versions: Vec<_> = (0..4).map(|n| content(400_000 + n * 7, n as u64)).collect();
    app.put("a.bin", versions[0].clone()).await.expect(201);
    let writing = async {
        for n in 1..40 {
            app.put("a.bin", versions[n % 4].clone()).await.expect(200);
        }
    };
    let reading = async {
        for _ in 0..40 {
            let answer = app.get("/download/a.bin").await.expect(200);
            assert!(versions.contains(&answer.body), "got {} bytes", answer.body.len());
            // Between the new name and its record the digest is not told; never is a wrong one.
            if !answer.header("etag").starts_with("W/") {
                assert_eq!(answer.header("etag"), format!("\"{}\"", sha256(&answer.body)));
            }
        }
    };
    tokio::join!(writing, reading);
}
