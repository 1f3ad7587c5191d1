//! Hrana 3 over HTTP: statements with conditions, run by the server in one request.
//!
//! <https://github.com/tursodatabase/libsql/blob/main/docs/HTTP_V3_SPEC.md>

use std::time::Duration;

use base64::{
    Engine,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};
use libsql::Value;
use s3rep_core::{Error, ErrorKind, Result, Scope};
use serde::{Deserialize, Serialize, Serializer, ser::SerializeSeq};

use super::{error, http::Http};
use crate::row::Row;

/// Servers leave the padding out, and others may not.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &base64::alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// How long an answer may take. The engine gives writes up earlier; statements that change or read a whole table
/// are nobody's to watch, and may take long.
const ANSWER: Duration = Duration::from_secs(600);

/// Statements for one request. The server runs them in a connection of their own, which ends with the request:
/// what is not committed then is undone.
#[derive(Default)]
pub(crate) struct Script {
    steps: Vec<Step>,
}

/// When a statement is run.
#[derive(Clone, Copy)]
pub(crate) enum When {
    /// Whatever happened before.
    Always,
    /// If that step was run and succeeded.
    Done(usize),
    /// If that step was not run or failed.
    NotDone(usize),
    /// While a transaction is open. Triggers may end it.
    InTransaction,
}

#[derive(Serialize)]
struct Step {
    #[serde(skip_serializing_if = "Option::is_none")]
    condition: Option<Condition>,
    stmt: Statement,
}

#[derive(Serialize)]
struct Statement {
    sql: String,
    #[serde(serialize_with = "arguments")]
    args: Vec<Value>,
    want_rows: bool,
}

#[derive(Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum Condition {
    Ok { step: usize },
    Not { cond: Box<Condition> },
    IsAutocommit,
}

impl When {
    fn condition(self) -> Option<Condition> {
        let not = |condition| Some(Condition::Not { cond: Box::new(condition) });
        match self {
            Self::Always => None,
            Self::Done(step) => Some(Condition::Ok { step }),
            Self::NotDone(step) => not(Condition::Ok { step }),
            Self::InTransaction => not(Condition::IsAutocommit),
        }
    }
}

impl Script {
    /// Adds a statement without rows, and returns its number.
    pub(crate) fn run(&mut self, when: When, sql: impl Into<String>, args: Vec<Value>) -> usize {
        self.add(when, sql.into(), args, false)
    }

    /// Adds a query, and returns its number.
    pub(crate) fn query(&mut self, when: When, sql: impl Into<String>, args: Vec<Value>) -> usize {
        self.add(when, sql.into(), args, true)
    }

    fn add(&mut self, when: When, sql: String, args: Vec<Value>, want_rows: bool) -> usize {
        self.steps.push(Step { condition: when.condition(), stmt: Statement { sql, args, want_rows } });
        self.steps.len() - 1
    }

    /// The request: the statements, and the end of their connection.
    fn request(&self) -> Result<Vec<u8>> {
        #[derive(Serialize)]
        struct Body<'a> {
            baton: Option<&'a str>,
            requests: [Request<'a>; 2],
        }
        #[derive(Serialize)]
        #[serde(tag = "type", rename_all = "snake_case")]
        enum Request<'a> {
            Batch { batch: Batch<'a> },
            Close,
        }
        #[derive(Serialize)]
        struct Batch<'a> {
            steps: &'a [Step],
        }
        let batch = Batch { steps: &self.steps };
        let body = Body { baton: None, requests: [Request::Batch { batch }, Request::Close] };
        serde_json::to_vec(&body).map_err(|error| {
            Error::new(ErrorKind::Unexpected, "a request cannot be written").with_source(error)
        })
    }
}

fn arguments<S: Serializer>(values: &[Value], serializer: S) -> std::result::Result<S::Ok, S::Error> {
    /// Integers are text, as JSON's numbers are doubles to many.
    #[derive(Serialize)]
    #[serde(tag = "type", rename_all = "snake_case")]
    enum Argument<'a> {
        Null,
        Integer { value: String },
        Float { value: f64 },
        Text { value: &'a str },
        Blob { base64: String },
    }
    let mut sequence = serializer.serialize_seq(Some(values.len()))?;
    for value in values {
        sequence.serialize_element(&match value {
            Value::Null => Argument::Null,
            Value::Integer(integer) => Argument::Integer { value: integer.to_string() },
            Value::Real(double) => Argument::Float { value: *double },
            Value::Text(text) => Argument::Text { value: text },
            Value::Blob(bytes) => Argument::Blob { base64: BASE64.encode(bytes) },
        })?;
    }
    sequence.end()
}

/// What became of the statements.
pub(crate) struct Ran {
    results: Vec<Option<StepResult>>,
    failures: Vec<Option<Failure>>,
    server: String,
}

#[derive(Deserialize)]
struct StepResult {
    #[serde(default)]
    rows: Vec<Vec<Cell>>,
}

/// Why the server did not do something.
#[derive(Deserialize)]
pub(crate) struct Failure {
    /// In the words of SQLite or the server.
    pub(crate) message: String,
    /// `SQLITE_CONSTRAINT` and the like.
    #[serde(default)]
    pub(crate) code: Option<String>,
}

/// A value, flat: an enum with a tag would be read into memory twice.
#[derive(Deserialize)]
struct Cell {
    #[serde(rename = "type")]
    kind: String,
    #[serde(default)]
    value: serde_json::Value,
    #[serde(default)]
    base64: String,
}

impl Cell {
    fn decode(self) -> Option<Value> {
        Some(match (self.kind.as_str(), self.value) {
            ("null", _) => Value::Null,
            ("integer", serde_json::Value::String(digits)) => Value::Integer(digits.parse().ok()?),
            ("float", serde_json::Value::Number(number)) => Value::Real(number.as_f64()?),
            // JSON has no infinity.
            ("float", serde_json::Value::Null) => Value::Null,
            ("text", serde_json::Value::String(text)) => Value::Text(text),
            ("blob", _) => Value::Blob(BASE64.decode(self.base64).ok()?),
            _ => return None,
        })
    }
}

impl Ran {
    /// Whether the statement was run and succeeded.
    pub(crate) fn is_done(&self, step: usize) -> bool {
        self.results.get(step).is_some_and(Option::is_some)
    }

    /// Why the statement failed, if it did.
    pub(crate) fn failure(&self, step: usize) -> Option<&Failure> {
        self.failures.get(step)?.as_ref()
    }

    /// The first statement that failed, of those in `steps`.
    pub(crate) fn first_failure(&self, mut steps: std::ops::Range<usize>) -> Option<(usize, &Failure)> {
        steps.find_map(|step| Some((step, self.failure(step)?)))
    }

    /// The error of a failure.
    pub(crate) fn error(&self, failure: &Failure) -> Error {
        error::from_failure(failure).with_context("server", &self.server)
    }

    /// Says that the statement was run and succeeded.
    pub(crate) fn check(&self, step: usize) -> Result<()> {
        match self.failure(step) {
            Some(failure) => Err(self.error(failure)),
            None if self.is_done(step) => Ok(()),
            None => Err(self.odd("the server left a statement out")),
        }
    }

    /// The rows of a query, once.
    pub(crate) fn rows(&mut self, step: usize) -> Result<Vec<Row>> {
        self.check(step)?;
        let result = self.results.get_mut(step).and_then(Option::as_mut);
        let cells = result.map(|result| std::mem::take(&mut result.rows)).unwrap_or_default();
        let row = |cells: Vec<Cell>| cells.into_iter().map(Cell::decode).collect::<Option<Vec<_>>>();
        let rows: Option<Vec<_>> = cells.into_iter().map(|cells| row(cells).map(Row::new)).collect();
        rows.ok_or_else(|| self.odd("the server answers with a value of an unknown form"))
    }

    fn odd(&self, message: &'static str) -> Error {
        not_hrana(message).with_context("server", &self.server)
    }
}

impl Http {
    /// Runs a script. Statements that fail are no error here.
    pub(crate) async fn run(&self, script: &Script) -> Result<Ran> {
        self.run_within(script, ANSWER).await
    }

    /// As [`Self::run`], within a time.
    pub(crate) async fn run_within(&self, script: &Script, time: Duration) -> Result<Ran> {
        #[derive(Deserialize)]
        struct Answer {
            results: Vec<Answered>,
        }
        #[derive(Deserialize)]
        struct Answered {
            error: Option<Failure>,
            response: Option<Response>,
        }
        #[derive(Deserialize)]
        struct Response {
            result: Option<BatchResult>,
        }
        #[derive(Deserialize)]
        struct BatchResult {
            step_results: Vec<Option<StepResult>>,
            step_errors: Vec<Option<Failure>>,
        }
        let answer = self.post(script.request()?, time).await?;
        let at = |error: Error| error.with_context("server", self.server());
        // The error of the parser may quote the answer, and that a row.
        let answer: Answer = serde_json::from_slice(&answer)
            .map_err(|_| at(not_hrana("the answer is not one of a libSQL server")))?;
        let batch = answer.results.into_iter().next();
        if let Some(failure) = batch.as_ref().and_then(|batch| batch.error.as_ref()) {
            return Err(at(error::from_failure(failure)));
        }
        let result = batch.and_then(|batch| batch.response?.result);
        let result = result.ok_or_else(|| at(not_hrana("the answer of the server has no result")))?;
        let BatchResult { step_results: results, step_errors: failures } = result;
        Ok(Ran { results, failures, server: self.server().to_owned() })
    }

    /// Runs one query.
    pub(crate) async fn query(&self, sql: impl Into<String>, args: Vec<Value>) -> Result<Vec<Row>> {
        let mut script = Script::default();
        let query = script.query(When::Always, sql, args);
        self.run(&script).await?.rows(query)
    }
}

fn not_hrana(message: &'static str) -> Error {
    Error::new(ErrorKind::Unexpected, message)
        .with_scope(Scope::Sink)
        .with_advice("look whether url leads to a libSQL server that speaks version 3 of its protocol, Hrana")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_request_is_as_the_protocol_says() {
        let mut script = Script::default();
        let begin = script.run(When::Always, "BEGIN", vec![]);
        let values = vec![
            Value::Null,
            Value::Integer(i64::MAX),
            Value::Real(1e300),
            Value::Text("a\0\"é".into()),
            Value::Blob(vec![0, 255]),
        ];
        let query = script.query(When::Done(begin), "SELECT ?1", values);
        script.run(When::NotDone(query), "ROLLBACK", vec![]);
        script.run(When::InTransaction, "ROLLBACK", vec![]);
        let request: serde_json::Value = serde_json::from_slice(&script.request().unwrap()).unwrap();
        let expected = json!({"baton": null, "requests": [
            {"type": "batch", "batch": {"steps": [
                {"stmt": {"sql": "BEGIN", "args": [], "want_rows": false}},
                {"condition": {"type": "ok", "step": 0}, "stmt": {"sql": "SELECT ?1", "want_rows": true, "args": [
                    {"type": "null"},
                    {"type": "integer", "value": "9223372036854775807"},
                    {"type": "float", "value": 1e300},
                    {"type": "text", "value": "a\0\"é"},
                    {"type": "blob", "base64": "AP8="},
                ]}},
                {"condition": {"type": "not", "cond": {"type": "ok", "step": 1}},
                 "stmt": {"sql": "ROLLBACK", "args": [], "want_rows": false}},
                {"condition": {"type": "not", "cond": {"type": "is_autocommit"}},
                 "stmt": {"sql": "ROLLBACK", "args": [], "want_rows": false}},
            ]}},
            {"type": "close"},
        ]});
        assert_eq!(request, expected);
    }

    #[test]
    fn values_are_read_as_the_protocol_says() {
        let decode = |cell| serde_json::from_value::<Cell>(cell).unwrap().decode();
        for (cell, value) in [
            (json!({"type": "null"}), Value::Null),
            (json!({"type": "integer", "value": "-9223372036854775808"}), Value::Integer(i64::MIN)),
            (json!({"type": "float", "value": 0.1}), Value::Real(0.1)),
            (json!({"type": "float", "value": 5}), Value::Real(5.0)),
            (json!({"type": "float", "value": null}), Value::Null),
            (json!({"type": "text", "value": "a\u{0}b"}), Value::Text("a\0b".into())),
            (json!({"type": "blob", "base64": "AP8"}), Value::Blob(vec![0, 255])),
            (json!({"type": "blob", "base64": "AP8="}), Value::Blob(vec![0, 255])),
        ] {
            assert_eq!(decode(cell.clone()), Some(value), "{cell}");
        }
        for cell in [
            json!({"type": "integer", "value": 9_007_199_254_740_993_i64}),
            json!({"type": "integer", "value": "9223372036854775808"}),
            json!({"type": "blob", "base64": "?"}),
            json!({"type": "date", "value": "x"}),
        ] {
            assert_eq!(decode(cell.clone()), None, "{cell}");
        }
    }
}
