//! The text of a function, and how it becomes one.

use std::fmt;

use rquickjs::{Ctx, Function, Module, Object, Value, context::EvalOptions};

use crate::JsError;

/// The text of a function.
#[derive(Clone, PartialEq, Eq)]
pub struct Script {
    source: String,
    file: String,
    export: Option<String>,
}

impl fmt::Debug for Script {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // People write keys into their functions.
        f.debug_struct("Script")
            .field("file", &self.file)
            .field("export", &self.export)
            .finish_non_exhaustive()
    }
}

impl Script {
    /// Text that is one of these:
    ///
    /// - an expression: `(data) => ({ ...data })`, `function (data) { … }`;
    /// - a script whose last statement is such an expression, after functions that it uses, or that sets
    ///   `module.exports`;
    /// - a module with a default export, or with the one that [`Script::export`] names.
    pub fn new(source: impl Into<String>) -> Self {
        Self { source: source.into(), file: "transform".to_owned(), export: None }
    }

    /// The name of the file, for messages.
    #[must_use]
    pub fn file(mut self, file: impl Into<String>) -> Self {
        self.file = file.into();
        self
    }

    /// Which export of a module, or member of `module.exports`, is the function.
    #[must_use]
    pub fn export(mut self, name: impl Into<String>) -> Self {
        self.export = Some(name.into());
        self
    }

    pub(crate) fn evaluate<'js>(&self, cx: &Ctx<'js>) -> Result<Function<'js>, JsError> {
        let failed = |error| JsError::thrown(cx, &error);
        let module = Object::new(cx.clone()).map_err(failed)?;
        let exports = Object::new(cx.clone()).map_err(failed)?;
        module.set("exports", exports.clone()).map_err(failed)?;
        cx.globals().set("module", module.clone()).map_err(failed)?;
        cx.globals().set("exports", exports.clone()).map_err(failed)?;
        let value = self.value(cx)?;
        let exported: Value<'_> = module.get("exports").map_err(failed)?;
        let is_untouched = exported == *exports.as_value() && exports.is_empty();
        let value = if is_untouched { value } else { self.of(exported)? };
        value.into_function().ok_or_else(|| {
            JsError::new(JsError::SYNTAX, "there is no function: write one expression, or export one")
                .at(self.file.clone())
        })
    }

    fn value<'js>(&self, cx: &Ctx<'js>) -> Result<Value<'js>, JsError> {
        let expression = self.run(cx, format!("({}\n)", self.source));
        match expression {
            Err(error) if error.name == JsError::SYNTAX => match self.run(cx, self.source.clone()) {
                Err(script) if script.name == JsError::SYNTAX => {
                    self.module(cx).map_err(|module| if self.is_module() { module } else { script })
                }
                script => script,
            },
            expression => expression,
        }
    }

    fn is_module(&self) -> bool {
        self.source
            .lines()
            .any(|line| line.trim_start().starts_with("export ") || line.starts_with("import "))
    }

    fn run<'js>(&self, cx: &Ctx<'js>, source: String) -> Result<Value<'js>, JsError> {
        let mut options = EvalOptions::default();
        options.strict = false;
        options.filename = Some(self.file.clone());
        cx.eval_with_options(source, options).map_err(|error| JsError::thrown(cx, &error))
    }

    fn module<'js>(&self, cx: &Ctx<'js>) -> Result<Value<'js>, JsError> {
        let failed = |error| JsError::thrown(cx, &error);
        let module = Module::declare(cx.clone(), self.file.clone(), self.source.clone()).map_err(failed)?;
        let (module, ready) = module.eval().map_err(failed)?;
        ready.finish::<()>().map_err(failed)?;
        let name = self.export.as_deref().unwrap_or("default");
        module.get(name).map_err(|_| {
            JsError::new(JsError::SYNTAX, format!("the module has no export '{name}'")).at(self.file.clone())
        })
    }

    /// The function among what was exported.
    fn of<'js>(&self, exported: Value<'js>) -> Result<Value<'js>, JsError> {
        let name = self.export.as_deref();
        match (name, exported.as_object()) {
            (Some(name), Some(object)) => {
                object.get(name).map_err(|error| JsError::thrown(exported.ctx(), &error))
            }
            (None, Some(object)) if !exported.is_function() => {
                object.get("default").map_err(|error| JsError::thrown(exported.ctx(), &error))
            }
            _ => Ok(exported),
        }
    }
}
