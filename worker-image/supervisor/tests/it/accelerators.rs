//! Which accelerators a task sees.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::{Value, json};
use uuid::Uuid;
use waypost_link::ToAgent;

use crate::agent::{Agent, Session, until};
use crate::tasks::{call, returned};

/// Runs a task in each of two slots at once, and gives what each slot's sees.
async fn seen(session: &mut Session, gate: &Path) -> BTreeMap<u32, Value> {
    let _ = std::fs::remove_file(gate);
    let packed = call("accelerators", json!([gate]));
    let tasks = [Uuid::new_v4(), Uuid::new_v4()];
    for task in tasks {
        session.run(task, &packed).await;
    }
    let mut slots = BTreeMap::new();
    while slots.len() < tasks.len() {
        if let ToAgent::Started { task, slot, .. } = session.hear().await {
            slots.insert(task, slot);
        }
    }
    std::fs::write(gate, "").unwrap();
    let mut seen = BTreeMap::new();
    for (task, slot) in slots {
        seen.insert(slot, returned(&session.result_of(task).await));
    }
    seen
}

#[tokio::test]
async fn each_slot_has_an_accelerator_of_its_own_and_keeps_it_when_its_executor_is_replaced() {
    let agent = Agent::unix();
    let gate = agent.folder.path().join("gate");
    let _worker = agent.start(&["--slots", "2", "--accelerators", "0,1 GPU-7 unused"]);
    let mut session = agent.welcome().await;
    let expected = BTreeMap::from([
        (0, json!(["0,1", "0,1", "0,1", "1"])),
        (1, json!(["GPU-7", "GPU-7", "GPU-7", "1"])),
    ]);
    assert_eq!(seen(&mut session, &gate).await, expected);
    for _ in 0..2 {
        let task = Uuid::new_v4();
        session.run(task, &call("leave", json!([3]))).await;
        session.failure_of(task).await;
    }
    assert_eq!(seen(&mut session, &gate).await, expected);
}

#[tokio::test]
async fn without_accelerators_a_task_sees_what_the_worker_does() {
    let agent = Agent::unix();
    let gate = agent.folder.path().join("gate");
    let mut command = agent.command(&["--slots", "2"]);
    command.env("CUDA_VISIBLE_DEVICES", "3");
    for name in [
        "ROCR_VISIBLE_DEVICES",
        "ZE_AFFINITY_MASK",
        "ZE_ENABLE_PCI_ID_DEVICE_ORDER",
    ] {
        command.env_remove(name);
    }
    let _worker = agent.start_command(&mut command);
    let mut session = agent.welcome().await;
    let outside = json!(["3", null, null, null]);
    assert_eq!(
        seen(&mut session, &gate).await,
        BTreeMap::from([(0, outside.clone()), (1, outside)])
    );
}

#[tokio::test]
async fn fewer_accelerators_than_slots_are_refused_with_both_numbers() {
    let agent = Agent::unix();
    let mut worker = agent.start(&["--slots", "3", "--accelerators", "0 1"]);
    assert_eq!(worker.ended().await.code(), Some(2));
    until("the log says why", || {
        worker
            .log()
            .contains("--accelerators names 2, and there are 3 slots: each needs one")
    })
    .await;
}
