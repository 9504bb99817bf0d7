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
    /// The results that stand in the journal of each disk: no other may be published by who has it.
    recorded_results: BTreeMap<(u64, TaskId), Bytes>,
    /// Tasks of which a record could not be written: what only the journal could know may be forgotten.
    unrecorded: BTreeSet<TaskId>,
    /// Tasks that somebody cancelled: one may begin while the word of that is on its way.
    cancelled: BTreeSet<TaskId>,
    /// Tasks that an agent called off in a block: one may begin there while the word of that is on its way.
    called_off: BTreeSet<(TaskId, BlockId)>,
    /// Tasks that two agents at once had run, neither of which could know of the other's run.
    run_by_two: BTreeSet<TaskId>,
    /// When a block's silent worker was last given up.
    given_up: BTreeMap<BlockId, Time>,
    /// Runs or results that differ because two faults left no choice.
    pub(crate) excused: u64,
}

/// An agent, as far as it matters for what it could know of what another did.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Author {
    /// Its engine's.
    pub(crate) epoch: u64,
    /// What is on another's disk it does not know.
    pub(crate) disk: u64,
    /// What another does from then on it is not told by the queue: each has had the task from it.
    pub(crate) held_since: Option<Time>,
}

impl Author {
    /// What this other agent did at that time was done while this one held the queue, or had lost it to it.
    fn overlaps(&self, other: Self, at: Time) -> bool {
        self.disk != other.disk && self.held_since.is_some_and(|since| at >= since)
    }
}

/// A run that begins.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Beginning {
    pub(crate) task: TaskId,
    pub(crate) number: u64,
    pub(crate) block: BlockId,
    pub(crate) attempt: u32,
    /// The agent that the worker is with.
    pub(crate) author: Author,
    /// The task was acknowledged, so that it came by a second message. That it was settled is known to the agent that
    /// settled it, and to the worker that ran it.
    pub(crate) acknowledged: bool,
}

/// One run of a task in a worker.
#[derive(Debug, Clone)]
struct Run {
    number: u64,
    block: BlockId,
    attempt: u32,
    began: Time,
    /// The agent that its worker was with.
    author: Author,
    /// The disk whose journal has its start.
    recorded: Option<u64>,
    /// The disk of the agent that told its worker to forget it: what that one knows of it no worker can say any more.
    forgotten_for: Option<u64>,
    end: RunEnd,
}

impl Run {
    /// An agent with this disk could not know of it: its worker was told to forget it by an agent with another.
    fn is_forgotten_for_another(&self, disk: u64) -> bool {
        self.forgotten_for.is_some_and(|forgotten_for| forgotten_for != disk)
    }
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
    author: Author,
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

    pub(crate) fn called_off(&mut self, task: TaskId, block: BlockId) {
        self.called_off.insert((task, block));
    }

    pub(crate) fn forgotten(&mut self, task: TaskId, block: BlockId, attempt: u32, disk: u64) {
        for run in self.runs.entry(task).or_default() {
            if run.block == block && run.attempt == attempt {
                run.forgotten_for = Some(disk);
            }
        }
    }

    pub(crate) fn unrecorded(&mut self, task: TaskId) {
        self.unrecorded.insert(task);
    }

    pub(crate) fn result_recorded(&mut self, task: TaskId, body: &Bytes, disk: u64) {
        self.recorded_results
            .entry((disk, task))
            .or_insert_with(|| body.clone());
    }

    pub(crate) fn start_recorded(&mut self, task: TaskId, block: BlockId, attempt: u32, disk: u64) {
        for run in self.runs.entry(task).or_default() {
            if run.block == block && run.attempt == attempt {
                run.recorded = Some(disk);
            }
        }
    }

    /// A worker begins a task. That is right only if every run before is over for the agent: its executor died, its block
    /// is gone, or its worker was silent for too long; and if the agent knew of its start, it must have counted it.
    pub(crate) fn run_begins(&mut self, beginning: Beginning, now: Time, max_attempt: u32) {
        let Beginning {
            task,
            number,
            block,
            attempt,
            author,
            acknowledged,
        } = beginning;
        if attempt > max_attempt {
            self.violate(format!(
                "task {task} is begun as attempt {attempt}, and only {max_attempt} are allowed"
            ));
        }
        let mut complaint = None;
        let unrecorded = self.unrecorded.contains(&task);
        let runs = self.runs.entry(task).or_default();
        // Numbers of attempts are those of a disk: of two that one has recorded, only the later one's result may be used.
        let latest = runs.iter().filter(|run| run.recorded == Some(author.disk));
        let latest = latest.map(|run| run.attempt).max();
        for run in runs {
            let given_up = self.given_up.get(&run.block).is_some_and(|at| *at >= run.began);
            let over = match run.end {
                RunEnd::Running | RunEnd::Finished => given_up,
                RunEnd::Died | RunEnd::Cancelled | RunEnd::Lost => true,
            };
            let counted = run.recorded != Some(author.disk) || run.attempt < attempt || unrecorded;
            if !over {
                let superseded = latest.is_some_and(|latest| run.attempt < latest);
                let by_two = author.overlaps(run.author, run.began)
                    || run.is_forgotten_for_another(author.disk)
                    || author.disk != run.author.disk && (acknowledged || superseded);
                if by_two {
                    self.run_by_two.insert(task);
                }
                if unrecorded || by_two {
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
            self.check_run_after_result(&beginning, now);
        }
        let run = Run {
            number,
            block,
            attempt,
            began: now,
            author,
            recorded: None,
            forgotten_for: None,
            end: RunEnd::Running,
        };
        self.runs.entry(task).or_default().push(run);
    }

    /// A task that the broker has a result of is begun: only if nobody alive could know of that result.
    fn check_run_after_result(&mut self, beginning: &Beginning, now: Time) {
        let Beginning {
            task,
            block,
            author,
            acknowledged,
            ..
        } = *beginning;
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
        // The agent that made it, or settled it, has the word of it on another disk; or it was published by another meanwhile.
        let on_other_disk = first.author.disk != author.disk && (first.block.is_none() || acknowledged);
        let mut runs = self.runs.get(&task).into_iter().flatten();
        let forgotten = runs.any(|run| Some(run.block) == first.block && run.is_forgotten_for_another(author.disk));
        let unknown = on_other_disk || forgotten || author.overlaps(first.author, first.at);
        let cancelled = self.cancelled.contains(&task) || self.called_off.contains(&(task, block));
        if lost || unknown || cancelled || self.unrecorded.contains(&task) {
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
    pub(crate) fn result(&mut self, task: TaskId, body: &Bytes, block: Option<BlockId>, author: Author, now: Time) {
        if self
            .recorded_results
            .get(&(author.disk, task))
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
                    author,
                    at: now,
                    block,
                },
            );
            return;
        };
        if first.body == *body {
            return;
        }
        let (before, at) = (first.author, first.at);
        let excused = match first.block {
            Some(block) => author.epoch != before.epoch && self.holder_is_away(task, block, at),
            None => false,
        };
        if excused || self.is_of_two(task, (before, first.block), (author, block)) || self.unrecorded.contains(&task) {
            self.excused += 1;
        } else {
            let show = |body: &Bytes| String::from_utf8_lossy(body).trim_end_matches('\0').to_owned();
            let complaint = format!(
                "two results of task {task}: {:?} of engine {}, and {:?} of engine {}",
                show(&first.body),
                before.epoch,
                show(body),
                author.epoch
            );
            self.violate(complaint);
        }
    }

    /// Whether two results are of two agents neither of which could know of the other's: one was in hand when its agent
    /// lost the queue. An engine's own result is known to its disk alone; a worker's to its worker, which is gone, or which
    /// one of the two had given up; or both had the task run at once.
    fn is_of_two(&self, task: TaskId, first: (Author, Option<BlockId>), second: (Author, Option<BlockId>)) -> bool {
        if first.0.disk == second.0.disk {
            return false;
        }
        let (Some(one), Some(other)) = (first.1, second.1) else {
            return true;
        };
        let is_away = |block: BlockId| {
            let runs = self.runs.get(&task).into_iter().flatten();
            let mut runs = runs.filter(|run| run.block == block);
            let given_up = self.given_up.get(&block);
            runs.any(|run| run.end == RunEnd::Lost || given_up.is_some_and(|at| *at >= run.began))
        };
        self.run_by_two.contains(&task) || is_away(one) || is_away(other)
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
