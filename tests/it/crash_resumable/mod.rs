//! `kill -9` at any moment, of uploads that can be resumed: no offset and no chunk that was acknowledged is ever lost, each
//! upload can go on to its end, and nothing half is seen.
//!
//! `SFT_CRASH_KILLS` sets the number of kills for each durability, `SFT_CRASH_SEED` the seed.

mod check;
mod clients;
mod upload;

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rustix::process::Signal;

use self::check::{Slot, check, check_leftovers, holds};
use self::clients::{Gone, Sender, Told};
use self::upload::{Outcome, Upload, Way};
use crate::support::process::Process;
use crate::support::random::Random;

const KILLS: usize = 52;
const CLIENTS: usize = 6;
const NAMES: usize = 24;
/// So many uploads are left unfinished at the end.
const LEFT: usize = 3;

#[tokio::test(flavor = "multi_thread")]
async fn what_has_arrived_of_an_upload_survives_a_kill_with_durability_power() {
    campaign("power").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_has_arrived_of_an_upload_survives_a_kill_with_durability_process() {
    campaign("process").await;
}

#[derive(Debug, Default)]
struct Figures {
    kills: usize,
    during_start: usize,
    during_stop: usize,
    told: Told,
    /// Unfinished uploads that were there after a start.
    unfinished: usize,
    /// Those of them of which the completing request had no answer.
    unknown: usize,
    /// Uploads that had been published but not acknowledged.
    adopted: usize,
    /// Unfinished uploads at the end: those that are left, and such whose creation was never answered.
    left: usize,
}

async fn campaign(durability: &str) {
    let kills = std::env::var("SFT_CRASH_KILLS").map_or(KILLS, |text| text.parse().expect("a number"));
    let seed = Random::seed("SFT_CRASH_SEED");
    println!("crash of resumable uploads, DURABILITY={durability}: SFT_CRASH_SEED={seed}");
    let mut random = Random::new(seed);
    let directory = tempfile::tempdir().expect("a directory");
    let settings = [
        ("DURABILITY", durability),
        ("ENCRYPTION_KEY", "a key for the crash test"),
        ("JOURNAL_SIZE", "64KiB"),
        ("MIN_FREE_SPACE", "0"),
        ("SHUTDOWN_GRACE", "1ms"),
        ("MAX_UNFINISHED", "10000"),
        ("MAX_UNFINISHED_PER_CLIENT", "10000"),
    ];
    let begun = Instant::now();
    let mut figures = Figures::default();
    let name = |number| format!("{number}.bin");
    let slot = |number| Slot { name: name(number), standing: None, upload: None };
    let mut slots: Vec<_> = (0..NAMES).map(slot).collect();
    let (mut process, mut address) = Process::start(directory.path(), &settings).await;
    while figures.kills < kills {
        let load = Load::begin(address, &mut random, figures.kills, slots);
        let patience = if random.percent(20) { 20 } else { 250 };
        tokio::time::sleep(Duration::from_millis(random.within(0..patience))).await;
        if random.percent(15) {
            process.signal(Signal::TERM);
            tokio::time::sleep(Duration::from_micros(random.within(0..30_000))).await;
            figures.during_stop += 1;
        }
        process.kill();
        figures.kills += 1;
        let told;
        (slots, told) = load.ended().await;
        figures.told.add(&told);
        while random.percent(25) {
            let mut early = Process::spawn(directory.path(), &settings);
            tokio::time::sleep(Duration::from_micros(random.within(0..60_000))).await;
            early.kill();
            figures.kills += 1;
            figures.during_start += 1;
            figures.read(&early.log());
        }
        figures.count(&slots);
        (process, address) = Process::start(directory.path(), &settings).await;
        let sender = Sender::new(address, random.fork());
        check(directory.path(), &sender, &mut slots, figures.kills >= kills || random.percent(10)).await;
        figures.read(&process.log());
    }
    // All but some go on to their end.
    let mut sender = Sender::new(address, random.fork());
    let unfinished = slots.iter_mut().filter_map(|slot| slot.upload.as_mut());
    for upload in unfinished.skip(LEFT) {
        while !upload.is_complete() {
            sender.go_on(upload, 1000).await.expect("the server is there");
        }
    }
    figures.told.add(&sender.told);
    check(directory.path(), &sender, &mut slots, true).await;
    process.signal(Signal::TERM);
    assert!(process.ended().await.success(), "{}", process.log());
    figures.read(&process.log());
    figures.left = check_leftovers(directory.path());
    let (_process, address) = Process::start(directory.path(), &settings).await;
    check(directory.path(), &Sender::new(address, random.fork()), &mut slots, true).await;
    println!(
        "crash of resumable uploads, DURABILITY={durability}: {figures:?} in {:.1} s",
        begun.elapsed().as_secs_f64()
    );
    let Told { chunks, offsets, completed } = figures.told;
    assert!(chunks > 0 && offsets > 0 && completed > 0);
}

impl Figures {
    fn count(&mut self, slots: &[Slot]) {
        let open =
            || slots.iter().filter_map(|slot| slot.upload.as_ref()).filter(|upload| !upload.is_complete());
        self.unfinished += open().count();
        self.unknown += open().filter(|upload| upload.outcome == Outcome::Unknown).count();
    }

    /// Takes over what a server says it has mended: it must not speak of damage.
    fn read(&mut self, log: &str) {
        assert!(!log.contains("panicked") && !log.contains("ERROR"), "{log}");
        let Some((_, rest)) = log.split_once(" adopted=") else { return };
        let number = rest.split_whitespace().next().expect("a count");
        self.adopted += number.parse::<usize>().expect("a count");
    }
}

/// Clients at work: each takes a name, and goes on with what is on its way there for some time.
struct Load {
    queue: Arc<Mutex<VecDeque<Slot>>>,
    clients: Vec<tokio::task::JoinHandle<Told>>,
}

impl Load {
    fn begin(address: SocketAddr, random: &mut Random, round: usize, mut slots: Vec<Slot>) -> Self {
        let mut queue = VecDeque::new();
        while !slots.is_empty() {
            queue.push_back(slots.swap_remove(random.within(0..slots.len() as u64) as usize));
        }
        let queue = Arc::new(Mutex::new(queue));
        let client = |number| {
            let (queue, random) = (Arc::clone(&queue), random.fork());
            let mut sender = Sender::new(address, random.clone());
            tokio::spawn(async move {
                work(&mut sender, &queue, random, &format!("{round}-{number}")).await;
                sender.told
            })
        };
        let clients = (0..CLIENTS).map(client).collect();
        Self { queue, clients }
    }

    /// Waits until all have noticed that the server is gone.
    async fn ended(self) -> (Vec<Slot>, Told) {
        let mut told = Told::default();
        for client in self.clients {
            told.add(&client.await.expect("a client"));
        }
        (std::mem::take(&mut *self.queue.lock().expect("the queue")).into(), told)
    }
}

async fn work(sender: &mut Sender, queue: &Mutex<VecDeque<Slot>>, mut random: Random, tag: &str) {
    for count in 0.. {
        let slot = queue.lock().expect("the queue").pop_front();
        let mut slot = slot.expect("there are more names than clients");
        let went = go_on(sender, &mut slot, &mut random, &format!("{tag}-{count}")).await;
        queue.lock().expect("the queue").push_back(slot);
        if went.is_err() {
            return;
        }
    }
}

async fn go_on(sender: &mut Sender, slot: &mut Slot, random: &mut Random, tag: &str) -> Result<(), Gone> {
    let mut upload = slot.upload.take().unwrap_or_else(|| Upload::draw(slot.name.clone(), tag, random));
    while slot.standing.as_ref() == Some(&upload.sha256) {
        // Then nobody could tell them apart.
        upload = Upload::draw(slot.name.clone(), tag, random);
    }
    let upload = slot.upload.insert(upload);
    sender.go_on(upload, random.within(1..25) as usize).await?;
    if upload.is_complete() {
        holds(sender, &slot.name, &upload.sha256).await?;
        slot.standing = Some(upload.sha256.clone());
        if let Way::Joined(parts) = &upload.way {
            for path in parts.iter().filter_map(|part| part.path.as_deref()) {
                sender.head(path).await?.expect(&[404, 410]);
            }
        }
        slot.upload = None;
    }
    Ok(())
}
