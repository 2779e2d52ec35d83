//! Any interleaving of chunks, repeats, conflicts and restarts ends in the file or in a clear error.

use proptest::prelude::*;

use super::*;

/// What a client does next.
#[derive(Debug, Clone)]
enum Step {
    Send {
        number: u32,
        late: bool,
    },
    /// Of another file.
    SendOther {
        number: u32,
        late: bool,
    },
    /// With a hash that is not its own.
    SendBroken {
        number: u32,
    },
    /// Breaks off in the middle.
    BreakOff {
        number: u32,
    },
    /// Several at the same time.
    Together(Vec<u32>),
    Restart,
}

fn step(total: u32) -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0..total, any::<bool>()).prop_map(|(number, late)| Step::Send { number, late }),
        1 => (0..total, any::<bool>()).prop_map(|(number, late)| Step::SendOther { number, late }),
        1 => (0..total).prop_map(|number| Step::SendBroken { number }),
        1 => (0..total).prop_map(|number| Step::BreakOff { number }),
        1 => prop::collection::vec(0..total, 2..5).prop_map(Step::Together),
        1 => Just(Step::Restart),
    ]
}

async fn run(steps: Vec<Step>, file: File) {
    let dir = tempfile::tempdir().unwrap();
    let mut server = Server::start(dir.path()).await;
    let other = file.changed();
    let mut there = std::collections::BTreeSet::new();
    let mut steps = steps.into_iter();
    let ended = loop {
        let Some(step) = steps.next() else { break false };
        let mut sent = Vec::new();
        match step {
            Step::Restart => {
                drop(server);
                server = Server::start(dir.path()).await;
            }
            Step::Send { number, late } => {
                let taken = server.chunk(file.chunk(number), file.bytes(number), late).await;
                sent.push((number, taken));
            }
            // Before there is anything, it would be the other file that is uploaded.
            Step::SendOther { number, late } if !there.is_empty() => {
                let taken = server.chunk(other.chunk(number), other.bytes(number), late).await;
                if there.contains(&number) {
                    assert!(is_conflict(&taken), "{taken:?}");
                } else {
                    // It can't be told from the right one: this is a mixture that the client asked for.
                    return;
                }
            }
            Step::SendOther { .. } => {}
            Step::SendBroken { number } => {
                let taken = server.chunk(file.chunk(number), other.bytes(number), false).await;
                assert!(matches!(taken, Err(ResumableError::ChunkHash { .. })), "{taken:?}");
            }
            Step::BreakOff { number } => {
                let bytes = file.bytes(number);
                let mut incoming = server.resumable.begin_chunk(Some(&file.chunk(number))).await.unwrap();
                incoming.push(bytes[..bytes.len() / 2].to_vec().into()).await.unwrap();
            }
            Step::Together(numbers) => {
                let sending = numbers.iter().map(|number| server.send_chunk(&file, *number));
                let taken = futures_util::future::join_all(sending).await;
                sent.extend(numbers.iter().copied().zip(taken));
            }
        }
        let mut completed = false;
        let numbers: std::collections::BTreeSet<_> = sent.iter().map(|(number, _)| *number).collect();
        let is_twice = numbers.len() < sent.len();
        for (number, taken) in sent {
            match taken {
                Ok(ChunkTaken::Completed { .. }) => completed = true,
                Ok(ChunkTaken::Uploading { .. }) => {}
                // The same one at the same time: the newer one counts. Or all were there meanwhile.
                Err(ResumableError::TakenOver | ResumableError::Gone) => {}
                Err(error) => panic!("{error:?}"),
            }
            there.insert(number);
        }
        if completed && is_twice && server.info().await.is_some() {
            // The second of one number came when all were there: it begins anew, and the file stands.
            let standing = server.status.file(&FileName::clean("a").unwrap()).unwrap();
            assert_eq!(standing.checksum, Some(digest(&file.content)));
            return;
        }
        if completed {
            break true;
        }
        if !there.is_empty() {
            assert_eq!(server.numbers().await, there.iter().copied().collect::<Vec<_>>());
        }
    };
    if !ended {
        for number in (0..file.total).rev().filter(|number| !there.contains(number)) {
            server.send_chunk(&file, number).await.unwrap();
        }
    }
    assert_eq!(server.content("a"), file.content);
    assert_eq!(server.leftovers().len(), 1, "{:?}", server.leftovers());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    #[test]
    fn any_interleaving_ends_in_the_file_or_in_a_clear_error(
        (length, size, sealed, steps) in (1..5_000_usize, 1..2_000_usize, any::<bool>()).prop_flat_map(
            |(length, size, sealed)| {
                let size = size.max(length.div_ceil(8));
                let total = u32::try_from(length.div_ceil(size)).unwrap();
                (Just(length), Just(size), Just(sealed), prop::collection::vec(step(total), 0..20))
            },
        )
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(run(steps, File::new(length, size, sealed)));
    }
}
