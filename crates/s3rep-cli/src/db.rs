//! `s3rep db`: looks into a database and changes it.
//!
//! Data goes to standard output as JSON Lines and everything else to standard error, so that other programs can
//! drive it.

mod input;
mod output;

use std::{convert::Infallible, path::PathBuf};

use clap::{Args, Subcommand};
use comfy_table::{Table, presets};
use s3rep::{
    Error, ErrorKind, Record, Result, Secret,
    core::{Context, SourceRow},
    s3db::{Database, DatabaseOptions, Query, Records, Resource, ResourceConfig},
};
use serde_json::{Value, json};

use input::{Lines, read_record};
use output::Output;

/// Records read at once.
const PAGE: usize = 256;
/// Lines of an import inserted at once.
const IMPORTED_AT_ONCE: usize = 256;

/// Look into a database and change it.
#[derive(Args, Debug)]
pub(crate) struct DbArgs {
    /// The database, for example s3://KEY:SECRET@bucket/databases/shop or file:///data/databases/shop
    #[arg(long, global = true, value_name = "URL", value_parser = secret)]
    url: Option<Secret>,
    /// What attributes of type `secret` are encrypted with
    #[arg(long, global = true, env = "S3DB_PASSPHRASE", hide_env_values = true, value_parser = secret)]
    passphrase: Option<Secret>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// List the resources
    Resources {
        /// Count the records of each
        #[arg(long)]
        count: bool,
        /// One JSON object a line instead of a table
        #[arg(long)]
        json: bool,
    },
    /// Print one record
    Get { resource: String, id: String },
    /// Print records in the order of their ids
    List {
        resource: String,
        #[command(flatten)]
        partition: PartitionArgs,
        /// Stop after so many records
        #[arg(long, value_name = "N")]
        limit: Option<usize>,
    },
    /// Print the records that match a filter such as '{"age": {"$gte": 18}, "name": {"$regex": "^A"}}'
    Query {
        resource: String,
        /// JSON: members equal, or $eq $ne $gt $gte $lt $lte $in $nin $exists $regex, joined by $and $or $not
        filter: String,
        #[command(flatten)]
        partition: PartitionArgs,
        /// Stop after so many records
        #[arg(long, value_name = "N")]
        limit: Option<usize>,
        /// Print how many there are instead
        #[arg(long, conflicts_with = "limit")]
        count: bool,
    },
    /// Print one page of records, and on standard error the cursor of the next
    Page {
        resource: String,
        /// Only records that match this filter
        #[arg(long, value_name = "JSON")]
        filter: Option<String>,
        #[command(flatten)]
        partition: PartitionArgs,
        /// Records in the page
        #[arg(long, value_name = "N", default_value_t = 100)]
        size: usize,
        /// Where the page before it ended
        #[arg(long, value_name = "CURSOR")]
        cursor: Option<String>,
    },
    /// Print whether there is a record: exit code 0 or 1
    Exists { resource: String, id: String },
    /// Print the number of records
    Count {
        resource: String,
        #[command(flatten)]
        partition: PartitionArgs,
        /// A JSON object instead of the bare number
        #[arg(long)]
        json: bool,
    },
    /// Print every record
    Export { resource: String },
    /// Insert every line of a JSON Lines file; a line that cannot be inserted is reported and the others go on
    Import {
        resource: String,
        /// The file, or - for standard input
        file: PathBuf,
    },
    /// Insert the JSON record on standard input and print what was stored
    Insert { resource: String },
    /// Merge the JSON members on standard input into a record and print what was stored
    Update { resource: String, id: String },
    /// As update, with the hooks of a patch
    Patch { resource: String, id: String },
    /// Store the JSON record on standard input in place of whatever is there
    Replace { resource: String, id: String },
    /// Insert the JSON record on standard input, or update the one of its id
    Upsert { resource: String },
    /// Delete records
    Delete {
        resource: String,
        #[arg(required = true)]
        ids: Vec<String>,
    },
    /// Delete every record of a resource that is not paranoid
    DeleteAll {
        resource: String,
        /// Yes, all of them
        #[arg(long, required = true)]
        yes: bool,
    },
    /// Give a resource the attributes on standard input; everything else of its definition stays
    UpdateAttributes { resource: String },
    /// Create or change a resource: its configuration, as s3db.js takes it, is read from standard input. Makes
    /// the database when there is none
    CreateResource,
}

#[derive(Args, Debug)]
struct PartitionArgs {
    /// Only records of this partition
    #[arg(long, value_name = "NAME")]
    partition: Option<String>,
    /// The value of one of its fields; give one for each, or for the first of them
    #[arg(long = "where", value_name = "FIELD=VALUE", requires = "partition", value_parser = field_and_value)]
    values: Vec<(String, String)>,
}

fn secret(text: &str) -> std::result::Result<Secret, Infallible> {
    Ok(Secret::from(text))
}

fn field_and_value(text: &str) -> std::result::Result<(String, String), &'static str> {
    match text.split_once('=') {
        Some((field, value)) if !field.is_empty() => Ok((field.to_owned(), value.to_owned())),
        _ => Err("write FIELD=VALUE"),
    }
}

impl PartitionArgs {
    /// The query in the partition, if one is named.
    fn of(&self, query: Query) -> Result<Query> {
        match &self.partition {
            Some(name) => query.partition(name, self.values()),
            None => Ok(query),
        }
    }

    fn values(&self) -> Record {
        self.values.iter().map(|(field, value)| (field.clone(), Value::from(value.as_str()))).collect()
    }
}

/// Runs the command.
///
/// # Errors
/// [`ErrorKind::ConfigInvalid`] for what the caller has to write differently (exit code 2), any other for what
/// failed (exit code 1).
pub(crate) async fn run(args: DbArgs, cx: &Context) -> Result<()> {
    let DbArgs { url, passphrase, command } = args;
    let open = |create| connect(url, passphrase, cx, create);
    let mut output = Output::new();
    match command {
        Command::Resources { count, json } => resources(&open(false).await?, count, json, &mut output).await,
        Command::Get { resource, id } => {
            let record = open(false).await?.resource(&resource)?.get(&id).await?;
            output.finish(|output| output.record(&record))
        }
        Command::List { resource, partition, limit } => {
            let query = partition.of(open(false).await?.resource(&resource)?.list())?;
            print_records(query.rows()?, limit, &mut output).await
        }
        Command::Query { resource, filter, partition, limit, count } => {
            let query = open(false).await?.resource(&resource)?.query(json_argument(&filter)?)?;
            let query = partition.of(query)?;
            if count {
                let count = query.count().await?;
                return output.finish(|output| output.line(&json!(count)));
            }
            print_records(query.rows()?, limit, &mut output).await
        }
        Command::Page { resource, filter, partition, size, cursor } => {
            let query = partition.of(open(false).await?.resource(&resource)?.list())?;
            let query = match filter {
                Some(filter) => query.filter(json_argument(&filter)?)?,
                None => query,
            };
            let page = query.page::<Record>(size, cursor.as_deref()).await?;
            output.finish(|output| page.items.iter().try_for_each(|record| output.record(record)))?;
            match page.next {
                Some(next) => output.note(&format!("next page: --cursor {next}")),
                None => output.note("this was the last page"),
            }
            Ok(())
        }
        Command::Exists { resource, id } => {
            if open(false).await?.resource(&resource)?.exists(&id).await? {
                return output.finish(|output| output.line(&json!(true)));
            }
            output.finish(|output| output.line(&json!(false)))?;
            Err(Error::new(ErrorKind::NotFound, "there is no such record").with_context("id", id))
        }
        Command::Export { resource } => {
            let records = open(false).await?.resource(&resource)?.records(None)?;
            print_records(records, None, &mut output).await
        }
        Command::Count { resource, partition, json } => {
            let resource = open(false).await?.resource(&resource)?;
            let count = partition.of(resource.list())?.count().await?;
            let value =
                if json { json!({"resource": resource.name(), "count": count}) } else { json!(count) };
            output.finish(|output| output.line(&value))
        }
        Command::Import { resource, file } => {
            let resource = open(false).await?.resource(&resource)?;
            import(&resource, Lines::open(&file)?, &mut output).await
        }
        Command::Insert { resource } => {
            let resource = open(false).await?.resource(&resource)?;
            let stored = resource.insert(read_record("a record")?).await?;
            output.finish(|output| output.record(&stored))
        }
        Command::Update { resource, id } => {
            let resource = open(false).await?.resource(&resource)?;
            let stored = resource.update(&id, read_record("the members to change")?).await?;
            output.finish(|output| output.record(&stored))
        }
        Command::Patch { resource, id } => {
            let resource = open(false).await?.resource(&resource)?;
            let stored = resource.patch(&id, read_record("the members to change")?).await?;
            output.finish(|output| output.record(&stored))
        }
        Command::Replace { resource, id } => {
            let resource = open(false).await?.resource(&resource)?;
            let stored = resource.replace(&id, read_record("a record")?).await?;
            output.finish(|output| output.record(&stored))
        }
        Command::Upsert { resource } => {
            let resource = open(false).await?.resource(&resource)?;
            let stored = resource.upsert(read_record("a record")?).await?;
            output.finish(|output| output.record(&stored))
        }
        Command::Delete { resource, ids } => {
            delete(&open(false).await?.resource(&resource)?, ids, &mut output).await
        }
        Command::DeleteAll { resource, yes: _ } => {
            let resource = open(false).await?.resource(&resource)?;
            let count = resource.delete_all().await?;
            output.note(&format!("{count} records deleted from '{}'", resource.name()));
            Ok(())
        }
        Command::UpdateAttributes { resource } => {
            let attributes = read_record("the attributes")?;
            let resource = open(false).await?.update_attributes(&resource, &attributes).await?;
            output.finish(|output| output.line(&about(&resource)))
        }
        Command::CreateResource => {
            // Read before the database is opened: a mistake in it should not have made one.
            let config = resource_config(Value::Object(read_record("a resource's configuration")?))?;
            let resource = open(true).await?.create_resource(&config).await?;
            output.finish(|output| output.line(&about(&resource)))
        }
    }
}

/// A filter on the command line.
fn json_argument(text: &str) -> Result<Value> {
    serde_json::from_str(text).map_err(|error| {
        // The text of the error may quote the filter, which is the caller's own.
        Error::new(ErrorKind::ConfigInvalid, format!("the filter is no JSON: {error}"))
            .with_advice("write it in single quotes: '{\"age\": {\"$gte\": 18}}'")
    })
}

async fn delete(resource: &Resource, ids: Vec<String>, output: &mut Output) -> Result<()> {
    let outcomes = resource.delete_many(&ids).await;
    if let [Err(_)] = outcomes.as_slice() {
        return outcomes.into_iter().collect();
    }
    let mut failed = 0_u64;
    for (id, outcome) in ids.iter().zip(outcomes) {
        if let Err(error) = outcome {
            failed += 1;
            output.report(&format!("record '{id}'"), &error);
        }
    }
    match failed {
        0 => Ok(()),
        1 => Err(Error::new(ErrorKind::NotFound, "one record was not deleted")),
        _ => Err(Error::new(ErrorKind::NotFound, format!("{failed} records were not deleted"))),
    }
}

async fn connect(
    url: Option<Secret>,
    passphrase: Option<Secret>,
    cx: &Context,
    create: bool,
) -> Result<Database> {
    let url = url.ok_or_else(|| {
        Error::new(ErrorKind::ConfigInvalid, "no database is named")
            .with_advice("add --url, for example --url file:///data/databases/shop")
    })?;
    let mut options = DatabaseOptions { create, context: cx.clone(), ..DatabaseOptions::default() };
    // An empty variable is how many tools spell an unset one.
    if let Some(passphrase) = passphrase.filter(|passphrase| !passphrase.expose().is_empty()) {
        options.passphrase = passphrase;
    }
    Database::connect_with(url.expose(), options).await
}

fn resource_config(value: Value) -> Result<ResourceConfig> {
    serde_json::from_value(value).map_err(|error| {
        Error::new(ErrorKind::ConfigInvalid, format!("this is no configuration of a resource: {error}"))
            .with_advice("write what createResource of s3db.js takes: {\"name\": …, \"attributes\": {…}}")
    })
}

fn about(resource: &Resource) -> Value {
    let partitions: Vec<_> =
        resource.format().partitions().iter().map(|partition| partition.name()).collect();
    json!({
        "resource": resource.name(),
        "version": resource.schema().version,
        "attributes": resource.schema().attributes.len(),
        "partitions": partitions,
    })
}

async fn resources(database: &Database, count: bool, json: bool, output: &mut Output) -> Result<()> {
    let mut rows = Vec::new();
    for name in database.resources() {
        let row = match database.resource(&name) {
            Ok(resource) => {
                let mut row = about(&resource);
                if count {
                    row["records"] = resource.count().await?.into();
                }
                row
            }
            // One definition that cannot be read does not hide the others.
            Err(error) => {
                output.report(&format!("resource '{name}'"), &error);
                json!({"resource": name})
            }
        };
        rows.push(row);
    }
    if json {
        return output.finish(|output| rows.iter().try_for_each(|row| output.line(row)));
    }
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    let mut header = vec!["resource", "version", "attributes", "partitions"];
    header.extend(count.then_some("records"));
    table.set_header(&header);
    for row in &rows {
        table.add_row(header.iter().map(|column| match &row[*column] {
            Value::Null => "?".to_owned(),
            Value::String(text) => text.clone(),
            Value::Array(names) => names.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(", "),
            value => value.to_string(),
        }));
    }
    let text = table.trim_fmt();
    output.finish(|output| output.text(&text))
}

/// Prints records page by page. One that cannot be decoded is reported, and the others go on.
async fn print_records(mut records: Records, limit: Option<usize>, output: &mut Output) -> Result<()> {
    let mut left = limit.unwrap_or(usize::MAX);
    let mut broken = 0_u64;
    while left > 0 && output.is_open() {
        let page = records.page(left.min(PAGE)).await?;
        if page.is_empty() {
            break;
        }
        left -= page.len().min(left);
        for SourceRow { id, record } in page {
            match record {
                Ok(record) => output.record(&record)?,
                Err(error) => {
                    broken += 1;
                    output.report(&format!("record '{id}'"), &error);
                }
            }
        }
    }
    output.flush()?;
    match broken {
        0 => Ok(()),
        1 => Err(Error::new(ErrorKind::Corrupt, "one record could not be read")),
        _ => Err(Error::new(ErrorKind::Corrupt, format!("{broken} records could not be read"))),
    }
}

async fn import(resource: &Resource, mut lines: Lines, output: &mut Output) -> Result<()> {
    let (mut inserted, mut failed) = (0_u64, 0_u64);
    loop {
        let (mut records, mut outcomes) = (Vec::new(), Vec::new());
        while outcomes.len() < IMPORTED_AT_ONCE
            && let Some((number, line)) = lines.next().await
        {
            outcomes.push((number, line.map(|record| records.push(record))));
        }
        if outcomes.is_empty() {
            break;
        }
        let mut inserts = resource.insert_many(records).await.into_iter();
        let mut store_in_trouble = false;
        for (number, outcome) in outcomes {
            match outcome.and_then(|()| inserts.next().unwrap_or_else(|| Ok(Record::new())).map(drop)) {
                Ok(()) => inserted += 1,
                Err(error) => {
                    failed += 1;
                    output.report(&format!("line {number}"), &error);
                    store_in_trouble |= is_about_the_store(&error);
                }
            }
        }
        if store_in_trouble {
            output.note("the lines after these are not read");
            break;
        }
    }
    output.note(&format!("{inserted} records inserted into '{}'", resource.name()));
    if failed == 0 {
        return Ok(());
    }
    let lines = if failed == 1 { "one line was".to_owned() } else { format!("{failed} lines were") };
    Err(Error::new(ErrorKind::InvalidValue, format!("{lines} not imported"))
        .with_advice("correct the lines named above and import those again"))
}

/// Every other line would fail in the same way.
fn is_about_the_store(error: &Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::StorageFull
            | ErrorKind::PermissionDenied
            | ErrorKind::Unauthenticated
            | ErrorKind::Unavailable
            | ErrorKind::Timeout
    )
}
