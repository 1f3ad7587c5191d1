//! Appending: offsets, duplicates, order, partitions, durability.

use std::{collections::HashMap, sync::Arc, time::Duration};

use s3rep_core::{Appended, Partition, Retention, Seq, StateWrite};

use super::{Bench, Case, Outcome, PARTITIONS, cases, change, changes, hold, read_all, same, seqs};

pub(super) fn cases() -> Vec<Case> {
    cases![
        any offsets_start_at_one_and_have_no_gaps,
        any an_empty_append_changes_nothing,
        any a_known_change_is_not_appended_again,
        any a_change_twice_in_one_append_is_taken_once,
        any only_the_id_tells_changes_apart,
        durable a_known_change_is_known_after_reopening,
        any thousands_of_known_changes_are_recognised,
        durable thousands_of_known_changes_are_recognised_after_reopening,
        durable offsets_go_on_after_reopening,
        durable offsets_are_not_reused_after_everything_was_trimmed,
        any partitions_follow_the_record,
        any changes_of_a_record_keep_their_order,
        any tasks_that_append_at_once_share_the_log,
        any an_append_that_nobody_waits_for_is_whole_or_absent,
        durable identity_and_partitions_stay,
        any logs_have_identities_of_their_own,
        durable what_was_appended_is_there_after_reopening,
    ]
}

const NOW: Retention =
    Retention { passed: Duration::ZERO, max_age: Duration::from_secs(1 << 30), max_bytes: u64::MAX };

async fn offsets_start_at_one_and_have_no_gaps(bench: Bench) -> Outcome {
    let log = bench.open().await?;
    let done = log.append(&bench.cx, &changes(0..3), &[]).await?;
    same("the first append", &done, &Appended { last: Seq(3), appended: 3, duplicates: 0 })?;
    let done = log.append(&bench.cx, &changes(3..5), &[]).await?;
    same("the second append", &done, &Appended { last: Seq(5), appended: 2, duplicates: 0 })?;
    same("offsets", &seqs(&read_all(&*log, &bench.cx, Seq(0), 10).await?), &vec![1, 2, 3, 4, 5])
}

async fn an_empty_append_changes_nothing(bench: Bench) -> Outcome {
    let log = bench.open().await?;
    log.append(&bench.cx, &changes(0..2), &[]).await?;
    let done = log.append(&bench.cx, &[], &[]).await?;
    same("the append", &done, &Appended { last: Seq(2), appended: 0, duplicates: 0 })
}

async fn a_known_change_is_not_appended_again(bench: Bench) -> Outcome {
    let log = bench.open().await?;
    log.append(&bench.cx, &changes(0..3), &[]).await?;
    let done = log.append(&bench.cx, &changes(1..4), &[]).await?;
    same("the append", &done, &Appended { last: Seq(4), appended: 1, duplicates: 2 })?;
    let ids: Vec<_> =
        read_all(&*log, &bench.cx, Seq(0), 10).await?.into_iter().map(|e| e.change.change_id).collect();
    same("the changes", &ids, &changes(0..4).into_iter().map(|change| change.change_id).collect())
}

async fn a_change_twice_in_one_append_is_taken_once(bench: Bench) -> Outcome {
    let log = bench.open().await?;
    let done = log.append(&bench.cx, &[change(1, "a"), change(1, "a"), change(2, "a")], &[]).await?;
    same("the append", &done, &Appended { last: Seq(2), appended: 2, duplicates: 1 })
}

async fn only_the_id_tells_changes_apart(bench: Bench) -> Outcome {
    let log = bench.open().await?;
    let mut other = change(1, "a");
    other.change_id.0[0] = 0x80;
    let done = log.append(&bench.cx, &[change(1, "a"), other, change(1, "b")], &[]).await?;
    same("the append", &done, &Appended { last: Seq(2), appended: 2, duplicates: 1 })
}

async fn a_known_change_is_known_after_reopening(bench: Bench) -> Outcome {
    let log = bench.open().await?;
    log.append(&bench.cx, &changes(0..3), &[]).await?;
    let log = bench.reopen(log).await?;
    let done = log.append(&bench.cx, &changes(0..4), &[]).await?;
    same("the append", &done, &Appended { last: Seq(4), appended: 1, duplicates: 3 })
}

async fn thousands_of_known_changes_are_recognised(bench: Bench) -> Outcome {
    let log = bench.open().await?;
    for first in (0..40_000).step_by(5_000) {
        log.append(&bench.cx, &changes(first..first + 5_000), &[]).await?;
    }
    let mut again = changes(0..40_100);
    again.reverse();
    let done = log.append(&bench.cx, &again, &[]).await?;
    same("the append", &done, &Appended { last: Seq(40_100), appended: 100, duplicates: 40_000 })
}

async fn thousands_of_known_changes_are_recognised_after_reopening(bench: Bench) -> Outcome {
    let mut log = bench.open().await?;
    for first in (0..45_000).step_by(9_000) {
        log.append(&bench.cx, &changes(first..first + 9_000), &[]).await?;
        log = bench.reopen(log).await?;
    }
    let done = log.append(&bench.cx, &changes(0..45_001), &[]).await?;
    same("the append", &done, &Appended { last: Seq(45_001), appended: 1, duplicates: 45_000 })
}

async fn offsets_go_on_after_reopening(bench: Bench) -> Outcome {
    let log = bench.open().await?;
    log.append(&bench.cx, &changes(0..3), &[]).await?;
    let log = bench.reopen(log).await?;
    same("the end", &log.extent(&bench.cx).await?.last, &Seq(3))?;
    log.append(&bench.cx, &changes(3..5), &[]).await?;
    same("offsets", &seqs(&read_all(&*log, &bench.cx, Seq(0), 10).await?), &vec![1, 2, 3, 4, 5])
}

async fn offsets_are_not_reused_after_everything_was_trimmed(bench: Bench) -> Outcome {
    let log = bench.open().await?;
    log.append(&bench.cx, &changes(0..7), &[]).await?;
    same("trimmed entries", &log.trim(&bench.cx, NOW).await?.entries, &7)?;
    let log = bench.reopen(log).await?;
    let extent = log.extent(&bench.cx).await?;
    same("the span", &(extent.trimmed, extent.last, extent.entries), &(Seq(7), Seq(7), 0))?;
    log.append(&bench.cx, &changes(7..9), &[]).await?;
    same("offsets", &seqs(&read_all(&*log, &bench.cx, Seq(0), 10).await?), &vec![8, 9])
}

async fn partitions_follow_the_record(bench: Bench) -> Outcome {
    let log = bench.open().await?;
    same("the number of partitions", &log.partitions(), &PARTITIONS)?;
    log.append(&bench.cx, &changes(0..200), &[]).await?;
    for entry in read_all(&*log, &bench.cx, Seq(0), 64).await? {
        let expected = Partition::of(&entry.change.resource, &entry.change.id, PARTITIONS);
        same("a partition", &entry.partition, &expected)?;
    }
    Ok(())
}

async fn changes_of_a_record_keep_their_order(bench: Bench) -> Outcome {
    let log = bench.open().await?;
    for round in 0..20 {
        let batch: Vec<_> = (0..30).map(|n| change(round * 30 + n, &format!("r{}", n % 7))).collect();
        log.append(&bench.cx, &batch, &[]).await?;
    }
    let mut newest = HashMap::new();
    for entry in read_all(&*log, &bench.cx, Seq(0), 50).await? {
        let at = entry.change.timestamp;
        hold(
            "a later change of a record comes later",
            newest.insert(entry.change.id, at).is_none_or(|b| b < at),
        )?;
    }
    Ok(())
}

async fn tasks_that_append_at_once_share_the_log(bench: Bench) -> Outcome {
    let log = bench.open().await?;
    let mut tasks = Vec::new();
    for task in 0..8_u64 {
        let (log, cx) = (Arc::clone(&log), bench.cx.clone());
        tasks.push(tokio::spawn(async move {
            for round in 0..25 {
                let first = task * 1_000 + round * 4;
                // The neighbour appends the same changes, too: each is taken once.
                let shared = (task / 2) * 100_000 + 1_000_000 + round;
                let mut batch: Vec<_> =
                    (first..first + 4).map(|n| change(n, &format!("task-{task}"))).collect();
                batch.push(change(shared, "shared"));
                let state =
                    StateWrite { space: "s".into(), key: format!("{task}"), value: Some(vec![round as u8]) };
                log.append(&cx, &batch, &[state]).await?;
            }
            s3rep_core::Result::<()>::Ok(())
        }));
    }
    for task in tasks {
        task.await??;
    }
    let all = read_all(&*log, &bench.cx, Seq(0), 100).await?;
    same("offsets", &seqs(&all), &(1..=8 * 25 * 4 + 4 * 25).collect())?;
    let mut newest = HashMap::new();
    for entry in all.iter().filter(|entry| &*entry.change.id != "shared") {
        let at = entry.change.timestamp;
        let before = newest.insert(Arc::clone(&entry.change.id), at);
        hold("each task's changes keep their order", before.is_none_or(|before| before < at))?;
    }
    same("keys of the state", &log.scan(&bench.cx, "s", None, 100).await?.len(), &8)
}

async fn an_append_that_nobody_waits_for_is_whole_or_absent(bench: Bench) -> Outcome {
    let log = bench.open().await?;
    for round in 0..50_u64 {
        let batch: Vec<_> = (0..20).map(|n| change(round * 20 + n, &format!("round-{round}"))).collect();
        let state = [StateWrite { space: "s".into(), key: round.to_string(), value: Some(vec![1]) }];
        let append = log.append(&bench.cx, &batch, &state);
        let _ = tokio::time::timeout(Duration::from_micros(round * 7), append).await;
    }
    // What is behind these is done as well.
    log.append(&bench.cx, &[change(99_999, "end")], &[]).await?;
    let mut counts: HashMap<String, usize> = HashMap::new();
    for entry in read_all(&*log, &bench.cx, Seq(0), 100).await? {
        *counts.entry(entry.change.id.to_string()).or_default() += 1;
    }
    counts.remove("end");
    let state = log.scan(&bench.cx, "s", None, 100).await?;
    hold("each append is whole", counts.values().all(|count| *count == 20))?;
    same("state of the appends", &state.len(), &counts.len())
}

async fn identity_and_partitions_stay(bench: Bench) -> Outcome {
    let log = bench.open().await?;
    let id = log.id();
    tokio::task::spawn_blocking(move || drop(log)).await?;
    let log = bench.place.open(PARTITIONS * 2).await?;
    same("the identity", &log.id(), &id)?;
    same("the number of partitions", &log.partitions(), &PARTITIONS)
}

async fn logs_have_identities_of_their_own(bench: Bench) -> Outcome {
    let (a, b) = (bench.open().await?.id(), bench.elsewhere().open().await?.id());
    hold("identities differ", a != b)
}

async fn what_was_appended_is_there_after_reopening(bench: Bench) -> Outcome {
    let log = bench.open().await?;
    log.append(&bench.cx, &changes(0..100), &[]).await?;
    let before = read_all(&*log, &bench.cx, Seq(0), 30).await?;
    let extent = log.extent(&bench.cx).await?;
    let log = bench.reopen(log).await?;
    same("the entries", &read_all(&*log, &bench.cx, Seq(0), 40).await?, &before)?;
    same("the span", &log.extent(&bench.cx).await?, &extent)
}
