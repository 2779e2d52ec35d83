//! `sft decrypt`

use super::harness::{KEY, Place, older, older_content};
use crate::support::{content, sha256};

const KEYED: [(&str, &str); 1] = [("ENCRYPTION_KEY", KEY)];

#[tokio::test]
async fn what_a_server_gives_sealed_is_opened_offline() {
    // Empty; less than a segment; a segment; more than is opened at once, and not a multiple of anything.
    for length in [0, 1, 65_536, 2_500_001] {
        let bytes = content(length, 7);
        let place = Place::new();
        let app = place.server(&[("encryption_key", KEY)]).await;
        app.put("a.bin?encryption=true", bytes.clone()).await.expect(201);
        let container = app.get("/download/a.bin?decrypt=false").await.expect(200).body;
        app.stop().await;
        place.write("a.bin.sealed", &container);
        let done = place.sft(&KEYED, &["decrypt", "a.bin.sealed", "--json"]).await.exits(0).json();
        assert_eq!(place.read("a.bin"), Some(bytes.clone()), "{length}");
        assert_eq!((&done["hash"], &done["size"]), (&sha256(&bytes).into(), &length.into()));
        assert_eq!((&done["format"], &done["path"]), (&"container".into(), &"a.bin".into()));
        let piped = place.sft(&KEYED, &["decrypt", "a.bin.sealed", "-o", "-"]).await.exits(0);
        assert_eq!(piped.bytes(), bytes, "{length}");
    }
}

#[tokio::test]
async fn the_older_format_is_opened_too() {
    let place = Place::new();
    for (name, length) in [("secret-empty.bin", 0), ("secret-17.bin", 17), ("secret-300000.bin", 300_000)] {
        let file = older().join("storage/encrypted").join(name);
        let done = place
            .sft(&KEYED, &["decrypt", file.to_str().unwrap(), "-o", name, "--json"])
            .await
            .exits(0)
            .json();
        assert_eq!(done["format"], "older");
        assert_eq!(place.read(name), Some(older_content(name, length)), "{name}");
    }
    let tampered = older().join("storage/encrypted/secret-tampered.bin");
    let refused =
        place.sft(&KEYED, &["decrypt", tampered.to_str().unwrap(), "-o", "t", "--json"]).await.exits(1);
    assert_eq!(refused.json()["code"], "decryption_failed");
    assert_eq!(place.read("t"), None);
}

#[tokio::test]
async fn damage_anywhere_leaves_nothing_not_even_on_a_pipe() {
    let place = Place::with(&[("encryption_key", KEY)], &[("sealed", &content(3_000_000, 1))]).await;
    let container = place.read(place.container("sealed")).unwrap();
    // In the header, its key, the first segment, one in the middle, the last one; cut off at a segment's end.
    let cut = 48 + 20 * (65_536 + 24);
    for at in [Some(0), Some(20), Some(100), Some(1_500_000), Some(container.len() - 1), None] {
        place.write("a.enc", at.map_or(&container[..cut], |_| &container));
        if let Some(at) = at {
            place.damage("a.enc", at);
        }
        let before = place.everything();
        let failed = place.sft(&KEYED, &["decrypt", "a.enc"]).await.exits(1);
        assert!(failed.stderr().starts_with("error: a.enc: "), "{}", failed.stderr());
        let piped = place.sft(&KEYED, &["decrypt", "a.enc", "-o", "-"]).await.exits(1);
        assert_eq!(piped.bytes(), b"", "{at:?}");
        assert_eq!(place.everything(), before, "{at:?}");
    }
}

#[tokio::test]
async fn the_key_is_found_among_old_ones_in_a_file_or_where_it_was_made() {
    let bytes = content(1000, 2);
    let place = Place::with(&[], &[("sealed", &bytes)]).await;
    let container = place.container("sealed");
    let container = container.to_str().unwrap();
    let key = String::from_utf8(place.read("storage/.sft/secret.key").unwrap()).unwrap();
    let other = "another key that sealed nothing";
    let elsewhere = [("UPLOAD_DIR", "nowhere")];
    place.write("key.txt", format!("{key}\n").as_bytes());

    let open = ["decrypt", container, "-o", "-"];
    assert_eq!(place.sft(&[], &open).await.exits(0).bytes(), bytes);
    let old = [elsewhere[0], ("ENCRYPTION_KEY", other), ("ENCRYPTION_KEY_OLD", &key)];
    assert_eq!(place.sft(&old, &open).await.exits(0).bytes(), bytes);
    let with_file = ["decrypt", container, "-o", "-", "--encryption-key-file", "key.txt"];
    assert_eq!(place.sft(&elsewhere, &with_file).await.exits(0).bytes(), bytes);

    let none = place.sft(&elsewhere, &["decrypt", container, "-o", "x", "--json"]).await.exits(1).json();
    assert_eq!(none["code"], "no_key");
    let wrong = [elsewhere[0], ("ENCRYPTION_KEY", other)];
    let wrong = place.sft(&wrong, &["decrypt", container, "-o", "x", "--json"]).await.exits(1).json();
    assert_eq!(wrong["code"], "unknown_key");
    assert!(wrong["hint"].as_str().unwrap().contains("ENCRYPTION_KEY_OLD"), "{wrong}");
    assert_eq!(place.read("x"), None);
}

#[tokio::test]
async fn no_file_is_overwritten_and_nonsense_is_told() {
    let place = Place::with(&[("encryption_key", KEY)], &[("sealed", b"x")]).await;
    place.write("a", &place.read(place.container("sealed")).unwrap());
    place.sft(&KEYED, &["decrypt", "a", "-q"]).await.exits(0);
    assert_eq!(place.read("a.decrypted"), Some(b"x".to_vec()));
    for arguments in [&["decrypt", "a", "--json"][..], &["decrypt", "a", "-o", "a", "--json"]] {
        let before = place.everything();
        assert_eq!(place.sft(&KEYED, arguments).await.exits(1).json()["code"], "exists");
        assert_eq!(place.everything(), before);
    }
    let missing = place.sft(&KEYED, &["--json", "decrypt", "missing"]).await.exits(1).json();
    assert_eq!(missing["code"], "cannot_read");
    let directory = place.sft(&KEYED, &["--json", "decrypt", "storage"]).await.exits(1).json();
    assert_eq!(directory["code"], "cannot_read");
    place.write("plain.txt", b"a plain file is not sealed at all");
    let plain = place.sft(&KEYED, &["decrypt", "plain.txt"]).await.exits(1);
    assert!(plain.stderr().contains("no container"), "{}", plain.stderr());
    let short = [("ENCRYPTION_KEY", "short")];
    place.sft(&short, &["decrypt", "a", "-o", "b"]).await.exits(2);
}
