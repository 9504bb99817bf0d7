use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bytes::Bytes;
use waypost_engine::TaskId;

/// One queue of tasks, its one consumer, and everything that was ever published as a result.
#[derive(Debug)]
pub(crate) struct Broker {
    pub(crate) up: bool,
    pub(crate) ready: VecDeque<Message>,
    pub(crate) channel: Option<Channel>,
    pub(crate) publisher: Option<u64>,
    /// Another agent holds the queue until then.
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
    pub(crate) epoch: u64,
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
            channel: None,
            publisher: None,
            held_by_other: None,
            results: BTreeMap::new(),
            acknowledged: BTreeSet::new(),
            quorum,
            delivery_limit,
            dropped: BTreeSet::new(),
        }
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
