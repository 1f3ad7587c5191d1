//! Reading: pages, waiting, and every kind of content.

use std::{sync::Arc, time::Duration};

use s3rep_core::{Operation, Seq, Timestamp};
use serde_json::{Value, json};

use super::{Bench, Case, Outcome, cases, change, changes, hold, read_all, record, same, seqs, with_data};

pub(super) fn cases() -> Vec<Case> {
    cases![
        any an_empty_log_has_an_empty_page,
        any pages_hold_as_many_entries_as_asked_for,
        any pages_hold_as_many_bytes_as_asked_for_and_at_least_one_entry,
        any reading_starts_anywhere,
        any reading_does_not_wait,
        any waiting_ends_with_an_append,
        any waiting_for_what_is_there_ends_at_once,
        any waiting_goes_on_through_other_writes,
        any entries_carry_when_they_were_logged,
        any every_part_of_a_change_comes_back,
        any every_kind_of_value_comes_back,
        any members_keep_their_order,
        any a_record_of_a_megabyte_comes_back,
        any deep_nesting_comes_back,
        any long_and_odd_names_come_back,
        any readers_do_not_disturb_each_other_or_the_writer,
    ]
}

async fn an_empty_log_has_an_empty_page(bench: Bench) -> Outcome {
    let log = bench.open().await?;
    let page = log.read(&bench.cx, Seq(0), 10, 1 << 20).await?;
    same("entries", &page.entries.len(), &0)?;
    same("the place to read on from", &page.next, &Seq(0))
}

async fn pages_hold_as_many_entries_as_asked_for(bench: Bench) -> Outcome {
    let log = bench.open().await?;
    log.append(&bench.cx, &changes(0..25), &[]).await?;
    let mut sizes = Vec::new();
    let mut after = Seq(0);
    loop {
        let page = log.read(&bench.cx, after, 10, usize::MAX).await?;
        if page.entries.is_empty() {
            break;
        }
        sizes.push(page.entries.len());
        after = page.next;
    }
    same("sizes of the pages", &sizes, &vec![10, 10, 5])
}

async fn pages_hold_as_many_bytes_as_asked_for_and_at_least_one_entry(bench: Bench) -> Outcome {
    let log = bench.open().await?;
    let large = |n| with_data(n, &format!("r{n}"), json!({ "text": "x".repeat(10_000) }));
    log.append(&bench.cx, &(0..10).map(large).collect::<Vec<_>>(), &[]).await?;
    same("one byte", &log.read(&bench.cx, Seq(0), 10, 1).await?.entries.len(), &1)?;
    same("no byte", &log.read(&bench.cx, Seq(3), 10, 0).await?.entries.len(), &1)?;
    let some = log.read(&bench.cx, Seq(0), 10, 35_000).await?;
    hold("about as many as fit", (2..=4).contains(&some.entries.len()))?;
    same("the place to read on from", &some.next.0, &(some.entries.len() as u64))
}

async fn reading_starts_anywhere(bench: Bench) -> Outcome {
    let log = bench.open().await?;
    log.append(&bench.cx, &changes(0..5), &[]).await?;
    same("offsets", &seqs(&log.read(&bench.cx, Seq(3), 10, usize::MAX).await?.entries), &vec![4, 5])
}

async fn reading_does_not_wait(bench: Bench) -> Outcome {
    let log = bench.open().await?;
    log.append(&bench.cx, &changes(0..5), &[]).await?;
    let page = log.read(&bench.cx, Seq(5), 10, usize::MAX).await?;
    same("entries", &page.entries.len(), &0)?;
    same("the place to read on from", &page.next, &Seq(5))
}

async fn waiting_ends_with_an_append(bench: Bench) -> Outcome {
    let log = bench.open().await?;
    log.append(&bench.cx, &changes(0..2), &[]).await?;
    let waiting = {
        let log = Arc::clone(&log);
        tokio::spawn(async move { log.appended_after(Seq(2)).await })
    };
    tokio::time::sleep(Duration::from_millis(20)).await;
    hold("it waits", !waiting.is_finished())?;
    log.append(&bench.cx, &changes(2..3), &[]).await?;
    tokio::time::timeout(Duration::from_secs(10), waiting).await??;
    same("what it waited for", &seqs(&log.read(&bench.cx, Seq(2), 10, usize::MAX).await?.entries), &vec![3])
}

async fn waiting_for_what_is_there_ends_at_once(bench: Bench) -> Outcome {
    let log = bench.open().await?;
    log.append(&bench.cx, &changes(0..2), &[]).await?;
    tokio::time::timeout(Duration::from_secs(10), log.appended_after(Seq(1))).await?;
    Ok(())
}

async fn waiting_goes_on_through_other_writes(bench: Bench) -> Outcome {
    let log = bench.open().await?;
    log.append(&bench.cx, &changes(0..2), &[]).await?;
    let waiting = {
        let log = Arc::clone(&log);
        tokio::spawn(async move { log.appended_after(Seq(2)).await })
    };
    log.append(&bench.cx, &changes(0..2), &[]).await?;
    log.acquire(&bench.cx, "r", s3rep_core::StartAt::End).await?;
    tokio::time::sleep(Duration::from_millis(20)).await;
    hold("it waits", !waiting.is_finished())?;
    waiting.abort();
    Ok(())
}

async fn entries_carry_when_they_were_logged(bench: Bench) -> Outcome {
    let log = bench.open().await?;
    let first = bench.cx.now();
    log.append(&bench.cx, &changes(0..1), &[]).await?;
    bench.pass(Duration::from_secs(5));
    log.append(&bench.cx, &changes(1..2), &[]).await?;
    let times: Vec<_> =
        read_all(&*log, &bench.cx, Seq(0), 10).await?.iter().map(|entry| entry.logged_at).collect();
    same("times", &times, &vec![first, Timestamp(first.0 + 5_000)])
}

async fn every_part_of_a_change_comes_back(bench: Bench) -> Outcome {
    let log = bench.open().await?;
    let record = |n: u64| Some(Arc::new(record(json!({ "n": n }))));
    let mut all = Vec::new();
    let operations = [Operation::Insert, Operation::Update, Operation::Delete, Operation::Read];
    for (n, operation) in (0..).zip(operations.into_iter().cycle().take(32)) {
        let mut change = change(n, "a");
        change.operation = operation;
        change.data = (n & 4 == 0).then(|| record(n)).flatten();
        change.before = (n & 8 == 0).then(|| record(n + 1)).flatten();
        change.target = (n & 16 == 0).then(|| "replicator".into());
        change.schema_version = format!("v{n}").into();
        change.timestamp = Timestamp([0, -1, i64::MAX, i64::MIN][n as usize % 4]);
        all.push(change);
    }
    let mut shared = change(100, "a");
    shared.before.clone_from(&shared.data);
    let mut empty = change(101, "a");
    empty.data = Some(Arc::default());
    empty.before = Some(Arc::default());
    all.extend([shared, empty]);
    log.append(&bench.cx, &all, &[]).await?;
    let read: Vec<_> =
        read_all(&*log, &bench.cx, Seq(0), 100).await?.into_iter().map(|entry| entry.change).collect();
    for (found, expected) in read.iter().zip(&all) {
        same("a change", found, expected)?;
    }
    same("changes", &read.len(), &all.len())
}

async fn every_kind_of_value_comes_back(bench: Bench) -> Outcome {
    let log = bench.open().await?;
    let values = json!({
        "null": null, "true": true, "false": false, "zero": 0, "minus": -1,
        "beyond a double": 9_007_199_254_740_993_u64, "u64": u64::MAX, "i64": i64::MIN,
        "float": 0.1, "tiny": 5e-324, "huge": 1.797_693_134_862_315_7e308, "minus zero": -0.0, "third": 1.0 / 3.0,
        "whole": 1.0, "empty": "", "text": "plain", "quotes": "\"\\/\u{8}\u{c}\n\r\t",
        "nul": "a\u{0}b", "controls": "\u{1}\u{1f}\u{7f}", "unicode": "äöü ß Ж 漢字 🦀 e\u{301} \u{202e}\u{feff}",
        "separators": "\u{2028}\u{2029}", "replacement": "\u{fffd}\u{ffff}\u{10ffff}",
        "array": [], "object": {}, "mixed": [1, "a", null, [2.5, {"b": []}], {"c": {"d": false}}],
        "": "the empty name", "na\u{0}me": 1, "näme 🦀": 2, "__proto__": 3,
    });
    let change = with_data(1, "a", values);
    log.append(&bench.cx, std::slice::from_ref(&change), &[]).await?;
    let read = read_all(&*log, &bench.cx, Seq(0), 10).await?;
    let (found, expected) = (read[0].change.data.clone(), change.data);
    for (name, value) in expected.iter().flat_map(|record| record.iter()) {
        let found = found.as_ref().and_then(|record| record.get(name));
        same(name, &found, &Some(value))?;
        // -0.0 equals 0.0, but is not the same.
        same(name, &found.map(Value::to_string), &Some(value.to_string()))?;
    }
    same("members", &found.map(|record| record.len()), &expected.map(|record| record.len()))
}

async fn members_keep_their_order(bench: Bench) -> Outcome {
    let log = bench.open().await?;
    let change =
        with_data(1, "a", json!({ "z": 1, "a": { "y": 1, "b": 2, "10": 3, "9": 4 }, "m": 3, "1": 4 }));
    log.append(&bench.cx, std::slice::from_ref(&change), &[]).await?;
    let read = read_all(&*log, &bench.cx, Seq(0), 10).await?;
    let text = |change: &s3rep_core::Change| serde_json::to_string(&change.data);
    same("the record as text", &text(&read[0].change)?, &text(&change)?)
}

async fn a_record_of_a_megabyte_comes_back(bench: Bench) -> Outcome {
    let log = bench.open().await?;
    let large = with_data(1, "a", json!({ "text": "0123456789abcdéf".repeat(1 << 16), "after": 1 }));
    log.append(&bench.cx, &[change(0, "b"), large.clone(), change(2, "c")], &[]).await?;
    let read = read_all(&*log, &bench.cx, Seq(0), 10).await?;
    same("offsets", &seqs(&read), &vec![1, 2, 3])?;
    hold("the record comes back", read[1].change == large)
}

async fn deep_nesting_comes_back(bench: Bench) -> Outcome {
    let log = bench.open().await?;
    let nested =
        (0..100).fold(json!(1), |inner, n| if n % 2 == 0 { json!([inner]) } else { json!({ "a": inner }) });
    let change = with_data(1, "a", json!({ "nested": nested }));
    log.append(&bench.cx, std::slice::from_ref(&change), &[]).await?;
    same("the change", &read_all(&*log, &bench.cx, Seq(0), 10).await?[0].change, &change)
}

async fn long_and_odd_names_come_back(bench: Bench) -> Outcome {
    let log = bench.open().await?;
    let names = ["", "a b", "a/b", "a\u{0}b", "ä🦀", "'; DROP TABLE log; --", "%_?*", &"x".repeat(2_000)];
    let mut all = Vec::new();
    for (n, name) in (0..).zip(names) {
        let mut change = change(n, name);
        change.resource = names[n as usize].into();
        change.schema_version = name.into();
        change.target = Some(name.into());
        all.push(change);
    }
    log.append(&bench.cx, &all, &[]).await?;
    let read: Vec<_> =
        read_all(&*log, &bench.cx, Seq(0), 100).await?.into_iter().map(|entry| entry.change).collect();
    same("the changes", &read, &all)
}

async fn readers_do_not_disturb_each_other_or_the_writer(bench: Bench) -> Outcome {
    let log = bench.open().await?;
    let mut tasks = Vec::new();
    for _ in 0..6 {
        let (log, cx) = (Arc::clone(&log), bench.cx.clone());
        tasks.push(tokio::spawn(async move {
            let mut after = Seq(0);
            while after < Seq(2_000) {
                log.appended_after(after).await;
                let page = log.read(&cx, after, 64, usize::MAX).await?;
                for entry in &page.entries {
                    after = Seq(after.0 + 1);
                    if entry.seq != after {
                        return Err(s3rep_core::Error::new(s3rep_core::ErrorKind::Corrupt, "a gap"));
                    }
                }
            }
            s3rep_core::Result::<()>::Ok(())
        }));
    }
    for first in (0..2_000).step_by(20) {
        log.append(&bench.cx, &changes(first..first + 20), &[]).await?;
    }
    for task in tasks {
        task.await??;
    }
    Ok(())
}
