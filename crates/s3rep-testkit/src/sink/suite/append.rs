//! Append tables: every change, in the order of the log for each key.

use s3rep_core::{Operation, RouteMode};
use serde_json::json;

use super::{
    Checked, ensure, ensure_eq,
    scene::{Harness, record},
    theme,
};
use crate::history::AWKWARD_IDS;

theme! {
    "append/every change is a row, in order for each key" [Append, Changes] keeps;
    "append/deletes are rows too" [Append, Changes, Deletes] deletes;
    "append/the same batch twice is there once" [Append, Changes, Cursor] twice;
    "append/the same batch twice is there at least once, with its change ids" [Append, Changes, NoCursor] twice;
    "append/keys that look alike keep their own changes" [Append, Changes] keys;
    "append/several tables in one sink do not mix" [Append, Changes] tables;
    "append/an upsert and an append table in one sink" [Append, Upsert, Changes, Readback] both;
    "append/reading back folds to the latest row of each key" [Append, Changes, Readback] folds;
}

async fn keeps(harness: Harness) -> Checked {
    let mut scene = harness.start().await;
    let table = scene.table("t", RouteMode::Append).await?;
    let several = vec![
        scene.insert("a", "1"),
        scene.update("a", "2"),
        scene.insert("b", "1"),
        scene.update("a", "3"),
        scene.update("a", "3"),
        scene.change("b", Operation::Read, Some(record(json!({"note": "1"})))),
    ];
    scene.write(&table, several).await?;
    scene.verify(&table, "after several changes of a key in a batch").await?;
    for i in 0..5 {
        scene.write(&table, vec![scene.update("a", &i.to_string()), scene.update("b", "same")]).await?;
    }
    scene.verify(&table, "after several batches").await?;
    scene.reopen().await;
    scene.write(&table, vec![scene.update("a", "last")]).await?;
    scene.verify(&table, "after a restart").await
}

async fn deletes(harness: Harness) -> Checked {
    let mut scene = harness.start().await;
    let table = scene.table("t", RouteMode::Append).await?;
    let changes = vec![
        scene.insert("a", "1"),
        scene.delete("a"),
        scene.insert("a", "2"),
        scene.change("a", Operation::Delete, Some(record(json!({"note": "2"})))),
        scene.delete("never"),
    ];
    scene.write(&table, changes).await?;
    scene.verify(&table, "after deletes").await
}

async fn twice(harness: Harness) -> Checked {
    let mut scene = harness.start().await;
    let table = scene.table("t", RouteMode::Append).await?;
    let first = scene.batch(&table, scene.inserts("a", 5));
    let second = scene.batch(&table, vec![scene.update("a-00001", "2"), scene.update("a-00001", "3")]);
    scene.write_batch(&first).await?;
    scene.write_batch(&first).await?;
    scene.verify(&table, "after the same batch twice").await?;
    scene.write_batch(&second).await?;
    scene.reopen().await;
    // A process that did not learn that the first was taken sends both again.
    scene.write_batch(&first).await?;
    scene.write_batch(&second).await?;
    scene.verify(&table, "after both batches behind a restart").await?;
    let both = [first.changes, second.changes].concat();
    let overlapping = scene.batch(&table, [both, scene.inserts("b", 2)].concat());
    scene.write_batch(&overlapping).await?;
    scene.verify(&table, "after a batch that is new in part").await
}

async fn keys(harness: Harness) -> Checked {
    let mut scene = harness.start().await;
    let table = scene.table("t", RouteMode::Append).await?;
    let mut changes = Vec::new();
    for id in AWKWARD_IDS {
        changes.push(scene.insert(id, "1"));
    }
    for id in AWKWARD_IDS.iter().rev() {
        changes.push(scene.update(id, "2"));
    }
    scene.write(&table, changes).await?;
    scene.verify(&table, "after changes of awkward keys").await
}

async fn tables(harness: Harness) -> Checked {
    let mut scene = harness.start().await;
    let one = scene.table("one", RouteMode::Append).await?;
    let two = scene.table("two", RouteMode::Append).await?;
    for i in 0..3 {
        scene.write(&one, vec![scene.update("same", &format!("one {i}"))]).await?;
        scene
            .write(&two, vec![scene.update("same", &format!("two {i}")), scene.update("other", "x")])
            .await?;
    }
    scene.verify(&one, "at the end").await?;
    scene.verify(&two, "at the end").await?;
    ensure_eq!(scene.changes(&one).await?.len(), 3, "changes of the first table");
    Ok(())
}

async fn both(harness: Harness) -> Checked {
    let mut scene = harness.start().await;
    let rows = scene.table("cars", RouteMode::Upsert).await?;
    let changes = scene.table("cars_log", RouteMode::Append).await?;
    for i in 0..4 {
        // One change of the log on two routes: the same offset and the same change id.
        let batch = vec![scene.update("a", &i.to_string()), scene.update("b", &i.to_string())];
        scene.write(&rows, batch.clone()).await?;
        scene.write(&changes, batch).await?;
        scene.reopen().await;
    }
    scene.verify(&rows, "at the end").await?;
    scene.verify(&changes, "at the end").await
}

async fn folds(harness: Harness) -> Checked {
    let mut scene = harness.start().await;
    let table = scene.table("t", RouteMode::Append).await?;
    scene.write(&table, scene.inserts("k", 10)).await?;
    scene.write(&table, vec![scene.update("k-00003", "2"), scene.update("k-00003", "3")]).await?;
    if harness.capability.deletes {
        scene.write(&table, vec![scene.delete("k-00005"), scene.delete("k-00006")]).await?;
        scene.write(&table, vec![scene.insert("k-00006", "again")]).await?;
    }
    for max in [1, 4, 100] {
        let rows = scene.rows_by(&table, max).await?;
        let differences = scene.oracle.compare_rows(&table, scene.readback()?, &rows);
        ensure!(differences.is_empty(), "in pages of {max}: {differences:?}");
    }
    Ok(())
}
