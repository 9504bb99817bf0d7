use std::time::Duration;

use bytes::Bytes;
use waypost_engine::{
    BlockEndKind, BlockId, BlockState, ChannelEpoch, DeliveryTag, Drain, Engine, EntryId, Event, Failure, Input,
    JournalRecord, Output, RefusalReason, Settings, StartOutcome, TaskId, ToWorker, WorkerId,
};

use crate::Fault;
use crate::happening::{ChannelUse, Happening, Via};
use crate::state::Agent;
use crate::world::World;

/// A function of its arguments, as it must be.
fn compose(task: TaskId, failure: &Failure) -> Bytes {
    Bytes::from(format!(
        "failure of {task} at {:?} after {}: {:?}",
        failure.at, failure.attempts, failure.cause
    ))
}

fn task_of(record: &JournalRecord) -> TaskId {
    match record {
        JournalRecord::Started { task, .. }
        | JournalRecord::Settled { task, .. }
        | JournalRecord::Result { task, .. } => *task,
        JournalRecord::Accepted { task, .. } => task.task,
    }
}

/// An engine that turns so often at one moment makes no progress.
const IDLE_TURNS_MAX: u32 = 10_000;

impl World<'_> {
    pub(crate) fn start_agent(&mut self, life: u64) {
        if self.agent.engine.is_some() || life <= self.agent.life {
            return;
        }
        self.trace(|| format!("the agent starts its life {life}"));
        let settings = Settings {
            epoch: life,
            ..self.options.settings.clone()
        };
        let mut engine = Engine::new(settings, self.chance.seed(), Box::new(compose));
        (self.prepare)(&mut engine);
        engine.restore(self.now, self.agent.journal.clone());
        let (journal, accepted) = (
            std::mem::take(&mut self.agent.journal),
            std::mem::take(&mut self.agent.accepted),
        );
        self.agent = Agent {
            life,
            engine: Some(engine),
            listening: true,
            born: self.now,
            journal,
            accepted,
            journal_fails: self.agent.journal_fails,
            knows_timeout: self.options.settings.consumer_timeout <= self.options.consumer_timeout,
            ..Agent::default()
        };
        let blocks = self.existing_blocks();
        self.agent.known.extend(&blocks);
        self.give(Input::BlocksListed { blocks });
        self.observe_all();
        let delay = self.options.consumer_delay;
        let (consumer, publisher) = (
            self.chance.time(delay / 100, delay),
            self.chance.time(delay / 100, delay),
        );
        self.after(consumer, Happening::ConnectConsumer { life });
        self.after(publisher, Happening::ConnectPublisher { life });
    }

    /// The process is gone, with everything that it had not given away.
    pub(crate) fn kill_agent(&mut self, life: u64) {
        if self.agent.life != life || self.agent.engine.take().is_none() {
            return;
        }
        self.trace(|| format!("the agent's life {life} ends"));
        self.close_channel();
        self.broker.publisher = None;
        let blocks: Vec<BlockId> = self.machines.keys().copied().collect();
        for block in blocks {
            self.break_link(block, false);
        }
        self.agent.links.clear();
        let pause = self.chance.millis(10, 20_000);
        self.after(pause, Happening::StartAgent { life: life + 1 });
    }

    /// The disk is gone with the process.
    pub(crate) fn lose_journal(&mut self) {
        for record in std::mem::take(&mut self.agent.journal) {
            self.checkers.unrecorded(task_of(&record));
        }
        self.agent.accepted.clear();
    }

    pub(crate) fn hand_over(&mut self) {
        if self.agent.engine.is_some() && !self.agent.is_ending() {
            self.agent.handing_over = true;
            let life = self.agent.life;
            let patience = self.chance.millis(100, 30_000);
            self.after(patience, Happening::KillAgent { life });
            self.give(Input::Drain(Drain::HandOver));
        }
    }

    pub(crate) fn stop_agent(&mut self) {
        self.agent.stopping = true;
        self.give(Input::Drain(Drain::Stop));
    }

    /// Stopped like that, but to be started again: the broker is waited for only so long, and all of it not for ever.
    pub(crate) fn stop_for_a_while(&mut self) {
        if self.agent.engine.is_none() || self.agent.is_ending() {
            return;
        }
        self.agent.pausing = true;
        let life = self.agent.life;
        let patience = self.chance.millis(100, 40_000);
        self.after(patience, Happening::KeepResults { life });
        let limit = patience + self.chance.millis(1_000, 120_000);
        self.after(limit, Happening::KillAgent { life });
        if self.chance.happens(500) {
            self.fault(Fault::Outage);
        }
        self.stop_agent();
    }

    pub(crate) fn keep_results(&mut self, life: u64) {
        if self.agent.life == life && self.agent.engine.is_some() {
            self.give(Input::KeepResults);
        }
    }

    /// The queue is another's for a while.
    pub(crate) fn fence_agent(&mut self) {
        self.agent.fenced = true;
        self.give(Input::Fenced);
    }

    /// Schedules an input for the present life.
    pub(crate) fn input(&mut self, latency: Duration, via: Via, input: Input) {
        let life = self.agent.life;
        self.after(latency, Happening::ToAgent { life, via, input });
    }

    pub(crate) fn agent_receives(&mut self, life: u64, via: Via, input: Input) {
        let arrives = match via {
            Via::Process => true,
            Via::Channel(epoch) => self.agent.channel == Some(epoch),
            Via::Publisher(epoch) => self.agent.publisher == Some(epoch),
            Via::Worker(worker) => self.agent.links.contains_key(&worker),
        };
        if life != self.agent.life || self.agent.engine.is_none() || !arrives {
            return;
        }
        match &input {
            Input::ConsumerLost { .. } => {
                self.agent.channel = None;
                let pause = self.chance.millis(50, 2_000);
                self.after(pause, Happening::ConnectConsumer { life });
            }
            Input::PublisherLost => {
                self.agent.publisher = None;
                let pause = self.chance.millis(50, 2_000);
                self.after(pause, Happening::ConnectPublisher { life });
            }
            Input::WorkerHello { block, .. } => {
                if let Some(machine) = self.machines.get_mut(block) {
                    machine.silent_since = None;
                }
                if !self.agent.on_lost_nodes.contains(block) {
                    self.agent.known.insert(*block);
                }
                self.agent.starts.clear();
            }
            Input::BlockObserved { block, state } => self.learn_of_block(*block, state),
            Input::BlockStarted {
                block,
                outcome: StartOutcome::Failed(_),
            } => {
                self.agent.known.remove(block);
            }
            Input::TaskRefused {
                reason: RefusalReason::Duplicate,
                ..
            } => self.mark("refused as a duplicate"),
            Input::WorkerDraining { worker } => {
                self.agent.draining.insert(*worker);
            }
            _ => {}
        }
        self.give(input);
    }

    /// The agent is told of a block: what it may do with it from here on.
    fn learn_of_block(&mut self, block: BlockId, state: &BlockState) {
        match state {
            BlockState::Pending { .. } | BlockState::Running => {
                if !self.agent.on_lost_nodes.contains(&block) {
                    self.agent.known.insert(block);
                }
            }
            BlockState::Ending(end) => {
                let linked = self.agent.links.iter().filter(|(_, linked)| **linked == block);
                self.agent.draining.extend(linked.map(|(worker, _)| *worker));
                if end.kind == BlockEndKind::NodeLost {
                    self.agent.known.remove(&block);
                    self.agent.on_lost_nodes.insert(block);
                }
            }
            BlockState::Ended(_) => {
                self.agent.known.remove(&block);
            }
        }
    }

    pub(crate) fn wake(&mut self, life: u64) {
        if life == self.agent.life && self.agent.wake.is_some_and(|at| at <= self.now) {
            self.agent.wake = None;
            self.give(Input::Timeout);
        }
    }

    /// One turn of the run loop.
    pub(crate) fn give(&mut self, input: Input) {
        if self.agent.engine.is_none() {
            return;
        }
        self.trace(|| format!("  in  {}", shorten(&format!("{input:?}"))));
        let Some(engine) = &mut self.agent.engine else { return };
        let timeout = input == Input::Timeout;
        engine.handle(self.now, input);
        let mut outputs = Vec::new();
        let deadline = loop {
            match engine.poll_output() {
                Output::Idle => break None,
                Output::Deadline { at, .. } => break Some(at),
                output => outputs.push(output),
            }
        };
        engine.assert_invariants();
        let idle = timeout && outputs.is_empty();
        self.agent.idle_turns = if idle { self.agent.idle_turns + 1 } else { 0 };
        assert!(
            self.agent.idle_turns < IDLE_TURNS_MAX,
            "the engine wakes again and again and does nothing"
        );
        assert!(
            deadline.is_none_or(|at| at > self.now),
            "a deadline that has passed was not kept"
        );
        self.checkers.check_told(&outputs);
        for output in outputs {
            self.trace(|| format!("  out {}", shorten(&format!("{output:?}"))));
            self.carry_out(output);
        }
        if let Some(at) = deadline
            && self.agent.wake.is_none_or(|wake| wake > at || wake < self.now)
        {
            self.agent.wake = Some(at);
            let life = self.agent.life;
            self.at(at, Happening::Wake { life });
        }
    }

    fn carry_out(&mut self, output: Output) {
        match output {
            Output::Send { worker, message } => self.send_to_worker(worker, message),
            Output::Publish { publish, task, body } => {
                let Some(publisher) = self.agent.publisher else { return };
                let latency = self.latency();
                self.agent.publisher_clock = self.agent.publisher_clock.max(self.now + latency);
                self.at(
                    self.agent.publisher_clock,
                    Happening::Publish {
                        publisher,
                        publish,
                        task,
                        body,
                    },
                );
            }
            Output::Ack { tag, multiple } => {
                self.on_channel(tag.channel, ChannelUse::Acknowledge { tag: tag.tag, multiple })
            }
            Output::GiveBack { tag } => self.requeue_from(tag, false),
            Output::Refresh { tag } => self.requeue_from(tag, true),
            Output::SetPrefetch { window } => self.on_present_channel(ChannelUse::Consume { window }),
            Output::StopConsuming => self.on_present_channel(ChannelUse::Cancel),
            Output::AskQueueDepth => self.on_present_channel(ChannelUse::Depth),
            Output::Journal { entry, record } => self.write_journal(entry, record),
            Output::StartBlock { block } => {
                self.check_start(block);
                self.start_block(block);
            }
            Output::DeleteBlock { block } => {
                self.check_fence("deleted", block);
                self.check_deletion(block);
                self.delete_block(block);
            }
            Output::Event(event) => self.observe_event(&event),
            Output::Drained => {
                self.agent.drained = true;
                if self.agent.is_ending() {
                    let life = self.agent.life;
                    let pause = self.latency();
                    self.after(pause, Happening::KillAgent { life });
                }
            }
            Output::Deadline { .. } | Output::Idle => {}
        }
    }

    fn send_to_worker(&mut self, worker: WorkerId, message: ToWorker) {
        let Some(&block) = self.agent.links.get(&worker) else {
            return;
        };
        match &message {
            ToWorker::Run { task, .. } if self.agent.draining.contains(&worker) => {
                self.checkers
                    .violate(format!("task {task} was sent to block {block}, which drains"));
            }
            ToWorker::Drain => {
                self.agent.draining.insert(worker);
                self.check_deletion(block);
                self.check_idleness(block);
            }
            _ => {}
        }
        let latency = self.latency();
        let clock = self.agent.link_clocks.entry(worker).or_default();
        let mut at = (*clock).max(self.now + latency);
        // A small message may overtake a large one, and never the other way round.
        if matches!(&message, ToWorker::Run { body, .. } if body.len() > self.options.overtaken) {
            at = at + latency;
        } else {
            *clock = at;
        }
        self.at(at, Happening::ToWorker { block, worker, message });
    }

    fn requeue_from(&mut self, tag: DeliveryTag, refreshed: bool) {
        let what = ChannelUse::Requeue {
            tag: tag.tag,
            refreshed,
        };
        self.on_channel(tag.channel, what);
    }

    fn on_present_channel(&mut self, what: ChannelUse) {
        if let Some(channel) = self.agent.channel {
            self.on_channel(ChannelEpoch(channel), what);
        }
    }

    fn on_channel(&mut self, channel: ChannelEpoch, what: ChannelUse) {
        if self.agent.channel != Some(channel.0) {
            return;
        }
        let latency = self.latency();
        self.agent.channel_clock = self.agent.channel_clock.max(self.now + latency);
        self.at(
            self.agent.channel_clock,
            Happening::ToBroker {
                channel: channel.0,
                what,
            },
        );
    }

    /// A plain write: once it is made it outlives the process.
    fn write_journal(&mut self, through: EntryId, record: JournalRecord) {
        let written = !self.agent.journal_fails;
        let task = task_of(&record);
        if let JournalRecord::Started { attempt, block, .. } = &record
            && written
        {
            self.checkers.start_recorded(task, *block, *attempt);
        }
        if written {
            if matches!(record, JournalRecord::Accepted { .. }) {
                self.agent.accepted.insert(task);
            }
            if let JournalRecord::Result { body, .. } = &record {
                self.checkers.result_recorded(task, body);
            }
            self.agent.journal.push(record);
        } else {
            self.checkers.unrecorded(task);
        }
        let latency = self.chance.time(Duration::from_micros(10), Duration::from_millis(20));
        // Outcomes come in the order of the entries.
        self.agent.journal_clock = self.agent.journal_clock.max(self.now + latency);
        let (at, life) = (self.agent.journal_clock, self.agent.life);
        self.at(
            at,
            Happening::ToAgent {
                life,
                via: Via::Process,
                input: Input::Journalled { through, written },
            },
        );
    }

    /// Blocks are started and ended only by who holds the queue, unless the endpoint is stopped for good.
    fn check_fence(&mut self, what: &str, block: BlockId) {
        if self.agent.channel.is_none() && !self.agent.stopping {
            self.checkers.violate(format!(
                "block {block} is {what} while somebody else may hold the queue"
            ));
        }
    }

    /// Never more blocks than may exist, and after failures ever later.
    fn check_start(&mut self, block: BlockId) {
        const WINDOW: Duration = Duration::from_secs(60);
        /// Half a second, doubled each time: so many fit into a minute, and some more.
        const RETRIES: usize = 12;
        self.check_fence("started", block);
        let most = self.options.settings.scaling.max_blocks as usize;
        self.agent.known.insert(block);
        if self.agent.known.len() > most {
            let known = self.agent.known.len();
            self.checkers.violate(format!(
                "block {block} is started as one of {known}, and {most} may exist"
            ));
        }
        let now = self.now;
        self.agent.starts.retain(|at| now.since(*at) < WINDOW);
        self.agent.starts.push(now);
        if self.agent.starts.len() > most + RETRIES {
            let starts = self.agent.starts.len();
            self.checkers.violate(format!(
                "{starts} blocks were started within a minute, and none came up"
            ));
        }
    }

    /// A block is ended for want of work only if it had none for as long as it may.
    fn check_idleness(&mut self, block: BlockId) {
        let scaling = &self.options.settings.scaling;
        let least = scaling.max_idletime.max(scaling.deletion_lag);
        let Some(machine) = self.machines.get(&block) else {
            return;
        };
        let idle = self.now.since(machine.idle_since) + self.options.latency * 3;
        if !self.agent.stopping && machine.exists && idle < least {
            self.checkers.violate(format!(
                "block {block} is to be ended after {idle:?} without work, not {least:?}"
            ));
        }
    }

    /// A block that has something to do is never ended, unless the whole endpoint is.
    fn check_deletion(&mut self, block: BlockId) {
        let Some(machine) = self.machines.get(&block) else {
            return;
        };
        let linked = machine
            .session
            .is_some_and(|worker| self.agent.links.contains_key(&worker));
        if !self.agent.stopping && linked && machine.exists && machine.is_busy() {
            self.checkers
                .violate(format!("block {block} is to be ended, and has something to do"));
        }
    }

    fn observe_event(&mut self, event: &Event) {
        self.mark(event.name());
        if let Event::WorkerGivenUp { block, .. } = event {
            let (born, grace) = (self.agent.born, self.options.settings.reconnect_grace);
            let silent_for = match self.machines.get(block) {
                _ if self.agent.on_lost_nodes.contains(block) => Duration::MAX,
                Some(machine) if machine.exists => machine
                    .silent_since
                    .map_or(Duration::ZERO, |since| self.now.since(since.max(born))),
                // A block that is gone is silent for as long as it likes.
                Some(_) | None => Duration::MAX,
            };
            self.checkers.given_up(*block, self.now, silent_for, grace);
        }
    }

    /// A result reached the broker: whose it is can be read in it.
    pub(crate) fn result_taken(&mut self, task: TaskId, body: &Bytes) {
        let text = String::from_utf8_lossy(body);
        let made_in = text.trim_end_matches('\0').rsplit_once(" in ").and_then(|(_, block)| {
            let (epoch, number) = block.split_once('-')?;
            Some(BlockId {
                epoch: epoch.parse().ok()?,
                number: number.parse().ok()?,
            })
        });
        let made_in = if text.starts_with("result") { made_in } else { None };
        self.checkers.result(task, body, made_in, self.agent.life, self.now);
    }
}

fn shorten(text: &str) -> String {
    const LONGEST: usize = 300;
    let end = text.char_indices().nth(LONGEST).map_or(text.len(), |(index, _)| index);
    format!(
        "{}{}",
        text.get(..end).unwrap_or(text),
        if end < text.len() { "..." } else { "" }
    )
}
