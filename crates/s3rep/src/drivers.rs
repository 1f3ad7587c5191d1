//! The table of drivers: what `driver:` in a configuration may name.
//!
//! A new driver is one line in `TABLE`, with the feature that compiles it.

use std::{fmt::Write, sync::Arc};

use s3rep_core::{Capability, DriverConfig, Result, Sink};
use serde::de::{Deserialize, Deserializer, IgnoredAny};

use crate::config::build;

/// The lines of the table: the feature, the name with its aliases, and the type of the configuration.
macro_rules! table {
    ($($feature:literal: $name:literal $(| $alias:literal)* => $config:path;)*) => {
        &[$(Driver {
            name: $name,
            aliases: &[$($alias),*],
            feature: $feature,
            #[cfg(feature = $feature)]
            compiled: Some(Compiled::of::<$config>()),
            #[cfg(not(feature = $feature))]
            compiled: None,
        }),*]
    };
}

// Names stand here a second time (the driver has them too) because they are needed where it is not compiled in.
static TABLE: &[Driver] = table! {
    "postgres": "postgres" | "postgresql" => s3rep_postgres::PostgresConfig;
    "mysql": "mysql" => s3rep_mysql::MysqlConfig;
    "mysql": "mariadb" => s3rep_mysql::MariadbConfig;
    "mysql": "planetscale" => s3rep_mysql::PlanetscaleConfig;
    "libsql": "sqlite" | "libsql" | "turso" => s3rep_libsql::LibsqlConfig;
    "files": "jsonl" => s3rep_files::JsonlConfig;
    "files": "csv" => s3rep_files::CsvConfig;
    "s3db": "s3db" => s3rep_s3db::S3dbConfig;
};

/// Drivers of s3db.js that this version does not have, so that a configuration that moves over is told so.
const NOT_YET: &[&str] = &["bigquery", "dynamodb", "mongodb", "sqs", "webhook"];

/// One driver.
#[derive(Clone, Copy, Debug)]
pub struct Driver {
    name: &'static str,
    aliases: &'static [&'static str],
    feature: &'static str,
    compiled: Option<Compiled>,
}

/// What a driver makes of its options.
pub(crate) type Built = Result<Arc<dyn Sink>>;

/// What needs the driver's crate.
#[derive(Clone, Copy, Debug)]
struct Compiled {
    /// As the driver has them.
    #[cfg(test)]
    names: (&'static str, &'static [&'static str]),
    destination: &'static str,
    capability: fn() -> Capability,
    options: fn() -> &'static [&'static str],
    build: fn(&mut build::Input<'_>) -> Option<Built>,
}

impl Compiled {
    const fn of<C: DriverConfig>() -> Self {
        Self {
            #[cfg(test)]
            names: (C::NAME, C::ALIASES),
            destination: C::DESTINATION,
            capability: C::capability,
            options: options_of::<C>,
            build: build::sink::<C>,
        }
    }
}

impl Driver {
    /// A driver of one's own, for
    /// [`Config::parse_with_drivers`](crate::config::Config::parse_with_drivers).
    pub const fn of<C: DriverConfig>() -> Self {
        Self { name: C::NAME, aliases: C::ALIASES, feature: "", compiled: Some(Compiled::of::<C>()) }
    }

    /// The canonical name.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// Other names that mean the same.
    pub fn aliases(&self) -> &'static [&'static str] {
        self.aliases
    }

    /// The feature of the crate `s3rep` that compiles it in.
    pub fn feature(&self) -> &'static str {
        self.feature
    }

    /// Whether this build has it.
    pub fn is_available(&self) -> bool {
        self.compiled.is_some()
    }

    /// What the destination is, in a few words. `None` when the driver is not in this build.
    pub fn destination(&self) -> Option<&'static str> {
        self.compiled.map(|compiled| compiled.destination)
    }

    /// What its sinks can do, whatever their options. `None` when the driver is not in this build.
    pub fn capability(&self) -> Option<Capability> {
        self.compiled.map(|compiled| (compiled.capability)())
    }

    /// The names in its `config`. Empty when the driver is not in this build.
    pub(crate) fn options(&self) -> &'static [&'static str] {
        self.compiled.map_or(&[], |compiled| (compiled.options)())
    }

    /// Makes a sink from its `config`; `None` when that is wrong, with the problems told.
    pub(crate) fn build(&self, input: &mut build::Input<'_>) -> Option<Built> {
        (self.compiled?.build)(input)
    }

    fn is_called(&self, name: &str) -> bool {
        self.name == name || self.aliases.contains(&name)
    }
}

/// Every driver of this version, in this build or not.
pub fn all() -> &'static [Driver] {
    TABLE
}

/// The driver of that name or alias.
pub fn find(name: &str) -> Option<&'static Driver> {
    find_in(TABLE, name)
}

pub(crate) fn find_in(table: &'static [Driver], name: &str) -> Option<&'static Driver> {
    table.iter().find(|driver| driver.is_called(name))
}

/// Whether a later version is to have the driver.
pub(crate) fn is_planned(name: &str) -> bool {
    NOT_YET.contains(&name)
}

/// The table of destinations in the README.
pub fn markdown() -> String {
    let mut table = String::from(
        "| driver | destination | modes | deletes | delivery | `s3rep verify` |\n|---|---|---|---|---|---|\n",
    );
    for driver in TABLE {
        let Some(Compiled { destination, capability, .. }) = driver.compiled else { continue };
        let can = capability();
        let aliases = driver.aliases.iter().fold(String::new(), |mut text, alias| {
            let _ = write!(text, ", `{alias}`");
            text
        });
        let modes = match (can.upsert, can.append) {
            (true, true) => "upsert, append",
            (true, false) => "upsert",
            (false, true) => "append",
            (false, false) => "–",
        };
        let yes_or_no = |yes| if yes { "yes" } else { "no" };
        let _ = writeln!(
            table,
            "| `{}`{aliases} | {destination} | {modes} | {} | {} | {} |",
            driver.name,
            yes_or_no(can.deletes),
            can.delivery(),
            yes_or_no(can.readback),
        );
    }
    table
}

/// The names of a struct's fields as serde knows them, aliases included: deserialization is begun and given
/// up as soon as they are told.
fn options_of<'de, C: Deserialize<'de>>() -> &'static [&'static str] {
    struct Probe<'a>(&'a mut &'static [&'static str]);

    impl<'de> Deserializer<'de> for Probe<'_> {
        type Error = serde::de::value::Error;

        fn deserialize_any<V: serde::de::Visitor<'de>>(self, _: V) -> Result<V::Value, Self::Error> {
            Err(serde::de::Error::custom("only the fields are asked for"))
        }

        fn deserialize_struct<V: serde::de::Visitor<'de>>(
            self,
            _: &'static str,
            fields: &'static [&'static str],
            visitor: V,
        ) -> Result<V::Value, Self::Error> {
            *self.0 = fields;
            self.deserialize_any(visitor)
        }

        serde::forward_to_deserialize_any! {
            bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option unit
            unit_struct newtype_struct seq tuple tuple_struct map enum identifier ignored_any
        }
    }

    let mut options: &'static [&'static str] = &[];
    // It fails always; the fields are what is wanted.
    let _ = C::deserialize(Probe(&mut options)).map(|_| IgnoredAny);
    options
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_and_the_drivers_agree_on_names() {
        for Driver { name, aliases, compiled, .. } in TABLE {
            let Some(compiled) = compiled else { continue };
            assert_eq!(compiled.names, (*name, *aliases));
        }
    }

    #[test]
    #[cfg(feature = "libsql")]
    fn options_are_known_without_a_configuration() {
        let driver = find("turso").unwrap();
        assert!(driver.options().contains(&"schemaSync"), "{:?}", driver.options());
        assert!(driver.capability().unwrap().transactional_cursor);
    }

    #[test]
    fn names_are_unique_and_none_is_still_planned() {
        let names: Vec<_> =
            TABLE.iter().flat_map(|driver| driver.aliases.iter().chain([&driver.name])).collect();
        for name in &names {
            assert_eq!(names.iter().filter(|other| other == &name).count(), 1, "{name}");
            assert!(!is_planned(name), "{name} is here: remove it from NOT_YET");
        }
    }
}
