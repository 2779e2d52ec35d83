//! A full disk: a small file system is mounted where that is allowed.

use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};

use super::*;
use crate::domain::Status;
use crate::store::is_full;

/// A file system of a few MiB in memory, for as long as it lives.
struct SmallDisk {
    home: Home,
    mounted: PathBuf,
    dir: Option<tempfile::TempDir>,
}

impl SmallDisk {
    /// `None`, and a word, where nothing can be mounted.
    fn mount(size: &str) -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        let mounted = dir.path().to_owned();
        let options = std::ffi::CString::new(format!("size={size}")).unwrap();
        if let Err(error) = mount("tmpfs", &mounted, "tmpfs", MountFlags::empty(), options.as_c_str()) {
            eprintln!("skipped: no file system can be mounted here: {error}");
            return None;
        }
        let home = Home { layout: Home::at(&mounted), _dir: None };
        Some(Self { home, mounted, dir: Some(dir) })
    }

    fn ballast(&self) -> PathBuf {
        self.mounted.join("ballast")
    }

    /// Leaves no byte.
    fn fill(&self) {
        let mut ballast = crate::store::atomic::create_new(&self.ballast()).unwrap();
        let page = [0; 4096];
        let full = loop {
            if let Err(error) = ballast.write_all(&page) {
                break error;
            }
        };
        assert!(is_full(&full), "{full}");
    }

    fn free(&self) {
        std::fs::remove_file(self.ballast()).unwrap();
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        _ = unmount(&self.mounted, UnmountFlags::DETACH);
        // Only then is the directory removed.
        drop(self.dir.take());
    }
}

/// Commits empty files until there is no room for another line; gives the transfer that found none.
fn until_full(store: &mut ByHand) -> TransferId {
    for number in 0.. {
        let filename = format!("empty-{number}");
        let id = store.begin(&filename);
        match store.complete(id, &filename, b"", Condition::New) {
            Ok(_) => {}
            Err(CommitError::Full(_)) => return id,
            Err(error) => panic!("{error}"),
        }
    }
    unreachable!()
}

#[test]
fn what_finds_no_room_is_refused_and_the_store_goes_on_once_there_is_some() {
    let Some(disk) = SmallDisk::mount("4m") else { return };
    let mut store = disk.home.open();
    store.upload("a", b"hello");
    store.snapshot();
    disk.fill();
    let id = TransferId::new();
    let error = Staged::create(&disk.home.layout, id, 1 << 20).unwrap_err();
    assert!(is_full(&error), "{error}");
    assert!(!disk.home.layout.upload_data(id).exists());

    let refused = until_full(&mut store);
    let filename = store.store.running()[0].filename.clone();
    assert!(!disk.home.layout.file(&filename).exists(), "nothing is published without a line for it");
    assert_eq!(store.store.file(&filename), None);
    assert!(store.store.standing().len() > 100, "there was room set aside for some");
    assert_eq!(store.store.current(&filename).unwrap().status, Status::Uploading);
    store.note(failed(refused));
    let before = store.view();
    assert!(store.store.is_usable());
    store.snapshot();
    assert!(disk.home.file_names().iter().all(|name| !name.ends_with(".tmp")), "half a snapshot is no use");
    store.kill();

    let mut store = disk.home.open();
    assert_eq!(store.view(), before, "it starts on a full disk, and knows what failed");
    let id = store.begin("b");
    let error = store.complete(id, "b", b"", Condition::Any).unwrap_err();
    assert!(matches!(error, CommitError::Full(_)), "{error}");
    disk.free();
    store.complete(id, "b", b"hello", Condition::Any).unwrap();
    store.snapshot();
    let before = store.view();
    store.kill();
    let store = disk.home.open();
    assert_eq!((store.view(), store.opened.remarks.len()), (before, 0));
}

#[test]
fn notes_that_find_no_room_count_and_leave_a_journal_that_is_whole() {
    let Some(disk) = SmallDisk::mount("4m") else { return };
    let mut store = disk.home.open();
    store.upload("a", b"hello");
    store.snapshot();
    disk.fill();
    until_full(&mut store);
    let journal = disk.home.journal();
    let mut length = 0;
    // Each fails; the room that was kept for that is used up in the end.
    let mut lost = 0;
    while lost < 10 {
        let id = store.begin("x");
        store.note(failed(id));
        assert_eq!(store.store.current(&name("x")).unwrap().status, Status::Failed);
        let now = std::fs::metadata(&journal).unwrap().len();
        lost += u32::from(now == length);
        length = now;
    }
    assert!(store.store.is_usable());
    let running = store.begin("running");
    store.kill_copy_opens(&disk);
    disk.free();
    // What is written next tells of the gap.
    store.complete(running, "running", b"hello", Condition::Any).unwrap();
    let standing = store.store.standing();
    store.kill();
    let mut store = disk.home.open();
    assert_eq!(store.opened.remarks.len(), 0, "{:?}", store.opened.remarks);
    assert_eq!(store.store.standing(), standing);
    store.snapshot();
    let before = store.view();
    store.kill();
    assert_eq!(disk.home.open().view(), before);
}

impl ByHand {
    fn kill_copy_opens(&self, disk: &SmallDisk) {
        let elsewhere = Home::new();
        for (name, content) in disk.home.files() {
            put(&elsewhere.layout.status_directory().join(name), &content);
        }
        let copy = elsewhere.open();
        assert_eq!(copy.opened.remarks.len(), 0, "{:?}", copy.opened.remarks);
        assert_eq!(copy.store.standing(), self.store.standing());
    }
}

#[test]
fn a_running_store_answers_that_the_disk_is_full() {
    let Some(disk) = SmallDisk::mount("4m") else { return };
    let (store, guard) = disk.home.run();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let mut ended = 0;
    // Sets room aside.
    let first = runtime.block_on(store.commit(Change::Started(upload_of("first")), None));
    assert!(first.is_ok());
    disk.fill();
    loop {
        let start = upload_of("a");
        let id = start.id;
        store.note(Change::Started(start));
        match runtime.block_on(store.commit(failed(id), None)) {
            Ok(_) => ended += 1,
            Err(CommitError::Full(_)) => break,
            Err(error) => panic!("{error}"),
        }
    }
    disk.free();
    for transfer in store.running() {
        runtime.block_on(store.commit(failed(transfer.id), None)).unwrap();
    }
    assert!(ended > 100 && store.is_usable());
    drop(guard);
    let store = disk.home.open();
    assert_eq!((store.store.name_count(), store.store.running().len()), (2, 0));
}

#[test]
fn a_server_starts_on_a_full_disk() {
    let Some(disk) = SmallDisk::mount("4m") else { return };
    let mut store = disk.home.open();
    store.begin("a");
    store.snapshot();
    store.begin("b");
    let journal = std::fs::read(disk.home.journal()).unwrap();
    store.kill();
    // Without the room that was set aside.
    std::fs::remove_file(disk.home.journal()).unwrap();
    put(&disk.home.journal(), &journal);
    disk.fill();
    let (store, guard) = disk.home.run();
    let files = crate::store::files::Files::new(disk.home.layout.clone()).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let recovered =
        runtime.block_on(crate::store::recovery::recover(&disk.home.layout, &files, &store, None)).unwrap();
    assert_eq!(recovered.failed, 2);
    // What is answered comes after what was only noted.
    assert!(runtime.block_on(store.commit(failed(TransferId::new()), None)).is_err());
    assert_eq!(store.running(), []);
    disk.free();
    let before = View::of(&store);
    drop(guard);
    assert_eq!(disk.home.open().view(), before);
}
