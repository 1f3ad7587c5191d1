//! Batches at the edges, records that are refused, calls at the same time.

use std::{collections::BTreeMap, sync::Arc};

use s3rep_core::{
    Batch, ErrorKind, Operation, Outcome, Partition, Record, Rejected, RouteMode, RowChange, Scope, Table,
};
use serde_json::json;

use super::{
    Checked, Failure, ensure, ensure_eq,
    scene::{Harness, MARK, PARTITIONS, Scene, by_place, record},
    theme,
};
use crate::sink::memory::json_bytes;

theme! {
    "batch/as many records as the limit allows" [Sight] records;
    "batch/as many bytes as the limit allows" [Sight] bytes;
    "batch/a record beyond the limit is refused or carried, never cut" [Sight] too_large;
    "batch/an empty batch is taken with its progress" [Sight] empty;
    "batch/a record that violates the schema is refused alone, its neighbours are written" [Sight] violation;
    "batch/every refused record is listed" [Sight, PartialFailure] several_violations;
    "batch/calls with keys of their own at the same time" [Sight, InFlight] concurrent;
    "batch/calls for different tables at the same time" [Sight, InFlight] concurrent_tables;
}

async fn records(harness: Harness) -> Checked {
    // Beyond this the case would take too long to be run often.
    let count = harness.capability.limits.records.min(20_000);
    for mode in harness.visible_modes() {
        let mut scene = harness.start().await;
        let table = scene.table("t", mode).await?;
        let small = |i: usize| {
            let record = record(json!({ "count": i }));
            scene.change(&format!("k-{i:06}"), Operation::Insert, Some(record))
        };
        let mut changes: Vec<RowChange> = (0..count).map(small).collect();
        let all: usize = changes.iter().map(size).sum();
        if all > harness.capability.limits.bytes {
            changes.truncate(count * harness.capability.limits.bytes / all);
        }
        scene.write(&table, changes).await?;
        scene.verify(&table, "after a batch of as many records as allowed").await?;
        scene.write(&table, vec![scene.insert("one", "more")]).await?;
        scene.verify(&table, "after the next batch").await?;
    }
    Ok(())
}

/// As the engine counts.
fn size(change: &RowChange) -> usize {
    change.key.len() + change.record.as_deref().map_or(0, json_bytes)
}

/// A record of exactly this many bytes as JSON text.
fn record_of(bytes: usize) -> Record {
    let empty = json_bytes(&record(json!({ "note": "" })));
    record(json!({ "note": "x".repeat(bytes.saturating_sub(empty)) }))
}

async fn bytes(harness: Harness) -> Checked {
    const LARGEST: usize = 16 << 20;
    let limits = harness.capability.limits;
    let whole = limits.bytes.min(LARGEST);
    for mode in harness.visible_modes() {
        let mut scene = harness.start().await;
        let table = scene.table("t", mode).await?;
        let each = (whole / limits.records.clamp(1, 4)).min(limits.record_bytes);
        let mut changes = Vec::new();
        let mut left = whole;
        while left > each / 2 && changes.len() < limits.records {
            let key = format!("k-{:03}", changes.len());
            let record = record_of(each.min(left) - key.len());
            let change = scene.change(&key, Operation::Insert, Some(record));
            left = left.saturating_sub(size(&change));
            changes.push(change);
        }
        scene.write(&table, changes).await?;
        scene.verify(&table, "after a batch of as many bytes as allowed").await?;
    }
    Ok(())
}

async fn too_large(harness: Harness) -> Checked {
    for mode in harness.visible_modes() {
        let mut scene = harness.start().await;
        let table = scene.table("t", mode).await?;
        let record = record_of(harness.capability.limits.record_bytes + 1);
        let batch = scene.batch(&table, vec![scene.change("large", Operation::Insert, Some(record))]);
        match scene.apply(&batch).await {
            Ok(Outcome { rejected }) if rejected.is_empty() => scene.expect(&batch),
            Ok(Outcome { rejected }) => {
                ensure_eq!(rejected[0].error.kind(), ErrorKind::TooLarge, "the kind of the refusal");
            }
            Err(error) => {
                ensure_eq!(error.kind(), ErrorKind::TooLarge, "the kind of the refusal");
                ensure!(!error.is_temporary(), "a record that is too large is not tried again: {error:?}");
            }
        }
        scene.verify(&table, "after a record beyond the limit").await?;
        scene.write(&table, vec![scene.insert("small", "1")]).await?;
        scene.verify(&table, "after the next batch").await?;
    }
    Ok(())
}

async fn empty(harness: Harness) -> Checked {
    for mode in harness.visible_modes() {
        let mut scene = harness.start().await;
        let table = scene.table("t", mode).await?;
        let model = scene.batch(&table, scene.inserts("a", 10));
        let batch = Batch { changes: Vec::new(), ..model };
        scene.write_batch(&batch).await?;
        scene.verify(&table, "after an empty batch").await?;
        if harness.capability.transactional_cursor {
            scene.reopen().await;
            ensure_eq!(
                scene.cursors().await?,
                by_place(&batch.progress.cursors),
                "the cursors after an empty batch"
            );
        }
        let nothing = scene.batch(&table, Vec::new());
        scene.write_batch(&nothing).await?;
        scene.write(&table, scene.inserts("b", 3)).await?;
        scene.verify(&table, "after the next batch").await?;
    }
    Ok(())
}

/// A record that lacks what the schema requires.
fn violating(scene: &Scene, key: &str) -> RowChange {
    let mut record = record(json!({ "note": MARK }));
    record.shift_remove("name");
    scene.change(key, Operation::Insert, Some(record))
}

async fn violation(harness: Harness) -> Checked {
    for mode in harness.visible_modes() {
        let mut scene = harness.start().await;
        let table = scene.table("t", mode).await?;
        let bad = violating(&scene, "bad");
        let record = bad.record.clone().unwrap_or_default();
        let changes = vec![scene.insert("before", "1"), bad, scene.insert("after", "1")];
        let refused = write_around(&mut scene, &table, changes).await?;
        ensure!(refused.is_empty() || refused == ["bad"], "refused {refused:?}");
        if scene.sink.schema_sync().is_some() && mode == RouteMode::Upsert && refused.is_empty() {
            let held = scene.readback()?.expected(&table, "bad", &record).is_ok();
            ensure!(held, "a record was taken that the table cannot hold");
        }
        scene.verify(&table, "after a record that violates the schema").await?;
        scene.write(&table, vec![scene.insert("next", "1")]).await?;
        scene.verify(&table, "after the next batch").await?;
    }
    Ok(())
}

async fn several_violations(harness: Harness) -> Checked {
    for mode in harness.visible_modes() {
        let mut scene = harness.start().await;
        let table = scene.table("t", mode).await?;
        let mut changes = scene.inserts("good", 10);
        let bad: Vec<usize> = vec![0, 4, 5, 9];
        for &i in &bad {
            let record = violating(&scene, "bad").record;
            changes[i].record = record;
        }
        let batch = scene.batch(&table, changes.clone());
        let outcome = scene.apply(&batch).await?;
        if outcome.rejected.is_empty() {
            // It has no required columns.
            scene.expect(&batch);
        } else {
            let listed: Vec<usize> = outcome.rejected.iter().map(|rejected| rejected.index).collect();
            ensure_eq!(listed, bad, "the indexes of the refused records");
            settle(&mut scene, &table, changes, &outcome.rejected).await?;
        }
        scene.verify(&table, "after several records that violate the schema").await?;
    }
    Ok(())
}

/// Writes a batch as the engine does: sends again what is due when records are refused. Returns the keys of
/// the refused ones.
pub(super) async fn write_around(
    scene: &mut Scene,
    table: &Arc<Table>,
    changes: Vec<RowChange>,
) -> Checked<Vec<String>> {
    let before = if scene.capability().transactional_cursor { Some(scene.cursors().await?) } else { None };
    let batch = scene.batch(table, changes.clone());
    match scene.apply(&batch).await {
        Ok(outcome) if outcome.rejected.is_empty() => {
            scene.expect(&batch);
            Ok(Vec::new())
        }
        Ok(outcome) => {
            ensure!(scene.capability().partial_failure, "a sink without partial failure lists a record");
            if let Some(before) = before {
                ensure_eq!(scene.cursors().await?, before, "the cursors after a batch that was rolled back");
                scene.verify(table, "after a batch that should have been rolled back").await?;
            }
            settle(scene, table, changes.clone(), &outcome.rejected).await?;
            Ok(outcome.rejected.iter().map(|r| changes[r.index].key.to_string()).collect())
        }
        Err(error) => {
            ensure!(
                !scene.capability().partial_failure,
                "a sink with partial failure fails a whole batch for one record: {error:?}"
            );
            halve(scene, table, changes).await
        }
    }
}

/// Writes rows with awkward keys. A destination may have no place for some keys: it says so when it is asked
/// what is expected, and refuses those and no others.
pub(super) async fn write_awkward(scene: &mut Scene, table: &Arc<Table>, changes: Vec<RowChange>) -> Checked {
    let refused = write_around(scene, table, changes.clone()).await?;
    for change in &changes {
        let Some(record) = &change.record else { continue };
        let held = scene.readback()?.expected(table, &change.key, record).is_ok();
        ensure_eq!(
            !refused.iter().any(|key| **key == *change.key),
            held,
            "whether {:?} was taken",
            change.key
        );
    }
    ensure!(refused.len() * 4 < changes.len(), "{} of {} keys were refused", refused.len(), changes.len());
    Ok(())
}

/// What the engine does after records were refused.
async fn settle(
    scene: &mut Scene,
    table: &Arc<Table>,
    changes: Vec<RowChange>,
    rejected: &[Rejected],
) -> Checked {
    let (all, rest): (Vec<_>, Vec<_>) = {
        let refused = |i: &usize| rejected.iter().any(|rejected| rejected.index == *i);
        let rest = (0..changes.len()).filter(|i| !refused(i)).map(|i| changes[i].clone()).collect();
        (changes, rest)
    };
    let mut taken = scene.batch(table, all);
    taken.changes = rest;
    if scene.capability().transactional_cursor {
        // Nothing was written: the rest goes again, and the cursor passes what was parked.
        return scene.write_batch(&taken).await;
    }
    scene.expect(&taken);
    Ok(())
}

/// Finds the guilty records of a batch that failed as a whole.
async fn halve(scene: &mut Scene, table: &Arc<Table>, changes: Vec<RowChange>) -> Checked<Vec<String>> {
    let mut refused = Vec::new();
    for change in changes {
        let batch = scene.batch(table, vec![change]);
        match scene.apply(&batch).await {
            Ok(outcome) => {
                ensure!(outcome.rejected.is_empty(), "a sink without partial failure lists a record");
                scene.expect(&batch);
            }
            Err(error) => {
                ensure!(
                    error.scope() == Scope::Record && !error.is_temporary(),
                    "a record alone fails and the error is not about it for good: {error:?}"
                );
                refused.push(batch.changes[0].key.to_string());
            }
        }
    }
    Ok(refused)
}

async fn concurrent(harness: Harness) -> Checked {
    let lanes = harness.capability.limits.in_flight.min(8);
    for mode in harness.visible_modes() {
        let mut scene = harness.start().await;
        let table = scene.table("t", mode).await?;
        for round in 0..4 {
            // As the engine: what is written at the same time has partitions of its own.
            let mut by_lane: BTreeMap<usize, Vec<RowChange>> = BTreeMap::new();
            for change in scene.inserts(&format!("r{}", round / 2), 200) {
                by_lane.entry(usize::from(change.partition.0) % lanes).or_default().push(change);
            }
            let batches: Vec<Batch> =
                by_lane.into_values().map(|changes| scene.batch(&table, changes)).collect();
            write_together(&mut scene, &batches).await?;
            scene.verify(&table, &format!("after {} calls at the same time", batches.len())).await?;
        }
        scene.reopen().await;
        scene.verify(&table, "after a restart").await?;
    }
    Ok(())
}

async fn concurrent_tables(harness: Harness) -> Checked {
    for mode in harness.visible_modes() {
        let mut scene = harness.start().await;
        let one = scene.table("one", mode).await?;
        let two = scene.table("two", mode).await?;
        for _ in 0..4 {
            let changes = scene.inserts("k", 50);
            let batches = [scene.batch(&one, changes.clone()), scene.batch(&two, changes)];
            write_together(&mut scene, &batches).await?;
        }
        scene.verify(&one, "at the end").await?;
        scene.verify(&two, "at the end").await?;
        if harness.capability.transactional_cursor {
            let stored = scene.cursors().await?.len();
            ensure_eq!(stored, 2 * usize::from(PARTITIONS), "cursors of two tables");
        }
    }
    Ok(())
}

async fn write_together(scene: &mut Scene, batches: &[Batch]) -> Checked {
    let answers = futures::future::join_all(batches.iter().map(|batch| {
        let (sink, cx, pieces) = (scene.sink.clone(), scene.cx.clone(), scene.pieces(batch));
        let harness = scene.harness().clone();
        // Tasks of their own, so that a sink that blocks its thread does not serialize them.
        tokio::spawn(async move {
            for piece in pieces {
                let answer = sink.apply(&cx, &piece).await;
                harness.look_at(&answer, &piece);
                let rejected = answer?.rejected;
                ensure!(rejected.is_empty(), "records were refused: {rejected:?}");
            }
            Ok(())
        })
    }))
    .await;
    for (answer, batch) in answers.into_iter().zip(batches) {
        answer.map_err(|error| Failure(format!("the sink panicked: {error}")))??;
        scene.expect(batch);
    }
    Ok(())
}

/// The partition of a key in the log that the cases play.
pub(super) fn partition(key: &str) -> Partition {
    Partition::of("suite", key, PARTITIONS)
}
