//! Upsert tables: the latest row of each key.

use s3rep_core::{Operation, RouteMode};
use serde_json::json;

use super::{
    Checked,
    batches::write_awkward,
    ensure_eq,
    scene::{Harness, record},
    theme,
};
use crate::history::AWKWARD_IDS;

theme! {
    "upsert/insert, update and read write the row" [Upsert, Readback] writes;
    "upsert/a delete removes the row, and an insert brings it back" [Upsert, Readback, Deletes] deletes;
    "upsert/an update of an absent row writes it" [Upsert, Readback] update_of_absent;
    "upsert/an insert of a row that is there replaces it" [Upsert, Readback] insert_of_present;
    "upsert/a row is replaced whole: members that are gone are gone" [Upsert, Readback] replaces_whole;
    "upsert/a delete of an absent row is no error" [Upsert, Readback, Deletes] delete_of_absent;
    "upsert/the same batch twice leaves what it left once" [Upsert, Readback] twice;
    "upsert/keys that look alike are rows of their own" [Upsert, Readback] keys;
    "upsert/deletes meet their own row only" [Upsert, Readback, Deletes] deletes_by_key;
    "upsert/several tables in one sink do not mix" [Upsert, Readback] tables;
    "upsert/one batch mixes operations" [Upsert, Readback, Deletes] mixed;
}

async fn writes(harness: Harness) -> Checked {
    let mut scene = harness.start().await;
    let table = scene.table("t", RouteMode::Upsert).await?;
    scene.verify(&table, "before the first batch").await?;
    scene.write(&table, vec![scene.insert("a", "1"), scene.insert("b", "1")]).await?;
    scene.verify(&table, "after inserts").await?;
    scene.write(&table, vec![scene.update("a", "2")]).await?;
    scene.verify(&table, "after an update").await?;
    let read = |key, note| scene.change(key, Operation::Read, Some(record(json!({ "note": note }))));
    let reads = vec![read("a", "3"), read("c", "1")];
    scene.write(&table, reads).await?;
    scene.verify(&table, "after snapshot rows").await?;
    scene.reopen().await;
    scene.verify(&table, "after a restart").await
}

async fn deletes(harness: Harness) -> Checked {
    let mut scene = harness.start().await;
    let table = scene.table("t", RouteMode::Upsert).await?;
    scene.write(&table, vec![scene.insert("a", "1"), scene.insert("b", "1")]).await?;
    scene.write(&table, vec![scene.delete("a")]).await?;
    scene.verify(&table, "after a delete").await?;
    let with_last_known = scene.change("b", Operation::Delete, Some(record(json!({"note": "1"}))));
    scene.write(&table, vec![with_last_known]).await?;
    scene.verify(&table, "after a delete with the last known record").await?;
    ensure_eq!(scene.rows(&table).await?.len(), 0, "rows left");
    scene.write(&table, vec![scene.insert("a", "2")]).await?;
    scene.verify(&table, "after an insert of the deleted key").await
}

async fn update_of_absent(harness: Harness) -> Checked {
    let mut scene = harness.start().await;
    let table = scene.table("t", RouteMode::Upsert).await?;
    scene.write(&table, vec![scene.update("a", "1"), scene.insert("b", "1")]).await?;
    scene.verify(&table, "after an update of an absent row").await
}

async fn insert_of_present(harness: Harness) -> Checked {
    let mut scene = harness.start().await;
    let table = scene.table("t", RouteMode::Upsert).await?;
    scene.write(&table, vec![scene.insert("a", "1")]).await?;
    scene.write(&table, vec![scene.insert("a", "2")]).await?;
    scene.verify(&table, "after a second insert").await
}

async fn replaces_whole(harness: Harness) -> Checked {
    let mut scene = harness.start().await;
    let table = scene.table("t", RouteMode::Upsert).await?;
    let full =
        json!({"note": "n", "count": 1, "price": 1.5, "active": true, "tags": ["x"], "data": {"a": 1}});
    scene.write(&table, vec![scene.change("a", Operation::Insert, Some(record(full)))]).await?;
    scene
        .write(&table, vec![scene.change("a", Operation::Update, Some(record(json!({"count": 2}))))])
        .await?;
    scene.verify(&table, "after an update that lacks members").await
}

async fn delete_of_absent(harness: Harness) -> Checked {
    let mut scene = harness.start().await;
    let table = scene.table("t", RouteMode::Upsert).await?;
    scene.write(&table, vec![scene.delete("never")]).await?;
    scene.write(&table, vec![scene.insert("a", "1"), scene.delete("gone"), scene.insert("b", "1")]).await?;
    scene.verify(&table, "after deletes of absent rows").await
}

async fn twice(harness: Harness) -> Checked {
    let mut scene = harness.start().await;
    let table = scene.table("t", RouteMode::Upsert).await?;
    scene.write(&table, vec![scene.insert("b", "1")]).await?;
    let mut changes = scene.inserts("a", 5);
    changes.extend(harness.capability.deletes.then(|| scene.delete("b")));
    let batch = scene.batch(&table, changes);
    for time in ["once", "twice", "three times"] {
        scene.write_batch(&batch).await?;
        scene.verify(&table, &format!("after the same batch {time}")).await?;
    }
    scene.reopen().await;
    scene.write_batch(&batch).await?;
    scene.verify(&table, "after the same batch behind a restart").await
}

async fn keys(harness: Harness) -> Checked {
    let mut scene = harness.start().await;
    let table = scene.table("t", RouteMode::Upsert).await?;
    let changes = AWKWARD_IDS.iter().map(|id| scene.insert(id, "1")).collect();
    write_awkward(&mut scene, &table, changes).await?;
    scene.verify(&table, "after inserts of awkward keys").await?;
    let changes = AWKWARD_IDS.iter().rev().step_by(2).map(|id| scene.update(id, "2")).collect();
    write_awkward(&mut scene, &table, changes).await?;
    scene.verify(&table, "after updates of awkward keys").await
}

async fn deletes_by_key(harness: Harness) -> Checked {
    let mut scene = harness.start().await;
    let table = scene.table("t", RouteMode::Upsert).await?;
    let changes = AWKWARD_IDS.iter().map(|id| scene.insert(id, "1")).collect();
    write_awkward(&mut scene, &table, changes).await?;
    for (i, id) in AWKWARD_IDS.iter().enumerate().step_by(3) {
        scene.write(&table, vec![scene.delete(id)]).await?;
        if i % 2 == 0 {
            scene.verify(&table, &format!("after the delete of {id:?}")).await?;
        }
    }
    scene.verify(&table, "after the last delete").await
}

async fn tables(harness: Harness) -> Checked {
    let mut scene = harness.start().await;
    let mut tables = Vec::new();
    for name in ["one", "two", "three"] {
        tables.push(scene.table(name, RouteMode::Upsert).await?);
    }
    for round in 0..3 {
        for table in &tables {
            let note = format!("{} {round}", table.name);
            scene.write(table, vec![scene.update("same", &note), scene.update(&table.name, &note)]).await?;
        }
        scene.reopen().await;
    }
    for table in &tables {
        scene.verify(table, "at the end").await?;
    }
    Ok(())
}

async fn mixed(harness: Harness) -> Checked {
    let mut scene = harness.start().await;
    let table = scene.table("t", RouteMode::Upsert).await?;
    scene.write(&table, scene.inserts("k", 6)).await?;
    let batch = vec![
        scene.delete("k-00000"),
        scene.insert("new-1", "1"),
        scene.update("k-00001", "2"),
        scene.delete("k-00002"),
        scene.update("new-2", "1"),
        scene.delete("absent"),
        scene.change("k-00003", Operation::Read, Some(record(json!({"count": 3})))),
    ];
    scene.write(&table, batch).await?;
    scene.verify(&table, "after a mixed batch").await
}
