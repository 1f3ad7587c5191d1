//! Bars on a terminal; nothing in a pipe.

use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use s3rep::{
    core::Seq,
    engine::{LaneProgress, LaneState, Pipeline},
};
use tokio::task::JoinHandle;

use crate::output;

const REFRESH: Duration = Duration::from_millis(200);

/// Shows something for as long as it lives.
pub(crate) struct Bars {
    task: Option<JoinHandle<()>>,
    bars: Vec<ProgressBar>,
}

impl Drop for Bars {
    fn drop(&mut self) {
        if let Some(task) = &self.task {
            task.abort();
        }
        for bar in &self.bars {
            bar.finish_and_clear();
        }
    }
}

/// One line for each replicator.
pub(crate) fn show(pipeline: &Pipeline) -> Bars {
    if !output::has_terminal() {
        return Bars { task: None, bars: Vec::new() };
    }
    let all = MultiProgress::new();
    let bars: Vec<ProgressBar> = pipeline.progress().iter().map(|_| all.add(spinner())).collect();
    let (pipeline, shown) = (pipeline.clone(), bars.clone());
    let task = tokio::spawn(async move {
        loop {
            let last = end_of_log(&pipeline).await;
            for (bar, lane) in shown.iter().zip(pipeline.progress()) {
                bar.set_message(describe(&lane, last));
                bar.tick();
            }
            tokio::time::sleep(REFRESH).await;
        }
    });
    Bars { task: Some(task), bars }
}

/// A bar that counts records, for a comparison.
pub(crate) fn counter(what: &str) -> ProgressBar {
    if !output::has_terminal() {
        return ProgressBar::hidden();
    }
    let bar = spinner();
    bar.set_message(what.to_owned());
    bar
}

fn spinner() -> ProgressBar {
    // The template is a constant; were it wrong, the default style would do.
    let style = ProgressStyle::with_template("{spinner} {msg} {pos}")
        .unwrap_or_else(|_| ProgressStyle::default_spinner());
    ProgressBar::new_spinner().with_style(style)
}

/// Where the log ends now.
pub(crate) async fn end_of_log(pipeline: &Pipeline) -> Seq {
    let cx = s3rep::engine::context::system();
    pipeline.log().extent(&cx).await.map(|extent| extent.last).unwrap_or_default()
}

/// A replicator in a line.
pub(crate) fn describe(lane: &LaneProgress, last: Seq) -> String {
    let waiting = last.0.saturating_sub(lane.position.0);
    let state = match &lane.state {
        LaneState::Starting => "starting".to_owned(),
        LaneState::Running if waiting == 0 => "up to date".to_owned(),
        LaneState::Running => format!("{waiting} waiting"),
        LaneState::Retrying(error) => format!("{waiting} waiting; trying again: {error}"),
        LaneState::Stopped(error) => format!("{waiting} waiting; stopped: {error}"),
        LaneState::Ended => "ended".to_owned(),
    };
    let parked = if lane.parked > 0 { format!(", {} parked", lane.parked) } else { String::new() };
    format!("{:<8} {:>7} rows written{parked}, {state}", lane.replicator, lane.written)
}
