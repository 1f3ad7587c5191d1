//! Calls that are given up in the middle: the outcome is unknown, and the same call comes back.

use std::{
    pin::Pin,
    task::{Context as TaskContext, Poll},
};

use s3rep_core::{Batch, Partition, Seq};

use super::{
    Checked, ensure, ensure_eq,
    scene::{Harness, Scene, by_place, cursor_moves},
    theme,
};

theme! {
    "interrupted/a call that is given up and made again is right" [Sight] again;
    "interrupted/a call that is given up, and a restart" [Sight] restarted;
    "interrupted/a call that is given up, and the next batch without it" [Sight, Cursor] whole_or_not;
    "interrupted/an advance that is given up and made again is right" [Cursor] advance;
}

/// Runs a future until it is done or was polled `polls` times, whichever comes first; then drops it. Every
/// place where a call waits is met by some number of polls.
struct GivenUp<F> {
    call: Pin<Box<F>>,
    polls: usize,
}

impl<F: Future> Future for GivenUp<F> {
    type Output = Option<F::Output>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut TaskContext<'_>) -> Poll<Self::Output> {
        if self.polls == 0 {
            return Poll::Ready(None);
        }
        self.polls -= 1;
        match self.call.as_mut().poll(cx) {
            Poll::Ready(output) => Poll::Ready(Some(output)),
            // The last poll: what the call waits for goes on without it.
            Poll::Pending if self.polls == 0 => Poll::Ready(None),
            Poll::Pending => Poll::Pending,
        }
    }
}

fn give_up<F: Future>(polls: usize, call: F) -> GivenUp<F> {
    GivenUp { call: Box::pin(call), polls }
}

/// The largest number of polls tried: a call that waits more often is one that waits in a loop.
const MOST: usize = 24;

/// Makes a call, gives it up, and says whether it had come to its end.
async fn interrupted_apply(scene: &Scene, batch: &Batch, polls: usize) -> Checked<bool> {
    match give_up(polls, scene.apply(batch)).await {
        Some(answer) => {
            ensure!(answer?.rejected.is_empty(), "records were refused");
            Ok(true)
        }
        None => Ok(false),
    }
}

fn changes(scene: &Scene, polls: usize) -> Vec<s3rep_core::RowChange> {
    let mut changes = scene.inserts(&format!("p{polls}"), 10);
    changes.push(scene.update("shared", &polls.to_string()));
    if scene.capability().deletes && polls > 0 {
        changes.push(scene.delete(&format!("p{}-00003", polls - 1)));
    }
    changes
}

async fn again(harness: Harness) -> Checked {
    for mode in harness.visible_modes() {
        let mut scene = harness.start().await;
        let table = scene.table("t", mode).await?;
        for polls in 0..MOST {
            let batch = scene.batch(&table, changes(&scene, polls));
            let done = interrupted_apply(&scene, &batch, polls).await?;
            scene.write_batch(&batch).await?;
            scene.verify(&table, &format!("given up after {polls} polls and made again")).await?;
            if done {
                break;
            }
        }
    }
    Ok(())
}

async fn restarted(harness: Harness) -> Checked {
    for mode in harness.visible_modes() {
        let mut scene = harness.start().await;
        let table = scene.table("t", mode).await?;
        for polls in 0..MOST {
            let batch = scene.batch(&table, changes(&scene, polls));
            let done = interrupted_apply(&scene, &batch, polls).await?;
            scene.reopen().await;
            scene.write_batch(&batch).await?;
            scene.verify(&table, &format!("given up after {polls} polls, restarted, made again")).await?;
            if done {
                break;
            }
        }
    }
    Ok(())
}

async fn whole_or_not(harness: Harness) -> Checked {
    for mode in harness.visible_modes() {
        let mut scene = harness.start().await;
        let table = scene.table("t", mode).await?;
        for polls in 0..MOST {
            let batch = scene.batch(&table, changes(&scene, polls));
            let before = scene.cursors().await?;
            let done = interrupted_apply(&scene, &batch, polls).await?;
            // A write of its own behind the call that was given up: whatever that one still does is done then.
            let next = scene.table(&format!("next_{polls}"), mode).await?;
            scene.write(&next, scene.inserts("n", 1)).await?;
            scene.reopen().await;
            let mut now = scene.cursors().await?;
            now.retain(|(table, _), _| table == "t");
            let mut before = before;
            before.retain(|(table, _), _| table == "t");
            let mut moved = before.clone();
            moved.extend(by_place(&batch.progress.cursors));
            if now == moved {
                scene.expect(&batch);
            } else {
                ensure!(!done, "a batch that was taken moved no cursor");
                ensure_eq!(now, before, "the cursors are neither where they were nor where they should be");
            }
            scene
                .verify(&table, &format!("given up after {polls} polls: the rows are as the cursor says"))
                .await?;
            scene.write_batch(&batch).await?;
            if done {
                break;
            }
        }
        scene.verify(&table, "at the end").await?;
    }
    Ok(())
}

async fn advance(harness: Harness) -> Checked {
    let mut scene = harness.start().await;
    for polls in 0..MOST {
        let seq = Seq(polls as u64 + 1);
        let moves = cursor_moves("", (0..4).map(|p| (Partition(p), seq)).collect());
        let progress = scene.progress(moves.clone());
        let done = give_up(polls, scene.sink.advance(&scene.cx, &progress)).await;
        scene.sink.advance(&scene.cx, &progress).await?;
        scene.reopen().await;
        ensure_eq!(scene.cursors().await?, by_place(&moves), "given up after {polls} polls and made again");
        if done.is_some() {
            break;
        }
    }
    Ok(())
}
