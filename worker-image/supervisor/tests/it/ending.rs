//! A worker ends in bounded time whatever it is doing, with an agent or without.

use std::os::unix::fs::PermissionsExt;

use nix::sys::signal::{Signal, kill};
use serde_json::json;
use uuid::Uuid;
use waypost_link::{Cause, HelloRefusal, ToAgent, ToWorker};

use crate::ORPHANED;
use crate::agent::{Agent, WorkerProcess, is_alive, until};
use crate::faults::warm_process;
use crate::tasks::{call, message, pack, returned};

/// A program in the place of Python that says nothing and does not end.
fn silent_python(agent: &Agent) -> String {
    let path = agent.folder.path().join("silent-python");
    std::fs::write(&path, "#!/bin/sh\nexec sleep 1000\n").unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    path.to_str().unwrap().to_owned()
}

/// The only child of the worker.
async fn child_of(worker: &WorkerProcess) -> i64 {
    let list = format!("/proc/{0}/task/{0}/children", worker.pid());
    let read = || std::fs::read_to_string(&list).unwrap();
    until("the worker has a child", || !read().is_empty()).await;
    read().trim().parse().unwrap()
}

#[tokio::test]
async fn told_to_end_while_python_is_not_ready_it_ends_and_leaves_nothing() {
    let agent = Agent::unix();
    let mut worker = agent.start(&["--python", &silent_python(&agent)]);
    let python = child_of(&worker).await;
    worker.signal(Signal::SIGTERM);
    assert_eq!(worker.ended().await.code(), Some(0), "{}", worker.log());
    until("the Python has ended", || !is_alive(python)).await;
}

#[tokio::test]
async fn a_python_that_is_never_ready_is_given_up() {
    let agent = Agent::unix();
    let mut worker = agent.start(&["--python", &silent_python(&agent), "--orphan-timeout", "1"]);
    let python = child_of(&worker).await;
    assert_eq!(worker.ended().await.code(), Some(3));
    assert!(
        worker.log().contains("not ready to run tasks within 1 s"),
        "{}",
        worker.log()
    );
    until("the Python has ended", || !is_alive(python)).await;
}

#[tokio::test]
async fn told_to_end_while_nobody_listens_it_ends_at_once() {
    let agent = Agent::unix();
    let mut worker = agent.start(&[]);
    // It dials when its Python is ready.
    let session = agent.welcome().await;
    let Agent { listener, folder, .. } = agent;
    drop((session, listener));
    worker.signal(Signal::SIGTERM);
    assert_eq!(worker.ended().await.code(), Some(0));
    drop(folder);
}

#[tokio::test]
async fn told_to_end_while_its_hello_is_not_answered_it_ends_at_once() {
    let agent = Agent::unix();
    let mut worker = agent.start(&[]);
    let _session = agent.greet().await;
    worker.signal(Signal::SIGTERM);
    assert_eq!(worker.ended().await.code(), Some(0));
}

#[tokio::test]
async fn a_hello_that_is_never_answered_is_no_agent() {
    let agent = Agent::unix();
    let mut worker = agent.start(&["--orphan-timeout", ORPHANED]);
    let _session = agent.greet().await;
    assert_eq!(worker.ended().await.code(), Some(5));
}

#[tokio::test]
async fn a_worker_whose_token_file_is_gone_for_good_ends_as_one_that_nobody_answers() {
    let agent = Agent::unix();
    let mut worker = agent.start(&["--orphan-timeout", ORPHANED]);
    let session = agent.welcome().await;
    std::fs::remove_file(agent.folder.path().join("token")).unwrap();
    drop(session);
    assert_eq!(worker.ended().await.code(), Some(5));
}

#[tokio::test]
async fn told_to_end_without_an_agent_what_runs_and_what_is_held_has_the_grace_and_no_more() {
    let agent = Agent::unix();
    let mut worker = agent.start(&["--slots", "2", "--grace", "1"]);
    let mut session = agent.welcome().await;
    let buffers = pack(&[
        ("runs", "nap", json!([1000])),
        ("held", "describe_surroundings", json!([])),
    ]);
    session.run(Uuid::new_v4(), &buffers[0]).await;
    let executor = returned(&session.result(&buffers[1]).await)["pid"].as_i64().unwrap();
    let Agent { listener, folder, .. } = agent;
    drop((session, listener));
    worker.signal(Signal::SIGTERM);
    assert_eq!(worker.ended().await.code(), Some(6));
    assert!(!is_alive(executor));
    drop(folder);
}

#[tokio::test]
async fn a_warm_process_that_hangs_keeps_the_worker_from_nothing() {
    for (orphan_timeout, code) in [("600", 0), (ORPHANED, 5)] {
        let agent = Agent::unix();
        let mut worker = agent.start(&["--orphan-timeout", orphan_timeout]);
        let mut session = agent.welcome().await;
        let buffers = pack(&[("dies", "leave", json!([1])), ("lives", "add", json!([1, 2]))]);
        let [first, dies, waits] = [(); 3].map(|()| Uuid::new_v4());
        session.run(first, &buffers[1]).await;
        session.result_of(first).await;
        let warm = warm_process(worker.pid());
        kill(warm, Signal::SIGSTOP).unwrap();
        session.run(dies, &buffers[0]).await;
        assert_eq!(session.failure_of(dies).await.cause, Cause::Exit { code: 1 });
        session
            .say(ToWorker::Settled {
                tasks: vec![first, dies],
            })
            .await;
        session.run(waits, &buffers[1]).await;
        // That it comes again is refused: by then everything before was taken note of.
        let again = ToWorker::Run {
            task: waits,
            attempt: 0,
            result_serializers: Vec::new(),
            body: message(waits, &buffers[1]),
        };
        session.say(again).await;
        while !matches!(session.hear().await, ToAgent::Refused { .. }) {}
        drop(session);
        let Agent { listener, folder, .. } = agent;
        drop(listener);
        if code == 0 {
            worker.signal(Signal::SIGTERM);
        }
        assert_eq!(worker.ended().await.code(), Some(code));
        assert!(!is_alive(warm.as_raw().into()));
        drop(folder);
    }
}

#[tokio::test]
async fn a_warm_process_that_hangs_is_remade() {
    let agent = Agent::unix();
    let worker = agent.start(&["--fork-timeout", "1"]);
    let mut session = agent.welcome().await;
    let buffers = pack(&[("dies", "leave", json!([1])), ("lives", "add", json!([1, 2]))]);
    session.result(&buffers[1]).await;
    kill(warm_process(worker.pid()), Signal::SIGSTOP).unwrap();
    let dies = Uuid::new_v4();
    session.run(dies, &buffers[0]).await;
    assert_eq!(session.failure_of(dies).await.cause, Cause::Exit { code: 1 });
    assert_eq!(returned(&session.result(&buffers[1]).await), 3);
}

#[tokio::test]
async fn told_to_end_while_an_executor_is_started_it_ends_when_the_task_is_done_or_given_back() {
    let agent = Agent::unix();
    let mut worker = agent.start(&["--grace", "20"]);
    let mut session = agent.welcome().await;
    // The executor is on its way since the worker said hello, or just there.
    let task = Uuid::new_v4();
    session.run(task, &call("add", json!([1, 2]))).await;
    worker.signal(Signal::SIGTERM);
    loop {
        match session.hear().await {
            ToAgent::Finished { .. } => {
                session.say(ToWorker::Settled { tasks: vec![task] }).await;
                break;
            }
            ToAgent::Refused { .. } => break,
            _ => {}
        }
    }
    assert_eq!(worker.ended().await.code(), Some(0));
}

#[tokio::test]
async fn why_a_worker_ended_is_left_where_kubernetes_looks_for_it() {
    let agent = Agent::unix();
    let message = agent.folder.path().join("termination-log");
    std::fs::write(&message, "").unwrap();
    let mut worker = agent.start(&["--termination-log", message.to_str().unwrap()]);
    let mut session = agent.greet().await;
    session
        .say(ToWorker::Refused {
            code: HelloRefusal::Unwanted,
            text: "the block was deleted".to_owned(),
        })
        .await;
    assert_eq!(worker.ended().await.code(), Some(4));
    assert_eq!(
        std::fs::read_to_string(&message).unwrap(),
        "the agent refuses this worker (the block is not wanted): the block was deleted"
    );
}

#[tokio::test]
async fn a_termination_log_that_is_not_there_is_not_made() {
    let agent = Agent::unix();
    let message = agent.folder.path().join("termination-log");
    let mut worker = agent.start(&[
        "--python",
        "/usr/bin/false",
        "--termination-log",
        message.to_str().unwrap(),
    ]);
    assert_eq!(worker.ended().await.code(), Some(3));
    assert!(!message.exists());
}
