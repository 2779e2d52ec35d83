//! A disk that is full in the middle of an upload.

use rustix::process::Signal;

use super::Server;
use crate::support::disk::{KINDS, SmallDisk};
use crate::support::{Answer, content};

const MIB: usize = 1 << 20;

#[track_caller]
fn full(answer: &Answer) {
    answer.error(507, "storage_full");
}

/// Runs a test on each kind of file system that can be mounted.
async fn on_each<F: Future<Output = ()>>(mib: u64, test: impl Fn(SmallDisk) -> F) {
    for kind in KINDS {
        if let Some(disk) = SmallDisk::mount(kind, mib) {
            println!("{kind}");
            test(disk).await;
        }
    }
}

/// A PATCH and a chunk that find no room are refused, what was there before them stays, and they go on once there is room.
#[tokio::test]
async fn an_upload_that_finds_the_disk_full_goes_on_once_there_is_room() {
    on_each(48, |disk| async move {
        let mut server = Server::start(disk.path(), &[]).await;
        let bytes = content(6 * MIB, 1);
        let mut paths = Vec::new();
        for sealed in [false, true] {
            let path = server.create(&format!("{sealed}.tus"), bytes.len(), sealed).await;
            server.patch(&path, 0, &bytes[..MIB + 1]).await.expect(204);
            paths.push((path, sealed));
            for number in [0, 4] {
                server.chunk(&format!("{sealed}.chunks"), &bytes, MIB, number, sealed).await.expect(200);
            }
        }
        let small = server.create("small.txt", 5, false).await;
        disk.fill_but(300_000);
        for _ in 0..3 {
            for (path, sealed) in &paths {
                full(&server.patch(path, MIB + 1, &bytes[MIB + 1..]).await);
                assert_eq!(server.offset(path).await, MIB + 1);
                for number in [1, 2, 3] {
                    full(&server.chunk(&format!("{sealed}.chunks"), &bytes, MIB, number, *sealed).await);
                }
                assert_eq!(server.received(&format!("{sealed}.chunks")).await, [0, 4]);
            }
        }
        // Others go on.
        server.patch(&small, 0, b"hello").await.expect(204);
        assert_eq!(server.download("small.txt").await, b"hello");
        server.kill_and_restart().await;
        for (path, sealed) in &paths {
            assert_eq!(server.offset(path).await, MIB + 1);
            assert_eq!(server.received(&format!("{sealed}.chunks")).await, [0, 4]);
            full(&server.patch(path, MIB + 1, &bytes[MIB + 1..]).await);
        }
        assert_eq!(server.names().await, ["small.txt"]);
        disk.empty();
        for (path, sealed) in &paths {
            server.patch(path, MIB + 1, &bytes[MIB + 1..]).await.expect(204);
            assert!(server.download(&format!("{sealed}.tus")).await == bytes);
            let name = format!("{sealed}.chunks");
            for number in [1, 5, 2, 3] {
                server.chunk(&name, &bytes, MIB, number, *sealed).await.expect(200);
            }
            assert!(server.download(&name).await == bytes);
            // There is not room for all of them at once.
            for name in [name, format!("{sealed}.tus")] {
                let path = disk.path().join("storage").join(if *sealed { ".sft/encrypted" } else { "" });
                std::fs::remove_file(path.join(name)).expect("removed");
            }
        }
        server.process.signal(Signal::TERM);
        assert!(server.process.ended().await.success(), "{}", server.process.log());
    })
    .await;
}

/// Somebody else takes the last byte while a PATCH is underway: it is cut short, and what has been acknowledged before is there.
#[tokio::test]
async fn a_patch_on_a_disk_that_fills_up_while_it_runs() {
    on_each(32, |disk| async move {
        let mut server = Server::start(disk.path(), &[]).await;
        let bytes = content(20 * MIB, 2);
        for sealed in [false, true] {
            let name = format!("{sealed}.bin");
            let path = server.create(&name, bytes.len(), sealed).await;
            server.patch(&path, 0, &bytes[..100_000]).await.expect(204);
            // It does not say how much will come, so no room is set aside for it.
            let pieces: Vec<_> = bytes[100_000..].chunks(MIB).map(<[u8]>::to_vec).collect();
            let (go, wait) = tokio::sync::oneshot::channel();
            let mut wait = Some(wait);
            let body = futures_util::stream::iter(pieces.into_iter().enumerate());
            let body = futures_util::StreamExt::then(body, move |(number, piece)| {
                let wait = wait.take_if(|_| number == 4);
                async move {
                    if let Some(wait) = wait {
                        _ = wait.await;
                    }
                    Ok::<_, std::io::Error>(piece)
                }
            });
            let fill = async {
                while server.status(&name).await["transferred_bytes"].as_u64() < Some(4 * MIB as u64) {
                    tokio::task::yield_now().await;
                }
                disk.fill_but(0);
                _ = go.send(());
            };
            let headers = [super::VERSION, super::BYTES, ("Upload-Offset", "100000")];
            let patched = server.send("PATCH", &path, &headers, reqwest::Body::wrap_stream(body));
            full(&tokio::join!(patched, fill).0);
            assert!(server.offset(&path).await >= 100_000);
            server.kill_and_restart().await;
            let at = server.offset(&path).await;
            assert!(at >= 100_000);
            disk.empty();
            server.patch(&path, at, &bytes[at..]).await.expect(204);
            assert!(server.download(&name).await == bytes);
            let directory = disk.path().join("storage").join(if sealed { ".sft/encrypted" } else { "" });
            std::fs::remove_file(directory.join(&name)).expect("removed");
        }
    })
    .await;
}

/// Room that was set aside for a PATCH that broke off is not in its own way when it goes on.
#[tokio::test]
async fn what_was_set_aside_for_an_upload_is_there_for_it() {
    on_each(32, |disk| async move {
        let server = Server::start(disk.path(), &[]).await;
        for sealed in [false, true] {
            let (name, bytes) = (format!("{sealed}.bin"), content(20 * MIB, 3));
            let path = server.create(&name, bytes.len(), sealed).await;
            for at in [0, 2 * MIB] {
                drop(server.hanging(&name, &path, at, bytes.len(), &bytes[at..at + 2 * MIB]).await);
                assert_eq!(server.offset(&path).await, at + 2 * MIB);
            }
            // And it is there for others who need it meanwhile.
            let other = content(10 * MIB, 4);
            server.send("PUT", "/files/other", &[], other).await.expect(if sealed { 200 } else { 201 });
            server.send("PUT", "/files/other", &[], "small").await.expect(200);
            server.patch(&path, 4 * MIB, &bytes[4 * MIB..]).await.expect(204);
            assert!(server.download(&name).await == bytes);
            let directory = disk.path().join("storage").join(if sealed { ".sft/encrypted" } else { "" });
            std::fs::remove_file(directory.join(&name)).expect("removed");
        }
    })
    .await;
}

/// All has come, and there is no room to write down that it is complete. It is published as soon as there is, without a byte
/// sent again.
#[tokio::test]
async fn an_upload_that_cannot_be_published_is_published_later() {
    on_each(16, |disk| async move {
        for again in [false, true] {
            let directory = tempfile::tempdir().expect("a directory");
            let status = disk.path().join(format!("status-{again}.json"));
            let settings = [("LOG_FILE", status.to_str().expect("UTF-8"))];
            let mut server = Server::start(directory.path(), &settings).await;
            let bytes = content(300_000, 5);
            let mut uploads = Vec::new();
            for sealed in [false, true] {
                let path = server.create(&format!("{sealed}.tus"), bytes.len(), sealed).await;
                server.patch(&path, 0, &bytes[..100_000]).await.expect(204);
                for number in [0, 2] {
                    server
                        .chunk(&format!("{sealed}.chunks"), &bytes, 100_000, number, sealed)
                        .await
                        .expect(200);
                }
                // Some clients send an empty chunk at the end: then the file ends with the one before.
                for (number, piece) in bytes.chunks(100_000).enumerate() {
                    let name = format!("{sealed}.empty");
                    server.chunk_of(&name, piece, number, 4, sealed).await.expect(200);
                }
                uploads.push((path, sealed));
            }
            disk.fill_but(0);
            // Room that was set aside may still be used up.
            let mut number = 0;
            let id = [("X-Client-ID", "i".repeat(250))];
            let id = id.each_ref().map(|(name, value)| (*name, value.as_str()));
            while server.send("PUT", &format!("/files/{number}"), &id, "x").await.status != 507 {
                number += 1;
            }
            for (path, sealed) in &uploads {
                full(&server.patch(path, 100_000, &bytes[100_000..]).await);
                assert_eq!(server.head(path).await.status, 507);
                full(&server.chunk(&format!("{sealed}.chunks"), &bytes, 100_000, 1, *sealed).await);
                full(&server.chunk(&format!("{sealed}.chunks"), &bytes, 100_000, 1, *sealed).await);
            }
            for (_, sealed) in &uploads {
                full(&server.chunk_of(&format!("{sealed}.empty"), b"", 3, 4, *sealed).await);
            }
            if again {
                // The start finds no room either, for any of them.
                server.kill_and_restart().await;
                server.process.logged("are published when they are asked for").await;
                assert_eq!(server.get("/files?limit=1").await["total_count"], number);
            }
            disk.empty();
            for (path, sealed) in &uploads {
                assert_eq!(server.offset(path).await, bytes.len());
                assert!(server.download(&format!("{sealed}.tus")).await == bytes);
                let name = format!("{sealed}.chunks");
                let last = server.chunk(&name, &bytes, 100_000, 0, *sealed).await.expect(200);
                assert_eq!(last.json()["status"], "completed");
                assert!(server.download(&name).await == bytes);
                let name = format!("{sealed}.empty");
                assert_eq!(server.received(&name).await, [0, 1, 2, 3]);
                let last = server.chunk_of(&name, b"", 3, 4, *sealed).await.expect(200);
                assert_eq!(last.json()["status"], "completed");
                assert!(server.download(&name).await == bytes);
            }
            server.kill_and_restart().await;
            assert_eq!(server.get("/files?limit=1").await["total_count"], number + 6);
            server.process.kill();
            std::fs::remove_file(&status).expect("removed");
        }
    })
    .await;
}
