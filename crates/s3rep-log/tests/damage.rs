//! Damaged files: never a panic, never a wrong record, never a program that cannot start.

// A test fails by panicking.
#![allow(clippy::unwrap_used)]

mod support;

use std::{
    fs,
    path::Path,
    sync::{Arc, OnceLock},
};

use s3rep_core::{ChangeLog as _, ErrorKind, Event, Random as _, Seq, StartAt};
use s3rep_log::{EmbeddedLog, LogOptions};
use s3rep_testkit::context::{self, SplitMix, seed};
use support::{Content, changes, content, fill, open, set_aside, to_resync};

const ENTRIES: u64 = 2_000;
/// Bytes of a page of the file.
const PAGE: usize = 8_192;

/// A sound log, made once.
fn sound() -> &'static (tempfile::TempDir, Content) {
    static SOUND: OnceLock<(tempfile::TempDir, Content)> = OnceLock::new();
    SOUND.get_or_init(|| {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().to_owned();
        // On a thread of its own: the one that asks first is a runtime's.
        let made = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
            runtime.block_on(fill(&path, ENTRIES))
        });
        let content = made.join().unwrap();
        assert!(!dir.path().join("log.db-wal").exists(), "a closed log is one file");
        (dir, content)
    })
}

fn damaged(damage: impl FnOnce(&mut Vec<u8>)) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let mut bytes = fs::read(sound().0.path().join("log.db")).unwrap();
    damage(&mut bytes);
    fs::write(dir.path().join("log.db"), bytes).unwrap();
    dir
}

/// Opens what may be damaged, looks at everything and writes. Returns whether the file had to be replaced.
async fn survives(dir: &Path, what: &str) -> bool {
    let original = &sound().1;
    for attempt in 0..3 {
        let (log, events) = EmbeddedLog::open(dir, &LogOptions::default())
            .unwrap_or_else(|error| panic!("{what}: the log cannot be opened: {error:?}"));
        let replaced = log.id() != original.id;
        if replaced {
            let said = events.iter().any(|event| matches!(event, Event::LogDamaged { .. })) || attempt > 1;
            assert!(said, "{what}: a replaced log is reported");
            assert!(!set_aside(dir).is_empty(), "{what}: the old log is kept");
        }
        let looked = look(&log, original, replaced, what).await;
        match looked {
            Ok(()) => return replaced,
            Err(error) => assert_eq!(error.kind(), ErrorKind::Corrupt, "{what}: {error:?}"),
        }
        assert!(!replaced, "{what}: a new log is sound");
        tokio::task::spawn_blocking(move || drop(log)).await.unwrap();
    }
    panic!("{what}: the log stays damaged");
}

async fn look(log: &EmbeddedLog, original: &Content, replaced: bool, what: &str) -> s3rep_core::Result<()> {
    let cx = context::test();
    let found = content(log).await?;
    if replaced {
        assert_eq!((found.entries.len(), found.damaged.len()), (0, 0), "{what}: a new log is empty");
        for known in &found.replicators {
            assert!(known.needs_resync.is_some(), "{what}: {known:?}");
            assert!(known.cursors.iter().all(|cursor| *cursor == Seq(0)), "{what}: {known:?}");
        }
    } else {
        let mut offsets: Vec<_> = found.damaged.iter().map(|(seq, _)| seq.0).collect();
        for entry in &found.entries {
            assert_eq!(entry, &original.entries[entry.seq.0 as usize - 1], "{what}: a wrong entry");
            offsets.push(entry.seq.0);
        }
        offsets.sort_unstable();
        assert!(offsets.iter().copied().eq(1..=ENTRIES), "{what}: an entry is neither there nor reported");
        for (seq, partition) in &found.damaged {
            let right = original.entries[seq.0 as usize - 1].partition;
            assert!(partition.is_none_or(|partition| partition == right), "{what}: a wrong partition");
        }
        for known in &found.replicators {
            let before = original.replicators.iter().find(|before| before.replicator == known.replicator);
            let marked = known.needs_resync.is_some();
            assert!(
                marked || before.is_some_and(|before| before.cursors == known.cursors),
                "{what}: {known:?}"
            );
            let missed = found.damaged.iter().any(|(seq, partition)| match partition {
                Some(partition) => known.cursors[usize::from(partition.0)] < *seq,
                None => known.cursors.iter().any(|cursor| cursor < seq),
            });
            assert!(marked || !missed, "{what}: {} has missed entries and is not marked", known.replicator);
        }
        let again = content(log).await?;
        assert_eq!(again.entries.len(), found.entries.len(), "{what}: reading again finds the same");
        assert_eq!(again.damaged, found.damaged, "{what}: reading again reports the same");
    }
    for (key, value) in &found.state {
        let right = key.strip_prefix("record-").map(|n| format!("noted {n}").into_bytes());
        assert_eq!(Some(value), right.as_ref(), "{what}: wrong state");
    }
    for letter in &found.letters {
        assert!(original.letters.contains(letter), "{what}: a wrong letter");
    }
    // It goes on.
    let last = log.extent(&cx).await?.last;
    let done = log.append(&cx, &changes(5_000..5_100, 200), &[]).await?;
    assert_eq!((done.appended, done.last.0), (100, last.0 + 100), "{what}: appending");
    let page = log.read(&cx, last, 100, 1 << 20).await?;
    assert!(
        page.entries.iter().map(|entry| &entry.change).eq(&changes(5_000..5_100, 200)),
        "{what}: appended entries"
    );
    log.acquire(&cx, "lite", StartAt::Oldest).await?;
    log.trim(&cx, s3rep_core::Retention { max_bytes: 50_000, ..Default::default() }).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sound_log_survives() {
    let dir = damaged(|_| {});
    assert!(!survives(dir.path(), "no damage").await);
}

#[tokio::test(flavor = "multi_thread")]
async fn flipped_bits_are_noticed() {
    let seed = seed();
    let mut replaced = 0;
    for round in 0..250 {
        let random = SplitMix::new(seed.wrapping_add(round));
        let what = format!("round {round}, S3REP_SEED={seed}");
        let dir = damaged(|bytes| {
            // In a third of the rounds, where it hurts most: the head of the file, or the heads of its pages.
            let at = |random: &SplitMix| match round % 3 {
                0 => {
                    random.below((bytes.len() / PAGE) as u64) * PAGE as u64
                        + random.below(if round % 2 == 0 { 16 } else { 120 })
                }
                _ => random.below(bytes.len() as u64),
            };
            let places: Vec<_> = (0..=random.below(4)).map(|_| at(&random) as usize).collect();
            for place in places {
                bytes[place] ^= 1 << random.below(8);
            }
        });
        replaced += u32::from(survives(dir.path(), &what).await);
    }
    println!("{replaced} of 250 files had to be replaced");
    assert!(replaced < 250, "most damage is survived in place");
}

#[tokio::test(flavor = "multi_thread")]
async fn overwritten_pages_are_noticed() {
    let seed = seed();
    for round in 0..60 {
        let random = SplitMix::new(seed.wrapping_add(round));
        let what = format!("round {round}, S3REP_SEED={seed}");
        let dir = damaged(|bytes| {
            let pages = (bytes.len() / PAGE) as u64;
            let (to, from) = (random.below(pages) as usize * PAGE, random.below(pages) as usize * PAGE);
            match round % 3 {
                0 => bytes[to..to + PAGE].fill(0),
                1 => bytes.copy_within(from..from + PAGE, to),
                _ => bytes[to..to + 512].iter_mut().for_each(|byte| *byte = random.next_u64() as u8),
            }
        });
        survives(dir.path(), &what).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_truncated_file_is_replaced() {
    let random = SplitMix::new(seed());
    for round in 0..20 {
        let dir = damaged(|bytes| {
            let len = if round == 0 { 0 } else { random.below(bytes.len() as u64) as usize };
            bytes.truncate(len);
        });
        assert!(survives(dir.path(), &format!("truncated, round {round}")).await);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn garbage_is_replaced() {
    for (what, garbage) in
        [("empty", Vec::new()), ("text", b"hello ".repeat(10_000)), ("zeros", vec![0; 100_000])]
    {
        let dir = damaged(|bytes| *bytes = garbage);
        assert!(survives(dir.path(), what).await);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replaced_log_keeps_its_replicators_and_says_what_happened() {
    let original = &sound().1;
    let dir = damaged(|bytes| {
        // The kind of the page on which the log's tree begins.
        let root = bytes.windows(9).position(|window| window == b"TABLE log").unwrap();
        assert!(root < PAGE);
        let tree = (1..bytes.len() / PAGE).find(|page| bytes[page * PAGE] == 5).unwrap();
        bytes[tree * PAGE] = 0x77;
    });
    let fences: Vec<_> = original.replicators.iter().map(|known| known.fence).collect();
    let (log, events) = EmbeddedLog::open(dir.path(), &LogOptions::default()).unwrap();
    assert_ne!(log.id(), original.id);
    assert_eq!(to_resync(&events), ["lines", "lite"]);
    let Event::LogDamaged { detail } = &events[0] else { panic!("{events:?}") };
    let aside = set_aside(dir.path());
    assert_eq!(aside.len(), 1, "{aside:?}");
    assert!(detail.contains(&aside[0]) && detail.contains("lines, lite"), "{detail}");
    let cx = context::test();
    let lease = log.acquire(&cx, "lite", StartAt::End).await.unwrap();
    assert!(!lease.is_new && lease.needs_resync.is_some());
    assert!(fences.iter().all(|fence| lease.fence > *fence), "owners of the old log are outranked");
    drop(log);
    // And only once.
    assert_eq!(EmbeddedLog::open(dir.path(), &LogOptions::default()).unwrap().1, Vec::new());
    assert_eq!(set_aside(dir.path()).len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_entry_is_set_aside_and_the_log_goes_on() {
    let original = &sound().1;
    let dir = damaged(|bytes| {
        let text = format!("{:08}", 1_234).repeat(4);
        // Everywhere: pages that were split still hold old copies.
        for at in 0..bytes.len() - text.len() {
            if bytes[at..].starts_with(text.as_bytes()) {
                bytes[at] ^= 4;
            }
        }
    });
    let log = open(dir.path());
    let found = content(&log).await.unwrap();
    let right = original.entries[1_234].partition;
    assert_eq!(found.damaged, [(Seq(1_235), Some(right))]);
    assert_eq!(found.entries.len() as u64, ENTRIES - 1);
    assert!(found.replicators.iter().all(|known| known.needs_resync.is_some()), "both had it before them");
    assert_eq!(log.extent(&context::test()).await.unwrap().entries, ENTRIES - 1);
    // The change itself is not held any more, so it can come again.
    let done = log.append(&context::test(), &[original.entries[1_234].change.clone()], &[]).await.unwrap();
    assert_eq!(done.appended, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_file_beside_its_write_ahead_log_is_not_mixed_with_a_new_one() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("log.db-wal"), [7; 5_000]).unwrap();
    let (log, events) = EmbeddedLog::open(dir.path(), &LogOptions::default()).unwrap();
    assert!(matches!(events[..], [Event::LogDamaged { .. }]), "{events:?}");
    log.append(&context::test(), &changes(0..10, 100), &[]).await.unwrap();
    let log: Arc<EmbeddedLog> = Arc::new(log);
    assert_eq!(content(&log).await.unwrap().entries.len(), 10);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_newer_format_is_refused_and_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    drop(open(dir.path()));
    let db = libsql::Builder::new_local(dir.path().join("log.db")).build().await.unwrap();
    let connection = db.connect().unwrap();
    let mut rows = connection.query("SELECT value FROM meta WHERE key = 'id'", ()).await.unwrap();
    let id: String = rows.next().await.unwrap().unwrap().get(0).unwrap();
    drop(rows);
    let mut sum = crc32fast::Hasher::new();
    for part in ["2", &id, "16"] {
        sum.update(&(part.len() as u64).to_le_bytes());
        sum.update(part.as_bytes());
    }
    let sum = sum.finalize().to_string();
    connection.execute("UPDATE meta SET value = '2' WHERE key = 'format'", ()).await.unwrap();
    connection.execute("UPDATE meta SET value = ? WHERE key = 'check'", [sum]).await.unwrap();
    drop((connection, db));
    let error = EmbeddedLog::open(dir.path(), &LogOptions::default()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConfigInvalid, "{error:?}");
    assert_eq!(set_aside(dir.path()), Vec::<String>::new());
}
