//! `s3rep sync`: every current record, anew, and nothing else.

use clap::Args;
use s3rep::{Replication, core::Context};

use crate::{Chosen, ConfigArgs, Failure, run, verify};

#[derive(Args)]
pub(crate) struct SyncArgs {
    #[command(flatten)]
    config: ConfigArgs,
    #[command(flatten)]
    chosen: Chosen,
    /// Agree to drop tables and create them anew where strategy is drop-create
    #[arg(long)]
    yes: bool,
}

pub(crate) async fn sync(args: &SyncArgs, cx: &Context) -> Result<(), Failure> {
    let mut config = args.config.load()?;
    config.recreate_tables = args.yes;
    args.chosen.check(&config)?;
    let replication = Replication::open_some(cx, &config, &|id| args.chosen.has(id)).await?;
    for lane in replication.pipeline().progress() {
        replication.pipeline().request_sync(&lane.replicator).await?;
    }
    let report = run::once(replication.pipeline()).await?;
    // A snapshot brings what there is; what was deleted meanwhile is found by comparing.
    verify::mend(cx, &replication).await?;
    run::finish(report)
}
