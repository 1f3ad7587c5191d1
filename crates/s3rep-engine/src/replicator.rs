//! One configured destination.

use std::{sync::Arc, time::Duration};

use s3rep_core::{
    Error, ErrorKind, Limits, Mapping, ResourceSchema, Result, RetryPolicy, Route, RouteMode, SchemaPlan,
    Scope, Sink, SyncKind, Table,
};

/// One configured destination: a sink, the routes that lead there, and how patiently it is written to.
#[derive(Clone, Debug)]
pub struct Replicator {
    id: Arc<str>,
    mapping: Mapping,
    sink: Arc<dyn Sink>,
    options: DeliveryOptions,
}

/// How patiently a destination is written to, and what may be done to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeliveryOptions {
    /// Tries and delays.
    pub retry: RetryPolicy,
    /// A write that takes longer counts as failed with unknown outcome. Default 30 s, as documented for
    /// s3db.js.
    pub timeout: Duration,
    /// At most this many changes a batch, below the sink's own limit. Default none: the sink knows best.
    pub batch_size: Option<usize>,
    /// Agrees to plans of schema synchronisation that drop a table and create it anew
    /// ([`SyncKind::Recreated`]), which `strategy: drop-create` leads to. Default false: the replicator stops
    /// before such a plan and says so. Other changes of tables need no consent beyond their own option.
    pub recreate_tables: bool,
}

impl Default for DeliveryOptions {
    fn default() -> Self {
        Self {
            retry: RetryPolicy::default(),
            timeout: Duration::from_secs(30),
            batch_size: None,
            recreate_tables: false,
        }
    }
}

impl Replicator {
    /// A replicator with default options. `id` names its cursors: it must not change between runs.
    ///
    /// # Errors
    /// [`ErrorKind::ConfigInvalid`] when a route asks for a mode that the sink does not have.
    pub fn new(id: impl Into<Arc<str>>, mapping: Mapping, sink: Arc<dyn Sink>) -> Result<Self> {
        let replicator = Self { id: id.into(), mapping, sink, options: DeliveryOptions::default() };
        let capability = replicator.sink.capability();
        for route in replicator.mapping.all_routes() {
            let mode = replicator.mode(route);
            if !capability.supports(mode) {
                let (asked, other) = match mode {
                    RouteMode::Upsert => ("upsert", "append"),
                    RouteMode::Append => ("append", "upsert"),
                };
                return Err(Error::new(
                    ErrorKind::ConfigInvalid,
                    format!("this destination has no mode '{asked}'"),
                )
                .with_scope(Scope::Sink)
                .with_context("replicator", &replicator.id)
                .with_context("table", &route.table)
                .with_advice(format!("use 'mode: {other}' or leave the mode out")));
            }
        }
        Ok(replicator)
    }

    /// The same replicator with these options.
    #[must_use]
    pub fn with_options(mut self, options: DeliveryOptions) -> Self {
        self.options = options;
        self
    }

    /// Its name.
    pub fn id(&self) -> &Arc<str> {
        &self.id
    }

    /// Its routes.
    pub fn mapping(&self) -> &Mapping {
        &self.mapping
    }

    /// Its destination.
    pub fn sink(&self) -> &Arc<dyn Sink> {
        &self.sink
    }

    /// Its options.
    pub fn options(&self) -> &DeliveryOptions {
        &self.options
    }

    /// The table at the end of a route, for records of this shape.
    pub fn table(&self, route: &Route, schema: Arc<ResourceSchema>) -> Table {
        Table { name: route.table.clone(), mode: self.mode(route), schema }
    }

    /// Every route with the table at its end, `None` where the resource is not among these.
    pub fn tables<'a>(
        &'a self,
        resources: &'a [Arc<ResourceSchema>],
    ) -> impl Iterator<Item = (&'a Route, Option<Table>)> + 'a {
        self.mapping.all_routes().iter().map(|route| {
            let schema = resources.iter().find(|schema| schema.name == route.resource);
            (route, schema.map(|schema| self.table(route, schema.clone())))
        })
    }

    /// Whether the options agree to a plan: only one that drops the table and creates it anew needs that.
    ///
    /// # Errors
    /// [`ErrorKind::SchemaMismatch`], permanent and for the table, when they do not.
    pub fn consents_to(&self, table: &Table, plan: &SchemaPlan) -> Result<()> {
        if plan.kind() != Some(SyncKind::Recreated) || self.options.recreate_tables {
            return Ok(());
        }
        let message = match table.mode {
            RouteMode::Upsert => {
                "the table does not fit and would be dropped and created anew: every row in it would be lost, \
                 and only the source's records would be written again"
            }
            RouteMode::Append => {
                "the table does not fit and would be dropped and created anew: every change in it would be lost, \
                 and the source's records would be written again as they are now, without their history"
            }
        };
        Err(Error::new(ErrorKind::SchemaMismatch, message)
            .with_scope(Scope::Table)
            .with_context("table", &table.name)
            .with_advice(
                "agree with `s3rep apply --yes` or `s3rep run --yes`, in a program with `recreate_tables`; or set \
                 schemaSync.strategy to alter",
            ))
    }

    /// The sink's limits, with the configured batch size.
    pub(crate) fn limits(&self) -> Limits {
        let mut limits = self.sink.capability().limits;
        limits.records = limits.records.min(self.options.batch_size.unwrap_or(usize::MAX)).max(1);
        limits
    }

    /// The mode of a route: its own, or the sink's default.
    pub fn mode(&self, route: &Route) -> RouteMode {
        route.mode.unwrap_or_else(|| self.sink.capability().default_mode())
    }
}
