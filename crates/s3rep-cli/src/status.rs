//! `s3rep status`: how far each destination is, beside a running process or without one.

use clap::Args;
use s3rep::{core::Context, log::EmbeddedLog, s3db::RequestBill};
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
    if let Some(bill) = RequestBill::read(cx, &log).await? {
        requests(args.json, &bill);
    }
    Ok(())
}

/// What the source was asked for, and what that costs.
fn requests(as_json: bool, bill: &RequestBill) {
    let (total, since, day) = (bill.total, bill.since, bill.cost_a_day());
    if as_json {
        let source = json!({"requests": total, "since": since.to_string(), "estimated_usd_a_day": day});
        return output::line(&json!({ "source": source }).to_string());
    }
    let day = day.map_or("not known in the first minute".to_owned(), |day| format!("about ${day:.2} a day"));
    output::line(&format!(
        "\nsource: {} LIST, {} GET and HEAD, {} PUT, {} DELETE since {since}; {day}",
        total.lists, total.reads, total.writes, total.deletes
    ));
}
