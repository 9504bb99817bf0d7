use std::collections::{BTreeMap, VecDeque};

use crate::mutation::{Mutation, Mutations};
use crate::scaling::Scaler;
use crate::state::block::Blocks;
use crate::state::ledger::Ledger;
use crate::state::pace::Pace;
use crate::state::random::Random;
use crate::state::settled::Settled;
use crate::state::task::Tasks;
use crate::state::timers::{Timer, Timers};
use crate::transitions::drain::Ending;
use crate::transitions::journal::Pending;
use crate::transitions::restart::Restart;
use crate::transitions::window::{Depth, Window};
use crate::{BlockId, ComposeFailure, EntryId, Event, Input, JournalRecord, Output, PublishId, Settings, TaskId, Time};

/// So many publishes of one engine have names that no other engine of the same agent gives: what becomes of one that an
/// engine made before it was told of another is not taken for what became of one of the other's.
const PUBLISHES_BITS: u32 = 40;

/// How often what follows an input may follow from itself.
const FOLLOW_UPS_MAX: u32 = 1000;

/// The state machine of one user endpoint.
pub struct Engine {
    pub(crate) settings: Settings,
    pub(crate) compose: Box<dyn ComposeFailure>,
    pub(crate) random: Random,
    pub(crate) now: Time,
    pub(crate) outputs: VecDeque<Output>,
    pub(crate) tasks: Tasks,
    pub(crate) blocks: Blocks,
    pub(crate) ledger: Ledger,
    pub(crate) settled: Settled,
    pub(crate) timers: Timers,
    /// Starts on record of tasks that are not in hand: the attempt that was begun and has not ended well.
    pub(crate) starts: BTreeMap<TaskId, u32>,
    pub(crate) publishes: BTreeMap<PublishId, TaskId>,
    pub(crate) entries: VecDeque<(EntryId, Pending)>,
    /// What workers are to be told at the end of this input.
    pub(crate) settled_for: BTreeMap<BlockId, Vec<TaskId>>,
    pub(crate) restart: Restart,
    pub(crate) ending: Option<Ending>,
    pub(crate) drained: bool,
    pub(crate) window: Window,
    pub(crate) depth: Depth,
    pub(crate) scaler: Scaler,
    pub(crate) pace: Pace,
    /// We hold the queue: nobody else starts, creates or deletes anything.
    pub(crate) holds_queue: bool,
    pub(crate) publisher_up: bool,
    /// The queue counts deliveries, and drops what comes too often.
    pub(crate) counts_deliveries: bool,
    pub(crate) next_sequence: u64,
    pub(crate) next_publish: u64,
    pub(crate) next_entry: u64,
    pub(crate) mutations: Mutations,
}

impl Engine {
    /// An engine that has seen nothing. `seed` decides the jitter of its back-offs, `compose` makes the results of
    /// tasks that could not be run.
    #[must_use]
    pub fn new(settings: Settings, seed: u64, compose: Box<dyn ComposeFailure>) -> Self {
        Self {
            compose,
            random: Random::new(seed),
            now: Time::default(),
            outputs: VecDeque::new(),
            tasks: Tasks::default(),
            blocks: Blocks::default(),
            ledger: Ledger::default(),
            settled: Settled::new(settings.settled_memory, settings.settled_count),
            timers: Timers::default(),
            starts: BTreeMap::new(),
            publishes: BTreeMap::new(),
            entries: VecDeque::new(),
            settled_for: BTreeMap::new(),
            restart: Restart::Unlisted,
            ending: None,
            drained: false,
            window: Window::new(settings.prefetch.initial),
            depth: Depth::default(),
            scaler: Scaler::new(settings.epoch),
            pace: Pace::new(settings.scaling.start_lag),
            holds_queue: false,
            publisher_up: false,
            counts_deliveries: false,
            next_sequence: 0,
            next_publish: settings.epoch << PUBLISHES_BITS,
            next_entry: 0,
            mutations: Mutations::default(),
            settings,
        }
    }

    /// Takes in what earlier lives wrote into the journal, oldest first. Before the first input.
    pub fn restore(&mut self, now: Time, records: impl IntoIterator<Item = JournalRecord>) {
        self.now = now;
        self.restore_records(records);
    }

    /// Takes in one thing that happened at `now`. The outputs must be polled until [`Output::Deadline`] or
    /// [`Output::Idle`] before the next.
    pub fn handle(&mut self, now: Time, input: Input) {
        debug_assert!(
            self.outputs.is_empty(),
            "the outputs were not polled to their end before the next input"
        );
        self.now = self.now.max(now);
        match input {
            Input::ConsumerStarted { channel } => self.on_consumer_started(channel),
            Input::ConsumerLost { channel } => self.on_consumer_lost(channel),
            Input::Fenced => self.on_fenced(),
            Input::ConsumerTimeout { timeout } => {
                self.settings.consumer_timeout = timeout;
                self.timers.clear(Timer::Refresh);
            }
            Input::Delivery(delivery) => self.on_delivery(delivery),
            Input::Denied(delivery) => self.on_denied(delivery),
            Input::QueueDepth { ready } => self.on_queue_depth(ready),
            Input::PublisherStarted => self.on_publisher_started(),
            Input::PublisherLost => self.on_publisher_lost(),
            Input::PublishOutcome { publish, outcome } => self.on_publish_outcome(publish, outcome),
            Input::Journalled { through, written } => self.on_journalled(through, written),
            Input::BlocksListed { blocks } => self.on_blocks_listed(&blocks),
            Input::WorkerHello {
                worker,
                block,
                slots,
                held,
            } => self.on_hello(worker, block, slots, &held),
            Input::WorkerCredit { worker, tasks } => self.on_credit(worker, tasks),
            Input::WorkerDraining { worker } => self.on_worker_draining(worker),
            Input::TaskStarted {
                worker,
                task,
                attempt,
                slot,
            } => self.on_task_started(worker, task, attempt, slot),
            Input::TaskFinished {
                worker,
                task,
                attempt,
                outcome,
                body,
            } => {
                self.on_task_finished(worker, task, attempt, outcome, body);
            }
            Input::TaskDied {
                worker,
                task,
                attempt,
                end,
            } => self.on_task_died(worker, task, attempt, end),
            Input::TaskRefused {
                worker,
                task,
                attempt,
                reason,
            } => {
                self.on_task_refused(worker, task, attempt, reason);
            }
            Input::WorkerLost { worker } => self.on_worker_lost(worker),
            Input::BlockObserved { block, state } => self.on_block_observed(block, state),
            Input::BlockStarted { block, outcome } => self.on_block_started(block, outcome),
            Input::BlockDeleted { block, done } => self.on_block_deleted(block, done),
            Input::HeldBytesAllowed { bytes } => self.settings.held_bytes = bytes,
            Input::Cancel { task } => self.on_cancel(task),
            Input::Drain(drain) => self.on_drain(drain),
            Input::KeepResults => self.on_keep_results(),
            Input::Timeout => {}
        }
        self.expire();
        self.follow_up();
        // What follows may be due at once; that it is done at once needs no timer.
        for _ in 0..FOLLOW_UPS_MAX {
            if !self.timers.is_due(self.now) {
                break;
            }
            self.expire();
            self.follow_up();
        }
    }

    /// The next thing to do; [`Output::Deadline`] or [`Output::Idle`] if there is nothing.
    pub fn poll_output(&mut self) -> Output {
        if let Some(output) = self.outputs.pop_front() {
            return output;
        }
        match self.timers.next() {
            Some((at, reason)) => Output::Deadline { at, reason },
            None => Output::Idle,
        }
    }

    fn expire(&mut self) {
        while let Some(timer) = self.timers.expire(self.now) {
            match timer {
                Timer::RestartGrace => self.end_restart(),
                Timer::WorkerGrace(block) => self.on_grace_over(block),
                Timer::BlockTimeout(block) => self.on_block_timeout(block),
                Timer::DeleteAgain(block) => self.delete_block(block),
                Timer::PublishAgain(task) => self.on_publish_again(task),
                Timer::Refresh => self.on_refresh_due(),
                Timer::StopGrace => self.on_stop_grace_over(),
                // What these are for is decided after every input.
                Timer::IdleBlock | Timer::StartBackOff | Timer::StartPutOff | Timer::AskQueueDepth => {}
            }
        }
    }

    /// What follows from whatever just changed, in the order in which one thing may make room for the next.
    fn follow_up(&mut self) {
        self.keep_results();
        self.publish_due();
        self.dispatch();
        self.recall();
        self.adjust_window();
        self.ask_depth();
        self.scale();
        self.tell_settled();
        self.grant_results();
        self.acknowledge();
        self.set_refresh_timer();
        self.check_ending();
    }

    fn acknowledge(&mut self) {
        for (tag, multiple) in self.ledger.acknowledgements(self.mutated(Mutation::AckOverOpen)) {
            self.outputs.push_back(Output::Ack { tag, multiple });
        }
    }

    pub(crate) fn event(&mut self, event: Event) {
        self.outputs.push_back(Output::Event(event));
    }

    pub(crate) const fn mutated(&self, mutation: Mutation) -> bool {
        self.mutations.has(mutation)
    }
}
