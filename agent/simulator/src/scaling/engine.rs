//! The real engine, between a broker that always answers at once and pods that always come up.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use bytes::Bytes;
use uuid::Uuid;
use waypost_engine::{
    BlockEnd, BlockEndKind, BlockId, BlockState, ChannelEpoch, Delivery, DeliveryTag, Engine, Failure, FunctionId,
    Input, Output, PublishOutcome, Scaling, Settings, Slot, StartOutcome, TaskId, TaskOutcome, Time, ToWorker,
    WorkerId,
};

use super::fleet::{Fleet, Happening, Record};
use super::{Load, MAX_PODS, SLOTS};

const CHANNEL: ChannelEpoch = ChannelEpoch(1);
const BODY: Bytes = Bytes::from_static(b"a task");

struct World<'a> {
    fleet: Fleet<'a>,
    engine: Engine,
    /// What the broker has not delivered.
    ready: VecDeque<usize>,
    unacknowledged: BTreeMap<u64, usize>,
    window: usize,
    next_tag: u64,
    /// What the engine has not been told yet.
    inputs: VecDeque<Input>,
}

/// Plays a load under the engine's rules.
pub(super) fn play(load: &Load, max_idletime: Duration) -> Record {
    let scaling = Scaling {
        init_blocks: 0,
        max_blocks: MAX_PODS,
        max_idletime,
        ..Scaling::default()
    };
    let settings = Settings {
        slots_per_block: SLOTS,
        scaling,
        ..Settings::default()
    };
    let window = settings.prefetch.initial as usize;
    let compose = |task: TaskId, failure: &Failure| Bytes::from(format!("{task}: {failure:?}"));
    let mut world = World {
        fleet: Fleet::new(load),
        engine: Engine::new(settings, 1, Box::new(compose)),
        ready: VecDeque::new(),
        unacknowledged: BTreeMap::new(),
        window,
        next_tag: 0,
        inputs: VecDeque::new(),
    };
    world.give(Input::BlocksListed { blocks: vec![] });
    world.give(Input::ConsumerStarted { channel: CHANNEL });
    world.give(Input::PublisherStarted);
    while !world.fleet.is_over() {
        let Some(happening) = world.fleet.step() else { break };
        world.happen(happening);
    }
    world.fleet.finish()
}

fn task_id(task: usize) -> TaskId {
    TaskId(Uuid::from_u128(task as u128))
}

fn index_of(task: TaskId) -> usize {
    usize::try_from(task.0.as_u128()).unwrap_or(usize::MAX)
}

const fn block_of(pod: u32) -> BlockId {
    BlockId { epoch: 1, number: pod }
}

impl World<'_> {
    fn happen(&mut self, happening: Happening) {
        match happening {
            Happening::Arrives(task) => {
                self.ready.push_back(task);
                self.deliver();
                self.settle();
            }
            Happening::Ready(pod) => {
                let (worker, block) = (WorkerId(pod.into()), block_of(pod));
                let state = BlockState::Running;
                self.give(Input::BlockObserved { block, state });
                self.give(Input::WorkerHello {
                    worker,
                    block,
                    slots: SLOTS,
                    held: vec![],
                });
                self.give(Input::WorkerCredit { worker, tasks: SLOTS });
            }
            Happening::Ends { task, pod } => {
                let worker = WorkerId(pod.into());
                self.give(Input::TaskFinished {
                    worker,
                    task: task_id(task),
                    attempt: 0,
                    outcome: TaskOutcome::Succeeded,
                    body: BODY,
                });
                self.give(Input::WorkerCredit { worker, tasks: 1 });
            }
            Happening::Gone(pod) => {
                let (block, end) = (block_of(pod), BlockEnd::new(BlockEndKind::Completed, "drained"));
                let state = BlockState::Ended(end);
                self.give(Input::BlockObserved { block, state });
            }
            Happening::Wake => self.give(Input::Timeout),
        }
    }

    /// Tells the engine something.
    fn give(&mut self, input: Input) {
        self.inputs.push_back(input);
        self.settle();
    }

    /// Tells the engine all that it has not been told, and whatever follows from that at the same moment.
    fn settle(&mut self) {
        while let Some(input) = self.inputs.pop_front() {
            let now = Time::from_micros(0) + self.fleet.now;
            self.engine.handle(now, input);
            loop {
                match self.engine.poll_output() {
                    Output::Idle => break,
                    Output::Deadline { at, .. } => {
                        let at = at.since(Time::from_micros(0));
                        self.fleet.at(at, Happening::Wake);
                        break;
                    }
                    output => self.carry_out(output),
                }
            }
        }
    }

    fn carry_out(&mut self, output: Output) {
        match output {
            Output::Send { worker, message } => self.send(worker, message),
            Output::Publish { publish, .. } => {
                let outcome = PublishOutcome::Confirmed;
                self.inputs.push_back(Input::PublishOutcome { publish, outcome });
            }
            Output::Journal { entry, .. } => {
                let (through, written) = (entry, true);
                self.inputs.push_back(Input::Journalled { through, written });
            }
            Output::Ack { tag, multiple } => {
                if multiple {
                    self.unacknowledged = self.unacknowledged.split_off(&(tag.tag + 1));
                } else {
                    self.unacknowledged.remove(&tag.tag);
                }
                self.deliver();
            }
            Output::SetPrefetch { window } => {
                self.window = window as usize;
                self.deliver();
            }
            Output::AskQueueDepth => {
                let ready = Some(self.ready.len() as u64);
                self.inputs.push_back(Input::QueueDepth { ready });
            }
            Output::StartBlock { block } => {
                let pod = self.fleet.start_pod();
                assert_eq!(block, block_of(pod), "pods and blocks are counted alike");
                let outcome = StartOutcome::Started;
                self.inputs.push_back(Input::BlockStarted { block, outcome });
            }
            Output::DeleteBlock { block } => self.fleet.end_pod(block.number),
            Output::GiveBack { tag } | Output::Refresh { tag } => {
                self.ready.extend(self.unacknowledged.remove(&tag.tag));
                self.deliver();
            }
            Output::StopConsuming | Output::Event(_) | Output::Drained | Output::Deadline { .. } | Output::Idle => {}
        }
    }

    /// The broker delivers what there is room for.
    fn deliver(&mut self) {
        while self.unacknowledged.len() < self.window
            && let Some(task) = self.ready.pop_front()
        {
            self.next_tag += 1;
            self.unacknowledged.insert(self.next_tag, task);
            let delivery = delivery(self.next_tag, task);
            self.inputs.push_back(delivery);
        }
    }

    fn send(&mut self, worker: WorkerId, message: ToWorker) {
        let pod = u32::try_from(worker.0).unwrap_or(u32::MAX);
        match message {
            ToWorker::Run { task, attempt, .. } => {
                self.fleet.begin(index_of(task), pod);
                self.inputs.push_back(Input::TaskStarted {
                    worker,
                    task,
                    attempt,
                    slot: Slot(0),
                });
            }
            ToWorker::Drain => self.fleet.end_pod(pod),
            ToWorker::Recall { .. }
            | ToWorker::Cancel { .. }
            | ToWorker::Settled { .. }
            | ToWorker::Forget { .. }
            | ToWorker::ResultCredit { .. }
            | ToWorker::Close => {}
        }
    }
}

fn delivery(tag: u64, task: usize) -> Input {
    Input::Delivery(Delivery {
        tag: DeliveryTag { channel: CHANNEL, tag },
        task: task_id(task),
        function: FunctionId(Uuid::nil()),
        redelivered: false,
        delivery_count: None,
        resource_specification: None,
        result_serializers: None,
        body: BODY,
    })
}
