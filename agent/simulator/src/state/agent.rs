use std::collections::{BTreeMap, BTreeSet};

use waypost_engine::{BlockId, Engine, JournalRecord, TaskId, Time, WorkerId};

/// The process around the engine: what it keeps in memory, and what outlives it.
#[derive(Default)]
pub(crate) struct Agent {
    pub(crate) life: u64,
    pub(crate) engine: Option<Engine>,
    pub(crate) listening: bool,
    pub(crate) channel: Option<u64>,
    pub(crate) publisher: Option<u64>,
    /// The agent's side of the links.
    pub(crate) links: BTreeMap<WorkerId, BlockId>,
    /// Workers that may be sent nothing more.
    pub(crate) draining: BTreeSet<WorkerId>,
    /// Blocks that it has heard of and has not heard the end of, but for those on nodes that are lost.
    pub(crate) known: BTreeSet<BlockId>,
    /// Blocks of which it has heard that their node is lost.
    pub(crate) on_lost_nodes: BTreeSet<BlockId>,
    /// When it started blocks, since a worker last said hello.
    pub(crate) starts: Vec<Time>,
    pub(crate) born: Time,
    pub(crate) wake: Option<Time>,
    pub(crate) idle_turns: u32,
    pub(crate) stopping: bool,
    /// It stops to be started again.
    pub(crate) pausing: bool,
    pub(crate) handing_over: bool,
    pub(crate) fenced: bool,
    pub(crate) drained: bool,
    pub(crate) knows_timeout: bool,
    /// What is on its disk.
    pub(crate) journal: Vec<JournalRecord>,
    pub(crate) accepted: BTreeSet<TaskId>,
    pub(crate) journal_fails: bool,
    pub(crate) channel_clock: Time,
    pub(crate) publisher_clock: Time,
    pub(crate) link_clocks: BTreeMap<WorkerId, Time>,
    pub(crate) journal_clock: Time,
}

impl Agent {
    /// It hands over or pauses, or somebody else has taken over.
    pub(crate) const fn is_ending(&self) -> bool {
        self.handing_over || self.pausing || self.fenced
    }
}
