//! One configured destination.

use std::{sync::Arc, time::Duration};

use s3rep_core::{
    Error, ErrorKind, Limits, Mapping, ResourceSchema, Result, RetryPolicy, Route, RouteMode, Scope, Sink,
    Table,
};

/// One configured destination: a sink, the routes that lead there, and how patiently it is written to.
#[derive(Clone, Debug)]
pub struct Replicator {
    id: Arc<str>,
    mapping: Mapping,
    sink: Arc<dyn Sink>,
    options: DeliveryOptions,
}

/// How patiently a destination is written to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeliveryOptions {
    /// Tries and delays.
    pub retry: RetryPolicy,
    /// A write that takes longer counts as failed with unknown outcome. Default 30 s, as documented for
    /// s3db.js.
    pub timeout: Duration,
    /// At most this many changes a batch, below the sink's own limit. Default none: the sink knows best.
    pub batch_size: Option<usize>,
}

impl Default for DeliveryOptions {
    fn default() -> Self {
        Self { retry: RetryPolicy::default(), timeout: Duration::from_secs(30), batch_size: None }
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

    /// The sink's limits, with the configured batch size.
    pub(crate) fn limits(&self) -> Limits {
        let mut limits = self.sink.capability().limits;
        limits.records = limits.records.min(self.options.batch_size.unwrap_or(usize::MAX)).max(1);
        limits
    }

    fn mode(&self, route: &Route) -> RouteMode {
        route.mode.unwrap_or_else(|| self.sink.capability().default_mode())
    }
}
