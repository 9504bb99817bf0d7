use std::time::Duration;

use crate::happening::Happening;
use crate::world::{START, World};

/// More happenings than any world that converges has.
const STEPS_MAX: u64 = 5_000_000;

impl World<'_> {
    /// Lets everything happen until all is well, or it is too late for that: the time by which it should have been.
    pub(crate) fn run(&mut self) -> Result<(), String> {
        let work: Duration = self.facts.values().map(|facts| facts.takes * (facts.deaths + 2)).sum();
        let limit = START + self.options.trouble + work + Duration::from_secs(4 * 3600);
        while let Some(((at, _), happening)) = self.agenda.pop_first() {
            self.steps += 1;
            self.now = at;
            self.happen(happening);
            if self.checkers.violation.is_some() {
                return Ok(());
            }
            if self.healed && self.steps.is_multiple_of(16) && self.unfinished().is_none() {
                return self.end();
            }
            if self.now > limit || self.steps > STEPS_MAX {
                break;
            }
        }
        match self.unfinished() {
            None => self.end(),
            Some(what) => Err(what),
        }
    }

    /// The endpoint is stopped for good, and must leave nothing.
    fn end(&mut self) -> Result<(), String> {
        self.stop_agent();
        let limit = self.now + Duration::from_secs(3600);
        while let Some(((at, _), happening)) = self.agenda.pop_first() {
            self.steps += 1;
            self.now = at;
            self.happen(happening);
            if self.checkers.violation.is_some()
                || self.agent.drained && self.machines.values().all(|block| !block.exists)
            {
                return Ok(());
            }
            if self.now > limit || self.steps > STEPS_MAX {
                break;
            }
        }
        let left: Vec<String> = self.existing_blocks().iter().map(ToString::to_string).collect();
        Err(format!(
            "the endpoint does not stop: drained {}, blocks left {left:?}",
            self.agent.drained
        ))
    }

    fn happen(&mut self, happening: Happening) {
        if let Some(until) = self.held_up(&happening) {
            self.at(until, happening);
            return;
        }
        match happening {
            Happening::Submit(task) => self.submit(task),
            Happening::Fault(fault) if self.healed => self.trace(|| format!("no more {fault:?}")),
            Happening::Fault(fault) => self.fault(fault),
            Happening::Heal => self.heal(),
            Happening::StartAgent => self.replace_agent(),
            Happening::StartSecond => self.start_second(),
            Happening::OneTooMany => self.end_one(),
            Happening::AgentGivesUp { life, channel } => self.agent_gives_up(life, channel),
            Happening::BrokerGivesUp {
                life,
                channel,
                publisher,
            } => self.broker_gives_up(life, channel, publisher),
            Happening::WorkersGiveUp { life } => self.workers_give_up(life),
            Happening::KillAgent { life } => self.kill_agent(life),
            Happening::KeepResults { life } => self.keep_results(life),
            Happening::ConnectConsumer { life } => self.connect_consumer(life),
            Happening::ConnectPublisher { life } => self.connect_publisher(life),
            Happening::Wake { life } => self.wake(life),
            Happening::ToAgent { life, via, input } => self.agent_receives(life, via, input),
            Happening::ToBroker { channel, what } => self.use_channel(channel, what),
            Happening::Publish {
                publisher,
                publish,
                task,
                body,
            } => self.publish(publisher, publish, task, body),
            Happening::ConsumerTimeout { channel, tag } => self.consumer_timeout(channel, tag),
            Happening::BrokerBack => self.broker.up = true,
            Happening::JournalBack => self.journal_back(),
            Happening::ToWorker { block, worker, message } => self.worker_receives(block, worker, message),
            Happening::Dial { block, dial } => self.dial(block, dial),
            Happening::ExecutorEnds { block, run } => self.executor_ends(block, run),
            Happening::BlockCreated { block, ready_in } => self.block_created(block, ready_in),
            Happening::BlockAdvances { block, ready_in } => self.block_advances(block, ready_in),
            Happening::BlockReady { block } => self.block_ready(block),
            Happening::GraceOver { block, end } => self.grace_over(block, end),
            Happening::NodeBack { node } => self.node_back(node),
            Happening::BlockDies { block, end } => self.block_dies(block, end),
        }
    }

    fn heal(&mut self) {
        self.trace(|| "HEAL".into());
        self.healed = true;
        self.broker.up = true;
        self.broker.held_by_other = None;
        self.journal_back();
        self.heal_cluster();
        for machine in self.machines.values_mut() {
            machine.unreachable_until = None;
        }
    }

    fn journal_back(&mut self) {
        self.agent.journal_fails = false;
        for agent in self.others.values_mut() {
            agent.journal_fails = false;
        }
    }
}
