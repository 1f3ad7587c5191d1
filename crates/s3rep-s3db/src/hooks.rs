//! Functions of the user's around the operations of a resource.

use std::{
    collections::HashMap,
    fmt,
    sync::{
        Arc, PoisonError, RwLock,
        atomic::{AtomicBool, Ordering},
    },
};

use futures::future::BoxFuture;
use s3rep_core::{Record, Result};

/// An operation that hooks can stand before and after.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Action {
    /// [`Resource::insert`](crate::Resource::insert), also of each record of `insert_many` and of `upsert`.
    Insert,
    /// [`Resource::update`](crate::Resource::update), also of `upsert`.
    Update,
    /// [`Resource::patch`](crate::Resource::patch).
    Patch,
    /// [`Resource::replace`](crate::Resource::replace).
    Replace,
    /// [`Resource::delete`](crate::Resource::delete), also of each record of `delete_many` and `delete_all`.
    Delete,
    /// [`Resource::get`](crate::Resource::get) and `find`, also of each record of `get_many`.
    Get,
    /// [`Resource::exists`](crate::Resource::exists).
    Exists,
    /// Reading several records: [`Resource::list`](crate::Resource::list), `query`, `by_partition`. Before it once,
    /// after it for each record.
    List,
    /// Counting records.
    Count,
}

/// What a hook gets, may change and hands back.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Call {
    /// The operation.
    pub action: Action,
    /// The resource.
    pub resource: Arc<str>,
    /// The record's id, where the operation is about one and it is known.
    pub id: Option<Arc<str>>,
    /// Before a write what is to be written (of an update the changes, of a delete nothing), and after it the
    /// record as it is stored. After reading the record. What an after-hook changes is what the caller gets, not
    /// what is stored.
    pub record: Record,
    /// Around an update, patch, replace or delete the record before it, if there is one. A hook before the
    /// operation sees it as it was a moment ago.
    pub before: Option<Arc<Record>>,
}

/// A hook: see [`Resource::before`](crate::Resource::before).
pub(crate) type Hook = Arc<dyn Fn(Call) -> BoxFuture<'static, Result<Call>> + Send + Sync>;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum When {
    Before,
    After,
}

/// The hooks of one resource.
#[derive(Default)]
pub(crate) struct Hooks {
    /// There is one: spares everybody else the lock and the copies.
    any: AtomicBool,
    by_moment: RwLock<HashMap<(When, Action), Vec<Hook>>>,
}

impl Hooks {
    pub(crate) fn add(&self, when: When, action: Action, hook: Hook) {
        let mut hooks = self.by_moment.write().unwrap_or_else(PoisonError::into_inner);
        hooks.entry((when, action)).or_default().push(hook);
        self.any.store(true, Ordering::Release);
    }

    pub(crate) fn has(&self, when: When, action: Action) -> bool {
        self.any.load(Ordering::Acquire) && !self.of(when, action).is_empty()
    }

    fn of(&self, when: When, action: Action) -> Vec<Hook> {
        let hooks = self.by_moment.read().unwrap_or_else(PoisonError::into_inner);
        hooks.get(&(when, action)).cloned().unwrap_or_default()
    }

    /// Runs the hooks in the order in which they were added, each on what the one before it made.
    ///
    /// # Errors
    /// That of the first hook that refuses.
    pub(crate) async fn run(&self, when: When, mut call: Call) -> Result<Call> {
        if self.any.load(Ordering::Acquire) {
            for hook in self.of(when, call.action) {
                call = hook(call).await?;
            }
        }
        Ok(call)
    }
}

impl fmt::Debug for Hooks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hooks").field("any", &self.any).finish_non_exhaustive()
    }
}
