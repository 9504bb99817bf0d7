//! Drives an engine by hand. Every output must be expected, in its order: what is left over fails the test.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;
use uuid::Uuid;
use waypost_engine::{
    BlockEnd, BlockEndKind, BlockId, BlockState, ChannelEpoch, DeadlineReason, Delivery, DeliveryTag, Drain, Engine,
    EntryId, Event, ExecutorEnd, ExecutorExit, Failure, FunctionId, HeldState, HeldTask, Input, JournalRecord, Output,
    ProcessExit, PublishId, PublishOutcome, RefusalReason, Scaling, Settings, Slot, StartOutcome, TaskId, TaskOutcome,
    Time, ToWorker, Waiting, WaitingCause, WorkerId,
};

/// The epoch of every engine here; blocks of epoch 1 are an earlier life's.
const EPOCH: u64 = 2;

pub(crate) struct Recorder {
    engine: Engine,
    now: Time,
    outputs: VecDeque<String>,
    pub(crate) events: Vec<Event>,
    pub(crate) records: Vec<JournalRecord>,
    pub(crate) deadline: Option<(Time, DeadlineReason)>,
    pub(crate) body: Bytes,
    next_tag: u64,
    channel: u64,
    last_publish: Vec<(PublishId, u128)>,
    last_entry: EntryId,
    attempts: std::collections::BTreeMap<u128, u32>,
}

/// Settings under which blocks are made by the test alone.
pub(crate) fn settings() -> Settings {
    let scaling = Scaling {
        init_blocks: 0,
        max_blocks: 0,
        max_idletime: Duration::from_secs(1_000_000),
        ..Scaling::default()
    };
    Settings {
        epoch: EPOCH,
        scaling,
        ..Settings::default()
    }
}

pub(crate) fn task(number: u128) -> TaskId {
    TaskId(Uuid::from_u128(number))
}

/// A block of this life.
pub(crate) fn block(number: u32) -> BlockId {
    BlockId { epoch: EPOCH, number }
}

/// A block of the life before.
pub(crate) fn old_block(number: u32) -> BlockId {
    BlockId {
        epoch: EPOCH - 1,
        number,
    }
}

fn compose(task: TaskId, failure: &Failure) -> Bytes {
    Bytes::from(format!("{task} {:?} after {}", failure.cause, failure.attempts))
}

impl Recorder {
    /// Before its first input.
    pub(crate) fn new(settings: Settings, journal: Vec<JournalRecord>) -> Self {
        let now = Time::from_micros(1_000_000_000_000_000);
        let mut engine = Engine::new(settings, 1, Box::new(compose));
        engine.restore(now, journal);
        Self {
            engine,
            now,
            outputs: VecDeque::new(),
            events: Vec::new(),
            records: Vec::new(),
            deadline: None,
            body: Bytes::from_static(b"body"),
            next_tag: 0,
            channel: 0,
            last_publish: Vec::new(),
            last_entry: EntryId(0),
            attempts: std::collections::BTreeMap::new(),
        }
    }

    /// Started, with nothing left by an earlier life.
    pub(crate) fn started(settings: Settings) -> Self {
        let mut it = Self::new(settings, vec![]);
        it.start(vec![]);
        it
    }

    /// Lists blocks, begins to consume, can publish.
    pub(crate) fn start(&mut self, blocks: Vec<BlockId>) {
        self.give(Input::BlocksListed { blocks });
        self.consume();
        self.give(Input::PublisherStarted);
    }

    /// A new channel.
    pub(crate) fn consume(&mut self) {
        self.channel += 1;
        self.next_tag = 0;
        self.give(Input::ConsumerStarted {
            channel: ChannelEpoch(self.channel),
        });
    }

    pub(crate) fn lose_consumer(&mut self) {
        self.give(Input::ConsumerLost {
            channel: ChannelEpoch(self.channel),
        });
    }

    pub(crate) fn give(&mut self, input: Input) {
        self.engine.handle(self.now, input);
        self.deadline = loop {
            match self.engine.poll_output() {
                Output::Deadline { at, reason } => break Some((at, reason)),
                Output::Idle => break None,
                output => self.record(output),
            }
        };
        self.engine.assert_invariants();
    }

    fn record(&mut self, output: Output) {
        let line = match output {
            Output::Send { worker, message } => match message {
                ToWorker::Run { task, attempt, .. } => {
                    self.attempts.insert(task.0.as_u128(), attempt);
                    let again = if attempt > 0 {
                        format!(" again ({attempt})")
                    } else {
                        String::new()
                    };
                    format!("run {} on w{worker}{again}", task.0.as_u128())
                }
                ToWorker::Recall { task, .. } => format!("recall {} from w{worker}", task.0.as_u128()),
                ToWorker::Cancel { task, .. } => format!("cancel {} on w{worker}", task.0.as_u128()),
                ToWorker::Settled { tasks } => {
                    format!(
                        "settled {:?} to w{worker}",
                        tasks.iter().map(|task| task.0.as_u128()).collect::<Vec<_>>()
                    )
                }
                ToWorker::Forget { task, .. } => format!("forget {} on w{worker}", task.0.as_u128()),
                ToWorker::ResultCredit { bytes } => format!("result credit {bytes} for w{worker}"),
                ToWorker::Drain => format!("drain w{worker}"),
                ToWorker::Close => format!("close w{worker}"),
            },
            Output::Publish { publish, task, body } => {
                let number = task.0.as_u128();
                self.last_publish.push((publish, number));
                format!(
                    "publish {number}: {}",
                    String::from_utf8_lossy(&body).replace(&format!("{task} "), "")
                )
            }
            Output::Ack { tag, multiple } => format!("ack {}{}", if multiple { "through " } else { "" }, tag.tag),
            Output::GiveBack { tag } => format!("give back {}", tag.tag),
            Output::Refresh { tag } => format!("refresh {}", tag.tag),
            Output::SetPrefetch { window } => format!("prefetch {window}"),
            Output::StopConsuming => "stop consuming".into(),
            Output::AskQueueDepth => "ask depth".into(),
            Output::Journal { entry, record } => {
                self.last_entry = entry;
                self.records.push(record.clone());
                match record {
                    JournalRecord::Started {
                        task, attempt, block, ..
                    } => {
                        format!("journal start {attempt} of {} in {block}", task.0.as_u128())
                    }
                    JournalRecord::Settled { task, .. } => format!("journal settled {}", task.0.as_u128()),
                    JournalRecord::Accepted { task, .. } => format!("journal accepted {}", task.task.0.as_u128()),
                    JournalRecord::Result { task, .. } => format!("journal result of {}", task.0.as_u128()),
                }
            }
            Output::StartBlock { block } => format!("start block {block}"),
            Output::DeleteBlock { block } => format!("delete block {block}"),
            Output::Event(event) => return self.events.push(event),
            Output::Drained => "drained".into(),
            Output::Deadline { .. } | Output::Idle => return,
        };
        self.outputs.push_back(line);
    }

    /// These outputs, and no others, have come since the last time.
    #[track_caller]
    pub(crate) fn expect<const N: usize>(&mut self, expected: [&str; N]) {
        let outputs: Vec<String> = self.outputs.drain(..).collect();
        assert_eq!(outputs, expected);
    }

    /// The prefetch windows that were asked for, which are then no longer expected.
    pub(crate) fn windows(&mut self) -> Vec<u32> {
        let windows = self
            .outputs
            .iter()
            .filter_map(|line| line.strip_prefix("prefetch ")?.parse().ok())
            .collect();
        self.outputs.retain(|line| !line.starts_with("prefetch "));
        windows
    }

    /// A worker with so many slots and one credit for each dials; its credit for results is expected.
    #[track_caller]
    pub(crate) fn worker(&mut self, worker: u64, block: BlockId, slots: u32) {
        self.hello(worker, block, slots, &[]);
        self.credit(worker, slots);
    }

    #[track_caller]
    pub(crate) fn hello(&mut self, worker: u64, block: BlockId, slots: u32, held: &[(u128, HeldState)]) {
        assert!(self.outputs.is_empty(), "{:?}", self.outputs);
        let held = held
            .iter()
            .map(|(number, state)| HeldTask {
                task: task(*number),
                attempt: 0,
                state: *state,
            })
            .collect();
        self.give(Input::WorkerHello {
            worker: WorkerId(worker),
            block,
            slots,
            held,
        });
        let credit = self
            .outputs
            .iter()
            .position(|line| line.ends_with(&format!("for w{worker}")));
        self.outputs
            .remove(credit.expect("a worker is told what results it may send"));
    }

    pub(crate) fn credit(&mut self, worker: u64, tasks: u32) {
        self.give(Input::WorkerCredit {
            worker: WorkerId(worker),
            tasks,
        });
    }

    pub(crate) fn deliver(&mut self, number: u128) {
        self.deliver_as(number, false, None);
    }

    pub(crate) fn redeliver(&mut self, number: u128) {
        self.deliver_as(number, true, None);
    }

    /// Delivers a task of a function that may not run here.
    pub(crate) fn deliver_denied(&mut self, number: u128) {
        let delivery = self.next_delivery(number, false, None);
        self.give(Input::Denied(delivery));
    }

    pub(crate) fn deliver_as(&mut self, number: u128, redelivered: bool, delivery_count: Option<u64>) {
        let delivery = self.next_delivery(number, redelivered, delivery_count);
        self.give(Input::Delivery(delivery));
    }

    fn next_delivery(&mut self, number: u128, redelivered: bool, delivery_count: Option<u64>) -> Delivery {
        self.next_tag += 1;
        Delivery {
            tag: DeliveryTag {
                channel: ChannelEpoch(self.channel),
                tag: self.next_tag,
            },
            task: task(number),
            function: FunctionId(Uuid::from_u128(77)),
            redelivered,
            delivery_count,
            resource_specification: None,
            result_serializers: None,
            body: self.body.clone(),
        }
    }

    fn attempt(&self, number: u128) -> u32 {
        self.attempts.get(&number).copied().unwrap_or(0)
    }

    /// Slot 0 of a worker begins a task, and the start is journalled.
    #[track_caller]
    pub(crate) fn begin(&mut self, worker: u64, number: u128) {
        assert!(self.outputs.is_empty(), "{:?}", self.outputs);
        let (attempt, slot) = (self.attempt(number), Slot(0));
        self.give(Input::TaskStarted {
            worker: WorkerId(worker),
            task: task(number),
            attempt,
            slot,
        });
        let line = self.outputs.pop_front().unwrap_or_default();
        assert!(line.starts_with("journal start"), "{line}");
    }

    /// As `begin`, but whatever it brings is yet to be expected.
    pub(crate) fn begin_any(&mut self, worker: u64, number: u128) {
        let (attempt, slot) = (self.attempt(number), Slot(0));
        self.give(Input::TaskStarted {
            worker: WorkerId(worker),
            task: task(number),
            attempt,
            slot,
        });
    }

    pub(crate) fn finish(&mut self, worker: u64, number: u128) {
        self.finish_with(worker, number, "result");
    }

    pub(crate) fn finish_with(&mut self, worker: u64, number: u128, body: &'static str) {
        let (attempt, outcome, body) = (
            self.attempt(number),
            TaskOutcome::Succeeded,
            Bytes::from_static(body.as_bytes()),
        );
        self.give(Input::TaskFinished {
            worker: WorkerId(worker),
            task: task(number),
            attempt,
            outcome,
            body,
        });
    }

    /// The executor of a task is killed by signal 11.
    pub(crate) fn die(&mut self, worker: u64, number: u128) {
        self.die_of(worker, number, ExecutorExit::Process(ProcessExit::Signal(11)));
    }

    pub(crate) fn die_of(&mut self, worker: u64, number: u128, how: ExecutorExit) {
        let end = ExecutorEnd {
            how,
            output: "last words".into(),
        };
        let attempt = self.attempt(number);
        self.give(Input::TaskDied {
            worker: WorkerId(worker),
            task: task(number),
            attempt,
            end,
        });
    }

    pub(crate) fn refuse(&mut self, worker: u64, number: u128, reason: RefusalReason) {
        let attempt = self.attempt(number);
        self.give(Input::TaskRefused {
            worker: WorkerId(worker),
            task: task(number),
            attempt,
            reason,
        });
    }

    pub(crate) fn lose_worker(&mut self, worker: u64) {
        self.give(Input::WorkerLost {
            worker: WorkerId(worker),
        });
    }

    /// The latest publish of a task.
    #[track_caller]
    pub(crate) fn publish_of(&self, number: u128) -> PublishId {
        let mut latest = self.last_publish.iter().rev();
        latest.find(|(_, task)| *task == number).expect("it was published").0
    }

    /// What became of the latest publish of a task.
    #[track_caller]
    pub(crate) fn outcome(&mut self, number: u128, outcome: PublishOutcome) {
        let publish = self.publish_of(number);
        self.give(Input::PublishOutcome { publish, outcome });
    }

    /// The latest publish of a task is confirmed, and that is journalled.
    #[track_caller]
    pub(crate) fn confirm(&mut self, number: u128) {
        assert!(self.outputs.is_empty(), "{:?}", self.outputs);
        self.outcome(number, PublishOutcome::Confirmed);
        self.expect([&format!("journal settled {number}")]);
        self.journalled();
    }

    /// Everything so far is written.
    pub(crate) fn journalled(&mut self) {
        self.give(Input::Journalled {
            through: self.last_entry,
            written: true,
        });
    }

    pub(crate) fn journal_fails(&mut self) {
        self.give(Input::Journalled {
            through: self.last_entry,
            written: false,
        });
    }

    pub(crate) fn block_ends(&mut self, block: BlockId, kind: BlockEndKind) {
        let state = BlockState::Ended(BlockEnd::new(kind, "so it is"));
        self.give(Input::BlockObserved { block, state });
    }

    /// It ends, and these are its last words.
    pub(crate) fn block_ends_saying(&mut self, block: BlockId, kind: BlockEndKind, output: &str) {
        let end = BlockEnd {
            output: output.into(),
            ..BlockEnd::new(kind, "so it is")
        };
        let state = BlockState::Ended(end);
        self.give(Input::BlockObserved { block, state });
    }

    pub(crate) fn start_fails(&mut self, block: BlockId, kind: BlockEndKind) {
        let outcome = StartOutcome::Failed(BlockEnd::new(kind, "so it is"));
        self.give(Input::BlockStarted { block, outcome });
    }

    /// The platform says why a block does not run yet.
    pub(crate) fn block_waits(&mut self, block: BlockId, cause: WaitingCause, text: &str) {
        let text = text.into();
        let why = Some(Waiting { cause, text });
        let state = BlockState::Pending { why };
        self.give(Input::BlockObserved { block, state });
    }

    pub(crate) fn block_runs(&mut self, block: BlockId) {
        let state = BlockState::Running;
        self.give(Input::BlockObserved { block, state });
    }

    /// The platform ends a block, which is there for a while yet.
    pub(crate) fn block_is_ending(&mut self, block: BlockId, kind: BlockEndKind) {
        let state = BlockState::Ending(BlockEnd::new(kind, "the node is emptied"));
        self.give(Input::BlockObserved { block, state });
    }

    pub(crate) fn deleted(&mut self, block: BlockId, done: bool) {
        self.give(Input::BlockDeleted { block, done });
    }

    pub(crate) fn drain(&mut self, drain: Drain) {
        self.give(Input::Drain(drain));
    }

    /// Time passes; every deadline on the way is kept.
    pub(crate) fn wait(&mut self, time: Duration) {
        let end = self.now + time;
        while let Some((at, _)) = self.deadline.filter(|(at, _)| *at <= end) {
            self.now = self.now.max(at);
            self.give(Input::Timeout);
        }
        self.now = end;
        self.give(Input::Timeout);
    }

    pub(crate) fn seconds(&mut self, seconds: u64) {
        self.wait(Duration::from_secs(seconds));
    }

    /// What this task's user is told is composed of a failure whose words contain all of these.
    #[track_caller]
    pub(crate) fn expect_failure(&mut self, number: u128, words: &[&str]) {
        self.expect([&format!("journal result of {number}")]);
        self.journalled();
        let line = self.outputs.pop_front().unwrap_or_default();
        assert!(line.starts_with(&format!("publish {number}: ")), "{line}");
        for word in words {
            assert!(line.contains(word), "{line} does not say {word}");
        }
    }

    /// Whatever came since the last time is no matter of this test.
    pub(crate) fn forget_outputs(&mut self) {
        self.outputs.clear();
    }

    pub(crate) fn status(&self) -> waypost_engine::Status {
        self.engine.status(self.now)
    }

    /// How often something was told.
    pub(crate) fn count(&self, predicate: impl Fn(&Event) -> bool) -> usize {
        self.events.iter().filter(|event| predicate(event)).count()
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            assert!(
                self.outputs.is_empty(),
                "outputs that nobody expected: {:?}",
                self.outputs
            );
        }
    }
}
