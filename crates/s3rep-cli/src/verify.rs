//! `s3rep verify`: compares source and destinations.

use clap::Args;
use s3rep::{
    Replication, Result,
    config::Config,
    core::{Context, Source},
    engine::{self, Drift, DriftKind, Replicator, RouteReport},
    open_source, replicators,
};
use serde_json::json;

use crate::{Chosen, ConfigArgs, Failure, output, progress, run};

/// Drifts mended at once: memory holds no more of them, however many there are.
const REPAIRS: usize = 10_000;

#[derive(Args)]
pub(crate) struct VerifyArgs {
    #[command(flatten)]
    config: ConfigArgs,
    #[command(flatten)]
    chosen: Chosen,
    /// Mend what differs. Not beside a running `s3rep run`
    #[arg(long)]
    repair: bool,
    /// One JSON object a line
    #[arg(long)]
    json: bool,
}

pub(crate) async fn verify(args: &VerifyArgs, cx: &Context) -> Result<(), Failure> {
    let config = args.config.load()?;
    args.chosen.check(&config)?;
    if args.repair {
        repair(args, cx, &config).await?;
    }
    let source = open_source(cx, &config.source).await?;
    let mut equal = true;
    for replicator in replicators(&config)?.iter().filter(|replicator| args.chosen.has(replicator.id())) {
        // One that cannot be compared does not keep the others from it.
        equal &= compare(cx, &*source, replicator, args.json).await.unwrap_or_else(|error| {
            output::error(&error.with_context("replicator", replicator.id()));
            false
        });
    }
    if equal {
        return Ok(());
    }
    if !args.repair {
        output::note("help: changes on their way look like drift; `s3rep verify --repair` mends what stays");
    }
    Err(Failure::Told)
}

/// Compares one replicator and prints what differs as it is found. Returns whether all is equal.
pub(crate) async fn compare(
    cx: &Context,
    source: &dyn Source,
    replicator: &Replicator,
    as_json: bool,
) -> Result<bool> {
    let bar = progress::counter(&format!("comparing {}", replicator.id()));
    let mut print = |drift: Drift| bar.suspend(|| print_drift(&drift, as_json));
    let reports = engine::verify(cx, source, replicator, &mut print, &mut |records| bar.inc(records)).await;
    bar.finish_and_clear();
    let reports = reports?;
    for report in &reports {
        print_report(replicator.id(), report, as_json);
    }
    for route in replicator.mapping().all_routes() {
        if reports.iter().all(|report| report.table != route.table) {
            output::note(&format!("{}: the source has no resource '{}'", replicator.id(), route.resource));
        }
    }
    Ok(reports.iter().all(|report| report.is_equal() && report.undecodable == 0))
}

fn print_drift(drift: &Drift, as_json: bool) {
    let members = match &drift.kind {
        DriftKind::Different(members) => members.as_slice(),
        _ => &[],
    };
    if as_json {
        let object = json!({
            "type": "drift", "replicator": drift.replicator, "resource": drift.resource, "table": drift.table, "id": drift.id,
            "drift": drift.kind.as_str(), "members": members,
        });
        return output::line(&object.to_string());
    }
    let members = if members.is_empty() { String::new() } else { format!(" ({})", members.join(", ")) };
    output::line(&format!(
        "{} {} {}: {}{members}",
        drift.replicator,
        drift.table,
        drift.id,
        drift.kind.as_str()
    ));
}

fn print_report(replicator: &str, report: &RouteReport, as_json: bool) {
    if as_json {
        let object = json!({
            "type": "summary", "replicator": replicator, "resource": report.resource, "table": report.table,
            "compared": report.compared, "missing": report.missing, "extra": report.extra,
            "different": report.different, "undecodable": report.undecodable, "equal": report.is_equal(),
        });
        return output::line(&object.to_string());
    }
    let undecodable = match report.undecodable {
        0 => String::new(),
        count => format!(", {count} cannot be decoded in the source"),
    };
    let verdict = if report.is_equal() {
        "equal".to_owned()
    } else {
        format!("{} missing, {} extra, {} different", report.missing, report.extra, report.different)
    };
    let (resource, table) = (&report.resource, &report.table);
    output::line(&format!(
        "{replicator}: {resource} -> {table}: {} records, {verdict}{undecodable}",
        report.compared
    ));
}

/// Brings the destinations up to date, then sends what still differs once more.
async fn repair(args: &VerifyArgs, cx: &Context, config: &Config) -> Result<(), Failure> {
    let replication = Replication::open_some(cx, config, &|id| args.chosen.has(id)).await?;
    run::once(replication.pipeline()).await?;
    mend(cx, &replication).await
}

/// Sends what differs once more, and deletes what the source does not have.
pub(crate) async fn mend(cx: &Context, replication: &Replication) -> Result<(), Failure> {
    let pipeline = replication.pipeline();
    let source = replication.source();
    for replicator in pipeline.replicators() {
        let mut before = usize::MAX;
        // In rounds, so that a destination that lacks everything does not fill the memory.
        loop {
            let (mut drifts, mut count) = (Vec::new(), 0);
            let mut take = |drift| {
                count += 1;
                if drifts.len() < REPAIRS {
                    drifts.push(drift);
                }
            };
            engine::verify(cx, &**source, replicator, &mut take, &mut |_| {}).await?;
            // A round that mended nothing is not followed by another.
            if count == 0 || count >= before {
                break;
            }
            before = count;
            output::note(&format!("{}: mending {} records", replicator.id(), drifts.len()));
            engine::repair(cx, &**source, &**pipeline.log(), &drifts).await?;
            pipeline.drain().await?;
        }
    }
    Ok(())
}
