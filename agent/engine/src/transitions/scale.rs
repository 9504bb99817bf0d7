use crate::mutation::Mutation;
use crate::scaling::{self, Census, Wanted};
use crate::state::block::{Block, Phase};
use crate::state::timers::Timer;
use crate::{BlockId, Event, Output, Time};

impl crate::Engine {
    /// Starts and ends blocks as tasks come and go.
    pub(crate) fn scale(&mut self) {
        if !self.holds_queue || self.ending.is_some() {
            self.timers.clear(Timer::IdleBlock);
            self.timers.clear(Timer::StartPutOff);
            return;
        }
        let live = self.blocks.live();
        let wanted = self
            .scaler
            .with_initial(&self.settings.scaling, self.wanted_blocks().blocks, live);
        let census = Census {
            live,
            existing: if self.mutated(Mutation::IgnoreCap) {
                0
            } else {
                self.blocks.existing()
            },
            starting: self.blocks.starting(),
            awaits_words: self.blocks.failed() > 0 && self.blocks.hopeful() == 0,
        };
        let due = self.due(wanted, live);
        for _ in 0..self.scaler.missing(&self.settings.scaling, due, census, self.now) {
            self.start_block();
        }
        if let Some(until) = self.scaler.paused_until(self.now) {
            self.timers.set(Timer::StartBackOff, until);
        }
        self.end_surplus(wanted);
    }

    /// How many of the wanted blocks there should be now. What the slots in hand take sooner than another block could come
    /// up is not what it would be started for, unless that has been thought for as long.
    fn due(&mut self, wanted: u32, live: u32) -> u32 {
        self.timers.clear(Timer::StartPutOff);
        if wanted <= live {
            self.pace.no_shortage();
            return wanted;
        }
        let over = self.pace.shortage(self.now) + self.pace.lag();
        if live == 0 || over <= self.now {
            return wanted;
        }
        let later = self.wanted_without(self.pace.soon_ended(self.now)).blocks;
        let due = self
            .scaler
            .with_initial(&self.settings.scaling, later, live)
            .min(wanted);
        if due < wanted {
            self.timers.set(Timer::StartPutOff, over);
        }
        due
    }

    /// How many blocks there should be for what is in hand and what waits at the broker.
    pub(crate) fn wanted_blocks(&self) -> Wanted {
        self.wanted_without(0)
    }

    /// The same, if so many tasks were over.
    fn wanted_without(&self, ended: u64) -> Wanted {
        let outstanding = self.tasks.outstanding() as u64 + self.depth.ready();
        let outstanding = outstanding.saturating_sub(ended);
        scaling::wanted_blocks(&self.settings.scaling, self.settings.slots_per_block, outstanding)
    }

    fn start_block(&mut self) {
        let id = self.scaler.next_name();
        self.blocks.insert(id, Block::new(Phase::Starting, self.now));
        self.set_launch_timer(id);
        self.outputs.push_back(Output::StartBlock { block: id });
        self.event(Event::BlockStarting { block: id });
    }

    /// Ends blocks that are not wanted, once that has been so for a while: first those that may never run, then those
    /// that are idle. One that is starting and has nothing in its way is let come up.
    fn end_surplus(&mut self, wanted: u32) {
        if self.blocks.live() <= wanted {
            self.scaler.no_surplus();
        }
        while self.blocks.live() > wanted {
            let lag = self.deletion_lag();
            let lag_over = self.scaler.surplus(self.now) + lag;
            let idletime = self.settings.scaling.max_idletime.max(lag);
            let (due, id) = match (self.blocks.latest_obstructed(), self.longest_idle()) {
                (Some(id), _) => (lag_over, id),
                (None, Some((since, id))) => (lag_over.max(since + idletime), id),
                (None, None) => break,
            };
            if due > self.now {
                self.timers.set(Timer::IdleBlock, due);
                return;
            }
            if self.blocks.get(id).is_some_and(|block| block.phase == Phase::Starting) {
                self.delete_block(id);
            } else {
                self.end_idle_block(id);
            }
        }
        self.timers.clear(Timer::IdleBlock);
    }

    fn deletion_lag(&self) -> std::time::Duration {
        if self.mutated(Mutation::EndAtOnce) {
            return std::time::Duration::ZERO;
        }
        self.settings.scaling.deletion_lag
    }

    fn end_idle_block(&mut self, id: BlockId) {
        let idle_for = self
            .blocks
            .get(id)
            .map_or_else(Default::default, |block| self.now.since(block.idle_since));
        self.drain_block(id);
        self.blocks.change(id, self.now, |block| block.phase = Phase::Draining);
        self.timers
            .set(Timer::BlockTimeout(id), self.now + self.settings.scaling.drain_timeout);
        self.event(Event::BlockDraining { block: id, idle_for });
        if self.mutated(Mutation::DeleteBusyBlock) {
            self.delete_block(id);
        }
    }

    fn longest_idle(&self) -> Option<(Time, BlockId)> {
        if self.mutated(Mutation::DeleteBusyBlock) {
            return self
                .blocks
                .iter()
                .find(|(_, block)| block.phase == Phase::Up)
                .map(|(id, block)| (block.since, id));
        }
        self.blocks.longest_idle()
    }
}
