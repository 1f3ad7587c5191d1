//! Tables as they are, and the statements that write to them.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use mysql_async::{Row, Value};
use s3rep_core::{
    ColumnShape, Error, ErrorKind, OnMismatch, ResourceSchema, Result, RouteMode, Scope, Table, TableShape,
};
use s3rep_sql::{Dialect, FittedColumn, Layout, Role, Target, Write};

use crate::{
    connection::{Server, Session},
    encode::{Column, words_of},
    error::from_mysql,
};

/// What a look at a table finds.
#[derive(Debug)]
pub(crate) struct Look {
    pub(crate) shape: TableShape,
    details: HashMap<String, Detail>,
    /// Columns with a unique index of their own.
    unique: Vec<String>,
}

/// What a column's shape does not say.
#[derive(Clone, Debug, Default)]
struct Detail {
    accepts_null: bool,
    charset: String,
    collation: String,
    counts: bool,
    /// The server reads what is written, as JSON.
    reads_json: bool,
}

/// Looks at a table; `None` when there is none of that name.
///
/// A column that may be left out of an insert counts as nullable: it has a default. Generated columns cannot be
/// written and are passed over.
pub(crate) async fn look(session: &mut Session, table: &str) -> Result<Option<Look>> {
    let server = session.server()?;
    let (schema, name) = server.dialect.split_table(table);
    let schema = schema.unwrap_or(session.database()).to_owned();
    let mut metadata = Metadata { session, schema, name, table };
    if !metadata.exists().await? {
        return metadata.refuse_twin(server).await.map(|()| None);
    }
    let unique = metadata.unique().await?;
    let checks = if server.dialect == Dialect::Mariadb { metadata.checks().await? } else { Vec::new() };
    let mut look = Look { shape: TableShape::default(), details: HashMap::new(), unique };
    for Found { shape, mut detail } in metadata.columns().await? {
        let check = format!("json_valid(`{}`)", shape.name.replace('`', "``"));
        detail.reads_json = shape.type_name.eq_ignore_ascii_case("json") || checks.contains(&check);
        look.details.insert(shape.name.clone(), detail);
        look.shape.columns.push(shape);
    }
    Ok(Some(look))
}

/// Questions to the server about one table.
struct Metadata<'a> {
    session: &'a mut Session,
    /// The database.
    schema: String,
    name: &'a str,
    /// As the mapping writes it.
    table: &'a str,
}

/// A column of `information_schema`.
struct Found {
    shape: ColumnShape,
    detail: Detail,
}

impl Metadata<'_> {
    /// Asks about the database and the table.
    async fn ask(&mut self, sql: &str) -> Result<Vec<Vec<Option<String>>>> {
        let place = vec![Value::from(self.schema.as_str()), Value::from(self.name)];
        let asked = self.session.query(sql, place).await;
        let rows = asked.map_err(|error| from_mysql(error).with_context("table", self.table))?;
        Ok(rows.into_iter().map(|row: Row| row.unwrap().into_iter().map(text).collect()).collect())
    }

    /// Whether the table is there. One that rows cannot be written to, and taken back from, is refused.
    async fn exists(&mut self) -> Result<bool> {
        const SQL: &str = "SELECT t.table_name, t.table_type, t.engine, e.transactions \
            FROM information_schema.tables t LEFT JOIN information_schema.engines e ON e.engine = t.engine \
            WHERE t.table_schema = ? AND t.table_name = ?";
        let found = self.ask(SQL).await?.into_iter().map(columns::<4>);
        // The comparison may pass over case and accents.
        let found = found.into_iter().find(|[name, ..]| name == self.name);
        let Some([_, kind, engine, transactions]) = found else { return Ok(false) };
        if kind.ends_with("VIEW") {
            return Err(mismatch(self.table, "it is a view, and not a table", "name a table in the mapping"));
        }
        if transactions != "YES" {
            let message = "its storage engine has no transactions: rows and cursor could not move together";
            return Err(mismatch(self.table, message, "ALTER TABLE … ENGINE = InnoDB")
                .with_context("engine", if engine.is_empty() { "none" } else { &engine }));
        }
        Ok(true)
    }

    /// A table whose name differs only by case: the server takes the two for one, or it was most likely meant.
    async fn refuse_twin(&mut self, server: Server) -> Result<()> {
        const SQL: &str = "SELECT table_name FROM information_schema.tables \
            WHERE table_schema = ? AND LOWER(table_name) = LOWER(?)";
        let lower = self.name.to_lowercase();
        let mut found = self.ask(SQL).await?.into_iter().map(columns).map(|[name]: [String; 1]| name);
        let Some(twin) = found.find(|name| name.to_lowercase() == lower) else { return Ok(()) };
        let message = if server.folds_case {
            "the database has a table whose name differs only by case, and takes them for one"
        } else {
            "there is no such table, but one whose name differs only by case"
        };
        let advice = "spell it as it is in the database, or name another table in the mapping";
        Err(mismatch(self.table, message, advice).with_context("there is", twin))
    }

    async fn columns(&mut self) -> Result<Vec<Found>> {
        const SQL: &str = "SELECT column_name, column_type, is_nullable, column_default, extra, column_key, \
            character_set_name, collation_name FROM information_schema.columns \
            WHERE table_schema = ? AND table_name = ? ORDER BY ordinal_position";
        let found = self.ask(SQL).await?.into_iter().map(|row| {
            let has_default = row.get(3).is_some_and(Option::is_some);
            let [name, type_name, nullable, _, extra, key, charset, collation] = columns(row);
            let extra = extra.to_ascii_uppercase();
            // `DEFAULT_GENERATED` is a default that is computed.
            let is_generated = extra.contains(" GENERATED") || extra == "GENERATED";
            let (accepts_null, counts) = (nullable == "YES", extra.contains("AUTO_INCREMENT"));
            let may_be_left_out = accepts_null || has_default || counts;
            let shape = ColumnShape { name, type_name, nullable: may_be_left_out, primary_key: key == "PRI" };
            let detail = Detail { accepts_null, charset, collation, counts, reads_json: false };
            (!is_generated).then_some(Found { shape, detail })
        });
        Ok(found.flatten().collect())
    }

    /// Columns with a unique index of their own, over all of their text.
    async fn unique(&mut self) -> Result<Vec<String>> {
        const SQL: &str = "SELECT MAX(column_name) FROM information_schema.statistics \
            WHERE table_schema = ? AND table_name = ? AND non_unique = 0 \
            GROUP BY index_name HAVING COUNT(*) = 1 AND MAX(sub_part) IS NULL";
        Ok(self.ask(SQL).await?.into_iter().map(columns).map(|[name]| name).collect())
    }

    /// MariaDB's JSON is text with a check.
    async fn checks(&mut self) -> Result<Vec<String>> {
        const SQL: &str = "SELECT check_clause FROM information_schema.check_constraints \
            WHERE constraint_schema = ? AND table_name = ?";
        Ok(self.ask(SQL).await?.into_iter().map(columns).map(|[check]| check).collect())
    }
}

fn text(value: Value) -> Option<String> {
    match value {
        Value::NULL => None,
        Value::Bytes(bytes) => Some(String::from_utf8_lossy(&bytes).into_owned()),
        other => Some(other.as_sql(true)),
    }
}

/// The columns of a row, null as empty text.
fn columns<const N: usize>(row: Vec<Option<String>>) -> [String; N] {
    let mut values = row.into_iter().map(Option::unwrap_or_default);
    std::array::from_fn(|_| values.next().unwrap_or_default())
}

fn mismatch(table: &str, message: &'static str, advice: &'static str) -> Error {
    Error::new(ErrorKind::SchemaMismatch, message)
        .with_scope(Scope::Table)
        .with_context("table", table)
        .with_advice(advice)
}

/// What tells a column from what it was before somebody altered the table.
#[derive(Debug, PartialEq)]
struct Mark(String, u8, u32, u8, u16, u16);

/// The marks of a table's columns. The table keeps its shape from here to the end of the transaction: a statement
/// that alters it waits for that.
async fn marks(session: &mut Session, table: &str) -> Result<Vec<Mark>> {
    let name = session.server()?.dialect.quote_table(table)?;
    let columns = session.columns(&format!("SELECT * FROM {name} LIMIT 0")).await.map_err(|error| {
        let error = from_mysql(error).with_context("table", table);
        // Its database may be absent, which is not about other tables.
        if error.kind() == ErrorKind::NotFound { error.with_scope(Scope::Table) } else { error }
    })?;
    let mark = |column: &mysql_async::Column| {
        Mark(
            column.name_str().into_owned(),
            column.column_type() as u8,
            column.column_length(),
            column.decimals(),
            column.flags().bits(),
            column.character_set(),
        )
    };
    Ok(columns.iter().map(mark).collect())
}

/// A table with the statements that write to it.
#[derive(Debug)]
pub(crate) struct Prepared {
    schema: Arc<ResourceSchema>,
    marks: Vec<Mark>,
    dialect: Dialect,
    pub(crate) columns: Vec<Column>,
    /// The same, for those who need no more.
    pub(crate) targets: Vec<Target>,
    /// The column of the keys.
    pub(crate) key: String,
    /// Keys compare as their bytes, and the index of the column is in that order.
    pub(crate) key_is_bytes: bool,
    /// A column that counts the rows as they come.
    pub(crate) counter: Option<String>,
    statements: Mutex<HashMap<Statement, Arc<str>>>,
}

/// A statement for so many rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Statement {
    Write(usize),
    Delete(usize),
}

impl Prepared {
    fn new(
        table: &Table,
        server: Server,
        look: &Look,
        on_mismatch: OnMismatch,
        marks: Vec<Mark>,
    ) -> Result<Self> {
        let dialect = server.dialect;
        dialect.check_table_name(&table.name)?;
        let fit = dialect.fit(table, &look.shape, on_mismatch)?;
        for warning in &fit.warnings {
            tracing::warn!(table = %table.name, "{warning}: it is left out");
        }
        let write = Write::of(&table.name, table.mode, &fit);
        look.check_unique(table, write.unique)?;
        let key = fit.columns.iter().find(|column| column.role == Role::Key);
        let key = key.map_or(s3rep_sql::KEY, |column| &column.shape.name).to_owned();
        let collation = look.details.get(&key).map_or("", |detail| &detail.collation);
        let counter = look.shape.columns.iter().find(|column| look.detail(&column.name).counts);
        let columns: Vec<_> =
            fit.columns.iter().map(|column| look.column(server, column, &table.schema)).collect();
        Ok(Self {
            schema: table.schema.clone(),
            marks,
            dialect,
            key_is_bytes: ["_nopad_bin", "_0900_bin"].iter().any(|end| collation.ends_with(end)),
            counter: counter.map(|column| column.name.clone()),
            targets: columns.iter().map(|column| column.target.clone()).collect(),
            columns,
            key,
            statements: Mutex::default(),
        })
    }

    /// What a statement for so many rows says.
    pub(crate) fn statement(&self, table: &Table, statement: Statement) -> Result<Arc<str>> {
        let mut statements = self.statements.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(sql) = statements.get(&statement) {
            return Ok(sql.clone());
        }
        let sql: Arc<str> = match statement {
            Statement::Write(rows) => self.dialect.write_rows(&self.write(table), rows)?,
            Statement::Delete(keys) => {
                let keys = self.dialect.placeholders(keys);
                self.dialect.delete_keys(&table.name, &self.key, &keys)?
            }
        }
        .into();
        statements.insert(statement, sql.clone());
        Ok(sql)
    }

    fn write<'a>(&'a self, table: &'a Table) -> Write<'a> {
        let unique = match table.mode {
            RouteMode::Upsert => self.key.as_str(),
            RouteMode::Append => self.name_of(Role::ChangeId).unwrap_or(s3rep_sql::CHANGE_ID),
        };
        let columns = self.targets.iter().map(|target| &*target.name).collect();
        // The database keeps the time of an update by itself.
        Write { table: &table.name, mode: table.mode, unique, columns, updated_at: None }
    }

    /// The name of the column with this role.
    pub(crate) fn name_of(&self, role: Role) -> Option<&str> {
        self.targets.iter().find(|target| target.role == role).map(|target| &*target.name)
    }

    fn is_of(&self, table: &Table) -> bool {
        Arc::ptr_eq(&self.schema, &table.schema) || self.schema == table.schema
    }
}

impl Look {
    fn detail(&self, column: &str) -> Detail {
        self.details.get(column).cloned().unwrap_or_default()
    }

    /// Proves that the key, or the identity of a change, finds its own row and nothing else.
    ///
    /// MySQL asks no statement for the column that a row is told by: without a unique index every update would be
    /// another row, and where the column accepts null, the row of another record could lose its key.
    fn check_unique(&self, table: &Table, unique: &str) -> Result<()> {
        let detail = self.detail(unique);
        let at = |error: Error| error.with_context("column", unique);
        if !self.unique.iter().any(|column| column == unique) {
            let message = "the table has no unique index on its key column";
            let advice = "make id the primary key, or _change_id unique in an append table";
            return Err(at(mismatch(&table.name, message, advice)));
        }
        if detail.accepts_null {
            let message = "the key column accepts null, which would let a row lose its key";
            return Err(at(mismatch(&table.name, message, "make the column NOT NULL")));
        }
        if !["utf8mb4", "utf8mb3", "utf8", "ascii"].contains(&&*detail.charset) {
            let message = "the key column has a character set in which keys are other bytes";
            let advice = "give the column the character set utf8mb4";
            return Err(at(
                mismatch(&table.name, message, advice).with_context("character set", &detail.charset)
            ));
        }
        Ok(())
    }

    fn column(&self, server: Server, column: &FittedColumn, schema: &ResourceSchema) -> Column {
        let detail = self.detail(&column.shape.name);
        // What may be left out of a row is not always null in it.
        let shape = ColumnShape { nullable: detail.accepts_null, ..column.shape.clone() };
        Column {
            words: words_of(&shape.type_name),
            most_nested: detail.reads_json.then_some(server.most_nested),
            target: Target::new(server.dialect, &FittedColumn { role: column.role, shape }, schema),
        }
    }

    /// What schema synchronisation would make.
    fn planned(dialect: Dialect, table: &Table) -> Result<Self> {
        let mut look = Self { shape: TableShape::default(), details: HashMap::new(), unique: Vec::new() };
        for column in Layout::of(dialect, table)?.columns {
            let reads_json = column.type_name == "JSON";
            // To MariaDB it is text that is looked at.
            let is_text = reads_json && dialect == Dialect::Mariadb;
            let type_name = if is_text { "longtext".to_owned() } else { column.type_name.into_owned() };
            let detail = Detail {
                accepts_null: column.nullable,
                charset: "utf8mb4".to_owned(),
                reads_json,
                ..Detail::default()
            };
            if matches!(column.role, Role::Key | Role::ChangeId) {
                look.unique.push(column.name.clone());
            }
            look.details.insert(column.name.clone(), detail);
            let (nullable, primary_key) = (column.nullable, column.role == Role::Key);
            look.shape.columns.push(ColumnShape { name: column.name, type_name, nullable, primary_key });
        }
        Ok(look)
    }
}

/// What is known of the tables.
#[derive(Debug)]
pub(crate) struct Tables {
    on_mismatch: OnMismatch,
    /// As they were when rows were written last. Believed only after a look at their marks.
    prepared: Mutex<Known>,
    /// As they were seen last, for those who have to answer without asking.
    seen: Mutex<Known>,
    server: Mutex<Option<Server>>,
    profile: Dialect,
}

type Known = HashMap<(Arc<str>, RouteMode), Arc<Prepared>>;

impl Tables {
    pub(crate) fn new(on_mismatch: OnMismatch, profile: Dialect) -> Self {
        Self {
            on_mismatch,
            prepared: Mutex::default(),
            seen: Mutex::default(),
            server: Mutex::default(),
            profile,
        }
    }

    /// A table as it is now. Part of the caller's transaction, in which it stays so.
    pub(crate) async fn prepared(&self, session: &mut Session, table: &Table) -> Result<Arc<Prepared>> {
        let marks = match marks(session, &table.name).await {
            // Somebody may have spelt it otherwise.
            Err(error) if error.kind() == ErrorKind::NotFound => {
                return Err(look(session, &table.name).await.err().unwrap_or(error));
            }
            marks => marks?,
        };
        let key = (table.name.clone(), table.mode);
        let known = lock(&self.prepared).get(&key).cloned();
        if let Some(known) = known.filter(|known| known.is_of(table) && known.marks == marks) {
            return Ok(known);
        }
        let Some(look) = look(session, &table.name).await? else {
            return Err(absent(&table.name));
        };
        let server = session.server()?;
        self.remember(server);
        let prepared = Arc::new(Prepared::new(table, server, &look, self.on_mismatch, marks)?);
        lock(&self.prepared).insert(key.clone(), prepared.clone());
        lock(&self.seen).insert(key, prepared.clone());
        Ok(prepared)
    }

    /// Looks at a table, and remembers what it saw.
    pub(crate) async fn look(&self, session: &mut Session, table: &Table) -> Result<Option<Look>> {
        let server = session.server()?;
        self.remember(server);
        let look = look(session, &table.name).await?;
        let key = (table.name.clone(), table.mode);
        // One that does not fit is looked at again when it is written, and says so then.
        let prepared = look
            .as_ref()
            .and_then(|look| Prepared::new(table, server, look, OnMismatch::Ignore, Vec::new()).ok());
        match prepared {
            Some(prepared) => drop(lock(&self.seen).insert(key, Arc::new(prepared))),
            None => drop(lock(&self.seen).remove(&key)),
        }
        Ok(look)
    }

    /// A table to read from; `None` when it is absent.
    pub(crate) async fn readable(
        &self,
        session: &mut Session,
        table: &Table,
        looks_again: bool,
    ) -> Result<Option<Arc<Prepared>>> {
        let key = (table.name.clone(), table.mode);
        let seen = lock(&self.seen).get(&key).cloned();
        if let Some(seen) = seen.filter(|seen| seen.is_of(table) && !looks_again) {
            return Ok(Some(seen));
        }
        let server = session.server()?;
        self.remember(server);
        let Some(look) = look(session, &table.name).await? else { return Ok(None) };
        let prepared = Arc::new(Prepared::new(table, server, &look, self.on_mismatch, Vec::new())?);
        lock(&self.seen).insert(key, prepared.clone());
        Ok(Some(prepared))
    }

    /// A table as it was seen last, or as schema synchronisation would make it.
    pub(crate) fn seen(&self, table: &Table) -> Result<Arc<Prepared>> {
        let seen = lock(&self.seen).get(&(table.name.clone(), table.mode)).cloned();
        if let Some(seen) = seen.filter(|seen| seen.is_of(table)) {
            return Ok(seen);
        }
        let server = self.server();
        let look = Look::planned(server.dialect, table)?;
        Prepared::new(table, server, &look, self.on_mismatch, Vec::new()).map(Arc::new)
    }

    /// The server that answered last, or the one that the configuration speaks of.
    pub(crate) fn server(&self) -> Server {
        lock(&self.server).unwrap_or(Server::unseen(self.profile))
    }

    pub(crate) fn remember(&self, server: Server) {
        *lock(&self.server) = Some(server);
    }

    /// Nothing that was prepared is believed any longer.
    pub(crate) fn forget(&self) {
        lock(&self.prepared).clear();
    }

    /// Nor what was seen: the tables have changed.
    pub(crate) fn forget_all(&self) {
        self.forget();
        lock(&self.seen).clear();
    }
}

fn absent(table: &str) -> Error {
    Error::new(ErrorKind::NotFound, "there is no such table")
        .with_scope(Scope::Table)
        .with_context("table", table)
        .with_advice("set schemaSync.enabled to true, or create the table")
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
