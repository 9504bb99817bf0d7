//! Pods as a cluster really showed them (`testdata/pods.json`: Kubernetes 1.36, cut to what matters), and a few that take
//! a second node or a full disk, written from the API's documentation.

use std::collections::BTreeMap;

use super::*;

fn pods() -> BTreeMap<String, ObservedPod> {
    serde_json::from_str(include_str!("testdata/pods.json")).expect("the test data are pods")
}

fn seen(name: &str) -> Observation {
    observe(&pods()[name], false)
}

fn end(name: &str) -> (BlockEnd, Option<String>) {
    let observation = seen(name);
    let BlockState::Ended(end) = observation.state else {
        panic!("{name}: {observation:?}");
    };
    (end, observation.log)
}

#[test]
fn every_end_is_told_by_its_kind_with_the_pod_and_the_platforms_words() {
    use BlockEndKind as Kind;
    for (name, kind, exit, words) in [
        (
            "out-of-memory",
            Kind::OutOfMemory,
            ProcessExit::Signal(9),
            "its pod out-of-memory on node node was killed for its use of memory (OOMKilled): its limit is 64Mi",
        ),
        (
            "crashed",
            Kind::Crashed,
            ProcessExit::Code(3),
            "its pod crashed on node node had its worker end with exit code 3",
        ),
        (
            "killed",
            Kind::Crashed,
            ProcessExit::Signal(9),
            "its pod killed on node node had its worker killed (SIGKILL, exit code 137)",
        ),
        (
            "completed-with-sidecar",
            Kind::Completed,
            ProcessExit::Code(0),
            "its worker ended",
        ),
        (
            "start-error",
            Kind::Crashed,
            ProcessExit::Code(128),
            "could not start its worker (StartError): failed to create containerd task",
        ),
        (
            "init-failed",
            Kind::Crashed,
            ProcessExit::Code(7),
            "its pod init-failed on node node failed before its worker began: its init container waypost-install ended with exit code 7",
        ),
        (
            "deadline",
            Kind::Crashed,
            ProcessExit::Signal(9),
            "ran for longer than its activeDeadlineSeconds (DeadlineExceeded): Pod was active on the node longer than",
        ),
        (
            "evicted",
            Kind::Evicted,
            ProcessExit::Signal(9),
            "its pod evicted on node node was evicted by the kubelet (Evicted): The node was low on resource: memory. Threshold",
        ),
        (
            "node-gone",
            Kind::NodeLost,
            ProcessExit::Unknown,
            "was removed because its node is gone (DeletionByPodGC): PodGC: node no longer exists",
        ),
        (
            "node-shutdown",
            Kind::NodeLost,
            ProcessExit::Signal(9),
            "ended with its node, which was shut down or is lost (Terminated): Pod was terminated in response to imminent node shutdown",
        ),
        (
            "preempted-by-kubelet",
            Kind::Preempted,
            ProcessExit::Signal(9),
            "was preempted by a critical pod (Preempting)",
        ),
        (
            "out-of-cpu",
            Kind::CannotStart,
            ProcessExit::Unknown,
            "was not taken by its node (OutOfcpu): Pod was rejected: Node didn't have enough resource: cpu",
        ),
    ] {
        let (end, _) = end(name);
        assert_eq!((end.kind, end.exit), (kind, exit), "{name}: {}", end.message);
        assert!(end.message.contains(words), "{name}: {}", end.message);
    }
    assert_eq!(end("out-of-memory").0.memory_limit, Some(64 << 20));
}

#[test]
fn the_last_lines_come_from_the_container_that_failed() {
    let (crashed, log) = end("crashed");
    assert_eq!(log.as_deref(), Some(WORKER));
    assert_eq!(
        crashed.output, "two\none",
        "what the kubelet kept stands in until the log is read"
    );
    assert_eq!(end("init-failed").1.as_deref(), Some("waypost-install"));
    assert_eq!(end("out-of-memory").1, None);
}

#[test]
fn what_the_platform_ends_is_said_before_it_has_ended() {
    for (name, kind, words) in [
        ("drained", BlockEndKind::Drained, "EvictionByEvictionAPI"),
        ("preempted", BlockEndKind::Preempted, "PreemptionByScheduler"),
        ("node-unreachable", BlockEndKind::NodeLost, "DeletionByTaintManager"),
        (
            "deleted",
            BlockEndKind::Deleted,
            "was deleted, and not by this endpoint",
        ),
    ] {
        let BlockState::Ending(end) = seen(name).state else {
            panic!("{name}: {:?}", seen(name));
        };
        assert_eq!(end.kind, kind, "{name}");
        assert!(end.message.contains(words), "{name}: {}", end.message);
        assert_eq!(
            gone(&pods()[name], false).kind,
            kind,
            "{name}, the last that is seen of it"
        );
        assert_eq!(
            observe(&pods()[name], true).state,
            BlockState::Running,
            "{name}, if we asked for it"
        );
    }
}

#[test]
fn a_pod_that_waits_says_for_what_and_whether_it_may_ever_work() {
    use WaitingCause as Cause;
    for (name, cause, words) in [
        ("unschedulable", Cause::Scheduling, "0/1 nodes are available"),
        ("image-pull", Cause::Image, "connection refused"),
        ("image-never", Cause::Never, "ErrImageNeverPull"),
        ("image-name", Cause::Never, "InvalidImageName"),
        ("config-error", Cause::Never, "secret \"no-such\" not found"),
    ] {
        let BlockState::Pending { why: Some(waiting) } = seen(name).state else {
            panic!("{name}: {:?}", seen(name));
        };
        assert_eq!(waiting.cause, cause, "{name}: {}", waiting.text);
        assert!(waiting.text.contains(words), "{name}: {}", waiting.text);
    }
    assert!(seen("image-pull").state != seen("image-never").state);
}

#[test]
fn a_missing_secret_of_a_volume_stands_in_the_events_alone() {
    let pods = pods();
    assert_eq!(seen("missing-volume").state, BlockState::Pending { why: None });
    assert!(is_being_made(&pods["missing-volume"]));
    for other in ["unschedulable", "image-pull", "running", "crashed"] {
        assert!(!is_being_made(&pods[other]), "{other}");
    }
    let missing = waiting_by_event(
        "FailedMount",
        "MountVolume.SetUp failed for volume \"v\" : secret \"no-such\" not found",
    );
    assert_eq!(missing.map(|waiting| waiting.cause), Some(WaitingCause::Never));
    let slow = waiting_by_event("FailedAttachVolume", "Multi-Attach error for volume \"pvc-1\"");
    assert_eq!(slow.map(|waiting| waiting.cause), Some(WaitingCause::Other));
    assert_eq!(waiting_by_event("Pulled", "Container image already present"), None);
}

#[test]
fn a_worker_that_runs_is_running_whatever_its_sidecars_do() {
    assert_eq!(seen("running").state, BlockState::Running);
    assert_eq!(gone(&pods()["running"], false).kind, BlockEndKind::Deleted);
}

#[test]
fn an_object_without_a_status_is_a_block_that_waits() {
    let pod = ObservedPod::default();
    assert_eq!(observe(&pod, false).state, BlockState::Pending { why: None });
}

#[test]
fn what_a_worker_may_not_do_is_told_with_the_option_that_allows_it() {
    use SecurityProfile::{Baseline, Image, Restricted};
    let read_only = "mkdir: cannot create directory '/home/ubuntu': Read-only file system";
    let not_ours = "mkdir: cannot create directory '/home/ubuntu': Permission denied";
    for (output, profile, writable_root, option) in [
        (read_only, Restricted, false, "`security_profile: baseline`"),
        (not_ours, Restricted, true, "`security_profile: image`"),
        (not_ours, Restricted, false, "`security_profile: image`"),
        (not_ours, Baseline, false, "`security_profile: image`"),
    ] {
        let advice = advice(output, profile, writable_root);
        assert!(advice.contains(option), "{profile:?}: {advice}");
    }
    for (output, profile, writable_root) in [
        (not_ours, Image, false),
        // Then it is a volume that is read-only.
        (read_only, Baseline, false),
        (read_only, Restricted, true),
        ("the well is dry", Restricted, false),
    ] {
        assert_eq!(advice(output, profile, writable_root), "", "{profile:?}: {output}");
    }
}
