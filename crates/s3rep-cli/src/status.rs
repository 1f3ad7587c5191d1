//! `s3rep status`: how far each destination is, beside a running process or without one.

use clap::Args;
use s3rep::{core::Context, log::EmbeddedLog};
use serde_json::{Value, json};

use crate::{ConfigArgs, Failure, output};

#[derive(Args)]
pub(crate) struct StatusArgs {
    #[command(flatten)]
    config: ConfigArgs,
    /// One JSON object a line
    #[arg(long)]
    json: bool,
}

pub(crate) async fn status(args: &StatusArgs, cx: &Context) -> Result<(), Failure> {
    let config = args.config.load()?;
    let log = EmbeddedLog::open_readonly(&config.state)?;
    let known = log.replicators().await?;
    let mut rows = Vec::new();
    for replicator in &config.replicators {
        let Some(state) = known.iter().find(|state| state.replicator == replicator.id) else {
            rows.push(vec![
                json!(replicator.id),
                json!("never run"),
                Value::Null,
                Value::Null,
                Value::Null,
                Value::Null,
            ]);
            continue;
        };
        let lag = state.oldest_pending.map_or(json!(0), |at| json!(cx.now().since(at).as_secs()));
        let word = match (&state.needs_resync, replicator.enabled) {
            (Some(_), _) => "needs sync",
            (None, false) => "disabled",
            (None, true) if state.dead_letters > 0 && state.pending == 0 => "has parked changes",
            (None, true) if state.pending == 0 => "up to date",
            (None, true) => "behind",
        };
        rows.push(vec![
            json!(replicator.id),
            json!(word),
            json!(state.pending),
            lag,
            json!(state.dead_letters),
            json!(state.needs_resync),
        ]);
    }
    output::table(args.json, &["replicator", "state", "waiting", "lag seconds", "parked", "reason"], &rows);
    Ok(())
}
