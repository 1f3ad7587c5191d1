//! `s3rep run`: replicates.

use clap::Args;
use s3rep::{
    Error, ErrorKind, Replication,
    core::Context,
    engine::{LaneState, Pipeline, RunReport},
};
use tokio_util::sync::CancellationToken;

use crate::{ConfigArgs, Failure, output, progress};

#[derive(Args)]
pub(crate) struct RunArgs {
    #[command(flatten)]
    config: ConfigArgs,
    /// End when the destinations have everything that is in the source now
    #[arg(long)]
    once: bool,
    /// Agree to drop tables and create them anew where strategy is drop-create
    #[arg(long)]
    yes: bool,
}

pub(crate) async fn run(args: &RunArgs, cx: &Context) -> Result<(), Failure> {
    let mut config = args.config.load()?;
    config.recreate_tables = args.yes;
    let replication = Replication::open(cx, &config).await?;
    let pipeline = replication.pipeline();
    if pipeline.progress().is_empty() {
        return Err(Error::new(ErrorKind::ConfigInvalid, "every replicator is disabled")
            .with_advice("set 'enabled: true' for one of them")
            .into());
    }
    let report = if args.once { once(pipeline).await } else { follow(pipeline).await };
    finish(report?)
}

/// Runs until the destinations have everything, or a signal comes.
pub(crate) async fn once(pipeline: &Pipeline) -> Result<RunReport, Failure> {
    let _bars = progress::show(pipeline);
    tokio::select! {
        report = pipeline.run_once() => Ok(report?),
        () = signal() => {
            output::note("stopped before the end; what was captured stays in the log for the next run");
            Err(Failure::Told)
        }
    }
}

async fn follow(pipeline: &Pipeline) -> Result<RunReport, Failure> {
    let names: Vec<_> = pipeline.progress().iter().map(|lane| lane.replicator.to_string()).collect();
    output::note(&format!("replicating to {}; stop with Ctrl-C or SIGTERM", names.join(", ")));
    let shutdown = CancellationToken::new();
    let token = shutdown.clone();
    let waiting = tokio::spawn(async move {
        signal().await;
        output::note("stopping: the destinations take what is captured");
        token.cancel();
        signal().await;
        output::note("stopped at once; what is left stays in the log for the next run");
        std::process::exit(1);
    });
    let bars = progress::show(pipeline);
    let report = pipeline.follow(shutdown).await;
    drop(bars);
    waiting.abort();
    let report = report?;
    let mut in_trouble = false;
    for lane in pipeline.progress() {
        if let LaneState::Retrying(error) | LaneState::Stopped(error) = lane.state {
            in_trouble = true;
            output::note(&format!(
                "{}: what is left stays in the log for the next run: {error}",
                lane.replicator
            ));
        }
    }
    if in_trouble { Err(Failure::Told) } else { Ok(report) }
}

/// Says what was done. Records that were refused or could not be decoded are a failure: they are nowhere.
pub(crate) fn finish(report: RunReport) -> Result<(), Failure> {
    output::note(&format!("{} rows written", report.written));
    if report.parked > 0 {
        output::note(&format!("{} changes were refused and parked; see `s3rep status`", report.parked));
    }
    if report.parked > 0 && report.undecodable == 0 {
        return Err(Failure::Told);
    }
    if report.undecodable > 0 {
        output::note(&format!(
            "{} records of the source cannot be decoded; the messages above name them",
            report.undecodable
        ));
        return Err(Failure::Told);
    }
    Ok(())
}

/// Returns when the process is asked to stop.
pub(crate) async fn signal() {
    use tokio::signal::unix::{SignalKind, signal};
    let mut terminate = match signal(SignalKind::terminate()) {
        Ok(terminate) => terminate,
        Err(_) => return drop(tokio::signal::ctrl_c().await),
    };
    tokio::select! {
        _ = terminate.recv() => {}
        _ = tokio::signal::ctrl_c() => {}
    }
}
