//! The supervisor's decisions: a state machine over tasks and slots. No I/O, no clock: events come in with the time,
//! actions come out.
//!
//! After each batch of [`Machine::handle`] call [`Machine::settle`], which hands out work and asks for more, then carry
//! out [`Machine::take_actions`].

mod appetite;
mod handle;
mod kept;
mod settle;
mod slot;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::time::Duration;

use bytes::Bytes;
use uuid::Uuid;
use waypost_link::{Cause, Failure, Held, HeldState, Outcome, ToAgent, ToWorker};

use appetite::Appetite;
use kept::Settled;
use slot::{Slot, SlotState};

/// Time since the worker started.
pub(crate) type Time = Duration;

/// How long a task that goes on after `GC_TASK_TIMEOUT` was raised in it is borne.
const TIMEOUT_GRACE: Duration = Duration::from_secs(5);
/// How long results that are not settled are waited for after the grace of a drain.
const FLUSH_GRACE: Duration = Duration::from_secs(5);
/// A process closes its channel a little before its end is told. If the end is not told within this time it has closed
/// the channel and lives on.
const END_DELAY: Duration = Duration::from_secs(1);
/// So many attempts to make an executor fail in a row before the tasks that wait for it do.
const START_FAILURES_MAX: u32 = 5;
/// The part of the memory limit above which an executor is ended, in percent.
const MEMORY_THRESHOLD_PERCENT: u64 = 95;
/// Cancellations of tasks that have not arrived are remembered, this many at most.
const EARLY_CANCELS_MAX: usize = 1_000;

/// What does not change while the worker runs.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    pub(crate) slots: u32,
    /// `GC_TASK_TIMEOUT`, if it is set.
    pub(crate) task_timeout: Option<Duration>,
    /// With more than this in unsettled results, in bytes, no further tasks are asked for.
    pub(crate) held_bytes_max: usize,
    /// What an executor may have of the memory, in bytes; the limit by slots if it is not given.
    pub(crate) memory_per_slot: Option<u64>,
}

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ending {
    /// By a signal.
    Signal(i32),
    /// By itself, with an exit code.
    Exit(i32),
    /// By the kernel, for want of memory, with the worker's limit in bytes.
    OutOfMemory { limit: u64 },
}

/// What an executor has in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SlotMemory {
    pub(crate) slot: u32,
    /// Resident now, with its children, in bytes.
    pub(crate) resident: u64,
    /// The most its own process ever had resident, in bytes.
    pub(crate) peak: u64,
}

/// Something that happened.
#[derive(Debug)]
pub(crate) enum Event {
    /// An agent said welcome; it may be sent this many bytes of results.
    Connected { result_credit: u64 },
    /// The connection to it is gone.
    Disconnected,
    /// It said something.
    Agent(ToWorker),
    /// An executor has finished its task.
    Answer {
        slot: u32,
        generation: u64,
        outcome: Outcome,
        run_time_ns: u64,
        body: Bytes,
    },
    /// The warm process has forked an executor.
    Started { slot: u32, generation: u64, process: i32 },
    /// It could not.
    CannotStart { slot: u32, generation: u64, reason: String },
    /// An executor closed its channel, or wrote what is no answer.
    ChannelLost { slot: u32, generation: u64 },
    /// A process ended; `output` is what its task printed last.
    Exited {
        process: i32,
        ending: Ending,
        output: String,
    },
    /// The memory in use, of the limit.
    Memory {
        used: u64,
        limit: u64,
        slots: Vec<SlotMemory>,
    },
    /// The worker is to end: SIGTERM.
    Terminate { grace: Duration },
    /// Time has passed.
    Tick,
}

/// Something to do.
#[derive(Debug, PartialEq)]
pub(crate) enum Action {
    /// Tell the agent.
    Send(ToAgent),
    /// Have an executor made for a slot.
    Start { slot: u32, generation: u64 },
    /// Give a task to a slot's executor.
    Give {
        slot: u32,
        task: Uuid,
        serializers: Vec<String>,
        body: Bytes,
    },
    /// Kill an executor with all its session.
    Kill { process: i32 },
    /// Nothing is left to do. `lost` results were not settled in time.
    End { lost: usize },
}

/// A task that waits for a slot.
#[derive(Debug)]
struct Waiting {
    task: Uuid,
    attempt: u32,
    serializers: Vec<String>,
    body: Bytes,
}

/// How far a task is here.
#[derive(Debug)]
enum Progress {
    Waiting,
    Running,
    /// With its place in the order in which tasks finished.
    Finished(u64),
}

#[derive(Debug)]
struct Task {
    attempt: u32,
    progress: Progress,
}

#[derive(Debug)]
struct Drain {
    /// When running tasks are ended.
    deadline: Time,
    /// Set once they were.
    flush_until: Option<Time>,
}

/// The supervisor's state.
#[derive(Debug)]
pub(crate) struct Machine {
    settings: Settings,
    slots: Vec<Slot>,
    tasks: HashMap<Uuid, Task>,
    waiting: VecDeque<Waiting>,
    /// What became of tasks, oldest first, until it is settled.
    results: BTreeMap<u64, ToAgent>,
    results_bytes: usize,
    next_result: u64,
    /// The results from this place on have not been sent on this connection.
    unsent: u64,
    settled: Settled,
    early_cancels: VecDeque<(Uuid, u32)>,
    connection: Option<Connection>,
    /// The tasks that were named when the worker said hello, until the answer.
    greeted: Vec<(Uuid, u32)>,
    appetite: Appetite,
    drain: Option<Drain>,
    ended: bool,
    actions: Vec<Action>,
}

#[derive(Debug)]
struct Connection {
    /// Bytes of results that may be sent; may go below zero by one result.
    result_credit: i128,
    /// Tasks that were asked for and have not come.
    asked: u32,
    told_draining: bool,
}

impl Machine {
    /// A worker that has just started.
    pub(crate) fn new(settings: Settings) -> Self {
        let slots = (0..settings.slots).map(|_| Slot::new()).collect();
        let appetite = Appetite::new(settings.slots);
        Self {
            settings,
            slots,
            tasks: HashMap::new(),
            waiting: VecDeque::new(),
            results: BTreeMap::new(),
            results_bytes: 0,
            next_result: 0,
            unsent: 0,
            settled: Settled::default(),
            early_cancels: VecDeque::new(),
            connection: None,
            greeted: Vec::new(),
            appetite,
            drain: None,
            ended: false,
            actions: Vec::new(),
        }
    }

    /// What is to be done, in order.
    pub(crate) fn take_actions(&mut self) -> Vec<Action> {
        std::mem::take(&mut self.actions)
    }

    /// The tasks to name in a hello: those that are here, and those that were settled.
    pub(crate) fn held(&mut self, now: Time) -> (Vec<Held>, Vec<Uuid>) {
        let held: Vec<_> = self
            .tasks
            .iter()
            .map(|(task, entry)| Held {
                task: *task,
                attempt: entry.attempt,
                state: match entry.progress {
                    Progress::Waiting => HeldState::Waiting,
                    Progress::Running => HeldState::Running,
                    Progress::Finished(_) => HeldState::Finished,
                },
            })
            .collect();
        self.greeted = held.iter().map(|held| (held.task, held.attempt)).collect();
        (held, self.settled.list(now))
    }

    /// The slot whose executor has this process id.
    pub(crate) fn slot_of(&self, process: i32) -> Option<u32> {
        let position = self.slots.iter().position(|slot| slot.process == Some(process))?;
        u32::try_from(position).ok()
    }

    /// The executors that are known, with their slots.
    pub(crate) fn executors(&self) -> impl Iterator<Item = (u32, i32)> {
        (0u32..)
            .zip(&self.slots)
            .filter_map(|(number, slot)| Some((number, slot.process?)))
    }

    /// True while an executor is being made whose process id is not known yet.
    pub(crate) fn is_starting_any(&self) -> bool {
        self.slots.iter().any(|slot| matches!(slot.state, SlotState::Starting))
    }

    /// True if any slot has a task.
    pub(crate) fn is_busy(&self) -> bool {
        self.slots
            .iter()
            .any(|slot| matches!(slot.state, SlotState::Busy { .. }))
    }

    /// When [`Event::Tick`] is due at the latest.
    pub(crate) fn deadline(&self) -> Option<Time> {
        if self.ended {
            return None;
        }
        let ends = self
            .slots
            .iter()
            .filter_map(|slot| slot.end_due.filter(|_| slot.doom.is_none()));
        let slots = self.slots.iter().filter_map(|slot| match &slot.state {
            SlotState::Broken { retry_at } => Some(*retry_at).filter(|_| self.drain.is_none()),
            SlotState::Busy { since, .. } if slot.doom.is_none() => self
                .settings
                .task_timeout
                .map(|timeout| *since + timeout + TIMEOUT_GRACE),
            SlotState::Busy { .. } | SlotState::Starting | SlotState::Idle | SlotState::Leaving => None,
        });
        let drain = self
            .drain
            .as_ref()
            .map(|drain| drain.flush_until.unwrap_or(drain.deadline));
        ends.chain(slots).chain(drain).min()
    }

    fn finish(&mut self, now: Time, task: Uuid, result: ToAgent) {
        if self.settled.contains(&task, now) {
            // Another worker's result was published meanwhile; the first is final.
            self.tasks.remove(&task);
            return;
        }
        let place = self.next_result;
        self.next_result += 1;
        if let Some(entry) = self.tasks.get_mut(&task) {
            entry.progress = Progress::Finished(place);
        }
        self.results_bytes += size(&result);
        self.results.insert(place, result);
    }

    fn fail(&mut self, now: Time, task: Uuid, attempt: u32, cause: Cause, output: String) {
        let failure = Box::new(Failure { cause, output });
        self.finish(now, task, ToAgent::Failed { task, attempt, failure });
    }
}

/// What a result takes of the agent's credit, in bytes.
fn size(result: &ToAgent) -> usize {
    if let ToAgent::Finished { body, .. } = result {
        body.len()
    } else {
        0
    }
}
