//! From what the engine says of itself to metrics, log lines and status.

mod blocks;
mod tasks;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use endpoint_provider::{BlockDetails, BlockNames};
use endpoint_telemetry::{self as telemetry, BlockState, BlockWait, Label as _, Metrics, Share, SlotState, TaskState};
use waypost_engine::{BlockId, Event, TaskId, Time, Waiting, WaitingCause, WorkerId};

use super::status::BlockStatus;

/// Where a task is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// Not begun: here, or with a worker whose slots are all busy.
    Waiting {
        since: Time,
    },
    Running {
        block: BlockId,
    },
    Finished,
}

#[derive(Debug, Clone)]
struct Block {
    details: Option<BlockDetails>,
    waiting: Option<Waiting>,
    state: BlockState,
    worker: Option<WorkerId>,
    slots: u32,
    busy: usize,
    said_busy: bool,
    idle_since: Time,
}

/// Follows one user endpoint by its engine's events.
pub(super) struct Observer {
    names: BlockNames,
    metrics: Arc<Metrics>,
    tasks: BTreeMap<TaskId, Phase>,
    blocks: BTreeMap<BlockId, Block>,
    /// Some block has work that had none, or none any more.
    changed: bool,
    waiting: u64,
    running: u64,
    finished: u64,
    received: u64,
    settled: u64,
    last_error: Option<String>,
    broker_error: Option<String>,
    task_share: Share<TaskState>,
    block_share: Share<BlockState>,
    wait_share: Share<BlockWait>,
    slot_share: Share<SlotState>,
}

/// The figures of one moment.
#[derive(Debug, Clone, Default)]
pub(super) struct Figures {
    pub(super) waiting: u64,
    pub(super) running: u64,
    pub(super) held: u64,
    pub(super) received: u64,
    pub(super) settled: u64,
    pub(super) slots: usize,
    pub(super) busy: usize,
    pub(super) workers: usize,
    pub(super) workers_taking: usize,
}

impl Observer {
    pub(super) fn new(names: BlockNames, metrics: Arc<Metrics>) -> Self {
        Self {
            names,
            tasks: BTreeMap::new(),
            blocks: BTreeMap::new(),
            changed: false,
            waiting: 0,
            running: 0,
            finished: 0,
            received: 0,
            settled: 0,
            last_error: None,
            broker_error: None,
            task_share: metrics.tasks.share(),
            block_share: metrics.blocks.share(),
            wait_share: metrics.blocks_waiting.share(),
            slot_share: metrics.slots.share(),
            metrics,
        }
    }

    pub(super) fn last_error(&self) -> Option<String> {
        self.broker_error.clone().or_else(|| self.last_error.clone())
    }

    /// Remembers why there is no broker, for status, until there is one.
    pub(super) fn note_broker_error(&mut self, error: String) {
        self.broker_error = Some(error);
    }

    /// The broker is there.
    pub(super) fn clear_broker_error(&mut self) {
        self.broker_error = None;
    }

    /// Remembers what went wrong, for status.
    pub(super) fn note_error(&mut self, error: String) {
        self.last_error = Some(error);
    }

    /// Forgets all tasks and blocks: they are another agent's.
    pub(super) fn forget(&mut self) {
        self.tasks.clear();
        self.blocks.clear();
        (self.waiting, self.running, self.finished) = (0, 0, 0);
    }

    /// The figures of now. The gauges follow.
    pub(super) fn figures(&mut self) -> Figures {
        let mut by_state: BTreeMap<BlockState, u64> = BTreeMap::new();
        let mut by_wait: BTreeMap<BlockWait, u64> = BTreeMap::new();
        let (mut slots, mut workers, mut taking) = (0, 0, 0);
        for block in self.blocks.values() {
            *by_state.entry(block.state).or_default() += 1;
            if let Some(waiting) = &block.waiting {
                *by_wait.entry(wait_label(waiting.cause)).or_default() += 1;
            }
            if block.worker.is_some() {
                workers += 1;
                slots += usize::try_from(block.slots).unwrap_or(usize::MAX);
                taking += usize::from(block.state == BlockState::Running);
            }
        }
        for state in [
            BlockState::Starting,
            BlockState::Running,
            BlockState::Lost,
            BlockState::Draining,
        ] {
            self.block_share.set(state, by_state.get(&state).copied().unwrap_or(0));
        }
        for cause in BlockWait::ALL {
            self.wait_share.set(*cause, by_wait.get(cause).copied().unwrap_or(0));
        }
        let busy = self.blocks.values().map(|block| block.busy).sum::<usize>().min(slots);
        let count = |number: usize| u64::try_from(number).unwrap_or(u64::MAX);
        self.slot_share.set(SlotState::Busy, count(busy));
        self.slot_share.set(SlotState::Idle, count(slots - busy));
        self.task_share.set(TaskState::Waiting, self.waiting);
        self.task_share.set(TaskState::Running, self.running);
        self.task_share.set(TaskState::Finished, self.finished);
        Figures {
            waiting: self.waiting,
            running: self.running,
            held: self.waiting + self.running + self.finished,
            received: self.received,
            settled: self.settled,
            slots,
            busy,
            workers,
            workers_taking: taking,
        }
    }

    /// How many blocks there are.
    pub(super) fn block_count(&self) -> usize {
        self.blocks.len()
    }

    /// The blocks, for status.
    pub(super) fn blocks(&self) -> Vec<BlockStatus> {
        let status = |(block, of): (&BlockId, &Block)| BlockStatus {
            name: self.name(*block, of),
            state: telemetry::Label::value(of.state).to_owned(),
            slots: usize::try_from(of.slots).unwrap_or(usize::MAX),
            busy: of.busy,
            node: of.details.as_ref().and_then(|details| details.node.clone()),
            waiting: of.waiting.as_ref().map(|waiting| waiting.text.clone()),
        };
        self.blocks.iter().map(status).collect()
    }

    /// The blocks whose workers are connected: id, name, slots, and how long each has been idle.
    pub(super) fn connected(&self, now: Time) -> impl Iterator<Item = (BlockId, String, u32, Duration)> {
        self.blocks
            .iter()
            .filter(|(_, of)| of.worker.is_some())
            .map(move |(block, of)| {
                let idle = if of.busy == 0 {
                    now.since(of.idle_since)
                } else {
                    Duration::ZERO
                };
                (*block, self.name(*block, of), of.slots, idle)
            })
    }

    /// As the platform calls it, if it has said so: its name may begin with that of an earlier release.
    fn name(&self, block: BlockId, of: &Block) -> String {
        match &of.details {
            Some(details) => details.name.clone(),
            None => self.names.name(block),
        }
    }

    /// Nothing keeps a block from running any more.
    pub(super) fn runs(&mut self, block: BlockId) {
        if let Some(of) = self.blocks.get_mut(&block) {
            of.waiting = None;
        }
    }

    /// Takes in where a block is.
    pub(super) fn locate(&mut self, now: Time, block: BlockId, details: BlockDetails) {
        tracing::info!(name = details.name, node = details.node, %block, "block is placed");
        self.block(now, block).details = Some(details);
    }

    fn phase(&mut self, now: Time, task: TaskId, phase: Option<Phase>) {
        let before = match phase {
            Some(phase) => self.tasks.insert(task, phase),
            None => self.tasks.remove(&task),
        };
        if let Some(before) = before {
            *self.counter(before) -= 1;
            if let Phase::Running { block } = before
                && let Some(block) = self.blocks.get_mut(&block)
            {
                block.busy = block.busy.saturating_sub(1);
                block.idle_since = now;
                self.changed |= block.busy == 0;
            }
        }
        if let Some(phase) = phase {
            *self.counter(phase) += 1;
            if let Phase::Running { block } = phase
                && let Some(block) = self.blocks.get_mut(&block)
            {
                block.busy += 1;
                self.changed |= block.busy == 1;
            }
        }
    }

    /// The blocks that have work since the last call, or none any more.
    pub(super) fn busy_changes(&mut self) -> Vec<(BlockId, bool)> {
        if !std::mem::take(&mut self.changed) {
            return Vec::new();
        }
        let change = |(block, of): (&BlockId, &mut Block)| {
            let busy = of.busy > 0;
            (std::mem::replace(&mut of.said_busy, busy) != busy).then_some((*block, busy))
        };
        self.blocks.iter_mut().filter_map(change).collect()
    }

    const fn counter(&mut self, phase: Phase) -> &mut u64 {
        match phase {
            Phase::Waiting { .. } => &mut self.waiting,
            Phase::Running { .. } => &mut self.running,
            Phase::Finished => &mut self.finished,
        }
    }

    fn block(&mut self, now: Time, block: BlockId) -> &mut Block {
        self.blocks.entry(block).or_insert(Block {
            details: None,
            waiting: None,
            state: BlockState::Starting,
            worker: None,
            slots: 0,
            busy: 0,
            // A block that begins is not to be ended: the first task is on its way.
            said_busy: true,
            idle_since: now,
        })
    }

    /// Takes in one event.
    pub(super) fn observe(&mut self, now: Time, event: Event) {
        match event {
            Event::TaskAccepted { .. }
            | Event::TaskRedelivered { .. }
            | Event::SettledTaskRedelivered { .. }
            | Event::TaskDispatched { .. }
            | Event::TaskAdopted { .. }
            | Event::TaskStarted { .. }
            | Event::TaskFinished { .. }
            | Event::TaskRetried { .. }
            | Event::TaskFailed { .. }
            | Event::TaskRunTwice { .. }
            | Event::TaskRecalled { .. }
            | Event::TaskGivenBack { .. }
            | Event::DeliveryRefreshed { .. }
            | Event::PublishFailed { .. }
            | Event::ResultConfirmed { .. }
            | Event::ResultKept { .. }
            | Event::TaskSettled { .. } => self.observe_task(now, event),
            Event::WorkerJoined { .. }
            | Event::WorkerSilent { .. }
            | Event::WorkerGivenUp { .. }
            | Event::BlockStarting { .. }
            | Event::BlockStartFailed { .. }
            | Event::BlockWaiting { .. }
            | Event::BlockEnding { .. }
            | Event::CircuitOpened { .. }
            | Event::CircuitClosed
            | Event::BlockDraining { .. }
            | Event::BlockDeleting { .. }
            | Event::BlockEnded { .. } => self.observe_block(now, event),
            Event::JournalFailed { entries } => {
                tracing::error!(
                    entries,
                    "the journal could not be written: a restart may run these tasks again"
                );
            }
            Event::HeldBytesExceeded(true) => {
                tracing::info!("as many bytes of tasks and results are held as may be: taking one task at a time");
            }
            Event::HeldBytesExceeded(false) => tracing::info!("fewer bytes are held again than may be"),
            Event::RestartSettled { missing, tasks } => {
                tracing::info!(missing, tasks, "all blocks of the life before are accounted for");
            }
        }
    }
}

const fn wait_label(cause: WaitingCause) -> BlockWait {
    match cause {
        WaitingCause::Scheduling => BlockWait::Scheduling,
        WaitingCause::Image => BlockWait::Image,
        WaitingCause::Never => BlockWait::Misconfigured,
        WaitingCause::Other => BlockWait::Other,
    }
}
