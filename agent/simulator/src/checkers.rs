//! They observe, and never steer: each is told what happened and says whether that may be.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bytes::Bytes;
use waypost_engine::{BlockId, CauseKind, Event, Output, TaskId, Time};

/// What is known of the runs and results of every task, and the first thing that should not have happened.
#[derive(Debug, Default)]
pub(crate) struct Checkers {
    pub(crate) violation: Option<String>,
    runs: BTreeMap<TaskId, Vec<Run>>,
    first_results: BTreeMap<TaskId, FirstResult>,
    /// The results that stand in the journal: no other may be published.
    recorded_results: BTreeMap<TaskId, Bytes>,
    /// Tasks of which a record could not be written: what only the journal could know may be forgotten.
    unrecorded: BTreeSet<TaskId>,
    /// Tasks that somebody cancelled: one may begin while the word of that is on its way.
    cancelled: BTreeSet<TaskId>,
    /// When a block's silent worker was last given up.
    given_up: BTreeMap<BlockId, Time>,
    /// Runs or results that differ because two faults left no choice.
    pub(crate) excused: u64,
}

/// One run of a task in a worker.
#[derive(Debug, Clone)]
struct Run {
    number: u64,
    block: BlockId,
    attempt: u32,
    began: Time,
    /// The journal has its start.
    recorded: bool,
    end: RunEnd,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum RunEnd {
    Running,
    /// Its worker has its result.
    Finished,
    /// Its executor died, and its worker knows.
    Died,
    /// It was cancelled.
    Cancelled,
    /// Its block is gone, with whatever it made.
    Lost,
}

#[derive(Debug)]
struct FirstResult {
    body: Bytes,
    life: u64,
    at: Time,
    /// The block that made it; `None`: the engine did.
    block: Option<BlockId>,
}

impl Checkers {
    pub(crate) fn violate(&mut self, what: String) {
        self.violation.get_or_insert(what);
    }

    /// An acknowledgement reached the broker.
    pub(crate) fn acknowledged(&mut self, task: TaskId, has_result: bool, in_journal: bool) {
        if !has_result && !in_journal {
            self.violate(format!(
                "task {task} was acknowledged, and neither the broker nor the journal has anything of it"
            ));
        }
    }

    /// The broker dropped a message that had come back too often. That is the doing of what broke its channels, if the
    /// engine did not refresh it again and again: it learns from the first time that the broker counts.
    pub(crate) fn dropped(&mut self, task: TaskId, refreshed: u64, deliveries: u64) {
        if refreshed > 1 {
            self.violate(format!(
                "the broker dropped task {task} after {deliveries} deliveries, of which {refreshed} were to refresh it"
            ));
        }
    }

    pub(crate) fn cancelled(&mut self, task: TaskId) {
        self.cancelled.insert(task);
    }

    pub(crate) fn unrecorded(&mut self, task: TaskId) {
        self.unrecorded.insert(task);
    }

    pub(crate) fn result_recorded(&mut self, task: TaskId, body: &Bytes) {
        self.recorded_results.entry(task).or_insert_with(|| body.clone());
    }

    pub(crate) fn start_recorded(&mut self, task: TaskId, block: BlockId, attempt: u32) {
        for run in self.runs.entry(task).or_default() {
            run.recorded |= run.block == block && run.attempt == attempt;
        }
    }

    /// A worker begins a task. That is right only if every run before is over for the agent: its executor died, its block
    /// is gone, or its worker was silent for too long; and if the agent knew of its start, it must have counted it.
    pub(crate) fn run_begins(
        &mut self,
        task: TaskId,
        number: u64,
        block: BlockId,
        attempt: u32,
        now: Time,
        max_attempt: u32,
    ) {
        if attempt > max_attempt {
            self.violate(format!(
                "task {task} is begun as attempt {attempt}, and only {max_attempt} are allowed"
            ));
        }
        let mut complaint = None;
        let unrecorded = self.unrecorded.contains(&task);
        for run in self.runs.entry(task).or_default() {
            let given_up = self.given_up.get(&run.block).is_some_and(|at| *at >= run.began);
            let over = match run.end {
                RunEnd::Running | RunEnd::Finished => given_up,
                RunEnd::Died | RunEnd::Cancelled | RunEnd::Lost => true,
            };
            let counted = !run.recorded || run.attempt < attempt || unrecorded;
            if !over {
                if unrecorded {
                    self.excused += 1;
                    continue;
                }
                complaint = Some(format!(
                    "task {task} is begun in block {block} while its run {} in block {} is {:?} and was not given up",
                    run.number, run.block, run.end
                ));
            } else if !counted {
                complaint = Some(format!(
                    "task {task} is begun again as attempt {attempt} in block {block}, and its start as attempt {} in block \
                     {} was on record",
                    run.attempt, run.block
                ));
            }
        }
        if let Some(complaint) = complaint {
            self.violate(complaint);
        }
        if self.first_results.contains_key(&task) {
            self.check_run_after_result(task, now);
        }
        let run = Run {
            number,
            block,
            attempt,
            began: now,
            recorded: false,
            end: RunEnd::Running,
        };
        self.runs.entry(task).or_default().push(run);
    }

    /// A task that the broker has a result of is begun: only if nobody alive could know of that result.
    fn check_run_after_result(&mut self, task: TaskId, now: Time) {
        let Some(first) = self.first_results.get(&task) else {
            return;
        };
        // If its worker had been given up before it made the result known, the word that it has is on its way.
        let began = |block| {
            let runs = self.runs.get(&task).into_iter().flatten();
            runs.filter(|run| run.block == block)
                .map(|run| run.began)
                .min()
                .unwrap_or(first.at)
        };
        let lost = first
            .block
            .is_some_and(|block| self.holder_is_away(task, block, began(block)));
        if lost || self.unrecorded.contains(&task) || self.cancelled.contains(&task) {
            self.excused += 1;
        } else {
            self.violate(format!(
                "task {task} is begun at {now:?} though the broker has a result of it"
            ));
        }
    }

    /// The worker that made a result is gone, or has been given up since.
    fn holder_is_away(&self, task: TaskId, block: BlockId, since: Time) -> bool {
        let gone = self
            .runs
            .get(&task)
            .is_some_and(|runs| runs.iter().any(|run| run.block == block && run.end == RunEnd::Lost));
        gone || self.given_up.get(&block).is_some_and(|at| *at >= since)
    }

    pub(crate) fn run_ends(&mut self, task: TaskId, number: u64, died: bool) {
        self.end_run(task, number, if died { RunEnd::Died } else { RunEnd::Finished });
    }

    pub(crate) fn run_cancelled(&mut self, task: TaskId, number: u64) {
        self.end_run(task, number, RunEnd::Cancelled);
    }

    fn end_run(&mut self, task: TaskId, number: u64, end: RunEnd) {
        for run in self.runs.entry(task).or_default() {
            if run.number == number {
                run.end = end;
            }
        }
    }

    pub(crate) fn block_gone(&mut self, block: BlockId) {
        for run in self.runs.values_mut().flatten() {
            if run.block == block {
                run.end = RunEnd::Lost;
            }
        }
    }

    /// The engine gave a worker up: only if it was silent for as long as it may be.
    pub(crate) fn given_up(&mut self, block: BlockId, now: Time, silent_for: Duration, grace: Duration) {
        if silent_for < grace {
            self.violate(format!(
                "block {block} was given up after {silent_for:?}, and the grace is {grace:?}"
            ));
        }
        self.given_up.insert(block, now);
    }

    /// The broker took a result. Every result of a task is the same, byte for byte, unless the agent that published the
    /// first was ended before the confirm and the worker that held it is gone, too.
    pub(crate) fn result(&mut self, task: TaskId, body: &Bytes, block: Option<BlockId>, life: u64, now: Time) {
        if self
            .recorded_results
            .get(&task)
            .is_some_and(|recorded| recorded != body)
            && !self.unrecorded.contains(&task)
        {
            self.violate(format!(
                "a result of task {task} was published that is not the one in the journal"
            ));
        }
        let Some(first) = self.first_results.get(&task) else {
            self.first_results.insert(
                task,
                FirstResult {
                    body: body.clone(),
                    life,
                    at: now,
                    block,
                },
            );
            return;
        };
        if first.body == *body {
            return;
        }
        let (first_life, at) = (first.life, first.at);
        let excused = match first.block {
            Some(block) => life != first_life && self.holder_is_away(task, block, at),
            None => false,
        };
        if excused || self.unrecorded.contains(&task) {
            self.excused += 1;
        } else {
            let show = |body: &Bytes| String::from_utf8_lossy(body).trim_end_matches('\0').to_owned();
            let complaint = format!(
                "two results of task {task}: {:?} of life {first_life}, and {:?} of life {life}",
                show(&first.body),
                show(body)
            );
            self.violate(complaint);
        }
    }

    /// When tasks are said to be told that no block starts, they are told.
    pub(crate) fn check_told(&mut self, outputs: &[Output]) {
        for (index, output) in outputs.iter().enumerate() {
            let Output::Event(Event::CircuitOpened { tasks, .. }) = output else {
                continue;
            };
            let told = |output: &&Output| {
                matches!(
                    output,
                    Output::Event(Event::TaskFailed {
                        cause: CauseKind::NoBlockStarts,
                        ..
                    })
                )
            };
            let count = outputs.iter().skip(index).filter(told).count();
            if count != *tasks {
                self.violate(format!("{tasks} tasks wait for a block in vain, and {count} were told"));
            }
        }
    }

    /// The broker closed the channel because of an overdue delivery.
    pub(crate) fn consumer_timeout(&mut self, known: bool) {
        if known {
            self.violate("a delivery was overdue, though the agent knew the consumer timeout".into());
        }
    }
}
