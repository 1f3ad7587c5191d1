//! `s3rep sync`: every current record, anew.

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
    run::finish(run::once(replication.pipeline()).await?)
}
