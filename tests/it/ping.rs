//! How good the network is, and the chunk size that is recommended: `POST /ping`.

use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

use crate::support::{Answer, TestApp};

async fn send(app: &TestApp, headers: &[(&str, &str)], body: &Value) -> Answer {
    let headers: Vec<_> = headers.iter().copied().chain([("content-type", "application/json")]).collect();
    app.send("POST", "/ping", &headers, body.to_string()).await
}

async fn ping(app: &TestApp, body: Value) -> Value {
    send(app, &[], &body).await.expect(200).json()
}

fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs_f64()
}

#[tokio::test]
async fn three_pings_make_a_recommendation() {
    let app = TestApp::start().await;
    for (rtt, quality, chunk_size) in [
        (5, "excellent", 1_048_576),
        (100, "good", 524_288),
        (200, "poor", 262_144),
        (5000, "unstable", 131_072),
    ] {
        let body = json!({"timestamp": now(), "rtt_ms": rtt, "client_id": quality});
        for _ in 0..2 {
            let early = ping(&app, body.clone()).await;
            assert_eq!(early["network_quality"], "unknown");
            assert_eq!(early["recommended_chunk_size"], 524_288);
        }
        let judged = ping(&app, body).await;
        assert_eq!(judged["network_quality"], quality);
        assert_eq!(judged["recommended_chunk_size"], chunk_size);
        assert_eq!(judged["latency_ms"].as_f64(), Some(f64::from(rtt)));
        assert!((judged["server_timestamp"].as_f64().unwrap() - now()).abs() < 60.0);
    }
}

/// The client of old sends its clock and nothing else.
#[tokio::test]
async fn the_clocks_have_to_do_where_nothing_was_measured() {
    let app = TestApp::start().await;
    let answer = ping(&app, json!({"timestamp": now() - 2.0})).await;
    let latency = answer["latency_ms"].as_f64().unwrap();
    assert!((2000.0..60_000.0).contains(&latency), "{latency}");
}

#[tokio::test]
async fn clocks_that_differ_give_no_negative_latency() {
    let app = TestApp::start().await;
    for ahead in [3600.0, -3600.0] {
        for _ in 0..4 {
            let answer = ping(&app, json!({"timestamp": now() + ahead})).await;
            assert_eq!(answer["latency_ms"].as_f64(), Some(0.0));
            assert_eq!(answer["network_quality"], "unknown");
        }
    }
}

#[tokio::test]
async fn a_client_is_its_id_in_the_body_or_the_header_or_its_address() {
    let app = TestApp::start().await;
    let body = json!({"timestamp": 0, "rtt_ms": 1});
    for _ in 0..3 {
        send(&app, &[("x-client-id", "desk")], &body).await.expect(200);
    }
    let quality = async |headers: &[(&str, &str)], body: Value| {
        send(&app, headers, &body).await.expect(200).json()["network_quality"].clone()
    };
    assert_eq!(quality(&[("x-client-id", "desk")], body.clone()).await, "excellent");
    let named = json!({"timestamp": 0, "rtt_ms": 1, "client_id": "desk"});
    assert_eq!(quality(&[("x-client-id", "shelf")], named).await, "excellent");
    assert_eq!(quality(&[], body.clone()).await, "unknown");
    assert_eq!(quality(&[("x-client-id", "shelf")], body).await, "unknown");
}

#[tokio::test]
async fn what_is_no_ping_is_refused() {
    let app = TestApp::start().await;
    let json = &[("content-type", "application/json; charset=utf-8")];
    for (body, code) in [
        ("", "invalid_json"),
        ("{", "invalid_json"),
        ("[1]", "invalid_json"),
        ("1", "invalid_json"),
        ("{}", "missing_timestamp"),
        (r#"{"timestamp":"now"}"#, "invalid_timestamp"),
        (r#"{"timestamp":1,"rtt_ms":"fast"}"#, "invalid_rtt_ms"),
        (r#"{"timestamp":1,"client_id":{}}"#, "invalid_client_id"),
    ] {
        app.send("POST", "/ping", json, body).await.error(400, code);
    }
    for header in [("content-type", "text/plain"), ("accept", "application/json")] {
        let answer = app.send("POST", "/ping", &[header], r#"{"timestamp":1}"#).await;
        answer.error(415, "unsupported_media_type");
    }
    let endless = format!("{{\"timestamp\":1,\"x\":\"{}\"}}", "x".repeat(1 << 20));
    app.send("POST", "/ping", json, endless).await.error(413, "body_too_large");
    app.get("/ping").await.error(405, "method_not_allowed");
}
