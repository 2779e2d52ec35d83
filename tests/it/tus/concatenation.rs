//! Concatenation.

use super::{BYTES, VERSION, head, metadata, offset, patch, post, with};
use crate::support::secret::{holding, marked};
use crate::support::{Answer, TestApp, content};

async fn part(app: &TestApp, bytes: &[u8]) -> String {
    let length = bytes.len().to_string();
    let headers = [("Upload-Concat", "partial"), ("Upload-Length", length.as_str()), BYTES];
    let created = post(app, &headers, bytes.to_vec()).await.expect(201);
    created.header("location").to_owned()
}

async fn join(app: &TestApp, filename: &str, parts: &[&str]) -> Answer {
    let (concat, metadata) = (format!("final;{}", parts.join(" ")), metadata(&[("filename", filename)]));
    post(app, &[("Upload-Concat", &concat), ("Upload-Metadata", &metadata)], "").await
}

/// In the order of the list, whatever the order in which they came; the length is the sum; HEAD echoes the header.
#[tokio::test]
async fn parts_are_joined_in_the_order_of_the_list() {
    let app = TestApp::start().await;
    let bytes = content(300_000, 4);
    let last = part(&app, &bytes[200_000..]).await;
    let first = part(&app, &bytes[..50_000]).await;
    let middle = part(&app, &bytes[50_000..200_000]).await;
    for path in [&first, &middle, &last] {
        let told = head(&app, path).await.expect(200);
        assert_eq!(told.header("upload-concat"), "partial");
        assert!(!told.header("upload-offset").is_empty());
    }
    assert!(app.names().await.is_empty(), "a part is no file");
    let middle = app.url(&middle);
    let joined = join(&app, "a.bin", &[&first, &middle, &last]).await.expect(201);
    let path = joined.header("location");
    let again = join(&app, "a.bin", &[&first, &middle, &last]).await.expect(201);
    assert_eq!(again.header("location"), path, "whose answer was lost asks again");
    let told = head(&app, path).await.expect(200);
    assert_eq!(told.header("upload-concat"), format!("final;{first} {middle} {last}"));
    assert_eq!((told.header("upload-offset"), told.header("upload-length")), ("300000", "300000"));
    assert!(app.download("a.bin").await == bytes);
    // "The Server MUST respond with the 403 Forbidden status to PATCH requests against a final upload URL."
    for (at, body) in [(300_000, ""), (300_000, "more"), (0, "anew")] {
        patch(&app, path, at, &[], body).await.error(403, "joined");
    }
    assert!(app.download("a.bin").await == bytes);
}

/// URLs of parts may be absolute or relative.
#[tokio::test]
async fn parts_are_named_by_any_kind_of_url() {
    let app = TestApp::start().await;
    let (one, two) = (part(&app, b"hello ").await, part(&app, b"world").await);
    let absolute = app.url(&one);
    let joined = join(&app, "a.txt", &[&absolute, &two]).await.expect(201);
    assert_eq!(app.download("a.txt").await, b"hello world");
    assert_eq!(offset(&app, joined.header("location")).await, 11);
    let three = part(&app, b"alone").await;
    let relative = three.rsplit('/').next().unwrap();
    join(&app, "b.txt", &[relative]).await.expect(201);
    assert_eq!(app.download("b.txt").await, b"alone");
}

#[tokio::test]
async fn what_is_no_part_is_not_joined() {
    let app = TestApp::start().await;
    let done = part(&app, b"hello").await;
    let open = post(&app, &[("Upload-Concat", "partial"), ("Upload-Length", "5")], "").await.expect(201);
    let open = open.header("location");
    let whole = super::begin(&app, "whole.txt", &[("Upload-Length", "5")]).await;
    for parts in
        [&[done.as_str(), open][..], &[&whole], &[&done, "/uploads/01890000-0000-7000-8000-000000000000"]]
    {
        join(&app, "a.txt", parts).await.error(400, "invalid_parts");
    }
    for (concat, length, code) in [
        ("final;".to_owned(), None, "invalid_upload_concat"),
        ("final;/uploads/nonsense".to_owned(), None, "invalid_upload_concat"),
        // "The Client MUST NOT include the Upload-Length header in the final upload creation."
        (format!("final;{done}"), Some(("Upload-Length", "5")), "invalid_upload_length"),
    ] {
        let metadata = metadata(&[("filename", "a.txt")]);
        let headers = [("Upload-Concat", concat.as_str()), ("Upload-Metadata", &metadata)];
        let headers: Vec<_> = headers.into_iter().chain(length).collect();
        post(&app, &headers, "").await.error(400, code);
    }
    let nameless = format!("final;{done}");
    post(&app, &[("Upload-Concat", &nameless)], "").await.error(400, "invalid_filename");
    // They are as before: the one is still there, the other goes on.
    assert_eq!(offset(&app, &done).await, 5);
    patch(&app, open, 0, &[], "world").await.expect(204);
    join(&app, "a.txt", &[&done, open]).await.expect(201);
    assert_eq!(app.download("a.txt").await, b"helloworld");
}

/// "encryption" in the metadata: also of parts, and of what is joined of them.
#[tokio::test]
async fn nothing_of_a_sealed_upload_is_on_the_disk() {
    let app = TestApp::start().await;
    let (bytes, marker) = marked(600_000);
    let sealed = |filename| metadata(&[("filename", filename), ("encryption", "true")]);
    let metadata = sealed("a.bin");
    let headers = [("Upload-Length", "600000"), ("Upload-Metadata", metadata.as_str()), BYTES];
    let created = post(&app, &headers, bytes[..100_001].to_vec()).await.expect(201);
    let path = created.header("location");
    assert!(holding(app.directory(), marker).is_empty(), "after the first bytes");
    patch(&app, path, 100_001, &[], bytes[100_001..300_002].to_vec()).await.expect(204);
    assert!(holding(app.directory(), marker).is_empty(), "in the middle");
    patch(&app, path, 300_002, &[], bytes[300_002..].to_vec()).await.expect(204);
    assert!(holding(app.directory(), marker).is_empty(), "at the end");
    assert!(app.download("a.bin").await == bytes);
    assert_eq!(app.status("a.bin").await["encryption"], true);

    let mut parts = Vec::new();
    let metadata = sealed("b.bin");
    for piece in bytes.chunks(250_000) {
        let length = piece.len().to_string();
        let headers = with(&[("Upload-Concat", "partial"), ("Upload-Length", &length), BYTES]);
        let created =
            app.send("POST", "/uploads/?encryption=true", &headers, piece.to_vec()).await.expect(201);
        parts.push(created.header("location").to_owned());
    }
    assert!(holding(app.directory(), marker).is_empty(), "in parts");
    let concat = format!("final;{}", parts.join(" "));
    let headers = [VERSION, ("Upload-Concat", &concat), ("Upload-Metadata", &metadata)];
    app.send("POST", "/uploads/", &headers, "").await.expect(201);
    assert!(holding(app.directory(), marker).is_empty(), "joined");
    assert!(app.download("b.bin").await == bytes);
    assert_eq!(app.status("b.bin").await["encryption"], true);
}
