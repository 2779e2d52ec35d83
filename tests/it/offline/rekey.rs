//! `sft rekey`

use std::process::Stdio;

use super::harness::{KEY, Place};
use crate::support::content;
use crate::support::random::Random;

const NEW: &str = "a new key, which is a random one";
const OLD_KEY: [(&str, &str); 1] = [("encryption_key", KEY)];
const BOTH: [(&str, &str); 2] = [("ENCRYPTION_KEY", NEW), ("ENCRYPTION_KEY_OLD", KEY)];
const NEW_KEY: [(&str, &str); 1] = [("ENCRYPTION_KEY", NEW)];

#[tokio::test]
async fn a_new_key_takes_the_place_of_the_old_one() {
    let files: [(&str, &[u8]); 4] =
        [("plain", b"plain"), ("sealed", &content(2_500_000, 1)), ("sealed-empty", b""), ("sealed-2", b"2")];
    let place = Place::with(&OLD_KEY, &files).await;
    // Somebody's plain file beside a sealed one, which is neither served nor ours to remove.
    place.write("storage/sealed-2", b"by hand");
    let before: Vec<_> = {
        let app = place.server(&[("encryption_key", KEY)]).await;
        let mut seen = Vec::new();
        for (name, _) in files {
            seen.push((
                app.get(&format!("/download/{name}")).await.header("etag").to_owned(),
                app.status(name).await,
            ));
        }
        app.stop().await;
        seen
    };
    let plain = place.read("storage/plain");

    let report = place.sft(&BOTH, &["rekey", "--json"]).await.exits(0).json();
    assert_eq!(
        (&report["resealed"], &report["current"], &report["bytes"]),
        (&3.into(), &0.into(), &2_500_001.into())
    );
    let again = place.sft(&BOTH, &["rekey", "--json"]).await.exits(0).json();
    assert_eq!((&again["resealed"], &again["current"]), (&0.into(), &3.into()));
    assert_eq!(place.read("storage/plain"), plain);
    assert_eq!(place.read("storage/sealed-2"), Some(b"by hand".to_vec()));
    std::fs::remove_file(place.storage().join("sealed-2")).unwrap();
    place.sft(&NEW_KEY, &["verify"]).await.exits(0);

    let app = place.server(&[("encryption_key", NEW)]).await;
    for ((name, bytes), (etag, status)) in files.iter().zip(before) {
        let got = app.get(&format!("/download/{name}")).await.expect(200);
        assert_eq!((got.body.as_slice(), got.header("etag")), (*bytes, etag.as_str()), "{name}");
        let now = app.status(name).await;
        for member in ["id", "created_at", "updated_at", "checksum", "encryption", "status"] {
            assert_eq!(now[member], status[member], "{name}: {member}");
        }
    }
    assert!(app.leftovers().is_empty());
}

#[tokio::test]
async fn a_key_that_was_made_gives_way_to_one_that_is_set() {
    let place = Place::with(&[], &[("sealed", b"x")]).await;
    place.sft(&NEW_KEY, &["rekey"]).await.exits(0);
    std::fs::remove_file(place.storage().join(".sft/secret.key")).unwrap();
    place.sft(&NEW_KEY, &["verify"]).await.exits(0);
}

#[tokio::test]
async fn what_cannot_be_done_stays_as_it_was_and_the_others_are_done() {
    let bytes = content(300_000, 3);
    let files: [(&str, &[u8]); 4] =
        [("sealed-a", &bytes), ("sealed-damaged", &bytes), ("sealed-gone", b"x"), ("sealed-z", &bytes)];
    let place = Place::with(&OLD_KEY, &files).await;
    place.damage(place.container("sealed-damaged"), 1000);
    std::fs::remove_file(place.container("sealed-gone")).unwrap();
    let damaged = place.read(place.container("sealed-damaged"));

    // Without the old key nothing is done.
    let before: Vec<_> = files.map(|(name, _)| place.read(place.container(name))).into();
    let report = place.sft(&NEW_KEY, &["rekey", "--json"]).await.exits(1).json();
    assert_eq!((&report["resealed"], &report["bad"][0]["code"]), (&0.into(), &"unknown_key".into()));
    assert_eq!(files.map(|(name, _)| place.read(place.container(name))).to_vec(), before);

    let report = place.sft(&BOTH, &["rekey", "--json"]).await.exits(1).json();
    assert_eq!((&report["resealed"], &report["code"]), (&2.into(), &"rekey_incomplete".into()));
    let bad: Vec<_> =
        report["bad"].as_array().unwrap().iter().map(|bad| (&bad["code"], &bad["filename"])).collect();
    // The one that is gone was told of when the directory was opened, and stands for nothing any more.
    assert_eq!(bad, [(&"damaged".into(), &"sealed-damaged".into())]);
    assert_eq!(place.read(place.container("sealed-damaged")), damaged);
    let text = place.sft(&BOTH, &["rekey"]).await.exits(1);
    assert!(text.stdout().starts_with("damaged: sealed-damaged: segment 0 "), "{}", text.stdout());
    assert!(text.stderr().contains("sealed-gone"), "{}", text.stderr());
}

#[tokio::test]
async fn a_container_that_was_replaced_before_that_was_written_down_is_the_right_one() {
    let bytes = content(200_000, 4);
    let place = Place::with(&OLD_KEY, &[("sealed", &bytes)]).await;
    let status = place.read("status.json").unwrap();
    place.sft(&BOTH, &["rekey"]).await.exits(0);
    // As if it had been killed between the two.
    for (path, _) in place.everything() {
        if path.file_name().unwrap().to_str().unwrap().starts_with("status.json") {
            std::fs::remove_file(path).unwrap();
        }
    }
    place.write("status.json", &status);
    let app = place.server(&[("encryption_key", NEW)]).await;
    assert_eq!(app.download("sealed").await, bytes);
    app.stop().await;
    let again = place.sft(&BOTH, &["rekey", "--json"]).await.exits(0).json();
    assert_eq!((&again["resealed"], &again["current"]), (&0.into(), &1.into()));
}

#[tokio::test]
async fn killed_again_and_again_it_comes_to_its_end_and_loses_nothing() {
    let seed = Random::seed("SFT_REKEY_SEED");
    println!("SFT_REKEY_SEED={seed}");
    let mut random = Random::new(seed);
    let contents: Vec<_> =
        (0..60).map(|n| (format!("sealed-{n:02}"), content(random.within(0..200_000) as usize, n))).collect();
    let files: Vec<_> = contents.iter().map(|(name, bytes)| (name.as_str(), bytes.as_slice())).collect();
    let place = Place::with(&OLD_KEY, &files).await;
    let old: Vec<_> = files.iter().map(|(name, _)| place.read(place.container(name))).collect();
    let mut killed = 0;
    for round in 0..6 {
        let mut child =
            place.command(&BOTH, &["rekey"]).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        // As soon as this one, or one that is not there, is another; and then a little later.
        let which = (round * 10 + random.within(0..9) as usize).min(files.len() - 1);
        while child.try_wait().unwrap().is_none() && place.read(place.container(files[which].0)) == old[which]
        {
        }
        for _ in 0..random.within(0..200) {
            std::hint::black_box(place.read(place.container(files[which].0)));
        }
        killed += usize::from(child.try_wait().unwrap().is_none());
        _ = child.kill();
        _ = child.wait();
        if round == 2 {
            // A server may run in between.
            let app = place.server(&[("encryption_key", NEW), ("encryption_key_old", KEY)]).await;
            for (name, bytes) in &files {
                assert_eq!(app.download(name).await, *bytes, "{name}");
            }
            app.stop().await;
        }
    }
    assert!(killed > 0, "it was never killed");
    place.sft(&BOTH, &["rekey"]).await.exits(0);
    let report = place.sft(&NEW_KEY, &["verify", "--json"]).await.exits(0).json();
    assert_eq!(report["checked"], files.len());
    let app = place.server(&[("encryption_key", NEW)]).await;
    for (name, bytes) in &files {
        assert_eq!(app.download(name).await, *bytes, "{name}");
        assert_eq!(app.status(name).await["status"], "completed");
    }
    assert!(app.leftovers().is_empty());
}
