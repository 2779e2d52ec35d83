//! Events: what a frontend sees while files move.

use http::{HeaderMap, HeaderValue};
use serde_json::{Value, json};

use crate::support::live::{Plain, SocketIo, Sse, Told, Watch, Ws};
use crate::support::{Raw, TestApp, content, sha256};

fn ended((_, data): &Told) -> bool {
    data["status"] == "completed" || data["status"] == "failed"
}

/// An upload of so many bytes, of which the second half is sent once `seen` is.
async fn upload_in_halves(app: &TestApp, name: &str, bytes: &[u8], seen: impl Future<Output = ()>) {
    let mut raw = app.connect().await;
    let length = bytes.len().to_string();
    raw.send_head(&format!("PUT /files/{name}"), &[("Content-Length", &length)]).await;
    let (first, second) = bytes.split_at(bytes.len() / 2);
    raw.send(first).await;
    seen.await;
    raw.send(second).await;
    raw.answer().await.expect(201);
}

/// From the beginning to the end, as a client saw it.
fn check_story(story: &[Told], event: &str, bytes: &[u8]) {
    assert!(story.iter().all(|(name, _)| name == event), "{story:?}");
    let states: Vec<&Value> = story.iter().map(|(_, data)| data).collect();
    let (first, last) = (states[0], states[states.len() - 1]);
    assert_eq!((&first["status"], &first["direction"]), (&"uploading".into(), &"upload".into()), "{first}");
    assert_eq!(
        (&last["status"], &last["progress"], &last["eta"]),
        (&"completed".into(), &100.into(), &0.into())
    );
    assert_eq!(last["checksum"], sha256(bytes));
    for state in &states {
        assert_eq!((&state["id"], &state["total_bytes"]), (&first["id"], &bytes.len().into()), "{state}");
    }
    for member in ["progress", "transferred_bytes", "seq"] {
        assert!(
            states.is_sorted_by_key(|state| state[member].as_u64().expect("a number")),
            "{member}: {states:?}"
        );
    }
    assert!(
        states.iter().any(|state| state["progress"] == 50 && state["status"] == "uploading"),
        "{states:?}"
    );
}

fn half((_, data): &Told) -> bool {
    data["progress"] == 50
}

#[tokio::test]
async fn every_kind_of_client_sees_an_upload_from_its_beginning_to_its_end() {
    let app = TestApp::start().await;
    let bytes = content(600_000, 1);
    let mut plain = Plain::connect(&app).await;
    plain.ask("subscribe_all", Value::Null).await;
    let snapshot = plain.expect("status_update").await;
    assert_eq!((&snapshot["transfers"], &snapshot["queue"]), (&json!({}), &json!([])));
    assert_eq!(snapshot["metadata"]["total_transfers"], 0);
    let mut socket = SocketIo::connect(&app).await;
    socket.ask("subscribe_status", json!({"filename": "a.bin"})).await;
    assert!(socket.expect("error").await["message"].as_str().unwrap().contains("a.bin"));
    let mut sse = Sse::connect(&app, "", HeaderMap::new()).await;
    sse.expect("status_update").await;

    let mut halves = (Vec::new(), Vec::new(), Vec::new());
    let seen = async {
        halves = tokio::join!(plain.until(half), socket.until(half), sse.until(half));
    };
    upload_in_halves(&app, "a.bin", &bytes, seen).await;
    halves.0.extend(plain.until(ended).await);
    halves.1.extend(socket.until(ended).await);
    halves.2.extend(sse.until(ended).await);
    check_story(&halves.0, "transfer_update", &bytes);
    check_story(&halves.1, "status_update", &bytes);
    check_story(&halves.2, "transfer_update", &bytes);
    assert_eq!(app.status("a.bin").await["seq"], halves.0.last().unwrap().1["seq"]);

    // Who comes now is told how it stands, in full.
    let mut late = Plain::connect(&app).await;
    late.ask("subscribe_status", json!({"filename": "a.bin"})).await;
    assert_eq!(late.expect("status_update").await, app.status("a.bin").await);
    late.ask("subscribe_all", Value::Null).await;
    assert_eq!(late.expect("status_update").await["transfers"]["a.bin"], app.status("a.bin").await);
}

#[tokio::test]
async fn failures_and_forms_of_unknown_length_are_told_as_they_are() {
    let app = TestApp::start().await;
    let mut plain = Plain::connect(&app).await;
    plain.ask("subscribe_all", json!({})).await;
    plain.expect("status_update").await;
    let form = crate::support::Form::with_file("form.bin", &content(500_000, 2)).unfinished();
    let form_type = crate::support::Form::new().content_type();
    for (length, percent) in [(Some("1000000"), 50), (None, 0)] {
        let mut raw = app.connect().await;
        let framing = length.map_or(("Transfer-Encoding", "chunked"), |length| ("Content-Length", length));
        raw.send_head("POST /upload", &[("Content-Type", &form_type), framing]).await;
        if length.is_some() {
            raw.send(&form).await
        } else {
            raw.send_chunk(&form).await
        }
        // The end of what was sent may be the beginning of a boundary: it is kept back.
        let all = |(_, data): &Told| data["transferred_bytes"].as_u64() > Some(499_000);
        let (_, data) = plain.until(all).await.pop().unwrap();
        assert_eq!((&data["total_bytes"], &data["status"]), (&Value::Null, &"uploading".into()));
        let progress = data["progress"].as_u64().unwrap();
        assert!(progress.abs_diff(percent) <= 1, "{data}");
        assert!(percent > 0 || data["eta"].is_null(), "{data}");
        raw.end().await;
        let (_, data) = plain.until(ended).await.pop().unwrap();
        assert_eq!((&data["status"], &data["filename"]), (&"failed".into(), &"form.bin".into()));
        assert!(data["progress"].as_u64() >= Some(progress), "it does not go back: {data}");
        assert!(data["error"].as_str().unwrap().contains("before"), "{data}");
    }
}

#[tokio::test]
async fn downloads_are_seen_too() {
    let app = TestApp::start().await;
    let bytes = content(8 << 20, 3);
    app.put("a.bin", bytes.clone()).await.expect(201);
    let mut sse = Sse::connect(&app, "?filename=a.bin", HeaderMap::new()).await;
    assert_eq!(sse.expect("status_update").await["status"], "completed");
    let mut reader = Raw::with_small_buffers(app.address).await;
    reader.send_head("GET /download/a.bin", &[("Connection", "close")]).await;
    reader.head().await.expect(200);
    let began = sse.expect("status_update").await;
    assert_eq!((&began["status"], &began["direction"]), (&"downloading".into(), &"download".into()));
    assert_eq!(began["total_bytes"], bytes.len());
    assert!(reader.take(bytes.len()).await == bytes);
    let (_, done) = sse.until(ended).await.pop().unwrap();
    assert_eq!((&done["status"], &done["progress"]), (&"completed".into(), &100.into()));
    assert_eq!((&done["id"], &done["checksum"]), (&began["id"], &sha256(&bytes).into()));
    let mut reader = Raw::with_small_buffers(app.address).await;
    reader.send_head("GET /download/a.bin", &[]).await;
    reader.head().await.expect(200);
    drop(reader);
    assert_eq!(sse.until(ended).await.pop().unwrap().1["status"], "failed");
    assert_eq!(app.status("a.bin").await["direction"], "upload", "what stands is what was uploaded");
}

#[tokio::test]
async fn who_unsubscribes_hears_no_more_of_that_file() {
    let app = TestApp::start().await;
    let mut socket = SocketIo::connect(&app).await;
    for name in ["a.txt", "b.txt"] {
        socket.ask("subscribe_status", json!({"filename": name})).await;
        socket.expect("error").await;
    }
    app.put("a.txt", "1").await.expect(201);
    assert_eq!(socket.until(ended).await.pop().unwrap().1["filename"], "a.txt");
    socket.ask("unsubscribe_status", json!({"filename": "a.txt"})).await;
    socket.ask("unsubscribe_status", json!({"filename": "never.txt"})).await;
    // An answer shows that it was heard.
    socket.ask("nonsense", json!({})).await;
    socket.expect("error").await;
    app.put("a.txt", "2").await.expect(200);
    app.put("b.txt", "3").await.expect(201);
    let story = socket.until(ended).await;
    assert!(story.iter().all(|(_, data)| data["filename"] == "b.txt"), "{story:?}");
}

#[tokio::test]
async fn odd_messages_are_answered_with_errors_and_harm_nobody() {
    let app = TestApp::start().await;
    let mut plain = Plain::connect(&app).await;
    for message in ["", "{", "[]", "7", r#"{"event":"frobnicate"}"#, &"[".repeat(60_000)] {
        plain.0.send(message).await;
        assert!(plain.expect("error").await["message"].as_str().is_some_and(|message| message.len() > 5));
    }
    let mut socket = SocketIo::connect(&app).await;
    let odd = [
        json!({}),
        Value::Null,
        json!("a"),
        json!(7),
        json!([]),
        json!({"filename": 7}),
        json!({"filename": ".."}),
    ];
    for event in ["subscribe_status", "unsubscribe_status"] {
        for data in &odd {
            plain.ask(event, data.clone()).await;
            plain.expect("error").await;
            socket.ask(event, data.clone()).await;
            socket.expect("error").await;
        }
    }
    socket.0.send(r#"42["subscribe_status"]"#).await;
    socket.expect("error").await;
    // Ten megabytes are no message.
    let huge = json!({"event": "subscribe_status", "data": {"filename": "x".repeat(10 << 20)}});
    plain.0.send_in_vain(huge.to_string()).await;
    assert!(plain.next().await.is_none());
    for packet in
        [format!("42{}", json!(["subscribe_all", "x".repeat(10 << 20)])), "4\u{0}".into(), "9".into()]
    {
        let mut other = SocketIo::connect(&app).await;
        other.0.send_in_vain(packet).await;
        assert!(other.next().await.is_none());
    }
    // The first one goes on.
    socket.ask("subscribe_stats", json!({"what": "ever"})).await;
    assert_eq!(socket.expect("stats_update").await["total_transfers"], 0);
    // There is an end to what one client may ask for.
    let mut plain = Plain::connect(&app).await;
    for number in 0..300 {
        plain.ask("subscribe_status", json!({"filename": format!("{number}")})).await;
        let message = plain.expect("error").await;
        assert_eq!(
            number >= 256,
            message["message"].as_str().unwrap().contains("too many"),
            "{number}: {message}"
        );
    }
}

#[tokio::test]
async fn the_counters_follow_what_happens_and_survive_a_restart() {
    let app = TestApp::start().await;
    let nothing = app.get("/stats").await.expect(200).json();
    assert_eq!((&nothing["total_transfers"], &nothing["file_types"]), (&0.into(), &json!({})));
    let mut sse = Sse::connect(&app, "?stats=true", HeaderMap::new()).await;
    assert_eq!(sse.expect("stats_update").await, nothing);
    app.put("a.txt", "hello").await.expect(201);
    app.put("b.TXT", "hello").await.expect(201);
    app.put("a.txt", "again!").await.expect(200);
    app.put_with("c", &[("Repr-Digest", "sha-256=:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=:")], "x")
        .await
        .error(422, "checksum_mismatch");
    let stats = app.get("/stats").await.expect(200).json();
    assert_eq!(stats["total_transfers"], 4);
    assert_eq!(
        (&stats["completed_count"], &stats["failed_count"], &stats["active_count"]),
        (&3.into(), &1.into(), &0.into())
    );
    assert_eq!((&stats["total_bytes"], &stats["success_rate"]), (&16.into(), &75.0.into()));
    assert_eq!((&stats["file_types"], &stats["total_clients"]), (&json!({".txt": 3}), &1.into()));
    sse.until(|(name, data)| name == "stats_update" && *data == stats).await;
    let stopped = app.stop().await;
    let app = TestApp::on(stopped.directory(), &[]).await;
    assert_eq!(app.get("/stats").await.expect(200).json(), stats);
    app.get("/events?stats=perhaps").await.error(400, "invalid_stats");
    app.get("/events?filename=..").await.error(400, "invalid_filename");
    app.get("/ws").await.error(426, "upgrade_required");
}

#[tokio::test]
async fn a_client_that_comes_back_even_to_another_server_learns_how_it_ended() {
    let app = TestApp::start().await;
    let mut sse = Sse::connect(&app, "", HeaderMap::new()).await;
    app.put("seen.txt", "1").await.expect(201);
    sse.until(ended).await;
    let id = sse.id.clone().unwrap();
    drop(sse);
    app.put("missed.txt", "2").await.expect(201);
    app.put("missed.txt", "3").await.expect(200);
    let resumed = HeaderMap::from_iter([(
        http::HeaderName::from_static("last-event-id"),
        HeaderValue::from_str(&id).unwrap(),
    )]);
    let check = async |app: &TestApp| {
        let mut sse = Sse::connect(app, "", resumed.clone()).await;
        for digest in [sha256(b"2"), sha256(b"3")] {
            let missed = sse.expect("transfer_update").await;
            assert_eq!((&missed["filename"], &missed["checksum"]), (&"missed.txt".into(), &digest.into()));
        }
        assert_eq!(sse.expect("status_update").await["transfers"].as_object().unwrap().len(), 2);
        app.put("new.txt", "4").await;
        assert_eq!(sse.until(ended).await.pop().unwrap().1["filename"], "new.txt");
    };
    check(&app).await;
    let stopped = app.stop().await;
    let app = TestApp::on(stopped.directory(), &[]).await;
    let mut sse = Sse::connect(&app, "", resumed).await;
    let names: Vec<_> = [sse.next().await, sse.next().await, sse.next().await]
        .map(|told| told.unwrap().1["filename"].as_str().unwrap().to_owned())
        .into();
    assert_eq!(names, ["missed.txt", "missed.txt", "new.txt"]);
}

/// None of them has a transfer to finish: a long grace is not for them.
#[tokio::test]
async fn a_server_that_stops_ends_its_subscribers_at_once() {
    let app = TestApp::with(&[("shutdown_grace", "1h")]).await;
    let mut plain = Plain::connect(&app).await;
    let mut asked = Plain::connect(&app).await;
    asked.ask("subscribe_all", Value::Null).await;
    asked.expect("status_update").await;
    let mut socket = SocketIo::connect(&app).await;
    let mut sse = Sse::connect(&app, "", HeaderMap::new()).await;
    sse.expect("status_update").await;
    // One that was upgraded and says nothing more.
    let mut silent = Ws::connect(&app, "/socket.io/?EIO=4&transport=websocket").await.unwrap();
    silent.text().await.unwrap();
    let poll = app.get("/socket.io/?EIO=4&transport=polling").await.expect(200).text();
    let sid = serde_json::from_str::<Value>(&poll[1..]).unwrap()["sid"].as_str().unwrap().to_owned();
    let session = format!("/socket.io/?EIO=4&transport=polling&sid={sid}");
    assert_eq!(app.send("POST", &session, &[], "40").await.expect(200).text(), "ok");
    // The heartbeat may come first.
    while !app.get(&session).await.expect(200).text().contains("40{") {}
    let ((), ..) = tokio::join!(
        async { _ = app.stop().await },
        async { assert!(plain.next().await.is_none()) },
        async { assert!(asked.next().await.is_none()) },
        async { assert!(socket.next().await.is_none()) },
        async { assert!(sse.next().await.is_none()) },
        async { while silent.text().await.is_some() {} },
    );
}

#[tokio::test]
async fn subscribers_are_connections_and_there_are_so_many() {
    let app = TestApp::with(&[("max_connections", "2")]).await;
    let one = Plain::connect(&app).await;
    let two = SocketIo::connect(&app).await;
    let waiting = app.connect().await;
    // Served once a place is free.
    drop(one);
    let mut waiting = waiting;
    waiting.send_head("GET /socket.io/?EIO=4&transport=polling", &[]).await;
    waiting.answer().await.expect(200);
    // A session that polls needs no connection, but has a place all the same.
    waiting.send_head("GET /socket.io/?EIO=4&transport=polling", &[]).await;
    waiting.answer().await.error(503, "too_many_subscribers");
    waiting.send_head("GET /socket.io/?EIO=4&transport=polling&s%69d=x", &[]).await;
    waiting.answer().await.error(503, "too_many_subscribers");
    drop(two);
}

/// Only one connection may be: that of a subscriber who does not read. The next is served once it was cut.
#[tokio::test]
async fn a_subscriber_that_stops_reading_is_cut() {
    for (path, hello, ask) in [
        ("/ws", "", r#"{"event":"subscribe_stats"}"#),
        ("/socket.io/?EIO=4&transport=websocket", "40", r#"42["subscribe_stats"]"#),
    ] {
        let app = TestApp::with(&[("idle_timeout", "300ms"), ("max_connections", "1")]).await;
        let mut raw = Raw::with_small_buffers(app.address).await;
        let upgrade = [
            ("Connection", "Upgrade"),
            ("Upgrade", "websocket"),
            ("Sec-WebSocket-Version", "13"),
            ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
        ];
        raw.send_head(&format!("GET {path}"), &upgrade).await;
        raw.head().await.expect(101);
        let frame = |text: &str| [&[0x81, 0x80 | text.len() as u8, 0, 0, 0, 0], text.as_bytes()].concat();
        if !hello.is_empty() {
            raw.send(frame(hello)).await;
        }
        // It asks, and reads no answer: at last nothing more goes in, and it is cut.
        while raw.try_send(frame(ask).repeat(50)).await.is_ok() {}
        app.get("/health").await.expect(200);
    }
}

#[tokio::test]
async fn where_all_need_a_key_subscribers_do() {
    let key = "a-key-of-the-operator";
    let app = TestApp::with(&[("auth", "all"), ("api_keys", key)]).await;
    app.get("/events").await.error(401, "api_key_required");
    app.get("/events?api_key=wrong").await.error(403, "invalid_api_key");
    app.get("/stats?api_key=a-key-of-the-operator").await.error(401, "api_key_required");
    Sse::connect(&app, &format!("?api_key={key}"), HeaderMap::new()).await;
    assert!(Ws::connect(&app, "/ws").await.is_err());
    Ws::connect(&app, &format!("/ws?api_key={key}")).await.unwrap();
    let token = format!("{{\"token\":\"{key}\"}}");
    let refused = [("", "{}"), ("", r#"{"token":7}"#), ("", r#"{"token":"wrong"}"#), ("", "7")];
    for (query, auth) in refused {
        let error = SocketIo::connect_with(&app, query, auth).await.err().expect("refused");
        assert!(error["message"].as_str().unwrap().contains("API key"), "{error}");
    }
    SocketIo::connect_with(&app, "", &token).await.unwrap();
    SocketIo::connect_with(&app, &format!("&api_key={key}"), "{}").await.unwrap();
    app.get("/socket.io/?EIO=4&transport=polling&api_key=wrong").await.error(403, "invalid_api_key");
}

/// A page of another port of this machine may, one of elsewhere may not.
#[tokio::test]
async fn pages_of_other_origins_may_poll() {
    let app = TestApp::start().await;
    let path = "/socket.io/?EIO=4&transport=polling";
    let ours = app.get_with(path, &[("Origin", "http://localhost:3000")]).await.expect(200);
    assert_eq!(ours.header("access-control-allow-origin"), "http://localhost:3000");
    let other = app.get_with(path, &[("Origin", "http://evil.example")]).await.expect(200);
    assert_eq!(other.header("access-control-allow-origin"), "");
    app.get("/socket.io/?EIO=4&transport=pigeon").await.error(400, "invalid_request");
    app.get("/socket.io/?EIO=4&transport=polling&sid=AAAAAAAAAAAAAAAA").await.error(400, "invalid_request");
    app.get(&format!("{path}&x={}", "x".repeat(3000))).await.error(414, "url_too_long");
}
