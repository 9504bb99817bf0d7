use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use waypost_engine::{BlockEnd, BlockId, Input, PublishId, TaskId, Time, ToWorker, WorkerId};

use crate::agent::Agent;
use crate::broker::{Broker, ChannelUse};
use crate::chance::Chance;
use crate::checkers::Checkers;
use crate::machine::Machine;
use crate::platform::Cluster;
use crate::{Fault, Options};

/// Something that will happen.
#[derive(Debug, Clone)]
pub(crate) enum Happening {
    Submit(TaskId),
    Fault(Fault),
    Heal,
    StartAgent {
        life: u64,
    },
    KillAgent {
        life: u64,
    },
    ConnectConsumer {
        life: u64,
    },
    ConnectPublisher {
        life: u64,
    },
    Wake {
        life: u64,
    },
    ToAgent {
        life: u64,
        via: Via,
        input: Input,
    },
    ToBroker {
        channel: u64,
        what: ChannelUse,
    },
    Publish {
        publisher: u64,
        publish: PublishId,
        task: TaskId,
        body: Bytes,
    },
    ConsumerTimeout {
        channel: u64,
        tag: u64,
    },
    BrokerBack,
    JournalBack,
    ToWorker {
        block: BlockId,
        worker: WorkerId,
        message: ToWorker,
    },
    Dial {
        block: BlockId,
        dial: u64,
    },
    ExecutorEnds {
        block: BlockId,
        run: u64,
    },
    BlockCreated {
        block: BlockId,
        ready_in: Duration,
    },
    BlockAdvances {
        block: BlockId,
        ready_in: Duration,
    },
    BlockReady {
        block: BlockId,
    },
    GraceOver {
        block: BlockId,
        end: BlockEnd,
    },
    NodeBack {
        node: u32,
    },
    BlockDies {
        block: BlockId,
        end: BlockEnd,
    },
}

/// The connection that an input comes by; if that is gone by then, the input is lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Via {
    Channel(u64),
    Publisher(u64),
    Worker(WorkerId),
    Process,
}

/// One task, as the world knows it.
#[derive(Debug)]
pub(crate) struct Facts {
    pub(crate) takes: Duration,
    pub(crate) bytes: usize,
    pub(crate) result_bytes: usize,
    /// So many of its first runs end with their executor.
    pub(crate) deaths: u32,
    pub(crate) runs: u32,
}

/// Everything around the engine.
pub(crate) struct World<'a> {
    pub(crate) options: &'a Options,
    pub(crate) prepare: &'a dyn Fn(&mut waypost_engine::Engine),
    pub(crate) chance: Chance,
    pub(crate) now: Time,
    agenda: BTreeMap<(Time, u64), Happening>,
    next_number: u64,
    pub(crate) agent: Agent,
    pub(crate) broker: Broker,
    pub(crate) machines: BTreeMap<BlockId, Machine>,
    pub(crate) cluster: Cluster,
    pub(crate) facts: BTreeMap<TaskId, Facts>,
    pub(crate) checkers: Checkers,
    pub(crate) healed: bool,
    pub(crate) steps: u64,
    pub(crate) marks: crate::Marks,
}

/// When the world begins.
const START: Time = Time::from_micros(1_000_000_000_000_000);
/// More happenings than any world that converges has.
const STEPS_MAX: u64 = 5_000_000;

impl<'a> World<'a> {
    pub(crate) fn new(options: &'a Options, prepare: &'a dyn Fn(&mut waypost_engine::Engine)) -> Self {
        let mut world = Self {
            options,
            prepare,
            chance: Chance::new(options.seed),
            now: START,
            agenda: BTreeMap::new(),
            next_number: 0,
            agent: Agent::default(),
            broker: Broker::new(options.quorum),
            machines: BTreeMap::new(),
            cluster: Cluster::new(START),
            facts: BTreeMap::new(),
            checkers: Checkers::default(),
            healed: false,
            steps: 0,
            marks: crate::Marks::new(),
        };
        world.plan();
        world
    }

    fn plan(&mut self) {
        let trouble = self.options.trouble;
        for _ in 0..self.options.tasks {
            let task = TaskId(uuid::Uuid::from_u64_pair(self.chance.seed(), self.chance.seed()));
            let facts = Facts {
                takes: self.chance.time(Duration::from_millis(1), self.options.longest),
                bytes: usize::try_from(self.chance.range(1, self.options.largest)).unwrap_or(1),
                result_bytes: usize::try_from(self.chance.range(64, 64 + self.options.largest)).unwrap_or(64),
                deaths: if self.chance.happens(self.options.odds(Fault::Executor)) {
                    self.chance.number(1, 3)
                } else {
                    0
                },
                runs: 0,
            };
            self.facts.insert(task, facts);
            let at = self.some_time(self.options.submitted_within);
            self.at(at, Happening::Submit(task));
            if self.chance.happens(self.options.odds(Fault::Double)) {
                let at = self.some_time(trouble);
                self.at(at, Happening::Submit(task));
            }
        }
        for (fault, odds) in &self.options.odds {
            if Options::is_of_a_step(*fault) {
                continue;
            }
            for _ in 0..self.chance.number(0, odds * 2) {
                let at = self.some_time(trouble);
                self.at(at, Happening::Fault(*fault));
            }
        }
        self.at(START, Happening::StartAgent { life: 1 });
        self.at(START + trouble, Happening::Heal);
    }

    fn some_time(&mut self, within: Duration) -> Time {
        let micros = u64::try_from(within.as_micros()).unwrap_or(u64::MAX);
        START + Duration::from_micros(self.chance.range(0, micros))
    }

    pub(crate) fn at(&mut self, at: Time, happening: Happening) {
        self.next_number += 1;
        self.agenda.insert((at.max(self.now), self.next_number), happening);
    }

    pub(crate) fn after(&mut self, pause: Duration, happening: Happening) {
        self.at(self.now + pause, happening);
    }

    /// Something worth knowing happened.
    pub(crate) fn mark(&mut self, what: &'static str) {
        *self.marks.entry(what).or_default() += 1;
    }

    /// How long a message takes.
    pub(crate) fn latency(&mut self) -> Duration {
        self.chance.time(Duration::from_micros(50), self.options.latency)
    }

    pub(crate) fn number(&mut self) -> u64 {
        self.next_number += 1;
        self.next_number
    }

    /// Whether a step goes wrong.
    pub(crate) fn goes_wrong(&mut self, fault: Fault) -> bool {
        !self.healed && self.chance.happens(self.options.odds(fault))
    }

    pub(crate) fn trace(&self, what: impl FnOnce() -> String) {
        if self.options.trace {
            crate::say(&format!("{:>12.6} {}", self.now.since(START).as_secs_f64(), what()));
        }
    }

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
        let left: Vec<String> = self
            .machines
            .iter()
            .filter(|(_, machine)| machine.exists)
            .map(|(id, _)| id.to_string())
            .collect();
        Err(format!(
            "the endpoint does not stop: drained {}, blocks left {left:?}",
            self.agent.drained
        ))
    }

    fn happen(&mut self, happening: Happening) {
        match happening {
            Happening::Submit(task) => self.submit(task),
            Happening::Fault(fault) if self.healed => self.trace(|| format!("no more {fault:?}")),
            Happening::Fault(fault) => self.fault(fault),
            Happening::Heal => self.heal(),
            Happening::StartAgent { life } => self.start_agent(life),
            Happening::KillAgent { life } => self.kill_agent(life),
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
            Happening::JournalBack => self.agent.journal_fails = false,
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
        self.agent.journal_fails = false;
        self.heal_cluster();
        for machine in self.machines.values_mut() {
            machine.unreachable_until = None;
        }
    }

    /// What is still to be done, if anything is.
    pub(crate) fn unfinished(&self) -> Option<String> {
        if let Some(task) = self.facts.keys().find(|task| !self.broker.results.contains_key(task)) {
            return Some(format!("task {task} has no result"));
        }
        if let Some(message) = self.broker.ready.front() {
            return Some(format!("a delivery of task {} waits in the queue", message.task));
        }
        if let Some(message) = self
            .broker
            .channel
            .iter()
            .flat_map(|channel| channel.unacknowledged.values())
            .next()
        {
            return Some(format!(
                "a delivery of task {} is not acknowledged",
                message.message.task
            ));
        }
        let Some(engine) = &self.agent.engine else {
            return Some("the agent is down".into());
        };
        if self.agent.is_ending() {
            return Some("the agent's life is ending, and the next has not begun".into());
        }
        let status = engine.status(self.now);
        if status.outstanding() > 0 {
            return Some(format!("the engine is not done: {status:?}"));
        }
        for (id, machine) in &self.machines {
            if machine.exists && (!machine.held.is_empty() || !machine.running.is_empty() || !machine.queue.is_empty())
            {
                return Some(format!("block {id} still has tasks or results"));
            }
        }
        let blocks = self.machines.values().filter(|machine| machine.exists).count();
        let scaling = &self.options.settings.scaling;
        let wanted = scaling.min_blocks.max(scaling.min_idle_blocks).min(scaling.max_blocks) as usize;
        (blocks != wanted).then(|| format!("{blocks} blocks exist, {wanted} should"))
    }
}
