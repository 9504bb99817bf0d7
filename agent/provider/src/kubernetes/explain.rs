//! What a pod's object says about its block. Pure: from the object to the engine's words.
//!
//! A block is its worker's container, not the pod: a sidecar that never ends does not keep it alive. Where Kubernetes
//! says why a pod ended differs with the reason (`status.reason`, the condition `DisruptionTarget`, a container's
//! `state.terminated`), so each is asked in the order of how much it explains.

use endpoint_config::SecurityProfile;
use waypost_engine::{BlockEnd, BlockEndKind, BlockState, ProcessExit, Waiting, WaitingCause};

use super::observed::{Condition, ContainerStatus, ObservedPod, Status, Terminated};
use super::pod::WORKER;

/// What the platform did on its way to the end of a pod; from the condition `DisruptionTarget`.
const DISRUPTION: &str = "DisruptionTarget";

/// What is seen of a block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Observation {
    /// For the engine. The last lines that the block printed are not in it yet.
    pub(super) state: BlockState,
    /// The container whose last lines tell something about the end.
    pub(super) log: Option<String>,
}

impl From<BlockState> for Observation {
    fn from(state: BlockState) -> Self {
        Self { state, log: None }
    }
}

/// What a pod's object says. `ours`: we asked for the pod's end, so that its deletion needs no explanation.
pub(super) fn observe(pod: &ObservedPod, ours: bool) -> Observation {
    let status = pod.status.as_ref();
    let words = Words::of(pod);
    let worker = status.and_then(worker_status);
    let terminated = worker.and_then(|worker| worker.state.as_ref()?.terminated.as_ref());
    let phase = status.and_then(|status| status.phase.as_deref()).unwrap_or_default();
    let disruption = status.and_then(|status| disruption(status, &words));
    if let Some(terminated) = terminated {
        return ended(
            pod,
            &words,
            terminated,
            disruption.or_else(|| by_pod(status, &words)),
            ours,
        );
    }
    if matches!(phase, "Failed" | "Succeeded") {
        return never_ran(status, &words, disruption);
    }
    if pod.metadata.deletion_timestamp.is_some() && !ours {
        return BlockState::Ending(disruption.unwrap_or_else(|| words.deleted())).into();
    }
    if worker.is_some_and(|worker| worker.state.as_ref().is_some_and(|state| state.running.is_some())) {
        return BlockState::Running.into();
    }
    BlockState::Pending {
        why: status.and_then(waiting),
    }
    .into()
}

/// How a block ended whose pod is gone, from the last that was seen of its object.
pub(super) fn gone(pod: &ObservedPod, ours: bool) -> BlockEnd {
    match observe(pod, ours).state {
        BlockState::Ended(end) | BlockState::Ending(end) => end,
        BlockState::Pending { .. } | BlockState::Running => Words::of(pod).deleted(),
    }
}

/// The kubelet's words for why a pod that has its node does not start, from the Events about it. A volume whose Secret
/// is missing stands nowhere else.
pub(super) fn waiting_by_event(reason: &str, note: &str) -> Option<Waiting> {
    let cause = match reason {
        "FailedMount" if names_what_is_missing(note) => WaitingCause::Never,
        "FailedMount" | "FailedAttachVolume" | "FailedCreatePodSandBox" | "FailedMapVolume" | "NetworkNotReady" => {
            WaitingCause::Other
        }
        _ => return None,
    };
    Some(Waiting {
        cause,
        text: format!("{reason}: {}", note.trim()),
    })
}

fn names_what_is_missing(note: &str) -> bool {
    (note.contains("secret \"") || note.contains("configmap \"") || note.contains("persistentvolumeclaim \""))
        && note.contains("not found")
        || note.contains("references non-existent")
}

/// Whether the kubelet has taken the pod and makes its containers, which may fail in ways that only Events tell.
pub(super) fn is_being_made(pod: &ObservedPod) -> bool {
    let Some(status) = &pod.status else { return false };
    let scheduled = conditions(status, "PodScheduled").is_some_and(|condition| condition.status == "True");
    scheduled
        && status.phase.as_deref() == Some("Pending")
        && all_statuses(status).any(|container| {
            let waiting = container.state.as_ref().and_then(|state| state.waiting.as_ref());
            let reason = waiting.and_then(|waiting| waiting.reason.as_deref());
            matches!(reason, Some("ContainerCreating" | "PodInitializing"))
        })
}

/// The pod, for sentences about it.
struct Words {
    pod: String,
    node: Option<String>,
    memory_limit: Option<String>,
}

impl Words {
    fn of(pod: &ObservedPod) -> Self {
        let spec = pod.spec.as_ref();
        let worker = spec.and_then(|spec| spec.containers.iter().find(|container| container.name == WORKER));
        let limits = worker.and_then(|worker| worker.resources.as_ref()?.limits.as_ref());
        Self {
            pod: pod.metadata.name.clone().unwrap_or_default(),
            node: spec.and_then(|spec| spec.node_name.clone()),
            memory_limit: limits.and_then(|limits| Some(limits.get("memory")?.0.clone())),
        }
    }

    /// "its pod waypost-1-2 on node n"
    fn place(&self) -> String {
        match &self.node {
            Some(node) => format!("its pod {} on node {node}", self.pod),
            None => format!("its pod {}", self.pod),
        }
    }

    fn end(&self, kind: BlockEndKind, what: &str, detail: &str) -> BlockEnd {
        let detail = detail.trim().trim_end_matches('.');
        let colon = if detail.is_empty() { "" } else { ": " };
        BlockEnd::new(kind, format!("{} {what}{colon}{detail}", self.place()))
    }

    fn deleted(&self) -> BlockEnd {
        self.end(BlockEndKind::Deleted, "was deleted, and not by this endpoint", "")
    }
}

fn conditions<'a>(status: &'a Status, kind: &str) -> Option<&'a Condition> {
    status
        .conditions
        .as_ref()?
        .iter()
        .find(|condition| condition.type_ == kind)
}

fn worker_status(status: &Status) -> Option<&ContainerStatus> {
    status
        .container_statuses
        .as_ref()?
        .iter()
        .find(|container| container.name == WORKER)
}

fn all_statuses(status: &Status) -> impl Iterator<Item = &ContainerStatus> {
    let init = status.init_container_statuses.as_ref().into_iter().flatten();
    init.chain(status.container_statuses.as_ref().into_iter().flatten())
}

/// What the platform says that it did to the pod.
fn disruption(status: &Status, words: &Words) -> Option<BlockEnd> {
    let condition = conditions(status, DISRUPTION).filter(|condition| condition.status == "True")?;
    let message = condition.message.as_deref().unwrap_or_default();
    let (kind, what) = match condition.reason.as_deref()? {
        "PreemptionByScheduler" => (
            BlockEndKind::Preempted,
            "was preempted by a pod of higher priority (PreemptionByScheduler)",
        ),
        "EvictionByEvictionAPI" => (
            BlockEndKind::Drained,
            "was evicted through the API, as when its node is drained (EvictionByEvictionAPI)",
        ),
        "DeletionByTaintManager" => (
            BlockEndKind::NodeLost,
            "was removed because its node is unreachable or tainted (DeletionByTaintManager)",
        ),
        "DeletionByPodGC" => (
            BlockEndKind::NodeLost,
            "was removed because its node is gone (DeletionByPodGC)",
        ),
        "TerminationByKubelet" => return by_pod(Some(status), words).or_else(|| Some(evicted(words, message))),
        reason => return Some(words.end(BlockEndKind::Evicted, &format!("was disrupted ({reason})"), message)),
    };
    Some(words.end(kind, what, message))
}

fn evicted(words: &Words, message: &str) -> BlockEnd {
    words.end(BlockEndKind::Evicted, "was evicted by the kubelet (Evicted)", message)
}

/// What `status.reason` says. The kubelet writes it when it ends a whole pod, or would not have it.
fn by_pod(status: Option<&Status>, words: &Words) -> Option<BlockEnd> {
    let status = status?;
    let message = status.message.as_deref().unwrap_or_default();
    let reason = status.reason.as_deref().filter(|reason| !reason.is_empty())?;
    let end = match reason {
        "Evicted" => evicted(words, message),
        "Preempting" => words.end(
            BlockEndKind::Preempted,
            "was preempted by a critical pod (Preempting)",
            message,
        ),
        "Terminated" | "NodeShutdown" | "Shutdown" | "NodeLost" => {
            let what = format!("ended with its node, which was shut down or is lost ({reason})");
            words.end(BlockEndKind::NodeLost, &what, message)
        }
        "DeadlineExceeded" => words.end(
            BlockEndKind::Crashed,
            "ran for longer than its activeDeadlineSeconds (DeadlineExceeded)",
            message,
        ),
        reason => words.end(
            BlockEndKind::CannotStart,
            &format!("was not taken by its node ({reason})"),
            message,
        ),
    };
    Some(end)
}

/// The worker's container has ended.
fn ended(
    pod: &ObservedPod,
    words: &Words,
    terminated: &Terminated,
    by_platform: Option<BlockEnd>,
    ours: bool,
) -> Observation {
    let exit = exit(terminated);
    if terminated.reason.as_deref() == Some("OOMKilled") {
        let limit = words.memory_limit.as_deref();
        let limit = limit.map_or_else(String::new, |limit| format!("its limit is {limit}"));
        let mut end = words.end(
            BlockEndKind::OutOfMemory,
            "was killed for its use of memory (OOMKilled)",
            &limit,
        );
        end.exit = exit;
        end.memory_limit = words.memory_limit.as_deref().and_then(bytes);
        return BlockState::Ended(end).into();
    }
    if let Some(mut end) = by_platform {
        end.exit = exit;
        return BlockState::Ended(end).into();
    }
    let message = terminated.message.as_deref().unwrap_or_default();
    if terminated.exit_code == 0 {
        let mut end = BlockEnd::new(BlockEndKind::Completed, "its worker ended");
        end.exit = exit;
        return BlockState::Ended(end).into();
    }
    if pod.metadata.deletion_timestamp.is_some() && !ours {
        let mut end = words.deleted();
        end.exit = exit;
        return BlockState::Ended(end).into();
    }
    // The runtime could not even start it: `StartError` or `ContainerCannotRun`, with its words.
    let what = match terminated.reason.as_deref() {
        Some(reason @ ("StartError" | "ContainerCannotRun" | "RunContainerError")) => {
            format!("could not start its worker ({reason})")
        }
        _ => match exit {
            ProcessExit::Signal(9) => "had its worker killed (SIGKILL, exit code 137)".to_owned(),
            ProcessExit::Signal(signal) => format!("had its worker ended by signal {signal}"),
            ProcessExit::Code(code) => format!("had its worker end with exit code {code}"),
            ProcessExit::Unknown => "had its worker end".to_owned(),
        },
    };
    // One line is the worker's own sentence; more are the last lines of its log.
    let (sentence, lines) = if message.trim_end().contains('\n') {
        ("", message.trim_end())
    } else {
        (message, "")
    };
    let mut end = words.end(BlockEndKind::Crashed, &what, sentence);
    end.exit = exit;
    end.output = lines.to_owned();
    Observation {
        state: BlockState::Ended(end),
        log: Some(WORKER.to_owned()),
    }
}

/// The pod has ended, and its worker's container never ran.
fn never_ran(status: Option<&Status>, words: &Words, disruption: Option<BlockEnd>) -> Observation {
    if let Some(end) = disruption {
        return BlockState::Ended(end).into();
    }
    let failed = status
        .and_then(|status| status.init_container_statuses.as_ref())
        .into_iter()
        .flatten()
        .find_map(|container| {
            let terminated = container.state.as_ref()?.terminated.as_ref()?;
            (terminated.exit_code != 0).then_some((container, terminated))
        });
    if let Some((container, terminated)) = failed {
        let what = format!(
            "failed before its worker began: its init container {} ended with {}",
            container.name,
            exit(terminated)
        );
        let reason = terminated.reason.as_deref().filter(|reason| *reason != "Error");
        let detail = [reason, terminated.message.as_deref()];
        let detail: Vec<&str> = detail.into_iter().flatten().collect();
        let mut end = words.end(BlockEndKind::Crashed, &what, &detail.join(" "));
        end.exit = exit(terminated);
        return Observation {
            state: BlockState::Ended(end),
            log: Some(container.name.clone()),
        };
    }
    let end = by_pod(status, words).unwrap_or_else(|| {
        words.end(
            BlockEndKind::Unknown,
            "ended without its worker having run, and nothing says why",
            "",
        )
    });
    BlockState::Ended(end).into()
}

/// Which option would allow what a worker's last lines say it may not do; empty if they say nothing of the kind.
pub(super) fn advice(output: &str, profile: SecurityProfile, writable_root: bool) -> &'static str {
    match profile {
        SecurityProfile::Restricted if !writable_root && output.contains("Read-only file system") => {
            "its root file system is read-only, but for $HOME and /tmp. `security_profile: baseline` makes it writable, and \
             `image` runs it as its image's own user as well (in the chart worker.securityProfile)"
        }
        SecurityProfile::Restricted | SecurityProfile::Baseline if output.contains("Permission denied") => {
            "it is not run as its image's own user. `security_profile: image` does that (in the chart \
             worker.securityProfile)"
        }
        SecurityProfile::Restricted | SecurityProfile::Baseline | SecurityProfile::Image => "",
    }
}

/// Shells and runtimes say a signal as 128 and its number.
fn exit(terminated: &Terminated) -> ProcessExit {
    match (terminated.signal, terminated.exit_code) {
        (Some(signal), _) if signal > 0 => ProcessExit::Signal(signal),
        (_, code @ 129..=159) => ProcessExit::Signal(code - 128),
        (_, code) => ProcessExit::Code(code),
    }
}

/// A limit as Kubernetes writes it, in bytes.
fn bytes(quantity: &str) -> Option<u64> {
    let value = endpoint_config::Quantity::parse(quantity)?.value();
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "an amount is not negative, and the cast saturates"
    )]
    Some(value as u64)
}

/// What keeps a pod from running.
fn waiting(status: &Status) -> Option<Waiting> {
    let scheduled = conditions(status, "PodScheduled");
    if let Some(condition) = scheduled.filter(|condition| condition.status == "False") {
        let reason = condition.reason.as_deref().unwrap_or("Unschedulable");
        let message = condition.message.as_deref().unwrap_or_default();
        return Some(Waiting {
            cause: WaitingCause::Scheduling,
            text: sentence(reason, message),
        });
    }
    let mut found: Option<Waiting> = None;
    for container in all_statuses(status) {
        let Some(waiting) = container.state.as_ref().and_then(|state| state.waiting.as_ref()) else {
            continue;
        };
        let Some(reason) = waiting.reason.as_deref() else {
            continue;
        };
        let cause = match reason {
            "ErrImagePull"
            | "ImagePullBackOff"
            | "RegistryUnavailable"
            | "ImageInspectError"
            | "SignatureValidationFailed" => WaitingCause::Image,
            "InvalidImageName" | "ErrImageNeverPull" | "CreateContainerConfigError" => WaitingCause::Never,
            "ContainerCreating" | "PodInitializing" => continue,
            _ => WaitingCause::Other,
        };
        let image = matches!(cause, WaitingCause::Image | WaitingCause::Never);
        let image = if image && !container.image.is_empty() && reason != "CreateContainerConfigError" {
            format!(" (container {}, image {})", container.name, container.image)
        } else {
            format!(" (container {})", container.name)
        };
        let next = Waiting {
            cause,
            text: format!(
                "{}{image}",
                sentence(reason, waiting.message.as_deref().unwrap_or_default())
            ),
        };
        // What can never work outweighs what may.
        if found.as_ref().is_none_or(|found| rank(next.cause) > rank(found.cause)) {
            found = Some(next);
        }
    }
    found
}

fn rank(cause: WaitingCause) -> u8 {
    match cause {
        WaitingCause::Never => 3,
        WaitingCause::Image => 2,
        WaitingCause::Scheduling => 1,
        WaitingCause::Other => 0,
    }
}

fn sentence(reason: &str, message: &str) -> String {
    let message = message.trim().trim_end_matches('.');
    if message.is_empty() {
        reason.to_owned()
    } else {
        format!("{reason}: {message}")
    }
}

#[cfg(test)]
#[path = "explain_tests.rs"]
mod tests;
