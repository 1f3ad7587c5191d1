//! Checking a destination, and what a sink says of itself.

use s3rep_core::{ErrorKind, RouteMode, Scope, Table};

use super::{Checked, ensure, ensure_eq, scene::Harness, theme};

theme! {
    "check/passes on a good place and writes nothing" [] passes;
    "check/fails on a bad place and says what to do" [BadPlace] fails;
    "check/the capability is constant and the parts that it claims are there" [] capability;
    "check/flush and close of a sink that was never used" [] idle;
    "check/what was written is there after close and reopen" [Sight] closes;
    "check/a broken connection is temporary and about the sink, and heals" [BrokenConnection, Sight] heals;
}

async fn passes(harness: Harness) -> Checked {
    let mut scene = harness.start().await;
    for time in ["first", "second"] {
        scene.sink.check(&scene.cx).await?;
        for mode in [RouteMode::Upsert, RouteMode::Append] {
            let table = Table { name: "checked".into(), mode, schema: crate::history::schema("checked") };
            if let (Some(sync), true) = (scene.sink.schema_sync(), harness.capability.supports(mode)) {
                let shape = sync.inspect(&scene.cx, &table).await?;
                ensure_eq!(shape, None, "the {time} check made a table");
            }
        }
        if harness.capability.transactional_cursor {
            let stored = scene.sink.cursors(&scene.cx, &scene.replicator).await?;
            ensure_eq!(stored, None, "the {time} check stored a cursor");
        }
        scene.reopen().await;
    }
    Ok(())
}

async fn fails(harness: Harness) -> Checked {
    let Some(sink) = harness.bad().await else {
        return Err("the test offers a bad place and has none".to_owned().into());
    };
    let Err(error) = sink.check(&crate::context::test()).await else {
        return Err("check passes on a bad place".to_owned().into());
    };
    ensure!(error.advice().is_some(), "the error does not say what to do: {error:?}");
    ensure!(error.kind() != ErrorKind::Unexpected, "the error is not classified: {error:?}");
    ensure!(error.scope() >= Scope::Sink, "the error is about less than the sink: {error:?}");
    Ok(())
}

async fn capability(harness: Harness) -> Checked {
    let scene = harness.start().await;
    let capability = scene.sink.capability();
    ensure_eq!(capability, harness.capability, "the sink says something else than its driver");
    ensure!(capability.upsert || capability.append, "the sink can do nothing");
    ensure_eq!(scene.sink.readback().is_some(), capability.readback, "readback claimed and had");
    let limits = capability.limits;
    ensure!(limits.records > 0 && limits.in_flight > 0, "limits of nothing: {limits:?}");
    ensure!(
        limits.record_bytes > 0 && limits.record_bytes <= limits.bytes,
        "limits that contradict: {limits:?}"
    );
    if let Some(&mode) = harness.visible_modes().first() {
        let mut scene = scene;
        let table = scene.table("t", mode).await?;
        scene.write(&table, vec![scene.insert("a", "1")]).await?;
        ensure_eq!(scene.sink.capability(), capability, "the capability changed by a write");
        scene.reopen().await;
        ensure_eq!(scene.sink.capability(), capability, "the capability changed by a restart");
    }
    Ok(())
}

async fn idle(harness: Harness) -> Checked {
    let mut scene = harness.start().await;
    scene.sink.flush(&scene.cx).await?;
    scene.sink.flush(&scene.cx).await?;
    scene.close_and_reopen().await?;
    scene.sink.check(&scene.cx).await?;
    Ok(())
}

async fn closes(harness: Harness) -> Checked {
    for mode in harness.visible_modes() {
        let mut scene = harness.start().await;
        let table = scene.table("t", mode).await?;
        scene.write(&table, scene.inserts("a", 20)).await?;
        scene.close_and_reopen().await?;
        scene.verify(&table, "after close and reopen").await?;
        scene.write(&table, scene.inserts("b", 20)).await?;
        scene.sink.flush(&scene.cx).await?;
        scene.sink.flush(&scene.cx).await?;
        scene.verify(&table, "after two flushes").await?;
        scene.reopen().await;
        scene.verify(&table, "after a crash behind a flush").await?;
    }
    Ok(())
}

async fn heals(harness: Harness) -> Checked {
    for mode in harness.visible_modes() {
        let mut scene = harness.start().await;
        let table = scene.table("t", mode).await?;
        scene.write(&table, scene.inserts("a", 3)).await?;
        scene.break_connection().await;
        let batch = scene.batch(&table, scene.inserts("b", 3));
        let Err(error) = scene.apply(&batch).await else {
            return Err("a batch was taken over a broken connection".to_owned().into());
        };
        ensure!(error.is_temporary(), "the error is not worth another try: {error:?}");
        ensure!(error.scope() == Scope::Sink, "the error is not about the sink: {error:?}");
        ensure!(scene.sink.check(&scene.cx).await.is_err(), "check passes over a broken connection");
        scene.mend_connection().await;
        // The first call may meet the old connection.
        if scene.apply(&batch).await.is_err() {
            scene.apply(&batch).await?;
        }
        scene.expect(&batch);
        scene.verify(&table, "after the connection was mended").await?;
    }
    Ok(())
}
