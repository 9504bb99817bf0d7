//! Short tasks in a stream, and what one costs in processor time, for those who change the way of a task:
//!
//!     WAYPOST_TEST_TASKS=20000 cargo test --release -p worker --test it -- --nocapture speed

use std::time::Instant;

use bytes::Bytes;
use serde_json::json;
use uuid::Uuid;
use waypost_link::{ToAgent, ToWorker};

use crate::agent::Agent;
use crate::tasks::{call, message};

const TASKS: u32 = 2_000;
/// How many are settled by one message, as the agent does under load.
const SETTLED_AT_ONCE: usize = 32;

#[tokio::test]
async fn a_stream_of_short_tasks_comes_back_and_each_once() {
    let tasks = std::env::var("WAYPOST_TEST_TASKS").map_or(TASKS, |tasks| tasks.parse().unwrap());
    let agent = Agent::unix();
    let worker = agent.start(&["--slots", "2"]);
    let mut session = agent.welcome().await;
    let buffer = call("add", json!([1, 2]));
    let template = message(Uuid::nil(), &buffer);
    let warm_up = Uuid::new_v4();
    session.run(warm_up, &buffer).await;
    session.result_of(warm_up).await;
    let before = processor_times(worker.pid());
    let start = Instant::now();
    let (mut given, mut finished) = (0, 0);
    let mut settled = Vec::new();
    let mut back = std::collections::HashSet::new();
    while finished < tasks {
        while session.credit > 0 && given < tasks {
            session.credit -= 1;
            given += 1;
            session.queue(ToWorker::Run {
                task: Uuid::new_v4(),
                attempt: 0,
                result_serializers: Vec::new(),
                body: Bytes::clone(&template),
            });
        }
        for heard in session.hear_all().await {
            match heard {
                ToAgent::Finished { task, .. } => {
                    finished += 1;
                    assert!(back.insert(task), "{task} came back twice");
                    settled.push(task);
                }
                ToAgent::Failed { failure, .. } => panic!("{failure:?}"),
                ToAgent::Refused { reason, .. } => panic!("{reason:?}"),
                _ => {}
            }
        }
        if settled.len() >= SETTLED_AT_ONCE {
            session.queue(ToWorker::Settled {
                tasks: std::mem::take(&mut settled),
            });
        }
        session.flush().await;
    }
    let wall = start.elapsed();
    let after = processor_times(worker.pid());
    let per_task = |from: f64, to: f64| (to - from) * 1e6 / f64::from(tasks);
    eprintln!(
        "{tasks} tasks in {wall:?}: {:.0} tasks/s; a task takes the supervisor {:.1} us and the executors {:.1} us",
        f64::from(tasks) / wall.as_secs_f64(),
        per_task(before.0, after.0),
        per_task(before.1, after.1),
    );
    let switches = |process: i64| {
        let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap();
        let lines = status.lines().filter(|line| line.contains("ctxt_switches"));
        lines.map(str::to_owned).collect::<Vec<_>>().join(" ")
    };
    eprintln!("supervisor: {}", switches(worker.pid().into()));
}

/// Seconds of processor time of the supervisor and of its children.
fn processor_times(worker: i32) -> (f64, f64) {
    let children = crate::faults::children(worker).into_iter().map(processor_time).sum();
    (processor_time(worker.into()), children)
}

fn processor_time(process: i64) -> f64 {
    let mut nanoseconds = 0.0;
    for thread in std::fs::read_dir(format!("/proc/{process}/task")).unwrap() {
        let text = std::fs::read_to_string(thread.unwrap().path().join("schedstat")).unwrap();
        nanoseconds += text.split_whitespace().next().unwrap().parse::<f64>().unwrap();
    }
    nanoseconds / 1e9
}
