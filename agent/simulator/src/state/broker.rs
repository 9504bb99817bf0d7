use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bytes::Bytes;
use waypost_engine::TaskId;

/// One queue of tasks, its one consumer, the channels of those who had tasks of it, and everything that was ever
/// published as a result.
#[derive(Debug)]
pub(crate) struct Broker {
    pub(crate) up: bool,
    pub(crate) ready: VecDeque<Message>,
    /// By their epochs.
    pub(crate) channels: BTreeMap<u64, Channel>,
    /// The channels for results, and the lives that they are of.
    pub(crate) publishers: BTreeMap<u64, u64>,
    /// Another agent, which does nothing else, holds the queue until then.
    pub(crate) held_by_other: Option<waypost_engine::Time>,
    /// The results that were taken, in their order.
    pub(crate) results: BTreeMap<TaskId, Vec<Bytes>>,
    /// The tasks of which a delivery was acknowledged.
    pub(crate) acknowledged: BTreeSet<TaskId>,
    pub(crate) quorum: bool,
    /// A quorum queue drops what comes back to it more often than this.
    pub(crate) delivery_limit: Option<u64>,
    /// The tasks of which it has dropped a message.
    pub(crate) dropped: BTreeSet<TaskId>,
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct Message {
    pub(crate) task: TaskId,
    pub(crate) deliveries: u64,
    /// How many of them the agent asked for, so that none would be too old.
    pub(crate) refreshed: u64,
}

#[derive(Debug)]
pub(crate) struct Channel {
    /// Whose it is.
    pub(crate) life: u64,
    pub(crate) unacknowledged: BTreeMap<u64, Unacknowledged>,
    pub(crate) next_tag: u64,
    pub(crate) consumer: Option<Consumer>,
    pub(crate) consumers: u64,
    /// Deliveries are not overtaken by later ones.
    pub(crate) clock: waypost_engine::Time,
}

/// The present consumer. What came by the one before does not count towards its window.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Consumer {
    pub(crate) number: u64,
    pub(crate) window: u32,
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct Unacknowledged {
    pub(crate) message: Message,
    pub(crate) consumer: u64,
}

impl Broker {
    pub(crate) const fn new(quorum: bool, delivery_limit: Option<u64>) -> Self {
        Self {
            up: true,
            ready: VecDeque::new(),
            channels: BTreeMap::new(),
            publishers: BTreeMap::new(),
            held_by_other: None,
            results: BTreeMap::new(),
            acknowledged: BTreeSet::new(),
            quorum,
            delivery_limit,
            dropped: BTreeSet::new(),
        }
    }

    /// The channel with the one consumer, and the life that it is of.
    pub(crate) fn holder(&self) -> Option<(u64, u64)> {
        let mut held = self.channels.iter().filter(|(_, channel)| channel.consumer.is_some());
        held.next().map(|(epoch, channel)| (*epoch, channel.life))
    }

    /// A life's channel, or what the broker still takes for one.
    pub(crate) fn channel_of(&self, life: u64) -> Option<u64> {
        let mut channels = self.channels.iter().filter(|(_, channel)| channel.life == life);
        channels.next().map(|(epoch, _)| *epoch)
    }

    /// Takes a message back, or drops it: false.
    pub(crate) fn requeue(&mut self, message: Message) -> bool {
        if self.delivery_limit.is_some_and(|limit| message.deliveries > limit) {
            self.dropped.insert(message.task);
            return false;
        }
        self.ready.push_front(message);
        true
    }
}
