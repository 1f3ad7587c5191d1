//! Retention and the span of the log.

use std::time::Duration;

use s3rep_core::{ChangeLog, Commit, Context, Extent, Partition, Result, Retention, Seq, StartAt, Trimmed};

use super::{Bench, Case, Outcome, PARTITIONS, cases, change, changes, hold, read_all, same, seqs};

pub(super) fn cases() -> Vec<Case> {
    cases![
        any the_span_of_an_empty_log,
        any the_span_follows_appends_and_trims,
        any the_default_forgets_nothing_fresh,
        any what_everyone_has_passed_goes_after_its_time,
        any what_someone_has_not_passed_stays,
        any idle_partitions_do_not_hold_entries,
        any what_is_too_old_goes_and_marks_those_behind,
        any what_is_too_much_goes_and_marks_those_behind,
        any a_mark_keeps_its_first_reason,
        any a_trimmed_change_is_new_again,
        any reading_from_a_trimmed_place_starts_at_the_oldest,
        any a_new_replicator_starts_behind_what_was_trimmed,
        any thousands_of_entries_are_trimmed,
        any trimming_twice_does_nothing_more,
        durable trims_and_marks_outlive_the_process,
    ]
}

const KEEP: Retention = Retention {
    passed: Duration::from_secs(1 << 30),
    max_age: Duration::from_secs(1 << 30),
    max_bytes: u64::MAX,
};
const PASSED: Retention = Retention { passed: Duration::ZERO, ..KEEP };

async fn owner(log: &dyn ChangeLog, cx: &Context, name: &str, at: u64) -> Result<u64> {
    let fence = log.acquire(cx, name, StartAt::Oldest).await?.fence;
    log.reset(cx, name, fence, Seq(at), None).await?;
    Ok(fence)
}

async fn mark(log: &dyn ChangeLog, cx: &Context, name: &str) -> Result<Option<String>> {
    let all = log.replicators(cx).await?;
    Ok(all.into_iter().find(|known| known.replicator == name).and_then(|known| known.needs_resync))
}

fn trimmed(entries: u64, fell_behind: &[&str]) -> Trimmed {
    Trimmed { entries, fell_behind: fell_behind.iter().map(ToString::to_string).collect() }
}

async fn the_span_of_an_empty_log(bench: Bench) -> Outcome {
    let log = bench.open().await?;
    same("the span", &log.extent(&bench.cx).await?, &Extent::default())?;
    same("a trim", &log.trim(&bench.cx, PASSED).await?, &trimmed(0, &[]))
}

async fn the_span_follows_appends_and_trims(bench: Bench) -> Outcome {
    let log = bench.open().await?;
    log.append(&bench.cx, &changes(0..10), &[]).await?;
    let ten = log.extent(&bench.cx).await?;
    same("the span", &(ten.trimmed, ten.last, ten.entries), &(Seq(0), Seq(10), 10))?;
    hold("entries have a size", ten.bytes > 10 * 20)?;
    log.append(&bench.cx, &changes(10..20), &[]).await?;
    let twenty = log.extent(&bench.cx).await?;
    hold("more entries are larger", twenty.bytes > ten.bytes)?;
    owner(&*log, &bench.cx, "r", 10).await?;
    same("the trim", &log.trim(&bench.cx, PASSED).await?, &trimmed(10, &[]))?;
    let rest = log.extent(&bench.cx).await?;
    same("the span", &(rest.trimmed, rest.last, rest.entries), &(Seq(10), Seq(20), 10))?;
    same("the bytes", &rest.bytes, &(twenty.bytes - ten.bytes))?;
    same("offsets", &seqs(&read_all(&*log, &bench.cx, Seq(0), 100).await?), &(11..=20).collect())
}

async fn the_default_forgets_nothing_fresh(bench: Bench) -> Outcome {
    let log = bench.open().await?;
    log.append(&bench.cx, &changes(0..10), &[]).await?;
    same("a trim", &log.trim(&bench.cx, Retention::default()).await?, &trimmed(0, &[]))?;
    bench.pass(Duration::from_secs(3_601));
    same("an hour later", &log.trim(&bench.cx, Retention::default()).await?, &trimmed(10, &[]))
}

async fn what_everyone_has_passed_goes_after_its_time(bench: Bench) -> Outcome {
    let log = bench.open().await?;
    let retention = Retention { passed: Duration::from_secs(10), ..KEEP };
    log.append(&bench.cx, &changes(0..3), &[]).await?;
    bench.pass(Duration::from_secs(6));
    log.append(&bench.cx, &changes(3..6), &[]).await?;
    owner(&*log, &bench.cx, "r", 5).await?;
    same("at once", &log.trim(&bench.cx, retention).await?, &trimmed(0, &[]))?;
    bench.pass(Duration::from_secs(6));
    same("later", &log.trim(&bench.cx, retention).await?, &trimmed(3, &[]))?;
    bench.pass(Duration::from_secs(6));
    same("at last", &log.trim(&bench.cx, retention).await?, &trimmed(2, &[]))?;
    same("offsets", &seqs(&read_all(&*log, &bench.cx, Seq(0), 10).await?), &vec![6])
}

async fn what_someone_has_not_passed_stays(bench: Bench) -> Outcome {
    let log = bench.open().await?;
    log.append(&bench.cx, &changes(0..6), &[]).await?;
    owner(&*log, &bench.cx, "a", 5).await?;
    owner(&*log, &bench.cx, "b", 2).await?;
    same("the trim", &log.trim(&bench.cx, PASSED).await?, &trimmed(2, &[]))?;
    log.forget(&bench.cx, "b").await?;
    same("without b", &log.trim(&bench.cx, PASSED).await?, &trimmed(3, &[]))
}

async fn idle_partitions_do_not_hold_entries(bench: Bench) -> Outcome {
    let log = bench.open().await?;
    let all: Vec<_> = (0..6).map(|n| change(n, "one record")).collect();
    log.append(&bench.cx, &all, &[]).await?;
    let fence = owner(&*log, &bench.cx, "r", 0).await?;
    let busy = Partition::of("things", "one record", PARTITIONS);
    let cursors = [(busy, Seq(0), Seq(4))];
    let commit = Commit { replicator: "r", fence, cursors: &cursors, parked: &[], settled: &[] };
    log.commit(&bench.cx, commit).await?;
    same("the trim", &log.trim(&bench.cx, PASSED).await?, &trimmed(4, &[]))
}

async fn what_is_too_old_goes_and_marks_those_behind(bench: Bench) -> Outcome {
    let log = bench.open().await?;
    let retention = Retention { max_age: Duration::from_secs(60), ..KEEP };
    log.append(&bench.cx, &changes(0..4), &[]).await?;
    bench.pass(Duration::from_secs(40));
    log.append(&bench.cx, &changes(4..6), &[]).await?;
    owner(&*log, &bench.cx, "behind", 3).await?;
    owner(&*log, &bench.cx, "through", 4).await?;
    bench.pass(Duration::from_secs(40));
    same("the trim", &log.trim(&bench.cx, retention).await?, &trimmed(4, &["behind"]))?;
    hold("the one behind is marked", mark(&*log, &bench.cx, "behind").await?.is_some())?;
    same("the other one", &mark(&*log, &bench.cx, "through").await?, &None)?;
    same("offsets", &seqs(&read_all(&*log, &bench.cx, Seq(0), 10).await?), &vec![5, 6])?;
    let lease = log.acquire(&bench.cx, "behind", StartAt::Oldest).await?;
    hold("the lease says so", lease.needs_resync.is_some() && !lease.is_new)
}

async fn what_is_too_much_goes_and_marks_those_behind(bench: Bench) -> Outcome {
    let log = bench.open().await?;
    log.append(&bench.cx, &changes(0..100), &[]).await?;
    let all = log.extent(&bench.cx).await?;
    owner(&*log, &bench.cx, "behind", 10).await?;
    owner(&*log, &bench.cx, "through", 90).await?;
    let max_bytes = all.bytes / 2;
    let done = log.trim(&bench.cx, Retention { max_bytes, ..KEEP }).await?;
    let rest = log.extent(&bench.cx).await?;
    hold("what is left fits", rest.bytes <= max_bytes)?;
    hold("no more goes than must", rest.bytes + all.bytes / 50 > max_bytes)?;
    same("the span", &(rest.entries, rest.trimmed.0), &(100 - done.entries, done.entries))?;
    same("who fell behind", &done.fell_behind, &vec!["behind".to_owned()])?;
    hold("the one behind is marked", mark(&*log, &bench.cx, "behind").await?.is_some())?;
    same("the other one", &mark(&*log, &bench.cx, "through").await?, &None)
}

async fn a_mark_keeps_its_first_reason(bench: Bench) -> Outcome {
    let log = bench.open().await?;
    log.append(&bench.cx, &changes(0..10), &[]).await?;
    let fence = owner(&*log, &bench.cx, "r", 0).await?;
    log.reset(&bench.cx, "r", fence, Seq(0), Some("the first reason")).await?;
    let done = log.trim(&bench.cx, Retention { max_bytes: 0, ..KEEP }).await?;
    same("the trim", &done, &trimmed(10, &["r"]))?;
    same("the reason", &mark(&*log, &bench.cx, "r").await?.as_deref(), &Some("the first reason"))
}

async fn a_trimmed_change_is_new_again(bench: Bench) -> Outcome {
    let log = bench.open().await?;
    log.append(&bench.cx, &changes(0..10), &[]).await?;
    owner(&*log, &bench.cx, "r", 5).await?;
    log.trim(&bench.cx, PASSED).await?;
    let done = log.append(&bench.cx, &changes(0..10), &[]).await?;
    same("what the log knows", &(done.appended, done.duplicates, done.last), &(5, 5, Seq(15)))
}

async fn reading_from_a_trimmed_place_starts_at_the_oldest(bench: Bench) -> Outcome {
    let log = bench.open().await?;
    log.append(&bench.cx, &changes(0..10), &[]).await?;
    owner(&*log, &bench.cx, "r", 6).await?;
    log.trim(&bench.cx, PASSED).await?;
    let page = log.read(&bench.cx, Seq(2), 2, usize::MAX).await?;
    same("offsets", &seqs(&page.entries), &vec![7, 8])?;
    same("damaged entries", &page.damaged.len(), &0)
}

async fn a_new_replicator_starts_behind_what_was_trimmed(bench: Bench) -> Outcome {
    let log = bench.open().await?;
    log.append(&bench.cx, &changes(0..10), &[]).await?;
    owner(&*log, &bench.cx, "r", 6).await?;
    log.trim(&bench.cx, PASSED).await?;
    let lease = log.acquire(&bench.cx, "new", StartAt::Oldest).await?;
    same("cursors", &lease.cursors, &vec![Seq(6); usize::from(PARTITIONS)])
}

async fn thousands_of_entries_are_trimmed(bench: Bench) -> Outcome {
    let log = bench.open().await?;
    log.append(&bench.cx, &changes(0..30_000), &[]).await?;
    owner(&*log, &bench.cx, "r", 29_000).await?;
    same("the trim", &log.trim(&bench.cx, PASSED).await?, &trimmed(29_000, &[]))?;
    let done = log.append(&bench.cx, &changes(28_000..31_000), &[]).await?;
    same("what the log knows", &(done.appended, done.duplicates), &(2_000, 1_000))?;
    same("entries", &read_all(&*log, &bench.cx, Seq(0), 999).await?.len(), &3_000)
}

async fn trimming_twice_does_nothing_more(bench: Bench) -> Outcome {
    let log = bench.open().await?;
    log.append(&bench.cx, &changes(0..10), &[]).await?;
    log.trim(&bench.cx, PASSED).await?;
    same("the second trim", &log.trim(&bench.cx, PASSED).await?, &trimmed(0, &[]))?;
    same("bytes", &log.extent(&bench.cx).await?.bytes, &0)
}

async fn trims_and_marks_outlive_the_process(bench: Bench) -> Outcome {
    let log = bench.open().await?;
    log.append(&bench.cx, &changes(0..10), &[]).await?;
    owner(&*log, &bench.cx, "r", 3).await?;
    let half = log.extent(&bench.cx).await?.bytes / 2;
    log.trim(&bench.cx, Retention { max_bytes: half, ..KEEP }).await?;
    let (extent, replicators) = (log.extent(&bench.cx).await?, log.replicators(&bench.cx).await?);
    let log = bench.reopen(log).await?;
    same("the span", &log.extent(&bench.cx).await?, &extent)?;
    same("replicators", &log.replicators(&bench.cx).await?, &replicators)
}
