//! A wrapper that breaks calls on request and watches that the engine keeps its side of the contract.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use s3rep_core::{
    Batch, Capability, Context, Error, ErrorKind, Outcome, Progress, Readback, Rejected, Result, SchemaSync,
    Scope, Sink, StoredCursors,
};
use tokio::sync::Semaphore;

use super::watch::Watch;

/// A call of a [`Sink`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Call {
    /// [`Sink::check`].
    Check,
    /// [`Sink::cursors`].
    Cursors,
    /// [`Sink::apply`].
    Apply,
    /// [`Sink::advance`].
    Advance,
    /// [`Sink::flush`].
    Flush,
    /// [`Sink::close`].
    Close,
}

/// Makes an error each time it is needed; errors are not cloned.
type MakeError = Arc<dyn Fn() -> Error + Send + Sync>;

/// What happens to one call.
#[derive(Clone)]
enum Fault {
    /// Nothing is written.
    Before(MakeError),
    /// Everything is written and nobody learns of it.
    After(MakeError),
    /// The record with this index is refused; the others are written unless the sink has a transactional cursor.
    Reject(usize, MakeError),
    /// Waits before the write.
    HoldBefore(Gate),
    /// Waits after the write: the answer is on its way.
    HoldAfter(Gate),
    /// Takes this long.
    Slow(Duration),
    /// Nothing: lets one call pass.
    Pass,
}

/// Holds a call until the test lets it go.
#[derive(Clone, Debug)]
pub struct Gate(Arc<GateState>);

#[derive(Debug)]
struct GateState {
    reached: Semaphore,
    released: Semaphore,
}

impl Gate {
    fn new() -> Self {
        Self(Arc::new(GateState { reached: Semaphore::new(0), released: Semaphore::new(0) }))
    }

    /// Returns when a call stands at the gate.
    pub async fn reached(&self) {
        // A semaphore that is never closed always grants.
        let _ = self.0.reached.acquire().await;
    }

    /// Lets the call go, now or when it comes.
    pub fn release(&self) {
        self.0.released.add_permits(1);
    }

    async fn pass(&self) {
        self.0.reached.add_permits(1);
        let _ = self.0.released.acquire().await;
    }
}

/// Wraps a sink. Faults queue up for each kind of call and are used up one a call; without one a call passes.
///
/// ```
/// use std::sync::Arc;
/// use s3rep_core::{Error, ErrorKind};
/// use s3rep_testkit::sink::{Call, FaultySink, MemorySink};
/// let sink = FaultySink::new(Arc::new(MemorySink::new()));
/// sink.fail_times(Call::Apply, 2, || Error::new(ErrorKind::Unavailable, "down").temporary());
/// sink.fail_after(Call::Apply, || Error::new(ErrorKind::Timeout, "the answer was lost").temporary());
/// // … run the engine, then:
/// sink.assert_contract();
/// assert_eq!(sink.calls(Call::Apply), 0);
/// ```
#[derive(Clone)]
pub struct FaultySink {
    inner: Arc<dyn Sink>,
    state: Arc<Mutex<State>>,
    watch: Watch,
}

#[derive(Default)]
struct State {
    faults: HashMap<Call, VecDeque<Fault>>,
    poisoned: HashMap<String, MakeError>,
    calls: BTreeMap<Call, usize>,
    down: bool,
}

impl FaultySink {
    /// Breaks nothing yet.
    pub fn new(inner: Arc<dyn Sink>) -> Self {
        let watch = Watch::new(inner.capability());
        Self { inner, state: Arc::default(), watch }
    }

    /// The next call fails before anything is written.
    pub fn fail(&self, call: Call, error: impl Fn() -> Error + Send + Sync + 'static) {
        self.fail_times(call, 1, error);
    }

    /// The next `times` calls fail before anything is written.
    pub fn fail_times(&self, call: Call, times: usize, error: impl Fn() -> Error + Send + Sync + 'static) {
        let error: MakeError = Arc::new(error);
        for _ in 0..times {
            self.push(call, Fault::Before(error.clone()));
        }
    }

    /// The next call does its work and fails: the answer is lost.
    pub fn fail_after(&self, call: Call, error: impl Fn() -> Error + Send + Sync + 'static) {
        self.push(call, Fault::After(Arc::new(error)));
    }

    /// The next batch has its record with this index refused, the last one if it has fewer.
    pub fn reject(&self, index: usize, error: impl Fn() -> Error + Send + Sync + 'static) {
        self.push(Call::Apply, Fault::Reject(index, Arc::new(error)));
    }

    /// Every record with this key is refused until [`FaultySink::heal`].
    pub fn poison(&self, key: &str, error: impl Fn() -> Error + Send + Sync + 'static) {
        self.lock().poisoned.insert(key.to_owned(), Arc::new(error));
    }

    /// Records with this key are taken again.
    pub fn heal(&self, key: &str) {
        self.lock().poisoned.remove(key);
    }

    /// The next call stands at the gate before it does anything.
    pub fn hold(&self, call: Call) -> Gate {
        let gate = Gate::new();
        self.push(call, Fault::HoldBefore(gate.clone()));
        gate
    }

    /// The next call does its work and stands at the gate with the answer.
    pub fn hold_answer(&self, call: Call) -> Gate {
        let gate = Gate::new();
        self.push(call, Fault::HoldAfter(gate.clone()));
        gate
    }

    /// The next call takes `time` by the context's clock before it does anything.
    pub fn slow(&self, call: Call, time: Duration) {
        self.push(call, Fault::Slow(time));
    }

    /// The next call passes; faults queued after it meet later calls.
    pub fn pass(&self, call: Call) {
        self.push(call, Fault::Pass);
    }

    /// Takes the destination down or brings it up: while it is down every call fails, temporarily, with
    /// [`ErrorKind::Unavailable`] for the whole sink, and queued faults are not used up.
    pub fn set_down(&self, down: bool) {
        self.lock().down = down;
    }

    /// How often a call was made.
    pub fn calls(&self, call: Call) -> usize {
        self.lock().calls.get(&call).copied().unwrap_or_default()
    }

    /// Records that reached [`Sink::apply`], counted each time.
    pub fn records(&self) -> usize {
        self.watch.records()
    }

    /// The largest number of calls of [`Sink::apply`] at the same time so far.
    pub fn most_in_flight(&self) -> usize {
        self.watch.most_in_flight()
    }

    /// What the engine did that it must not do.
    pub fn violations(&self) -> Vec<String> {
        self.watch.violations()
    }

    /// Tells the watch that another run begins over the same sink: it was not closed, and changes may come
    /// again.
    pub fn restarted(&self) {
        self.watch.restarted();
    }

    /// Checks that the engine kept its side of the contract.
    ///
    /// # Panics
    /// When it did not.
    pub fn assert_contract(&self) {
        let violations = self.violations();
        assert!(violations.is_empty(), "the engine broke the contract of sinks:\n{}", violations.join("\n"));
    }

    fn push(&self, call: Call, fault: Fault) {
        self.lock().faults.entry(call).or_default().push_back(fault);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts the call and takes its fault.
    fn enter(&self, call: Call) -> Result<Fault> {
        let mut state = self.lock();
        *state.calls.entry(call).or_default() += 1;
        if state.down {
            return Err(Error::new(ErrorKind::Unavailable, "the destination is down")
                .temporary()
                .with_scope(Scope::Sink));
        }
        Ok(state.faults.get_mut(&call).and_then(VecDeque::pop_front).unwrap_or(Fault::Pass))
    }

    async fn call<T>(
        &self,
        cx: &Context,
        call: Call,
        work: impl Future<Output = Result<T>> + Send,
    ) -> Result<T> {
        self.watch.called(call);
        perform(cx, self.enter(call)?, work).await
    }

    /// Refuses what the fault and the poison name, and hands the rest on.
    async fn apply_but(
        &self,
        cx: &Context,
        batch: &Batch,
        index: Option<(usize, MakeError)>,
    ) -> Result<Outcome> {
        let mut refused: Vec<Rejected> = Vec::new();
        {
            let state = self.lock();
            for (i, change) in batch.changes.iter().enumerate() {
                let by_index = index
                    .as_ref()
                    .filter(|(wanted, _)| i == (*wanted).min(batch.changes.len() - 1))
                    .map(|(_, error)| error);
                if let Some(error) = by_index.or_else(|| state.poisoned.get(&*change.key)) {
                    refused.push(Rejected { index: i, error: error() });
                }
            }
        }
        if refused.is_empty() {
            return self.inner.apply(cx, batch).await;
        }
        if !self.inner.capability().partial_failure {
            // A destination that cannot single records out fails as a whole.
            return Err(refused.swap_remove(0).error);
        }
        if self.inner.capability().transactional_cursor {
            // All or nothing: what is not listed was not written either.
            return Ok(Outcome { rejected: refused });
        }
        let mut rest = batch.clone();
        let mut places: Vec<usize> = (0..batch.changes.len()).collect();
        places.retain(|i| refused.iter().all(|r| r.index != *i));
        rest.changes = places.iter().map(|&i| batch.changes[i].clone()).collect();
        let outcome = self.inner.apply(cx, &rest).await?;
        refused.extend(
            outcome.rejected.into_iter().map(|r| Rejected { index: places[r.index], error: r.error }),
        );
        refused.sort_by_key(|r| r.index);
        Ok(Outcome { rejected: refused })
    }
}

async fn perform<T>(cx: &Context, fault: Fault, work: impl Future<Output = Result<T>> + Send) -> Result<T> {
    match fault {
        Fault::Before(error) => Err(error()),
        Fault::After(error) => {
            work.await?;
            Err(error())
        }
        Fault::HoldBefore(gate) => {
            gate.pass().await;
            work.await
        }
        Fault::HoldAfter(gate) => {
            let answer = work.await;
            gate.pass().await;
            answer
        }
        Fault::Slow(time) => {
            cx.sleep(time).await;
            work.await
        }
        Fault::Pass | Fault::Reject(..) => work.await,
    }
}

#[async_trait]
impl Sink for FaultySink {
    fn capability(&self) -> Capability {
        self.inner.capability()
    }

    async fn check(&self, cx: &Context) -> Result<()> {
        self.call(cx, Call::Check, self.inner.check(cx)).await
    }

    async fn cursors(&self, cx: &Context, replicator: &str) -> Result<Option<StoredCursors>> {
        self.call(cx, Call::Cursors, self.inner.cursors(cx, replicator)).await
    }

    async fn apply(&self, cx: &Context, batch: &Batch) -> Result<Outcome> {
        let watched = self.watch.enter(batch);
        self.watch.called(Call::Apply);
        let fault = self.enter(Call::Apply)?;
        let index = match &fault {
            Fault::Reject(index, error) => Some((*index, error.clone())),
            _ => None,
        };
        let outcome = perform(cx, fault, self.apply_but(cx, batch, index)).await;
        if let Ok(outcome) = &outcome {
            watched.taken(batch, outcome);
        }
        outcome
    }

    async fn advance(&self, cx: &Context, progress: &Progress) -> Result<()> {
        self.call(cx, Call::Advance, self.inner.advance(cx, progress)).await
    }

    async fn flush(&self, cx: &Context) -> Result<()> {
        self.call(cx, Call::Flush, self.inner.flush(cx)).await
    }

    async fn close(&self, cx: &Context) -> Result<()> {
        self.call(cx, Call::Close, self.inner.close(cx)).await
    }

    fn schema_sync(&self) -> Option<&dyn SchemaSync> {
        self.inner.schema_sync()
    }

    fn readback(&self) -> Option<&dyn Readback> {
        self.inner.readback()
    }
}

impl fmt::Debug for FaultySink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("FaultySink").field(&self.inner).finish()
    }
}
