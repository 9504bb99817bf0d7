use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::program::{User, eventually, text};
use crate::service::Service;

const ID: &str = "bd5ca298-ff8b-412b-bbbf-cbe64d90d30c";
const DIRECT: &str = "engine:\n  type: GlobusComputeEngine\n  provider:\n    type: LocalProvider\n    init_blocks: 0\n";

/// A registration whose broker can not be reached.
fn registered(id: &str) -> (u16, Value) {
    let queue = json!({
        "connection_url": "amqp://me:hidden-password@127.0.0.1:1/%2F", "queue": "q", "exchange": "results",
        "queue_publish_kwargs": {"exchange": "results", "routing_key": "me.results"},
    });
    (
        200,
        json!({
            "endpoint_id": id, "command_queue_info": queue, "task_queue_info": queue, "result_queue_info": queue,
            "heartbeat_queue_info": queue,
        }),
    )
}

#[test]
fn an_endpoint_that_was_not_configured_is_not_started() {
    let user = User::of("http://127.0.0.1:1");
    let output = user.run(&["start", "mine"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output).contains("endpoint configure mine"), "{}", text(&output));
    let unknown = user.run(&["start", ID]);
    assert_eq!(unknown.status.code(), Some(2));
    assert!(text(&unknown).contains(ID));
}

#[test]
fn all_problems_of_a_configuration_are_shown_before_anything_is_called() {
    let user = User::of("http://127.0.0.1:1");
    user.configure(
        "mine",
        "heartbeat_period: soon\nengine: {type: ThreadPoolEngine, max_worker: 3}\n",
    );
    for arguments in [&["start", "mine"][..], &["start", "mine", "--detach"][..]] {
        let output = user.run(arguments);
        assert_eq!(output.status.code(), Some(1));
        for path in ["`heartbeat_period`", "`engine.type`", "`engine.max_worker`"] {
            assert!(text(&output).contains(path), "{path} in {}", text(&output));
        }
    }
}

#[test]
fn without_a_login_it_is_said_which_variables_are_missing() {
    for (user, named) in [
        (User::new(), "GLOBUS_COMPUTE_CLIENT_SECRET"),
        (
            User::new().with("GLOBUS_COMPUTE_CLIENT_ID", "x"),
            "Nobody has logged in",
        ),
        (
            User::new().with("GLOBUS_COMPUTE_CLIENT_SECRET", "hidden-secret"),
            "GLOBUS_COMPUTE_CLIENT_ID must be set",
        ),
        (
            User::new().with("FUNCX_SDK_CLIENT_SECRET", "hidden-secret"),
            "FUNCX_SDK_CLIENT_ID must be set",
        ),
    ] {
        user.configure("mine", DIRECT);
        let output = user.run(&["start", "mine"]);
        assert_eq!(output.status.code(), Some(77), "{}", text(&output));
        assert!(text(&output).contains(named), "{}", text(&output));
        assert!(!text(&output).contains("hidden"));
    }
}

#[test]
fn a_refused_registration_ends_with_upstream_s_exit_code() {
    for (status, code) in [(400, 65), (422, 65), (404, 69), (409, 69), (423, 69), (403, 1)] {
        let service = Service::start([(status, json!({"reason": "because"}))]);
        let user = User::of(&service.url());
        user.configure("mine", DIRECT);
        let output = user.run(&["start", "mine"]);
        assert_eq!(output.status.code(), Some(code), "{status}: {}", text(&output));
        assert!(
            text(&output).contains("Endpoint registration blocked.  [{\"reason\":\"because\"}]"),
            "{}",
            text(&output)
        );
        assert!(!user.file("mine", "endpoint.json").exists());
    }
}

#[test]
fn an_answer_that_does_not_fit_ends_with_70() {
    let other = "5334a9a1-6fd2-4a4f-9f50-0d6ff5ddbb43";
    for (answer, named) in [
        (registered(other), "mismatched endpoint id"),
        ((200, json!({"endpoint_id": ID})), "result_queue_info is missing"),
        ((200, json!({"no": "id"})), "endpoint_id"),
    ] {
        let service = Service::start([answer]);
        let user = User::of(&service.url());
        user.configure("mine", DIRECT);
        std::fs::write(
            user.file("mine", "endpoint.json"),
            json!({ "endpoint_id": ID }).to_string(),
        )
        .unwrap();
        let output = user.run(&["start", "mine"]);
        assert_eq!(output.status.code(), Some(70), "{}", text(&output));
        assert!(text(&output).contains(named), "{named} in {}", text(&output));
        assert!(!text(&output).contains("hidden"));
        assert_eq!(service.requests(&format!("/v3/endpoints/{ID}"))[0].method, "PUT");
    }
}

#[test]
fn a_refused_token_is_renewed_once_and_a_fault_of_the_service_is_waited_out() {
    let service = Service::start([(401, json!({})), (503, json!({})), (422, json!({"reason": "enough"}))]);
    let user = User::of(&service.url());
    user.configure("mine", DIRECT);
    assert_eq!(user.run(&["start", "mine"]).status.code(), Some(65));
    let calls = service.requests("/v3/endpoints");
    assert_eq!(calls.len(), 3);
    assert_ne!(
        calls[0].authorization, calls[1].authorization,
        "a new token after the 401"
    );
    assert_eq!(
        calls[1].authorization, calls[2].authorization,
        "the same one after the 503"
    );
    assert_eq!(service.requests("/v2/oauth2/token").len(), 2);
    assert!(calls[0].user_agent.starts_with("waypost-endpoint/"));
    let body: Value = serde_json::from_str(&calls[0].body).unwrap();
    assert_eq!(body["metadata"]["endpoint_version"], "3.16.1");
    assert_eq!(body["endpoint_name"], "mine");
}

#[test]
fn a_token_in_its_last_minute_is_not_used_any_more() {
    for (life, tokens) in [(59, 2), (3600, 1)] {
        let service = Service::start([(422, json!({}))]).with_token_life(life);
        let user = User::of(&service.url());
        user.configure("mine", DIRECT);
        assert_eq!(user.run(&["start", "mine"]).status.code(), Some(65));
        assert_eq!(service.requests("/v2/oauth2/token").len(), tokens, "{life} s");
    }
}

#[test]
fn to_look_at_an_endpoint_does_not_keep_it_from_starting() {
    let service = Service::start([registered(ID)]);
    let user = User::of(&service.url());
    user.configure("mine", DIRECT);
    let stop = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                    user.run(&["list"]);
                }
            });
        }
        for _ in 0..5 {
            let output = user.run(&["start", "mine", "--detach"]);
            let stopped = user.run(&["stop", "mine"]);
            stop.store(
                !output.status.success() || !stopped.status.success(),
                std::sync::atomic::Ordering::Relaxed,
            );
            assert!(output.status.success(), "{}", text(&output));
            assert!(stopped.status.success(), "{}", text(&stopped));
        }
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
    });
}

#[test]
fn a_setup_that_fails_ends_with_78() {
    let user = User::of("http://127.0.0.1:1");
    user.configure("mine", &format!("endpoint_setup: echo no luck; exit 3\n{DIRECT}"));
    let output = user.run(&["start", "mine"]);
    assert_eq!(output.status.code(), Some(78), "{}", text(&output));
    assert!(text(&output).contains("no luck"));
}

#[test]
fn a_second_start_is_refused_until_the_first_has_ended_even_by_kill() {
    let service = Service::start([registered(ID)]);
    let user = User::of(&service.url());
    user.configure("mine", DIRECT);
    let mut first = user.spawn(&["start", "mine"]);
    eventually("the registration", || {
        user.file("mine", "endpoint.json").exists().then_some(())
    });
    let second = user.run(&["start", "mine"]);
    assert_eq!(second.status.code(), Some(73));
    assert!(text(&second).contains("Another instance of this endpoint is running."));
    first.signal(Signal::SIGKILL);
    assert_eq!(first.end(), None);
    // The pid file of the killed one is still there.
    assert!(
        !std::fs::read_to_string(user.file("mine", "daemon.pid"))
            .unwrap()
            .is_empty()
    );
    let mut third = user.spawn(&["start", "mine"]);
    // Only a living process tells its pid; the id is known from the file.
    eventually("the third", || user.status("mine")["pid"].is_number().then_some(()));
    third.signal(Signal::SIGTERM);
    assert_eq!(third.end(), Some(0), "{}", third.log());
    assert!(!user.file("mine", "control.sock").exists());
    for log in [first.log(), third.log()] {
        assert!(!log.contains("hidden"), "{log}");
    }
}

#[test]
fn a_signal_ends_a_start_that_can_not_reach_the_service() {
    let user = User::of("http://127.0.0.1:1");
    user.configure("mine", DIRECT);
    let mut start = user.spawn(&["start", "mine"]);
    eventually("the process", || {
        (user.status("mine")["state"] == "starting").then_some(())
    });
    start.signal(Signal::SIGINT);
    assert_eq!(start.end(), Some(0));
}

#[test]
fn a_detached_endpoint_runs_on_until_it_is_stopped() {
    let service = Service::start([registered(ID)]);
    let user = User::of(&service.url());
    user.configure("mine", DIRECT);
    let output = user.run(&["start", "mine", "--detach"]);
    assert!(output.status.success(), "{}", text(&output));
    assert!(text(&output).contains("> Endpoint <mine> starting in detached mode."));
    assert!(text(&output).contains(ID));
    assert_eq!(user.status("mine")["endpoint_id"], ID);
    let log = std::fs::read_to_string(user.file("mine", "endpoint.log")).unwrap();
    let first: Value = serde_json::from_str(log.lines().next().unwrap()).unwrap();
    assert!(first["message"].is_string() && !log.contains("hidden"), "{log}");
    // By its id, as well.
    let stopped = user.run(&["stop", ID]);
    assert!(stopped.status.success(), "{}", text(&stopped));
    assert!(text(&stopped).contains("Endpoint <mine> is now stopped"));
    assert_eq!(user.status("mine")["state"], "stopped");
    assert!(text(&user.run(&["stop", "mine"])).contains("Endpoint not active."));
}

#[test]
fn a_detached_start_that_fails_says_why_and_with_its_code() {
    let service = Service::start([(423, json!({"reason": "locked"}))]);
    let user = User::of(&service.url());
    user.configure("mine", DIRECT);
    let output = user.run(&["start", "mine", "--detach"]);
    assert_eq!(output.status.code(), Some(69), "{}", text(&output));
    assert!(text(&output).contains("locked"), "{}", text(&output));
}

#[test]
fn an_endpoint_that_was_registered_before_starts_while_the_service_is_away() {
    let service = Service::start([registered(ID)]);
    let user = User::of(&service.url());
    user.configure("mine", DIRECT);
    let output = user.run(&["start", "mine", "--detach"]);
    assert!(output.status.success(), "{}", text(&output));
    // There may be one already: nothing listens where the broker should be.
    let error = user.status("mine")["last_error"].to_string();
    assert!(!error.contains("the service is away"), "{error}");
    assert!(user.run(&["stop", "mine"]).status.success());

    let user = user.with("WAYPOST_SERVICE_URL", "http://127.0.0.1:1");
    let output = user.run(&["start", "mine", "--detach"]);
    assert!(output.status.success(), "{}", text(&output));
    let status = user.status("mine");
    assert_eq!(status["endpoint_id"], ID);
    let error = status["last_error"].as_str().unwrap();
    assert!(error.contains("the service is away"), "{error}");
    assert!(user.run(&["stop", "mine"]).status.success());
    let log = std::fs::read_to_string(user.file("mine", "endpoint.log")).unwrap();
    assert!(!log.contains("hidden"), "{log}");
}

#[test]
fn an_endpoint_that_the_service_refuses_does_not_go_on_with_what_it_was_once_told() {
    let service = Service::start([registered(ID), (423, json!({"reason": "locked"}))]);
    let user = User::of(&service.url());
    user.configure("mine", DIRECT);
    assert!(user.run(&["start", "mine", "--detach"]).status.success());
    assert!(user.run(&["stop", "mine"]).status.success());
    let output = user.run(&["start", "mine"]);
    assert_eq!(output.status.code(), Some(69), "{}", text(&output));
}

#[test]
fn the_first_registration_needs_the_service() {
    let user = User::of("http://127.0.0.1:1");
    user.configure("mine", DIRECT);
    let output = user.run(&["start", "mine"]);
    assert_eq!(output.status.code(), Some(75), "{}", text(&output));
    assert!(text(&output).contains("due to a network error"), "{}", text(&output));
}

#[test]
fn a_deployment_that_can_not_work_is_refused_before_anything_is_called() {
    let service = Service::start([registered(ID)]);
    for (variables, named) in [
        (&[("WAYPOST_LINK_LISTEN", "0.0.0.0:5800")][..], "WAYPOST_LINK_SERVICE"),
        (&[("WAYPOST_LINK_LISTEN", "5800")], "WAYPOST_LINK_LISTEN"),
        (&[("WAYPOST_STATE_SECRET", "state")], "WAYPOST_NAMESPACE"),
    ] {
        let mut user = User::of(&service.url());
        for (name, value) in variables {
            user = user.with(name, value);
        }
        user.configure("mine", DIRECT);
        let output = user.run(&["start", "mine"]);
        assert_eq!(output.status.code(), Some(1), "{}", text(&output));
        assert!(text(&output).contains(named), "{}", text(&output));
    }
    assert!(service.requests("/v3/endpoints").is_empty());
}
