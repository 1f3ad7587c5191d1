//! Configurations that are wrong, and how they are told.

use super::*;
use crate::config::problem::Problems;

/// A configuration that is right but for what stands at `…`.
fn with(rest: &str) -> String {
    format!(
        "source: {{ url: 'file:///d' }}\n\
         replicators: [{{ driver: sqlite, resources: [a], config: {{ url: 'file:x' }} }}]\n{rest}"
    )
}

#[track_caller]
fn is_told(text: &str, expected: &[&str]) {
    assert_eq!(problems(text, Syntax::Yaml).lines().collect::<Vec<_>>(), expected, "for:\n{text}");
}

#[test]
fn everything_at_once_in_the_order_of_the_file() {
    let text = r#"
source: { url: file:///data, intervall: 1s, passphrase: "${NOT_SET}" }
stat: ./.s3rep
replicators:
  - id: a
    driver: sqlit
    resorces: [airports]
  - id: a
    driver: sqlite
    enabled: perhaps
    resources: { cars: [cars, { tabel: log, mode: both }], planes: 7 }
    config: { uri: "file:./out.db", schemaSync: { enabled: yes, strategy: altr, onMismatsh: error } }
  - driver: jsonl
    resources: { cars: { mode: upsert } }
    path: ./lines
    config: { path: [x], rotate: { count: -1, share: much }, level: lowest, compress: true, zip: false }
  - driver: webhook
    resources: "cars"
maxRetries: many
timeout: 10 fortnights
batchSize: 0
retention: { maxBytes: 10 G }
logErrors: true
interval: 1s
"#;
    is_told(
        text,
        &[
            "s3rep.yaml:2:30: unknown key 'intervall' in 'source'",
            "  help: did you mean 'interval'?",
            "s3rep.yaml:2:57: the environment variable 'NOT_SET' is not set",
            "  help: set it, or give a default: ${NOT_SET:-…}",
            "s3rep.yaml:3:1: unknown key 'stat' in the configuration",
            "  help: did you mean 'state'?",
            "s3rep.yaml:6:13: unknown driver 'sqlit'",
            "  help: did you mean 'sqlite'?",
            "s3rep.yaml:7:5: unknown key 'resorces' in item 1 of 'replicators'",
            "  help: did you mean 'resources'?",
            "s3rep.yaml:8:9: a second replicator has the id 'a'",
            "  help: the first one is in line 5; give this one an 'id' of its own",
            "s3rep.yaml:10:14: 'enabled' has to be true or false, not text",
            "s3rep.yaml:11:33: unknown key 'tabel' in a route",
            "  help: did you mean 'table'?",
            "s3rep.yaml:11:51: 'mode': expected 'upsert' or 'append'",
            "s3rep.yaml:11:68: 'planes': expected a table name, true, an object with 'table', or an array of those",
            "s3rep.yaml:12:15: unknown key 'uri' in 'config'",
            "  help: did you mean 'url'?",
            "s3rep.yaml:12:60: 'enabled' has to be true or false, not text",
            "s3rep.yaml:12:75: 'strategy' cannot be 'altr'",
            "  help: did you mean 'alter'?",
            "s3rep.yaml:12:81: unknown key 'onMismatsh' in 'schemaSync'",
            "  help: did you mean 'onMismatch'?",
            "s3rep.yaml:14:32: this destination does not have the mode",
            "  help: write 'mode: append', or leave it out",
            "s3rep.yaml:15:5: unknown key 'path' in item 3 of 'replicators'",
            "  help: it belongs into 'config: { path: … }'",
            "s3rep.yaml:16:21: 'path' has to be text, not a list",
            "s3rep.yaml:16:43: 'count' has to be a whole number from 0 to 4294967295",
            "s3rep.yaml:16:54: 'share' has to be a number, not text",
            "s3rep.yaml:16:69: 'level' cannot be 'lowest'",
            "  help: known here: low, high, exact",
            "s3rep.yaml:16:93: 'compress' is given a second time, as 'zip'",
            "  help: keep one of the two names",
            "s3rep.yaml:17:13: the driver 'webhook' is not in this version of s3rep",
            "  help: there are: sqlite, libsql, turso, jsonl",
            "s3rep.yaml:19:13: 'maxRetries' has to be a whole number from 0 to 4294967295, not text",
            "s3rep.yaml:20:10: 'timeout' has to be a duration above zero such as 500ms, 10s, 5m, 12h or 7d (a plain number is milliseconds)",
            "s3rep.yaml:21:12: 'batchSize' has to be a whole number above 0",
            "s3rep.yaml:22:24: 'maxBytes' has to be a size such as 64MiB or 10GB (a plain number is bytes)",
            "s3rep.yaml:23:1: unknown key 'logErrors' in the configuration",
            "  help: remove it; failed changes lie in the dead letter queue in the 'state' directory",
            "s3rep.yaml:24:1: unknown key 'interval' in the configuration",
            "  help: it belongs into 'source: { interval: … }'",
        ],
    );
}

#[test]
fn the_other_syntaxes_tell_the_same_places() {
    let toml = "[source]\nurl = \"file:///d\"\nintervall = \"1s\"\n\n[[replicators]]\ndriver = \"sqlit\"\nresources = [1]\nconfig = {}\n";
    assert_eq!(
        problems(toml, Syntax::Toml).lines().collect::<Vec<_>>(),
        [
            "s3rep.toml:3:1: unknown key 'intervall' in 'source'",
            "  help: did you mean 'interval'?",
            "s3rep.toml:6:10: unknown driver 'sqlit'",
            "  help: did you mean 'sqlite'?",
            "s3rep.toml:7:14: item 1 of 'resources': expected the name of a resource",
        ]
    );
    let json = "{\n\t\"source\": {\"url\": 7},\n\t\"replicators\": [ {\"driver\": \"sqlit\", \"resources\": []} ]\n}";
    assert_eq!(
        problems(json, Syntax::Json).lines().collect::<Vec<_>>(),
        [
            "s3rep.json:2:20: 'url' has to be text, not a number",
            "  help: put it in quotes",
            "s3rep.json:3:30: unknown driver 'sqlit'",
            "  help: did you mean 'sqlite'?",
            "s3rep.json:3:52: 'resources': names no resource; list at least one",
        ]
    );
}

#[test]
fn syntax_errors_have_a_place() {
    for (text, syntax, expected) in [
        ("source: [\n", Syntax::Yaml, "s3rep.yaml:1:9: not YAML: unclosed bracket '['"),
        (
            "a: b\n\tc: d\n",
            Syntax::Yaml,
            "s3rep.yaml:1:4: not YAML: while scanning a plain scalar, found a tab",
        ),
        ("a: *nope\n", Syntax::Yaml, "s3rep.yaml:1:4: not YAML: "),
        ("a: 1\n---\nb: 2\n", Syntax::Yaml, "s3rep.yaml:2:1: a second YAML document starts here"),
        ("[a]: 1\n", Syntax::Yaml, "s3rep.yaml:1:1: a key has to be text"),
        ("a: !mine 1\n", Syntax::Yaml, "s3rep.yaml:1:"),
        ("a: &x [*x]\n", Syntax::Yaml, "s3rep.yaml:1:8: an alias stands inside its own anchor"),
        ("a = \n[b\n", Syntax::Toml, "s3rep.toml:1:5: not TOML: "),
        ("{\"a\": 1,}", Syntax::Json, "s3rep.json:1:9: not JSON: "),
        ("{a: 1}", Syntax::Json, "s3rep.json:1:2: not JSON: "),
    ] {
        let told = problems(text, syntax);
        assert!(told.starts_with(expected), "{text:?}: {told}");
    }
    // Right in a block, wrong in braces: what everybody stumbles over once.
    yaml("source:\n  url: file:///d\n  passphrase: ${PASSPHRASE}\nreplicators:\n- { driver: sqlite, resources: [a], config: { url: 'file:x' } }")
        .unwrap();
    let told = problems("source: { passphrase: ${PASSPHRASE} }\n", Syntax::Yaml);
    assert!(told.ends_with("help: inside { } and [ ] YAML wants ${NAME} in quotes: \"${NAME}\""), "{told}");
    // TOML's parser finds several at once.
    assert_eq!(problems("a = \nb = ]\nc = 1 2\n", Syntax::Toml).matches("not TOML").count(), 3);
}

#[test]
fn duplicate_keys_are_told_in_every_syntax() {
    let yaml = with("timeout: 1s\ntimeout: 2s\n");
    is_told(
        &yaml,
        &[
            "s3rep.yaml:4:1: the key 'timeout' stands here a second time",
            "  help: keep this one or the one in line 3",
        ],
    );
    let json = r#"{"source": {"url": "file:///d", "url": "file:///e"},
 "replicators": [{"driver": "sqlite", "resources": ["a"], "config": {"url": "file:x"}}]}"#;
    assert!(
        problems(json, Syntax::Json).starts_with("s3rep.json:1:33: the key 'url' stands here a second time")
    );
    assert!(problems("a = 1\na = 2\n", Syntax::Toml).starts_with("s3rep.toml:2:1: not TOML: duplicate key"));
}

#[test]
fn files_that_are_none() {
    let directory = tempfile::tempdir().unwrap();
    let load = |name: &str, bytes: Option<&[u8]>| {
        let path = directory.path().join(name);
        if let Some(bytes) = bytes {
            std::fs::write(&path, bytes).unwrap();
        }
        let told = Config::load(&path, &env).unwrap_err().to_string();
        told.replace(&path.display().to_string(), name)
    };
    assert_eq!(
        load("a.yaml", None),
        "a.yaml: there is no such file\n  help: `s3rep init` writes one to begin with"
    );
    assert_eq!(
        load("e.yaml", Some(b" \n")),
        "e.yaml: the file is empty\n  help: `s3rep init` writes one to begin with"
    );
    assert_eq!(
        load(
            "u.yaml",
            Some(
                "source: x\né: \u{0}"
                    .as_bytes()
                    .iter()
                    .chain(&[0xff])
                    .copied()
                    .collect::<Vec<_>>()
                    .as_slice()
            )
        ),
        "u.yaml:2:5: the file is not UTF-8 from here on\n  help: save it as UTF-8"
    );
    assert!(load("z.yaml", Some(&vec![b'#'; 5 << 20])).contains("larger than 4 MiB"));
    let told = Config::load(directory.path(), &env).unwrap_err().to_string();
    assert!(told.ends_with("this is a directory\n  help: name the file in it"), "{told}");
}

#[test]
fn roots_that_are_none() {
    is_told("just text", &["s3rep.yaml:1:1: the configuration has to be a map of options, not text"]);
    is_told("[]", &["s3rep.yaml:1:1: the configuration has to be a map of options, not a list"]);
    is_told(
        "{}",
        &[
            "s3rep.yaml:1:1: 'source' is missing in the configuration",
            "  help: add 'source: …'",
            "s3rep.yaml:1:1: 'replicators' is missing in the configuration",
            "  help: add 'replicators: …'",
        ],
    );
    is_told(
        "# nothing but a comment",
        &["s3rep.yaml: the file has only comments", "  help: `s3rep init` writes one to begin with"],
    );
}

#[test]
fn small_things() {
    is_told(
        "source:\nreplicators: []\nstate: ''",
        &[
            "s3rep.yaml:1:7: 'source' has no value",
            "  help: give a map of options, or remove the key",
            "s3rep.yaml:2:14: 'replicators' is empty",
            "  help: list at least one destination",
            "s3rep.yaml:3:8: 'state' is empty",
            "  help: name a directory, such as ./.s3rep",
        ],
    );
    is_told(
        "source: { url: /data/shop, resources: [a] }\n\
         replicators: [{ id: 'a b', driver: sqlite, resources: { a: x, b: y }, config: { url: nope } }]",
        &[
            "s3rep.yaml:1:16: 'url' is no connection string",
            "  help: write it with its scheme: file:///absolute/directory or file://./relative/directory",
            "s3rep.yaml:2:21: an id has 1 to 64 letters, digits, '-', '_' and '.'",
            "  help: give another one; it names the replicator's progress",
            "s3rep.yaml:2:63: this resource is not followed, so nothing would be replicated",
            "  help: add it to 'resources' of the source, or remove it here",
            "s3rep.yaml:2:79: 'config': no database at nope",
            "  help: write file:./name.db",
        ],
    );
    is_told(
        "source: { url: 'file:///d', resources: cars, interval: 0 }\nreplicators: { driver: sqlite }",
        &[
            "s3rep.yaml:1:40: 'resources' has to be a list, not text",
            "  help: put it in brackets: [ … ]",
            "s3rep.yaml:1:56: 'interval' has to be a duration above zero such as 500ms, 10s, 5m, 12h or 7d (a plain number is milliseconds)",
            "s3rep.yaml:2:14: 'replicators' has to be a list, not a map",
        ],
    );
}

#[test]
fn a_flood_of_problems_is_cut() {
    let many: String = (0..5_000).map(|i| format!("key_{i}: 1\n")).collect();
    let error = yaml(&many).unwrap_err();
    assert_eq!(error.problems.len(), Problems::MAX + 1);
    assert!(error.to_string().ends_with("there are more than 100 problems; the rest is not listed"));
}

#[test]
fn bombs_are_refused_soon() {
    let started = std::time::Instant::now();
    let mut laughs = String::from("a0: &a0 [lol, lol, lol, lol, lol, lol, lol, lol, lol, lol]\n");
    for i in 1..12 {
        laughs.push_str(&format!("a{i}: &a{i} [{}]\n", vec![format!("*a{}", i - 1); 10].join(", ")));
    }
    let wide = format!("a: &a {}\nb: [{}]\n", "x".repeat(100_000), vec!["*a"; 10_000].join(","));
    let deep_aliases: String = std::iter::once("a0: &a0 []\n".to_owned())
        .chain((1..100).map(|i| format!("a{i}: &a{i} [*a{}]\n", i - 1)))
        .collect();
    for text in [&laughs, &wide, &deep_aliases] {
        assert!(problems(text, Syntax::Yaml).contains("too large or too deeply nested"), "{text:.80}");
    }
    for (syntax, text) in [
        (Syntax::Yaml, "[".repeat(100_000)),
        (Syntax::Yaml, "- ".repeat(100_000)),
        (Syntax::Json, "[".repeat(100_000)),
        (Syntax::Toml, format!("a = {}", "[".repeat(100_000))),
        (Syntax::Toml, format!("a{} = 1", ".a".repeat(100_000))),
    ] {
        assert!(!problems(&text, syntax).is_empty());
    }
    assert!(started.elapsed().as_secs() < 20, "{:?}", started.elapsed());
}
