//! `s3rep plan` and `s3rep apply`: what schema synchronisation would do to the tables, and doing it.

use clap::Args;
use s3rep::{
    Error, ErrorKind, Replication, Result, Route,
    config::Config,
    core::{Context, ResourceSchema, SchemaPlan, Scope, Source, SyncKind, Table},
    engine::{Pipeline, Replicator, plan_table},
    open_source, replicators,
};
use serde_json::{Value, json};
use std::sync::Arc;

use crate::{Chosen, ConfigArgs, Failure, output};

#[derive(Args)]
pub(crate) struct PlanArgs {
    #[command(flatten)]
    config: ConfigArgs,
    #[command(flatten)]
    chosen: Chosen,
    /// One JSON object a table
    #[arg(long)]
    json: bool,
}

#[derive(Args)]
pub(crate) struct ApplyArgs {
    #[command(flatten)]
    config: ConfigArgs,
    #[command(flatten)]
    chosen: Chosen,
    /// Agree to drop tables and create them anew where strategy is drop-create
    #[arg(long)]
    yes: bool,
}

/// What became of the tables, for the last line.
#[derive(Default)]
struct Tally {
    fit: usize,
    changed: usize,
    failed: usize,
}

/// A table of a replicator with what has to be done to it.
struct Planned<'a> {
    replicator: &'a Replicator,
    table: Table,
    plan: SchemaPlan,
}

pub(crate) async fn plan(args: &PlanArgs, cx: &Context) -> Result<(), Failure> {
    let config = args.config.load()?;
    begin(&args.chosen, &config)?;
    let resources = open_source(cx, &config.source).await?.resources(cx).await?;
    let mut tally = Tally::default();
    for replicator in replicators(&config)?.iter().filter(|replicator| args.chosen.has(replicator.id())) {
        for table in tables(replicator, &resources) {
            match planned(cx, replicator, &table).await {
                Ok(planned) => {
                    planned.print(args.json);
                    tally.count(planned.plan.kind());
                }
                Err(error) => tally.failed(replicator, &table, error, args.json),
            }
        }
    }
    tally.finish("need changes", "needs changes")
}

pub(crate) async fn apply(args: &ApplyArgs, cx: &Context) -> Result<(), Failure> {
    let mut config = args.config.load()?;
    config.recreate_tables = args.yes;
    begin(&args.chosen, &config)?;
    let chosen = |id: &str| args.chosen.has(id);
    let replication = Replication::open_some(cx, &config, &chosen).await.map_err(in_use)?;
    let resources = replication.source().resources(cx).await?;
    let mut tally = Tally::default();
    let mut closed = Ok(());
    for replicator in replication.pipeline().replicators() {
        for table in tables(replicator, &resources) {
            match apply_to(cx, replication.pipeline(), replicator, &table).await {
                Ok(done) => tally.count(done),
                Err(error) => tally.failed(replicator, &table, error, false),
            }
        }
        if replicator.sink().schema_sync().is_some() {
            closed = closed.and(replicator.sink().close(cx).await);
        }
    }
    tally.finish("were changed", "was changed")?;
    Ok(closed?)
}

/// Checks what the user named, and tells what is left out.
fn begin(chosen: &Chosen, config: &Config) -> Result<(), Failure> {
    chosen.check(config)?;
    for replicator in chosen.disabled(config) {
        output::note(&format!("replicator {}: disabled", replicator.id));
    }
    Ok(())
}

/// The tables to look at, with notes about what there is none for.
fn tables(replicator: &Replicator, resources: &[Arc<ResourceSchema>]) -> Vec<Table> {
    let id = replicator.id();
    if replicator.sink().schema_sync().is_none() {
        output::note(&format!("replicator {id}: no schema synchronisation"));
        return Vec::new();
    }
    let found = |(route, table): (&Route, Option<Table>)| {
        if table.is_none() {
            output::note(&format!("replicator {id}: the source has no resource '{}' yet", route.resource));
        }
        table
    };
    replicator.tables(resources).filter_map(found).collect()
}

async fn planned<'a>(cx: &Context, replicator: &'a Replicator, table: &Table) -> Result<Planned<'a>> {
    let plan = plan_table(cx, replicator, table).await?.unwrap_or_default();
    Ok(Planned { replicator, table: table.clone(), plan })
}

/// Plans, prints, executes and looks again. Returns what was done.
async fn apply_to(
    cx: &Context,
    pipeline: &Pipeline,
    replicator: &Replicator,
    table: &Table,
) -> Result<Option<SyncKind>> {
    let planned = planned(cx, replicator, table).await?;
    replicator.consents_to(table, &planned.plan)?;
    planned.print(false);
    let is_emptied = pipeline.apply_plan(replicator, table, &planned.plan).await?;
    if is_emptied {
        output::note(&format!("{} is empty: the next `s3rep run` brings its records", planned.name()));
    }
    let left = plan_table(cx, replicator, table).await?.unwrap_or_default();
    if left.kind().is_some() {
        return Err(still_unfit(&left));
    }
    Ok(planned.plan.kind())
}

fn still_unfit(left: &SchemaPlan) -> Error {
    Error::new(ErrorKind::SchemaMismatch, "every statement was run, and the table still does not fit")
        .with_context("left", left.statements.join("; "))
        .with_advice("look at the table: something else may change it; `s3rep plan` shows what is left")
}

/// The state directory says which tables were made, so its owner makes them.
fn in_use(error: Error) -> Error {
    if error.kind() != ErrorKind::Contention || error.scope() != Scope::Process {
        return error;
    }
    error.with_advice(
        "a running s3rep holds it: it synchronises tables by itself when it starts; stop it before `s3rep apply`, or \
         start it anew instead, with `--yes` where tables are to be created anew",
    )
}

impl Planned<'_> {
    fn name(&self) -> String {
        format!("replicator {}, table {}", self.replicator.id(), self.table.name)
    }

    /// Prints what there is to say; of a table that fits that is nothing, but for programs.
    fn print(&self, as_json: bool) {
        if as_json {
            return output::line(&self.as_json().to_string());
        }
        if let Some(kind) = self.plan.kind() {
            comment(&format!("{}: {}", self.name(), self.verb(kind)));
        }
        let warnings = self.plan.warnings.iter().map(|warning| ("warning", warning));
        for (what, text) in warnings.chain(self.plan.notes.iter().map(|note| ("note", note))) {
            comment(&format!("{}: {what}: {text}", self.name()));
        }
        for statement in &self.plan.statements {
            output::line(&format!("{statement};"));
        }
    }

    fn verb(&self, kind: SyncKind) -> &'static str {
        match kind {
            SyncKind::Created => "creates",
            SyncKind::Altered if self.plan.destructive => "alters (loses data)",
            SyncKind::Altered => "alters",
            SyncKind::Recreated => "recreates (loses every row)",
        }
    }

    fn as_json(&self) -> Value {
        let SchemaPlan { statements, creates, destructive, warnings, notes } = &self.plan;
        json!({
            "replicator": self.replicator.id(), "table": self.table.name, "statements": statements,
            "creates": creates, "destructive": destructive, "warnings": warnings,
            "notes": notes,
        })
    }
}

/// A comment of SQL, whatever is in it: a name with a line break must not become a statement.
fn comment(text: &str) {
    for line in text.split(['\n', '\r']) {
        output::line(&format!("-- {line}"));
    }
}

impl Tally {
    fn count(&mut self, kind: Option<SyncKind>) {
        match kind {
            None => self.fit += 1,
            Some(_) => self.changed += 1,
        }
    }

    /// One table that has a problem does not keep the others from theirs.
    fn failed(&mut self, replicator: &Replicator, table: &Table, error: Error, as_json: bool) {
        self.failed += 1;
        let error = error.with_context("replicator", replicator.id()).with_context("table", &table.name);
        if as_json {
            let object = json!({
                "replicator": replicator.id(), "table": table.name, "error": error.report(), "help": error.advice(),
            });
            output::line(&object.to_string());
        }
        output::error(&error);
    }

    fn finish(&self, many: &str, one: &str) -> Result<(), Failure> {
        let fit = match self.fit {
            1 => "1 table fits".to_owned(),
            count => format!("{count} tables fit"),
        };
        let changed = match self.changed {
            1 => format!("1 {one}"),
            count => format!("{count} {many}"),
        };
        let failed = match self.failed {
            0 => String::new(),
            1 => ", 1 has a problem".to_owned(),
            count => format!(", {count} have problems"),
        };
        output::note(&format!("{fit}, {changed}{failed}"));
        if self.failed > 0 { Err(Failure::Told) } else { Ok(()) }
    }
}
