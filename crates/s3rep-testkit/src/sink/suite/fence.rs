//! Fences: an owner that was replaced writes nothing more.

use s3rep_core::{Error, ErrorKind, Partition, Scope, Seq};

use super::{
    Checked, ensure, ensure_eq,
    scene::{Harness, cursor_moves},
    theme,
};

theme! {
    "fence/a replaced owner is refused and writes nothing" [Cursor, Sight] refused;
    "fence/advance refuses a replaced owner too" [Cursor] advance_refused;
    "fence/an owner takes over without writing rows" [Cursor, Sight] takes_over;
    "fence/the fence outlives the process" [Cursor, Sight] outlives;
    "fence/two sinks over one place: the newer owner wins" [Cursor, Sight] two_sinks;
}

fn is_fenced(result: Result<impl Sized, Error>) -> Checked {
    let Err(error) = result else { return Err("a replaced owner was not refused".to_owned().into()) };
    ensure_eq!(error.kind(), ErrorKind::Fenced, "the kind of the refusal");
    ensure!(!error.is_temporary(), "a replaced owner is told to try again: {error:?}");
    ensure!(error.scope() >= Scope::Sink, "the refusal is about less than the sink: {error:?}");
    Ok(())
}

async fn refused(harness: Harness) -> Checked {
    for mode in harness.visible_modes() {
        let mut scene = harness.start().await;
        let table = scene.table("t", mode).await?;
        scene.fence = 5;
        scene.write(&table, scene.inserts("a", 5)).await?;
        let before = scene.cursors().await?;
        for fence in [4, 1, 0] {
            scene.fence = fence;
            let batch = scene.batch(&table, scene.inserts("old", 3));
            is_fenced(scene.apply(&batch).await)?;
            let mut no_moves = batch;
            no_moves.progress.cursors.clear();
            is_fenced(scene.apply(&no_moves).await)?;
        }
        scene.verify(&table, "after a replaced owner").await?;
        ensure_eq!(scene.cursors().await?, before, "the cursors after a replaced owner");
        for fence in [5, 6, 1 << 40] {
            scene.fence = fence;
            scene.write(&table, scene.inserts(&format!("new-{fence}"), 2)).await?;
        }
        scene.verify(&table, "after the same and newer owners").await?;
        scene.fence = 6;
        let batch = scene.batch(&table, scene.inserts("old", 3));
        is_fenced(scene.apply(&batch).await)?;
    }
    Ok(())
}

async fn advance_refused(harness: Harness) -> Checked {
    let mut scene = harness.start().await;
    let moves = |seq| cursor_moves("", [(Partition(1), Seq(seq))].into());
    scene.fence = 5;
    scene.sink.advance(&scene.cx, &scene.progress(moves(10))).await?;
    let before = scene.cursors().await?;
    scene.fence = 4;
    is_fenced(scene.sink.advance(&scene.cx, &scene.progress(moves(20))).await)?;
    ensure_eq!(scene.cursors().await?, before, "the cursors after a replaced owner");
    Ok(())
}

async fn takes_over(harness: Harness) -> Checked {
    for mode in harness.visible_modes() {
        let mut scene = harness.start().await;
        let table = scene.table("t", mode).await?;
        let first = scene.batch(&table, scene.inserts("a", 5));
        scene.write_batch(&first).await?;
        let before = scene.cursors().await?;
        // The new owner says who it is before it has anything to write.
        scene.fence = 2;
        scene.sink.advance(&scene.cx, &scene.progress(first.progress.cursors)).await?;
        ensure_eq!(scene.cursors().await?, before, "the cursors after an advance to where they stand");
        scene.fence = 1;
        let batch = scene.batch(&table, scene.inserts("old", 3));
        is_fenced(scene.apply(&batch).await)?;
        scene.verify(&table, "after a replaced owner").await?;
    }
    Ok(())
}

async fn outlives(harness: Harness) -> Checked {
    for mode in harness.visible_modes() {
        let mut scene = harness.start().await;
        let table = scene.table("t", mode).await?;
        scene.fence = 7;
        scene.write(&table, scene.inserts("a", 5)).await?;
        scene.reopen().await;
        let stored = scene.sink.cursors(&scene.cx, &scene.replicator).await?;
        ensure_eq!(stored.map(|stored| stored.fence), Some(7), "the fence after a restart");
        scene.fence = 6;
        let batch = scene.batch(&table, scene.inserts("old", 3));
        is_fenced(scene.apply(&batch).await)?;
        scene.fence = 8;
        scene.write(&table, scene.inserts("b", 5)).await?;
        scene.verify(&table, "after the next owner").await?;
    }
    Ok(())
}

async fn two_sinks(harness: Harness) -> Checked {
    for mode in harness.visible_modes() {
        let mut scene = harness.start().await;
        let table = scene.table("t", mode).await?;
        scene.write(&table, scene.inserts("a", 5)).await?;
        let replaced = scene.another_sink().await;
        let mut batch = scene.batch(&table, scene.inserts("old", 3));
        scene.fence = 2;
        scene.write(&table, scene.inserts("b", 5)).await?;
        is_fenced(replaced.apply(&scene.cx, &batch).await)?;
        batch.progress.cursors.clear();
        is_fenced(replaced.apply(&scene.cx, &batch).await)?;
        drop(replaced);
        scene.verify(&table, "after both").await?;
    }
    Ok(())
}
