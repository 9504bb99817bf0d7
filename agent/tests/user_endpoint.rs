//! A user endpoint against a real RabbitMQ, with the real worker and real Python functions.
#![allow(clippy::unwrap_used, clippy::wildcard_enum_match_arm, reason = "a test fails by it")]

mod support;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use endpoint::runtime::{
    Ended, Environment, EnvironmentSettings, LinkSettings, Specification, Stop, UserEndpoint, UserEndpointState,
};
use endpoint_config::{ProviderConfig, UserEndpointConfig};
use endpoint_telemetry::Metrics;
use secrecy::{SecretSlice, SecretString};
use support::{Topology, soon};
use uuid::Uuid;
use waypost_link::tls::Authority;
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
    worker: PathBuf,
    authority: Authority,
    listen: SocketAddr,
    epoch: u64,
}

impl Place {
    fn new(slots: u32) -> Self {
        let mut config = UserEndpointConfig::default();
        config.engine.max_workers_per_node = Some(slots);
        let ProviderConfig::Local(provider) = &mut config.engine.provider else {
            panic!("the default is the local provider")
        };
        let bin = python().parent().unwrap().display().to_string();
        provider.worker_init = format!("export PATH={bin}:$PATH");
        Self {
            directory: tempfile::tempdir().unwrap(),
            config,
            worker: worker(),
            authority: Authority::generate().unwrap(),
            listen: "127.0.0.1:0".parse().unwrap(),
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
            worker: self.worker.clone(),
            max_held_bytes: 64 << 20,
            reconnect_grace: Duration::from_secs(60),
            endpoint_version: "4.19.0".to_owned(),
            metrics: Metrics::shared(),
            link: Some(LinkSettings {
                listen: self.listen,
                addresses: Vec::new(),
                authority_key: SecretString::from(self.authority.reveal_key_pem()),
            }),
            cluster: None,
            release: None,
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

/// The names of the blocks, as soon as there are any.
async fn blocks(running: &Running) -> Vec<String> {
    let mut status = running.endpoint.status();
    let told = soon("a block", status.wait_for(|status| !status.blocks.is_empty())).await;
    told.unwrap().blocks.iter().map(|block| block.name.clone()).collect()
}

/// Ends an agent without a word to anybody, as if it was killed.
async fn vanish(running: Running) {
    let listened = running.environment.remote().map(|remote| remote.addresses[0].clone());
    let mut status = running.endpoint.status();
    drop(running.endpoint);
    let gone = status.wait_for(|status| status.state == UserEndpointState::Ended);
    drop(soon("the end", gone).await);
    drop(running.environment);
    // A task that is aborted lets go of its socket a moment later.
    let free = async {
        while listened
            .as_ref()
            .is_some_and(|address| std::net::TcpListener::bind(address).is_err())
        {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    soon("the address to be free", free).await;
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
    assert!(started.elapsed() < Duration::from_secs(20), "{:?}", started.elapsed());
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

/// An address that can be listened on twice: its port is none of those that outgoing connections are given meanwhile.
fn free_address() -> SocketAddr {
    let first = 20_000 + u16::try_from(std::process::id() % 8_000).unwrap();
    let free = |port: &u16| std::net::TcpListener::bind(("127.0.0.1", *port)).is_ok();
    let port = (first..first + 2_000).find(free).expect("a port is free");
    SocketAddr::from(([127, 0, 0, 1], port))
}

/// The worker dials over TLS, as it does from another machine: a script puts the address and the authority's certificate
/// in the place of the socket.
#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_dials_over_tls_runs_tasks_and_is_found_again_by_the_next_agent() {
    let functions = Functions::pack(&[("double", "return x * 2", "(21,)")]);
    let topology = Topology::create().await;
    let mut place = Place::new(1);
    let dial = place.directory.path().join("dial");
    std::fs::create_dir_all(&dial).unwrap();
    let script = format!(
        "#!/bin/bash\nset -e\n[ \"$1\" = --connect ]; shift 2\nuntil [ -s {dial}/address ]; do sleep 0.02; done\n\
         exec {worker} --connect \"tls:$(cat {dial}/address)\" --ca-file {dial}/ca.pem \"$@\"\n",
        dial = dial.display(),
        worker = worker().display()
    );
    place.worker = dial.join("worker");
    std::fs::write(&place.worker, script).unwrap();
    std::fs::set_permissions(&place.worker, std::os::unix::fs::PermissionsExt::from_mode(0o700)).unwrap();
    place.listen = free_address();

    let running = place.start(&topology).await;
    let remote = running.environment.remote().unwrap().clone();
    std::fs::write(dial.join("ca.pem"), &remote.certificate_pem).unwrap();
    std::fs::write(dial.join("new"), &remote.addresses[0]).unwrap();
    std::fs::rename(dial.join("new"), dial.join("address")).unwrap();
    let run = async || {
        let task = Uuid::new_v4();
        topology.send_task(task, &functions.body("double", task)).await;
        // What the agent before was not seen to have delivered is sent once more.
        let result = loop {
            let result = next_result(&topology).await;
            if result.task_id == task {
                break result;
            }
        };
        assert_eq!(result.error_details.map(|error| error.code), None, "{}", result.data);
    };
    run().await;
    let first = blocks(&running).await;
    vanish(running).await;

    // The same authority and the same address: the worker redials and is let in.
    let running = place.start(&topology).await;
    run().await;
    assert_eq!(blocks(&running).await, first, "no second block was started");
    assert_eq!(running.endpoint.stop(Stop::Drain).await, Ended::Stopped);
    topology.remove().await;
}

/// What was published when the agent was killed, and not confirmed, is published again by the next life: the same to
/// the last byte, and the service drops it by the task's id. After an end in good order there is no such thing.
fn note_result(results: &mut BTreeMap<String, TaskResult>, result: TaskResult, how: Option<Stop>) {
    let task = result.task_id.to_string();
    if let Some(before) = results.insert(task, result.clone()) {
        assert_eq!(before, result, "a task's results are the same");
        assert_eq!(how, None, "{} has two results", result.task_id);
    }
}

/// Runs 200 tasks of 50 ms, ends the agent in the middle, starts it at once, and checks that each task ran once and
/// has one result, however often that was sent.
async fn interrupted(how: Option<Stop>) {
    let directory = tempfile::tempdir().unwrap();
    let runs = directory.path().join("runs");
    let body = format!(
        "import os, time\nfd = os.open({:?}, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)\n\
         os.write(fd, (os.environ['GC_TASK_UUID'] + '\\n').encode())\nos.close(fd)\ntime.sleep(0.05)",
        runs.display().to_string()
    );
    let functions = Functions::pack(&[("note", &body, "()")]);
    let topology = Topology::create().await;
    let mut place = Place::new(4);
    let running = place.start(&topology).await;
    let mut expected = std::collections::BTreeSet::new();
    for _ in 0..200 {
        let task = Uuid::new_v4();
        expected.insert(task.to_string());
        topology.send_task(task, &functions.body("note", task)).await;
    }
    topology.wait_ready_above("results", 30).await;
    match how {
        Some(how) => {
            assert_eq!(running.endpoint.stop(how).await, Ended::Stopped);
            drop(running.environment);
        }
        None => vanish(running).await,
    }

    let running = place.start(&topology).await;
    let mut results = BTreeMap::new();
    while results.len() < expected.len() {
        let result = next_result(&topology).await;
        assert_eq!(result.error_details, None, "{}", result.data);
        note_result(&mut results, result, how);
    }
    assert!(results.keys().eq(&expected));
    assert_eq!(running.endpoint.stop(Stop::Drain).await, Ended::Stopped);
    assert_eq!(topology.ready("tasks").await, 0);
    while topology.ready("results").await > 0 {
        note_result(&mut results, next_result(&topology).await, how);
    }
    let runs = std::fs::read_to_string(&runs).unwrap();
    let mut runs: Vec<&str> = runs.lines().collect();
    let begun = runs.len();
    runs.sort_unstable();
    runs.dedup();
    assert_eq!((begun, runs.len()), (200, 200), "each task is run once");
    topology.remove().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_is_gone_without_a_word_and_back_at_once_runs_no_task_twice() {
    interrupted(None).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_hands_over_leaves_its_blocks_to_the_next_and_no_task_is_run_twice() {
    interrupted(Some(Stop::HandOver)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_that_kills_its_process_is_told_by_what_and_the_next_one_runs() {
    let functions = Functions::pack(&[
        (
            "crash",
            "import os, signal\nprint('last words', flush=True)\nos.kill(os.getpid(), signal.SIGSEGV)",
            "()",
        ),
        ("well", "return 1", "()"),
    ]);
    let topology = Topology::create().await;
    let mut place = Place::new(1);
    let running = place.start(&topology).await;
    let (crash, well) = (Uuid::new_v4(), Uuid::new_v4());
    topology.send_task(crash, &functions.body("crash", crash)).await;
    topology.send_task(well, &functions.body("well", well)).await;
    let first = next_result(&topology).await;
    assert_eq!(first.task_id, crash);
    assert!(first.data.contains("signal 11 (SIGSEGV)"), "{}", first.data);
    assert!(first.data.contains("last words"), "{}", first.data);
    let second = next_result(&topology).await;
    assert_eq!((second.task_id, second.error_details), (well, None));
    running.endpoint.stop(Stop::Drain).await;
    topology.remove().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_block_that_can_not_start_fails_its_tasks_with_the_reason() {
    let functions = Functions::pack(&[("well", "return 1", "()")]);
    let topology = Topology::create().await;
    let mut place = Place::new(1);
    let ProviderConfig::Local(provider) = &mut place.config.engine.provider else {
        panic!("the default is the local provider")
    };
    provider.worker_init = "echo no such module; exit 7".to_owned();
    let running = place.start(&topology).await;
    let task = Uuid::new_v4();
    topology.send_task(task, &functions.body("well", task)).await;
    let result = tokio::time::timeout(Duration::from_secs(90), next_result(&topology))
        .await
        .unwrap();
    assert!(result.data.contains("exit code 7"), "{}", result.data);
    assert!(result.data.contains("no such module"), "{}", result.data);
    running.endpoint.stop(Stop::Drain).await;
    topology.remove().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_of_a_function_that_is_not_allowed_is_refused_in_upstreams_words_and_leaves_the_queue() {
    let functions = Functions::pack(&[("well", "return 1", "()")]);
    let topology = Topology::create().await;
    let mut place = Place::new(1);
    place.config.base.allowed_functions = Some(vec![Uuid::from_u128(1)]);
    let running = place.start(&topology).await;
    let task = Uuid::new_v4();
    topology.send_task(task, &functions.body("well", task)).await;
    let result = next_result(&topology).await;
    assert_eq!(result.task_id, task);
    assert_eq!(result.error_details.unwrap().code, "FUNCTION_NOT_ALLOWED");
    let nil = Uuid::nil();
    assert!(
        result
            .data
            .contains(&format!("Function {nil} not permitted on endpoint {nil}")),
        "{}",
        result.data
    );
    assert_eq!(running.endpoint.stop(Stop::Drain).await, Ended::Stopped);
    let left = topology.ready("tasks").await;
    assert_eq!(left, 0, "it was acknowledged, and not given back");
    topology.remove().await;
}
