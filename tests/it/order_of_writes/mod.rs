//! The order in which the server really writes, flushes, renames and answers, as `strace` sees it.

mod resumable;
mod rule;
mod trace;

use std::ffi::OsStr;
use std::path::Path;
use std::process::{Command, Stdio};

use reqwest::{Body, Client, Response};
use rustix::process::Signal;

use self::rule::{Acknowledged, Durability, Paths};
use self::trace::Call;
use crate::support::process::Process;
use crate::support::{content, http_client};

const CALLS: &str = "trace=openat,creat,write,pwrite64,writev,pwritev,pwritev2,sendto,sendmsg,copy_file_range,fsync,fdatasync,\
    sync_file_range,rename,renameat,renameat2,link,linkat,ftruncate,fallocate,utimensat,mkdir,mkdirat";

/// The calls of a server under which `work` was done; `None`, with a word, where nothing can be traced.
async fn traced<F: Future<Output = ()>>(
    directory: &Path,
    durability: &str,
    work: impl FnOnce(String, Client) -> F,
) -> Option<Vec<Call>> {
    let output = directory.join("trace.txt");
    let watcher = |program: &'static str| {
        // -D: the server is our own child, whom we may signal. -s: journals' lines are long.
        [program, "-D", "-f", "-yy", "-s", "65536", "-e", "signal=none", "-e", CALLS, "-o"].map(OsStr::new)
    };
    let mut strace: Vec<&OsStr> = watcher("strace").to_vec();
    strace.push(output.as_os_str());
    let mut probe = Command::new("strace");
    let probe = probe.args(&strace[1..]).arg("true").stdout(Stdio::null()).stderr(Stdio::null()).status();
    if !probe.is_ok_and(|status| status.success()) || !written(&output) {
        println!("SKIPPED: strace is not there or may not trace, so the order of writes was not looked at");
        return None;
    }
    let mut server = Process::spawn_under(&strace, directory, &[("DURABILITY", durability)]);
    let address = server.address().await;
    work(format!("http://{address}"), http_client()).await;
    server.signal(Signal::TERM);
    assert!(server.ended().await.success(), "{}", server.log());
    Some(trace::parse(&std::fs::read_to_string(&output).expect("the trace")))
}

/// Whether the tracer has seen anything.
fn written(output: &Path) -> bool {
    std::fs::metadata(output).is_ok_and(|metadata| metadata.len() > 0)
}

fn paths(directory: &Path) -> Paths {
    let path = |name: &str| directory.join(name).to_str().expect("UTF-8").to_owned();
    Paths { storage: path("storage"), journal: path("status.json.journal") }
}

async fn put(http: &Client, server: &str, name: &str, body: impl Into<Body>) {
    let answer = http.put(format!("{server}/files/{name}")).body(body).send().await;
    answer.and_then(Response::error_for_status).expect("acknowledged");
}

/// Every way in which a file can come.
async fn all_kinds_of_uploads(server: String, http: Client) {
    put(&http, &server, "small.txt", "hello").await;
    put(&http, &server, "empty.txt", "").await;
    put(&http, &server, "large.bin", content(3 << 20, 1)).await;
    put(&http, &server, "small.txt", "hello again").await;
    let pieces = content(1 << 20, 2)
        .chunks(70_000)
        .map(|piece| Ok::<_, std::io::Error>(piece.to_vec()))
        .collect::<Vec<_>>();
    put(&http, &server, "large.bin", Body::wrap_stream(futures_util::stream::iter(pieces))).await;
    let form = "--b\r\nContent-Disposition: form-data; name=\"file\"; filename=\"form.txt\"\r\n\r\nhello\r\n\
                --b\r\nContent-Disposition: form-data; name=\"priority\"\r\n\r\n1\r\n--b--\r\n";
    let post =
        http.post(format!("{server}/upload")).header("Content-Type", "multipart/form-data; boundary=b");
    post.body(form).send().await.and_then(Response::error_for_status).expect("acknowledged");
    let new = http.put(format!("{server}/files/new.txt")).query(&[("overwrite", "false")]).body("new");
    new.send().await.and_then(Response::error_for_status).expect("acknowledged");
}

const KINDS: usize = 7;
const AT_ONCE: usize = 8;

async fn concurrent_uploads(server: String, http: Client) {
    let uploads = (0..AT_ONCE).map(|number| {
        let (server, http) = (server.clone(), http.clone());
        tokio::spawn(async move {
            for round in 0..3 {
                put(&http, &server, &format!("{number}.bin"), content(1000 + number, round)).await;
            }
        })
    });
    for upload in uploads.collect::<Vec<_>>() {
        upload.await.expect("acknowledged");
    }
}

/// Whether it writes to a file of such a path.
fn written_to(call: &Call, of: impl Fn(&str) -> bool) -> bool {
    rule::is_write(call) && call.result > 0 && call.target().is_some_and(of)
}

fn flushes(calls: &[Call], path: &str) -> usize {
    let of = |call: &&Call| call.target() == Some(path) && matches!(&*call.name, "fsync" | "fdatasync");
    calls.iter().filter(of).count()
}

#[track_caller]
fn in_order(calls: &[Call], paths: &Paths, durability: Durability) -> Vec<Acknowledged> {
    rule::check(calls, paths, durability).unwrap_or_else(|why| panic!("{why}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_is_flushed_before_an_answer() {
    let directory = tempfile::tempdir().expect("a directory");
    let Some(calls) = traced(directory.path(), "power", all_kinds_of_uploads).await else { return };
    let acknowledged = in_order(&calls, &paths(directory.path()), Durability::Power);
    assert_eq!(acknowledged.len(), KINDS, "{acknowledged:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flush_that_many_share_comes_before_each_answer() {
    let directory = tempfile::tempdir().expect("a directory");
    let Some(calls) = traced(directory.path(), "power", concurrent_uploads).await else { return };
    let paths = paths(directory.path());
    let acknowledged = in_order(&calls, &paths, Durability::Power);
    assert_eq!(acknowledged.len(), 3 * AT_ONCE, "{acknowledged:?}");
    let (directory, journal) = (flushes(&calls, &paths.storage), flushes(&calls, &paths.journal));
    println!(
        "{} uploads shared {directory} flushes of the directory and {journal} of the journal",
        acknowledged.len()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn without_flushes_the_order_is_the_same() {
    let directory = tempfile::tempdir().expect("a directory");
    let Some(calls) = traced(directory.path(), "process", all_kinds_of_uploads).await else { return };
    let acknowledged = in_order(&calls, &paths(directory.path()), Durability::Process);
    assert_eq!(acknowledged.len(), KINDS, "{acknowledged:?}");
}

/// A directory that is made for the server and never flushed in the one above it can be gone after a loss of power, with every
/// file in it.
#[tokio::test(flavor = "multi_thread")]
async fn directories_that_are_made_are_flushed_where_they_are_made() {
    let directory = tempfile::tempdir().expect("a directory");
    let one = |server: String, http: Client| async move { put(&http, &server, "a", "a").await };
    let Some(calls) = traced(directory.path(), "power", one).await else { return };
    let answered = calls.iter().find(|call| call.target().is_some_and(|target| target.starts_with("TCP")));
    let answered = answered.expect("an answer").began;
    let made = calls.iter().filter(|call| call.name.starts_with("mkdir") && call.result == 0);
    let made: Vec<_> = made.filter(|call| call.began < answered).collect();
    assert!(!made.is_empty());
    for call in made {
        let path = String::from_utf8(call.texts()[0].clone()).expect("UTF-8");
        let parent = Path::new(&path).parent().and_then(Path::to_str).expect("a directory");
        let flushed = calls.iter().any(|flush| {
            matches!(&*flush.name, "fsync" | "fdatasync")
                && flush.target() == Some(parent)
                && flush.began > call.ended
                && flush.ended < answered
        });
        assert!(flushed, "{path} was made, and {parent} not flushed before the first answer");
    }
}
