//! `s3rep sync`: every current record, anew, and nothing else.

use clap::Args;
use s3rep::{Replication, core::Context};

use crate::{ConfigArgs, Failure, run, verify};

#[derive(Args)]
pub(crate) struct SyncArgs {
    #[command(flatten)]
    config: ConfigArgs,
    /// Only this replicator, by id; may be repeated
    #[arg(long = "replicator", value_name = "ID")]
    replicators: Vec<String>,
}

pub(crate) async fn sync(args: &SyncArgs, cx: &Context) -> Result<(), Failure> {
    let config = args.config.load()?;
    verify::known(&config, &args.replicators)?;
    let wanted = |id: &str| args.replicators.is_empty() || args.replicators.iter().any(|wanted| wanted == id);
    let replication = Replication::open_some(cx, &config, &wanted).await?;
    for lane in replication.pipeline().progress() {
        replication.pipeline().request_sync(&lane.replicator).await?;
    }
    let report = run::once(replication.pipeline()).await?;
    // A snapshot brings what there is; what was deleted meanwhile is found by comparing.
    verify::mend(cx, &config, &replication, &wanted).await?;
    run::finish(report)
}
