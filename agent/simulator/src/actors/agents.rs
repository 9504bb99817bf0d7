//! More than one agent: whose turn it is, and how there come to be two, and one again.

use std::time::Duration;

use waypost_engine::{BlockId, ChannelEpoch, Input, Time};

use crate::checkers::Author;
use crate::happening::{Happening, Via};
use crate::state::Agent;
use crate::world::World;

impl World<'_> {
    /// Makes an agent the one whose turn it is; false if it lives no more.
    pub(crate) fn turn_to(&mut self, life: u64) -> bool {
        if self.agent.life != life {
            let Some(other) = self.others.remove(&life) else {
                return false;
            };
            let before = std::mem::replace(&mut self.agent, other);
            self.others.insert(before.life, before);
        }
        self.agent.engine.is_some()
    }

    /// An agent that lives.
    pub(crate) fn agent_of(&self, life: u64) -> Option<&Agent> {
        if self.agent.life == life {
            return self.agent.engine.is_some().then_some(&self.agent);
        }
        self.others.get(&life)
    }

    pub(crate) fn agent_of_mut(&mut self, life: u64) -> Option<&mut Agent> {
        if self.agent.life == life {
            return self.agent.engine.is_some().then_some(&mut self.agent);
        }
        self.others.get_mut(&life)
    }

    /// Those that live.
    pub(crate) fn alive(&self) -> Vec<u64> {
        let present = self.agent.engine.is_some().then_some(self.agent.life);
        let mut lives: Vec<u64> = present.into_iter().chain(self.others.keys().copied()).collect();
        lives.sort_unstable();
        lives
    }

    /// Makes it the turn of any of them; false if none lives.
    pub(crate) fn turn_to_some(&mut self) -> bool {
        let lives = self.alive();
        self.chance.choose(&lives).is_some_and(|life| self.turn_to(life))
    }

    /// A process is started in the place of one that is gone.
    pub(crate) fn replace_agent(&mut self) {
        if self.alive().is_empty() {
            self.start_agent(false);
        }
    }

    /// A second process is started beside the one that lives, and after a while there is one too many.
    pub(crate) fn start_second(&mut self) {
        let ending = self.agent.engine.is_none() || self.agent.is_ending() || self.agent.stopping;
        if self.healed || ending || !self.others.is_empty() {
            return;
        }
        self.start_agent(true);
        let pause = self.chance.millis(500, 180_000);
        self.after(pause, Happening::OneTooMany);
    }

    /// Of two, either is ended: the old one as a rule, but a second may be taken back, too.
    pub(crate) fn end_one(&mut self) {
        let lives = self.alive();
        let (&[first, second], older) = (lives.as_slice(), self.chance.happens(600)) else {
            return;
        };
        let life = if older { first } else { second };
        if !self.turn_to(life) {
            return;
        }
        if self.chance.happens(500) {
            self.hand_over();
        } else {
            self.kill_agent(life);
        }
    }

    /// Makes it the turn of the agent that holds the queue, if nothing holds that up already; its channel and itself.
    fn turn_to_holder(&mut self) -> Option<(u64, u64)> {
        let (channel, life) = self.broker.holder()?;
        let hindered = !self.turn_to(life) || self.agent.is_cut_off(self.now) || self.agent.is_frozen(self.now);
        (!hindered).then_some((channel, life))
    }

    /// Nothing comes through between the broker and the agent that holds the queue. Each of them sees that by itself, or
    /// not before it is over; workers and the platform are there as ever. Meanwhile a second is started.
    pub(crate) fn cut_off(&mut self) {
        let Some((channel, life)) = self.turn_to_holder() else {
            return;
        };
        let until = self.now + self.chance.millis(1_000, 300_000);
        self.agent.cut_until = Some(until);
        let publisher = self.agent.publisher;
        let (agent_sees, broker_sees) = (self.chance.millis(1, 20_000), self.chance.millis(1, 30_000));
        self.after(agent_sees, Happening::AgentGivesUp { life, channel });
        self.after(
            broker_sees,
            Happening::BrokerGivesUp {
                life,
                channel,
                publisher,
            },
        );
        self.second_within(60_000);
    }

    /// The agent that holds the queue stands still. Its workers see that, and so does the broker, if it lasts; and a second
    /// is started.
    pub(crate) fn freeze(&mut self) {
        let Some((channel, life)) = self.turn_to_holder() else {
            return;
        };
        let until = self.now + self.chance.millis(1_000, 200_000);
        self.agent.frozen_until = Some(until);
        let publisher = self.agent.publisher;
        let (workers_see, broker_sees) = (self.chance.millis(10_000, 15_000), self.chance.millis(15_000, 30_000));
        self.after(workers_see, Happening::WorkersGiveUp { life });
        self.after(
            broker_sees,
            Happening::BrokerGivesUp {
                life,
                channel,
                publisher,
            },
        );
        self.second_within(60_000);
    }

    fn second_within(&mut self, millis: u64) {
        let pause = self.chance.millis(1_000, millis);
        self.after(pause, Happening::StartSecond);
    }

    /// It has heard nothing from the broker for too long.
    pub(crate) fn agent_gives_up(&mut self, life: u64, channel: u64) {
        if !self.turn_to(life) || !self.agent.is_cut_off(self.now) {
            return;
        }
        if self.agent.channel == Some(channel) {
            let channel = ChannelEpoch(channel);
            self.agent_receives(life, Via::Process, Input::ConsumerLost { channel });
        }
        if self.agent.publisher.is_some() {
            self.agent_receives(life, Via::Process, Input::PublisherLost);
        }
    }

    /// The broker has heard nothing from an agent for too long, unless it is there again on the same connection.
    pub(crate) fn broker_gives_up(&mut self, life: u64, channel: u64, publisher: Option<u64>) {
        let now = self.now;
        let there = |agent: &&Agent| !agent.is_cut_off(now) && !agent.is_frozen(now);
        let agent = self.agent_of(life).filter(there);
        let consumes = agent.is_some_and(|agent| agent.channel == Some(channel));
        let publishes = agent.is_some_and(|agent| agent.publisher == publisher);
        if !consumes {
            self.break_channel(channel, None);
        }
        if let Some(publisher) = publisher.filter(|_| !publishes) {
            self.break_publisher(publisher);
        }
    }

    /// Workers have heard nothing from an agent for too long, and dial again.
    pub(crate) fn workers_give_up(&mut self, life: u64) {
        if !self.agent_of(life).is_some_and(|agent| agent.is_frozen(self.now)) {
            return;
        }
        let linked = self.machines.iter().filter(|(_, machine)| machine.agent == life);
        let blocks: Vec<BlockId> = linked.map(|(block, _)| *block).collect();
        for block in blocks {
            self.break_link(block, true);
        }
    }

    /// Until when something that is due now has to wait, because its agent stands still or is cut off.
    pub(crate) fn held_up(&self, happening: &Happening) -> Option<Time> {
        let frozen = |life: u64| self.agent_of(life)?.frozen_until;
        let cut = |life: u64| self.agent_of(life)?.cut_until;
        let until = match happening {
            Happening::ToAgent { life, via, .. } => match via {
                Via::Channel(_) | Via::Publisher(_) => frozen(*life).max(cut(*life)),
                Via::Worker(_) | Via::Process => frozen(*life),
            },
            Happening::ConnectConsumer { life } | Happening::ConnectPublisher { life } => frozen(*life).max(cut(*life)),
            Happening::KeepResults { life } | Happening::Wake { life } => frozen(*life),
            Happening::ToBroker { channel, .. } => cut(self.broker.channels.get(channel)?.life),
            Happening::Publish { publisher, .. } => cut(*self.broker.publishers.get(publisher)?),
            _ => None,
        };
        until.filter(|until| *until > self.now)
    }

    /// An agent has the queue.
    pub(super) fn note_holder(&mut self, life: u64) {
        let alone = self.others.is_empty();
        if self.last_holder.replace(life).is_some_and(|before| before != life) && !alone {
            self.mark("the queue goes to another agent");
        }
    }

    /// Who does something, and what it may know.
    pub(super) fn author(&self, life: u64) -> Author {
        self.agent_of(life).map_or_else(Author::default, |agent| Author {
            epoch: agent.epoch,
            disk: agent.disk,
            held_since: agent.held_since,
        })
    }

    /// An agent's turn may come long after it was due: how long another holds the queue, whatever it may think.
    pub(crate) fn is_deposed(&self) -> bool {
        self.broker.holder().is_some_and(|(_, life)| life != self.agent.life)
    }

    /// How long a worker waits for an agent that does not answer.
    pub(crate) const DIAL_TIMEOUT: Duration = Duration::from_secs(10);
}
