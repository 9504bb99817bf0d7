use std::time::Duration;

use bytes::Bytes;
use waypost_engine::{
    BlockEndKind, BlockId, BlockState, Drain, Engine, Failure, Input, JournalRecord, RefusalReason, Settings,
    StartOutcome, TaskId,
};

use crate::Fault;
use crate::happening::{Happening, Via};
use crate::state::Agent;
use crate::world::World;

/// A function of its arguments, as it must be.
fn compose(task: TaskId, failure: &Failure) -> Bytes {
    Bytes::from(format!(
        "failure of {task} at {:?} after {}: {:?}",
        failure.at, failure.attempts, failure.cause
    ))
}

pub(super) fn task_of(record: &JournalRecord) -> TaskId {
    match record {
        JournalRecord::Started { task, .. }
        | JournalRecord::Settled { task, .. }
        | JournalRecord::Result { task, .. } => *task,
        JournalRecord::Accepted { task, .. } => task.task,
    }
}

impl World<'_> {
    /// The next process starts: in the place of one that is gone, with its disk, or beside one that lives.
    pub(crate) fn start_agent(&mut self, beside: bool) {
        self.lives += 1;
        let life = self.lives;
        self.trace(|| format!("the agent starts its life {life}"));
        let before = std::mem::take(&mut self.agent);
        let (disk, journal, accepted, journal_fails) = if beside {
            self.mark("a second agent");
            self.others.insert(before.life, before);
            (life, Vec::new(), Default::default(), false)
        } else {
            (before.disk, before.journal, before.accepted, before.journal_fails)
        };
        self.agent = Agent {
            life,
            listening: true,
            disk,
            journal,
            accepted,
            journal_fails,
            knows_timeout: self.options.settings.consumer_timeout <= self.options.consumer_timeout,
            ..Agent::default()
        };
        self.begin_engine();
        let delay = self.options.consumer_delay;
        let (consumer, publisher) = (
            self.chance.time(delay / 100, delay),
            self.chance.time(delay / 100, delay),
        );
        self.after(consumer, Happening::ConnectConsumer { life });
        self.after(publisher, Happening::ConnectPublisher { life });
    }

    /// An engine that knows what stands in the journal, and which blocks exist.
    fn begin_engine(&mut self) {
        self.epochs += 1;
        let settings = Settings {
            epoch: self.epochs,
            ..self.options.settings.clone()
        };
        let mut engine = Engine::new(settings, self.chance.seed(), Box::new(compose));
        (self.prepare)(&mut engine);
        engine.restore(self.now, self.agent.journal.clone());
        let blocks = self.existing_blocks();
        self.agent = Agent {
            epoch: self.epochs,
            engine: Some(engine),
            born: self.now,
            known: blocks.iter().copied().collect(),
            ..std::mem::take(&mut self.agent)
        };
        self.give(Input::BlocksListed { blocks });
        self.observe_all();
    }

    /// Another holds the queue.
    pub(crate) fn stand_by(&mut self) {
        if !self.agent.standby {
            self.mark("stands by");
            self.agent.standby = true;
            self.agent.listening = false;
            self.give(Input::Fenced);
        }
    }

    /// The queue that was another's is its own: all begins as at a start.
    pub(crate) fn begin_again(&mut self) {
        self.mark("begins again");
        let life = self.agent.life;
        self.break_links_of(life);
        let before = std::mem::take(&mut self.agent);
        self.agent = Agent {
            life,
            listening: true,
            channel: before.channel,
            publisher: before.publisher,
            has_consumed: before.has_consumed,
            handing_over: before.handing_over,
            knows_timeout: before.knows_timeout,
            disk: before.disk,
            journal: before.journal,
            accepted: before.accepted,
            journal_fails: before.journal_fails,
            channel_clock: before.channel_clock,
            publisher_clock: before.publisher_clock,
            journal_clock: before.journal_clock,
            ..Agent::default()
        };
        self.begin_engine();
        if self.agent.publisher.is_some() {
            self.give(Input::PublisherStarted);
        }
    }

    /// The process is gone, with everything that it had not given away.
    pub(crate) fn kill_agent(&mut self, life: u64) {
        if !self.turn_to(life) {
            return;
        }
        self.check_patience();
        self.agent.engine = None;
        self.trace(|| format!("the agent's life {life} ends"));
        // What is cut off can not even say that it is gone.
        if !self.agent.is_cut_off(self.now) {
            while let Some(epoch) = self.broker.channel_of(life) {
                self.close_channel(epoch);
            }
            self.broker.publishers.retain(|_, of| *of != life);
        }
        self.break_links_of(life);
        self.agent.links.clear();
        if let Some((_, other)) = self.others.pop_first() {
            self.agent = other;
        } else {
            let pause = self.chance.millis(10, 20_000);
            self.after(pause, Happening::StartAgent);
        }
    }

    fn break_links_of(&mut self, life: u64) {
        let linked = self.machines.iter().filter(|(_, machine)| machine.agent == life);
        let blocks: Vec<BlockId> = linked.map(|(block, _)| *block).collect();
        for block in blocks {
            self.break_link(block, false);
        }
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
            if !self.agent.is_frozen(self.now) {
                self.agent.drained = false;
                self.give(Input::Drain(Drain::HandOver));
            }
        }
    }

    pub(crate) fn stop_agent(&mut self) {
        self.agent.stopping = true;
        self.agent.drained = false;
        self.give(Input::Drain(Drain::Stop));
    }

    /// Stopped like that, but to be started again: the broker is waited for only so long, and all of it not for ever.
    pub(crate) fn stop_for_a_while(&mut self) {
        if self.agent.engine.is_none() || self.agent.is_ending() || !self.others.is_empty() {
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
        if self.turn_to(life) {
            self.give(Input::KeepResults);
        }
    }

    /// Schedules an input for the agent whose turn it is.
    pub(crate) fn input(&mut self, latency: Duration, via: Via, input: Input) {
        let life = self.agent.life;
        self.after(latency, Happening::ToAgent { life, via, input });
    }

    pub(crate) fn agent_receives(&mut self, life: u64, via: Via, input: Input) {
        if !self.turn_to(life) {
            return;
        }
        let arrives = match via {
            Via::Process => true,
            Via::Channel(epoch) => self.agent.channel == Some(epoch),
            Via::Publisher(epoch) => self.agent.publisher == Some(epoch),
            Via::Worker(worker) => self.agent.links.contains_key(&worker),
        };
        if !arrives {
            return;
        }
        match &input {
            Input::ConsumerLost { .. } => {
                self.agent.channel = None;
                self.agent.refused_since = None;
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
                self.agent.silent_since.insert(*block, None);
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
}
