//! One function, its realm and its limits.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use rquickjs::{Context, Ctx, Function, Persistent, Runtime, Type, Value as Js, function::Args};
use s3rep_core::Record;
use serde_json::Value;

use crate::{Host, JsError, Script, host, json};

/// What one call may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// How long a call may run. Default 100 ms: a record takes microseconds, and what takes longer holds up all
    /// that come after it.
    pub time: Duration,
    /// Bytes that the function and all that it keeps may use. Default 64 MiB.
    pub memory: usize,
    /// Bytes of stack. Default 256 KiB, some thousand calls within each other: it is the stack of the thread that
    /// calls.
    pub stack: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { time: Duration::from_millis(100), memory: 64 << 20, stack: 256 << 10 }
    }
}

/// How a function runs.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// What one call may take.
    pub limits: Limits,
    /// What the function sees.
    pub host: Host,
}

/// A function that is ready to be called. One thread at a time calls it; a worker that needs its own compiles its
/// own, in less than a millisecond.
pub struct JsFunction {
    script: Script,
    options: Options,
    /// Gone after a call that left it in an unknown state.
    realm: Option<Realm>,
}

impl JsFunction {
    /// Compiles the text, and runs what stands outside of the function.
    ///
    /// # Errors
    /// [`JsError`] with file, line and column of what is wrong with the text, or what its code threw.
    pub fn compile(script: Script, options: Options) -> Result<Self, JsError> {
        let realm = Realm::new(&script, &options)?;
        Ok(Self { script, options, realm: Some(realm) })
    }

    /// Calls it as a transform: record, operation, and the record before if there is one. `None` means that the
    /// record is to be skipped: the function returned null or undefined.
    ///
    /// # Errors
    /// What the function threw, which limit ended it, or `InvalidReturn` for a result that is no record.
    pub fn transform(&mut self, args: &[&Value]) -> Result<Option<Record>, JsError> {
        let room = self.options.limits.memory;
        let result = self.with(|realm, cx| {
            let result = realm.call(cx, args)?;
            let what = match result.type_of() {
                Type::Null | Type::Undefined => return Ok(None),
                Type::Object | Type::Exception | Type::Proxy => return json::from_js(cx, result, room),
                Type::Promise => "promise",
                other => other.as_str(),
            };
            Err(JsError::invalid_return(&article(what)))
        })?;
        match result {
            None => Ok(None),
            Some(Value::Object(record)) => Ok(Some(record)),
            Some(_) => Err(JsError::invalid_return("an object that JSON has as something else")),
        }
    }

    /// Calls it as a filter: whether the record is wanted, by JavaScript's idea of truth.
    ///
    /// # Errors
    /// As [`JsFunction::transform`]; `InvalidReturn` for a promise, which would always be true.
    pub fn filter(&mut self, args: &[&Value]) -> Result<bool, JsError> {
        self.with(|realm, cx| {
            let result = realm.call(cx, args)?;
            if result.is_promise() {
                return Err(JsError::new(
                    "InvalidReturn",
                    "a promise was returned; true or false is expected",
                ));
            }
            realm.truth(cx, result)
        })
    }

    /// Calls it for any value; null for what JSON does not have.
    ///
    /// # Errors
    /// What the function threw, or which limit ended it.
    pub fn call(&mut self, args: &[&Value]) -> Result<Value, JsError> {
        let room = self.options.limits.memory;
        let result = self.with(|realm, cx| {
            let result = realm.call(cx, args)?;
            json::from_js(cx, result, room)
        })?;
        Ok(result.unwrap_or(Value::Null))
    }

    /// Runs something in the realm within the limits.
    fn with<T>(&mut self, run: impl FnOnce(&Realm, &Ctx<'_>) -> Result<T, JsError>) -> Result<T, JsError> {
        if self.realm.is_none() {
            self.realm = Some(Realm::new(&self.script, &self.options)?);
        }
        let Some(realm) = &self.realm else { return Err(JsError::new("Error", "there is no realm")) };
        let result = realm.limited(self.options.limits.time, || {
            realm.context.with(|cx| {
                let result = run(realm, &cx);
                // What it left to be done later is done now, in its own time.
                while !realm.deadline.is_over() && cx.execute_pending_job() {}
                result
            })
        });
        if let Err(error) = &result
            && [JsError::TIMEOUT, JsError::MEMORY, "InternalError"].contains(&&*error.name)
        {
            // Its own state may be half changed, and memory is not given back for sure.
            self.realm = None;
        }
        result
    }
}

impl std::fmt::Debug for JsFunction {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("JsFunction").field("script", &self.script).finish_non_exhaustive()
    }
}

fn article(type_name: &str) -> String {
    format!("{} {type_name}", if type_name.starts_with(['a', 'o', 'i', 'u']) { "an" } else { "a" })
}

/// A runtime with one realm and one function in it.
struct Realm {
    function: Persistent<Function<'static>>,
    truth: Persistent<Function<'static>>,
    context: Context,
    deadline: Arc<Deadline>,
    _runtime: Runtime,
}

impl Realm {
    fn new(script: &Script, options: &Options) -> Result<Self, JsError> {
        let broken = |error: rquickjs::Error| JsError::new("Error", error.to_string());
        let runtime = Runtime::new().map_err(broken)?;
        runtime.set_max_stack_size(options.limits.stack);
        runtime.set_memory_limit(options.limits.memory);
        let deadline = Arc::new(Deadline::default());
        let watched = deadline.clone();
        runtime.set_interrupt_handler(Some(Box::new(move || watched.has_passed())));
        let context = Context::full(&runtime).map_err(broken)?;
        deadline.set(options.limits.time.max(Duration::from_secs(1)));
        let made = context.with(|cx| {
            let failed = |error| JsError::thrown(&cx, &error);
            let truth: Function<'_> = cx.eval("(value) => !!value").map_err(failed)?;
            host::install(&cx, &options.host).map_err(failed)?;
            let function = script.evaluate(&cx)?;
            Ok((Persistent::save(&cx, function), Persistent::save(&cx, truth)))
        });
        if deadline.is_over() {
            return Err(JsError::new(JsError::TIMEOUT, "what stands outside of the function took too long"));
        }
        let (function, truth) = made?;
        Ok(Self { function, truth, context, deadline, _runtime: runtime })
    }

    fn limited<T>(&self, time: Duration, run: impl FnOnce() -> Result<T, JsError>) -> Result<T, JsError> {
        self.deadline.set(time);
        let result = run();
        // Also when its own code caught what ended it.
        if self.deadline.is_over() { Err(JsError::new(JsError::TIMEOUT, "it took too long")) } else { result }
    }

    fn call<'js>(&self, cx: &Ctx<'js>, args: &[&Value]) -> Result<Js<'js>, JsError> {
        let failed = |error| JsError::thrown(cx, &error);
        let function = self.function.clone().restore(cx).map_err(failed)?;
        let mut given = Args::new(cx.clone(), args.len());
        for arg in args {
            given.push_arg(json::into_js(cx, arg)?).map_err(failed)?;
        }
        function.call_arg(given).map_err(failed)
    }

    fn truth<'js>(&self, cx: &Ctx<'js>, value: Js<'js>) -> Result<bool, JsError> {
        let failed = |error| JsError::thrown(cx, &error);
        self.truth.clone().restore(cx).map_err(failed)?.call((value,)).map_err(failed)
    }
}

/// When the call that runs has to end.
#[derive(Debug)]
struct Deadline {
    start: Instant,
    /// Nanoseconds after `start`.
    end: AtomicU64,
    /// The call was told to end.
    is_over: AtomicBool,
}

impl Default for Deadline {
    fn default() -> Self {
        Self { start: Instant::now(), end: AtomicU64::new(u64::MAX), is_over: AtomicBool::new(false) }
    }
}

impl Deadline {
    fn set(&self, time: Duration) {
        let end = self.start.elapsed().saturating_add(time).as_nanos();
        self.end.store(u64::try_from(end).unwrap_or(u64::MAX), Ordering::Relaxed);
        self.is_over.store(false, Ordering::Relaxed);
    }

    fn is_over(&self) -> bool {
        self.is_over.load(Ordering::Relaxed)
    }

    fn has_passed(&self) -> bool {
        let has_passed = self.start.elapsed().as_nanos() > u128::from(self.end.load(Ordering::Relaxed));
        if has_passed {
            self.is_over.store(true, Ordering::Relaxed);
        }
        has_passed
    }
}
