use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bytes::Bytes;

use crate::{
    BlockId, ComposeFailure, Delivery, EntryId, Event, Input, JournalRecord, Output, PublishId, PublishOutcome,
    Settings, TaskId, Time, ToWorker, WorkerId,
};

/// The state machine.
pub struct Engine {
    settings: Settings,
    /// Used from the first failure on.
    _compose: Box<dyn ComposeFailure>,
    outputs: VecDeque<Output>,
    tasks: BTreeMap<TaskId, Task>,
    waiting: VecDeque<TaskId>,
    workers: BTreeMap<WorkerId, Worker>,
    publishes: BTreeMap<PublishId, TaskId>,
    entries: BTreeMap<EntryId, TaskId>,
    settled: BTreeSet<TaskId>,
    next: u64,
    started: bool,
}

struct Task {
    delivery: Delivery,
    worker: Option<WorkerId>,
    result: Option<Bytes>,
}

struct Worker {
    block: BlockId,
    credit: u32,
}

impl Engine {
    /// An engine that has seen nothing. `seed` decides the jitter of its back-offs.
    #[must_use]
    pub fn new(settings: Settings, _seed: u64, compose: Box<dyn ComposeFailure>) -> Self {
        Self {
            settings,
            _compose: compose,
            outputs: VecDeque::new(),
            tasks: BTreeMap::new(),
            waiting: VecDeque::new(),
            workers: BTreeMap::new(),
            publishes: BTreeMap::new(),
            entries: BTreeMap::new(),
            settled: BTreeSet::new(),
            next: 0,
            started: false,
        }
    }

    /// Takes in what earlier lives wrote into the journal, oldest first. Before the first input.
    pub fn restore(&mut self, _now: Time, records: impl IntoIterator<Item = JournalRecord>) {
        for record in records {
            if let JournalRecord::Settled { task, .. } = record {
                self.settled.insert(task);
            }
        }
    }

    /// Takes in one thing that happened at `now`. The outputs must be polled empty before the next.
    pub fn handle(&mut self, now: Time, input: Input) {
        #[expect(clippy::wildcard_enum_match_arm, reason = "the straight path first")]
        match input {
            Input::BlocksListed { .. } if !self.started => {
                self.started = true;
                for number in 0..self.settings.scaling.init_blocks.max(self.settings.scaling.min_blocks) {
                    let block = BlockId {
                        epoch: self.settings.epoch,
                        number,
                    };
                    self.outputs.push_back(Output::StartBlock { block });
                }
            }
            Input::WorkerHello { worker, block, .. } => {
                self.workers.insert(worker, Worker { block, credit: 0 });
                let message = ToWorker::ResultCredit { bytes: 64 << 20 };
                self.outputs.push_back(Output::Send { worker, message });
            }
            Input::WorkerCredit { worker, tasks } => {
                if let Some(worker) = self.workers.get_mut(&worker) {
                    worker.credit += tasks;
                }
                self.dispatch();
            }
            Input::Delivery(delivery) => {
                if self.settled.contains(&delivery.task) {
                    self.outputs.push_back(Output::Ack {
                        tag: delivery.tag,
                        multiple: false,
                    });
                    return;
                }
                if let Some(task) = self.tasks.get_mut(&delivery.task) {
                    task.delivery.tag = delivery.tag;
                    return;
                }
                self.outputs.push_back(Output::Event(Event::TaskAccepted {
                    task: delivery.task,
                    bytes: delivery.body.len(),
                    redelivered: delivery.redelivered,
                }));
                self.waiting.push_back(delivery.task);
                self.tasks.insert(
                    delivery.task,
                    Task {
                        delivery,
                        worker: None,
                        result: None,
                    },
                );
                self.dispatch();
            }
            Input::TaskStarted {
                task, attempt, worker, ..
            } => {
                if let Some(worker) = self.workers.get(&worker) {
                    let record = JournalRecord::Started {
                        task,
                        attempt,
                        block: worker.block,
                        at: now,
                    };
                    self.next += 1;
                    self.outputs.push_back(Output::Journal {
                        entry: EntryId(self.next),
                        record,
                    });
                }
            }
            Input::TaskFinished { task, body, .. } => {
                if let Some(known) = self.tasks.get_mut(&task) {
                    known.result = Some(body.clone());
                    self.next += 1;
                    self.publishes.insert(PublishId(self.next), task);
                    self.outputs.push_back(Output::Publish {
                        publish: PublishId(self.next),
                        task,
                        body,
                    });
                }
            }
            Input::PublishOutcome {
                publish,
                outcome: PublishOutcome::Confirmed,
            } => {
                if let Some(task) = self.publishes.remove(&publish) {
                    self.settled.insert(task);
                    self.next += 1;
                    self.entries.insert(EntryId(self.next), task);
                    let record = JournalRecord::Settled { task, at: now };
                    self.outputs.push_back(Output::Journal {
                        entry: EntryId(self.next),
                        record,
                    });
                }
            }
            Input::Journalled { through, .. } => {
                let later = self.entries.split_off(&EntryId(through.0 + 1));
                for (_, task) in std::mem::replace(&mut self.entries, later) {
                    let Some(known) = self.tasks.remove(&task) else {
                        continue;
                    };
                    self.outputs.push_back(Output::Ack {
                        tag: known.delivery.tag,
                        multiple: false,
                    });
                    if let Some(worker) = known.worker {
                        let message = ToWorker::Settled { tasks: vec![task] };
                        self.outputs.push_back(Output::Send { worker, message });
                    }
                }
            }
            Input::WorkerLost { worker } => {
                self.workers.remove(&worker);
            }
            _ => {}
        }
    }

    /// The next thing to do; [`Output::Deadline`] or [`Output::Idle`] if there is nothing.
    pub fn poll_output(&mut self) -> Output {
        self.outputs.pop_front().unwrap_or(Output::Idle)
    }

    fn dispatch(&mut self) {
        for (id, worker) in &mut self.workers {
            while worker.credit > 0 {
                let Some(task) = self.waiting.pop_front() else { return };
                let Some(known) = self.tasks.get_mut(&task) else {
                    continue;
                };
                worker.credit -= 1;
                known.worker = Some(*id);
                let message = ToWorker::Run {
                    task,
                    function: known.delivery.function,
                    attempt: 0,
                    resource_specification: known.delivery.resource_specification.clone(),
                    result_serializers: known.delivery.result_serializers.clone(),
                    body: known.delivery.body.clone(),
                };
                self.outputs.push_back(Output::Send { worker: *id, message });
            }
        }
    }
}
