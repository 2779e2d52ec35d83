//! A kill in the middle of a long request: what has come since the last mark is lost, and nothing before it.

use super::Server;
use crate::support::content;

const MIB: usize = 1 << 20;
/// What comes in one request is made durable after so many bytes.
const MARK: usize = 32 * MIB;
/// So much can be underway between network and disk.
const UNDERWAY: usize = 12 * MIB;

#[tokio::test]
async fn what_a_long_request_has_brought_survives_a_kill_up_to_the_last_mark() {
    let length = 2 * MARK + 30 * MIB;
    let bytes = content(length, 11);
    for durability in ["process", "power"] {
        let directory = tempfile::tempdir().expect("a directory");
        let mut server = Server::start(directory.path(), &[("DURABILITY", durability)]).await;
        for sealed in [false, true] {
            let name = format!("long-{sealed}.bin");
            let path = server.create(&name, length, sealed).await;
            let mut offset = 0;
            // The second request begins in the middle of a segment, and its mark is its own.
            for sent in [MARK + UNDERWAY + 1001, MARK + UNDERWAY] {
                let raw = server.hanging(&name, &path, offset, length, &bytes[offset..offset + sent]).await;
                server.kill_and_restart().await;
                drop(raw);
                let kept = server.offset(&path).await;
                let range = offset + MARK..=offset + sent;
                assert!(range.contains(&kept), "{name}, {durability}: {kept} is not within {range:?}");
                offset = kept;
            }
            server.patch(&path, offset, &bytes[offset..]).await.expect(204);
            assert!(server.download(&name).await == bytes, "{name}, {durability}");
        }
    }
}
