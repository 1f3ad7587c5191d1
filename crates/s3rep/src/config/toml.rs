//! TOML.

use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use super::{
    node::{Entry, Kind, Node},
    problem::{Place, Problems},
    syntax::Lines,
};

pub(super) fn parse(text: &str, problems: &mut Problems) -> Option<Node> {
    let lines = Lines::new(text);
    let (table, errors) = DeTable::parse_recoverable(text);
    for error in &errors {
        let place = error.span().map_or(Place::START, |span| lines.place(span.start));
        problems.at(
            place,
            format!("not TOML: {}", error.message()),
            "correct the syntax here or just before",
        );
    }
    errors.is_empty().then(|| Node::new(Place::START, map(table.into_inner(), &lines)))
}

fn map(table: DeTable<'_>, lines: &Lines<'_>) -> Kind {
    let mut entries: Vec<_> = table
        .into_iter()
        .map(|(key, value)| {
            let place = lines.place(key.span().start);
            (key.span().start, Entry { key: key.into_inner().into_owned(), place, value: node(value, lines) })
        })
        .collect();
    // The table is sorted by name; the order of the file is what the reader expects.
    entries.sort_by_key(|(start, _)| *start);
    Kind::Map(entries.into_iter().map(|(_, entry)| entry).collect())
}

fn node(value: Spanned<DeValue<'_>>, lines: &Lines<'_>) -> Node {
    let place = lines.place(value.span().start);
    let kind = match value.into_inner() {
        DeValue::String(text) => Kind::Text(text.into_owned()),
        DeValue::Boolean(value) => Kind::Bool(value),
        DeValue::Integer(number) => i128::from_str_radix(number.as_str(), number.radix())
            .map_or_else(|_| Kind::Text(number.as_str().to_owned()), Kind::Int),
        DeValue::Float(number) => {
            number.as_str().parse().map_or_else(|_| Kind::Text(number.as_str().to_owned()), Kind::Float)
        }
        DeValue::Datetime(moment) => Kind::Text(moment.to_string()),
        DeValue::Array(items) => Kind::List(items.into_iter().map(|item| node(item, lines)).collect()),
        DeValue::Table(table) => map(table, lines),
    };
    Node::new(place, kind)
}
