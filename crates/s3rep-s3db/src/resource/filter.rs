//! Which records a query wants.

use std::cmp::Ordering;

use regex::{Regex, RegexBuilder};
use s3rep_core::{Error, ErrorKind, Record, Result};
use serde_json::{Map, Number, Value};

use crate::suggest::did_you_mean;

/// Deeper filters are refused: checking them would use up the stack.
const MAX_DEPTH: usize = 64;
/// Bytes that a compiled pattern may take, so that a filter from outside cannot take the memory.
const PATTERN_BYTES: usize = 1 << 20;

const OF_RECORDS: [&str; 3] = ["$and", "$or", "$not"];
const OF_VALUES: [&str; 12] =
    ["$eq", "$ne", "$gt", "$gte", "$lt", "$lte", "$in", "$nin", "$exists", "$regex", "$options", "$not"];

/// Conditions that all have to hold. None: every record.
#[derive(Clone, Debug, Default)]
pub(super) struct Filter(Vec<Condition>);

#[derive(Clone, Debug)]
enum Condition {
    Member(String, Vec<Test>),
    All(Vec<Filter>),
    Any(Vec<Filter>),
    Not(Filter),
}

/// What a member has to be.
#[derive(Clone, Debug)]
enum Test {
    Equal(Value),
    NotEqual(Value),
    /// Compared, the order is one of these.
    Order(Value, &'static [Ordering]),
    In(Vec<Value>),
    NotIn(Vec<Value>),
    Exists(bool),
    Pattern(Regex),
    Not(Vec<Test>),
}

impl Filter {
    /// Reads a filter.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidValue`] with every problem, each naming its path and operator.
    pub(super) fn parse(filter: &Value) -> Result<Self> {
        let mut problems = Problems::default();
        let filter = problems.filter(filter, "", 0);
        if problems.0.is_empty() {
            return Ok(filter);
        }
        Err(Error::new(ErrorKind::InvalidValue, format!("the filter is wrong: {}", problems.0.join("; ")))
            .with_advice(
                "write members with their values, as in {\"origin\": \"Europe\", \"year\": {\"$gte\": 1980}}",
            ))
    }

    /// A filter that wants what both want.
    pub(super) fn and(mut self, other: Self) -> Self {
        self.0.extend(other.0);
        self
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn matches(&self, record: &Record) -> bool {
        self.0.iter().all(|condition| match condition {
            Condition::Member(path, tests) => {
                let value = member(record, path);
                tests.iter().all(|test| test.holds(value))
            }
            Condition::All(filters) => filters.iter().all(|filter| filter.matches(record)),
            Condition::Any(filters) => filters.iter().any(|filter| filter.matches(record)),
            Condition::Not(filter) => !filter.matches(record),
        })
    }
}

/// The value under a name, dotted names leading into objects; none when it is absent.
fn member<'a>(record: &'a Record, path: &str) -> Option<&'a Value> {
    if let Some(value) = record.get(path) {
        return Some(value);
    }
    let mut parts = path.split('.');
    let first = record.get(parts.next()?)?;
    parts.try_fold(first, |value, part| value.as_object()?.get(part))
}

impl Test {
    fn holds(&self, value: Option<&Value>) -> bool {
        let is = |wanted: &Value| value.is_some_and(|value| equal(value, wanted));
        match self {
            Self::Equal(wanted) => is(wanted),
            Self::NotEqual(wanted) => !is(wanted),
            Self::Order(bound, orders) => {
                value.and_then(|value| order(value, bound)).is_some_and(|order| orders.contains(&order))
            }
            Self::In(list) => list.iter().any(is),
            Self::NotIn(list) => !list.iter().any(is),
            Self::Exists(wanted) => value.is_some() == *wanted,
            Self::Pattern(pattern) => {
                value.and_then(Value::as_str).is_some_and(|text| pattern.is_match(text))
            }
            Self::Not(tests) => !tests.iter().all(|test| test.holds(value)),
        }
    }
}

/// Equality of JSON: numbers by value, objects whatever the order of their members.
fn equal(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Number(a), Value::Number(b)) => numbers(a, b) == Some(Ordering::Equal),
        (Value::Array(a), Value::Array(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| equal(a, b)),
        (Value::Object(a), Value::Object(b)) => {
            a.len() == b.len() && a.iter().all(|(name, a)| b.get(name).is_some_and(|b| equal(a, b)))
        }
        _ => a == b,
    }
}

/// The order of two numbers or two texts; nothing else has one.
fn order(a: &Value, b: &Value) -> Option<Ordering> {
    match (a, b) {
        (Value::Number(a), Value::Number(b)) => numbers(a, b),
        (Value::String(a), Value::String(b)) if a.is_ascii() && b.is_ascii() => Some(a.cmp(b)),
        // JavaScript compares code units, which is another order than that of UTF-8 beyond U+D7FF
        (Value::String(a), Value::String(b)) => Some(a.encode_utf16().cmp(b.encode_utf16())),
        _ => None,
    }
}

fn numbers(a: &Number, b: &Number) -> Option<Ordering> {
    match (a.as_i128(), b.as_i128()) {
        (Some(a), Some(b)) => Some(a.cmp(&b)),
        _ => a.as_f64()?.partial_cmp(&b.as_f64()?),
    }
}

/// What is wrong with a filter, found on the way through it.
#[derive(Default)]
struct Problems(Vec<String>);

impl Problems {
    fn add(&mut self, path: &str, problem: impl std::fmt::Display) {
        self.0.push(if path.is_empty() { problem.to_string() } else { format!("{path}: {problem}") });
    }

    fn filter(&mut self, filter: &Value, path: &str, depth: usize) -> Filter {
        let Some(members) = filter.as_object() else {
            self.add(path, "a filter is an object");
            return Filter::default();
        };
        if depth > MAX_DEPTH {
            self.add(path, "is nested too deeply");
            return Filter::default();
        }
        let conditions = members.iter().filter_map(|(name, value)| {
            let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
            self.condition(name, value, &path, depth + 1)
        });
        Filter(conditions.collect())
    }

    fn condition(&mut self, name: &str, value: &Value, path: &str, depth: usize) -> Option<Condition> {
        match name {
            "$and" => Some(Condition::All(self.filters(value, path, depth))),
            "$or" => Some(Condition::Any(self.filters(value, path, depth))),
            "$not" => Some(Condition::Not(self.filter(value, path, depth))),
            name if OF_VALUES.contains(&name) => {
                self.add(
                    path,
                    format!("write it under the name of a member: {{\"member\": {{\"{name}\": …}}}}"),
                );
                None
            }
            name if name.starts_with('$') => {
                self.add(path, format!("there is no such operator: {}", did_you_mean(name, &OF_RECORDS)));
                None
            }
            name => Some(Condition::Member(name.to_owned(), self.tests(value, path, depth))),
        }
    }

    fn filters(&mut self, value: &Value, path: &str, depth: usize) -> Vec<Filter> {
        match value.as_array() {
            Some(filters) if !filters.is_empty() => {
                let one = |(at, filter)| self.filter(filter, &format!("{path}[{at}]"), depth);
                filters.iter().enumerate().map(one).collect()
            }
            _ => {
                self.add(path, "takes a list of filters with at least one of them");
                Vec::new()
            }
        }
    }

    /// The tests of a member: a value to be equal to, or an object of operators.
    fn tests(&mut self, value: &Value, path: &str, depth: usize) -> Vec<Test> {
        let Some(members) =
            value.as_object().filter(|members| members.keys().any(|name| name.starts_with('$')))
        else {
            return vec![Test::Equal(value.clone())];
        };
        if depth > MAX_DEPTH {
            self.add(path, "is nested too deeply");
            return Vec::new();
        }
        let tests = members.iter().filter_map(|(operator, operand)| {
            let path = format!("{path}.{operator}");
            self.test(operator, operand, members, &path, depth + 1)
        });
        tests.collect()
    }

    fn test(
        &mut self,
        operator: &str,
        operand: &Value,
        beside: &Map<String, Value>,
        path: &str,
        depth: usize,
    ) -> Option<Test> {
        use Ordering::{Equal, Greater, Less};
        match operator {
            "$eq" => Some(Test::Equal(operand.clone())),
            "$ne" => Some(Test::NotEqual(operand.clone())),
            "$gt" => self.order(operand, &[Greater], path),
            "$gte" => self.order(operand, &[Greater, Equal], path),
            "$lt" => self.order(operand, &[Less], path),
            "$lte" => self.order(operand, &[Less, Equal], path),
            "$in" => self.list(operand, path).map(Test::In),
            "$nin" => self.list(operand, path).map(Test::NotIn),
            "$exists" => {
                let wanted = operand.as_bool();
                if wanted.is_none() {
                    self.add(path, "takes true or false");
                }
                wanted.map(Test::Exists)
            }
            "$regex" => self.pattern(operand, beside.get("$options"), path).map(Test::Pattern),
            "$options" if beside.contains_key("$regex") => None,
            "$options" => {
                self.add(path, "stands beside $regex only");
                None
            }
            "$not"
                if operand
                    .as_object()
                    .is_some_and(|members| members.keys().all(|name| name.starts_with('$'))) =>
            {
                Some(Test::Not(self.tests(operand, path, depth)))
            }
            "$not" => {
                self.add(path, "takes an object of operators; use $ne for a value");
                None
            }
            "$and" | "$or" => {
                self.add(path, "stands beside members, not under one");
                None
            }
            operator if operator.starts_with('$') => {
                self.add(path, format!("there is no such operator: {}", did_you_mean(operator, &OF_VALUES)));
                None
            }
            _ => {
                self.add(
                    path,
                    "operators and members are mixed: write members with dots, as in \"engine.hp\"",
                );
                None
            }
        }
    }

    fn order(&mut self, bound: &Value, orders: &'static [Ordering], path: &str) -> Option<Test> {
        if bound.is_number() || bound.is_string() {
            return Some(Test::Order(bound.clone(), orders));
        }
        self.add(path, "takes a number or a text");
        None
    }

    fn list(&mut self, operand: &Value, path: &str) -> Option<Vec<Value>> {
        if operand.is_array() {
            return operand.as_array().cloned();
        }
        self.add(path, "takes a list");
        None
    }

    fn pattern(&mut self, pattern: &Value, options: Option<&Value>, path: &str) -> Option<Regex> {
        let options = match options {
            None => "",
            Some(options) => options.as_str().unwrap_or("?"),
        };
        if let Some(unknown) = options.chars().find(|letter| !"ims".contains(*letter)) {
            self.add(path, format!("has the option '{unknown}': $options is a text of i, m and s"));
            return None;
        }
        let Some(pattern) = pattern.as_str() else {
            self.add(path, "takes a text");
            return None;
        };
        let mut builder = RegexBuilder::new(pattern);
        let has = |letter| options.contains(letter);
        builder.case_insensitive(has('i')).multi_line(has('m')).dot_matches_new_line(has('s'));
        match builder.size_limit(PATTERN_BYTES).build() {
            Ok(pattern) => Some(pattern),
            Err(error) => {
                // The text of the error shows the pattern; its last line says what is wrong.
                let reason = error.to_string();
                self.add(
                    path,
                    format!("is no pattern: {}", reason.lines().last().unwrap_or_default().trim()),
                );
                None
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn matches(filter: Value, record: Value) -> bool {
        Filter::parse(&filter).unwrap().matches(record.as_object().unwrap())
    }

    #[test]
    fn operators() {
        let car = || {
            json!({"id": "a", "year": 1976, "mpg": 20.0, "origin": "Europe", "note": null,
                   "engine": {"hp": 40, "fuel": {"kind": "gas"}}, "tags": ["x", 1], "a.b": 7})
        };
        for filter in [
            json!({}),
            json!({"year": 1976.0}),
            json!({"mpg": 20}),
            json!({"engine.hp": 40, "engine.fuel.kind": "gas"}),
            json!({"engine": {"fuel": {"kind": "gas"}, "hp": 40.0}}),
            json!({"tags": ["x", 1.0]}),
            json!({"a.b": 7}),
            json!({"note": null}),
            json!({"note": {"$exists": true}}),
            json!({"gone": {"$exists": false}}),
            json!({"gone": {"$ne": 1}}),
            json!({"gone": {"$nin": [1]}}),
            json!({"year": {"$eq": 1976, "$gt": 1975, "$gte": 1976, "$lt": 1976.5, "$lte": 1976}}),
            json!({"origin": {"$gte": "Europe", "$lt": "Europf"}}),
            json!({"origin": {"$in": ["Asia", "Europe"]}}),
            json!({"origin": {"$regex": "^eur", "$options": "i"}}),
            json!({"year": {"$not": {"$gt": 1976}}}),
            json!({"$or": [{"year": 1}, {"$and": [{"year": 1976}, {"origin": "Europe"}]}]}),
            json!({"$not": {"year": 1}}),
        ] {
            assert!(matches(filter.clone(), car()), "{filter}");
        }
        for filter in [
            json!({"year": "1976"}),
            json!({"engine": {"hp": 40}}),
            json!({"tags": "x"}),
            json!({"tags.0": "x"}),
            json!({"origin": "Europ"}),
            json!({"gone": null}),
            json!({"note": {"$exists": false}}),
            json!({"note": {"$lt": 1}}),
            json!({"year": {"$gt": "0"}}),
            json!({"origin": {"$gt": 0}}),
            json!({"origin": {"$regex": "^eur"}}),
            json!({"year": {"$regex": "1"}}),
            json!({"year": {"$gt": 1970, "$lt": 1976}}),
            json!({"year": {"$in": []}}),
            json!({"year": 1976, "origin": "Asia"}),
            json!({"$not": {"year": 1976, "origin": "Europe"}}),
        ] {
            assert!(!matches(filter.clone(), car()), "{filter}");
        }
    }

    #[test]
    fn text_is_ordered_by_code_units_and_large_integers_exactly() {
        // U+FF5E comes after U+1F600 in UTF-16, and before it in UTF-8
        assert!(matches(json!({"t": {"$gt": "😀"}}), json!({"t": "～"})));
        assert!(matches(
            json!({"n": {"$gt": 9_007_199_254_740_992_u64}}),
            json!({"n": 9_007_199_254_740_993_u64})
        ));
        assert!(!matches(json!({"n": 9_007_199_254_740_992_u64}), json!({"n": 9_007_199_254_740_993_u64})));
    }

    #[test]
    fn every_problem_is_named_with_its_path_and_operator() {
        let error = Filter::parse(&json!({
            "year": {"$gtee": 1, "$in": 3},
            "origin": {"$regex": "(secret", "$options": "i"},
            "mpg": {"$gt": null, "plain": 1},
            "$or": [{"a": {"$exists": "yes"}}, 7],
            "$adn": [],
            "$gt": 5,
            "x": {"$options": "i"},
            "y": {"$regex": "a", "$options": "q"},
            "z": {"$not": 5},
        }))
        .unwrap_err();
        let text = error.to_string();
        for part in [
            "year.$gtee: there is no such operator: did you mean '$gte'?",
            "year.$in: takes a list",
            "origin.$regex: is no pattern: error: unclosed group",
            "mpg.$gt: takes a number or a text",
            "mpg.plain: operators and members are mixed",
            "$or[0].a.$exists: takes true or false",
            "$or[1]: a filter is an object",
            "$adn: there is no such operator: did you mean '$and'?",
            "$gt: write it under the name of a member",
            "x.$options: stands beside $regex only",
            "y.$regex: has the option 'q'",
            "z.$not: takes an object of operators",
        ] {
            assert!(text.contains(part), "{part}\n{text}");
        }
        assert!(!text.contains("secret"), "{text}");
        assert_eq!(error.kind(), ErrorKind::InvalidValue);
        assert!(Filter::parse(&json!([])).is_err());
    }

    #[test]
    fn filters_cannot_take_the_stack_or_the_memory() {
        let mut deep = json!({"a": 1});
        for _ in 0..100 {
            deep = json!({"$not": deep});
        }
        assert!(Filter::parse(&deep).unwrap_err().to_string().contains("too deeply"));
        let huge = json!({"a": {"$regex": "(a{1000}){1000}"}});
        assert!(Filter::parse(&huge).unwrap_err().to_string().contains("a.$regex: is no pattern"));
    }
}
