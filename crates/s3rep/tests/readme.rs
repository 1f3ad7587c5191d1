//! The README's table of destinations is the table of drivers.

#![cfg(all(feature = "libsql", feature = "files"))]

#[test]
fn destinations_are_those_of_the_driver_table() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../README.md");
    let readme = std::fs::read_to_string(path).expect("README.md at the top");
    let (begin, end) = ("<!-- drivers:begin -->", "<!-- drivers:end -->");
    let table = readme
        .split_once(begin)
        .and_then(|(_, rest)| rest.split_once(end))
        .map(|(table, _)| table.trim())
        .unwrap_or_else(|| panic!("README.md has no {begin} … {end}"));
    let expected = s3rep::drivers::markdown();
    assert_eq!(table, expected.trim(), "put this between {begin} and {end}:\n\n{expected}");
}
