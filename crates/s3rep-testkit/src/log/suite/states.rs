//! The state of sources, which moves with the changes.

use s3rep_core::StateWrite;

use super::{Bench, Case, Outcome, cases, changes, same};

pub(super) fn cases() -> Vec<Case> {
    cases![
        any state_is_written_read_replaced_and_forgotten,
        any spaces_are_apart,
        any scans_follow_the_bytes_of_the_keys,
        any scans_come_in_pages,
        any odd_keys_and_values_come_back,
        any state_is_written_when_every_change_is_known,
        any later_writes_of_a_key_win,
        durable state_outlives_the_process,
    ]
}

fn set(space: &str, key: &str, value: &[u8]) -> StateWrite {
    StateWrite { space: space.to_owned(), key: key.to_owned(), value: Some(value.to_vec()) }
}

fn unset(space: &str, key: &str) -> StateWrite {
    StateWrite { space: space.to_owned(), key: key.to_owned(), value: None }
}

async fn state_is_written_read_replaced_and_forgotten(bench: Bench) -> Outcome {
    let log = bench.open().await?;
    same("nothing", &log.get(&bench.cx, "s", "k").await?, &None)?;
    log.append(&bench.cx, &[], &[set("s", "k", b"1")]).await?;
    same("a value", &log.get(&bench.cx, "s", "k").await?, &Some(b"1".to_vec()))?;
    log.append(&bench.cx, &changes(0..1), &[set("s", "k", b"22")]).await?;
    same("another value", &log.get(&bench.cx, "s", "k").await?, &Some(b"22".to_vec()))?;
    log.append(&bench.cx, &[], &[unset("s", "k"), unset("s", "never there")]).await?;
    same("nothing again", &log.get(&bench.cx, "s", "k").await?, &None)
}

async fn spaces_are_apart(bench: Bench) -> Outcome {
    let log = bench.open().await?;
    let writes = [set("s", "k", b"1"), set("st", "k", b"2"), set("s", "tk", b"3"), set("", "stk", b"4")];
    log.append(&bench.cx, &[], &writes).await?;
    same("s", &log.scan(&bench.cx, "s", None, 10).await?.len(), &2)?;
    same("st", &log.scan(&bench.cx, "st", None, 10).await?, &vec![("k".to_owned(), b"2".to_vec())])?;
    same("the empty name", &log.get(&bench.cx, "", "stk").await?, &Some(b"4".to_vec()))
}

async fn scans_follow_the_bytes_of_the_keys(bench: Bench) -> Outcome {
    let log = bench.open().await?;
    let mut keys =
        vec!["", "A", "B", "a", "a\u{0}", "a\u{1}", "aa", "b", "Z", "10", "9", "ä", "z", "\u{ffff}", "🦀"];
    log.append(&bench.cx, &[], &keys.iter().map(|key| set("s", key, b"x")).collect::<Vec<_>>()).await?;
    keys.sort_unstable();
    let found: Vec<_> = log.scan(&bench.cx, "s", None, 100).await?.into_iter().map(|(key, _)| key).collect();
    same("keys", &found, &keys.iter().map(ToString::to_string).collect())?;
    for (at, key) in keys.iter().enumerate() {
        let rest = log.scan(&bench.cx, "s", Some(key), 100).await?;
        same("keys behind a key", &rest.len(), &(keys.len() - at - 1))?;
    }
    Ok(())
}

async fn scans_come_in_pages(bench: Bench) -> Outcome {
    let log = bench.open().await?;
    let all: Vec<_> = (0..250).map(|n| set("s", &format!("{n:04}"), &[n as u8])).collect();
    log.append(&bench.cx, &[], &all).await?;
    let mut found = Vec::new();
    loop {
        let after = found.last().map(|(key, _): &(String, Vec<u8>)| key.clone());
        let page = log.scan(&bench.cx, "s", after.as_deref(), 100).await?;
        let ends = page.len() < 100;
        found.extend(page);
        if ends {
            break;
        }
    }
    let expected = all.into_iter().map(|write| (write.key, write.value.unwrap_or_default())).collect();
    same("keys and values", &found, &expected)
}

async fn odd_keys_and_values_come_back(bench: Bench) -> Outcome {
    let log = bench.open().await?;
    let values = [vec![], vec![0], vec![0xff, 0, 0xfe], (0..=255).collect(), vec![7; 1 << 20]];
    for (at, value) in values.iter().enumerate() {
        let key = format!("k\u{0}{at}'\"🦀");
        log.append(&bench.cx, &[], &[set("s\u{0}p", &key, value)]).await?;
        same("a value", &log.get(&bench.cx, "s\u{0}p", &key).await?, &Some(value.clone()))?;
    }
    same("values", &log.scan(&bench.cx, "s\u{0}p", None, 100).await?.len(), &values.len())?;
    same("a space that begins alike", &log.scan(&bench.cx, "s", None, 100).await?.len(), &0)
}

async fn state_is_written_when_every_change_is_known(bench: Bench) -> Outcome {
    let log = bench.open().await?;
    log.append(&bench.cx, &changes(0..2), &[]).await?;
    let done = log.append(&bench.cx, &changes(0..2), &[set("s", "k", b"1")]).await?;
    same("duplicates", &done.duplicates, &2)?;
    same("the value", &log.get(&bench.cx, "s", "k").await?, &Some(b"1".to_vec()))
}

async fn later_writes_of_a_key_win(bench: Bench) -> Outcome {
    let log = bench.open().await?;
    let writes =
        [set("s", "a", b"1"), set("s", "a", b"2"), set("s", "b", b"1"), unset("s", "b"), unset("s", "c")];
    log.append(&bench.cx, &[], &writes).await?;
    log.append(&bench.cx, &[], &[unset("s", "c"), set("s", "c", b"3")]).await?;
    let expected = vec![("a".to_owned(), b"2".to_vec()), ("c".to_owned(), b"3".to_vec())];
    same("the space", &log.scan(&bench.cx, "s", None, 10).await?, &expected)
}

async fn state_outlives_the_process(bench: Bench) -> Outcome {
    let log = bench.open().await?;
    log.append(&bench.cx, &changes(0..1), &[set("s", "a", b"1"), set("s", "b", b"2")]).await?;
    log.append(&bench.cx, &[], &[unset("s", "b")]).await?;
    let log = bench.reopen(log).await?;
    let expected = vec![("a".to_owned(), b"1".to_vec())];
    same("the space", &log.scan(&bench.cx, "s", None, 10).await?, &expected)
}
