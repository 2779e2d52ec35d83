//! Names: whatever a client sends becomes one safe component, and can be asked for as it was sent.

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};

use crate::support::{Answer, Form, TestApp};

/// A name as it is sent, and as it is stored.
const NAMES: [(&str, &str); 24] = [
    ("plain.txt", "plain.txt"),
    ("two words.txt", "two words.txt"),
    ("  around  .txt ", "around  .txt"),
    ("CamelCase.TXT", "CamelCase.TXT"),
    // é as e and an accent (as macOS sends it) is é in one character.
    ("re\u{301}sume\u{301}.txt", "résumé.txt"),
    ("résumé.txt", "résumé.txt"),
    ("文件 ファイル 📎.txt", "文件 ファイル 📎.txt"),
    ("../../etc/passwd", "passwd"),
    ("/etc/passwd", "passwd"),
    ("C:\\x\\y.txt", "y.txt"),
    ("..\\..\\boot.ini", "boot.ini"),
    ("a/b\\c.txt", "c.txt"),
    (".env", "env"),
    ("..hidden", "hidden"),
    ("trailing.dots...", "trailing.dots"),
    ("CON", "_CON"),
    ("nul.txt", "_nul.txt"),
    ("Lpt1.log", "_Lpt1.log"),
    ("con.tar.gz", "_con.tar.gz"),
    ("a<b>c:d|e?f*g.txt", "abcdefg.txt"),
    ("100% of a;b&c=d+e#f.txt", "100% of a;b&c=d+e#f.txt"),
    ("it's (1) [2] {3} ~ ^ ` @ ! $.txt", "it's (1) [2] {3} ~ ^ ` @ ! $.txt"),
    ("evil\u{202e}gpj.exe", "evilgpj.exe"),
    ("tab\there\u{7}.txt", "tabhere.txt"),
];

fn encoded(name: &str) -> String {
    utf8_percent_encode(name, NON_ALPHANUMERIC).to_string()
}

/// A request with the name in its path as it is: a client library would take `%2e%2e` for a way out.
async fn asked(app: &TestApp, method: &str, path: &str, name: &str) -> Answer {
    let mut raw = app.connect().await;
    raw.send_head(&format!("{method} /{path}/{}", encoded(name)), &[]).await;
    raw.answer().await
}

#[tokio::test]
async fn a_name_is_stored_clean_and_can_be_asked_for_as_it_was_sent() {
    let app = TestApp::start().await;
    for (raw, clean) in NAMES {
        let field = app.post(Form::with_file("x", b"1").field("filename", raw)).await;
        let query = format!("/upload?filename={}", encoded(raw));
        let query = app.post_to(&query, &[], Form::with_file("x", b"2")).await;
        let path = app.put(&encoded(raw), "3").await;
        for answer in [field, query, path] {
            assert_eq!(answer.json()["filename"], clean, "{raw:?}");
        }
        // A header can't hold it as it is: a browser would encode it, and nobody sends it.
        if !raw.contains('\u{7}') {
            let part = app.post(Form::with_file(raw, b"4")).await;
            assert_eq!(part.expect(200).json()["filename"], clean, "{raw:?}");
        }
        for asked in [raw, clean] {
            let asked = encoded(asked);
            let status = app.status(&asked).await;
            assert_eq!(status["filename"], clean, "{raw:?}");
            let length = app.send("HEAD", &format!("/files/{asked}"), &[], "").await.expect(200);
            assert_eq!(length.header("content-length"), "1", "{raw:?}");
            assert!(b"34".contains(&app.download(&asked).await[0]), "{raw:?}");
        }
        assert!(app.storage().join(clean).is_file(), "{raw:?}");
        std::fs::remove_file(app.storage().join(clean)).unwrap();
        let mut left = std::fs::read_dir(app.storage()).unwrap().map(|entry| entry.unwrap().file_name());
        assert!(left.all(|name| name == ".sft"), "{raw:?} went somewhere else");
    }
    let outside = std::fs::read_dir(app.directory()).unwrap().map(|entry| entry.unwrap().file_name());
    for name in outside {
        let name = name.to_str().unwrap().to_owned();
        assert!(
            name == "storage" || name.starts_with("status.json"),
            "{name} is outside of the storage directory"
        );
    }
}

#[tokio::test]
async fn names_of_which_nothing_is_left_or_that_are_too_long_are_refused() {
    let app = TestApp::start().await;
    let (longest, too_long) = ("é".repeat(127) + "x", "x".repeat(300));
    assert_eq!(longest.len(), 255);
    app.put(&encoded(&longest), "1").await.expect(201);
    app.post(Form::with_file(&longest, b"2")).await.expect(200);
    app.post(Form::with_file("x", b"3").field("filename", &longest)).await.expect(200);
    assert_eq!(app.download(&encoded(&longest)).await, b"3");
    assert_eq!(app.names().await, [longest.as_str()]);

    for raw in [&too_long, &(longest + "y"), ".", "..", "....", "a/", "a\\", "\u{1}", "<>", "/"] {
        asked(&app, "PUT", "files", raw).await.error(400, "invalid_filename");
        app.post(Form::with_file("x", b"1").field("filename", raw)).await.error(400, "invalid_filename");
        let query = format!("/upload?filename={}", encoded(raw));
        app.post_to(&query, &[], Form::with_file("x", b"1")).await.error(400, "invalid_filename");
        for path in ["download", "files", "status"] {
            asked(&app, "GET", path, raw).await.error(400, "invalid_filename");
        }
        // A backslash before the quotation mark would escape it.
        if !raw.contains('\u{1}') && !raw.ends_with('\\') {
            app.post(Form::with_file(raw, b"1")).await.error(400, "invalid_filename");
        }
    }
    assert_eq!(app.names().await.len(), 1);
    app.put("%ff%fe", "no UTF-8").await.error(400, "invalid_filename");
    app.nothing_is_left().await;
}

#[tokio::test]
async fn a_path_never_leads_out_of_the_storage_directory() {
    let app = TestApp::start().await;
    std::fs::create_dir(app.storage().join("directory")).unwrap();
    app.place("directory/inner.txt", b"inner");
    for path in [
        "/download/..%2fstatus.json",
        "/download/..%2f..%2f..%2f..%2fetc%2fpasswd",
        "/download/%2e%2e%2fstatus.json",
        "/download/.sft%2flock",
        "/download/.sft",
        "/download/..%5cstatus.json",
        "/download/%2fetc%2fpasswd",
        "/download/directory%2finner.txt",
        "/files/directory%2finner.txt",
        "/files/..%2fstatus.json",
    ] {
        app.get(path).await.error(404, "not_found");
    }
    // As they are, not as a client library would make them.
    for target in
        ["/download/../status.json", "/download/../../../../etc/passwd", "//etc/passwd", "/files/a/../../b"]
    {
        let mut raw = app.connect().await;
        raw.send_head(&format!("GET {target}"), &[]).await;
        raw.answer().await.error(404, "unknown_path");
    }
}

/// Browsers, curl and `requests` write what a quoted name can't hold as %22, %0D and %0A (WHATWG HTML, multipart/form-data);
/// older ones write a backslash before it.
#[tokio::test]
async fn the_name_of_a_part_is_read_however_clients_write_it() {
    let app = TestApp::start().await;
    let part = |parameters: &str| {
        Form::new().part(&format!("Content-Disposition: form-data; name=\"file\"; {parameters}"), b"1")
    };
    for (parameters, expected) in [
        ("filename=\"a%22b%0D%0A.txt\"", "ab.txt"),
        ("filename=\"a\\\"b.txt\"", "ab.txt"),
        ("filename=\"100%25.txt\"", "100%25.txt"),
        ("filename=\"a;b=c; name=d.txt\"", "a;b=c; name=d.txt"),
        ("filename=plain.txt", "plain.txt"),
        ("FileName=\"case.txt\"", "case.txt"),
        ("filename = \"spaced.txt\"", "spaced.txt"),
        // RFC 5987, as older urllib3 (`requests`) writes a name that is no ASCII.
        ("filename*=utf-8''r%C3%A9sum%C3%A9.txt", "résumé.txt"),
        ("filename=\"resume.txt\"; filename*=UTF-8''r%C3%A9sum%C3%A9.txt", "résumé.txt"),
        ("filename*=UTF-8''r%C3%A9sum%C3%A9.txt; filename=\"resume.txt\"", "résumé.txt"),
        ("filename*=UTF-8''..%2F..%2Fpasswd", "passwd"),
        ("filename*=iso-8859-1'en'%A3.txt; filename=\"pound.txt\"", "pound.txt"),
        ("filename=\"C:\\x\\y.txt\"", "y.txt"),
        ("filename=\"C:\\\\x\\\\y.txt\"", "y.txt"),
    ] {
        let answer = app.post(part(parameters)).await;
        assert_eq!(answer.json()["filename"], expected, "{parameters}");
    }
    let reversed = "Content-Disposition: form-data; filename=\"x; name=evil; y.txt\"; name=\"file\"";
    let answer = app.post(Form::new().part(reversed, b"1")).await.expect(200);
    assert_eq!(answer.json()["filename"], "x; name=evil; y.txt");
    // Without a name at all, another one will do, and none will not.
    let nameless = || Form::new().part("Content-Disposition: form-data; name=\"file\"", b"1");
    app.post(nameless().field("filename", "given.txt")).await.expect(200);
    app.post(nameless()).await.error(400, "invalid_filename");
}
