//! What a task gets and gives.

use serde_json::{Value, json};
use uuid::Uuid;
use waypost_link::{Outcome, ToAgent};

use crate::agent::{Agent, Back, USER_ENDPOINT};
use crate::tasks::{call, result, returned};

#[tokio::test]
async fn a_task_runs_and_its_result_comes_back_over_a_unix_socket() {
    runs_a_task(Agent::unix().await).await;
}

#[tokio::test]
async fn a_task_runs_and_its_result_comes_back_over_tls() {
    runs_a_task(Agent::tls().await).await;
}

async fn runs_a_task(agent: Agent) {
    let _worker = agent.start(&["--slots", "2"]);
    let mut session = agent.welcome().await;
    assert_eq!(session.hello.slots, 2);
    assert!(session.hello.python_version.starts_with('3') && !session.hello.sdk_version.is_empty());
    assert!(session.hello.held.is_empty() && session.hello.settled.is_empty());
    let task = Uuid::new_v4();
    session.run(task, &call("add", json!([40, 2]))).await;
    assert!(matches!(session.hear().await, ToAgent::Started { task: started, slot: 0, .. } if started == task));
    let body = session.result_of(task).await;
    assert_eq!(returned(&body), 42);
    let result = result(&body);
    assert_eq!(result["task_id"], task.to_string());
    assert_eq!(result["details"]["endpoint_id"], USER_ENDPOINT.to_string());
    assert_eq!(result["task_statuses"][0]["state"], "execution-start");
    assert_eq!(result["task_statuses"][1]["actor"], "worker");
}
