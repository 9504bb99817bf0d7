use std::collections::BTreeMap;
use std::time::Duration;

use waypost_engine::{BlockId, TaskId, Time};

use crate::chance::Chance;
use crate::checkers::Checkers;
use crate::happening::Happening;
use crate::state::{Agent, Broker, Cluster, Machine};
use crate::{Fault, Options};

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
    pub(crate) agenda: BTreeMap<(Time, u64), Happening>,
    next_number: u64,
    /// The agent whose turn it is.
    pub(crate) agent: Agent,
    /// Those that live beside it, by their lives.
    pub(crate) others: BTreeMap<u64, Agent>,
    /// How many lives there were.
    pub(crate) lives: u64,
    /// How many engines there were.
    pub(crate) epochs: u64,
    /// The life that held the queue last.
    pub(crate) last_holder: Option<u64>,
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
pub(crate) const START: Time = Time::from_micros(1_000_000_000_000_000);
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
            others: BTreeMap::new(),
            lives: 0,
            epochs: 0,
            last_holder: None,
            broker: Broker::new(options.quorum, options.delivery_limit),
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
        self.at(START, Happening::StartAgent);
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

    /// The blocks that the platform has, in their order.
    pub(crate) fn existing_blocks(&self) -> Vec<BlockId> {
        let existing = self.machines.iter().filter(|(_, machine)| machine.exists);
        existing.map(|(id, _)| *id).collect()
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

    /// What is still to be done, if anything is.
    pub(crate) fn unfinished(&self) -> Option<String> {
        let answered = |task: &TaskId| self.broker.results.contains_key(task) || self.broker.dropped.contains(task);
        if let Some(task) = self.facts.keys().find(|task| !answered(task)) {
            return Some(format!("task {task} has no result"));
        }
        if let Some(message) = self.broker.ready.front() {
            return Some(format!("a delivery of task {} waits in the queue", message.task));
        }
        if !self.others.is_empty() {
            return Some("two agents are alive".into());
        }
        if let Some(message) = self
            .broker
            .channels
            .values()
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
        if self.agent.standby {
            return Some("the agent stands by".into());
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
