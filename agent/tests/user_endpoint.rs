//! A user endpoint against a real RabbitMQ, with the real worker and real Python functions.

mod support;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use endpoint::config::{ProviderConfig, UserEndpointConfig};
use endpoint::runtime::{
    Ended, Environment, EnvironmentSettings, Specification, Stop, UserEndpoint, UserEndpointState,
};
use endpoint::telemetry::Metrics;
use secrecy::SecretSlice;
use support::{Topology, soon};
use uuid::Uuid;
use waypost_protocol::{Message, Task, TaskResult, decode, encode};

/// The `worker` program, built beside this test.
fn worker() -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let worker = test.parent().and_then(Path::parent).unwrap().join("worker");
    assert!(
        worker.exists(),
        "{} is missing: build it with cargo build --release -p worker",
        worker.display()
    );
    worker
}

/// The Python that runs tasks.
fn python() -> PathBuf {
    let python = std::env::var("WAYPOST_TEST_PYTHON").expect(
        "WAYPOST_TEST_PYTHON is not set: it must be a python with globus-compute-sdk; ./test makes one and sets it",
    );
    PathBuf::from(python)
}

/// Functions and arguments, packed by the SDK: `task(name, argument)` gives a task's buffer.
struct Functions(BTreeMap<String, String>);

impl Functions {
    fn pack(calls: &[(&str, &str, &str)]) -> Self {
        let mut script = "import json\nfrom globus_compute_sdk.serialize import ComputeSerializer\n\
                          s = ComputeSerializer()\nout = {}\n"
            .to_owned();
        for (name, body, arguments) in calls {
            let body = body.replace('\n', "\n    ");
            script.push_str(&format!(
                "def f(x=None):\n    {body}\nf.__name__ = {name:?}\nout[{name:?}] = s.pack_buffers([s.serialize(f)]) + \
                 s.pack_buffers([s.serialize({arguments}), s.serialize({{}})])\n"
            ));
        }
        script.push_str("print(json.dumps(out))\n");
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("functions.py");
        std::fs::write(&file, script).unwrap();
        let output = Command::new(python()).arg(&file).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        Self(serde_json::from_slice(&output.stdout).unwrap())
    }

    fn body(&self, name: &str, task: Uuid) -> Vec<u8> {
        let task_buffer = self.0[name].clone();
        encode(&Message::Task(Task {
            task_id: task,
            container_id: None,
            container: None,
            task_buffer,
        }))
    }
}

struct Running {
    endpoint: UserEndpoint,
    environment: Arc<Environment>,
}

struct Place {
    directory: tempfile::TempDir,
    config: UserEndpointConfig,
    epoch: u64,
}

impl Place {
    fn new(slots: u32) -> Self {
        let mut config = UserEndpointConfig::default();
        config.engine.max_workers_per_node = Some(slots);
        let ProviderConfig::Local(provider) = &mut config.engine.provider;
        let bin = python().parent().unwrap().display().to_string();
        provider.worker_init = format!("export PATH={bin}:$PATH");
        Self {
            directory: tempfile::tempdir().unwrap(),
            config,
            epoch: 0,
        }
    }

    async fn start(&mut self, topology: &Topology) -> Running {
        self.epoch += 1;
        let environment = Environment::open(EnvironmentSettings {
            endpoint_id: Uuid::nil(),
            directory: self.directory.path().to_owned(),
            token_key: SecretSlice::from(vec![7; 32]),
            epoch: self.epoch,
            worker: worker(),
            max_held_bytes: 64 << 20,
            reconnect_grace: Duration::from_secs(60),
            endpoint_version: "4.19.0".to_owned(),
            metrics: Metrics::shared(),
        })
        .await
        .unwrap();
        let specification = Specification {
            id: topology.endpoint,
            name: format!("uep.{}", topology.endpoint),
            endpoint_id: Uuid::nil(),
            directory: self.directory.path().join("uep"),
            config: self.config.clone(),
            config_text: "engine: {}".to_owned(),
            credentials: topology.credentials(),
            saved: false,
        };
        std::fs::create_dir_all(&specification.directory).unwrap();
        let endpoint = UserEndpoint::start(specification, Arc::clone(&environment));
        Running { endpoint, environment }
    }
}

async fn next_result(topology: &Topology) -> TaskResult {
    soon("a result", async {
        loop {
            if let Some(message) = topology.take("results").await {
                match decode(&message.delivery.data).unwrap() {
                    Message::Result(result) => return result,
                    other => panic!("{other:?} is not a result"),
                }
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await
}

async fn reach(running: &Running, state: UserEndpointState) {
    let mut status = running.endpoint.status();
    let reached = soon("a state", status.wait_for(|status| status.state == state)).await;
    drop(reached.unwrap());
}

#[tokio::test(flavor = "multi_thread")]
async fn tasks_run_and_their_results_come_back_and_nothing_is_left_after_a_stop() {
    let functions = Functions::pack(&[
        ("double", "return x * 2", "(21,)"),
        ("fail", "raise ValueError('no')", "(1,)"),
    ]);
    let topology = Topology::create().await;
    let mut place = Place::new(2);
    let running = place.start(&topology).await;
    reach(&running, UserEndpointState::Running).await;
    let mut expected = BTreeMap::new();
    for number in 0..50 {
        let (task, name) = (Uuid::new_v4(), if number % 5 == 0 { "fail" } else { "double" });
        expected.insert(task, name);
        topology.send_task(task, &functions.body(name, task)).await;
    }
    while !expected.is_empty() {
        let result = next_result(&topology).await;
        let name = expected.remove(&result.task_id).expect("each task has one result");
        match (name, result.error_details) {
            ("fail", Some(error)) => assert_eq!(error.code, "RemoteExecutionError"),
            ("double", None) => assert!(result.details.is_some()),
            (name, error) => panic!("{name}: {error:?}, {}", result.data),
        }
    }
    let started = Instant::now();
    assert_eq!(running.endpoint.stop(Stop::Drain).await, Ended::Stopped);
    assert!(started.elapsed() < Duration::from_secs(10), "{:?}", started.elapsed());
    assert_eq!(topology.ready("tasks").await, 0);
    assert_eq!(topology.ready("results").await, 0);
    let blocks = place.directory.path().join("uep/blocks");
    assert_eq!(std::fs::read_dir(&blocks).unwrap().count(), 0, "no block is left");
    // At the start, and at the end.
    let mut last = None;
    while let Some(message) = topology.take("heartbeats").await {
        let Message::StatusReport(report) = decode(&message.delivery.data).unwrap() else {
            panic!("a report")
        };
        last = Some(report.is_active());
    }
    assert_eq!(last, Some(false));
    drop(running.environment);
    topology.remove().await;
}
