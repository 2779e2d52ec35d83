//! Order, coalescing and loss, with a status that stands still and clocks that are moved by hand.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::Value;

use super::feed::Feed;
use super::hub::lock;
use super::{Batch, Cursor, Event, Hub, Place, Source, Subscription, TooSlow};
use crate::domain::progress::Live;
use crate::domain::stats::{Stats, Tally};
use crate::domain::{
    Change, Client, Completion, Digest, Direction, FileName, Priority, Start, StoredFile, Timestamp,
    Transfer, TransferId,
};

/// A status whose transfers change when a test says so.
#[derive(Clone, Default)]
struct Fake(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    seq: u64,
    transfers: BTreeMap<TransferId, Arc<Transfer>>,
    live: BTreeMap<TransferId, Arc<Live>>,
}

impl Fake {
    fn apply(&self, change: Change) -> Arc<Transfer> {
        let mut state = lock(&self.0);
        state.seq += 1;
        let (id, seq) = (change.id(), state.seq);
        let before = state.transfers.get(&id).cloned();
        let after = Arc::new(change.apply(before.as_deref(), seq).unwrap());
        state.transfers.insert(id, Arc::clone(&after));
        after
    }

    fn start(&self, name: &str, total: Option<u64>, now: Instant) -> (Arc<Transfer>, Arc<Live>) {
        let start = Start {
            id: TransferId::new(),
            filename: FileName::clean(name).unwrap(),
            direction: Direction::Upload,
            client: Client::default(),
            encryption: false,
            priority: Priority::default(),
            total_bytes: total,
            at: Timestamp::now(),
        };
        let started = self.apply(Change::Started(start));
        let live = Arc::new(Live::new(total, None, now));
        lock(&self.0).live.insert(started.id, Arc::clone(&live));
        (started, live)
    }

    fn complete(&self, transfer: &Transfer, size: u64) -> Arc<Transfer> {
        self.apply(Change::Completed(Completion {
            id: transfer.id,
            at: Timestamp::now(),
            filename: transfer.filename.clone(),
            client: Client::default(),
            priority: Priority::default(),
            seal: None,
            checksum: Digest::new([7; 32]),
            file: StoredFile { size, modified: Timestamp::now() },
        }))
    }
}

impl Source for Fake {
    fn position(&self) -> (u64, Vec<Arc<Transfer>>) {
        let state = lock(&self.0);
        (state.seq, state.transfers.values().filter(|t| !t.status.is_terminal()).cloned().collect())
    }

    fn live(&self, id: TransferId) -> Option<Arc<Live>> {
        lock(&self.0).live.get(&id).cloned()
    }

    fn changed(&self, since: u64, page: Option<Place>, limit: usize) -> (Vec<Arc<Transfer>>, Option<Place>) {
        let after = page.map_or(since, |(seq, _)| seq);
        let mut changed: Vec<_> =
            lock(&self.0).transfers.values().filter(|transfer| transfer.seq > after).cloned().collect();
        changed.sort_by_key(|transfer| transfer.seq);
        changed.truncate(limit);
        let next = changed.last().filter(|_| changed.len() == limit).map(|last| (last.seq, last.id));
        (changed, next)
    }

    fn recent(&self, limit: usize) -> Vec<Arc<Transfer>> {
        let mut all: Vec<_> = lock(&self.0).transfers.values().cloned().collect();
        all.sort_by_key(|transfer| std::cmp::Reverse(transfer.seq));
        all.truncate(limit);
        all
    }

    fn current(&self, name: &FileName) -> Option<Arc<Transfer>> {
        let of_name = |transfer: &&Arc<Transfer>| transfer.filename == *name;
        lock(&self.0).transfers.values().filter(of_name).max_by_key(|transfer| transfer.seq).cloned()
    }

    fn name_count(&self) -> usize {
        lock(&self.0).transfers.len()
    }

    fn stats(&self) -> Stats {
        Tally::default().stats()
    }
}

fn json(event: &Event) -> Value {
    serde_json::from_str(event.data().get()).unwrap()
}

/// What a feed has to say of transfers.
fn told(feed: &mut Feed) -> Vec<Value> {
    let batches = feed.take();
    assert!(batches.iter().all(|batch| batch.events.len() <= Batch::MOST));
    let events = batches.iter().flat_map(|batch| &batch.events);
    events.filter(|event| event.filename().is_some()).map(|event| json(event)).collect()
}

fn stream(fake: &Fake, now: Instant) -> Feed {
    let mut feed = Feed::new(1);
    let (seq, running) = fake.position();
    feed.begin(seq, running, fake, now);
    feed
}

#[test]
fn between_the_first_and_the_last_state_ten_a_second_are_told_and_progress_never_goes_back() {
    let (fake, start) = (Fake::default(), Instant::now());
    let mut feed = stream(&fake, start);
    let (started, live) = fake.start("a", Some(3_000_000), start);
    feed.change(Arc::clone(&started), &fake, start);
    // A thousand pieces a second, and looks ten times a second.
    for milli in 1..=3_000_u32 {
        let now = start + Duration::from_millis(u64::from(milli));
        live.add_at(1_000, now);
        if milli % 100 == 0 {
            feed.tick(&fake, now);
        }
    }
    feed.change(fake.complete(&started, 3_000_000), &fake, start);
    let told = told(&mut feed);
    assert_eq!(told.len(), 1 + 30 + 1);
    let states: Vec<_> = told.iter().map(|event| event["status"].as_str().unwrap()).collect();
    assert_eq!((states[0], states[30], states[31]), ("uploading", "uploading", "completed"));
    assert!(told.is_sorted_by_key(|event| event["progress"].as_u64()));
    assert!(told.is_sorted_by_key(|event| event["transferred_bytes"].as_u64()));
    assert_eq!(
        (&told[15]["progress"], &told[15]["speed"], &told[15]["eta"]),
        (&50.into(), &1_000_000.into(), &2.into())
    );
    assert_eq!(told[31]["checksum"], Digest::new([7; 32]).to_string());
    assert_eq!((&told[0]["checksum"], &told[0]["error"]), (&Value::Null, &Value::Null));
}

#[test]
fn a_transfer_that_stands_still_is_told_of_once_a_second_until_its_speed_is_gone() {
    let (fake, start) = (Fake::default(), Instant::now());
    let mut feed = stream(&fake, start);
    let (started, live) = fake.start("a", None, start);
    feed.change(started, &fake, start);
    assert_eq!(told(&mut feed).len(), 1);
    live.add_at(1_000, start + Duration::from_secs(1));
    let ticks = |feed: &mut Feed, seconds: std::ops::Range<u64>| {
        for tick in seconds.start * 10..seconds.end * 10 {
            feed.tick(&fake, start + Duration::from_millis(tick * 100));
        }
        told(feed)
    };
    let falling = ticks(&mut feed, 1..11);
    assert!((10..=11).contains(&falling.len()), "{}", falling.len());
    assert!(falling.windows(2).all(|two| two[1]["speed"].as_u64() <= two[0]["speed"].as_u64()));
    assert!(
        falling
            .iter()
            .all(|event| event["total_bytes"].is_null() && event["progress"] == 0 && event["eta"].is_null())
    );
    ticks(&mut feed, 11..60);
    assert!(ticks(&mut feed, 60..90).is_empty(), "nothing more is to be told");
}

#[test]
fn what_lies_before_the_beginning_is_not_told_again_and_what_ended_does_not_move() {
    let (fake, start) = (Fake::default(), Instant::now());
    let (first, live) = fake.start("a", Some(10), start);
    // The change waits while the stream begins: it is part of the beginning.
    let mut feed = stream(&fake, start);
    feed.change(Arc::clone(&first), &fake, start);
    assert!(told(&mut feed).is_empty());
    live.add_at(5, start + Duration::from_secs(1));
    feed.tick(&fake, start + Duration::from_secs(1));
    assert_eq!(told(&mut feed)[0]["progress"], 50);
    // It has ended, but the stream has not come to that yet: its progress comes first, and none after.
    let ended = fake.complete(&first, 10);
    live.add_at(5, start + Duration::from_secs(2));
    feed.tick(&fake, start + Duration::from_secs(2));
    feed.change(ended, &fake, start);
    feed.tick(&fake, start + Duration::from_secs(3));
    let told = told(&mut feed);
    assert_eq!(
        told.iter().map(|event| event["status"].as_str().unwrap()).collect::<Vec<_>>(),
        ["uploading", "completed"]
    );
}

/// That a download found a damaged file is written down, and has a number like every change of the status.
#[test]
fn a_download_that_is_in_the_journal_is_told_of_once_and_in_order() {
    let (fake, start) = (Fake::default(), Instant::now());
    let mut feed = stream(&fake, start);
    let (upload, _) = fake.start("a", None, start);
    let download = Start {
        id: TransferId::new(),
        filename: upload.filename.clone(),
        direction: Direction::Download,
        client: Client::default(),
        encryption: true,
        priority: Priority::default(),
        total_bytes: None,
        at: Timestamp::now(),
    };
    let id = download.id;
    let started = fake.apply(Change::Started(download));
    let failed = Change::Failed { id, at: Timestamp::now(), error: "damaged".into(), transferred_bytes: 0 };
    let failed = fake.apply(failed);
    for change in [&upload, &started, &failed, &failed, &started] {
        feed.change(Arc::clone(change), &fake, start);
    }
    assert_eq!(
        told(&mut feed).iter().map(|event| event["seq"].as_u64().unwrap()).collect::<Vec<_>>(),
        [1, 2, 3]
    );
    assert_eq!(feed.cursor(), Cursor { seq: 3, downloads: 0, run: 1 });
}

#[test]
fn the_counters_are_told_every_five_seconds_and_soon_after_something_ended() {
    let (fake, start) = (Fake::default(), Instant::now());
    let mut feed = stream(&fake, start);
    let count = |feed: &mut Feed, millis: u64| {
        feed.tick(&fake, start + Duration::from_millis(millis));
        feed.take()
            .iter()
            .flat_map(|batch| &batch.events)
            .filter(|event| event.name(false) == "stats_update")
            .count()
    };
    assert_eq!([0, 100, 4_900, 5_000, 5_100].map(|millis| count(&mut feed, millis)), [1, 0, 0, 1, 0]);
    let (started, _) = fake.start("a", None, start);
    feed.change(Arc::clone(&started), &fake, start);
    assert_eq!(count(&mut feed, 5_600), 0);
    feed.change(fake.complete(&started, 1), &fake, start);
    assert_eq!([5_700, 5_800, 10_600, 10_700].map(|millis| count(&mut feed, millis)), [1, 0, 0, 1]);
}

#[test]
fn a_snapshot_is_bounded_and_made_once() {
    let (fake, start) = (Fake::default(), Instant::now());
    for number in 0..300 {
        let (started, _) = fake.start(&format!("done-{number}"), None, start);
        fake.complete(&started, 1);
    }
    for number in 0..1_000 {
        fake.start(&format!("running-{number}"), None, start);
    }
    let mut feed = stream(&fake, start);
    let snapshot = feed.snapshot(&fake).unwrap();
    assert!(Arc::ptr_eq(&snapshot, &feed.snapshot(&fake).unwrap()));
    let value: Value = serde_json::from_str(snapshot.get()).unwrap();
    assert_eq!(value["transfers"].as_object().unwrap().len(), 500);
    assert_eq!(
        (&value["metadata"]["returned_count"], &value["metadata"]["total_transfers"]),
        (&500.into(), &1300.into())
    );
    let (newest, _) = fake.start("newest", None, start);
    feed.change(newest, &fake, start);
    let value: Value = serde_json::from_str(feed.snapshot(&fake).unwrap().get()).unwrap();
    assert_eq!(value["transfers"]["newest"]["status"], "uploading");
}

fn hub(fake: &Fake) -> Hub {
    let hub = Hub::new(fake.clone());
    let running = hub.clone();
    tokio::spawn(async move { running.run().await });
    hub
}

/// One transfer from its beginning to its end.
fn whole(fake: &Fake, hub: &Hub, name: &str) {
    let (started, _) = fake.start(name, None, Instant::now());
    hub.offer(&started);
    hub.offer(&fake.complete(&started, 1));
}

/// The ends of transfers among these events.
fn ends<'a>(events: impl IntoIterator<Item = &'a Arc<Event>>) -> Vec<String> {
    let all = events.into_iter().filter(|event| event.filename().is_some()).map(|event| json(event));
    all.filter(|event| event["status"] != "uploading" && event["status"] != "downloading")
        .map(|event| event["filename"].as_str().unwrap().to_owned())
        .collect()
}

/// Reads until so many transfers have ended, as a client does; says how often it was too slow.
async fn until(subscription: &mut Subscription, count: usize) -> (Vec<String>, usize) {
    let (mut ended, mut slow) = (Vec::new(), 0);
    while ended.len() < count {
        match subscription.next().await {
            Ok(batch) => ended.extend(ends(&batch.events)),
            Err(TooSlow) => {
                slow += 1;
                loop {
                    let missed = subscription.missed();
                    ended.extend(ends(&missed.events));
                    if missed.done {
                        break;
                    }
                }
            }
        }
    }
    (ended, slow)
}

#[tokio::test(start_paused = true)]
async fn who_reads_sees_everything_in_order() {
    let fake = Fake::default();
    let hub = hub(&fake);
    whole(&fake, &hub, "before");
    let mut subscription = hub.subscribe();
    for number in 0..3_000 {
        whole(&fake, &hub, &format!("{number}"));
    }
    let (ended, slow) = until(&mut subscription, 3_000).await;
    assert_eq!((slow, ended), (0, (0..3_000).map(|number| number.to_string()).collect()));
    assert_eq!(subscription.cursor().unwrap().seq, 2 * 3_001);
}

#[tokio::test(start_paused = true)]
async fn who_is_too_slow_still_sees_every_end_and_then_the_present() {
    let fake = Fake::default();
    let hub = hub(&fake);
    let mut slow = hub.subscribe();
    let mut quick = hub.subscribe();
    for round in 0..400 {
        for number in 0..5 {
            whole(&fake, &hub, &format!("{round}-{number}"));
        }
        // Another one is not held up by it, and loses nothing.
        let (ended, lost) = until(&mut quick, 5).await;
        assert_eq!((ended.len(), lost), (5, 0));
    }
    let (running, _) = fake.start("running", Some(10), Instant::now());
    hub.offer(&running);
    let (ended, lost) = until(&mut slow, 2_000).await;
    assert_eq!(lost, 1);
    assert_eq!(ended, (0..2_000).map(|n| format!("{}-{}", n / 5, n % 5)).collect::<Vec<_>>());
    let present = slow.present(std::slice::from_ref(&running.filename)).unwrap();
    let all: Value = serde_json::from_str(present.all.get()).unwrap();
    assert_eq!(all["transfers"]["running"]["status"], "uploading");
    assert_eq!(present.names[0].as_ref().unwrap().id, running.id);
    // And it goes on from there.
    hub.offer(&fake.complete(&running, 10));
    assert_eq!(until(&mut slow, 1).await, (vec!["running".to_owned()], 0));
}

#[tokio::test(start_paused = true)]
async fn who_comes_back_is_told_what_ended_meanwhile() {
    let fake = Fake::default();
    let hub = hub(&fake);
    let mut subscription = hub.subscribe();
    whole(&fake, &hub, "seen");
    until(&mut subscription, 1).await;
    let cursor = subscription.cursor().unwrap();
    drop(subscription);
    // Long gone: the stream has ended meanwhile.
    tokio::time::sleep(Duration::from_secs(600)).await;
    assert!(!hub.is_watched());
    whole(&fake, &hub, "missed");
    let text = cursor.to_string();
    let mut subscription = hub.resume(text.parse().unwrap());
    assert_eq!(subscription.cursor(), None, "who left again now would still have missed it");
    assert_eq!(until(&mut subscription, 1).await, (vec!["missed".to_owned()], 1));
    whole(&fake, &hub, "new");
    assert_eq!(until(&mut subscription, 1).await, (vec!["new".to_owned()], 0));
    for text in ["", "1", "1.2", "1.2.g", "-1.2.3", "x.2.3", "1.2.3.4"] {
        assert!(text.parse::<Cursor>().is_err(), "{text}");
    }
}

#[tokio::test(start_paused = true)]
async fn downloads_are_told_of_while_they_run_and_their_end_to_who_missed_it() {
    let hub = hub(&Fake::default());
    let name = FileName::clean("a").unwrap();
    let download = |total| hub.download(&name, &Client::default(), None, total);
    assert!(download(10).is_none(), "nobody watches, and it is over at once");
    let large = download(1 << 30).unwrap();
    let mut subscription = hub.subscribe();
    let cursor = subscription.cursor().unwrap();
    let present = subscription.present(std::slice::from_ref(&name)).unwrap();
    assert_eq!(present.names[0].as_ref().unwrap().direction, Direction::Download);
    let small = download(10).unwrap();
    small.add(10);
    drop(small);
    large.add(1 << 29);
    drop(large);
    let mut events = Vec::new();
    while ends(&events).len() < 2 {
        events.extend(subscription.next().await.unwrap().events.iter().cloned());
    }
    let told: Vec<_> =
        events.iter().filter(|event| event.filename().is_some()).map(|event| json(event)).collect();
    assert_eq!(told[0]["status"], "downloading");
    let done = told.iter().find(|event| event["status"] == "completed").unwrap();
    assert_eq!((&done["progress"], &done["transferred_bytes"]), (&100.into(), &10.into()));
    let failed = told.iter().find(|event| event["status"] == "failed").unwrap();
    assert_eq!((&failed["progress"], &failed["transferred_bytes"]), (&50.into(), &(1 << 29).into()));
    let mut late = hub.resume(cursor);
    assert_eq!(until(&mut late, 2).await.0, ["a", "a"]);
    let mut after = hub.resume(subscription.cursor().unwrap());
    assert!(after.missed().events.is_empty());
}

/// The machine was so busy that the hub missed changes itself.
#[tokio::test(start_paused = true)]
async fn more_changes_at_once_than_the_hub_holds_lose_no_end() {
    let fake = Fake::default();
    let hub = hub(&fake);
    let mut subscription = hub.subscribe();
    for number in 0..20_000 {
        whole(&fake, &hub, &format!("{number}"));
    }
    let (mut ended, _) = until(&mut subscription, 20_000).await;
    ended.sort_by_key(|name| name.parse::<u32>().unwrap());
    ended.dedup();
    assert_eq!(ended.len(), 20_000);
}
