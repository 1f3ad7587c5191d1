//! The objects that functions find: `crypto`, `process.env`, `console`, `Buffer`, `URL`, a clock. Nothing of them
//! reaches a file, a network or a timer.

mod crypto;
mod text;

use std::{collections::BTreeMap, fmt, sync::Arc};

use jiff::{Timestamp, tz::TimeZone};
use rquickjs::{Ctx, Exception, Function, Object, TypedArray, context::EvalOptions};

/// What a function sees of the world.
#[derive(Clone)]
pub struct Host {
    /// `process.env`: these names and no others.
    pub env: BTreeMap<String, String>,
    /// The zone of `getHours()` and the like. Default: UTC, whatever the machine's is, so that a function gives the
    /// same result everywhere.
    pub zone: TimeZone,
    /// The time of `Date.now()` and `new Date()`, in milliseconds since 1970.
    pub clock: Arc<dyn Fn() -> i64 + Send + Sync>,
    /// What `Math.random()` and `crypto.randomUUID()` are made of.
    pub random: Arc<dyn Fn() -> u64 + Send + Sync>,
    /// What `crypto.randomUUID()` returns, for tests. Default: a new one each time.
    pub uuid: Option<String>,
}

impl Default for Host {
    fn default() -> Self {
        Self {
            env: BTreeMap::new(),
            zone: TimeZone::UTC,
            clock: Arc::new(|| Timestamp::now().as_millisecond()),
            random: Arc::new(rand::random),
            uuid: None,
        }
    }
}

impl Host {
    /// The same with a clock that stands at this instant, as RFC 3339 has it.
    ///
    /// # Errors
    /// When the text is no instant.
    pub fn at(mut self, instant: &str) -> Result<Self, String> {
        let at: Timestamp =
            instant.parse().map_err(|_| format!("'{instant}' is no instant such as 2024-01-15T10:30:00Z"))?;
        self.clock = Arc::new(move || at.as_millisecond());
        Ok(self)
    }

    /// The same in this time zone of the IANA database, such as `America/Sao_Paulo`.
    ///
    /// # Errors
    /// When there is none of this name.
    pub fn in_zone(mut self, name: &str) -> Result<Self, String> {
        self.zone = TimeZone::get(name)
            .map_err(|_| format!("'{name}' is no time zone such as UTC or Europe/Lisbon"))?;
        Ok(self)
    }
}

impl fmt::Debug for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Values of the environment are secrets more often than not.
        f.debug_struct("Host")
            .field("env", &self.env.keys())
            .field("zone", &self.zone)
            .finish_non_exhaustive()
    }
}

type Js<T> = rquickjs::Result<T>;

/// The name of the host's own text in stacks.
pub(crate) const HOST_FILE: &str = "s3rep:host";

/// Puts the objects into a realm.
pub(crate) fn install(cx: &Ctx<'_>, host: &Host) -> Js<()> {
    let mut options = EvalOptions::default();
    options.filename = Some(HOST_FILE.to_owned());
    let install: Function<'_> = cx.eval_with_options(include_str!("host.js"), options)?;
    let env = serde_json::to_string(&host.env).unwrap_or_default();
    install.call((native(cx, host)?, env))
}

fn native<'js>(cx: &Ctx<'js>, host: &Host) -> Js<Object<'js>> {
    let native = Object::new(cx.clone())?;
    let (clock, random) = (host.clock.clone(), host.random.clone());
    native.set("now", Function::new(cx.clone(), move || clock() as f64)?)?;
    // The upper 53 bits, which a double has.
    native
        .set("random", Function::new(cx.clone(), move || (random() >> 11) as f64 / (1_u64 << 53) as f64)?)?;
    let (random, fixed) = (host.random.clone(), host.uuid.clone());
    let uuid = move || fixed.clone().unwrap_or_else(|| new_uuid(&*random));
    native.set("uuid", Function::new(cx.clone(), uuid)?)?;
    native.set("isUtc", host.zone == TimeZone::UTC)?;
    native.set("zone", name_of(&host.zone))?;
    let zone = host.zone.clone();
    native.set("offset", Function::new(cx.clone(), move |time: f64| minutes_east(&zone, time))?)?;
    let zone = host.zone.clone();
    native.set("fromWall", Function::new(cx.clone(), move |wall: f64| from_wall(&zone, wall))?)?;
    native.set("log", Function::new(cx.clone(), |level: String, text: String| log(&level, &text))?)?;
    native.set("bytes", Function::new(cx.clone(), bytes)?)?;
    native.set("text", Function::new(cx.clone(), text_of)?)?;
    native.set("hash", Function::new(cx.clone(), hash)?)?;
    native.set("cipher", Function::new(cx.clone(), cipher)?)?;
    native.set("url", Function::new(cx.clone(), url)?)?;
    Ok(native)
}

fn new_uuid(random: &dyn Fn() -> u64) -> String {
    let bytes = u128::from(random()) << 64 | u128::from(random());
    uuid::Builder::from_random_bytes(bytes.to_be_bytes()).into_uuid().to_string()
}

/// As JavaScript prints it.
fn name_of(zone: &TimeZone) -> String {
    match zone.iana_name() {
        Some("UTC") | None => "Coordinated Universal Time".to_owned(),
        Some(name) => name.to_owned(),
    }
}

fn minutes_east(zone: &TimeZone, time: f64) -> f64 {
    let timestamp = Timestamp::from_millisecond(time as i64).unwrap_or(Timestamp::MAX);
    f64::from(zone.to_offset(timestamp).seconds()) / 60.0
}

/// The instant at which the clock on the wall shows this, as if it were UTC. What it shows twice is the first time, and
/// what it never shows is as long after the change, as in JavaScript.
fn from_wall(zone: &TimeZone, wall: f64) -> f64 {
    let Ok(wall_time) = Timestamp::from_millisecond(wall as i64) else { return wall };
    let shown = TimeZone::UTC.to_datetime(wall_time);
    match zone.to_ambiguous_timestamp(shown).compatible() {
        Ok(instant) if wall.is_finite() => instant.as_millisecond() as f64,
        _ => wall,
    }
}

fn log(level: &str, text: &str) {
    match level {
        "error" => tracing::error!(target: "s3rep::js", "{text}"),
        "warn" => tracing::warn!(target: "s3rep::js", "{text}"),
        "debug" | "trace" => tracing::debug!(target: "s3rep::js", "{text}"),
        _ => tracing::info!(target: "s3rep::js", "{text}"),
    }
}

// Bytes come as text of which each character is one, and go as arrays.

fn bytes(cx: Ctx<'_>, text: String, encoding: String) -> Js<TypedArray<'_, u8>> {
    TypedArray::new_copy(cx, text::to_bytes(&text, &encoding))
}

fn text_of(bytes: String, encoding: String) -> String {
    text::from_bytes(&text::to_bytes(&bytes, "latin1"), &encoding)
}

fn hash(cx: Ctx<'_>, algorithm: String, data: String) -> Js<TypedArray<'_, u8>> {
    match crypto::hash(&algorithm, &text::to_bytes(&data, "latin1")) {
        Some(digest) => TypedArray::new_copy(cx, digest),
        None => Err(Exception::throw_message(
            &cx,
            "Digest method not supported: md5, sha1, sha256 and sha512 are",
        )),
    }
}

fn cipher(
    cx: Ctx<'_>,
    algorithm: String,
    key: String,
    data: String,
    decrypts: bool,
    is_end: bool,
) -> Js<TypedArray<'_, u8>> {
    let (key, data) = (text::to_bytes(&key, "latin1"), text::to_bytes(&data, "latin1"));
    match crypto::cipher(&algorithm, &key, &data, decrypts, is_end) {
        Ok(bytes) => TypedArray::new_copy(cx, bytes),
        Err(message) => Err(Exception::throw_message(&cx, message)),
    }
}

fn url(cx: Ctx<'_>, text: String, base: Option<String>) -> Js<String> {
    text::url(&text, base.as_deref()).ok_or_else(|| Exception::throw_type(&cx, "Invalid URL"))
}
