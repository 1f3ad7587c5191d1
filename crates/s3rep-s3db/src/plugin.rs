//! Parts that join a database and live with it.

use std::{
    fmt::Debug,
    sync::{Arc, MutexGuard, PoisonError},
};

use async_trait::async_trait;
use s3rep_core::{Error, ErrorKind, Result};

use crate::{database::Database, resource::Resource};

/// A part that joins a database: a replicator, an audit trail, a cache.
///
/// Its life: [`install`](Plugin::install), then [`resource`](Plugin::resource) for each resource that is there,
/// [`start`](Plugin::start), [`resource`](Plugin::resource) for each that is created or changed later,
/// [`stop`](Plugin::stop), [`uninstall`](Plugin::uninstall). Each is awaited before the next.
#[async_trait]
pub trait Plugin: Send + Sync + Debug + 'static {
    /// Its name, unique in a database.
    fn name(&self) -> &str;

    /// Prepares what it needs: resources of its own, hooks.
    ///
    /// # Errors
    /// The plugin does not join.
    async fn install(&self, database: &Database) -> Result<()> {
        let _ = database;
        Ok(())
    }

    /// Sees a resource, before the first write to it through a handle with that definition. Resources cannot be
    /// created or changed in here, and not refreshed: do that when the plugin starts, or in a task of its own.
    ///
    /// # Errors
    /// Handed to whoever created the resource. The resource itself is stored.
    async fn resource(&self, resource: &Resource) -> Result<()> {
        let _ = resource;
        Ok(())
    }

    /// Begins its work.
    ///
    /// # Errors
    /// The plugin is uninstalled again.
    async fn start(&self, database: &Database) -> Result<()> {
        let _ = database;
        Ok(())
    }

    /// Ends its work; what is under way is finished first.
    ///
    /// # Errors
    /// Reported; it counts as stopped.
    async fn stop(&self, database: &Database) -> Result<()> {
        let _ = database;
        Ok(())
    }

    /// Takes back what [`install`](Plugin::install) did in this process.
    ///
    /// # Errors
    /// Reported; it counts as uninstalled.
    async fn uninstall(&self, database: &Database) -> Result<()> {
        let _ = database;
        Ok(())
    }
}

impl Database {
    /// Lets a plugin join: it is installed, shown every resource and started. The handle is for whatever else
    /// the plugin offers.
    ///
    /// End with [`Database::close`]: a plugin that holds the database is not dropped with it.
    ///
    /// # Errors
    /// [`ErrorKind::AlreadyExists`] when one of that name has joined, and what the plugin says.
    pub async fn use_plugin<P: Plugin>(&self, plugin: P) -> Result<Arc<P>> {
        let plugin = Arc::new(plugin);
        let about = |error: Error| error.with_context("plugin", plugin.name());
        if self.plugins().iter().any(|other| other.name() == plugin.name()) {
            return Err(about(Error::new(
                ErrorKind::AlreadyExists,
                "a plugin of that name has joined already",
            )));
        }
        plugin.install(self).await.map_err(about)?;
        // From here on it is shown what is created, also while it is shown what is there.
        self.plugins().push(plugin.clone());
        if let Err(error) = self.begin(&*plugin).await {
            self.plugins().retain(|other| other.name() != plugin.name());
            if let Err(error) = plugin.uninstall(self).await {
                tracing::warn!(plugin = plugin.name(), "not uninstalled: {}", error.report());
            }
            return Err(about(error));
        }
        Ok(plugin)
    }

    fn plugins(&self) -> MutexGuard<'_, Vec<Arc<dyn Plugin>>> {
        self.inner.plugins.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn begin(&self, plugin: &dyn Plugin) -> Result<()> {
        for name in self.resources() {
            match self.resource(&name) {
                Ok(resource) => plugin.resource(&resource).await?,
                // Nobody can write to it either.
                Err(error) => tracing::warn!(resource = name, "left out: {}", error.report()),
            }
        }
        plugin.start(self).await
    }

    /// Stops a plugin and lets it go.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] when none of that name has joined, and what the plugin says; it is gone then too.
    pub async fn remove_plugin(&self, name: &str) -> Result<()> {
        let at = self.plugins().iter().position(|plugin| plugin.name() == name);
        let Some(plugin) = at.map(|at| self.plugins().remove(at)) else {
            return Err(Error::new(ErrorKind::NotFound, format!("no plugin '{name}' has joined")));
        };
        self.end(&*plugin).await
    }

    /// Stops every plugin, the last one first. The database can still be used.
    ///
    /// # Errors
    /// The first that a plugin says; the others are stopped too.
    pub async fn close(&self) -> Result<()> {
        let mut problem = None;
        let plugins = std::mem::take(&mut *self.plugins());
        for plugin in plugins.iter().rev() {
            if let Err(error) = self.end(&**plugin).await {
                problem.get_or_insert(error);
            }
        }
        problem.map_or(Ok(()), Err)
    }

    async fn end(&self, plugin: &dyn Plugin) -> Result<()> {
        let stopped = plugin.stop(self).await;
        let uninstalled = plugin.uninstall(self).await;
        stopped.and(uninstalled).map_err(|error| error.with_context("plugin", plugin.name()))
    }

    /// Shows a resource to every plugin.
    pub(crate) async fn show(&self, resource: &Resource) -> Result<()> {
        // A copy: the lock is not held over an await.
        let plugins = self.plugins().clone();
        for plugin in plugins {
            plugin.resource(resource).await.map_err(|error| error.with_context("plugin", plugin.name()))?;
        }
        Ok(())
    }
}
