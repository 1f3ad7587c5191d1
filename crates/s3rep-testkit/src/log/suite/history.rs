//! Random histories, told to the log and to the reference, which have to agree.

use std::{sync::Arc, time::Duration};

use s3rep_core::{
    ChangeLog, Commit, Context, DeadLetter, Partition, Random as _, ReplicatorState, Retention, Seq, StartAt,
    StateWrite,
};

use super::{Bench, Case, MemoryLog, Outcome, PARTITIONS, cases, change, read_all, same};
use crate::context::{SplitMix, seed};

pub(super) fn cases() -> Vec<Case> {
    cases![
        any a_random_history_agrees_with_the_reference,
        durable a_random_history_with_restarts_agrees_with_the_reference,
    ]
}

async fn a_random_history_agrees_with_the_reference(bench: Bench) -> Outcome {
    histories(&bench, false).await
}

async fn a_random_history_with_restarts_agrees_with_the_reference(bench: Bench) -> Outcome {
    histories(&bench, true).await
}

async fn histories(bench: &Bench, restarts: bool) -> Outcome {
    let seed = seed();
    for round in 0..8 {
        let bench = bench.elsewhere();
        let seed = seed.wrapping_add(round);
        history(&bench, &SplitMix::new(seed), restarts).await.map_err(|failed| {
            format!("{} (run again with S3REP_SEED={seed})", failed.message().unwrap_or_default())
        })?;
    }
    Ok(())
}

const NAMES: [&str; 3] = ["a", "b", "c"];

async fn history(bench: &Bench, random: &SplitMix, restarts: bool) -> Outcome {
    let mut log = bench.open().await?;
    let reference: Arc<dyn ChangeLog> = Arc::new(MemoryLog::with_partitions(PARTITIONS));
    // Fences of the two, for each replicator; zero is nobody's.
    let mut fences = [(0, 0); 3];
    for step in 0..150 {
        let cx = &bench.cx;
        let at = random.below(3) as usize;
        let name = NAMES[at];
        let what = format!("step {step}");
        match random.below(if restarts { 12 } else { 11 }) {
            0..=3 => {
                let (changes, state) = something(random);
                let (found, expected) =
                    (log.append(cx, &changes, &state).await?, reference.append(cx, &changes, &state).await?);
                same(&format!("{what}: append"), &found, &expected)?;
            }
            4 => {
                let start = if random.below(2) == 0 { StartAt::Oldest } else { StartAt::End };
                let (found, expected) =
                    (log.acquire(cx, name, start).await?, reference.acquire(cx, name, start).await?);
                let parts = |lease: &s3rep_core::Lease| (lease.is_new, lease.cursors.clone());
                same(&format!("{what}: acquire"), &parts(&found), &parts(&expected))?;
                fences[at] = (found.fence, expected.fence);
            }
            5..=7 => {
                let moves = moves(&*reference, cx, name, random).await?;
                let Moves { cursors, parked, settled } = &moves;
                let commit = |fence| Commit { replicator: name, fence, cursors, parked, settled };
                let (found, expected) = (
                    log.commit(cx, commit(fences[at].0)).await,
                    reference.commit(cx, commit(fences[at].1)).await,
                );
                same(
                    &format!("{what}: commit"),
                    &found.map_err(|e| e.kind()),
                    &expected.map_err(|e| e.kind()),
                )?;
            }
            8 => {
                let to = Seq(random.below(reference.extent(cx).await?.last.0 + 2));
                let why = (random.below(2) == 0).then_some("why");
                let found = log.reset(cx, name, fences[at].0, to, why).await;
                let expected = reference.reset(cx, name, fences[at].1, to, why).await;
                same(
                    &format!("{what}: reset"),
                    &found.map_err(|e| e.kind()),
                    &expected.map_err(|e| e.kind()),
                )?;
            }
            9 => {
                bench.pass(Duration::from_secs(random.below(20)));
                let retention = Retention {
                    passed: Duration::from_secs(random.below(30)),
                    max_age: Duration::from_secs(20 + random.below(200)),
                    // Bytes are a log's own measure.
                    max_bytes: u64::MAX,
                };
                let (found, expected) =
                    (log.trim(cx, retention).await?, reference.trim(cx, retention).await?);
                same(&format!("{what}: trim"), &found, &expected)?;
            }
            10 if random.below(4) == 0 => {
                log.forget(cx, name).await?;
                reference.forget(cx, name).await?;
            }
            10 => agree(&what, &*log, &*reference, cx, random).await?,
            _ => log = bench.reopen(log).await?,
        }
    }
    agree("the end", &*log, &*reference, &bench.cx, random).await
}

fn something(random: &SplitMix) -> (Vec<s3rep_core::Change>, Vec<StateWrite>) {
    // Few enough ids that some come again.
    let changes =
        (0..random.below(20)).map(|_| change(random.below(2_000), &format!("r{}", random.below(40))));
    let state = (0..random.below(4)).map(|_| StateWrite {
        space: format!("s{}", random.below(2)),
        key: format!("k{}", random.below(20)),
        value: (random.below(3) > 0).then(|| random.next_u64().to_le_bytes().to_vec()),
    });
    (changes.collect(), state.collect())
}

struct Moves {
    cursors: Vec<(Partition, Seq, Seq)>,
    parked: Vec<DeadLetter>,
    settled: Vec<(Seq, Arc<str>)>,
}

/// A commit that is right more often than not.
async fn moves(
    log: &dyn ChangeLog,
    cx: &Context,
    name: &str,
    random: &SplitMix,
) -> s3rep_core::Result<Moves> {
    let last = log.extent(cx).await?.last.0;
    let known = log.replicators(cx).await?.into_iter().find(|known| known.replicator == name);
    let at = |partition: usize| known.as_ref().map_or(0, |known| known.cursors[partition].0);
    let cursors = (0..random.below(4)).map(|_| {
        let partition = random.below(u64::from(PARTITIONS)) as u16;
        let expected = if random.below(8) == 0 { random.below(last + 1) } else { at(usize::from(partition)) };
        let new =
            expected + random.below(last.saturating_sub(expected) + 1 + u64::from(random.below(10) == 0));
        (Partition(partition), Seq(expected), Seq(new))
    });
    let cursors = cursors.collect();
    let table = |n: u64| -> Arc<str> { format!("t{n}").into() };
    let parked = (0..random.below(3)).map(|_| DeadLetter {
        seq: Seq(1 + random.below(last + 1)),
        table: table(random.below(2)),
        change: change(random.below(2_000), "parked"),
        error: "refused".into(),
        attempts: random.below(9) as u32,
        parked_at: cx.now(),
    });
    let parked = parked.collect();
    let settled = (0..random.below(3)).map(|_| (Seq(1 + random.below(last + 1)), table(random.below(2))));
    Ok(Moves { cursors, parked, settled: settled.collect() })
}

async fn agree(
    what: &str,
    log: &dyn ChangeLog,
    reference: &dyn ChangeLog,
    cx: &Context,
    random: &SplitMix,
) -> Outcome {
    let size = 1 + random.below(50) as usize;
    let (found, expected) =
        (read_all(log, cx, Seq(0), size).await?, read_all(reference, cx, Seq(0), size).await?);
    same(&format!("{what}: entries"), &found, &expected)?;
    let (found, expected) = (log.extent(cx).await?, reference.extent(cx).await?);
    let span = |extent: &s3rep_core::Extent| (extent.trimmed, extent.last, extent.entries);
    same(&format!("{what}: the span"), &span(&found), &span(&expected))?;
    // Fences are a log's own, and so are the words of a reason.
    let plain = |mut all: Vec<ReplicatorState>| {
        for known in &mut all {
            known.fence = 0;
            known.needs_resync = known.needs_resync.as_ref().map(|_| String::new());
        }
        all
    };
    let (found, expected) = (plain(log.replicators(cx).await?), plain(reference.replicators(cx).await?));
    same(&format!("{what}: replicators"), &found, &expected)?;
    for name in NAMES {
        let (found, expected) = (
            log.dead_letters(cx, name, Seq(0), 1_000).await?,
            reference.dead_letters(cx, name, Seq(0), 1_000).await?,
        );
        same(&format!("{what}: letters"), &found, &expected)?;
    }
    for space in ["s0", "s1"] {
        let (found, expected) =
            (log.scan(cx, space, None, 100).await?, reference.scan(cx, space, None, 100).await?);
        same(&format!("{what}: state"), &found, &expected)?;
    }
    Ok(())
}
