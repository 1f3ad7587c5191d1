//! Other processes, `kill -9`, and disks that are full or cannot be written.

// A test fails by panicking.
#![allow(clippy::unwrap_used)]

mod support;

use std::{
    fs,
    io::{BufRead as _, BufReader, Write as _},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use libtest_mimic::{Arguments, Failed, Trial};
use s3rep_core::{ChangeLog as _, ErrorKind, Seq, SourceState as _, StartAt, StateWrite};
use s3rep_log::{EmbeddedLog, LogOptions};
use s3rep_testkit::{
    context::{self, SplitMix, seed},
    disk::SmallDisk,
};
use support::{changes, content, open, set_aside};

const CHILD: &str = "--be-a-child";

fn main() {
    let arguments: Vec<_> = std::env::args().collect();
    if let [_, flag, role, dir] = &arguments[..]
        && flag == CHILD
    {
        return child(role, Path::new(dir));
    }
    let mut trials = vec![
        trial("a_directory_in_use_is_refused", a_directory_in_use_is_refused),
        trial("a_directory_in_use_by_this_process_is_refused", in_use_by_this_process),
        trial("acknowledged_appends_survive_kill_9", acknowledged_appends_survive_kill_9),
        trial("status_is_read_beside_a_running_process", status_is_read_beside_a_running_process),
        trial("status_of_a_stopped_process_writes_nothing", status_of_a_stopped_process_writes_nothing),
        trial("a_state_directory_that_is_a_file", a_state_directory_that_is_a_file),
    ];
    let missing = SmallDisk::new(1).err();
    for (name, run) in [
        ("a_full_disk_refuses_and_recovers", a_full_disk_refuses_and_recovers as fn() -> Outcome),
        ("a_read_only_disk_is_named", a_read_only_disk_is_named),
    ] {
        trials.push(missing.as_ref().map_or_else(|| trial(name, run), |missing| missing.trial(name)));
    }
    libtest_mimic::run(&Arguments::from_args(), trials).exit();
}

type Outcome = Result<(), Failed>;

fn trial(name: &str, run: fn() -> Outcome) -> Trial {
    Trial::test(name, run)
}

fn wait<F: Future>(future: F) -> F::Output {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap()
        .block_on(future)
}

/// What the process does that the tests start and kill.
fn child(role: &str, dir: &Path) {
    let log = open(dir);
    let cx = context::test();
    let mut say = std::io::stdout();
    wait(async {
        match role {
            "hold" => {
                log.append(&cx, &changes(0..10, 100), &[]).await.unwrap();
                log.acquire(&cx, "lite", StartAt::Oldest).await.unwrap();
                writeln!(say, "ready").unwrap();
                tokio::time::sleep(Duration::from_secs(60)).await;
            }
            "append" => {
                let mut next = log.extent(&cx).await.unwrap().last.0;
                loop {
                    let count = 1 + next % 97;
                    let state = StateWrite {
                        space: "s".into(),
                        key: "n".into(),
                        value: Some((next + count).to_string().into()),
                    };
                    let done = log.append(&cx, &changes(next..next + count, 300), &[state]).await.unwrap();
                    next += count;
                    assert_eq!(done.last.0, next);
                    writeln!(say, "{next}").unwrap();
                }
            }
            _ => unreachable!(),
        }
    });
}

fn spawn(role: &str, dir: &Path) -> Child {
    let exe = std::env::current_exe().unwrap();
    Command::new(exe).args([CHILD, role]).arg(dir).stdout(Stdio::piped()).spawn().unwrap()
}

fn first_line(child: &mut Child) {
    let mut line = String::new();
    BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
    assert_eq!(line.trim(), "ready");
}

fn kill(mut child: Child) {
    child.kill().unwrap();
    child.wait().unwrap();
}

fn a_directory_in_use_is_refused() -> Outcome {
    let dir = tempfile::tempdir()?;
    let mut child = spawn("hold", dir.path());
    first_line(&mut child);
    let error = EmbeddedLog::open(dir.path(), &LogOptions::default()).unwrap_err();
    let (text, advice) = (error.report(), error.advice().unwrap_or_default().to_owned());
    let pid = child.id().to_string();
    kill(child);
    assert_eq!(error.kind(), ErrorKind::Contention);
    assert!(text.contains("another process") && text.contains(&pid), "{text}");
    assert!(text.contains(&*dir.path().to_string_lossy()), "{text}");
    assert!(advice.contains(&pid), "{advice}");
    // The lock died with its process.
    let log = open(dir.path());
    assert_eq!(wait(log.extent(&context::test()))?.entries, 10);
    Ok(())
}

fn in_use_by_this_process() -> Outcome {
    let dir = tempfile::tempdir()?;
    let log = open(dir.path());
    let error = EmbeddedLog::open(dir.path(), &LogOptions::default()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Contention);
    drop(log);
    open(dir.path());
    Ok(())
}

fn acknowledged_appends_survive_kill_9() -> Outcome {
    let seed = seed();
    let random = SplitMix::new(seed);
    let dir = tempfile::tempdir()?;
    for round in 0..25 {
        let mut child = spawn("append", dir.path());
        let out = child.stdout.take().unwrap();
        let reader = std::thread::spawn(move || {
            let lines = BufReader::new(out).lines().map_while(Result::ok);
            // The last line may have been cut.
            lines.filter_map(|line| line.parse::<u64>().ok()).last()
        });
        std::thread::sleep(Duration::from_millis(30 + random.below(250)));
        kill(child);
        let acknowledged = reader.join().map_err(|_| "the reader failed")?.unwrap_or(0);
        let start = Instant::now();
        let log = open(dir.path());
        let took = start.elapsed();
        let what = format!("round {round}, S3REP_SEED={seed}");
        wait(async {
            let last = log.extent(&context::test()).await?.last.0;
            assert!(last >= acknowledged, "{what}: {acknowledged} were acknowledged, {last} are there");
            let found = content(&log).await?;
            assert!(found.entries.iter().map(|entry| entry.seq.0).eq(1..=last), "{what}: gaps");
            for entry in found.entries.iter().rev().take(500) {
                let id = format!("record-{}", entry.seq.0 - 1);
                assert_eq!(*entry.change.id, *id, "{what}");
            }
            let noted = log.get(&context::test(), "s", "n").await?;
            let noted =
                noted.and_then(|noted| String::from_utf8(noted).ok()).and_then(|text| text.parse().ok());
            assert_eq!(noted.unwrap_or(0), last, "{what}: half an append");
            s3rep_core::Result::<()>::Ok(())
        })?;
        assert!(took < Duration::from_secs(5), "{what}: opening took {took:?}");
    }
    Ok(())
}

fn status_is_read_beside_a_running_process() -> Outcome {
    let dir = tempfile::tempdir()?;
    let mut child = spawn("hold", dir.path());
    first_line(&mut child);
    let looked = wait(async {
        let reader = EmbeddedLog::open_readonly(dir.path())?;
        s3rep_core::Result::<_>::Ok((
            reader.extent().await?,
            reader.replicators().await?,
            reader.read(Seq(0), 99, 1 << 20).await?,
        ))
    });
    kill(child);
    let (extent, replicators, page) = looked?;
    assert_eq!((extent.entries, replicators[0].pending, page.entries.len()), (10, 10, 10));
    Ok(())
}

fn status_of_a_stopped_process_writes_nothing() -> Outcome {
    let dir = tempfile::tempdir()?;
    let error = EmbeddedLog::open_readonly(dir.path()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound, "{error:?}");
    let log = open(dir.path());
    wait(log.append(&context::test(), &changes(0..10, 100), &[]))?;
    drop(log);
    let names = || {
        let mut names: Vec<_> = fs::read_dir(dir.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    };
    let before = names();
    let reader = EmbeddedLog::open_readonly(dir.path())?;
    assert_eq!(wait(reader.extent())?.entries, 10);
    assert_eq!(names(), before);
    assert_eq!(before, ["lock", "log.db"]);
    Ok(())
}

fn a_state_directory_that_is_a_file() -> Outcome {
    let dir = tempfile::tempdir()?;
    let path = dir.path().join("state");
    fs::write(&path, "not a directory")?;
    let error = EmbeddedLog::open(&path, &LogOptions::default()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConfigInvalid, "{error:?}");
    assert!(error.report().contains(&*path.to_string_lossy()) && error.advice().is_some(), "{error:?}");
    Ok(())
}

fn state(disk: &SmallDisk) -> PathBuf {
    disk.path().join("state")
}

fn small_disk(megabytes: u32) -> Result<SmallDisk, Failed> {
    SmallDisk::new(megabytes).map_err(|missing| missing.to_string().into())
}

fn a_full_disk_refuses_and_recovers() -> Outcome {
    let disk = small_disk(24)?;
    let log = open(&state(&disk));
    let cx = context::test();
    wait(async {
        log.append(&cx, &changes(0..100, 1_000), &[]).await?;
        disk.fill(8 << 20);
        let mut next = 100;
        let error = loop {
            let state =
                StateWrite { space: "s".into(), key: "n".into(), value: Some(next.to_string().into()) };
            match log.append(&cx, &changes(next..next + 100, 1_000), &[state]).await {
                Ok(_) => next += 100,
                Err(error) => break error,
            }
            assert!(next < 100_000, "the disk never fills");
        };
        assert_eq!(error.kind(), ErrorKind::StorageFull, "{error:?}");
        assert!(error.is_temporary() && error.advice().is_some(), "{error:?}");
        assert!(error.report().contains("log.db"), "{error:?}");
        // Again and again: nothing half-written, and reading goes on.
        for _ in 0..5 {
            let error =
                log.append(&cx, &changes(next..next + 100, 1_000), &[]).await.err().ok_or("no error")?;
            assert_eq!(error.kind(), ErrorKind::StorageFull, "{error:?}");
        }
        assert_eq!(log.extent(&cx).await?.last.0, next);
        assert_eq!(content(&log).await?.entries.len() as u64, next);
        disk.free();
        let done = log.append(&cx, &changes(next..next + 100, 1_000), &[]).await?;
        assert_eq!((done.appended, done.last.0), (100, next + 100));
        assert_eq!(content(&log).await?.entries.len() as u64, next + 100);
        assert_eq!(log.get(&cx, "s", "n").await?, Some((next - 100).to_string().into_bytes()));
        Outcome::Ok(())
    })?;
    drop(log);
    let log = open(&state(&disk));
    assert_eq!(set_aside(&state(&disk)), Vec::<String>::new());
    drop(log);
    // A disk that is full from the beginning.
    let disk = small_disk(1)?;
    disk.fill(0);
    let error = EmbeddedLog::open(&state(&disk), &LogOptions::default()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::StorageFull, "{error:?}");
    disk.free();
    open(&state(&disk));
    Ok(())
}

fn a_read_only_disk_is_named() -> Outcome {
    let disk = small_disk(8)?;
    drop(open(&state(&disk)));
    if !disk.set_read_only(true) {
        return Err("the disk cannot be made read-only".into());
    }
    let error = EmbeddedLog::open(&state(&disk), &LogOptions::default()).unwrap_err();
    let other = EmbeddedLog::open(&disk.path().join("new"), &LogOptions::default()).unwrap_err();
    let looked = EmbeddedLog::open_readonly(&state(&disk)).map(|reader| wait(reader.extent()));
    disk.set_read_only(false);
    for error in [error, other] {
        assert_eq!(error.kind(), ErrorKind::PermissionDenied, "{error:?}");
        assert!(error.report().contains(&*disk.path().to_string_lossy()), "{error:?}");
        assert!(error.advice().is_some(), "{error:?}");
    }
    assert_eq!(looked??.entries, 0);
    Ok(())
}
