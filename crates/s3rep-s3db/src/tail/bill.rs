//! What following a database on S3 costs.

use std::{
    ops::{Add, Sub},
    time::Duration,
};

use s3rep_core::{Context, Result, SourceState, StateWrite, Timestamp};
use serde::{Deserialize, Serialize};

use super::state::{DATABASE, corrupt, json_write};
use crate::store::Requests;

/// The key in [`DATABASE`] of the bill.
const KEY: &str = "requests";
/// A rate is told over one to two of these: the first pass over a large database is soon forgotten.
const SPAN: Duration = Duration::from_secs(3_600);
/// What is shorter says nothing about a day.
const SHORTEST: Duration = Duration::from_secs(60);
const DAY: f64 = 86_400.0;

/// The requests that followers of one state directory made to a store that bills them, kept in the log's state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RequestBill {
    /// All of them.
    pub total: Requests,
    /// When counting began.
    pub since: Timestamp,
    current: Span,
    previous: Option<Span>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Span {
    from: Timestamp,
    until: Timestamp,
    requests: Requests,
}

impl RequestBill {
    /// What a log remembers; `None` when its source never asked a store that bills requests.
    ///
    /// # Errors
    /// When the state cannot be read.
    pub async fn read(cx: &Context, state: &dyn SourceState) -> Result<Option<Self>> {
        let text = state.get(cx, DATABASE, KEY).await?;
        text.map(|text| serde_json::from_slice(&text)).transpose().map_err(|_| corrupt())
    }

    /// What a day costs in US dollars if it goes on like in the last hour or two, or as it did since counting
    /// began where those are not known; `None` in the first minute. See [`Requests::cost`] for the prices.
    pub fn cost_a_day(&self) -> Option<f64> {
        let previous = self.previous.unwrap_or(Span { requests: Requests::default(), ..self.current });
        let recent =
            Span { from: previous.from, requests: previous.requests + self.current.requests, ..self.current };
        let all = Span { from: self.since, until: self.current.until, requests: self.total };
        [recent, all].iter().find_map(Span::cost_a_day)
    }

    /// The bill with requests that were made until now.
    pub(super) fn with(known: Option<Self>, made: Requests, now: Timestamp) -> Self {
        let empty = Span { from: now, until: now, requests: Requests::default() };
        // The first pass over a database is not what a day is like.
        let Some(mut bill) = known else {
            return Self { total: made, since: now, current: empty, previous: None };
        };
        bill.total = bill.total + made;
        if now.since(bill.current.until) >= SPAN {
            // Nobody followed meanwhile.
            (bill.current, bill.previous) = (empty, None);
            return bill;
        }
        if bill.current.until.since(bill.current.from) >= SPAN {
            bill.previous = Some(bill.current);
            bill.current = Span { from: bill.current.until, ..empty };
        }
        bill.current.requests = bill.current.requests + made;
        bill.current.until = now;
        bill
    }

    pub(super) fn write(&self) -> Result<StateWrite> {
        json_write(DATABASE, KEY, self)
    }
}

impl Span {
    fn cost_a_day(&self) -> Option<f64> {
        let length = self.until.since(self.from);
        (length >= SHORTEST).then(|| self.requests.cost() / length.as_secs_f64() * DAY)
    }
}

impl Add for Requests {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            lists: self.lists + other.lists,
            reads: self.reads + other.reads,
            writes: self.writes + other.writes,
            deletes: self.deletes + other.deletes,
        }
    }
}

impl Sub for Requests {
    type Output = Self;

    fn sub(self, earlier: Self) -> Self {
        Self {
            lists: self.lists - earlier.lists,
            reads: self.reads - earlier.reads,
            writes: self.writes - earlier.writes,
            deletes: self.deletes - earlier.deletes,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_day_costs_what_the_last_hours_cost() {
        let minute = |n: i64| Timestamp(n * 60_000);
        let lists = |lists| Requests { lists, ..Requests::default() };
        // A million reads at first, then a list every minute.
        let mut bill =
            RequestBill::with(None, Requests { reads: 1_000_000, ..Requests::default() }, minute(0));
        assert_eq!(bill.cost_a_day(), None);
        for n in (1..=180).chain(10_000..10_180) {
            bill = RequestBill::with(Some(bill), lists(1), minute(n));
            let day = bill.cost_a_day().unwrap_or_default();
            // Just after nobody followed for a week the whole time counts.
            let expected = if n == 10_000 { 0.0577 } else { 1_440.0 * 0.005 / 1_000.0 };
            assert!((day - expected).abs() < 1e-3, "{n}: {day}");
        }
        assert_eq!((bill.total.lists, bill.total.reads, bill.since), (360, 1_000_000, minute(0)));
    }
}
