//! Which resources go to which tables: the `resources` member of a replicator.

mod parse;

use std::sync::Arc;

use crate::{Operation, RouteMode};

pub use parse::MappingProblem;

/// The routes of one replicator.
///
/// ```
/// use s3rep_core::{Mapping, Operation};
/// let resources = serde_json::json!({
///     "airports": "ports",
///     "cars": ["cars", { "resource": "cars_log", "mode": "append", "actions": ["insert"] }],
/// });
/// let mapping = Mapping::parse(&resources).unwrap();
/// let tables: Vec<_> = mapping.routes("cars").map(|route| &*route.table).collect();
/// assert_eq!(tables, ["cars", "cars_log"]);
/// assert!(!mapping.routes("cars").last().unwrap().accepts(Operation::Delete));
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Mapping {
    routes: Vec<Route>,
}

/// One way from a resource into a table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// The resource it starts from.
    pub resource: Arc<str>,
    /// The table it ends in.
    pub table: Arc<str>,
    /// Latest rows or every change; `None` leaves it to the sink.
    pub mode: Option<RouteMode>,
    actions: Actions,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Actions {
    insert: bool,
    update: bool,
    delete: bool,
}

impl Actions {
    /// Insert, update and delete; s3db.js does only inserts when nothing is said, so that updates are lost.
    const ALL: Self = Self { insert: true, update: true, delete: true };
    const NONE: Self = Self { insert: false, update: false, delete: false };
}

impl Mapping {
    /// A mapping of these routes.
    pub fn new(routes: Vec<Route>) -> Self {
        Self { routes }
    }

    /// The routes of a resource, in the order of the configuration.
    pub fn routes<'a>(&'a self, resource: &'a str) -> impl Iterator<Item = &'a Route> + 'a {
        self.routes.iter().filter(move |route| &*route.resource == resource)
    }

    /// Every route.
    pub fn all_routes(&self) -> &[Route] {
        &self.routes
    }
}

impl Route {
    /// A route for every operation into a table of that name, in the sink's default mode.
    pub fn new(resource: impl Into<Arc<str>>, table: impl Into<Arc<str>>) -> Self {
        Self { resource: resource.into(), table: table.into(), mode: None, actions: Actions::ALL }
    }

    /// The same route in this mode.
    #[must_use]
    pub fn with_mode(mut self, mode: RouteMode) -> Self {
        self.mode = Some(mode);
        self
    }

    /// Whether changes of this kind take the route. Rows of a snapshot count as inserts.
    pub fn accepts(&self, operation: Operation) -> bool {
        match operation {
            Operation::Insert | Operation::Read => self.actions.insert,
            Operation::Update => self.actions.update,
            Operation::Delete => self.actions.delete,
        }
    }
}
