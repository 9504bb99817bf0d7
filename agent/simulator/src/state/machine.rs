use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bytes::Bytes;
use waypost_engine::{BlockState, ExecutorExit, TaskId, Time, WorkerId};

/// A block and the worker in it.
#[derive(Debug, Default)]
pub(crate) struct Machine {
    /// The platform has it.
    pub(crate) exists: bool,
    /// The worker's side of its link.
    pub(crate) session: Option<WorkerId>,
    /// The life of the agent that its present link, or the last, is with.
    pub(crate) agent: u64,
    pub(crate) dial: u64,
    pub(crate) redials: u32,
    pub(crate) unreachable_until: Option<Time>,
    /// Since when no agent has had its link, or has at least answered that it serves not here.
    pub(crate) silent_since: Option<Time>,
    pub(crate) queue: VecDeque<(TaskId, u32)>,
    pub(crate) running: BTreeMap<u64, Running>,
    pub(crate) held: BTreeMap<TaskId, Held>,
    pub(crate) settled: BTreeSet<TaskId>,
    pub(crate) credit: u32,
    pub(crate) result_credit: i64,
    pub(crate) unsent: VecDeque<TaskId>,
    pub(crate) draining: bool,
    /// The agent has answered the hello with all that it has to say to it: results may be sent.
    pub(crate) heard: bool,
    /// The node that it is on, once it was placed.
    pub(crate) node: Option<u32>,
    /// What the platform says of it.
    pub(crate) state: Option<BlockState>,
    /// Its node is gone: the platform has it on record, and can neither end it nor say more.
    pub(crate) on_lost_node: bool,
    /// Nothing of it lives, though the platform does not know.
    pub(crate) dead: bool,
    /// Since when it has had nothing to do.
    pub(crate) idle_since: Time,
    /// Tasks that were cancelled or asked back before they came.
    pub(crate) early: BTreeSet<(TaskId, u32)>,
    pub(crate) clock: Time,
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct Running {
    pub(crate) task: TaskId,
    pub(crate) attempt: u32,
    pub(crate) slot: u32,
}

/// What a worker keeps of a task that ended.
#[derive(Debug, Clone)]
pub(crate) struct Held {
    pub(crate) attempt: u32,
    /// The result, or nothing if the executor died.
    pub(crate) body: Option<Bytes>,
    pub(crate) how: ExecutorExit,
}

impl Machine {
    /// One that was made just now; no agent has heard of it.
    pub(crate) fn new(now: Time) -> Self {
        Self {
            exists: true,
            silent_since: Some(now),
            ..Self::default()
        }
    }

    /// Nothing of it lives, and the platform has it on record.
    pub(crate) fn die_unseen(&mut self) {
        *self = Self {
            exists: true,
            dead: true,
            on_lost_node: true,
            node: self.node,
            state: self.state.take(),
            silent_since: self.silent_since,
            ..Self::default()
        };
    }

    pub(crate) fn is_done(&self) -> bool {
        self.queue.is_empty() && self.running.is_empty() && self.held.is_empty()
    }

    pub(crate) fn has(&self, task: TaskId) -> bool {
        self.held.contains_key(&task)
            || self.running.values().any(|run| run.task == task)
            || self.queue.iter().any(|(queued, _)| *queued == task)
    }

    pub(crate) fn is_busy(&self) -> bool {
        !self.is_done()
    }
}
