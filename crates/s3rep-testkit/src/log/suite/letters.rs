//! Dead letters.

use std::sync::Arc;

use s3rep_core::{
    ChangeLog, Commit, Context, DeadLetter, ErrorKind, Partition, Result, Retention, Seq, StartAt,
};
use serde_json::json;

use super::{Bench, Case, Outcome, cases, change, changes, hold, record, refused, same};

pub(super) fn cases() -> Vec<Case> {
    cases![
        any parked_changes_come_back_whole,
        any parking_again_replaces,
        any settled_letters_are_gone,
        any a_move_parks_and_settles_as_one,
        any a_refused_commit_parks_and_settles_nothing,
        any letters_come_in_pages,
        any letters_belong_to_their_replicator,
        any letters_outlive_their_entries,
        any forgetting_a_replicator_forgets_its_letters,
        durable letters_outlive_the_process,
    ]
}

fn letter(n: u64, table: &str) -> DeadLetter {
    let mut change = change(n, &format!("record-{n}"));
    change.before = Some(Arc::new(record(json!({ "was": n, "text": "a\u{0}ä" }))));
    change.target = n.is_multiple_of(2).then(|| "r".into());
    DeadLetter {
        seq: Seq(n),
        table: table.into(),
        change,
        error: format!("refused for reason {n}: ä\u{0}"),
        attempts: 3,
        parked_at: s3rep_core::Timestamp(1_790_000_000_123),
    }
}

async fn park(
    log: &dyn ChangeLog,
    cx: &Context,
    name: &str,
    fence: u64,
    parked: &[DeadLetter],
) -> Result<()> {
    log.commit(cx, Commit { replicator: name, fence, cursors: &[], parked, settled: &[] }).await
}

async fn parked_changes_come_back_whole(bench: Bench) -> Outcome {
    let log = bench.open().await?;
    let fence = log.acquire(&bench.cx, "r", StartAt::Oldest).await?.fence;
    let mut deleted = letter(3, "t");
    deleted.change.data = None;
    deleted.change.before = None;
    let all = vec![letter(1, "t"), letter(2, ""), deleted, letter(4, "t\u{0}ä"), letter(4, "u")];
    park(&*log, &bench.cx, "r", fence, &all).await?;
    same("letters", &log.dead_letters(&bench.cx, "r", Seq(0), 100).await?, &all)?;
    same("the count", &log.replicators(&bench.cx).await?[0].dead_letters, &5)
}

async fn parking_again_replaces(bench: Bench) -> Outcome {
    let log = bench.open().await?;
    let fence = log.acquire(&bench.cx, "r", StartAt::Oldest).await?.fence;
    park(&*log, &bench.cx, "r", fence, &[letter(1, "t")]).await?;
    let mut again = letter(1, "t");
    again.attempts = 7;
    again.error = "another reason".into();
    park(&*log, &bench.cx, "r", fence, std::slice::from_ref(&again)).await?;
    same("letters", &log.dead_letters(&bench.cx, "r", Seq(0), 100).await?, &vec![again])
}

async fn settled_letters_are_gone(bench: Bench) -> Outcome {
    let log = bench.open().await?;
    let fence = log.acquire(&bench.cx, "r", StartAt::Oldest).await?.fence;
    park(&*log, &bench.cx, "r", fence, &[letter(1, "t"), letter(1, "u"), letter(2, "t")]).await?;
    let settled = [(Seq(1), "t".into()), (Seq(9), "never there".into())];
    let commit = Commit { replicator: "r", fence, cursors: &[], parked: &[], settled: &settled };
    log.commit(&bench.cx, commit).await?;
    same(
        "letters",
        &log.dead_letters(&bench.cx, "r", Seq(0), 100).await?,
        &vec![letter(1, "u"), letter(2, "t")],
    )
}

async fn a_move_parks_and_settles_as_one(bench: Bench) -> Outcome {
    let log = bench.open().await?;
    log.append(&bench.cx, &changes(0..5), &[]).await?;
    let fence = log.acquire(&bench.cx, "r", StartAt::Oldest).await?.fence;
    park(&*log, &bench.cx, "r", fence, &[letter(1, "t")]).await?;
    let commit = Commit {
        replicator: "r",
        fence,
        cursors: &[(Partition(0), Seq(0), Seq(3))],
        parked: &[letter(2, "t")],
        settled: &[(Seq(1), "t".into())],
    };
    log.commit(&bench.cx, commit).await?;
    same("letters", &log.dead_letters(&bench.cx, "r", Seq(0), 100).await?, &vec![letter(2, "t")])?;
    same("the cursor", &log.replicators(&bench.cx).await?[0].cursors[0], &Seq(3))
}

async fn a_refused_commit_parks_and_settles_nothing(bench: Bench) -> Outcome {
    let log = bench.open().await?;
    log.append(&bench.cx, &changes(0..5), &[]).await?;
    let old = log.acquire(&bench.cx, "r", StartAt::Oldest).await?.fence;
    let fence = log.acquire(&bench.cx, "r", StartAt::Oldest).await?.fence;
    park(&*log, &bench.cx, "r", fence, &[letter(1, "t")]).await?;
    for (fence, expected, kind) in [(old, 0, ErrorKind::Fenced), (fence, 1, ErrorKind::Contention)] {
        let commit = Commit {
            replicator: "r",
            fence,
            cursors: &[(Partition(0), Seq(expected), Seq(3))],
            parked: &[letter(2, "t")],
            settled: &[(Seq(1), "t".into())],
        };
        refused("the commit", log.commit(&bench.cx, commit).await, kind)?;
    }
    same("letters", &log.dead_letters(&bench.cx, "r", Seq(0), 100).await?, &vec![letter(1, "t")])?;
    same("the cursor", &log.replicators(&bench.cx).await?[0].cursors[0], &Seq(0))
}

async fn letters_come_in_pages(bench: Bench) -> Outcome {
    let log = bench.open().await?;
    let fence = log.acquire(&bench.cx, "r", StartAt::Oldest).await?.fence;
    let all: Vec<_> = (1..=20).flat_map(|n| (0..=n % 3).map(move |t| letter(n, &format!("t{t}")))).collect();
    park(&*log, &bench.cx, "r", fence, &all).await?;
    for size in [1, 2, 7, 100] {
        let mut found: Vec<DeadLetter> = Vec::new();
        loop {
            let after = found.last().map_or(Seq(0), |letter| letter.seq);
            let page = log.dead_letters(&bench.cx, "r", after, size).await?;
            if page.is_empty() {
                break;
            }
            hold("a page is about as large as asked for", page.len() < size + 3)?;
            found.extend(page);
        }
        same("letters", &found, &all)?;
    }
    Ok(())
}

async fn letters_belong_to_their_replicator(bench: Bench) -> Outcome {
    let log = bench.open().await?;
    let a = log.acquire(&bench.cx, "a", StartAt::Oldest).await?.fence;
    let b = log.acquire(&bench.cx, "b", StartAt::Oldest).await?.fence;
    park(&*log, &bench.cx, "a", a, &[letter(1, "t")]).await?;
    park(&*log, &bench.cx, "b", b, &[letter(1, "t"), letter(2, "t")]).await?;
    same("letters of a", &log.dead_letters(&bench.cx, "a", Seq(0), 10).await?.len(), &1)?;
    same("letters of b", &log.dead_letters(&bench.cx, "b", Seq(0), 10).await?.len(), &2)?;
    same("letters of nobody", &log.dead_letters(&bench.cx, "c", Seq(0), 10).await?.len(), &0)
}

async fn letters_outlive_their_entries(bench: Bench) -> Outcome {
    let log = bench.open().await?;
    log.append(&bench.cx, &changes(0..5), &[]).await?;
    let fence = log.acquire(&bench.cx, "r", StartAt::End).await?.fence;
    park(&*log, &bench.cx, "r", fence, &[letter(2, "t")]).await?;
    log.trim(&bench.cx, Retention { passed: std::time::Duration::ZERO, ..Retention::default() }).await?;
    same("entries", &log.extent(&bench.cx).await?.entries, &0)?;
    same("letters", &log.dead_letters(&bench.cx, "r", Seq(0), 10).await?, &vec![letter(2, "t")])
}

async fn forgetting_a_replicator_forgets_its_letters(bench: Bench) -> Outcome {
    let log = bench.open().await?;
    let fence = log.acquire(&bench.cx, "r", StartAt::Oldest).await?.fence;
    park(&*log, &bench.cx, "r", fence, &[letter(1, "t")]).await?;
    log.forget(&bench.cx, "r").await?;
    log.acquire(&bench.cx, "r", StartAt::Oldest).await?;
    same("letters", &log.dead_letters(&bench.cx, "r", Seq(0), 10).await?.len(), &0)
}

async fn letters_outlive_the_process(bench: Bench) -> Outcome {
    let log = bench.open().await?;
    let fence = log.acquire(&bench.cx, "r", StartAt::Oldest).await?.fence;
    park(&*log, &bench.cx, "r", fence, &[letter(1, "t"), letter(2, "t")]).await?;
    let log = bench.reopen(log).await?;
    same(
        "letters",
        &log.dead_letters(&bench.cx, "r", Seq(0), 10).await?,
        &vec![letter(1, "t"), letter(2, "t")],
    )
}
