//! Tables as they are, and the statements that write to them.

use std::{
    collections::HashMap,
    hash::{DefaultHasher, Hash, Hasher},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
};

use deadpool_postgres::Object;
use s3rep_core::{
    ColumnShape, Error, ErrorKind, OnMismatch, ResourceSchema, Result, RouteMode, RowChange, Scope, Table,
    TableShape,
};
use s3rep_sql::{ColumnType, Dialect, KEY, Role, Target, Write};
use tokio_postgres::types::Type;

use crate::{encode::Wire, error::from_postgres};

const POSTGRES: Dialect = Dialect::Postgres;
/// After so many batches it is tried again whether rows are new to a table that had some of them.
const DIRECT_AGAIN: u32 = 256;

/// What a look at a table finds.
#[derive(Debug)]
pub(crate) struct Look {
    pub(crate) shape: TableShape,
    /// Columns of types that text has to be cast to.
    casts: HashMap<String, String>,
    /// A column that counts the rows as they come.
    pub(crate) counter: Option<String>,
    /// Columns with a unique index of their own.
    unique: Vec<String>,
    /// Columns to which different texts are the same.
    folding: Vec<String>,
    /// Changes when a column does.
    fingerprint: String,
}

/// Of a table, by its quoted name.
pub(crate) const FINGERPRINT: &str = "(SELECT md5(string_agg(concat_ws(':', a.attrelid, a.attnum, a.attname, a.atttypid, \
    a.atttypmod, a.attcollation, a.attnotnull), ',' ORDER BY a.attnum)) FROM pg_attribute a WHERE a.attrelid = to_regclass($1) AND \
    a.attnum > 0 AND NOT a.attisdropped)";

/// Looks at a table; `None` when there is none of that name.
///
/// A column that may be left out of an insert counts as nullable: it has a default. That is no help to a column that
/// is written, with null where the record has nothing. Generated columns cannot be written and are passed over. A
/// domain is its base type.
pub(crate) async fn look(client: &Object, table: &Table) -> Result<Option<Look>> {
    const COLUMNS: &str = "SELECT a.attname::text, \
        CASE t.typtype WHEN 'd' THEN format_type(t.typbasetype, t.typtypmod) ELSE format_type(a.atttypid, a.atttypmod) END, \
        NOT a.attnotnull AND NOT t.typnotnull, \
        EXISTS (SELECT 1 FROM pg_index i WHERE i.indrelid = a.attrelid AND i.indisprimary AND a.attnum = ANY (i.indkey)), \
        t.typtype = 'e', \
        EXISTS (SELECT 1 FROM pg_index i WHERE i.indrelid = a.attrelid AND i.indisunique AND i.indimmediate AND i.indisvalid \
          AND i.indpred IS NULL AND i.indnkeyatts = 1 AND i.indkey[0] = a.attnum), \
        'citext' IN (t.typname, (SELECT b.typname FROM pg_type b WHERE b.oid = t.typbasetype)) IS TRUE \
          OR EXISTS (SELECT 1 FROM pg_collation c WHERE NOT c.collisdeterministic AND (c.oid = a.attcollation OR c.oid IN \
          (SELECT i.indcollation[0] FROM pg_index i WHERE i.indrelid = a.attrelid AND i.indisunique AND i.indkey[0] = a.attnum))), \
        a.atthasdef OR a.attidentity <> '', pg_get_serial_sequence($1, a.attname) IS NOT NULL \
        FROM pg_attribute a JOIN pg_type t ON t.oid = a.atttypid \
        WHERE a.attrelid = to_regclass($1) AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated = '' ORDER BY a.attnum";
    let name = POSTGRES.quote_table(&table.name)?;
    let rows = client.query(COLUMNS, &[&name]).await.map_err(from_postgres)?;
    if rows.is_empty() {
        return refuse_twin(client, &table.name).await.map(|()| None);
    }
    let fingerprint =
        client.query_one(&format!("SELECT {FINGERPRINT}"), &[&name]).await.map_err(from_postgres)?;
    let mut look = Look {
        shape: TableShape::default(),
        casts: HashMap::new(),
        counter: None,
        unique: Vec::new(),
        folding: Vec::new(),
        fingerprint: fingerprint.try_get::<_, Option<String>>(0).map_err(from_postgres)?.unwrap_or_default(),
    };
    let mut excused = Vec::new();
    for row in rows {
        let column = || {
            Ok::<_, tokio_postgres::Error>((
                row.try_get::<_, String>(0)?,
                row.try_get::<_, String>(1)?,
                row.try_get::<_, bool>(2)?,
                row.try_get(3)?,
                row.try_get::<_, bool>(4)?,
                row.try_get::<_, bool>(5)?,
                row.try_get::<_, bool>(6)?,
                row.try_get::<_, bool>(7)?,
                row.try_get::<_, bool>(8)?,
            ))
        };
        let (name, type_name, accepts_null, primary_key, is_enum, is_unique, folds, has_default, counts) =
            column().map_err(from_postgres)?;
        if is_enum {
            look.casts.insert(name.clone(), type_name.clone());
        }
        if is_unique {
            look.unique.push(name.clone());
        }
        if counts {
            look.counter = Some(name.clone());
        }
        if folds {
            look.folding.push(name.clone());
        }
        if has_default && !accepts_null {
            excused.push(name.clone());
        }
        // To s3rep an enumeration is text; the database says which values there are.
        let type_name = if is_enum { "text".to_owned() } else { type_name };
        let nullable = accepts_null || has_default;
        look.shape.columns.push(ColumnShape { name, type_name, nullable, primary_key });
    }
    look.excuse_only_unwritten(table, &excused);
    Ok(Some(look))
}

impl Look {
    /// Of the columns whose default makes up for null, those that rows are written to accept none.
    fn excuse_only_unwritten(&mut self, table: &Table, excused: &[String]) {
        // A table that does not fit at all is refused elsewhere.
        let Ok(fit) = POSTGRES.fit(table, &self.shape, OnMismatch::Ignore) else { return };
        for shape in self.shape.columns.iter_mut().filter(|shape| excused.contains(&shape.name)) {
            shape.nullable = !fit.columns.iter().any(|column| column.shape.name == shape.name);
        }
    }
}

/// A table whose name differs only by case was most likely meant: s3db.js writes names without quotes, which
/// PostgreSQL makes lower case.
async fn refuse_twin(client: &Object, table: &str) -> Result<()> {
    let (schema, name) = POSTGRES.split_table(table);
    let sql = "SELECT c.relname::text FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace \
        WHERE lower(c.relname) = lower($1) AND c.relname <> $1 AND c.relkind IN ('r', 'p', 'v', 'm', 'f') \
        AND CASE WHEN $2::text IS NULL THEN n.nspname = ANY (current_schemas(false)) ELSE n.nspname = $2 END LIMIT 1";
    let found = client.query_opt(sql, &[&name, &schema]).await.map_err(from_postgres)?;
    let Some(row) = found else { return Ok(()) };
    let other: String = row.try_get(0).map_err(from_postgres)?;
    Err(Error::new(
        ErrorKind::SchemaMismatch,
        "there is no such table, but one whose name differs only by case",
    )
    .with_scope(Scope::Table)
    .with_context("table", table)
    .with_context("there is", other)
    .with_advice("spell it as it is in the database, or name another table in the mapping"))
}

/// A table with the statements that write to it.
#[derive(Debug)]
pub(crate) struct Prepared {
    schema: Arc<ResourceSchema>,
    pub(crate) fingerprint: String,
    /// The table's quoted name.
    pub(crate) name: String,
    /// The key's place among the targets.
    key: Option<usize>,
    pub(crate) targets: Vec<Target>,
    pub(crate) wires: Vec<Wire>,
    /// Parameters: one array a column.
    pub(crate) upsert: String,
    pub(crate) upsert_types: Vec<Type>,
    /// Parameter: an array of keys.
    pub(crate) delete: String,
    /// Into the table itself.
    pub(crate) copy: String,
    pub(crate) create_stage: String,
    pub(crate) copy_to_stage: String,
    /// From the stage into the table.
    pub(crate) merge: String,
    /// Batches until it is tried again whether all rows are new.
    direct_in: AtomicU32,
}

impl Prepared {
    fn new(table: &Table, look: &Look, on_mismatch: OnMismatch) -> Result<Self> {
        POSTGRES.check_table_name(&table.name)?;
        let fit = POSTGRES.fit(table, &look.shape, on_mismatch)?;
        for warning in &fit.warnings {
            tracing::warn!(table = %table.name, "{warning}: it is left out");
        }
        let write = Write::of(&table.name, table.mode, &fit);
        if !look.unique.iter().any(|column| column == write.unique) {
            return Err(no_unique_index(table, write.unique));
        }
        if look.folding.iter().any(|column| column == write.unique) {
            return Err(folds(table, write.unique));
        }
        let targets: Vec<_> =
            fit.columns.iter().map(|column| Target::new(POSTGRES, column, &table.schema)).collect();
        let wires = targets
            .iter()
            .map(|target| Wire::of(target.column_type).ok_or_else(|| unsupported(table, target)))
            .collect::<Result<Vec<_>>>()?;
        let quoted = write.columns.iter().map(|column| POSTGRES.quote(column)).collect::<Result<Vec<_>>>()?;
        let names = quoted.join(", ");
        let name = POSTGRES.quote_table(&table.name)?;
        let stage = stage_name(&look.fingerprint, &names);
        let select = selection(&look.casts, &targets);
        let arrays: Vec<_> =
            wires.iter().zip(1..).map(|(wire, number)| format!("${number}::{}", wire.array().1)).collect();
        let places: Vec<_> = (1..=wires.len()).map(|number| format!("c{number}")).collect();
        let (arrays, places) = (arrays.join(", "), places.join(", "));
        let key = targets.iter().position(|target| target.role == Role::Key);
        let delete = deletion(table, key.and_then(|key| targets.get(key)), &look.casts)?;
        Ok(Self {
            schema: table.schema.clone(),
            fingerprint: look.fingerprint.clone(),
            upsert: POSTGRES
                .write_from(&write, &format!("SELECT {select} FROM unnest({arrays}) AS r({places})"))?,
            upsert_types: wires.iter().map(|wire| wire.array().0).collect(),
            delete,
            copy: format!("COPY {name} ({names}) FROM STDIN BINARY"),
            // Has the types of the table. Kept by the session; rows go with the transaction.
            create_stage: format!(
                "CREATE TEMP TABLE IF NOT EXISTS {stage} ON COMMIT DELETE ROWS AS SELECT {names} FROM {name} WITH NO DATA"
            ),
            copy_to_stage: format!("COPY pg_temp.{stage} ({names}) FROM STDIN BINARY"),
            merge: POSTGRES.write_from(&write, &format!("SELECT {names} FROM pg_temp.{stage}"))?,
            name,
            key,
            targets,
            wires,
            direct_in: AtomicU32::new(0),
        })
    }

    fn is_for(&self, table: &Table) -> bool {
        Arc::ptr_eq(&self.schema, &table.schema) || self.schema == table.schema
    }

    /// Whether the table can have a row with the key of this change.
    pub(crate) fn may_have(&self, change: &RowChange) -> bool {
        let key = self.key.and_then(|key| self.targets.get(key));
        key.is_none_or(|key| key.cell(&self.schema, change).is_ok())
    }

    /// Whether rows that should be new may go straight into the table.
    pub(crate) fn tries_direct(&self) -> bool {
        self.direct_in.try_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_err()
    }

    /// Some rows were there already.
    pub(crate) fn direct_failed(&self) {
        self.direct_in.store(DIRECT_AGAIN, Ordering::Relaxed);
    }
}

fn selection(casts: &HashMap<String, String>, targets: &[Target]) -> String {
    let cast = |(target, number): (&Target, usize)| match casts.get(&target.name) {
        Some(type_name) => format!("c{number}::{type_name}"),
        None => format!("c{number}"),
    };
    targets.iter().zip(1..).map(cast).collect::<Vec<_>>().join(", ")
}

/// Deletes by an array of keys. The cast makes the index of a `char` column usable; that of an enumeration would fail
/// at what is not in it, and such a table is small.
fn deletion(table: &Table, key: Option<&Target>, casts: &HashMap<String, String>) -> Result<String> {
    let Some(key) = key else { return POSTGRES.delete_keys(&table.name, KEY, "$1::text[]") };
    if casts.contains_key(&key.name) {
        let (table, key) = (POSTGRES.quote_table(&table.name)?, POSTGRES.quote(&key.name)?);
        return Ok(format!("DELETE FROM {table} WHERE {key}::text = ANY ($1::text[])"));
    }
    let keys = match key.column_type {
        ColumnType::Text { padded: true, .. } => "$1::text[]::bpchar[]",
        _ => "$1::text[]",
    };
    POSTGRES.delete_keys(&table.name, &key.name, keys)
}

/// Another table, and other columns of it, have another stage.
fn stage_name(fingerprint: &str, names: &str) -> String {
    let mut hasher = DefaultHasher::new();
    (fingerprint, names).hash(&mut hasher);
    format!("_s3rep_stage_{:016x}", hasher.finish())
}

fn no_unique_index(table: &Table, column: &str) -> Error {
    Error::new(ErrorKind::SchemaMismatch, "the table has no unique index on its key column")
        .with_scope(Scope::Table)
        .with_context("table", &table.name)
        .with_context("column", column)
        .with_advice("make it the primary key, or give it a unique index of its own")
}

fn folds(table: &Table, column: &str) -> Error {
    Error::new(ErrorKind::SchemaMismatch, "the key column takes different texts for the same, as `a` and `A`")
        .with_scope(Scope::Table)
        .with_context("table", &table.name)
        .with_context("column", column)
        .with_advice(
            "give it, and its index, the type text or varchar and a deterministic collation, such as \"C\"",
        )
}

fn unsupported(table: &Table, target: &Target) -> Error {
    Error::new(ErrorKind::SchemaMismatch, "the column has a type that s3rep does not write")
        .with_scope(Scope::Table)
        .with_context("table", &table.name)
        .with_context("column", &target.name)
        .with_advice("give it a type of the table in the documentation, or leave the attribute out")
}

type ByTable = HashMap<(Arc<str>, RouteMode), Arc<Prepared>>;

/// What is known of tables.
#[derive(Debug, Default)]
pub(crate) struct Tables(Mutex<ByTable>);

impl Tables {
    fn lock(&self) -> MutexGuard<'_, ByTable> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What was found at the last look, if that was for this schema.
    pub(crate) fn known(&self, table: &Table) -> Option<Arc<Prepared>> {
        self.lock().get(&(table.name.clone(), table.mode)).filter(|known| known.is_for(table)).cloned()
    }

    /// The statements for a table as it is now.
    pub(crate) async fn prepared(
        &self,
        client: &Object,
        table: &Table,
        on_mismatch: OnMismatch,
    ) -> Result<Arc<Prepared>> {
        if let Some(known) = self.known(table) {
            return Ok(known);
        }
        let Some(look) = look(client, table).await? else {
            return Err(Error::new(ErrorKind::NotFound, "there is no such table")
                .with_scope(Scope::Table)
                .with_context("table", &table.name)
                .with_advice("set schemaSync.enabled to true, or create the table"));
        };
        let prepared = Arc::new(Prepared::new(table, &look, on_mismatch)?);
        self.lock().insert((table.name.clone(), table.mode), prepared.clone());
        Ok(prepared)
    }

    pub(crate) fn forget(&self) {
        self.lock().clear();
    }
}
