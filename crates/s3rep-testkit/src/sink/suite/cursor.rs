//! The transactional cursor: rows and progress move together.

use std::collections::{BTreeMap, BTreeSet};

use s3rep_core::{CursorMove, Partition, RouteMode, Seq};

use super::{
    Checked,
    batches::partition,
    ensure, ensure_eq,
    scene::{Harness, PARTITIONS, by_place, cursor_moves},
    theme,
};

theme! {
    "cursor/a fresh place knows of none" [Cursor] fresh;
    "cursor/rows and cursor move together" [Cursor, Sight] together;
    "cursor/there is one for each table and one for the replicator" [Cursor, Sight] each_table;
    "cursor/covered changes are skipped, new ones of the same batch are not" [Cursor, Sight] skips;
    "cursor/the replicator's cursor covers every table" [Cursor, Sight] covers_all;
    "cursor/an older change does not overwrite a newer row" [Cursor, Upsert, Readback] no_overwrite;
    "cursor/a batch that moves no cursor is written though it is covered" [Cursor, Sight] parked;
    "cursor/apply never moves one back" [Cursor, Sight] never_back;
    "cursor/advance stores them, forward and back" [Cursor] advances;
    "cursor/many partitions and large offsets" [Cursor] many;
    "cursor/two replicators do not disturb each other" [Cursor, Sight] two_replicators;
    "cursor/another log starts anew" [Cursor, Sight] other_log;
    "cursor/user tables get no columns for it" [Cursor, Upsert, SchemaSync] no_columns;
    "cursor/nothing moves when a batch fails" [Cursor, Sight] failed_batch;
}

async fn fresh(harness: Harness) -> Checked {
    let scene = harness.start().await;
    for replicator in ["replicator", "", "o'clock", "\u{1f600}"] {
        let stored = scene.sink.cursors(&scene.cx, replicator).await?;
        ensure_eq!(stored, None, "the cursors of a fresh place");
    }
    Ok(())
}

async fn together(harness: Harness) -> Checked {
    for mode in harness.visible_modes() {
        let mut scene = harness.start().await;
        let table = scene.table("t", mode).await?;
        let mut moved = BTreeMap::new();
        for round in 0..6 {
            let batch = scene.batch(&table, scene.inserts(&format!("k{}", round / 2), 7));
            scene.write_batch(&batch).await?;
            moved.extend(by_place(&batch.progress.cursors));
            scene.reopen().await;
            ensure_eq!(scene.cursors().await?, moved, "the cursors after round {round}");
            scene.verify(&table, &format!("after round {round} and a restart")).await?;
            let stored = scene.sink.cursors(&scene.cx, &scene.replicator).await?;
            let stored = stored.map(|stored| (stored.log, stored.fence));
            ensure_eq!(stored, Some((scene.log.clone(), scene.fence)), "the log and the fence");
        }
    }
    Ok(())
}

async fn each_table(harness: Harness) -> Checked {
    for mode in harness.visible_modes() {
        let mut scene = harness.start().await;
        let one = scene.table("one", mode).await?;
        let two = scene.table("two", mode).await?;
        let first = scene.batch(&one, scene.inserts("a", 20));
        let second = scene.batch(&two, scene.inserts("b", 20));
        scene.write_batch(&first).await?;
        scene.write_batch(&second).await?;
        let whole: BTreeMap<Partition, Seq> =
            second.progress.cursors.iter().map(|m| (m.partition, m.seq)).collect();
        let mut third = scene.batch(&two, scene.inserts("c", 1));
        third.progress.cursors.extend(cursor_moves("", whole));
        scene.write_batch(&third).await?;
        scene.reopen().await;
        let mut expected = by_place(&first.progress.cursors);
        expected.extend(by_place(&second.progress.cursors));
        expected.extend(by_place(&third.progress.cursors));
        ensure_eq!(scene.cursors().await?, expected, "the cursors of two tables and the replicator");
        ensure!(scene.cursors().await?.keys().any(|(table, _)| table.is_empty()), "none for the replicator");
    }
    Ok(())
}

async fn skips(harness: Harness) -> Checked {
    for mode in harness.visible_modes() {
        let mut scene = harness.start().await;
        let table = scene.table("t", mode).await?;
        let first = scene.inserts("a", 12);
        let second = scene.inserts("b", 12);
        scene.write(&table, first.clone()).await?;
        scene.write(&table, [first.clone(), second.clone()].concat()).await?;
        scene.verify(&table, "after a batch that was known in part").await?;
        scene.reopen().await;
        scene.write(&table, first[3..].to_vec()).await?;
        scene.write(&table, [first, second, scene.inserts("c", 2)].concat()).await?;
        scene.verify(&table, "after replays behind a restart").await?;
    }
    Ok(())
}

async fn covers_all(harness: Harness) -> Checked {
    for mode in harness.visible_modes() {
        let mut scene = harness.start().await;
        let one = scene.table("one", mode).await?;
        let two = scene.table("two", mode).await?;
        let changes = scene.inserts("a", 30);
        scene.write(&one, changes.clone()).await?;
        let last = changes.last().map(|change| change.seq).unwrap_or_default();
        let whole: Vec<CursorMove> =
            cursor_moves("", (0..PARTITIONS).map(|p| (Partition(p), last)).collect());
        scene.sink.advance(&scene.cx, &scene.progress(whole)).await?;
        scene.reopen().await;
        // The log was told that nothing of these is due in the second table: a route that was narrower then.
        let replay = scene.batch(&two, changes);
        scene.apply(&replay).await?;
        scene.verify(&two, "after covered changes").await?;
        scene.write(&two, scene.inserts("b", 3)).await?;
        scene.verify(&two, "after changes that are not covered").await?;
    }
    Ok(())
}

async fn no_overwrite(harness: Harness) -> Checked {
    let mut scene = harness.start().await;
    let table = scene.table("t", RouteMode::Upsert).await?;
    let old = scene.batch(&table, vec![scene.insert("a", "old")]);
    scene.write_batch(&old).await?;
    scene.write(&table, vec![scene.update("a", "new")]).await?;
    // The answer to the first call was lost, and its retry arrives late.
    scene.write_batch(&old).await?;
    scene.verify(&table, "after a late retry").await
}

async fn parked(harness: Harness) -> Checked {
    for mode in harness.visible_modes() {
        let mut scene = harness.start().await;
        let table = scene.table("t", mode).await?;
        let mut second_try = scene.batch(&table, vec![scene.insert("parked", "1")]);
        second_try.progress.cursors.clear();
        scene.write(&table, scene.inserts("k", 40)).await?;
        let whole: Vec<CursorMove> =
            cursor_moves("", [(partition("parked"), second_try.changes[0].seq)].into());
        scene.sink.advance(&scene.cx, &scene.progress(whole)).await?;
        let before = scene.cursors().await?;
        scene.write_batch(&second_try).await?;
        scene.verify(&table, "after the second try of a parked change").await?;
        ensure_eq!(scene.cursors().await?, before, "the cursors after a batch that moves none");
    }
    Ok(())
}

async fn never_back(harness: Harness) -> Checked {
    for mode in harness.visible_modes() {
        let mut scene = harness.start().await;
        let table = scene.table("t", mode).await?;
        let first = scene.batch(&table, scene.inserts("a", 10));
        scene.write_batch(&first).await?;
        scene.write(&table, scene.inserts("b", 10)).await?;
        let before = scene.cursors().await?;
        scene.write_batch(&first).await?;
        ensure_eq!(scene.cursors().await?, before, "the cursors after an earlier batch came again");
        scene.reopen().await;
        ensure_eq!(scene.cursors().await?, before, "the cursors after a restart");
    }
    Ok(())
}

async fn advances(harness: Harness) -> Checked {
    let mut scene = harness.start().await;
    for (table, seq) in [("", 5), ("", 9), ("t", 7), ("", 9), ("", 3), ("t", 1)] {
        let moves = cursor_moves(table, [(Partition(0), Seq(seq)), (Partition(3), Seq(seq + 1))].into());
        scene.sink.advance(&scene.cx, &scene.progress(moves.clone())).await?;
        scene.reopen().await;
        let mut stored = scene.cursors().await?;
        stored.retain(|(of, _), _| of == table);
        ensure_eq!(stored, by_place(&moves), "the cursors after an advance to {seq}");
    }
    scene.sink.advance(&scene.cx, &scene.progress(Vec::new())).await?;
    ensure_eq!(scene.cursors().await?.len(), 4, "cursors after an advance of nothing");
    Ok(())
}

async fn many(harness: Harness) -> Checked {
    let mut scene = harness.start().await;
    // The largest offset that a signed column holds; a log gets there in 29,000 years at ten million a second.
    let ends = (0..512).map(|p| (Partition(p * 127), Seq(i64::MAX as u64 - u64::from(p)))).collect();
    let moves = cursor_moves("", ends);
    scene.sink.advance(&scene.cx, &scene.progress(moves.clone())).await?;
    scene.reopen().await;
    ensure_eq!(scene.cursors().await?, by_place(&moves), "512 cursors");
    Ok(())
}

async fn two_replicators(harness: Harness) -> Checked {
    for mode in harness.visible_modes() {
        let mut scene = harness.start().await;
        let one = scene.table("one", mode).await?;
        let two = scene.table("two", mode).await?;
        let changes = scene.inserts("k", 20);
        scene.write(&one, changes.clone()).await?;
        let first = scene.cursors().await?;
        let (name, fence) = (scene.replicator.clone(), scene.fence);
        // Names that are alike to a careless comparison; an older fence, for it is another owner's.
        for other in ["Replicator", "replicator ", "replicator%", "r'"] {
            scene.replicator = other.into();
            scene.fence = 0;
            ensure_eq!(scene.cursors().await?.len(), 0, "cursors of the replicator {other:?}");
        }
        scene.write(&two, changes.clone()).await?;
        scene.verify(&two, "after the second replicator").await?;
        (scene.replicator, scene.fence) = (name, fence);
        ensure_eq!(scene.cursors().await?, first, "the cursors of the first replicator");
        scene.reopen().await;
        scene.write(&one, changes).await?;
        scene.verify(&one, "after a replay of the first replicator").await?;
    }
    Ok(())
}

async fn other_log(harness: Harness) -> Checked {
    for mode in harness.visible_modes() {
        let mut scene = harness.start().await;
        let table = scene.table("t", mode).await?;
        scene.fence = 9;
        scene.write(&table, scene.inserts("a", 30)).await?;
        // The state directory was lost: a new log, whose offsets and fences begin again.
        let mut anew = harness_like(&harness, &scene).await;
        let batch = anew.batch(&table, anew.inserts("b", 5));
        let outcome = scene.apply(&batch).await?;
        ensure!(outcome.rejected.is_empty(), "records of another log were refused");
        let stored = scene.sink.cursors(&scene.cx, &scene.replicator).await?;
        let stored = stored.map(|stored| (stored.log, stored.fence, stored.cursors.len()));
        let expected = Some((anew.log.clone(), anew.fence, batch.progress.cursors.len()));
        ensure_eq!(stored, expected, "the log, the fence and the number of cursors");
        anew.expect(&batch);
        let written = match mode {
            RouteMode::Upsert => scene.rows(&table).await?.into_iter().map(|(key, _)| key).collect(),
            RouteMode::Append => {
                scene.changes(&table).await?.into_iter().map(|change| change.key).collect::<Vec<_>>()
            }
        };
        let new = written.iter().filter(|key| key.starts_with("b-")).count();
        ensure_eq!((new, written.len()), (5, 35), "changes of the new log, and all");
    }
    Ok(())
}

/// A scene that only plays another log with offsets of its own.
async fn harness_like(harness: &Harness, scene: &super::scene::Scene) -> super::scene::Scene {
    let mut anew = harness.start().await;
    anew.replicator = scene.replicator.clone();
    anew.log = "log-2".into();
    anew.fence = 1;
    anew
}

async fn no_columns(harness: Harness) -> Checked {
    let mut scene = harness.start().await;
    let table = scene.table("t", RouteMode::Upsert).await?;
    scene.write(&table, scene.inserts("k", 3)).await?;
    let Some(sync) = scene.sink.schema_sync() else {
        return Err("the test says that the sink has schema synchronisation".to_owned().into());
    };
    let shape = sync.inspect(&scene.cx, &table).await?.unwrap_or_default();
    // The two that s3db.js's tables have, and that the database fills by itself.
    let automatic = ["created_at", "updated_at"];
    let columns: BTreeSet<&str> = shape
        .columns
        .iter()
        .map(|column| column.name.as_str())
        .filter(|name| !automatic.contains(name))
        .collect();
    let mut expected: BTreeSet<&str> = table.schema.attributes.iter().map(|a| a.name.as_str()).collect();
    expected.insert("id");
    ensure_eq!(columns, expected, "the columns of a user's table");
    Ok(())
}

async fn failed_batch(harness: Harness) -> Checked {
    for mode in harness.visible_modes() {
        let mut scene = harness.start().await;
        let table = scene.table("t", mode).await?;
        scene.write(&table, scene.inserts("a", 5)).await?;
        let before = scene.cursors().await?;
        // A table that nobody made. A sink that needs none may write it.
        let absent = std::sync::Arc::new(s3rep_core::Table {
            name: "never_made".into(),
            mode,
            schema: crate::history::schema("never_made"),
        });
        let batch = scene.batch(&absent, scene.inserts("b", 5));
        match scene.apply(&batch).await {
            Ok(outcome) if outcome.rejected.is_empty() => {
                scene.expect(&batch);
                scene.verify(&absent, "after a batch for a table that nobody made").await?;
            }
            Ok(_) => return Err("an absent table is not about single records".to_owned().into()),
            Err(error) => {
                ensure!(error.scope() >= s3rep_core::Scope::Table, "about less than the table: {error:?}");
                ensure_eq!(scene.cursors().await?, before, "the cursors after a failed batch");
                scene.sync(&absent).await?;
                scene.write_batch(&batch).await?;
                scene.verify(&absent, "after the table was made").await?;
            }
        }
        scene.verify(&table, "after a failed batch for another table").await?;
    }
    Ok(())
}
