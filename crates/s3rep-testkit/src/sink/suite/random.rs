//! Random histories with crashes, replays and interruptions, against the oracle.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use s3rep_core::{Entry, RouteMode, RowChange, Seq, Table};

use super::{
    Checked, Failure, ensure,
    scene::{Harness, Scene, cursor_moves},
    theme,
};
use crate::{
    context::{SplitMix, seed},
    history::{History, HistoryOptions, Values, row_change},
    sink::memory::json_bytes,
};

theme! {
    "random/histories end as the oracle says, whatever happens on the way (1)" [Sight] first;
    "random/histories end as the oracle says, whatever happens on the way (2)" [Sight] second;
    "random/histories end as the oracle says, whatever happens on the way (3)" [Sight] third;
}

async fn first(harness: Harness) -> Checked {
    run(harness, seed()).await
}

async fn second(harness: Harness) -> Checked {
    run(harness, seed().wrapping_add(1)).await
}

async fn third(harness: Harness) -> Checked {
    run(harness, seed().wrapping_add(2)).await
}

async fn run(harness: Harness, seed: u64) -> Checked {
    let result = Run::start(harness, seed).await?.play().await;
    result
        .map_err(|failure| Failure(format!("seed {seed} (run again with S3REP_SEED={seed}): {}", failure.0)))
}

struct Run {
    scene: Scene,
    random: SplitMix,
    entries: Vec<Entry>,
    /// The tables that each resource goes to.
    routes: BTreeMap<String, Vec<Arc<Table>>>,
}

impl Run {
    async fn start(harness: Harness, seed: u64) -> Checked<Self> {
        let scene = harness.start().await;
        let capability = harness.capability;
        let options = HistoryOptions {
            changes: 220,
            deletes: capability.deletes,
            secrets: !harness.has_slow_secrets(),
            values: if capability.readback {
                Values { long_text: false, ..Values::ALL }
            } else {
                Values::PLAIN
            },
            partitions: super::scene::PARTITIONS,
            ..HistoryOptions::default()
        };
        let mut routes = BTreeMap::new();
        for resource in &options.resources {
            let mut tables = Vec::new();
            for mode in harness.visible_modes() {
                let suffix = if mode == RouteMode::Append { "_log" } else { "" };
                let schema = crate::history::schema(resource);
                tables.push(scene.table_of(&format!("{resource}{suffix}"), mode, schema).await?);
            }
            routes.insert(resource.clone(), tables);
        }
        let mut entries = History::generate(seed, &options).entries;
        // What the destination says that it cannot hold is the business of other cases. That goes for the last
        // known record of a delete too: an append table keeps it.
        entries.retain(|entry| {
            let (Some(readback), Some(record)) = (scene.sink.readback(), &entry.change.data) else {
                return true;
            };
            let mut tables = routes[&*entry.change.resource].iter();
            tables.all(|table| readback.expected(table, &entry.change.id, record).is_ok())
        });
        Ok(Self { scene, random: SplitMix::new(seed ^ 0xdead_beef), entries, routes })
    }

    async fn play(mut self) -> Checked {
        let mut checkpoint = 0;
        let mut position = 0;
        let mut furthest = 0;
        while position < self.entries.len() {
            let end = (position + 1 + self.random.below(40) as usize).min(self.entries.len());
            self.write(position, end).await?;
            position = end;
            furthest = furthest.max(position);
            match self.random.below(6) {
                // The process dies and has forgotten how far it came: not behind the checkpoint.
                0 | 1 => {
                    self.scene.reopen().await;
                    position = checkpoint + self.random.below((position - checkpoint + 1) as u64) as usize;
                }
                2 => self.scene.close_and_reopen().await?,
                3 => {
                    self.scene.sink.flush(&self.scene.cx).await?;
                    if position == furthest {
                        self.advance(position).await?;
                        checkpoint = position;
                    }
                }
                _ => {}
            }
            // While older batches come again, a destination without cursor shows older rows.
            if position == furthest && self.random.below(4) == 0 {
                self.verify(&format!("after {position} changes")).await?;
            }
        }
        self.verify("at the end").await
    }

    /// Everything up to here is in every table.
    async fn advance(&mut self, position: usize) -> Checked {
        if !self.scene.capability().transactional_cursor {
            return Ok(());
        }
        let mut ends = BTreeMap::new();
        for entry in &self.entries[..position] {
            ends.insert(entry.partition, entry.seq);
        }
        let progress = self.scene.progress(cursor_moves("", ends));
        self.scene.sink.advance(&self.scene.cx, &progress).await?;
        Ok(())
    }

    /// One stretch of the log into every table, each as one or several batches.
    async fn write(&mut self, from: usize, to: usize) -> Checked {
        let mut by_table: BTreeMap<Arc<str>, (Arc<Table>, Vec<RowChange>)> = BTreeMap::new();
        for entry in &self.entries[from..to] {
            for table in &self.routes[&*entry.change.resource] {
                let place = by_table.entry(table.name.clone()).or_insert_with(|| (table.clone(), Vec::new()));
                place.1.push(row_change(entry));
            }
        }
        for (_, (table, changes)) in by_table {
            for change in &changes {
                self.scene.oracle.apply(&table, change);
            }
            let changes = if table.mode == RouteMode::Upsert { coalesced(changes) } else { changes };
            for changes in self.cut(changes) {
                let batch = self.scene.batch(&table, changes);
                if self.random.below(5) == 0 {
                    // The answer is lost, and the batch comes back.
                    let _ = self.scene.apply(&batch).await;
                }
                let outcome = self.scene.apply(&batch).await?;
                if let Some(rejected) = outcome.rejected.first() {
                    let key = &batch.changes[rejected.index].key;
                    let error = &rejected.error;
                    return Err(format!("{key:?} can be held and was refused: {error:?}").into());
                }
            }
        }
        Ok(())
    }

    /// Cuts as the engine does, within the limits and otherwise at random.
    fn cut(&self, changes: Vec<RowChange>) -> Vec<Vec<RowChange>> {
        let limits = self.scene.capability().limits;
        let most = limits.records.min(1 + self.random.below(30) as usize);
        let (mut batches, mut batch, mut bytes) = (Vec::new(), Vec::new(), 0);
        for change in changes {
            let size = change.key.len() + change.record.as_deref().map_or(0, json_bytes);
            if batch.len() == most || (!batch.is_empty() && bytes + size > limits.bytes) {
                batches.push(std::mem::take(&mut batch));
                bytes = 0;
            }
            batch.push(change);
            bytes += size;
        }
        batches.extend((!batch.is_empty()).then_some(batch));
        batches
    }

    async fn verify(&self, when: &str) -> Checked {
        for table in self.routes.values().flatten() {
            self.scene.verify(table, when).await?;
        }
        ensure!(!self.routes.is_empty(), "nothing to verify");
        Ok(())
    }
}

/// The last change of each key, in log order.
fn coalesced(changes: Vec<RowChange>) -> Vec<RowChange> {
    let last: HashMap<Arc<str>, Seq> =
        changes.iter().map(|change| (change.key.clone(), change.seq)).collect();
    changes.into_iter().filter(|change| last[&change.key] == change.seq).collect()
}
