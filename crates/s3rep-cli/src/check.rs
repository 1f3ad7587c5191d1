//! `s3rep check`: tests a configuration against the real source and destinations. Writes nothing.

use clap::Args;
use s3rep::{
    Error, Result, RouteMode,
    config::Config,
    core::{AttributeType, Context, ResourceSchema, Source, SyncKind, Table},
    engine::{Replicator, plan_table},
    open_source, replicators,
};
use serde_json::{Value, json};
use std::sync::Arc;

use crate::{ConfigArgs, Failure, output};

#[derive(Args)]
pub(crate) struct CheckArgs {
    #[command(flatten)]
    config: ConfigArgs,
    /// One JSON object a line
    #[arg(long)]
    json: bool,
}

/// What was found, in the order in which it was looked at.
struct Findings {
    rows: Vec<Vec<Value>>,
    failed: bool,
}

impl Findings {
    fn good(&mut self, what: &str, detail: String) {
        self.rows.push(vec![json!(what), json!("ok"), json!(detail)]);
    }

    fn warn(&mut self, what: &str, detail: String) {
        self.rows.push(vec![json!(what), json!("warning"), json!(detail)]);
    }

    fn bad(&mut self, what: &str, error: &Error) {
        self.failed = true;
        let advice = error.advice().map(|advice| format!("; {advice}")).unwrap_or_default();
        self.rows.push(vec![json!(what), json!("FAILED"), json!(format!("{}{advice}", error.report()))]);
    }
}

pub(crate) async fn check(args: &CheckArgs, cx: &Context) -> Result<(), Failure> {
    let config = args.config.load()?;
    let mut findings = Findings { rows: Vec::new(), failed: false };
    let resources = source(cx, &config, &mut findings).await;
    let enabled = replicators(&config)?;
    for configured in &config.replicators {
        let what = format!("replicator {}", configured.id);
        match enabled.iter().find(|replicator| **replicator.id() == *configured.id) {
            Some(replicator) => destination(cx, replicator, resources.as_deref(), &what, &mut findings).await,
            None => findings.warn(&what, "disabled".to_owned()),
        }
    }
    output::table(args.json, &["what", "result", "detail"], &findings.rows);
    if findings.failed { Err(Failure::Told) } else { Ok(()) }
}

/// The resources of the source, when it can be read.
async fn source(cx: &Context, config: &Config, findings: &mut Findings) -> Option<Vec<Arc<ResourceSchema>>> {
    let opened = async {
        let source = open_source(cx, &config.source).await?;
        Ok::<_, Error>((source.resources(cx).await?, source))
    };
    match opened.await {
        Ok((resources, source)) => {
            let names: Vec<_> = resources.iter().map(|schema| &*schema.name).collect();
            let sees = source.capability();
            let every =
                if sees.sees_every_version { "every version" } else { "the latest version at each look" };
            let before = if sees.before_images { ", with the record before" } else { "" };
            let location = source.database().location();
            let interval = source.interval();
            let detail =
                format!("{location}: {}; sees {every}{before}, every {interval:?}", names.join(", "));
            findings.good("source", detail);
            for repair in source.database().repairs() {
                findings.warn("source", format!("s3db.json: {repair}"));
            }
            unknown_types(&resources, findings);
            Some(resources)
        }
        Err(error) => {
            findings.bad("source", &error);
            None
        }
    }
}

fn unknown_types(resources: &[Arc<ResourceSchema>], findings: &mut Findings) {
    for schema in resources {
        for attribute in &schema.attributes {
            if let AttributeType::Unknown(name) = &attribute.kind {
                let (resource, attribute) = (&schema.name, &attribute.name);
                let detail =
                    format!("{resource}.{attribute} has the unknown type '{name}'; it is carried as text");
                findings.warn("source", detail);
            }
        }
    }
}

async fn destination(
    cx: &Context,
    replicator: &Replicator,
    resources: Option<&[Arc<ResourceSchema>]>,
    what: &str,
    findings: &mut Findings,
) {
    match replicator.sink().check(cx).await {
        Ok(()) => {
            let delivery = replicator.sink().capability().delivery();
            let routes = replicator.mapping().all_routes().iter().map(|route| {
                let mode = match replicator.mode(route) {
                    RouteMode::Upsert => "",
                    RouteMode::Append => " (append)",
                };
                format!("{} -> {}{mode}", route.resource, route.table)
            });
            findings.good(what, format!("{}; {delivery}", routes.collect::<Vec<_>>().join(", ")));
        }
        Err(error) => findings.bad(what, &error),
    }
    let Some(resources) = resources else { return };
    for (route, found) in replicator.tables(resources) {
        match found {
            Some(found) => table(cx, replicator, &found, what, findings).await,
            None => {
                let resource = &route.resource;
                let detail =
                    format!("the source has no resource '{resource}' yet; it is replicated when it appears");
                findings.warn(what, detail);
            }
        }
    }
}

/// Whether a table fits, or what would be done about it.
async fn table(cx: &Context, replicator: &Replicator, table: &Table, what: &str, findings: &mut Findings) {
    let looked = async {
        let plan = plan_table(cx, replicator, table).await?;
        if plan.is_none()
            && let Some(readback) = replicator.sink().readback()
        {
            readback.rows(cx, table, None, 1).await?;
        }
        Ok::<_, Error>(plan.and_then(|plan| plan.kind()))
    };
    let name = &table.name;
    match looked.await {
        Ok(None) => {}
        Ok(Some(SyncKind::Created)) => findings.good(what, format!("creates table {name}")),
        Ok(Some(SyncKind::Altered)) => findings.good(what, format!("alters table {name}")),
        Ok(Some(SyncKind::Recreated)) => findings.warn(
            what,
            format!("drops table {name} and creates it anew, which loses every row: only with `--yes`"),
        ),
        Err(error) => findings.bad(what, &error),
    }
}
