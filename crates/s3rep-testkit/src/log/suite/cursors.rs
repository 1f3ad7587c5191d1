//! Cursors: ownership, moves, refusals.

use std::sync::Arc;

use s3rep_core::{ChangeLog, Commit, Context, ErrorKind, Partition, Result, Seq, StartAt};

use super::{Bench, Case, Outcome, PARTITIONS, cases, change, changes, hold, refused, same};

pub(super) fn cases() -> Vec<Case> {
    cases![
        any a_new_replicator_starts_at_the_oldest_entry,
        any a_new_replicator_starts_at_the_end,
        any a_known_replicator_keeps_its_place,
        any fences_grow_for_ever,
        durable fences_grow_after_reopening,
        any cursors_move_when_they_stand_where_expected,
        any a_stale_owner_is_refused_and_nothing_changes,
        any a_forgotten_owner_is_refused,
        any a_wrong_expectation_is_refused_and_nothing_changes,
        any cursors_do_not_move_back_or_beyond_the_end,
        any an_unknown_partition_is_refused,
        any a_commit_of_nothing_proves_ownership,
        any reset_moves_every_cursor_and_marks,
        any a_stale_owner_cannot_reset,
        any of_two_owners_at_once_only_the_newer_commits,
        any replicators_are_independent,
        any pending_counts_by_partition,
        any forgetting_is_complete_and_repeatable,
        any odd_names_of_replicators_work,
        durable cursors_outlive_the_process,
    ]
}

/// Moves every cursor from `from` to `to`.
async fn move_all(
    log: &dyn ChangeLog,
    cx: &Context,
    name: &str,
    fence: u64,
    from: u64,
    to: u64,
) -> Result<()> {
    let cursors: Vec<_> = (0..PARTITIONS).map(|p| (Partition(p), Seq(from), Seq(to))).collect();
    log.commit(cx, Commit { replicator: name, fence, cursors: &cursors, parked: &[], settled: &[] }).await
}

async fn move_one(log: &dyn ChangeLog, cx: &Context, fence: u64, cursor: (u16, u64, u64)) -> Result<()> {
    let cursors = [(Partition(cursor.0), Seq(cursor.1), Seq(cursor.2))];
    log.commit(cx, Commit { replicator: "r", fence, cursors: &cursors, parked: &[], settled: &[] }).await
}

async fn cursors(log: &dyn ChangeLog, cx: &Context, name: &str) -> Result<Vec<u64>> {
    let all = log.replicators(cx).await?;
    let known = all.iter().find(|known| known.replicator == name);
    Ok(known.map(|known| known.cursors.iter().map(|seq| seq.0).collect()).unwrap_or_default())
}

async fn a_new_replicator_starts_at_the_oldest_entry(bench: Bench) -> Outcome {
    let log = bench.open().await?;
    log.append(&bench.cx, &changes(0..5), &[]).await?;
    let lease = log.acquire(&bench.cx, "r", StartAt::Oldest).await?;
    hold("it is new", lease.is_new)?;
    same("cursors", &lease.cursors, &vec![Seq(0); usize::from(PARTITIONS)])?;
    same("needs_resync", &lease.needs_resync, &None)
}

async fn a_new_replicator_starts_at_the_end(bench: Bench) -> Outcome {
    let log = bench.open().await?;
    log.append(&bench.cx, &changes(0..5), &[]).await?;
    let lease = log.acquire(&bench.cx, "r", StartAt::End).await?;
    hold("it is new", lease.is_new)?;
    same("cursors", &lease.cursors, &vec![Seq(5); usize::from(PARTITIONS)])?;
    same("pending", &log.replicators(&bench.cx).await?[0].pending, &0)
}

async fn a_known_replicator_keeps_its_place(bench: Bench) -> Outcome {
    let log = bench.open().await?;
    log.append(&bench.cx, &changes(0..5), &[]).await?;
    let lease = log.acquire(&bench.cx, "r", StartAt::Oldest).await?;
    move_all(&*log, &bench.cx, "r", lease.fence, 0, 3).await?;
    let again = log.acquire(&bench.cx, "r", StartAt::End).await?;
    hold("it is known", !again.is_new)?;
    same("cursors", &again.cursors, &vec![Seq(3); usize::from(PARTITIONS)])
}

async fn fences_grow_for_ever(bench: Bench) -> Outcome {
    let log = bench.open().await?;
    let mut newest = 0;
    for _ in 0..5 {
        let lease = log.acquire(&bench.cx, "r", StartAt::Oldest).await?;
        hold("a fence is above the one before", lease.fence > newest)?;
        same("the fence shown", &log.replicators(&bench.cx).await?[0].fence, &lease.fence)?;
        newest = lease.fence;
    }
    log.forget(&bench.cx, "r").await?;
    let lease = log.acquire(&bench.cx, "r", StartAt::Oldest).await?;
    hold("also when the replicator was forgotten meanwhile", lease.fence > newest)
}

async fn fences_grow_after_reopening(bench: Bench) -> Outcome {
    let log = bench.open().await?;
    let before = log.acquire(&bench.cx, "r", StartAt::Oldest).await?.fence;
    let log = bench.reopen(log).await?;
    let after = log.acquire(&bench.cx, "r", StartAt::Oldest).await?;
    hold("the fence is above the one before", after.fence > before)?;
    refused("the old owner", move_all(&*log, &bench.cx, "r", before, 0, 0).await, ErrorKind::Fenced)
}

async fn cursors_move_when_they_stand_where_expected(bench: Bench) -> Outcome {
    let log = bench.open().await?;
    log.append(&bench.cx, &changes(0..9), &[]).await?;
    let fence = log.acquire(&bench.cx, "r", StartAt::Oldest).await?.fence;
    move_one(&*log, &bench.cx, fence, (1, 0, 4)).await?;
    move_one(&*log, &bench.cx, fence, (1, 4, 4)).await?;
    move_one(&*log, &bench.cx, fence, (1, 4, 9)).await?;
    move_one(&*log, &bench.cx, fence, (3, 0, 7)).await?;
    same("cursors", &cursors(&*log, &bench.cx, "r").await?, &vec![0, 9, 0, 7])
}

async fn a_stale_owner_is_refused_and_nothing_changes(bench: Bench) -> Outcome {
    let log = bench.open().await?;
    log.append(&bench.cx, &changes(0..9), &[]).await?;
    let old = log.acquire(&bench.cx, "r", StartAt::Oldest).await?.fence;
    let new = log.acquire(&bench.cx, "r", StartAt::Oldest).await?.fence;
    refused("the old owner", move_one(&*log, &bench.cx, old, (1, 0, 4)).await, ErrorKind::Fenced)?;
    refused("a fence never given", move_one(&*log, &bench.cx, new + 1, (1, 0, 4)).await, ErrorKind::Fenced)?;
    same("cursors", &cursors(&*log, &bench.cx, "r").await?, &vec![0; 4])?;
    Ok(move_one(&*log, &bench.cx, new, (1, 0, 4)).await?)
}

async fn a_forgotten_owner_is_refused(bench: Bench) -> Outcome {
    let log = bench.open().await?;
    let fence = log.acquire(&bench.cx, "r", StartAt::Oldest).await?.fence;
    log.forget(&bench.cx, "r").await?;
    refused("a commit", move_one(&*log, &bench.cx, fence, (0, 0, 0)).await, ErrorKind::Fenced)?;
    refused("a reset", log.reset(&bench.cx, "r", fence, Seq(0), None).await, ErrorKind::Fenced)?;
    same("replicators", &log.replicators(&bench.cx).await?.len(), &0)
}

async fn a_wrong_expectation_is_refused_and_nothing_changes(bench: Bench) -> Outcome {
    let log = bench.open().await?;
    log.append(&bench.cx, &changes(0..9), &[]).await?;
    let fence = log.acquire(&bench.cx, "r", StartAt::Oldest).await?.fence;
    move_one(&*log, &bench.cx, fence, (1, 0, 4)).await?;
    let both = [(Partition(0), Seq(0), Seq(5)), (Partition(1), Seq(0), Seq(5))];
    let commit = Commit { replicator: "r", fence, cursors: &both, parked: &[], settled: &[] };
    refused("the commit", log.commit(&bench.cx, commit).await, ErrorKind::Contention)?;
    same("cursors", &cursors(&*log, &bench.cx, "r").await?, &vec![0, 4, 0, 0])
}

async fn cursors_do_not_move_back_or_beyond_the_end(bench: Bench) -> Outcome {
    let log = bench.open().await?;
    log.append(&bench.cx, &changes(0..9), &[]).await?;
    let fence = log.acquire(&bench.cx, "r", StartAt::Oldest).await?.fence;
    move_one(&*log, &bench.cx, fence, (1, 0, 4)).await?;
    refused("back", move_one(&*log, &bench.cx, fence, (1, 4, 3)).await, ErrorKind::InvalidValue)?;
    refused("beyond", move_one(&*log, &bench.cx, fence, (1, 4, 10)).await, ErrorKind::InvalidValue)?;
    let reset = log.reset(&bench.cx, "r", fence, Seq(10), None).await;
    refused("a reset beyond", reset, ErrorKind::InvalidValue)?;
    same("cursors", &cursors(&*log, &bench.cx, "r").await?, &vec![0, 4, 0, 0])
}

async fn an_unknown_partition_is_refused(bench: Bench) -> Outcome {
    let log = bench.open().await?;
    let fence = log.acquire(&bench.cx, "r", StartAt::Oldest).await?.fence;
    refused("it", move_one(&*log, &bench.cx, fence, (PARTITIONS, 0, 0)).await, ErrorKind::InvalidValue)
}

async fn a_commit_of_nothing_proves_ownership(bench: Bench) -> Outcome {
    let log = bench.open().await?;
    let old = log.acquire(&bench.cx, "r", StartAt::Oldest).await?.fence;
    let nothing = |fence| Commit { replicator: "r", fence, cursors: &[], parked: &[], settled: &[] };
    log.commit(&bench.cx, nothing(old)).await?;
    log.acquire(&bench.cx, "r", StartAt::Oldest).await?;
    refused("the old owner", log.commit(&bench.cx, nothing(old)).await, ErrorKind::Fenced)
}

async fn reset_moves_every_cursor_and_marks(bench: Bench) -> Outcome {
    let log = bench.open().await?;
    log.append(&bench.cx, &changes(0..9), &[]).await?;
    let fence = log.acquire(&bench.cx, "r", StartAt::Oldest).await?.fence;
    move_one(&*log, &bench.cx, fence, (1, 0, 4)).await?;
    log.reset(&bench.cx, "r", fence, Seq(9), Some("because")).await?;
    let lease = log.acquire(&bench.cx, "r", StartAt::Oldest).await?;
    same("cursors", &lease.cursors, &vec![Seq(9); 4])?;
    same("needs_resync", &lease.needs_resync.as_deref(), &Some("because"))?;
    log.reset(&bench.cx, "r", lease.fence, Seq(2), None).await?;
    let state = &log.replicators(&bench.cx).await?[0];
    same("cursors shown", &state.cursors, &vec![Seq(2); 4])?;
    same("needs_resync shown", &state.needs_resync, &None)
}

async fn a_stale_owner_cannot_reset(bench: Bench) -> Outcome {
    let log = bench.open().await?;
    log.append(&bench.cx, &changes(0..9), &[]).await?;
    let old = log.acquire(&bench.cx, "r", StartAt::Oldest).await?.fence;
    log.acquire(&bench.cx, "r", StartAt::Oldest).await?;
    refused("it", log.reset(&bench.cx, "r", old, Seq(9), Some("no")).await, ErrorKind::Fenced)?;
    let state = &log.replicators(&bench.cx).await?[0];
    same("what stands", &(state.cursors.clone(), state.needs_resync.clone()), &(vec![Seq(0); 4], None))
}

async fn of_two_owners_at_once_only_the_newer_commits(bench: Bench) -> Outcome {
    let log = bench.open().await?;
    log.append(&bench.cx, &changes(0..100), &[]).await?;
    let mut tasks = Vec::new();
    for _ in 0..4 {
        let (log, cx) = (Arc::clone(&log), bench.cx.clone());
        tasks.push(tokio::spawn(async move {
            let mut moved = 0;
            for _ in 0..25 {
                let lease = log.acquire(&cx, "r", StartAt::Oldest).await?;
                tokio::task::yield_now().await;
                let at = lease.cursors[0].0;
                match move_one(&*log, &cx, lease.fence, (0, at, at + 1)).await {
                    Ok(()) => moved += 1,
                    Err(error) if error.kind() == ErrorKind::Fenced => {}
                    Err(error) => return Err(error),
                }
            }
            Result::Ok(moved)
        }));
    }
    let mut moved = 0;
    for task in tasks {
        moved += task.await??;
    }
    same("the cursor", &cursors(&*log, &bench.cx, "r").await?[0], &moved)
}

async fn replicators_are_independent(bench: Bench) -> Outcome {
    let log = bench.open().await?;
    log.append(&bench.cx, &changes(0..9), &[]).await?;
    let a = log.acquire(&bench.cx, "a", StartAt::Oldest).await?.fence;
    let b = log.acquire(&bench.cx, "b", StartAt::Oldest).await?.fence;
    move_all(&*log, &bench.cx, "a", a, 0, 9).await?;
    move_all(&*log, &bench.cx, "b", b, 0, 2).await?;
    let names: Vec<_> = log.replicators(&bench.cx).await?.into_iter().map(|known| known.replicator).collect();
    same("names", &names, &vec!["a".to_owned(), "b".to_owned()])?;
    same("b", &cursors(&*log, &bench.cx, "b").await?, &vec![2; 4])?;
    log.forget(&bench.cx, "a").await?;
    same("b", &cursors(&*log, &bench.cx, "b").await?, &vec![2; 4])
}

async fn pending_counts_by_partition(bench: Bench) -> Outcome {
    let log = bench.open().await?;
    let record_of = |partition| {
        (0..)
            .map(|n| format!("r{n}"))
            .find(|id| Partition::of("things", id, PARTITIONS) == Partition(partition))
    };
    let (a, b) = (record_of(1).unwrap_or_default(), record_of(2).unwrap_or_default());
    let fence = log.acquire(&bench.cx, "r", StartAt::Oldest).await?.fence;
    let start = bench.cx.now();
    for n in 0..6 {
        log.append(&bench.cx, &[change(n, if n % 2 == 0 { &a } else { &b })], &[]).await?;
        bench.pass(std::time::Duration::from_secs(1));
    }
    let state = log.replicators(&bench.cx).await?.remove(0);
    same("pending", &(state.pending, state.oldest_pending), &(6, Some(start)))?;
    move_one(&*log, &bench.cx, fence, (1, 0, 5)).await?;
    let state = log.replicators(&bench.cx).await?.remove(0);
    let second = s3rep_core::Timestamp(start.0 + 1_000);
    same("pending of one partition", &(state.pending, state.oldest_pending), &(3, Some(second)))?;
    move_one(&*log, &bench.cx, fence, (2, 0, 4)).await?;
    let state = log.replicators(&bench.cx).await?.remove(0);
    let last = s3rep_core::Timestamp(start.0 + 5_000);
    same("the last", &(state.pending, state.oldest_pending), &(1, Some(last)))?;
    move_one(&*log, &bench.cx, fence, (2, 4, 6)).await?;
    let state = log.replicators(&bench.cx).await?.remove(0);
    same("nothing pending", &(state.pending, state.oldest_pending), &(0, None))
}

async fn forgetting_is_complete_and_repeatable(bench: Bench) -> Outcome {
    let log = bench.open().await?;
    log.append(&bench.cx, &changes(0..9), &[]).await?;
    let fence = log.acquire(&bench.cx, "r", StartAt::Oldest).await?.fence;
    move_all(&*log, &bench.cx, "r", fence, 0, 5).await?;
    log.forget(&bench.cx, "r").await?;
    log.forget(&bench.cx, "r").await?;
    log.forget(&bench.cx, "never there").await?;
    let lease = log.acquire(&bench.cx, "r", StartAt::Oldest).await?;
    hold("it is new", lease.is_new)?;
    same("cursors", &lease.cursors, &vec![Seq(0); 4])
}

async fn odd_names_of_replicators_work(bench: Bench) -> Outcome {
    let log = bench.open().await?;
    let mut names = ["a", "a\u{0}", "A", "ä", "a b", "'", "%", "🦀"];
    for name in names {
        let lease = log.acquire(&bench.cx, name, StartAt::Oldest).await?;
        hold("it is new", lease.is_new)?;
        log.reset(&bench.cx, name, lease.fence, Seq(0), Some(name)).await?;
    }
    names.sort_unstable();
    let found: Vec<_> = log.replicators(&bench.cx).await?;
    let found: Vec<_> =
        found.into_iter().map(|known| (known.replicator.clone(), known.needs_resync)).collect();
    same("names", &found, &names.iter().map(|name| (name.to_string(), Some(name.to_string()))).collect())
}

async fn cursors_outlive_the_process(bench: Bench) -> Outcome {
    let log = bench.open().await?;
    log.append(&bench.cx, &changes(0..9), &[]).await?;
    let fence = log.acquire(&bench.cx, "r", StartAt::Oldest).await?.fence;
    move_one(&*log, &bench.cx, fence, (1, 0, 4)).await?;
    let before = log.replicators(&bench.cx).await?;
    let log = bench.reopen(log).await?;
    same("replicators", &log.replicators(&bench.cx).await?, &before)?;
    Ok(move_one(&*log, &bench.cx, fence, (1, 4, 5)).await?)
}
