//! What a function may not do: it ends with a name, and the next call finds everything as it was.
#![allow(clippy::unwrap_used, reason = "a test")]

use std::time::{Duration, Instant};

use s3rep_js::{Host, JsError, JsFunction, Limits, Options, Script};
use serde_json::{Value, json};

fn function(source: &str) -> JsFunction {
    JsFunction::compile(Script::new(source).file("users.js"), Options::default()).unwrap()
}

fn transform(source: &str, record: Value) -> Result<Option<Value>, JsError> {
    Ok(function(source).transform(&[&record])?.map(Value::Object))
}

#[track_caller]
fn fails(source: &str, record: Value) -> JsError {
    transform(source, record).unwrap_err()
}

#[test]
fn results_that_are_no_records_are_refused() {
    for (source, what) in [
        ("() => 'text'", "a string"),
        ("() => [1]", "an array"),
        ("() => 7", "an int"),
        ("() => NaN", "a float"),
        ("() => true", "a bool"),
        ("() => 10n", "a big_int"),
        ("() => () => 1", "a function"),
        ("async (d) => d", "a promise"),
        ("() => new Date(0)", "an object that JSON has as something else"),
        ("() => new String('x')", "an object that JSON has as something else"),
    ] {
        let error = fails(source, json!({}));
        assert_eq!(error.name, "InvalidReturn", "{source}: {error}");
        assert!(error.message.starts_with(what), "{source}: {error}");
    }
    for source in ["(d) => { d.me = d; return d; }", "(d) => ({ ...d, big: 10n })"] {
        assert_eq!(fails(source, json!({})).name, "TypeError", "{source}");
    }
    let deep = "(d) => { let at = d; for (let i = 0; i < 200; i++) at = at.a = {}; return d; }";
    assert_eq!(fails(deep, json!({})).name, "InvalidReturn");
    assert_eq!(transform("() => null", json!({})).unwrap(), None);
    assert_eq!(transform("() => {}", json!({})).unwrap(), None);
    let odd = "(d) => ({ a: NaN, b: undefined, c: [undefined, Infinity], d: new Date(NaN), e: () => 1 })";
    assert_eq!(transform(odd, json!({})).unwrap().unwrap(), json!({"a": null, "c": [null, null], "d": null}));
}

#[test]
fn limits_end_a_call_and_leave_the_function_usable() {
    let good = json!({"n": 1});
    for (body, name) in [
        ("for (;;) {}", "Timeout"),
        ("for (;;) { try { for (;;) {} } catch {} }", "Timeout"),
        ("/(x+x+)+y/.test('x'.repeat(40))", "Timeout"),
        ("const all = []; for (;;) all.push(new Array(10000).fill(7))", "Memory"),
        ("let text = 'x'; for (;;) text += text", "Memory"),
        ("let l; for (;;) l = { l }", "Memory"),
        ("let a = [1]; for (let i = 0; i < 60; i++) a = [a, a]; return { a }", "Memory"),
        ("let a = [1]; for (let i = 0; i < 60; i++) a = [a, a]; return { at: new Date(), a }", "Memory"),
        ("const a = []; a.length = 3e9; return { a }", "Memory"),
        ("const kept = []; for (;;) kept.push(new TextEncoder().encode('x'.repeat(1e6)))", "Memory"),
        ("new Promise(() => { for (;;) {} }); return d", "Timeout"),
        ("(async () => { for (;;) await 0; })(); return d", "Timeout"),
        ("throw new Error('stack overflow')", "Error"),
        ("const f = (n) => f(n + 1) + 1; f(0)", "StackOverflow"),
    ] {
        // A machine that is busy fills its memory slowly.
        let time = if name == "Memory" { Duration::from_secs(20) } else { Limits::default().time };
        let options = Options { limits: Limits { time, ..Limits::default() }, ..Options::default() };
        let script = Script::new(format!("(d) => {{ if (d.bad) {{ {body} }} return d; }}"));
        let mut function = JsFunction::compile(script, options).unwrap();
        assert_eq!(function.transform(&[&good]).unwrap().map(Value::Object), Some(good.clone()));
        let began = Instant::now();
        let error = function.transform(&[&json!({"bad": true})]).unwrap_err();
        assert_eq!(error.name, name, "{body}: {error}");
        assert!(began.elapsed() < Duration::from_secs(19), "{body} took {:?}", began.elapsed());
        assert_eq!(function.transform(&[&good]).unwrap().map(Value::Object), Some(good.clone()), "{body}");
    }
    let limits = Limits { time: Duration::from_millis(5), ..Limits::default() };
    let options = Options { limits, ..Options::default() };
    let mut slow = JsFunction::compile(Script::new("(d) => { for (;;) {} }"), options).unwrap();
    assert_eq!(slow.transform(&[&good]).unwrap_err().name, "Timeout");
}

#[test]
fn what_runs_at_the_start_is_limited_too() {
    let endless = JsFunction::compile(Script::new("for (;;) {}\n(d) => d"), Options::default()).unwrap_err();
    assert_eq!(endless.name, "Timeout");
    let thrown = JsFunction::compile(Script::new("throw new RangeError('no');"), Options::default());
    assert_eq!(thrown.unwrap_err().name, "RangeError");
}

#[test]
fn a_syntax_error_names_file_line_and_column() {
    for source in ["(d) => ({\n  a: d.,\n})", "const f = 1;\n(d) => {{"] {
        let error =
            JsFunction::compile(Script::new(source).file("users.js"), Options::default()).unwrap_err();
        assert_eq!(error.name, "SyntaxError", "{error}");
        let place = error.place.unwrap();
        assert!(place.starts_with("users.js:2:"), "{source}: {place}");
    }
    let none = JsFunction::compile(Script::new("({ a: 1 })").file("x.js"), Options::default()).unwrap_err();
    assert!(none.message.contains("no function"), "{none}");
}

#[test]
fn a_function_is_found_in_every_form() {
    for (source, export) in [
        ("(d) => ({ x: d.n })", None),
        ("function (d) { return { x: d.n }; }", None),
        ("function named(d) { return { x: d.n }; }", None),
        ("const helper = (n) => n;\n(d) => ({ x: helper(d.n) })", None),
        ("module.exports = (d) => ({ x: d.n });", None),
        ("module.exports = (d) => ({ x: d.n })", None),
        ("exports.users = (d) => ({ x: d.n })", Some("users")),
        ("module.exports = { users: (d) => ({ x: d.n }) };", Some("users")),
        ("export default (d) => ({ x: d.n });", None),
        ("export default function (d) { return { x: d.n }; }", None),
        ("export const users = (d) => ({ x: d.n });", Some("users")),
    ] {
        let script = Script::new(source);
        let script = if let Some(name) = export { script.export(name) } else { script };
        let mut function =
            JsFunction::compile(script, Options::default()).unwrap_or_else(|e| panic!("{source}: {e}"));
        let out = function.transform(&[&json!({"n": 7})]).unwrap().map(Value::Object);
        assert_eq!(out, Some(json!({"x": 7})), "{source}");
    }
}

#[test]
fn functions_do_not_see_each_other_and_nothing_outside() {
    let poison = "(d) => { Object.prototype.poison = 1; Array.prototype.map = null; JSON.stringify = null; return d; }";
    let mut poisoned = function(poison);
    poisoned.transform(&[&json!({"n": 1})]).unwrap();
    let clean = transform("(d) => ({ poison: ({}).poison ?? null, map: [1].map(String) })", json!({}));
    assert_eq!(clean.unwrap().unwrap(), json!({"poison": null, "map": ["1"]}));
    for name in ["require", "fetch", "setTimeout", "std", "os", "Deno", "Bun"] {
        let there = transform(&format!("() => ({{ there: typeof {name} }})"), json!({})).unwrap();
        assert_eq!(there.unwrap()["there"], "undefined", "{name}");
    }
    let import =
        JsFunction::compile(Script::new("import fs from 'fs';\nexport default (d) => d"), Options::default());
    assert!(import.is_err());
    assert_eq!(fails("(d) => ({ env: process.env.HOME.length })", json!({})).name, "TypeError");
}

#[test]
fn the_record_of_the_caller_stays_as_it_was() {
    let record = json!({"tags": ["a"], "n": 1});
    let mut function = function("(d) => { d.n = 2; d.tags.push('b'); delete d.x; return d; }");
    let out = function.transform(&[&record]).unwrap().map(Value::Object);
    assert_eq!((out.unwrap(), record), (json!({"tags": ["a", "b"], "n": 2}), json!({"tags": ["a"], "n": 1})));
}

#[test]
fn host_objects_do_as_in_node() {
    for (expression, expected) in [
        ("crypto.createHash('md5').update('a').update('b').digest('hex')", json!("187ef4436122d1cc2f40dc2b92f0eba0")),
        ("crypto.createHash('sha1').update('é').digest('base64')", json!("vxW+cXrBsIC08cRWaSgliR/1Bz0=")),
        ("Buffer.from('héllo').toString('base64')", json!("aMOpbGxv")),
        ("Buffer.from('aMOpbGxv', 'base64').toString()", json!("héllo")),
        ("Buffer.from('68c3a9', 'hex').toString('utf8')", json!("hé")),
        ("Buffer.from('hé').toString('hex')", json!("68c3a9")),
        ("new TextDecoder().decode(new TextEncoder().encode('é🦊'))", json!("é🦊")),
        ("new URL('/b?x=1&y=a+b#z', 'https://u:p@example.com:8080/a').searchParams.get('y')", json!("a b")),
        ("new URL('https://EXAMPLE.com').href", json!("https://example.com/")),
        ("structuredClone({ a: [1, { b: new Date(0) }] })", json!({"a": [1, {"b": "1970-01-01T00:00:00.000Z"}]})),
        ("(() => { const c = crypto.createDecipher('aes-128-cbc', 'k'); const e = crypto.createCipher('aes-128-cbc', 'k');
            const x = e.update('hello world, hello', 'utf8', 'base64') + e.final('base64');
            return c.update(x, 'base64', 'utf8') + c.final('utf8'); })()", json!("hello world, hello")),
        ("(() => { const c = crypto.createCipher('aes-256-cbc', 'k'), p = crypto.createDecipher('aes-256-cbc', 'k');
            const x = c.update('a' + 'é'.repeat(12), 'utf8', 'hex') + c.final('hex');
            return p.update(x, 'hex', 'utf8') + p.final('utf8'); })()", json!("aéééééééééééé")),
        ("['apple', 'Banana', 'éclair', 'Eclair'].sort((a, b) => a.localeCompare(b))",
            json!(["apple", "Banana", "Eclair", "éclair"])),
        ("[(1234567.5).toLocaleString(), (-0.25).toLocaleString()]", json!(["1,234,567.5", "-0.25"])),
        ("({ a: new Number(1), b: new Map([[1, 2]]), c: Object.create(null), d: [, 1] })",
            json!({"a": 1, "b": {}, "c": {}, "d": [null, 1]})),
        ("(() => { let n = 0; return { get a() { return ++n; }, at: new Date(0) }; })()",
            json!({"a": 1, "at": "1970-01-01T00:00:00.000Z"})),
        ("({ x: { toJSON(key) { return { key, toJSON: () => 1 }; } } })", json!({"x": {"key": "x"}})),
        ("new Date('2024-01-15T10:30:00').toISOString()", json!("2024-01-15T10:30:00.000Z")),
        ("new Date(2024, 0, 15).getHours()", json!(0)),
        ("String(new Date(0))", json!("Thu Jan 01 1970 00:00:00 GMT+0000 (Coordinated Universal Time)")),
        ("new Date(0).toLocaleDateString()", json!("1/1/1970")),
        ("new Date(2020, 1, 31).getDate()", json!(2)),
        ("[new Date() instanceof Date, Date.name, typeof Date()]", json!([true, "Date", "string"])),
    ] {
        let out = function(&format!("() => {expression}")).call(&[]).unwrap();
        assert_eq!(out, expected, "{expression}");
    }
    for (expression, name) in [
        ("crypto.createHash('sha256').update(undefined)", "TypeError"),
        ("crypto.createHash('sha257')", "Error"),
        ("crypto.createCipher('aes-256-cbc', undefined)", "TypeError"),
        ("new URL('nonsense')", "TypeError"),
        ("new Date().toLocaleDateString('de-DE')", "RangeError"),
        ("(1).toLocaleString('de-DE')", "RangeError"),
        ("new URL('https://a.b/?t=1').searchParams.delete('t')", "TypeError"),
        ("(() => { const u = new URL('https://a.b/?t=1'); u.search = ''; return u.href; })()", "TypeError"),
        ("structuredClone(() => 1)", "DataCloneError"),
    ] {
        assert_eq!(
            function(&format!("() => {expression}")).call(&[]).unwrap_err().name,
            name,
            "{expression}"
        );
    }
}

#[test]
fn clock_changes_are_as_in_node() {
    for (zone, expression, expected) in [
        ("America/New_York", "new Date(2024, 2, 10, 2, 30)", "2024-03-10T07:30:00.000Z"),
        ("Europe/Berlin", "new Date(2024, 9, 27, 2, 30)", "2024-10-27T00:30:00.000Z"),
        ("Europe/Berlin", "new Date(NaN, 9)", ""),
    ] {
        let host = Host::default().in_zone(zone).unwrap();
        let script = Script::new(format!(
            "() => {{ const d = {expression}; return isNaN(d) ? '' : d.toISOString(); }}"
        ));
        let out =
            JsFunction::compile(script, Options { host, ..Options::default() }).unwrap().call(&[]).unwrap();
        assert_eq!(out, expected, "{zone} {expression}");
    }
}

#[test]
fn the_time_zone_is_the_one_that_is_asked_for() {
    let host = Host::default().in_zone("America/Sao_Paulo").unwrap();
    let options = || Options { host: host.clone(), ..Options::default() };
    for (expression, expected) in [
        ("new Date('2024-01-15T10:30:00Z').getHours()", json!(7)),
        ("new Date('2024-01-15T10:30:00').toISOString()", json!("2024-01-15T13:30:00.000Z")),
        ("new Date(2024, 0, 15, 22).toISOString()", json!("2024-01-16T01:00:00.000Z")),
        ("new Date(0).getTimezoneOffset()", json!(180)),
        (
            "(() => { const d = new Date(0); d.setHours(0); return d.toISOString(); })()",
            json!("1969-12-31T03:00:00.000Z"),
        ),
        ("new Date(0).toTimeString()", json!("21:00:00 GMT-0300 (America/Sao_Paulo)")),
    ] {
        let script = Script::new(format!("() => {expression}"));
        let out = JsFunction::compile(script, options()).unwrap().call(&[]).unwrap();
        assert_eq!(out, expected, "{expression}");
    }
}
