//! Ids of new records.

use std::{
    fmt,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
};

use s3rep_core::{Context, Error, ErrorKind, Record, Result, Scope};
use serde_json::Value;
use tokio::sync::Mutex as AsyncMutex;
use uuid::Uuid;

use super::Resource;
use crate::{
    context::ContextEntropy,
    database::Inner,
    format::{IdScheme, Numbering, ResourceConfig, ResourceFormat, new_id},
    sequence::Sequence,
};

/// Crockford's base 32.
const DIGITS: &[u8; 32] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";

/// How a resource's ids are made in this process. `s3db.json` keeps no more of it than its kind.
pub(crate) struct IdGenerator(Kind);

enum Kind {
    Random(Option<usize>),
    Incremental(Numbers),
    /// The last one: later ones are greater.
    Ulid(Mutex<u128>),
    UuidV7(Mutex<u128>),
    Function(Box<dyn Fn() -> String + Send + Sync>),
}

impl Resource {
    /// Makes ids of new records by a function, through any handle of this process. An empty text stands for a
    /// random id. Declare the resource with `"idGenerator": "custom"`, so that a process without the function
    /// refuses a record without an id instead of making one of another form.
    ///
    /// ```
    /// # use s3rep_s3db::{Database, DatabaseOptions, ResourceConfig};
    /// # use std::sync::atomic::{AtomicU64, Ordering};
    /// # use serde_json::json;
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> s3rep_core::Result<()> {
    /// # let options = DatabaseOptions { create: true, ..DatabaseOptions::default() };
    /// # let database = Database::connect_with("memory://", options).await?;
    /// let config = json!({"name": "users", "attributes": {"name": "string"}, "idGenerator": "custom"});
    /// let users = database.create_resource(&ResourceConfig::from_value(&config)?).await?;
    /// let next = AtomicU64::new(1);
    /// users.generate_ids_with(move || format!("user-{}", next.fetch_add(1, Ordering::Relaxed)));
    /// assert_eq!(users.insert(json!({"name": "Ana"})).await?["id"], "user-1");
    /// # Ok(())
    /// # }
    /// ```
    pub fn generate_ids_with(&self, function: impl Fn() -> String + Send + Sync + 'static) {
        self.database.generate_with(self.name(), IdGenerator(Kind::Function(Box::new(function))));
    }

    /// The id of a new record, made if it has none.
    pub(super) async fn id_of(&self, record: &mut Record) -> Result<String> {
        match record.get("id") {
            None | Some(Value::Null) => {
                let id = self.next_id().await?;
                record.insert("id".to_owned(), Value::String(id.clone()));
                Ok(id)
            }
            Some(Value::String(id)) => Ok(id.clone()),
            Some(_) => Err(Error::new(ErrorKind::InvalidValue, "the id of a record is not text")
                .with_scope(Scope::Record)
                .with_context("resource", self.name())
                .with_advice("write it as text, or leave it out for a generated one")),
        }
    }

    async fn next_id(&self) -> Result<String> {
        if let Some(generator) = self.database.generator(self.name()) {
            return generator.next(&self.database, &self.format).await;
        }
        match self.format.id_generator_kind() {
            "default" => Ok(new_id(&mut ContextEntropy(self.cx()), self.format.id_size())),
            kind => Err(Error::new(
                ErrorKind::ConfigInvalid,
                "the record has no id, and how this resource makes ids is not stored in s3db.json",
            )
            .with_scope(Scope::Record)
            .with_operation("insert")
            .with_context("resource", self.name())
            .with_context("idGenerator", kind)
            .with_advice(match kind {
                "incremental" => {
                    "give the record an id, or declare the resource with create_resource and its idGenerator first"
                }
                _ => {
                    "give the record an id, or hand the function over with Resource::generate_ids_with (or \
                     declare the resource with create_resource and \"ulid\" or \"uuidv7\") first"
                }
            })),
        }
    }
}

impl IdGenerator {
    /// The generator that a configuration asks for; none when it says nothing of ids, or of a function to come.
    ///
    /// # Errors
    /// [`ErrorKind::ConfigInvalid`] with every problem of the configuration.
    pub(crate) fn of(config: &ResourceConfig) -> Result<Option<Self>> {
        config.check()?;
        let kind = match config.id_scheme() {
            None | Some(IdScheme::Custom) => return Ok(None),
            Some(IdScheme::Random(size)) => Kind::Random(size),
            Some(IdScheme::Incremental(numbering)) => Kind::Incremental(Numbers::new(numbering)),
            Some(IdScheme::Ulid) => Kind::Ulid(Mutex::default()),
            Some(IdScheme::UuidV7) => Kind::UuidV7(Mutex::default()),
        };
        Ok(Some(Self(kind)))
    }

    /// An id that no other record has: random, or counted where nobody else counts.
    pub(crate) async fn next(&self, database: &Inner, format: &ResourceFormat) -> Result<String> {
        let cx = &database.context;
        let random = |size| new_id(&mut ContextEntropy(cx), size);
        match &self.0 {
            Kind::Random(size) => Ok(random(size.unwrap_or(format.id_size()))),
            Kind::Incremental(numbers) => numbers.next(database, format.name()).await,
            Kind::Ulid(last) => Ok(ulid(greater(last, cx, 80))),
            Kind::UuidV7(last) => Ok(uuid_v7(greater(last, cx, 74))),
            Kind::Function(function) => {
                Ok(Some(function()).filter(|id| !id.is_empty()).unwrap_or_else(|| random(format.id_size())))
            }
        }
    }
}

/// Numbers of a sequence, some of them taken ahead.
struct Numbers {
    numbering: Numbering,
    taken: AsyncMutex<Taken>,
    /// Calls that want a number now: with one request to the store they all get one.
    waiting: AtomicU32,
}

#[derive(Default)]
struct Taken {
    next: i64,
    left: u32,
}

/// Counts a call for as long as it waits, cancelled ones too.
struct Waiting<'a>(&'a AtomicU32);

impl<'a> Waiting<'a> {
    fn new(count: &'a AtomicU32) -> Self {
        count.fetch_add(1, Ordering::AcqRel);
        Self(count)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Numbers {
    fn new(numbering: Numbering) -> Self {
        Self { numbering, taken: AsyncMutex::default(), waiting: AtomicU32::new(0) }
    }

    async fn next(&self, database: &Inner, resource: &str) -> Result<String> {
        // Given back before the place in line is, in the order of their declaration backwards.
        let mut taken;
        let _waiting = Waiting::new(&self.waiting);
        taken = self.taken.lock().await;
        if taken.left == 0 {
            let Numbering { start, increment, batch, .. } = self.numbering;
            let count = self.waiting.load(Ordering::Acquire).max(batch);
            let sequence = Sequence { resource, start, increment };
            let next = sequence.take(&*database.store, &database.context, count).await?;
            *taken = Taken { next, left: count };
        }
        let number = taken.next;
        taken.next = number.saturating_add(self.numbering.increment);
        taken.left -= 1;
        Ok(self.numbering.id(number))
    }
}

/// The time in milliseconds above so many random bits, greater than the one before.
fn greater(last: &Mutex<u128>, cx: &Context, bits: u32) -> u128 {
    let time = u128::from(cx.now().0.unsigned_abs()) & ((1 << 48) - 1);
    let random = (u128::from(cx.random()) << 64 | u128::from(cx.random())) & ((1 << bits) - 1);
    let mut last = last.lock().unwrap_or_else(PoisonError::into_inner);
    let fresh = time << bits | random;
    *last = if fresh >> bits > *last >> bits { fresh } else { *last + 1 };
    *last
}

fn ulid(value: u128) -> String {
    let digit = |at: u32| char::from(DIGITS[(value >> (at * 5) & 31) as usize]);
    (0..26).rev().map(digit).collect()
}

/// RFC 9562: 48 bits of time, the version, 12 bits, the variant, 62 bits.
fn uuid_v7(value: u128) -> String {
    let (time, high, low) = (value >> 74, value >> 62 & 0xfff, value & ((1 << 62) - 1));
    Uuid::from_u128(time << 80 | 7 << 76 | high << 64 | 2 << 62 | low).to_string()
}

impl fmt::Debug for IdGenerator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0 {
            Kind::Random(_) => "IdGenerator(random)",
            Kind::Incremental(_) => "IdGenerator(incremental)",
            Kind::Ulid(_) => "IdGenerator(ulid)",
            Kind::UuidV7(_) => "IdGenerator(uuidv7)",
            Kind::Function(_) => "IdGenerator(function)",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ulids_and_uuids_of_known_values() {
        // The example of the specification of ULID: 01ARYZ6S41 is 1469918176385.
        assert!(ulid(1_469_918_176_385_u128 << 80).starts_with("01ARYZ6S41000000"));
        assert_eq!(ulid(u128::MAX), "7ZZZZZZZZZZZZZZZZZZZZZZZZZ");
        // RFC 9562, A.6
        let value = 0x017F_22E2_79B0_u128 << 74 | 0xCC3 << 62 | 0x18C4_DC0C_0C07_398F;
        assert_eq!(uuid_v7(value), "017f22e2-79b0-7cc3-98c4-dc0c0c07398f");
    }

    #[test]
    fn later_ones_are_greater_also_within_a_millisecond() {
        let (last, cx) = (Mutex::default(), crate::context::system());
        let mut before = (String::new(), String::new());
        for _ in 0..10_000 {
            let value = greater(&last, &cx, 74);
            let now = (ulid(value), uuid_v7(value));
            assert!(now.0 > before.0 && now.1 > before.1);
            before = now;
        }
    }
}
