use std::collections::{BTreeMap, BTreeSet};

use waypost_engine::{BlockId, Engine, JournalRecord, TaskId, Time, WorkerId};

/// The process around the engine: what it keeps in memory, and what outlives it.
#[derive(Default)]
pub(crate) struct Agent {
    /// Counts processes.
    pub(crate) life: u64,
    /// Counts engines: one that stood by begins with another when the queue is its own again.
    pub(crate) epoch: u64,
    pub(crate) engine: Option<Engine>,
    pub(crate) listening: bool,
    pub(crate) channel: Option<u64>,
    pub(crate) publisher: Option<u64>,
    /// It has held the queue.
    pub(crate) has_consumed: bool,
    /// It was told to consume no more.
    pub(crate) consumes_no_more: bool,
    /// Since when the broker has refused it the queue.
    pub(crate) refused_since: Option<Time>,
    /// The agent's side of the links.
    pub(crate) links: BTreeMap<WorkerId, BlockId>,
    /// Blocks whose workers have said hello to this engine: since when it has heard no more of one.
    pub(crate) silent_since: BTreeMap<BlockId, Option<Time>>,
    /// Workers that may be sent nothing more.
    pub(crate) draining: BTreeSet<WorkerId>,
    /// Blocks that it has heard of and has not heard the end of, but for those on nodes that are lost.
    pub(crate) known: BTreeSet<BlockId>,
    /// Blocks of which it has heard that their node is lost.
    pub(crate) on_lost_nodes: BTreeSet<BlockId>,
    /// When it started blocks, since a worker last said hello.
    pub(crate) starts: Vec<Time>,
    /// Since when its engine has held the queue at least at times.
    pub(crate) held_since: Option<Time>,
    /// When its engine began.
    pub(crate) born: Time,
    pub(crate) wake: Option<Time>,
    pub(crate) idle_turns: u32,
    pub(crate) stopping: bool,
    /// It stops to be started again.
    pub(crate) pausing: bool,
    pub(crate) handing_over: bool,
    /// Another holds the queue, and it has been told so.
    pub(crate) standby: bool,
    pub(crate) drained: bool,
    pub(crate) knows_timeout: bool,
    /// Its disk, which it has from the process before, and no other has.
    pub(crate) disk: u64,
    /// What is on its disk.
    pub(crate) journal: Vec<JournalRecord>,
    pub(crate) accepted: BTreeSet<TaskId>,
    pub(crate) journal_fails: bool,
    /// Nothing comes through between it and the broker until then.
    pub(crate) cut_until: Option<Time>,
    /// Its process stands still until then.
    pub(crate) frozen_until: Option<Time>,
    pub(crate) channel_clock: Time,
    pub(crate) publisher_clock: Time,
    pub(crate) link_clocks: BTreeMap<WorkerId, Time>,
    pub(crate) journal_clock: Time,
}

impl Agent {
    /// It hands over or pauses.
    pub(crate) const fn is_ending(&self) -> bool {
        self.handing_over || self.pausing
    }

    pub(crate) fn is_cut_off(&self, now: Time) -> bool {
        self.cut_until.is_some_and(|until| until > now)
    }

    pub(crate) fn is_frozen(&self, now: Time) -> bool {
        self.frozen_until.is_some_and(|until| until > now)
    }

    /// As far as it can know, nobody else acts for the endpoint: it holds the queue, or ends the endpoint with all that
    /// it has.
    pub(crate) const fn may_act(&self) -> bool {
        self.stopping || self.channel.is_some() && !self.standby && !self.consumes_no_more
    }
}
