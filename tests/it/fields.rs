//! What a client may say of an upload: by form fields in any order, query and headers; good values and bad ones.

use base64::Engine as _;

use crate::support::{Form, TestApp, sha256};

const DATA: &[u8] = b"some content";

#[tokio::test]
async fn fields_may_stand_before_the_file_after_it_and_around_it() {
    let app = TestApp::start().await;
    let before = Form::new().field("priority", "3").field("client_id", "desk").file("sent.txt", DATA);
    let after = Form::with_file("sent.txt", DATA).field("client_id", "desk").field("priority", "3");
    let around = Form::new().field("client_id", "desk").file("sent.txt", DATA).field("priority", "3");
    for form in [before, after, around] {
        let form = form.field("filename", "named.txt").field("encryption", "false").field("colour", "blue");
        let answer = app.post(form).await.expect(200).json();
        assert_eq!((&answer["filename"], &answer["priority"]), (&"named.txt".into(), &3.into()));
        let status = app.status("named.txt").await;
        assert_eq!((&status["client_id"], &status["priority"]), (&"desk".into(), &3.into()));
        assert_eq!(app.download("named.txt").await, DATA);
    }
    assert_eq!(app.names().await, ["named.txt"], "under the name that the field gives, and no other");
}

#[tokio::test]
async fn options_may_come_as_query_and_headers_and_a_field_wins() {
    let app = TestApp::start().await;
    let headers = [("x-priority", "1"), ("x-client-id", "of-header"), ("x-encryption", "no")];
    let path = "/upload?priority=2&client_id=of-query&filename=of%20query.txt";
    let form = || Form::with_file("sent.txt", DATA);
    let answer = app.post_to("/upload", &headers, form()).await.expect(200).json();
    assert_eq!((&answer["filename"], &answer["priority"]), (&"sent.txt".into(), &1.into()));
    assert_eq!(app.status("sent.txt").await["client_id"], "of-header");
    let answer = app.post_to(path, &headers, form()).await.expect(200).json();
    assert_eq!((&answer["filename"], &answer["priority"]), (&"of query.txt".into(), &2.into()));
    assert_eq!(app.status("of%20query.txt").await["client_id"], "of-query");
    let form = form().field("priority", "3").field("client_id", "of-field").field("filename", "of field.txt");
    let answer = app.post_to(path, &headers, form).await.expect(200).json();
    assert_eq!((&answer["filename"], &answer["priority"]), (&"of field.txt".into(), &3.into()));
    assert_eq!(app.status("of%20field.txt").await["client_id"], "of-field");

    app.put_with("put.txt?priority=9&filename=other.txt", &headers, DATA).await.expect(201);
    let status = app.status("put.txt").await;
    assert_eq!((&status["client_id"], &status["priority"]), (&"of-header".into(), &9.into()));
    assert_eq!(app.get("/files/other.txt").await.status, 404, "the path names the file");
}

#[tokio::test]
async fn a_client_without_an_id_is_known_by_its_address_and_agent() {
    let app = TestApp::start().await;
    app.put_with("a.txt", &[("user-agent", "test/1.0")], DATA).await.expect(201);
    let status = app.status("a.txt").await;
    assert_eq!(status["client_ip"], "127.0.0.1");
    assert_eq!(status["client_id"], "127.0.0.1");
    assert_eq!(status["client_agent"], "test/1.0");
}

#[tokio::test]
async fn a_bad_value_is_refused_wherever_it_stands_and_nothing_is_published() {
    let app = TestApp::start().await;
    for (name, value, code) in [
        ("priority", "11", "invalid_priority"),
        ("priority", "-1", "invalid_priority"),
        ("priority", "5.5", "invalid_priority"),
        ("priority", "high", "invalid_priority"),
        ("encryption", "maybe", "invalid_encryption"),
        ("encryption", "2", "invalid_encryption"),
        ("overwrite", "never", "invalid_overwrite"),
        ("sha256", "abc", "invalid_sha256"),
        ("sha256", &"g".repeat(64), "invalid_sha256"),
        ("filename", "...", "invalid_filename"),
        ("filename", "a/b/", "invalid_filename"),
    ] {
        let file = || Form::with_file("a.txt", DATA);
        app.post(Form::new().field(name, value).file("a.txt", DATA)).await.error(400, code);
        app.post(file().field(name, value)).await.error(400, code);
        let query = format!("?{name}={value}");
        app.post_to(&format!("/upload{query}"), &[], file()).await.error(400, code);
        if name != "filename" {
            app.put(&format!("a.txt{query}"), DATA).await.error(400, code);
        }
        if ["priority", "encryption"].contains(&name) {
            let header = format!("x-{name}");
            app.put_with("a.txt", &[(&header, value)], DATA).await.error(400, code);
            app.post_to("/upload", &[(&header, value)], file()).await.error(400, code);
        }
    }
    app.put_with("a.txt", &[("repr-digest", "sha-256=:c2hvcnQ=:")], DATA).await.error(400, "invalid_digest");
    app.put("a.txt?filename=%ff", DATA).await.error(400, "invalid_query");
    assert!(app.names().await.is_empty());
    app.get("/download/a.txt").await.error(404, "not_found");
    app.nothing_is_left().await;
}

#[tokio::test]
async fn every_spelling_of_a_boolean_is_taken() {
    let app = TestApp::start().await;
    for value in ["false", "0", "no", "off", "False", "OFF", ""] {
        app.post(Form::with_file("a.txt", DATA).field("encryption", value)).await.expect(200);
    }
    for value in ["true", "1", "yes", "on", "True", "ON"] {
        app.post(Form::with_file("a.txt", DATA).field("encryption", value)).await.expect(200);
        app.post(Form::with_file("a.txt", DATA).field("overwrite", value)).await.expect(200);
    }
}

#[tokio::test]
async fn a_checksum_that_is_sent_is_checked_and_what_differs_is_not_published() {
    let app = TestApp::start().await;
    let digest = |bytes: &[u8]| {
        let base64 = base64::engine::general_purpose::STANDARD;
        use sha2::Digest as _;
        format!("sha-256=:{}:", base64.encode(sha2::Sha256::digest(bytes)))
    };
    let (right, wrong) = (sha256(DATA), sha256(b"other"));
    app.post(Form::with_file("a.txt", DATA).field("sha256", &right)).await.expect(200);
    app.put(&format!("a.txt?sha256={}", right.to_uppercase()), DATA).await.expect(200);
    app.put_with("a.txt", &[("repr-digest", &digest(DATA))], DATA).await.expect(200);
    app.put_with("a.txt", &[("content-digest", &digest(DATA))], DATA).await.expect(200);
    app.put_with("a.txt", &[("repr-digest", "md5=:AAAA:")], DATA).await.expect(200);

    for name in ["a.txt", "new.txt"] {
        for answer in [
            app.post(Form::with_file(name, b"changed").field("sha256", &wrong)).await,
            app.post(Form::new().field("sha256", &wrong).file(name, b"changed")).await,
            app.put(&format!("{name}?sha256={wrong}"), "changed").await,
            app.put_with(name, &[("repr-digest", &digest(b"other"))], "changed").await,
            app.put_with(name, &[("content-digest", &digest(b"other"))], "changed").await,
        ] {
            let error = answer.error(422, "checksum_mismatch");
            assert_eq!(error["expected"], wrong);
            assert_eq!(error["actual"], sha256(b"changed"));
        }
    }
    assert_eq!(app.names().await, ["a.txt"]);
    assert_eq!(app.download("a.txt").await, DATA);
    assert_eq!(app.status("new.txt").await["status"], "failed");
    app.nothing_is_left().await;
}

#[tokio::test]
async fn a_file_that_must_not_be_overwritten_is_not() {
    let app = TestApp::start().await;
    let form = |bytes: &[u8]| Form::with_file("a.txt", bytes);
    app.post(form(DATA).field("overwrite", "false")).await.expect(200);
    for answer in [
        app.post(form(b"other").field("overwrite", "false")).await,
        app.post(Form::new().field("overwrite", "no").file("a.txt", b"other")).await,
        app.post_to("/upload?overwrite=0", &[], form(b"other")).await,
        app.post_to("/upload", &[("if-none-match", "*")], form(b"other")).await,
        app.put("a.txt?overwrite=false", "other").await,
        app.put_with("a.txt", &[("if-none-match", "*")], "other").await,
    ] {
        answer.error(409, "already_exists");
    }
    assert_eq!(app.download("a.txt").await, DATA);
    app.put_with("new.txt", &[("if-none-match", "*")], DATA).await.expect(201);
    app.nothing_is_left().await;
}

/// The name comes after the file: what stands under the name of the part is no concern.
#[tokio::test]
async fn what_must_not_be_overwritten_is_the_name_that_counts_in_the_end() {
    let app = TestApp::start().await;
    app.put("blob", DATA).await.expect(201);
    let form = || Form::with_file("blob", b"other").field("filename", "a.txt");
    app.post_to("/upload?overwrite=false", &[], form()).await.expect(200);
    app.post_to("/upload?overwrite=false", &[], form()).await.error(409, "already_exists");
    assert_eq!(app.download("blob").await, DATA);
}

#[tokio::test]
async fn a_put_replaces_only_what_it_says_it_does() {
    let app = TestApp::start().await;
    let one = app.put("a.txt", "one").await.expect(201);
    assert_eq!(one.json()["hash"], sha256(b"one"));
    let (one, two) = (format!("\"{}\"", sha256(b"one")), format!("\"{}\"", sha256(b"two")));
    app.put_with("a.txt", &[("if-match", &two)], "lost").await.error(412, "precondition_failed");
    app.put_with("a.txt", &[("if-match", &format!("W/{one}"))], "lost")
        .await
        .error(412, "precondition_failed");
    app.put_with("a.txt", &[("if-match", &one)], "two").await.expect(200);
    app.put_with("a.txt", &[("if-match", &one)], "lost").await.error(412, "precondition_failed");
    app.put_with("a.txt", &[("if-none-match", &two)], "lost").await.error(412, "precondition_failed");
    app.put_with("a.txt", &[("if-match", &format!("{one}, {two}"))], "three").await.expect(200);
    app.put_with("a.txt", &[("if-match", "*")], "four").await.expect(200);
    app.put_with("new.txt", &[("if-match", "*")], "lost").await.error(412, "precondition_failed");
    assert_eq!(app.download("a.txt").await, b"four");
    assert_eq!(app.names().await, ["a.txt"]);
    app.nothing_is_left().await;
}

/// What a GET says of a file and what a PUT's condition is held against must be the same.
#[tokio::test]
async fn conditions_see_what_really_stands_there() {
    let app = TestApp::start().await;
    app.put("changed.txt", "as uploaded").await.expect(201);
    app.put("removed.txt", "as uploaded").await.expect(201);
    let etag = app.get("/files/changed.txt").await.header("etag").to_owned();
    app.place("changed.txt", b"put there by hand");
    app.place("by-hand.txt", b"put there by hand");
    std::fs::remove_file(app.storage().join("removed.txt")).unwrap();

    app.put_with("changed.txt", &[("if-match", &etag)], "lost").await.error(412, "precondition_failed");
    assert_eq!(app.download("changed.txt").await, b"put there by hand");
    app.put_with("by-hand.txt", &[("if-none-match", "*")], "lost").await.error(409, "already_exists");
    app.put_with("by-hand.txt", &[("if-match", "*")], "replaced").await.expect(200);
    app.put_with("removed.txt", &[("if-match", "*")], "lost").await.error(412, "precondition_failed");
    app.put_with("removed.txt", &[("if-none-match", "*")], "back").await.expect(201);
    assert_eq!(app.download("removed.txt").await, b"back");
}
