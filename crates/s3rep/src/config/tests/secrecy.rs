//! No secret in any message, whatever is wrong.

use super::*;

/// Stands for every secret in the configurations below.
const MARK: &str = "hunter2-do-not-print";

fn marked_env(name: &str) -> Option<String> {
    name.starts_with("SECRET").then(|| MARK.to_owned())
}

#[test]
fn errors_never_show_a_secret() {
    let texts = [
        // The environment, everywhere and always wrong.
        "source: { url: '${SECRET}', interval: '${SECRET}', passphrase: ['${SECRET}'], resources: '${SECRET}' }\n\
         state: ['${SECRET}']\n\
         replicators:\n\
         - { id: '${SECRET} x', driver: '${SECRET}', enabled: '${SECRET}', resources: '${SECRET}' }\n\
         - { id: '${SECRET}', driver: sqlite, resources: { a: { mode: '${SECRET}', actions: ['${SECRET}'] } }, \
             config: { url: '${SECRET}', schemaSync: { strategy: '${SECRET}', enabled: '${SECRET}' } } }\n\
         - { id: '${SECRET}', driver: jsonl, resources: ['${SECRET}', '${SECRET}'], \
             config: { path: x, rotate: { count: '${SECRET}', share: '${SECRET}' }, level: '${SECRET}', noisy: '${SECRET}' } }\n\
         - { driver: sqlite, resources: [a], config: { url: 'libsql://${SECRET}@host/' } }\n\
         maxRetries: '${SECRET}'\n\
         timeout: '${SECRET}'\n\
         retention: { maxBytes: '${SECRET}', maxAge: '${SECRET}s' }\n\
         logLevel: '${SECRET}'\n",
        // Written out where secrets are written out, and wrong.
        "source: { url: 's3 ://key:hunter2-do-not-print@bucket', passphrase: { a: hunter2-do-not-print } }\n\
         replicators:\n\
         - { driver: sqlite, resources: [a], config: { url: 'libsql://me:hunter2-do-not-print@host/db' } }\n\
         - { driver: turso, resources: [a], config: { url: 'libsql://h?authToken=hunter2-do-not-print' } }\n\
         - { driver: turso, resources: [a], config: { url: x, authToken: [hunter2-do-not-print] } }\n\
         - { driver: turso, resources: [a], config: { url: x, authToken hunter2-do-not-print } }\n\
         - { driver: jsonl, resources: [a], config: { path: x, noisy: hunter2-do-not-print } }\n\
         - { driver: jsonl, resources: [a], config: { path: x, level: hunter2/do-not-print } }\n\
         passphrase: hunter2-do-not-print\n",
        // Broken where a secret stands.
        "source: { url: x, passphrase: \"hunter2-do-not-print }\n",
        "source:\n  passphrase: hunter2-do-not-print: [\n",
        "passphrase hunter2-do-not-print",
        "{ 'pass phrase is hunter2-do-not-print' }",
    ];
    for text in texts {
        let error =
            Config::parse_with_drivers(text, Syntax::Yaml, "c.yaml", &marked_env, DRIVERS).unwrap_err();
        let json = serde_json::to_string(&error).unwrap();
        let core = Error::from(error.clone());
        for told in [error.to_string(), format!("{error:?}"), json, core.report(), format!("{core:?}")] {
            assert!(!told.contains("hunter2"), "{text}\n{told}");
        }
    }
}

#[test]
fn a_configuration_can_be_printed() {
    let text = "source: { url: 's3://key:hunter2-do-not-print@bucket', passphrase: '${SECRET}' }\n\
                replicators: [{ driver: sqlite, resources: [a], \
                config: { url: 'file:x', authToken: hunter2-do-not-print } }]";
    let config = Config::parse_with_drivers(text, Syntax::Yaml, "c.yaml", &marked_env, DRIVERS).unwrap();
    assert!(!format!("{config:?} {config:#?}").contains("hunter2"));
    assert_eq!(config.source.passphrase.unwrap().expose(), MARK);
}

#[test]
fn what_is_told_is_told_usefully_all_the_same() {
    let text = "source: { url: 'file:///d' }\nreplicators:\n\
                - { driver: sqlite, resources: [a], config: { url: 'libsql://me:hunter2-do-not-print@host/db' } }\n\
                - { driver: jsonl, resources: [a], config: { path: x, noisy: hunter2-do-not-print } }\n";
    assert_eq!(
        problems(text, Syntax::Yaml),
        "s3rep.yaml:3:45: 'config': no database at libsql://***@host/db\n  help: write file:./name.db\n\
         s3rep.yaml:4:62: 'noisy': cannot parse \"***\" at all"
    );
}
