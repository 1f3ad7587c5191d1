//! From a configuration to a running pipeline.

use std::sync::Arc;

use s3rep_core::{Context, Result, RetryPolicy};
use s3rep_engine::{DeliveryOptions, Pipeline, PipelineOptions, Replicator};
use s3rep_log::{EmbeddedLog, LogOptions};
use s3rep_s3db::{Database, DatabaseOptions, Followed, TailOptions, TailSource};

use crate::config::{Config, SourceConfig};

/// A configuration put to work: source, log and pipeline.
///
/// Holds the state directory: a second one on the same directory is refused.
#[derive(Debug)]
pub struct Replication {
    source: Arc<TailSource>,
    pipeline: Pipeline,
}

impl Replication {
    /// Opens the source and the state directory, and puts the enabled replicators over them. Nothing moves yet.
    ///
    /// # Errors
    /// When there is no database at the source, or another process uses the state directory.
    pub async fn open(cx: &Context, config: &Config) -> Result<Self> {
        Self::open_some(cx, config, &|_| true).await
    }

    /// The same with only those replicators that `wanted` says, by id.
    ///
    /// # Errors
    /// As [`Replication::open`].
    pub async fn open_some(cx: &Context, config: &Config, wanted: &dyn Fn(&str) -> bool) -> Result<Self> {
        let source = open_source(cx, &config.source).await?;
        let (log, events) = EmbeddedLog::open(&config.state, &LogOptions::default())?;
        let replicators =
            replicators(config)?.into_iter().filter(|replicator| wanted(replicator.id())).collect();
        let options = PipelineOptions {
            retention: config.retention,
            drain_timeout: config.shutdown_timeout,
            ..PipelineOptions::default()
        };
        let pipeline =
            Pipeline::new(cx.clone(), source.clone(), Arc::new(log), replicators)?.with_options(options);
        for event in events {
            pipeline.emit(event);
        }
        Ok(Self { source, pipeline })
    }

    /// The database that is followed.
    pub fn source(&self) -> &Arc<TailSource> {
        &self.source
    }

    /// What moves the changes.
    pub fn pipeline(&self) -> &Pipeline {
        &self.pipeline
    }
}

/// Opens the database of a configuration, as a source. It is only read.
///
/// # Errors
/// When there is no database, or it cannot be read.
pub async fn open_source(cx: &Context, config: &SourceConfig) -> Result<Arc<TailSource>> {
    let mut options = DatabaseOptions { context: cx.clone(), ..DatabaseOptions::default() };
    if let Some(passphrase) = &config.passphrase {
        options.passphrase = passphrase.clone();
    }
    if let Some(parallelism) = config.parallelism {
        options.store = options.store.with_parallelism(parallelism);
    }
    let database = Database::connect_with(config.url.expose(), options).await?;
    let options = TailOptions {
        interval: config.interval,
        followed: match &config.resources {
            Some(names) => Followed::Named(names.iter().cloned().collect()),
            None => Followed::OfUsers,
        },
        ..TailOptions::default()
    };
    Ok(Arc::new(TailSource::new(database, options)))
}

/// The enabled replicators of a configuration.
///
/// # Errors
/// When a route asks for a mode that its destination does not have.
pub fn replicators(config: &Config) -> Result<Vec<Replicator>> {
    let options = DeliveryOptions {
        retry: RetryPolicy { max_retries: config.max_retries, ..RetryPolicy::default() },
        timeout: config.timeout,
        batch_size: config.batch_size,
        recreate_tables: config.recreate_tables,
    };
    config
        .replicators
        .iter()
        .filter(|replicator| replicator.enabled)
        .map(|replicator| {
            let sink = replicator.sink.clone();
            Replicator::new(replicator.id.as_str(), replicator.mapping.clone(), sink)
                .map(|replicator| replicator.with_options(options))
        })
        .collect()
}
