//! What a task gets and gives.

use serde_json::{Value, json};
use uuid::Uuid;
use waypost_link::{Outcome, ToAgent, ToWorker};

use crate::agent::{Agent, Back, USER_ENDPOINT, until};
use crate::tasks::{call, pack, result, returned};

#[tokio::test]
async fn a_task_runs_and_its_result_comes_back_over_a_unix_socket() {
    runs_a_task(Agent::unix()).await;
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

#[tokio::test]
async fn a_task_that_raises_gives_its_traceback() {
    let agent = Agent::unix();
    let _worker = agent.start(&[]);
    let mut session = agent.welcome().await;
    let task = Uuid::new_v4();
    session.run(task, &call("fail", json!(["no such luck"]))).await;
    let Back::Finished(outcome, body) = session.back(task).await else {
        panic!("it is a result")
    };
    assert_eq!(outcome, Outcome::Raised);
    let result = result(&body);
    assert_eq!(result["error_details"]["code"], "RemoteExecutionError");
    let traceback = result["data"].as_str().unwrap();
    assert!(
        traceback.contains("in deeper") && traceback.ends_with("ValueError: no such luck\n"),
        "{traceback}"
    );
    assert!(!traceback.contains("waypost"), "{traceback}");
}

#[tokio::test]
async fn a_task_finds_what_globus_compute_promises() {
    let agent = Agent::unix();
    let worker = agent.start(&[]);
    let mut session = agent.welcome().await;
    let task = Uuid::new_v4();
    session.run(task, &call("describe_surroundings", json!([]))).await;
    let found = returned(&session.result_of(task).await);
    assert_eq!(found["uuid"], task.to_string());
    assert_eq!(
        found["cwd"],
        agent
            .folder
            .path()
            .join("work")
            .canonicalize()
            .unwrap()
            .to_str()
            .unwrap()
    );
    assert_eq!(found["sandbox"], Value::Null);
    assert_eq!(
        (&found["session"], &found["threads"], &found["stdin"]),
        (&json!(true), &json!(1), &json!(""))
    );
    assert_eq!(
        found["parent"],
        worker.pid(),
        "the supervisor is the parent, so that it learns the signal"
    );
}

#[tokio::test]
async fn a_sandboxed_task_runs_in_a_folder_of_its_own() {
    let agent = Agent::unix();
    let _worker = agent.start(&["--sandbox"]);
    let mut session = agent.welcome().await;
    let buffer = call("describe_surroundings", json!([]));
    for _ in 0..2 {
        let task = Uuid::new_v4();
        session.run(task, &buffer).await;
        let found = returned(&session.result_of(task).await);
        let folder = agent
            .folder
            .path()
            .join("work")
            .canonicalize()
            .unwrap()
            .join(task.to_string());
        assert_eq!(found["cwd"], folder.to_str().unwrap());
        assert_eq!(found["sandbox"], folder.to_str().unwrap());
    }
}

#[tokio::test]
async fn a_shell_function_runs_a_shell() {
    let agent = Agent::unix();
    let _worker = agent.start(&["--sandbox"]);
    let mut session = agent.welcome().await;
    let body = session
        .result(&call("shell", json!(["echo from the shell; exit 3"])))
        .await;
    let data = result(&body)["data"].as_str().unwrap().to_owned();
    // A ShellResult is an object of the SDK; its text is in the pickle.
    let check = std::process::Command::new(crate::tasks::python())
        .args([
            "-c",
            "import sys\nfrom globus_compute_sdk.serialize import ComputeSerializer\n\
                      result = ComputeSerializer().deserialize(sys.argv[1])\n\
                      assert (result.returncode, result.stdout) == (3, 'from the shell\\n'), result",
        ])
        .arg(data)
        .status()
        .unwrap();
    assert!(check.success());
}

#[tokio::test]
async fn the_whole_sdk_can_be_used_in_a_task() {
    let agent = Agent::unix();
    let _worker = agent.start(&[]);
    let mut session = agent.welcome().await;
    let sdk_version = session.hello.sdk_version.clone();
    let found = returned(&session.result(&call("use_package", json!([]))).await);
    assert_eq!(found, json!([sdk_version, "Executor", "globus_compute_sdk.serialize"]));
}

#[tokio::test]
async fn five_megabytes_go_in_and_out() {
    let agent = Agent::tls().await;
    let _worker = agent.start(&[]);
    let mut session = agent.welcome().await;
    let text = "y".repeat(5_000_000);
    let buffers = pack(&[("in", "add", json!([text, "!"])), ("out", "large", json!([5_000_000]))]);
    for buffer in buffers {
        let body = session.result(&buffer).await;
        assert!(returned(&body).as_str().unwrap().len() >= 5_000_000);
    }
}

#[tokio::test]
async fn a_result_over_the_limit_is_an_error_that_names_both_sizes() {
    let agent = Agent::unix();
    let _worker = agent.start(&["--result-size-limit", "1000"]);
    let mut session = agent.welcome().await;
    let task = Uuid::new_v4();
    session.run(task, &call("large", json!([2000]))).await;
    let Back::Finished(outcome, body) = session.back(task).await else {
        panic!("it is a result")
    };
    assert_eq!(outcome, Outcome::TooLarge);
    let result = result(&body);
    assert_eq!(result["error_details"]["code"], "MaxResultSizeExceeded");
    let text = result["error_details"]["user_message"].as_str().unwrap();
    assert!(
        text.starts_with("remote error: Task result of 2") && text.ends_with("limit of 1000B"),
        "{text}"
    );
}

#[tokio::test]
async fn the_serializers_that_the_task_names_make_its_result() {
    let agent = Agent::unix();
    let _worker = agent.start(&[]);
    let mut session = agent.welcome().await;
    let task = Uuid::new_v4();
    let buffer = call("add", json!([1, 2]));
    session
        .run_with(task, &buffer, &["globus_compute_sdk.serialize.JSONData"])
        .await;
    assert_eq!(result(&session.result_of(task).await)["data"], "11\n3");
    // A header may be as large as a broker's frame.
    let task = Uuid::new_v4();
    session
        .run_with(task, &buffer, &["globus_compute_sdk.serialize.JSONData"; 3_000])
        .await;
    assert_eq!(result(&session.result_of(task).await)["data"], "11\n3");
    assert_eq!(returned(&session.result(&buffer).await), 3);
}

#[tokio::test]
async fn a_serializer_that_is_not_allowed_is_refused() {
    let agent = Agent::unix();
    let allowed = "globus_compute_sdk.serialize.JSONData,globus_compute_sdk.serialize.PureSourceDill";
    let _worker = agent.start(&["--allowed-serializers", allowed]);
    let mut session = agent.welcome().await;
    let body = session.result(&call("add", json!([1, 2]))).await;
    let text = result(&body)["data"].as_str().unwrap().to_owned();
    assert!(
        text.contains("serializer DillCode disabled by current configuration"),
        "{text}"
    );
}

#[tokio::test]
async fn what_is_no_task_gets_an_error_result() {
    let agent = Agent::unix();
    let _worker = agent.start(&[]);
    let mut session = agent.welcome().await;
    for body in [
        "",
        "\u{1}",
        "\u{1}{}",
        "\u{1}nonsense",
        "\u{2}{}",
        "\u{1}{\"message_type\":\"result\",\"data\":{}}",
    ] {
        let task = Uuid::new_v4();
        session.wait_for_credit(1).await;
        session.credit -= 1;
        session
            .say(ToWorker::Run {
                task,
                attempt: 0,
                result_serializers: Vec::new(),
                body: body.as_bytes().to_vec().into(),
            })
            .await;
        let Back::Finished(outcome, body) = session.back(task).await else {
            panic!("it is a result")
        };
        assert_eq!(outcome, Outcome::NotATask);
        assert_eq!(result(&body)["error_details"]["code"], "CouldNotExecuteUserTaskError");
    }
}

#[tokio::test]
async fn what_a_task_prints_is_logged_with_its_id() {
    let agent = Agent::unix();
    let worker = agent.start(&[]);
    let mut session = agent.welcome().await;
    let task = Uuid::new_v4();
    session.run(task, &call("speak", json!(["spoken words", 3]))).await;
    session.result_of(task).await;
    let next = Uuid::new_v4();
    session.run(next, &call("speak", json!(["others", 1]))).await;
    session.result_of(next).await;
    until("the lines are in the log", || worker.log().contains("others 0")).await;
    let log = worker.log();
    let lines_of = |task: Uuid| -> Vec<String> {
        let lines = log.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        lines
            .filter(|line| line["task"] == task.to_string())
            .map(|line| line["message"].as_str().unwrap().to_owned())
            .collect()
    };
    let of_first = lines_of(task);
    for line in ["spoken words 0", "spoken words 1", "spoken words 2", "to stderr"] {
        assert!(
            of_first.iter().any(|logged| logged == line),
            "{line} is not in {of_first:?}"
        );
    }
    assert!(!of_first.iter().any(|line| line.contains("others")));
    assert!(lines_of(next).iter().any(|line| line == "others 0"));
}

#[tokio::test]
async fn a_flood_of_output_hurts_nobody() {
    let agent = Agent::unix();
    let _worker = agent.start(&["--slots", "2"]);
    let mut session = agent.welcome().await;
    let buffers = pack(&[
        ("flood", "speak", json!(["x".repeat(1000), 20_000])),
        ("other", "add", json!([1, 2])),
    ]);
    let (flood, other) = (Uuid::new_v4(), Uuid::new_v4());
    session.run(flood, &buffers[0]).await;
    session.run(other, &buffers[1]).await;
    assert_eq!(returned(&session.result_of(other).await), 3);
    assert_eq!(returned(&session.result_of(flood).await), 20_000);
}

#[tokio::test]
async fn a_thousand_tasks_all_come_back_once() {
    let agent = Agent::unix();
    let _worker = agent.start(&["--slots", "2"]);
    let mut session = agent.welcome().await;
    let buffer = call("add", json!([1, 2]));
    let mut waiting: std::collections::HashSet<Uuid> = (0..1000).map(|_| Uuid::new_v4()).collect();
    let mut to_send: Vec<_> = waiting.iter().copied().collect();
    while !waiting.is_empty() {
        while session.credit > 0 && !to_send.is_empty() {
            let task = to_send.pop().unwrap();
            session.run(task, &buffer).await;
        }
        if let ToAgent::Finished { task, outcome, .. } = session.hear_or_credit().await {
            assert_eq!(outcome, Outcome::Success);
            assert!(waiting.remove(&task), "{task} came twice");
            session.say(ToWorker::Settled { tasks: vec![task] }).await;
        }
    }
}
