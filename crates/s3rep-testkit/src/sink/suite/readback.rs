//! Reading back, for `s3rep verify`.

use s3rep_core::{Operation, RouteMode};

use super::{
    Checked,
    batches::write_awkward,
    ensure, ensure_eq,
    scene::{Harness, Scene},
    theme,
};
use crate::history::{AWKWARD_IDS, History, HistoryOptions, Values};

theme! {
    "readback/an empty table has no rows" [Readback] empty;
    "readback/rows come in the order of the keys' bytes, pages are complete" [Readback] order;
    "readback/a page may begin after a key that is not there" [Readback] between;
    "readback/what comes back is what was expected, for random records" [Readback] random_records;
}

fn modes(harness: &Harness) -> Vec<RouteMode> {
    let capability = harness.capability;
    [RouteMode::Upsert, RouteMode::Append].into_iter().filter(|mode| capability.supports(*mode)).collect()
}

async fn empty(harness: Harness) -> Checked {
    for mode in modes(&harness) {
        let scene = harness.start().await;
        let table = scene.table("t", mode).await?;
        ensure_eq!(scene.rows(&table).await?, Vec::new(), "the rows of an empty table");
        let rows = scene.readback()?.rows(&scene.cx, &table, Some("k"), 10).await?;
        ensure_eq!(rows, Vec::new(), "the rows of an empty table after a key");
    }
    Ok(())
}

/// Awkward keys and many alike, inserted in an order of their own.
async fn filled(harness: &Harness, mode: RouteMode) -> Checked<(Scene, std::sync::Arc<s3rep_core::Table>)> {
    let mut scene = harness.start().await;
    let table = scene.table("t", mode).await?;
    let mut keys: Vec<String> = AWKWARD_IDS.iter().map(|id| (*id).to_owned()).collect();
    keys.extend((0..40).map(|i| format!("k{}", i * 7 % 40)));
    // Between the two lies the difference of UTF-16 and UTF-8: a surrogate sorts before U+FFFD.
    keys.extend(["\u{fffc}", "\u{10000}", "\u{10ffff}", "\u{d7ff}"].map(str::to_owned));
    keys.rotate_left(AWKWARD_IDS.len() / 2);
    let changes = keys.iter().map(|key| scene.insert(key, "1")).collect();
    write_awkward(&mut scene, &table, changes).await?;
    Ok((scene, table))
}

async fn order(harness: Harness) -> Checked {
    for mode in modes(&harness) {
        let (scene, table) = filled(&harness, mode).await?;
        for max in [1, 3, 7, 1_000] {
            // The order is checked where the pages are put together.
            let rows = scene.rows_by(&table, max).await?;
            let differences = scene.oracle.compare_rows(&table, scene.readback()?, &rows);
            ensure!(differences.is_empty(), "in pages of {max}: {differences:?}");
        }
    }
    Ok(())
}

async fn between(harness: Harness) -> Checked {
    for mode in modes(&harness) {
        let (scene, table) = filled(&harness, mode).await?;
        let all: Vec<String> = scene.rows(&table).await?.into_iter().map(|(key, _)| key).collect();
        for after in
            ["", " ", "K", "k2", "k20", "k39!", "zzz", "\u{e000}", "\u{ffff}", "\u{10ffff}\u{10ffff}"]
        {
            let page = scene.readback()?.rows(&scene.cx, &table, Some(after), 1_000).await?;
            let page: Vec<&str> = page.iter().map(|(key, _)| key.as_str()).collect();
            let expected: Vec<&str> =
                all.iter().map(String::as_str).filter(|key| key.as_bytes() > after.as_bytes()).collect();
            ensure_eq!(page, expected, "the keys after {after:?}");
        }
    }
    Ok(())
}

async fn random_records(harness: Harness) -> Checked {
    let seed = crate::context::seed();
    let options = HistoryOptions {
        changes: 250,
        resources: vec!["t".to_owned()],
        tail: 400,
        deletes: false,
        reads: false,
        secrets: !harness.has_slow_secrets(),
        values: Values { long_text: false, ..Values::ALL },
        ..HistoryOptions::default()
    };
    for mode in modes(&harness) {
        let mut scene = harness.start().await;
        let table = scene.table("t", mode).await?;
        let mut changes = Vec::new();
        for change in History::generate(seed, &options).row_changes("t") {
            let Some(content) = change.record.as_deref() else { continue };
            if scene.readback()?.expected(&table, &change.key, content).is_ok() {
                changes.push(scene.change(&change.key, Operation::Update, Some(content.clone())));
            }
        }
        ensure!(changes.len() > 100, "only {} random records can be held (seed {seed})", changes.len());
        for piece in changes.chunks(50) {
            let latest: Vec<_> = piece
                .iter()
                .enumerate()
                .filter(|(i, change)| piece[i + 1..].iter().all(|later| later.key != change.key))
                .map(|(_, change)| change.clone())
                .collect();
            scene.write(&table, latest).await.map_err(|mut failure| {
                failure.0 = format!("seed {seed}: {}", failure.0);
                failure
            })?;
        }
        let rows = scene.rows(&table).await?;
        let differences = scene.oracle.compare_rows(&table, scene.readback()?, &rows);
        ensure!(differences.is_empty(), "seed {seed}: {differences:?}");
    }
    Ok(())
}
