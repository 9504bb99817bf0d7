use std::collections::{BTreeMap, BTreeSet};

use crate::state::launch::Launch;
use crate::{BlockEnd, BlockEndKind, BlockId, TaskId, Time, WorkerId};

/// One block that exists, or was asked for.
#[derive(Debug)]
pub(crate) struct Block {
    pub(crate) phase: Phase,
    /// Its worker's session, if the link is up.
    pub(crate) worker: Option<WorkerId>,
    pub(crate) slots: u32,
    /// How many tasks more its worker will take.
    pub(crate) credit: u32,
    /// Its worker takes no more tasks.
    pub(crate) draining: bool,
    /// The tasks that it owns.
    pub(crate) given: BTreeSet<TaskId>,
    /// How many of them were asked back.
    pub(crate) recalled: u32,
    /// How many results from here are not settled, so that its worker must keep them.
    pub(crate) unsettled: u32,
    /// Bytes of results that its worker may still send.
    pub(crate) result_credit: i64,
    /// What that was when it was last granted.
    pub(crate) result_window: i64,
    /// Since when it has had nothing to do, if it has not.
    pub(crate) idle_since: Time,
    /// When it was started, found, or said hello for the first time.
    pub(crate) since: Time,
    /// It ran a task to its end, so that whatever ends it is no failure to start.
    pub(crate) proven: bool,
    /// How often its deletion was asked for, or would have been if that were ours to do.
    pub(crate) deletions: u32,
    /// Its deletion was asked for: whatever its worker says, it will be gone.
    pub(crate) is_doomed: bool,
    /// How far it is, while it is starting.
    pub(crate) launch: Launch,
    /// Why it is given up though it never said hello: told once it is gone, with its last words.
    pub(crate) failure: Option<BlockEnd>,
    /// The platform is ending it, for this reason.
    pub(crate) ending: Option<BlockEnd>,
}

/// Where a block is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Asked for; its worker has not said hello.
    Starting,
    /// Its worker is there.
    Up,
    /// Its worker's link is gone, and may come back.
    Silent { since: Time },
    /// It was silent for too long: its tasks were given up.
    GivenUp { since: Time },
    /// It was told to drain, and should end by itself.
    Draining,
    /// Its deletion was asked for.
    Deleting,
}

impl Block {
    pub(crate) const fn new(phase: Phase, now: Time) -> Self {
        Self {
            phase,
            worker: None,
            slots: 0,
            credit: 0,
            draining: false,
            given: BTreeSet::new(),
            recalled: 0,
            unsettled: 0,
            result_credit: 0,
            result_window: 1,
            idle_since: now,
            since: now,
            proven: false,
            deletions: 0,
            is_doomed: false,
            launch: Launch::new(now),
            failure: None,
            ending: None,
        }
    }

    /// It counts towards the blocks that are wanted.
    pub(crate) const fn is_live(&self) -> bool {
        !self.draining && matches!(self.phase, Phase::Starting | Phase::Up | Phase::Silent { .. })
    }

    /// It counts towards the most blocks that may exist. One on a node that is lost stays on record until the node is back
    /// or removed, which may be never, and uses nothing that another could have.
    pub(crate) fn counts(&self) -> bool {
        self.ending
            .as_ref()
            .is_none_or(|end| end.kind != BlockEndKind::NodeLost)
    }

    /// It may yet run tasks: nothing that is known stands in its way.
    pub(crate) fn is_hopeful(&self) -> bool {
        self.is_live() && !(self.phase == Phase::Starting && self.launch.is_obstructed())
    }

    /// It may be ended for want of work.
    pub(crate) fn is_idle(&self) -> bool {
        self.phase == Phase::Up && !self.draining && self.given.is_empty() && self.unsettled == 0
    }

    /// It may be given tasks.
    pub(crate) const fn takes_tasks(&self) -> bool {
        matches!(self.phase, Phase::Up) && !self.draining && self.worker.is_some() && self.credit > 0
    }

    fn given_count(&self) -> u32 {
        u32::try_from(self.given.len()).unwrap_or(u32::MAX)
    }
}

/// A place in the order in which blocks are given tasks: those with an idle slot first, and of these the fullest, so
/// that idle blocks stay idle and can be ended; then those with the fewest tasks queued.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Preference {
    /// No slot is idle: a task would wait in the worker.
    pub(crate) queues: bool,
    distance: u32,
    pub(crate) block: BlockId,
}

/// What is indexed of one block.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Keys {
    preference: Option<Preference>,
    crowded: Option<(u32, BlockId)>,
    low: Option<BlockId>,
    idle: Option<(Time, BlockId)>,
    idle_slots: u32,
    slots: u32,
    recalled: u32,
    live: bool,
    starting: bool,
    up: bool,
    hopeful: bool,
    obstructed: Option<BlockId>,
    failed: bool,
    counts: bool,
}

/// All blocks, with the indexes that follow from them. Every change goes through [`Blocks::change`].
#[derive(Debug, Default)]
pub(crate) struct Blocks {
    table: BTreeMap<BlockId, (Block, Keys)>,
    sessions: BTreeMap<WorkerId, BlockId>,
    index: Index,
}

#[derive(Debug, Default, PartialEq, Eq)]
struct Index {
    preferences: BTreeSet<Preference>,
    crowded: BTreeSet<(u32, BlockId)>,
    low: BTreeSet<BlockId>,
    idle: BTreeSet<(Time, BlockId)>,
    idle_slots: u32,
    slots: u32,
    recalled: u32,
    live: u32,
    starting: u32,
    up: u32,
    hopeful: u32,
    obstructed: BTreeSet<BlockId>,
    failed: u32,
    existing: u32,
}

impl Index {
    fn leave(&mut self, keys: &Keys) {
        if let Some(preference) = keys.preference {
            self.preferences.remove(&preference);
        }
        if let Some(crowded) = keys.crowded {
            self.crowded.remove(&crowded);
        }
        if let Some(low) = keys.low {
            self.low.remove(&low);
        }
        if let Some(idle) = keys.idle {
            self.idle.remove(&idle);
        }
        self.idle_slots -= keys.idle_slots;
        self.slots -= keys.slots;
        self.recalled -= keys.recalled;
        self.live -= u32::from(keys.live);
        self.starting -= u32::from(keys.starting);
        self.up -= u32::from(keys.up);
        self.hopeful -= u32::from(keys.hopeful);
        self.failed -= u32::from(keys.failed);
        self.existing -= u32::from(keys.counts);
        if let Some(obstructed) = keys.obstructed {
            self.obstructed.remove(&obstructed);
        }
    }

    fn enter(&mut self, keys: &Keys) {
        self.preferences.extend(keys.preference);
        self.crowded.extend(keys.crowded);
        self.low.extend(keys.low);
        self.idle.extend(keys.idle);
        self.idle_slots += keys.idle_slots;
        self.slots += keys.slots;
        self.recalled += keys.recalled;
        self.live += u32::from(keys.live);
        self.starting += u32::from(keys.starting);
        self.up += u32::from(keys.up);
        self.hopeful += u32::from(keys.hopeful);
        self.failed += u32::from(keys.failed);
        self.existing += u32::from(keys.counts);
        self.obstructed.extend(keys.obstructed);
    }
}

fn keys(id: BlockId, block: &Block) -> Keys {
    let given = block.given_count();
    let queued = given.saturating_sub(block.slots).saturating_sub(block.recalled);
    let takes_tasks = block.takes_tasks();
    Keys {
        preference: takes_tasks.then(|| Preference {
            queues: given >= block.slots,
            distance: given.abs_diff(block.slots),
            block: id,
        }),
        crowded: (block.phase == Phase::Up && queued > 0).then_some((queued, id)),
        low: (block.worker.is_some() && block.result_credit * 2 < block.result_window).then_some(id),
        idle: block.is_idle().then_some((block.idle_since, id)),
        idle_slots: if takes_tasks {
            block.slots.saturating_sub(given).min(block.credit)
        } else {
            0
        },
        slots: if block.phase == Phase::Up { block.slots } else { 0 },
        recalled: block.recalled,
        live: block.is_live(),
        starting: block.phase == Phase::Starting,
        up: block.phase == Phase::Up,
        hopeful: block.is_hopeful(),
        obstructed: (block.is_live() && !block.is_hopeful()).then_some(id),
        failed: block.failure.is_some(),
        counts: block.counts(),
    }
}

impl Blocks {
    pub(crate) fn get(&self, id: BlockId) -> Option<&Block> {
        self.table.get(&id).map(|(block, _)| block)
    }

    pub(crate) fn insert(&mut self, id: BlockId, block: Block) {
        let keys = keys(id, &block);
        self.index.enter(&keys);
        self.table.insert(id, (block, keys));
    }

    /// Changes a block and whatever follows from it.
    pub(crate) fn change<R>(&mut self, id: BlockId, now: Time, change: impl FnOnce(&mut Block) -> R) -> Option<R> {
        let (block, before) = self.table.get_mut(&id)?;
        let was_idle = before.idle.is_some();
        let result = change(block);
        if !was_idle && block.is_idle() {
            block.idle_since = now;
        }
        let after = keys(id, block);
        if *before != after {
            self.index.leave(before);
            self.index.enter(&after);
            *before = after;
        }
        Some(result)
    }

    pub(crate) fn remove(&mut self, id: BlockId) -> Option<Block> {
        let (block, keys) = self.table.remove(&id)?;
        self.index.leave(&keys);
        if let Some(worker) = block.worker {
            self.sessions.remove(&worker);
        }
        Some(block)
    }

    /// Begins a worker's session with a block; the session before, if any, is over.
    pub(crate) fn begin_session(&mut self, id: BlockId, worker: WorkerId, now: Time) {
        if let Some(Some(before)) = self.change(id, now, |block| block.worker.replace(worker)) {
            self.sessions.remove(&before);
        }
        self.sessions.insert(worker, id);
    }

    /// Ends a session, and says whose it was.
    pub(crate) fn end_session(&mut self, worker: WorkerId, now: Time) -> Option<BlockId> {
        let id = self.sessions.remove(&worker)?;
        self.change(id, now, |block| {
            block.worker = None;
            block.credit = 0;
            block.result_credit = 0;
            block.result_window = 1;
        });
        Some(id)
    }

    /// The block whose worker's present session this is.
    pub(crate) fn of_worker(&self, worker: WorkerId) -> Option<BlockId> {
        self.sessions.get(&worker).copied()
    }

    /// The block to give the next task to.
    pub(crate) fn preferred(&self) -> Option<Preference> {
        self.index.preferences.first().copied()
    }

    /// The block with the most tasks queued behind its slots.
    pub(crate) fn most_crowded(&self) -> Option<BlockId> {
        self.index.crowded.last().map(|(_, id)| *id)
    }

    /// Blocks whose workers have used up more than half of their credit for results.
    pub(crate) fn short_of_result_credit(&self) -> Vec<BlockId> {
        // Called after every input: nothing is allocated if there are none.
        self.index.low.iter().copied().collect()
    }

    /// Brings a block's credit for results up to so many bytes: how many more these are, and for whom.
    pub(crate) fn grant_result_credit(&mut self, id: BlockId, credit: u64, now: Time) -> Option<(u64, WorkerId)> {
        let credit = i64::try_from(credit).unwrap_or(i64::MAX);
        self.change(id, now, |block| {
            let granted = credit.saturating_sub(block.result_credit).max(0);
            block.result_credit = block.result_credit.max(credit);
            block.result_window = credit;
            Some((u64::try_from(granted).ok().filter(|bytes| *bytes > 0)?, block.worker?))
        })?
    }

    /// The block that has been idle for longest, and since when.
    pub(crate) fn longest_idle(&self) -> Option<(Time, BlockId)> {
        self.index.idle.first().copied()
    }

    /// Slots that have no task and a worker that would take one.
    pub(crate) const fn idle_slots(&self) -> u32 {
        self.index.idle_slots
    }

    /// Slots of workers that are there.
    pub(crate) const fn slots(&self) -> u32 {
        self.index.slots
    }

    /// Tasks that were asked back, without an answer so far.
    pub(crate) const fn recalled(&self) -> u32 {
        self.index.recalled
    }

    pub(crate) const fn live(&self) -> u32 {
        self.index.live
    }

    pub(crate) const fn starting(&self) -> u32 {
        self.index.starting
    }

    pub(crate) const fn up(&self) -> u32 {
        self.index.up
    }

    /// Blocks that may yet run tasks, or do.
    pub(crate) const fn hopeful(&self) -> u32 {
        self.index.hopeful
    }

    /// The latest of the blocks that are starting and have something in their way.
    pub(crate) fn latest_obstructed(&self) -> Option<BlockId> {
        self.index.obstructed.last().copied()
    }

    /// How many have something in their way.
    pub(crate) fn obstructed(&self) -> usize {
        self.index.obstructed.len()
    }

    /// Blocks that were given up before their hello, and are not gone yet.
    pub(crate) const fn failed(&self) -> u32 {
        self.index.failed
    }

    /// Blocks that exist or may exist, and count towards the most that may.
    pub(crate) const fn existing(&self) -> u32 {
        self.index.existing
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.table.is_empty()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (BlockId, &Block)> + '_ {
        self.table.iter().map(|(id, (block, _))| (*id, block))
    }

    pub(crate) fn ids(&self) -> Vec<BlockId> {
        self.table.keys().copied().collect()
    }

    /// Whether the indexes are what the table says.
    pub(crate) fn agree(&self) -> bool {
        let mut fresh = Index::default();
        for (id, (block, _)) in &self.table {
            fresh.enter(&keys(*id, block));
        }
        let sessions = self
            .table
            .iter()
            .filter_map(|(id, (block, _))| Some((block.worker?, *id)))
            .collect();
        fresh == self.index && self.sessions == sessions
    }
}
