//! Writing a batch and its cursors in one request, which is one transaction.

use std::{mem, ops::Range};

use libsql::Value;
use s3rep_core::{Batch, Context, Error, ErrorKind, Outcome, Progress, Rejected, Result, Scope};
use s3rep_sql::{Admission, Move};

use super::{
    hrana::{Ran, Script, When},
    http::Http,
    known::Known,
};
use crate::{
    change::{self, Effect},
    cursor,
    table::Fitted,
};

/// Parameters of a statement. Servers look for each among all, so that a statement of 9,000 takes half a second;
/// up to some hundreds it makes no difference.
const PARAMETERS: usize = 200;

/// What became of a batch.
pub(crate) enum Written {
    /// It is there.
    Done,
    /// Nothing of it is there, because of these.
    Rejected(Vec<Rejected>),
    /// Nothing of it is there: the database is not as it was known to be.
    Stale,
}

/// Writes all of a batch and moves its cursors, or lists what keeps it from being written.
pub(crate) async fn apply(server: &Http, cx: &Context, batch: &Batch, known: &mut Known) -> Result<Written> {
    let Batch { table, progress, .. } = batch;
    let fitted = &known.fitted(table)?;
    let admission = Admission::of(&known.cursors, progress, &table.name)?;
    let due = Due::of(batch, fitted, &admission);
    if !due.rejected.is_empty() {
        return Ok(probe(server, known, batch, fitted, due).await?.map_or(Written::Stale, Written::Rejected));
    }
    cx.failpoint("libsql.rows")?;
    let transaction = Transaction::new(known, &admission, progress, Move::Forward, |script, last| {
        due.add(fitted, script, last)
    })?;
    cx.failpoint("libsql.commit")?;
    match transaction.run(server).await? {
        Committed::Yes => {
            known.moved(&admission, progress, Move::Forward)?;
            cx.failpoint("libsql.committed")?;
            Ok(Written::Done)
        }
        Committed::Stale => Ok(Written::Stale),
        Committed::Refused => match probe(server, known, batch, fitted, due).await? {
            None => Ok(Written::Stale),
            Some(rejected) if rejected.is_empty() => {
                Err(contention("the rows were refused together, and none of them is by itself"))
            }
            Some(rejected) => Ok(Written::Rejected(rejected)),
        },
    }
}

/// Stores cursors without rows.
pub(crate) async fn advance(
    server: &Http,
    cx: &Context,
    progress: &Progress,
    known: &mut Known,
) -> Result<Written> {
    let admission = Admission::of(&known.cursors, progress, "")?;
    let transaction = Transaction::new(known, &admission, progress, Move::Anywhere, |_, last| Ok(last))?;
    cx.failpoint("libsql.commit")?;
    match transaction.run(server).await? {
        Committed::Yes => {
            known.moved(&admission, progress, Move::Anywhere)?;
            Ok(Written::Done)
        }
        Committed::Stale => Ok(Written::Stale),
        Committed::Refused => Err(Error::new(ErrorKind::Unexpected, "the table of cursors refuses a row")),
    }
}

impl Known {
    fn moved(&mut self, admission: &Admission, progress: &Progress, how: Move) -> Result<()> {
        if admission.replaces_log {
            self.forget_cursors();
        }
        self.store(progress, how)
    }
}

/// Two programs that write to the same tables, each before the other is done.
pub(crate) fn contention(message: &'static str) -> Error {
    Error::new(ErrorKind::Contention, message)
        .temporary()
        .with_scope(Scope::Sink)
        .with_advice("look whether another program writes to the same tables or changes them")
}

/// What is to be done.
struct Due {
    /// In order, each with the index of its change.
    effects: Vec<(usize, Effect)>,
    /// What cannot be done.
    rejected: Vec<Rejected>,
}

impl Due {
    fn of(batch: &Batch, fitted: &Fitted, admission: &Admission) -> Self {
        let table = &batch.table;
        let mut due = Self { effects: Vec::new(), rejected: Vec::new() };
        let mut undeclared = 0;
        for (index, change) in change::due(batch, fitted, admission) {
            match Effect::of(table, &fitted.targets, change) {
                Ok((effect, without_column)) => {
                    undeclared += without_column;
                    due.effects.push((index, effect));
                }
                Err(error) => due.rejected.push(Rejected { index, error: change::at(error, table, change) }),
            }
        }
        change::tell_undeclared(table, undeclared);
        due
    }

    /// Adds as few statements as make sense, each after the last; returns the last.
    fn add(&self, fitted: &Fitted, script: &mut Script, mut last: usize) -> Result<usize> {
        let rows_each = (PARAMETERS / fitted.targets.len().max(1)).max(1);
        let full = fitted.write(rows_each)?;
        for alike in self.effects.chunk_by(|(_, one), (_, next)| one.is_delete() == next.is_delete()) {
            let is_delete = alike.iter().any(|(_, effect)| effect.is_delete());
            for effects in alike.chunks(if is_delete { PARAMETERS } else { rows_each }) {
                let sql = match effects.len() {
                    keys if is_delete => fitted.delete(keys)?,
                    rows if rows == rows_each => full.clone(),
                    rows => fitted.write(rows)?,
                };
                let args = effects.iter().flat_map(|(_, effect)| effect.values().iter().cloned());
                last = script.run(When::Done(last), sql, args.collect());
            }
        }
        Ok(last)
    }

    /// Adds a statement a change, whatever becomes of the others. Returns the step and the index of each.
    fn add_each(self, fitted: &Fitted, script: &mut Script) -> Result<Vec<(usize, usize)>> {
        let (delete, write) = (fitted.delete(1)?, fitted.write(1)?);
        let step = |(index, effect): (usize, Effect)| {
            let sql = if effect.is_delete() { &delete } else { &write };
            (script.run(When::InTransaction, sql, effect.into_values()), index)
        };
        Ok(self.effects.into_iter().map(step).collect())
    }
}

/// A transaction that proves what is known, does something and moves cursors, all of it or nothing.
struct Transaction {
    script: Script,
    begin: usize,
    guard: usize,
    rows: Range<usize>,
    commit: usize,
}

enum Committed {
    Yes,
    Stale,
    /// The rows were refused for what one of them is.
    Refused,
}

impl Transaction {
    fn new(
        known: &Known,
        admission: &Admission,
        progress: &Progress,
        how: Move,
        rows: impl FnOnce(&mut Script, usize) -> Result<usize>,
    ) -> Result<Self> {
        let mut script = Script::default();
        let begin = script.run(When::Always, "BEGIN IMMEDIATE", vec![]);
        let guard = known.guard(&mut script, When::Done(begin));
        let mut last = guard;
        if admission.replaces_log {
            let replicator = vec![Value::from(&*progress.replicator)];
            last = script.run(When::Done(last), cursor::forget(), replicator);
        }
        let first = last + 1;
        last = rows(&mut script, last)?;
        let rows = first..last + 1;
        for cursors in progress.cursors.chunks(PARAMETERS / cursor::COLUMNS) {
            let mut args = Vec::with_capacity(cursors.len() * cursor::COLUMNS);
            for cursor in cursors {
                args.extend(cursor::values(progress, cursor)?);
            }
            last = script.run(When::Done(last), cursor::store(how, cursors.len()), args);
        }
        let commit = script.run(When::Done(last), "COMMIT", vec![]);
        script.run(When::NotDone(commit), "ROLLBACK", vec![]);
        Ok(Self { script, begin, guard, rows, commit })
    }

    async fn run(&self, server: &Http) -> Result<Committed> {
        let ran = server.run(&self.script).await?;
        if ran.is_done(self.commit) {
            return Ok(Committed::Yes);
        }
        ran.check(self.begin)?;
        if is_stale(&ran, self.guard)? {
            return Ok(Committed::Stale);
        }
        let Some((step, failure)) = ran.first_failure(self.guard..self.commit + 1) else {
            return ran.check(self.commit).map(|()| Committed::Yes);
        };
        let error = ran.error(failure);
        if self.rows.contains(&step) && error.scope() == Scope::Record {
            return Ok(Committed::Refused);
        }
        // A constraint that is checked at the end does not say whose it is.
        Err(if error.scope() == Scope::Record { error.with_scope(Scope::Batch) } else { error })
    }
}

/// Whether the guard has found the database to be other than it was known to be.
fn is_stale(ran: &Ran, guard: usize) -> Result<bool> {
    match ran.failure(guard).map(|failure| ran.error(failure)) {
        Some(error) if error.kind() == ErrorKind::Conflict => Ok(true),
        Some(error) => Err(error),
        None => Ok(false),
    }
}

/// Finds every record that is refused, by writing each for itself in a transaction that is undone. `None` when the
/// database is not as it was known to be.
async fn probe(
    server: &Http,
    known: &Known,
    batch: &Batch,
    fitted: &Fitted,
    mut due: Due,
) -> Result<Option<Vec<Rejected>>> {
    let mut rejected = mem::take(&mut due.rejected);
    let mut script = Script::default();
    let begin = script.run(When::Always, "BEGIN IMMEDIATE", vec![]);
    let guard = known.guard(&mut script, When::Done(begin));
    let steps = due.add_each(fitted, &mut script)?;
    let undo = script.run(When::InTransaction, "ROLLBACK", vec![]);
    let ran = server.run(&script).await?;
    ran.check(begin)?;
    if is_stale(&ran, guard)? {
        return Ok(None);
    }
    for (step, index) in steps {
        let Some(failure) = ran.failure(step) else { continue };
        let error = ran.error(failure);
        let error = match batch.changes.get(index) {
            Some(change) => change::at(error, &batch.table, change),
            None => error,
        };
        if error.scope() != Scope::Record {
            return Err(error);
        }
        let is_over = step < undo && !ran.is_done(step + 1) && ran.failure(step + 1).is_none();
        if is_over {
            // A trigger or conflict clause of the table rolled everything back.
            return Err(error.with_scope(Scope::Batch));
        }
        rejected.push(Rejected { index, error });
    }
    rejected.sort_unstable_by_key(|rejected| rejected.index);
    Ok(Some(rejected))
}

impl Written {
    /// The outcome of the batch; `None` when it has to be tried on what the database is now.
    pub(crate) fn outcome(self) -> Option<Outcome> {
        match self {
            Self::Done => Some(Outcome::default()),
            Self::Rejected(rejected) => Some(Outcome { rejected }),
            Self::Stale => None,
        }
    }
}
