//! The syntaxes of `resources`. One function a form; the forms still missing (`'*'`, functions, filters) go
//! here too.

use std::sync::Arc;

use serde_json::{Map, Value};

use super::{Actions, Mapping, Route};
use crate::{Operation, RouteMode};

/// One thing that is wrong in a mapping.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MappingProblem {
    /// Where: member names and array indices from the mapping down.
    pub path: Vec<String>,
    /// What, and what to do.
    pub message: String,
    /// When the last member of the path is unknown: the members that there are. Else empty.
    pub known: &'static [&'static str],
}

/// The members of a destination.
const MEMBERS: &[&str] = &["resource", "table", "mode", "upsertMode", "actions"];

type Path<'a> = &'a [&'a str];

#[derive(Default)]
struct Parser {
    routes: Vec<Route>,
    problems: Vec<MappingProblem>,
}

impl Mapping {
    /// Reads the `resources` member of a replicator: an array of names, or an object from names to
    /// destinations. A destination is a table name, `true` (the resource's own name), an object with
    /// `resource` or `table`, `mode` (`upsertMode: true` means `mode: upsert`) and `actions`, or an array of those.
    ///
    /// # Errors
    /// Every problem at once.
    pub fn parse(resources: &Value) -> Result<Self, Vec<MappingProblem>> {
        let mut parser = Parser::default();
        parser.mapping(resources);
        if parser.problems.is_empty() { Ok(Self::new(parser.routes)) } else { Err(parser.problems) }
    }
}

impl Parser {
    fn mapping(&mut self, resources: &Value) {
        match resources {
            Value::String(name) => self.route(&[], name, name, None, Actions::ALL),
            Value::Array(names) => {
                for (i, name) in names.iter().enumerate() {
                    let index = i.to_string();
                    match name {
                        Value::String(name) => self.route(&[&index], name, name, None, Actions::ALL),
                        _ => self.problem(&[&index], "expected the name of a resource"),
                    }
                }
            }
            Value::Object(members) => {
                for (resource, destination) in members {
                    self.destination(&[resource], resource, destination);
                }
            }
            _ => self.problem(&[], "expected an array of resource names, or an object from names to tables"),
        }
        if resources.as_array().is_some_and(Vec::is_empty) || resources.as_object().is_some_and(Map::is_empty)
        {
            self.problem(&[], "names no resource; list at least one");
        }
    }

    fn destination(&mut self, path: Path<'_>, resource: &str, destination: &Value) {
        match destination {
            Value::Bool(true) => self.route(path, resource, resource, None, Actions::ALL),
            Value::String(table) => self.route(path, resource, table, None, Actions::ALL),
            Value::Object(members) => self.object(path, resource, members),
            Value::Array(destinations) if destinations.is_empty() => {
                self.problem(path, "names no table; leave the resource out to not replicate it");
            }
            Value::Array(destinations) => {
                for (i, destination) in destinations.iter().enumerate() {
                    let index = i.to_string();
                    let path = [path, &[index.as_str()]].concat();
                    match destination {
                        Value::Array(_) => {
                            self.problem(&path, "an array of destinations cannot hold another array")
                        }
                        _ => self.destination(&path, resource, destination),
                    }
                }
            }
            _ => self
                .problem(path, "expected a table name, true, an object with 'table', or an array of those"),
        }
    }

    fn object(&mut self, path: Path<'_>, resource: &str, members: &Map<String, Value>) {
        let mut table = None;
        let mut mode = None;
        let mut actions = Actions::ALL;
        for (member, value) in members {
            let path = [path, &[member.as_str()]].concat();
            match (member.as_str(), value) {
                ("resource" | "table", Value::String(_)) if table.is_some() => {
                    self.problem(&path, "the table is named twice; keep one of 'resource' and 'table'");
                }
                ("resource" | "table", Value::String(name)) => table = Some(name.as_str()),
                ("resource" | "table", _) => self.problem(&path, "expected a name"),
                ("mode", Value::String(text)) if text == "upsert" => mode = Some(RouteMode::Upsert),
                ("mode", Value::String(text)) if text == "append" => mode = Some(RouteMode::Append),
                ("mode", _) => self.problem(&path, "expected 'upsert' or 'append'"),
                ("upsertMode", Value::Bool(true)) if !members.contains_key("mode") => {
                    mode = Some(RouteMode::Upsert);
                }
                ("upsertMode", Value::Bool(true)) => {
                    self.problem(&path, "the mode is said twice; keep one of 'mode' and 'upsertMode'");
                }
                // Inserts that fail where a row is there, as the original does them, lose changes.
                ("upsertMode", _) => {
                    self.problem(&path, "expected true; write mode: append for a row for each change");
                }
                ("actions", value) => actions = self.actions(&path, value),
                _ => self.unknown_member(&path),
            }
        }
        self.route(path, resource, table.unwrap_or(resource), mode, actions);
    }

    fn actions(&mut self, path: Path<'_>, value: &Value) -> Actions {
        let Value::Array(names) = value else {
            self.problem(path, "expected an array of insert, update and delete");
            return Actions::NONE;
        };
        let mut actions = Actions::NONE;
        for (i, name) in names.iter().enumerate() {
            match name.as_str().map(str::parse) {
                Some(Ok(Operation::Insert)) => actions.insert = true,
                Some(Ok(Operation::Update)) => actions.update = true,
                Some(Ok(Operation::Delete)) => actions.delete = true,
                _ => {
                    let index = i.to_string();
                    self.problem(&[path, &[index.as_str()]].concat(), "expected insert, update or delete");
                }
            }
        }
        actions
    }

    fn route(
        &mut self,
        path: Path<'_>,
        resource: &str,
        table: &str,
        mode: Option<RouteMode>,
        actions: Actions,
    ) {
        if resource.is_empty() || table.is_empty() {
            return self.problem(path, "a name is empty");
        }
        if resource.contains('*') {
            return self.problem(path, "patterns such as '*' are not here yet; list the resources");
        }
        if self.routes.iter().any(|route| &*route.table == table) {
            return self.problem(
                path,
                "this replicator has another route into the same table, and their order could not be kept; \
                 name another table",
            );
        }
        let (resource, table) = (Arc::from(resource), Arc::from(table));
        self.routes.push(Route { resource, table, mode, actions });
    }

    fn problem(&mut self, path: Path<'_>, message: &str) {
        let path = path.iter().map(|&part| part.to_owned()).collect();
        self.problems.push(MappingProblem { path, message: message.to_owned(), known: &[] });
    }

    fn unknown_member(&mut self, path: Path<'_>) {
        let path = path.iter().map(|&part| part.to_owned()).collect();
        let message = format!("unknown member; there are {}", MEMBERS.join(", "));
        self.problems.push(MappingProblem { path, message, known: MEMBERS });
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn names_and_renames() {
        let by_array = Mapping::parse(&json!(["a", "b"])).unwrap();
        let by_object = Mapping::parse(&json!({"a": true, "b": "b"})).unwrap();
        assert_eq!(by_array, by_object);
        assert_eq!(by_array.all_routes(), [Route::new("a", "a"), Route::new("b", "b")]);
    }

    #[test]
    fn actions_in_both_spellings_and_none_at_all() {
        let mapping =
            Mapping::parse(&json!({"a": {"table": "t", "actions": ["inserted", "delete"]}})).unwrap();
        let route = &mapping.all_routes()[0];
        let accepted = [Operation::Insert, Operation::Update, Operation::Delete, Operation::Read]
            .map(|o| route.accepts(o));
        assert_eq!(accepted, [true, false, true, true]);
        let never = Mapping::parse(&json!({"a": {"actions": []}})).unwrap();
        assert!(!never.all_routes()[0].accepts(Operation::Insert));
    }

    #[test]
    fn the_mode_has_two_spellings() {
        let mode = |destination: serde_json::Value| {
            Mapping::parse(&json!({ "a": destination })).map(|mapping| mapping.all_routes()[0].mode)
        };
        assert_eq!(mode(json!({"upsertMode": true})), Ok(Some(RouteMode::Upsert)));
        assert_eq!(mode(json!({"mode": "append"})), Ok(Some(RouteMode::Append)));
        for refused in [json!({"upsertMode": false}), json!({"mode": "append", "upsertMode": true})] {
            assert!(mode(refused).is_err());
        }
    }

    #[test]
    fn every_problem_is_told_with_its_place() {
        let problems = Mapping::parse(&json!({
            "a": {"tabel": "x", "mode": "both", "actions": ["grow"]},
            "b": [],
            "c": ["t", ["u"]],
            "d": 7,
            "e": "t",
        }))
        .unwrap_err();
        let paths: Vec<_> = problems.iter().map(|problem| problem.path.join(".")).collect();
        assert_eq!(paths, ["a.tabel", "a.mode", "a.actions.0", "b", "c.1", "d", "e"]);
    }
}
