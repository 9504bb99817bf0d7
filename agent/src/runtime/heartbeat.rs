//! A user endpoint's heartbeats, with the fields of upstream's, and the idleness that they count.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use endpoint_config::UserEndpointConfig;
use serde_json::{Map, Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use uuid::Uuid;
use waypost_protocol::{Message, StatusReport, encode};

use super::observer::Figures;

/// A connected worker, as a heartbeat shows it.
pub(super) struct Node {
    pub(super) block: String,
    pub(super) slots: u32,
    pub(super) idle: Duration,
    pub(super) python_version: String,
    pub(super) sdk_version: String,
}

/// What does not change between two heartbeats.
#[derive(Debug)]
pub(super) struct Heartbeats {
    endpoint_id: Uuid,
    endpoint_version: String,
    fixed: Map<String, Value>,
}

impl Heartbeats {
    pub(super) fn new(
        id: Uuid,
        version: String,
        config: &UserEndpointConfig,
        text: &str,
        slots_per_block: u32,
    ) -> Self {
        let provider = config.engine.provider.blocks();
        let user = nix::unistd::User::from_uid(nix::unistd::getuid()).ok().flatten();
        let groups = nix::unistd::getgroups().unwrap_or_default();
        let groups: Vec<u32> = groups.iter().map(|group| group.as_raw()).collect();
        let started = SystemTime::now();
        let Value::Object(fixed) = json!({
            "scaling_enabled": true,
            "mem_per_worker": config.engine.mem_per_worker,
            "cores_per_worker": config.engine.cores_per_worker,
            "prefetch_capacity": config.engine.prefetch_capacity,
            "max_blocks": provider.max_blocks,
            "min_blocks": provider.min_blocks,
            "max_workers_per_node": slots_per_block,
            "nodes_per_block": provider.nodes_per_block,
            "engine_type": "GlobusComputeEngine",
            "provider_type": config.engine.provider.type_name(),
            "queue": null,
            "account": null,
            "posix_ppid": std::os::unix::process::parent_id(),
            "posix_username": user.map(|user| user.name),
            "posix_uid": nix::unistd::getuid().as_raw(),
            "posix_gid": nix::unistd::getgid().as_raw(),
            "posix_groups": groups,
            "posix_pid": std::process::id(),
            "posix_sid": nix::unistd::getsid(None).map(nix::unistd::Pid::as_raw).ok(),
            "config_raw": text,
            "start_iso": OffsetDateTime::from(started).format(&Rfc3339).unwrap_or_default(),
            "start_unix": started.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs()),
            "heartbeat_period": config.base.heartbeat_period.as_secs_f64(),
            "waypost_version": env!("CARGO_PKG_VERSION"),
        }) else {
            unreachable!("an object was written just above")
        };
        Self {
            endpoint_id: id,
            endpoint_version: version,
            fixed,
        }
    }

    /// The message of now. `active` is false in the last one.
    pub(super) fn compose(&self, figures: &Figures, nodes: &[Node], active: bool) -> Bytes {
        let mut state = self.fixed.clone();
        let mut set = |name: &str, value: Value| state.insert(name.to_owned(), value);
        set("managers", json!(figures.workers));
        set("active_managers", json!(figures.workers_taking));
        set("total_workers", json!(figures.slots));
        set("idle_workers", json!(figures.slots - figures.busy));
        set("pending_tasks", json!(figures.waiting));
        set("outstanding_tasks", json!(figures.waiting + figures.running));
        set("total_tasks", json!(figures.received));
        set("active", json!(active));
        let nodes: Map<String, Value> = nodes
            .iter()
            .map(|node| {
                let of = json!([{
                    "worker_count": node.slots,
                    "idle_duration": node.idle.as_secs_f64(),
                    "parsl_version": null,
                    "endpoint_version": self.endpoint_version,
                    "sdk_version": node.sdk_version,
                    "python_version": node.python_version,
                }]);
                (node.block.clone(), of)
            })
            .collect();
        set("node_info", Value::Object(nodes));
        let report = StatusReport {
            endpoint_id: self.endpoint_id,
            global_state: state,
            task_statuses: Map::new(),
        };
        Bytes::from(encode(&Message::StatusReport(report)))
    }
}

/// Counts heartbeats without work, as upstream's `idle_heartbeats_soft` and `idle_heartbeats_hard` mean them.
#[derive(Debug)]
pub(super) struct Idleness {
    soft: u32,
    hard: u32,
    /// Whether it had work in this life, or in the one that it was restored from.
    had_work: bool,
    seen: (u64, u64),
    idle: u32,
    unmoved: u32,
}

impl Idleness {
    /// `restored` is one that was saved by an earlier life of the agent: it was wanted then, and may be idle now
    /// without having had a task.
    pub(super) const fn new(config: &UserEndpointConfig, restored: bool) -> Self {
        let (soft, hard) = (config.idle_heartbeats_soft, config.idle_heartbeats_hard);
        Self {
            soft,
            hard,
            had_work: restored,
            seen: (0, 0),
            idle: 0,
            unmoved: 0,
        }
    }

    /// Counts one heartbeat; true if the user endpoint has been idle for long enough to end. One that stands by is not:
    /// another agent has its tasks, and it counts anew when it has them itself.
    pub(super) fn beat(&mut self, figures: &Figures, stands_by: bool) -> bool {
        let now = (figures.received, figures.settled);
        if stands_by || now != self.seen {
            self.seen = now;
            (self.idle, self.unmoved) = (0, 0);
            return false;
        }
        self.unmoved += 1;
        self.had_work |= figures.received > 0;
        self.idle = if self.had_work && figures.held == 0 {
            self.idle + 1
        } else {
            0
        };
        self.soft > 0 && (self.idle >= self.soft || (self.hard > 0 && self.unmoved >= self.hard))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn figures(received: u64, settled: u64) -> Figures {
        Figures {
            received,
            settled,
            held: received - settled,
            ..Figures::default()
        }
    }

    fn idleness(soft: u32, hard: u32) -> Idleness {
        let config = UserEndpointConfig {
            idle_heartbeats_soft: soft,
            idle_heartbeats_hard: hard,
            ..UserEndpointConfig::default()
        };
        Idleness::new(&config, false)
    }

    #[test]
    fn it_ends_after_so_many_heartbeats_without_work_but_only_if_it_had_some() {
        let mut idleness = idleness(2, 1000);
        assert!((0..10).all(|_| !idleness.beat(&figures(0, 0), false)));
        assert!(!idleness.beat(&figures(3, 1), false));
        assert!(
            (0..10).all(|_| !idleness.beat(&figures(3, 1), false)),
            "a task is outstanding"
        );
        assert!(!idleness.beat(&figures(3, 3), false));
        assert!(!idleness.beat(&figures(3, 3), false));
        assert!(idleness.beat(&figures(3, 3), false));
    }

    #[test]
    fn it_ends_in_the_end_even_if_a_task_never_does() {
        let mut idleness = idleness(1, 3);
        assert!(!idleness.beat(&figures(2, 1), false));
        assert!(!idleness.beat(&figures(2, 1), false));
        assert!(!idleness.beat(&figures(2, 1), false));
        assert!(idleness.beat(&figures(2, 1), false));
    }

    #[test]
    fn one_that_was_restored_may_be_idle_without_a_task() {
        let config = UserEndpointConfig {
            idle_heartbeats_soft: 2,
            ..UserEndpointConfig::default()
        };
        let mut idleness = Idleness::new(&config, true);
        assert!(!idleness.beat(&figures(0, 0), false));
        assert!(idleness.beat(&figures(0, 0), false));
    }

    #[test]
    fn one_that_stands_by_is_not_idle_and_counts_from_when_it_does_no_longer() {
        let config = UserEndpointConfig {
            idle_heartbeats_soft: 2,
            idle_heartbeats_hard: 3,
            ..UserEndpointConfig::default()
        };
        let mut idleness = Idleness::new(&config, true);
        assert!(!idleness.beat(&figures(0, 0), false));
        assert!((0..10).all(|_| !idleness.beat(&figures(0, 0), true)));
        assert!(!idleness.beat(&figures(0, 0), false));
        assert!(idleness.beat(&figures(0, 0), false));
    }

    #[test]
    fn it_never_ends_by_itself_unless_it_was_configured_to() {
        let mut idleness = idleness(0, 1);
        assert!((0..10).all(|_| !idleness.beat(&figures(1, 1), false)));
    }

    #[test]
    fn a_heartbeat_has_every_field_of_upstreams() {
        let heartbeats = Heartbeats::new(
            Uuid::nil(),
            "4.19.0".to_owned(),
            &UserEndpointConfig::default(),
            "engine: {}",
            2,
        );
        let node = Node {
            block: "b-1".to_owned(),
            slots: 2,
            idle: Duration::from_secs(1),
            python_version: "3.11.2".to_owned(),
            sdk_version: "4.19.0".to_owned(),
        };
        let bytes = heartbeats.compose(&figures(3, 1), &[node], false);
        let Message::StatusReport(report) = waypost_protocol::decode(&bytes).unwrap() else {
            panic!("a report was written")
        };
        for field in "managers active_managers total_workers idle_workers pending_tasks outstanding_tasks total_tasks \
                      scaling_enabled mem_per_worker cores_per_worker prefetch_capacity max_blocks min_blocks \
                      max_workers_per_node nodes_per_block node_info engine_type provider_type queue account posix_ppid \
                      posix_username posix_uid posix_gid posix_groups posix_pid posix_sid config_raw start_iso \
                      start_unix heartbeat_period active"
            .split_whitespace()
        {
            assert!(report.global_state.contains_key(field), "{field} is missing");
        }
        assert!(!report.is_active());
        assert_eq!(report.global_state["node_info"]["b-1"][0]["worker_count"], 2);
    }
}
