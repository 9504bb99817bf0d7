//! Whole configurations, read.

use std::time::Duration;

use super::endpoint::{
    AckTiming, Delivery, ManagerConfig, ProcessConfig, ProviderConfig, ScalingStrategy, UserEndpointConfig,
};
use super::parse::{
    ConfigError, Configuration, Read, endpoint_config, environment_file, listen_address, user_endpoint_config,
};

fn direct(text: &str) -> Read<UserEndpointConfig> {
    let read = endpoint_config(text, None).unwrap();
    let Configuration::Direct(config) = read.config.0 else {
        panic!("an `engine` makes it direct")
    };
    Read {
        config,
        remarks: read.remarks,
    }
}

fn problems(text: &str) -> Vec<String> {
    match endpoint_config(text, None) {
        Err(ConfigError::Problems(problems)) => problems.into_iter().map(|problem| problem.path).collect(),
        other => panic!("problems were expected of {text:?}, not {other:?}"),
    }
}

#[test]
fn an_empty_configuration_is_a_template_endpoint_with_defaults() {
    for text in ["", "# nothing\n", "display_name: null\n", "display_name: None\n"] {
        let read = endpoint_config(text, None).unwrap();
        assert_eq!(
            read.config.0,
            Configuration::Template(ManagerConfig::default()),
            "{text:?}"
        );
        assert_eq!(read.config.1, ProcessConfig::default());
        assert!(read.remarks.is_empty());
    }
}

#[test]
fn a_configuration_of_3_16_is_read_whole() {
    let read = direct(
        "display_name: Mine\n\
         amqp_port: 443\n\
         heartbeat_period: 15\n\
         heartbeat_threshold: 10\n\
         idle_heartbeats_soft: -1\n\
         detach_endpoint: false\n\
         engine:\n  \
           type: GlobusComputeEngine\n  \
           max_workers_per_node: 010\n  \
           max_retries_on_system_failure: 2\n  \
           run_in_sandbox: on\n  \
           encrypted: no\n  \
           address: {type: address_by_interface, ifname: eth0}\n  \
           worker_port_range: [54000, 55000]\n  \
           allowed_serializers: [globus_compute_sdk.*Code]\n  \
           job_status_kwargs: {max_idletime: 1:30, strategy: htex_auto_scale, strategy_period: 5}\n  \
           provider:\n    \
             type: LocalProvider\n    \
             init_blocks: 0\n    \
             max_blocks: 3\n    \
             parallelism: 0.5\n    \
             launcher: {type: SingleNodeLauncher}\n    \
             worker_init: |\n      one\n      two\n",
    );
    let config = read.config;
    assert_eq!(config.base.amqp_port, Some(443));
    assert_eq!(
        config.heartbeat_threshold,
        Duration::from_secs(30),
        "at least two periods"
    );
    assert_eq!(config.idle_heartbeats_soft, 0);
    assert_eq!(
        config.engine.max_workers_per_node,
        Some(8),
        "YAML 1.1 has octal numbers"
    );
    assert!(config.engine.run_in_sandbox && !config.engine.encrypted);
    assert_eq!(
        config.engine.max_idletime,
        Duration::from_secs(90),
        "and sexagesimal ones"
    );
    assert_eq!(config.engine.strategy, ScalingStrategy::HtexAutoScale);
    let ProviderConfig::Local(provider) = &config.engine.provider else {
        panic!("{:?}", config.engine.provider)
    };
    assert_eq!((provider.init_blocks, provider.max_blocks), (0, 3));
    assert_eq!(provider.worker_init, "one\ntwo\n");
    let remarks: Vec<String> = read.remarks.into_iter().map(|remark| remark.path).collect();
    assert_eq!(
        remarks,
        [
            "engine.job_status_kwargs.strategy_period",
            "engine.address",
            "engine.worker_port_range",
            "detach_endpoint"
        ]
    );
}

#[test]
fn every_problem_is_reported_with_its_path() {
    let found = problems(
        "heartbeat_period: soon\n\
         display_name: 3\n\
         nonsense: 1\n\
         allowed_functions: [x]\n\
         7: seven\n\
         http: nowhere\n\
         engine:\n  \
           type: ThreadPoolEngine\n  \
           container_type: docker\n  \
           max_workers_per_node: 0\n  \
           max_worker: 3\n  \
           provider: {type: SlurmProvider, partition: debug, min_blocks: 5}\n",
    );
    for path in [
        "heartbeat_period",
        "display_name",
        "nonsense",
        "allowed_functions",
        "7",
        "http",
        "engine.type",
        "engine.container_type",
        "engine.max_workers_per_node",
        "engine.max_worker",
        "engine.provider.type",
        "engine.provider.partition",
        "engine.provider.min_blocks",
    ] {
        assert!(
            found.iter().any(|found| found == path),
            "{path} is missing in {found:?}"
        );
    }
    assert_eq!(found.len(), 13, "{found:?}");
}

#[test]
fn our_own_keys_are_read() {
    let text = "http: 9464\nmax_held_bytes: 1000\nmax_user_endpoints: 3\n";
    let process = endpoint_config(text, None).unwrap().config.1;
    assert_eq!(process.http, Some("127.0.0.1:9464".parse().unwrap()));
    assert_eq!((process.max_held_bytes, process.max_user_endpoints), (1000, 3));
    let config = direct("engine: {}\ndelivery: at-most-once\nbroker: {ack: on_accept}\nreconnect_grace: 5\n").config;
    assert_eq!(
        (config.delivery, config.ack),
        (Delivery::AtMostOnce, AckTiming::OnAccept)
    );
    assert_eq!(config.reconnect_grace, Duration::from_secs(5));
}

#[test]
fn keys_of_the_process_have_no_place_in_a_template() {
    assert!(user_endpoint_config("engine: {type: GlobusComputeEngine}\n", None).is_ok());
    for text in [
        "",
        "engine: {}\nhttp: 1\n",
        "engine: {}\nhigh_assurance: false\n",
        "[1]",
        "engine: {}\npublic: true\n",
    ] {
        assert!(user_endpoint_config(text, None).is_err(), "{text:?}");
    }
}

#[test]
fn listen_addresses_come_in_all_usual_forms() {
    for (text, address) in [
        ("127.0.0.1:1", "127.0.0.1:1"),
        ("[::1]:1", "[::1]:1"),
        ("localhost:1", "127.0.0.1:1"),
        (":1", "0.0.0.0:1"),
        ("1", "127.0.0.1:1"),
    ] {
        assert_eq!(listen_address(text), Some(address.parse().unwrap()));
    }
    assert_eq!(listen_address("example.org:1"), None);
    assert_eq!(listen_address("127.0.0.1:99999"), None);
}

#[test]
fn environment_variables_become_text_as_in_python() {
    let variables = environment_file("A: 1\nB: yes\nC: ~\nD: 1.50\nE: x y\nHOME: /tmp\n").unwrap();
    let variables: Vec<(&str, &str)> = variables.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
    assert_eq!(
        variables,
        [("A", "1"), ("B", "True"), ("C", "None"), ("D", "1.5"), ("E", "x y")]
    );
    assert!(environment_file("- a\n").is_err());
    assert!(environment_file("").unwrap().is_empty());
}
