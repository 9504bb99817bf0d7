//! The worker and its agent over time: credit, redial, drain, cancel, refusal.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use serde_json::json;
use uuid::Uuid;
use waypost_link::{Cause, HEARTBEAT, HeldState, HelloRefusal, Refusal, ToAgent, ToWorker};

use crate::ORPHANED;
use crate::agent::{Agent, Back, is_alive, until};
use crate::tasks::{call, message, pack, returned};

/// Nothing is said for this long when nothing is to be said.
const SILENCE: Duration = Duration::from_millis(300);

#[tokio::test]
async fn a_worker_asks_for_as_many_tasks_as_it_has_slots_and_no_more() {
    let agent = Agent::unix();
    let _worker = agent.start(&["--slots", "3"]);
    let mut session = agent.welcome().await;
    session.wait_for_credit(3).await;
    assert!(session.hear_within(SILENCE).await.is_none());
    assert_eq!(session.credit, 3);
}

#[tokio::test]
async fn short_tasks_are_fetched_ahead_and_long_ones_are_not() {
    let agent = Agent::unix();
    let _worker = agent.start(&["--slots", "1"]);
    let mut session = agent.welcome().await;
    let buffers = pack(&[("short", "add", json!([1, 2])), ("long", "nap", json!([0.4]))]);
    // How many it takes until they have been short long enough depends on how busy the machine is.
    for done in 0.. {
        session.result(&buffers[0]).await;
        if session.credit >= 10 {
            break;
        }
        assert!(
            done < 5_000,
            "{} are asked for ahead after {done} short tasks",
            session.credit
        );
    }
    // A long one empties what was asked for, and no more than one is asked for after it.
    session.result(&buffers[1]).await;
    let mut given = Vec::new();
    while session.credit > 1 {
        let task = Uuid::new_v4();
        session.run(task, &buffers[1]).await;
        given.push(task);
    }
    // A recall that came with its run would find nothing begun.
    while !matches!(session.hear().await, ToAgent::Started { .. }) {}
    // Those that have not begun can be had back.
    for task in &given {
        session
            .say(ToWorker::Recall {
                task: *task,
                attempt: 0,
            })
            .await;
    }
    let (mut finished, mut recalled) = (0, 0);
    while finished + recalled < given.len() {
        match session.hear().await {
            ToAgent::Finished { .. } => finished += 1,
            ToAgent::Refused { reason, .. } => {
                assert_eq!(reason, Refusal::Recalled);
                recalled += 1;
            }
            _ => {}
        }
    }
    assert!(
        recalled > 5 && (1..=2).contains(&finished),
        "{recalled} were given back, {finished} ran"
    );
    assert!(session.hear_within(SILENCE).await.is_none());
    assert!(session.credit <= 2, "{} more were asked for", session.credit);
}

#[tokio::test]
async fn a_forgotten_result_is_not_repeated_and_the_task_can_be_run_again() {
    let agent = Agent::unix();
    let _worker = agent.start(&[]);
    let mut session = agent.welcome().await;
    let buffer = call("add", json!([1, 2]));
    let task = Uuid::new_v4();
    session.run(task, &buffer).await;
    session.result_of(task).await;
    session.say(ToWorker::Forget { task, attempt: 0 }).await;
    session.wait_for_credit(1).await;
    session
        .say(ToWorker::Run {
            task,
            attempt: 1,
            result_serializers: Vec::new(),
            body: message(task, &buffer),
        })
        .await;
    let ToAgent::Started { attempt: 1, .. } = session.hear().await else {
        panic!("it starts again")
    };
    session.result_of(task).await;
    session.say(ToWorker::Forget { task, attempt: 1 }).await;
    // The two messages were handled once the next task is done.
    let next = Uuid::new_v4();
    session.run(next, &buffer).await;
    session.result_of(next).await;
    drop(session);
    let session = agent.welcome().await;
    assert!(session.hello.settled.is_empty());
    assert_eq!(
        session.hello.held.iter().map(|held| held.task).collect::<Vec<_>>(),
        [next]
    );
}

#[tokio::test]
async fn a_task_that_was_not_asked_for_is_refused() {
    let agent = Agent::unix();
    let _worker = agent.start(&["--slots", "1"]);
    let mut session = agent.welcome().await;
    session.wait_for_credit(1).await;
    let buffer = call("nap", json!([0.5]));
    let (first, second) = (Uuid::new_v4(), Uuid::new_v4());
    for task in [first, second] {
        session
            .say(ToWorker::Run {
                task,
                attempt: 0,
                result_serializers: Vec::new(),
                body: message(task, &buffer),
            })
            .await;
    }
    loop {
        if let ToAgent::Refused { task, reason, .. } = session.hear().await {
            assert_eq!((task, reason), (second, Refusal::NoCredit));
            break;
        }
    }
    assert_eq!(returned(&session.result_of(first).await), 0.5);
}

#[tokio::test]
async fn results_wait_for_the_agents_credit() {
    let agent = Agent::unix();
    let _worker = agent.start(&["--slots", "1"]);
    let mut session = agent.welcome_with(1).await;
    let buffer = call("large", json!([100_000]));
    let (first, second) = (Uuid::new_v4(), Uuid::new_v4());
    session.run(first, &buffer).await;
    // One byte of credit lets one result through, however large it is.
    session.result_of(first).await;
    session.run(second, &buffer).await;
    assert!(matches!(session.hear().await, ToAgent::Started { .. }));
    assert!(session.hear_within(SILENCE).await.is_none(), "its result is kept");
    session.say(ToWorker::ResultCredit { bytes: 200_000 }).await;
    session.result_of(second).await;
}

#[tokio::test]
async fn a_worker_that_holds_too_much_asks_for_nothing_more() {
    let agent = Agent::unix();
    let _worker = agent.start(&["--slots", "1", "--held-bytes-max", "50000"]);
    let mut session = agent.welcome().await;
    session.wait_for_credit(1).await;
    let task = Uuid::new_v4();
    session.run(task, &call("large", json!([100_000]))).await;
    session.result_of(task).await;
    assert!(session.hear_within(SILENCE).await.is_none());
    assert_eq!(session.credit, 0, "its one result is not settled");
    session.say(ToWorker::Settled { tasks: vec![task] }).await;
    session.wait_for_credit(1).await;
}

#[tokio::test]
async fn running_and_finished_tasks_survive_the_agent_over_a_unix_socket() {
    survives_the_agent(Agent::unix()).await;
}

#[tokio::test]
async fn running_and_finished_tasks_survive_the_agent_over_tls() {
    survives_the_agent(Agent::tls().await).await;
}

async fn survives_the_agent(agent: Agent) {
    let _worker = agent.start(&["--slots", "3"]);
    let mut session = agent.welcome().await;
    let gate = agent.folder.path().join("gate");
    let other_gate = agent.folder.path().join("other-gate");
    let buffers = pack(&[
        ("runs", "wait_for", json!([gate])),
        ("ends", "wait_for", json!([other_gate])),
        ("done", "add", json!([1, 2])),
    ]);
    let [runs, ends, done, settled] = [(); 4].map(|()| Uuid::new_v4());
    session.run(settled, &buffers[2]).await;
    session.result_of(settled).await;
    session.say(ToWorker::Settled { tasks: vec![settled] }).await;
    session.run(done, &buffers[2]).await;
    let first_body = session.result_of(done).await;
    session.run(runs, &buffers[0]).await;
    session.run(ends, &buffers[1]).await;
    let mut started = 0;
    while started < 2 {
        if let ToAgent::Started { task, .. } = session.hear().await {
            started += usize::from([runs, ends].contains(&task));
        }
    }
    let instance = session.hello.instance;
    drop(session);
    let lost = Instant::now();
    // While no agent is there one of them ends.
    std::fs::write(&other_gate, "").unwrap();
    let mut session = agent.greet().await;
    assert!(
        lost.elapsed() < Duration::from_secs(10),
        "redialled after {:?}",
        lost.elapsed()
    );
    session
        .say(ToWorker::Refused {
            code: HelloRefusal::NotMe,
            text: "standing by".to_owned(),
        })
        .await;
    drop(session);
    let mut session = loop {
        // It says "running" until it has ended.
        let session = agent.welcome().await;
        let state = session.hello.held.iter().find(|held| held.task == ends).unwrap().state;
        if state == HeldState::Finished {
            break session;
        }
    };
    assert_eq!(session.hello.instance, instance);
    assert_eq!(session.hello.settled, [settled]);
    let state_of = |task| {
        session
            .hello
            .held
            .iter()
            .find(|held| held.task == task)
            .map(|held| held.state)
    };
    assert_eq!(session.hello.held.len(), 3);
    assert_eq!(state_of(runs), Some(HeldState::Running));
    assert_eq!(state_of(done), Some(HeldState::Finished));
    // Both finished ones come again without being asked for, and are the same.
    assert_eq!(session.result_of(done).await, first_body);
    assert_eq!(returned(&session.result_of(ends).await), "saw it");
    std::fs::write(&gate, "").unwrap();
    assert_eq!(returned(&session.result_of(runs).await), "saw it");
    session
        .say(ToWorker::Settled {
            tasks: vec![runs, ends, done],
        })
        .await;
    // A task that it has had is not run again.
    session.wait_for_credit(1).await;
    session.run(done, &buffers[2]).await;
    loop {
        if let ToAgent::Refused { task, reason, .. } = session.hear().await {
            assert_eq!((task, reason), (done, Refusal::Duplicate));
            break;
        }
    }
}

#[tokio::test]
async fn an_agent_that_falls_silent_is_left_and_dialled_again() {
    let agent = Agent::unix();
    let _worker = agent.start(&[]);
    let silent = agent.welcome().await;
    let start = Instant::now();
    let _next = agent.welcome().await;
    assert!(
        start.elapsed() >= Duration::from_secs(14),
        "only after 15 s: {:?}",
        start.elapsed()
    );
    drop(silent);
}

#[tokio::test]
async fn a_result_that_is_long_on_its_way_does_not_keep_the_worker_from_being_heard() {
    let agent = Agent::unix();
    let _worker = agent.start(&["--slots", "1"]);
    let mut session = agent.welcome().await;
    session.run(Uuid::new_v4(), &call("large", json!([4 << 20]))).await;
    assert!(matches!(session.hear().await, ToAgent::Started { .. }));
    // The agent reads nothing meanwhile, so most of the result waits in the worker.
    tokio::time::sleep(2 * HEARTBEAT).await;
    loop {
        match session.hear_or_credit().await {
            ToAgent::Heartbeat => break,
            ToAgent::Finished { .. } => panic!("the result came, and no heartbeat before it"),
            _ => {}
        }
    }
    assert!(matches!(session.hear().await, ToAgent::Finished { .. }));
}

#[tokio::test]
async fn sigterm_finishes_what_runs_refuses_the_rest_and_ends_with_0() {
    let agent = Agent::unix();
    let mut worker = agent.start(&["--slots", "1"]);
    let mut session = agent.welcome().await;
    let gate = agent.folder.path().join("gate");
    let buffers = pack(&[("short", "add", json!([1, 2])), ("runs", "wait_for", json!([gate]))]);
    // Some short ones, so that it asks for more than it can run at once.
    for _ in 0..40 {
        let task = Uuid::new_v4();
        session.run(task, &buffers[0]).await;
        session.result_of(task).await;
        session.say(ToWorker::Settled { tasks: vec![task] }).await;
    }
    session.wait_for_credit(3).await;
    let (runs, waits, late) = (Uuid::new_v4(), Uuid::new_v4(), Uuid::new_v4());
    session.run(runs, &buffers[1]).await;
    while !matches!(session.hear().await, ToAgent::Started { task, .. } if task == runs) {}
    session.run(waits, &buffers[0]).await;
    // A task that comes after the signal is refused as well, so it matters not which is handled first.
    worker.signal(Signal::SIGTERM);
    let (mut draining, mut refused) = (false, false);
    while !(draining && refused) {
        match session.hear().await {
            ToAgent::Draining { grace_ms } => {
                assert!(grace_ms > 40_000 && grace_ms <= 50_000);
                draining = true;
            }
            ToAgent::Refused { task, reason, .. } => {
                assert_eq!((task, reason), (waits, Refusal::Draining));
                refused = true;
            }
            _ => {}
        }
    }
    session.run(late, &buffers[0]).await;
    assert!(matches!(session.hear().await, ToAgent::Refused { task, reason: Refusal::Draining, .. } if task == late));
    std::fs::write(&gate, "").unwrap();
    assert_eq!(returned(&session.result_of(runs).await), "saw it");
    // The worker stays until the result is safe.
    assert!(session.hear_within(SILENCE).await.is_none());
    session.say(ToWorker::Settled { tasks: vec![runs] }).await;
    assert!(matches!(session.hear().await, ToAgent::Goodbye { .. }));
    assert!(session.is_closed().await);
    assert_eq!(worker.ended().await.code(), Some(0));
}

#[tokio::test]
async fn what_runs_when_the_grace_is_over_is_ended_and_said_so() {
    let agent = Agent::unix();
    let mut worker = agent.start(&["--slots", "1", "--grace", "1"]);
    let mut session = agent.welcome().await;
    let task = Uuid::new_v4();
    session.run(task, &call("nap", json!([100]))).await;
    assert!(matches!(session.hear().await, ToAgent::Started { .. }));
    worker.signal(Signal::SIGTERM);
    assert_eq!(session.failure_of(task).await.cause, Cause::GraceOver);
    session.say(ToWorker::Settled { tasks: vec![task] }).await;
    assert_eq!(worker.ended().await.code(), Some(0));
}

#[tokio::test]
async fn an_agent_may_drain_a_worker_and_one_that_settles_nothing_does_not_keep_it() {
    let agent = Agent::unix();
    let mut worker = agent.start(&[]);
    let mut session = agent.welcome().await;
    session.result(&call("add", json!([1, 2]))).await;
    session.say(ToWorker::Drain { grace_ms: 100 }).await;
    assert!(matches!(session.hear().await, ToAgent::Draining { .. }));
    assert_eq!(worker.ended().await.code(), Some(6));
}

#[tokio::test]
async fn a_task_can_be_cancelled_while_it_runs_and_while_it_waits_and_before_it_comes() {
    let agent = Agent::unix();
    let _worker = agent.start(&["--slots", "1"]);
    let mut session = agent.welcome().await;
    let buffers = pack(&[("short", "add", json!([1, 2])), ("long", "nap", json!([100]))]);
    for _ in 0..40 {
        session.result(&buffers[0]).await;
    }
    session.wait_for_credit(3).await;
    let (runs, waits, later) = (Uuid::new_v4(), Uuid::new_v4(), Uuid::new_v4());
    session.run(runs, &buffers[1]).await;
    while !matches!(session.hear().await, ToAgent::Started { task, .. } if task == runs) {}
    session.run(waits, &buffers[0]).await;
    for task in [waits, later] {
        session.say(ToWorker::Cancel { task, attempt: 0 }).await;
    }
    session.run(later, &buffers[0]).await;
    let mut refused = Vec::new();
    while refused.len() < 2 {
        if let ToAgent::Refused { task, reason, .. } = session.hear().await {
            assert_eq!(reason, Refusal::Cancelled);
            refused.push(task);
        }
    }
    assert_eq!(refused, [waits, later]);
    // Another attempt is not what runs.
    session.say(ToWorker::Cancel { task: runs, attempt: 1 }).await;
    assert!(session.hear_within(SILENCE).await.is_none());
    session.say(ToWorker::Cancel { task: runs, attempt: 0 }).await;
    assert_eq!(session.failure_of(runs).await.cause, Cause::Cancelled);
    assert_eq!(returned(&session.result(&buffers[0]).await), 3);
}

#[tokio::test]
async fn a_result_that_nobody_waits_for_any_more_is_not_sent() {
    let agent = Agent::unix();
    let _worker = agent.start(&["--slots", "1"]);
    let mut session = agent.welcome().await;
    let buffers = pack(&[("long", "nap", json!([100])), ("short", "add", json!([1, 2]))]);
    let (task, next) = (Uuid::new_v4(), Uuid::new_v4());
    session.run(task, &buffers[0]).await;
    assert!(matches!(session.hear().await, ToAgent::Started { .. }));
    // Another worker's result was published first.
    session.say(ToWorker::Settled { tasks: vec![task] }).await;
    session.run(next, &buffers[1]).await;
    assert!(matches!(session.hear().await, ToAgent::Started { task, .. } if task == next));
    assert!(matches!(session.back(next).await, Back::Finished(..)));
    assert!(session.hear_within(SILENCE).await.is_none());
}

#[tokio::test]
async fn a_worker_that_is_refused_for_good_ends_and_says_why() {
    let agent = Agent::unix();
    let mut worker = agent.start(&[]);
    let mut session = agent.greet().await;
    session
        .say(ToWorker::Refused {
            code: HelloRefusal::Unwanted,
            text: "the block was deleted".to_owned(),
        })
        .await;
    assert_eq!(worker.ended().await.code(), Some(4));
    assert!(worker.log().contains("the block was deleted"), "{}", worker.log());
}

#[tokio::test]
async fn a_worker_that_no_agent_answers_ends_with_its_tasks() {
    let agent = Agent::unix();
    let mut worker = agent.start(&["--orphan-timeout", ORPHANED]);
    let mut session = agent.welcome().await;
    let task = Uuid::new_v4();
    session.run(task, &call("describe_surroundings", json!([]))).await;
    let executor = returned(&session.result_of(task).await)["pid"].as_i64().unwrap();
    session.run(Uuid::new_v4(), &call("nap", json!([100]))).await;
    drop(session);
    // Nobody accepts, and then nobody even listens.
    let Agent { listener, folder, .. } = agent;
    drop(listener);
    assert_eq!(worker.ended().await.code(), Some(5));
    assert!(!is_alive(executor));
    drop(folder);
}

#[tokio::test]
async fn executors_do_not_outlive_a_worker_that_is_killed() {
    let agent = Agent::unix();
    let mut worker = agent.start(&[]);
    let mut session = agent.welcome().await;
    let task = Uuid::new_v4();
    session.run(task, &call("describe_surroundings", json!([]))).await;
    let executor = returned(&session.result_of(task).await)["pid"].as_i64().unwrap();
    session.run(Uuid::new_v4(), &call("nap", json!([100]))).await;
    assert!(is_alive(executor));
    worker.signal(Signal::SIGKILL);
    worker.ended().await;
    until("the executor has ended", || !is_alive(executor)).await;
}

#[tokio::test]
async fn a_missing_token_file_is_named() {
    let agent = Agent::unix();
    std::fs::remove_file(agent.folder.path().join("token")).unwrap();
    let mut worker = agent.start(&[]);
    assert_eq!(worker.ended().await.code(), Some(2));
    assert!(worker.log().contains("the token file") && worker.log().contains("/token cannot be read"));
}

#[tokio::test]
async fn the_next_address_is_dialled_when_the_first_is_not_answered() {
    let agent = Agent::unix();
    // Listened on by nobody.
    let first = format!("unix:{}", agent.folder.path().join("nobody").display());
    let mut command = agent.command_without_address(&[]);
    command.args(["--connect", &first]);
    let second = agent.connect.clone();
    command.args(["--connect", &second]);
    let worker = agent.start_command(&mut command);
    let mut session = agent.welcome().await;
    session.result(&call("add", json!([1, 2]))).await;
    assert!(
        worker.log().contains(&format!("connected to the agent at {second}")),
        "{}",
        worker.log()
    );
}

#[test]
fn the_program_can_be_copied_into_a_folder() {
    let folder = tempfile::tempdir().unwrap();
    let to = folder.path().join("waypost/bin");
    for _ in 0..2 {
        let status = Command::new(env!("CARGO_BIN_EXE_worker"))
            .args(["install", "--to"])
            .arg(&to)
            .status()
            .unwrap();
        assert!(status.success());
    }
    let version = |program: &Path| Command::new(program).arg("--version").output().unwrap().stdout;
    let copy = to.join("worker");
    assert_eq!(version(&copy), version(Path::new(env!("CARGO_BIN_EXE_worker"))));
    assert_eq!(std::fs::read_dir(&to).unwrap().count(), 1);
    let nowhere = Command::new(&copy)
        .args(["install", "--to", "/proc/nowhere"])
        .output()
        .unwrap();
    assert_eq!(nowhere.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&nowhere.stdout).contains("cannot be copied into /proc/nowhere"));
}
