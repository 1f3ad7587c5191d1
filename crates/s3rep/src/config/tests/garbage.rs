//! Whatever the text is, the answer is a configuration or problems with places in it, never a panic.

use proptest::prelude::*;

use super::*;

const GOOD: &str = r#"
source: { url: "file:///data", interval: 1s, passphrase: "${PASSPHRASE}", resources: [cars, airports] }
replicators:
  - id: lite
    driver: sqlite
    resources: { airports: airports, cars: [cars, { resource: cars_log, mode: append, actions: [insert] }] }
    config: { url: "file:./out.db", schemaSync: { enabled: true, strategy: alter } }
  - driver: jsonl
    resources: [cars]
    config:
      path: ./lines
      rotate: { count: 3, share: 0.5 }
      level: { exact: 3 }
retention: { maxBytes: 64MiB, maxAge: 2d }
"#;

const PIECES: &[&str] = &[
    "source",
    "url",
    "replicators",
    "driver",
    "resources",
    "config",
    "schemaSync",
    "sqlite",
    "jsonl",
    "{",
    "}",
    "[",
    "]",
    ":",
    ": ",
    "- ",
    "\n",
    "  ",
    "\t",
    "\"",
    "'",
    "${",
    "${COUNT}",
    "}",
    "$",
    "&a",
    "*a",
    "<<",
    "!!str",
    "!x",
    "null",
    "~",
    "true",
    "1e999",
    "-1",
    "0x",
    "99999999999999999999999999999999999999999",
    "|",
    ">",
    "#",
    "---",
    "=",
    "[[",
    "]]",
    ",",
    "\u{feff}",
    "\u{0}",
    "é",
    "%YAML 1.2",
    "?",
    "\r\n",
];

fn check(text: &str) {
    for syntax in [Syntax::Yaml, Syntax::Toml, Syntax::Json] {
        let Err(error) = parse(text, syntax) else { continue };
        assert!(!error.problems.is_empty());
        let lines = text.lines().count() + 1;
        for problem in &error.problems {
            if let Some(place) = problem.place {
                assert!((1..=lines + 1).contains(&place.line) && place.column >= 1, "{problem}\n{text:?}");
            }
            assert!(!problem.message.contains("swordfish"), "{problem}");
        }
        let _ = error.to_string();
    }
}

/// A position in the text that is no part of a character.
fn cut(text: &str, share: f64) -> usize {
    let at = (text.len() as f64 * share) as usize;
    (0..=at.min(text.len())).rev().find(|at| text.is_char_boundary(*at)).unwrap_or_default()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn any_text(text in "\\PC{0,200}") {
        check(&text);
    }

    #[test]
    fn any_bytes(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = Config::parse_bytes(&bytes, Syntax::Yaml, "s3rep.yaml", &env);
    }

    #[test]
    fn pieces_of_configurations(pieces in proptest::collection::vec(proptest::sample::select(PIECES), 0..40)) {
        check(&pieces.concat());
    }

    #[test]
    fn a_good_one_with_something_put_in_or_taken_out(
        changes in proptest::collection::vec((0.0..1.0_f64, 0.0..0.1_f64, proptest::sample::select(PIECES)), 1..4)
    ) {
        let mut text = GOOD.to_owned();
        for (at, length, piece) in changes {
            let (from, to) = (cut(&text, at), cut(&text, (at + length).min(1.0)));
            text.replace_range(from..to.max(from), piece);
        }
        check(&text);
    }

    /// Each scalar replaced by each other one: mostly valid syntax, wrong in meaning.
    #[test]
    fn a_good_one_with_words_exchanged(swaps in proptest::collection::vec((any::<usize>(), any::<usize>()), 1..6)) {
        let mut words: Vec<&str> = GOOD.split_inclusive([' ', '\n']).collect();
        for (a, b) in swaps {
            let (a, b) = (a % words.len(), b % words.len());
            words[a] = words[b];
        }
        check(&words.concat());
    }
}

#[test]
fn the_good_one_is_good() {
    parse(GOOD, Syntax::Yaml).unwrap();
}
