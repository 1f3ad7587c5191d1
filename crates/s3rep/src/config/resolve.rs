//! From the model to a [`Config`]: everything that one value alone does not tell.

use std::{collections::HashMap, sync::Arc};

use s3rep_core::{Capability, Mapping, RouteMode, Sink};

use super::{
    Config, LogLevel, ReplicatorConfig, SourceConfig,
    build::Input,
    de::At,
    model::{FOREIGN, Model, ReplicatorModel, SourceModel},
    node::{Entry, Kind, Node},
    problem::{Place, Problems, quoted, shown, suggest},
    read::{self, Notes},
    secrets::Secrets,
};
use crate::drivers::{self, Driver};

pub(super) fn resolve(
    tree: &mut Node,
    secrets: &Secrets,
    drivers: &'static [Driver],
    problems: &mut Problems,
) -> Option<Config> {
    let misplaced = |parent: &Node, entry: &Entry| misplaced(parent, entry, drivers);
    let notes = Notes { root: "the configuration", misplaced: &misplaced, secrets };
    let model: Model = read::read(tree, notes, problems)?;

    if let Some(place) = place_of(tree, &model.state)
        && model.state.value.as_os_str().is_empty()
    {
        problems.at(place, "'state' is empty", "name a directory, such as ./.s3rep");
    }
    if let Some(place) = place_of(tree, &model.replicators)
        && model.replicators.value.is_empty()
    {
        problems.at(place, "'replicators' is empty", "list at least one destination");
    }
    let source = source(model.source, tree, problems);

    let mut resolver = Resolver {
        tree,
        secrets,
        drivers,
        followed: source.resources.as_deref(),
        ids: HashMap::new(),
        unnamed: HashMap::new(),
        problems,
    };
    let replicators: Vec<_> = model
        .replicators
        .value
        .into_iter()
        .filter_map(|replicator| resolver.replicator(replicator, model.enabled))
        .collect();
    Some(Config {
        source,
        state: model.state.value,
        replicators,
        max_retries: model.max_retries,
        timeout: model.timeout,
        batch_size: model.batch_size.map(Into::into),
        retention: model.retention.into(),
        shutdown_timeout: model.shutdown_timeout,
        log_level: model.log_level.or(model.verbose.and_then(|verbose| verbose.then_some(LogLevel::Debug))),
        recreate_tables: false,
    })
}

/// Where the value stands; `None` for a default and for what has been told of already.
fn place_of<T>(tree: &Node, value: &At<T>) -> Option<Place> {
    tree.find(value.node).filter(|node| !node.is_hole()).map(|node| node.place)
}

fn source(model: SourceModel, tree: &Node, problems: &mut Problems) -> SourceConfig {
    if let Some(place) = place_of(tree, &model.url)
        && let Some((message, help)) = wrong_url(model.url.value.expose())
    {
        problems.at(place, message, help);
    }
    if let Some(resources) = &model.resources {
        if let Some(place) = place_of(tree, resources)
            && resources.value.is_empty()
        {
            problems.at(place, "'resources' is empty", "list at least one, or remove the key to follow all");
        }
        for name in &resources.value {
            if let Some(place) = place_of(tree, name)
                && name.value.is_empty()
            {
                problems.at(place, "the name of a resource is empty", "remove it");
            }
        }
    }
    SourceConfig {
        url: model.url.value,
        interval: model.interval,
        passphrase: model.passphrase,
        resources: model.resources.map(|names| names.value.into_iter().map(|name| name.value).collect()),
        parallelism: model.parallelism.map(Into::into),
    }
}

/// Only the form; whether the database is there is found out when it is opened.
fn wrong_url(url: &str) -> Option<(&'static str, &'static str)> {
    let is_url = url.split_once("://").is_some_and(|(scheme, _)| {
        !scheme.is_empty()
            && scheme.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '.'))
    });
    if url.is_empty() {
        return Some(("'url' is empty", "name the database, for example file:///data/databases/shop"));
    }
    (!is_url).then_some((
        "'url' is no connection string",
        "write it with its scheme: file:///absolute/directory or file://./relative/directory",
    ))
}

/// Help for keys that have a meaning elsewhere.
fn misplaced(parent: &Node, entry: &Entry, drivers: &'static [Driver]) -> Option<String> {
    let key = entry.key.as_str();
    if let Some((_, help)) = FOREIGN.iter().find(|(name, _)| *name == key) {
        return Some((*help).to_owned());
    }
    if parent.index_of("replicators").is_some()
        && ["url", "interval", "passphrase", "parallelism"].contains(&key)
    {
        return Some(format!("it belongs into 'source: {{ {key}: … }}'"));
    }
    let driver = parent.child(parent.index_of("driver")?)?.text()?;
    let options = drivers::find_in(drivers, driver)?.options();
    options.contains(&key).then(|| format!("it belongs into 'config: {{ {key}: … }}'"))
}

struct Resolver<'a> {
    tree: &'a Node,
    secrets: &'a Secrets,
    drivers: &'static [Driver],
    followed: Option<&'a [String]>,
    ids: HashMap<String, Place>,
    /// Replicators without an id, by driver.
    unnamed: HashMap<&'static str, usize>,
    problems: &'a mut Problems,
}

impl Resolver<'_> {
    /// `None` when something is wrong with it, which has been told then.
    fn replicator(&mut self, model: At<ReplicatorModel>, enabled: bool) -> Option<ReplicatorConfig> {
        let node = self.tree.find(model.node).filter(|node| !node.is_hole())?;
        let ReplicatorModel { id, driver, enabled: own, resources, config } = model.value;
        let driver = self.driver(&driver);
        let id = self.id(id, driver, node.place);
        let sink = driver.and_then(|driver| self.sink(driver, node, config.map(|config| config.node)));
        // What the driver can do does not depend on its options: modes are checked even when those are wrong.
        let capability = driver.and_then(Driver::capability);
        let mapping = self.tree.find(resources.node).and_then(|node| self.mapping(node, capability));
        Some(ReplicatorConfig {
            id: id?,
            driver: driver?,
            enabled: enabled && own,
            mapping: mapping?,
            sink: sink?,
        })
    }

    fn driver(&mut self, given: &At<String>) -> Option<&'static Driver> {
        let node = self.tree.find(given.node).filter(|node| !node.is_hole())?;
        let name = given.value.as_str();
        let available = || self.drivers.iter().filter(|driver| driver.is_available());
        let known = available().flat_map(|driver| {
            std::iter::once(&driver.name()).chain(driver.aliases()).copied().collect::<Vec<_>>()
        });
        let known: Vec<_> = known.collect();
        let text = if node.from_env { None } else { shown(name) };
        let (message, help) = match (drivers::find_in(self.drivers, name), text) {
            (Some(driver), _) if driver.is_available() => return Some(driver),
            (Some(driver), _) => (
                format!("the driver '{}' is not in this build", driver.name()),
                format!("build with the feature '{}'", driver.feature()),
            ),
            (None, Some(name)) if drivers::is_planned(name) => (
                format!("the driver '{name}' is not in this version of s3rep"),
                format!("there are: {}", known.join(", ")),
            ),
            (None, Some(text)) => (format!("unknown driver '{text}'"), suggest(name, &known)),
            (None, None) => ("unknown driver".to_owned(), format!("there are: {}", known.join(", "))),
        };
        self.problems.at(node.place, message, help);
        None
    }

    fn id(
        &mut self,
        given: Option<At<String>>,
        driver: Option<&'static Driver>,
        place: Place,
    ) -> Option<String> {
        let (id, place, from_env) = match given {
            Some(given) => {
                let node = self.tree.find(given.node).filter(|node| !node.is_hole())?;
                let is_name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
                if given.value.is_empty() || given.value.len() > 64 || !given.value.chars().all(is_name) {
                    let message = "an id has 1 to 64 letters, digits, '-', '_' and '.'";
                    self.problems.at(
                        node.place,
                        message,
                        "give another one; it names the replicator's progress",
                    );
                    return None;
                }
                (given.value, node.place, node.from_env)
            }
            None => {
                let name = driver?.name();
                let count = self.unnamed.entry(name).or_default();
                *count += 1;
                let id = if *count == 1 { name.to_owned() } else { format!("{name}-{count}") };
                (id, place, false)
            }
        };
        if let Some(first) = self.ids.get(&id) {
            let id = if from_env { "(not shown)".to_owned() } else { quoted(&id) };
            self.problems.at(
                place,
                format!("a second replicator has the id {id}"),
                format!("the first one is in line {}; give this one an 'id' of its own", first.line),
            );
            return None;
        }
        self.ids.insert(id.clone(), place);
        Some(id)
    }

    fn sink(&mut self, driver: &Driver, replicator: &Node, config: Option<u32>) -> Option<Arc<dyn Sink>> {
        let config = match config {
            Some(id) => self.tree.find(id)?,
            None => &Node::empty_map(replicator.place),
        };
        // serde sees a copy, because it is full of holes afterwards.
        let mut copy = config.clone();
        let notes = Notes { root: "'config'", misplaced: &|_, _| None, secrets: self.secrets };
        let mut input = Input { config: &mut copy, notes, problems: self.problems };
        match driver.build(&mut input)? {
            Ok(sink) => Some(sink),
            Err(error) => {
                let help = error.advice().map(|advice| self.secrets.scrub(advice));
                let message = format!("'config': {}", self.secrets.scrub(&error.report()));
                self.problems.add(Some(config.place), message, help);
                None
            }
        }
    }

    fn mapping(&mut self, resources: &Node, capability: Option<Capability>) -> Option<Mapping> {
        if resources.is_hole() {
            return None;
        }
        let before = self.problems.len();
        let mapping = Mapping::parse(&resources.to_json());
        match &mapping {
            Ok(mapping) => {
                for name in mapping.all_routes().iter().map(|route| &*route.resource) {
                    self.check_followed(resources, name);
                }
            }
            Err(list) => {
                // A route with an unknown member is not what was meant; what else is wrong with it follows.
                let misread = |path: &[String]| {
                    list.iter().any(|other| {
                        !other.known.is_empty()
                            && other.path.split_last().is_some_and(|(_, route)| route == path)
                    })
                };
                for problem in list.iter().filter(|problem| !misread(&problem.path)) {
                    self.mapping_problem(resources, problem);
                }
            }
        }
        if let Some(capability) = capability {
            self.check_modes(resources, capability);
        }
        // Without a problem of its own there is a hole in it, which has been told.
        mapping.ok().filter(|_| self.problems.len() == before)
    }

    fn mapping_problem(&mut self, resources: &Node, problem: &s3rep_core::MappingProblem) {
        let (mut node, mut place, mut indices) = (resources, resources.place, Vec::new());
        for step in &problem.path {
            let Some(index) = node.index_of(step) else { break };
            let Some(child) = node.child(index) else { break };
            // An unknown member is wrong by its name, any other thing by its value.
            place = match node.entry(index) {
                Some(entry) if !problem.known.is_empty() && indices.len() + 1 == problem.path.len() => {
                    entry.place
                }
                _ => child.place,
            };
            indices.push(index);
            node = child;
        }
        if node.is_hole() {
            return;
        }
        let label = read::label(resources, &indices, "'resources'");
        let (message, help) = match problem.path.last() {
            Some(name) if !problem.known.is_empty() => {
                (format!("unknown key {} in a route", quoted(name)), Some(suggest(name, problem.known)))
            }
            _ => (format!("{label}: {}", problem.message), None),
        };
        self.problems.add(Some(place), message, help);
    }

    fn check_followed(&mut self, resources: &Node, name: &str) {
        let Some(followed) = self.followed else { return };
        if followed.iter().any(|followed| followed == name) {
            return;
        }
        let place = match &resources.kind {
            Kind::Map(entries) => entries.iter().find(|entry| entry.key == name).map(|entry| entry.place),
            _ => resources.children().find(|item| item.text() == Some(name)).map(|item| item.place),
        };
        let place = place.unwrap_or(resources.place);
        self.problems.at(
            place,
            "this resource is not followed, so nothing would be replicated",
            "add it to 'resources' of the source, or remove it here",
        );
    }

    /// Every `mode` in a route has to be one that the destination has.
    fn check_modes(&mut self, node: &Node, capability: Capability) {
        if let Some(mode) = node.index_of("mode").and_then(|index| node.child(index))
            && matches!(node.kind, Kind::Map(_))
        {
            let (asked, other) = match mode.text() {
                Some("upsert") => (RouteMode::Upsert, "append"),
                Some("append") => (RouteMode::Append, "upsert"),
                _ => return,
            };
            if !capability.supports(asked) {
                self.problems.at(
                    mode.place,
                    "this destination does not have the mode",
                    format!("write 'mode: {other}', or leave it out"),
                );
            }
            return;
        }
        for child in node.children() {
            self.check_modes(child, capability);
        }
    }
}
