//! Any sequence of changes, cut short anywhere, gives the state that it gives in one go.

use proptest::prelude::*;

use super::*;

/// One step. Numbers choose among what there is at that moment.
#[derive(Debug, Clone)]
enum Step {
    /// What is asked at one moment.
    Ask(Vec<Ask>),
    Snapshot,
    Restart(Restart),
}

#[derive(Debug, Clone)]
enum Ask {
    Begin { name: u8, commit: bool },
    Complete { which: u8, name: u8 },
    Fail { which: u8, commit: bool },
}

#[derive(Debug, Clone, Copy)]
enum Restart {
    Stop,
    Kill,
    /// A kill in the middle of the next line.
    TornLine(u8),
    /// A kill, and the backup put back by hand.
    BackupPutBack,
    /// A kill, and the status file lost.
    StatusFileLost,
    /// A kill, and the status file damaged.
    StatusFileDamaged(u16),
}

fn ask() -> impl Strategy<Value = Ask> {
    prop_oneof![
        3 => (0..4_u8, any::<bool>()).prop_map(|(name, commit)| Ask::Begin { name, commit }),
        3 => (any::<u8>(), 0..4_u8).prop_map(|(which, name)| Ask::Complete { which, name }),
        1 => (any::<u8>(), any::<bool>()).prop_map(|(which, commit)| Ask::Fail { which, commit }),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    let restart = prop_oneof![
        Just(Restart::Stop),
        Just(Restart::Kill),
        any::<u8>().prop_map(Restart::TornLine),
        Just(Restart::BackupPutBack),
        Just(Restart::StatusFileLost),
        any::<u16>().prop_map(Restart::StatusFileDamaged),
    ];
    prop_oneof![
        6 => prop::collection::vec(ask(), 1..6).prop_map(Step::Ask),
        1 => Just(Step::Snapshot),
        2 => restart.prop_map(Step::Restart),
    ]
}

const LIMIT: usize = 4;

/// The requests of a step, as changes: both stores get the same.
fn changes(asks: &[Ask], ids: &mut Vec<TransferId>) -> Vec<(Change, bool)> {
    let file_names = ["a", "b", "c", "d"];
    let mut changes = Vec::new();
    for ask in asks {
        let chosen = |which: u8| ids.get(usize::from(which) % ids.len().max(1)).copied().unwrap_or_default();
        match *ask {
            Ask::Begin { name, commit } => {
                let start = upload_of(file_names[usize::from(name)]);
                ids.push(start.id);
                changes.push((Change::Started(start), commit));
            }
            Ask::Complete { which, name } => {
                let file = StoredFile { size: 5, modified: Timestamp::now() };
                let name = file_names[usize::from(name)];
                changes.push((completed(chosen(which), name, digest(&[which]), file), true));
            }
            Ask::Fail { which, commit } => changes.push((failed(chosen(which)), commit)),
        }
    }
    changes
}

fn serve(store: &mut ByHand, changes: Vec<(Change, bool)>) -> Vec<Option<u64>> {
    let mut answers = Vec::new();
    let mut requests = Vec::new();
    for (change, commit) in changes {
        if commit {
            let (request, answer) = request(change, None);
            requests.push(request);
            answers.push(answer);
        } else {
            requests.push(Request::Note(change));
        }
    }
    store.serve(requests);
    answers.iter_mut().map(|answer| answer.try_recv().unwrap().ok().map(|transfer| transfer.seq)).collect()
}

fn restart(home: &Home, store: ByHand, how: Restart) -> Result<ByHand, TestCaseError> {
    let status = home.layout.status();
    let mut torn = 0;
    match how {
        Restart::Stop => store.stop(),
        Restart::Kill => store.kill(),
        Restart::TornLine(length) => {
            let mut lines = store.committer.journal.lines();
            let transfer = Change::Started(upload_of("torn")).apply(None, store.committer.seq() + 1).unwrap();
            lines.push(&transfer).unwrap();
            let bytes = lines.bytes();
            torn = usize::from(length).min(bytes.len() - 1);
            OpenOptions::new().append(true).open(home.journal()).unwrap().write_all(&bytes[..torn]).unwrap();
            store.kill();
        }
        Restart::BackupPutBack => {
            store.kill();
            if home.backup().exists() {
                std::fs::copy(home.backup(), status).unwrap();
            }
        }
        Restart::StatusFileLost => {
            store.kill();
            _ = std::fs::remove_file(status);
        }
        Restart::StatusFileDamaged(place) => {
            store.kill();
            if home.backup().exists() && status.exists() {
                let mut bytes = std::fs::read(status).unwrap();
                bytes.truncate(usize::from(place) % bytes.len().saturating_sub(1).max(1));
                put(status, &bytes);
            }
        }
    }
    let store = home.try_open_with(Durability::Process, LIMIT);
    let store = store.map_err(|error| TestCaseError::fail(error.to_string()))?;
    let remarks = store.opened.remarks.concat();
    prop_assert_eq!(remarks.contains("torn"), torn > 0, "{}", remarks);
    prop_assert!(!remarks.contains("not known"), "{}", remarks);
    Ok(store)
}

proptest! {
    // A case is some dozens of restarts, so a quarter of PROPTEST_CASES (256) is enough.
    #![proptest_config(ProptestConfig { cases: ProptestConfig::default().cases / 4, ..ProptestConfig::default() })]

    #[test]
    fn a_restart_anywhere_changes_nothing(steps in prop::collection::vec(step(), 1..30)) {
        let (home, other) = (Home::new(), Home::new());
        let mut store = home.open_with(Durability::Process, LIMIT);
        let mut in_one_go = other.open_with(Durability::Process, LIMIT);
        let mut ids = Vec::new();
        for step in steps {
            match step {
                Step::Ask(asks) => {
                    let changes = changes(&asks, &mut ids);
                    let expected = serve(&mut in_one_go, changes.clone());
                    prop_assert_eq!(serve(&mut store, changes), expected);
                }
                Step::Snapshot => store.snapshot(),
                Step::Restart(how) => store = restart(&home, store, how)?,
            }
            prop_assert_eq!(store.view(), in_one_go.view());
        }
    }
}
