use crate::mutation::Mutation;
use crate::state::block::Phase;
use crate::state::timers::Timer;
use crate::transitions::drain::Ending;
use crate::{BlockEnd, BlockId, Cause, Event, Waiting, WaitingCause};

impl crate::Engine {
    /// Sets the time by which a block that is starting must be further than it is.
    pub(crate) fn set_launch_timer(&mut self, id: BlockId) {
        let Some(block) = self.blocks.get(id).filter(|block| block.phase == Phase::Starting) else {
            return;
        };
        match block.launch.deadline(&self.settings.scaling) {
            Some(at) => self.timers.set(Timer::BlockTimeout(id), at),
            None => self.timers.clear(Timer::BlockTimeout(id)),
        }
    }

    /// A block exists. One of ours that we do not know has as long to say hello as any.
    fn enter_observed(&mut self, id: BlockId) {
        if self.blocks.get(id).is_none() {
            self.found_block(id, Phase::Starting);
            self.set_launch_timer(id);
            if matches!(self.ending, Some(Ending::Stop { .. })) {
                self.delete_block(id);
            }
        }
    }

    pub(crate) fn on_block_pending(&mut self, id: BlockId, why: Option<Waiting>) {
        self.enter_observed(id);
        // It was found at the start, but its worker has never run: nothing can be lost with it.
        let found = self.blocks.get(id).is_some_and(|block| {
            matches!(block.phase, Phase::Silent { .. }) && block.slots == 0 && block.given.is_empty()
        });
        if found {
            self.blocks.change(id, self.now, |block| block.phase = Phase::Starting);
            self.timers.clear(Timer::WorkerGrace(id));
            self.block_answered(id);
        }
        let now = self.now;
        let news = self.blocks.change(id, now, |block| {
            block.phase == Phase::Starting && block.launch.pending(why.clone(), now)
        });
        self.set_launch_timer(id);
        if let Some(waiting) = why.filter(|_| news == Some(true)) {
            self.event(Event::BlockWaiting { block: id, waiting });
        }
    }

    pub(crate) fn on_block_running(&mut self, id: BlockId) {
        self.enter_observed(id);
        let now = self.now;
        self.blocks.change(id, now, |block| block.launch.running(now));
        self.set_launch_timer(id);
    }

    /// The platform is ending a block: it gets no more tasks, and does not count as one that is wanted.
    pub(crate) fn on_block_ending(&mut self, id: BlockId, end: BlockEnd) {
        let Some(phase) = self.blocks.get(id).map(|block| block.phase) else {
            return;
        };
        if matches!(phase, Phase::Draining | Phase::Deleting) || self.mutated(Mutation::IgnoreEnding) {
            return;
        }
        let (lost, counted) = (end.kind == crate::BlockEndKind::NodeLost, end.clone());
        self.blocks.change(id, self.now, |block| {
            block.draining = true;
            block.credit = 0;
            block.ending = Some(counted);
        });
        self.event(Event::BlockEnding { block: id, end });
        // Who is silent on a node that is lost does not come back.
        if lost && matches!(phase, Phase::Silent { .. }) {
            self.timers.clear(Timer::WorkerGrace(id));
            self.on_grace_over(id);
        }
    }

    /// A block that is starting has had all the time that there is for the step at which it is.
    pub(crate) fn on_launch_due(&mut self, id: BlockId) {
        let now = self.now;
        let Some(block) = self.blocks.get(id) else { return };
        if block.launch.deadline(&self.settings.scaling).is_none_or(|at| at > now) {
            self.set_launch_timer(id);
            return;
        }
        let waits_for_node = block
            .launch
            .waiting()
            .is_some_and(|waiting| waiting.cause == WaitingCause::Scheduling);
        if waits_for_node && self.blocks.hopeful() > 0 {
            // Tasks run elsewhere meanwhile, and a node may still come for it.
            self.blocks.change(id, now, |block| block.launch.wait_on(now));
            self.set_launch_timer(id);
            return;
        }
        let failure = block.launch.failure(&self.settings.scaling);
        self.blocks.change(id, now, |block| block.failure = Some(failure));
        self.delete_block(id);
    }

    /// A block did not come to be. If nothing else comes up either, the tasks that wait for one are told why: at once if
    /// it had all the time that it was to have, or after so many in a row.
    pub(crate) fn start_failed(&mut self, id: BlockId, end: BlockEnd) {
        let (failures, until) = self
            .scaler
            .failed(&self.settings.scaling, &mut self.random, id, end.clone(), self.now);
        let again_in = if self.mutated(Mutation::NoStartBackOff) {
            self.scaler.forget_pause();
            Default::default()
        } else {
            until.since(self.now)
        };
        self.event(Event::BlockStartFailed {
            block: id,
            end: end.clone(),
            failures,
            again_in,
        });
        if self.blocks.hopeful() > 0 || !self.scaler.gives_up(&self.settings.scaling, self.now) {
            return;
        }
        let waiting = self.tasks.all_waiting();
        if self.scaler.open_circuit() {
            let (end, tasks) = (end.clone(), waiting.len());
            self.event(Event::CircuitOpened { failures, end, tasks });
        }
        if self.mutated(Mutation::TellNobody) {
            return;
        }
        for task in waiting {
            let cause = Cause::NoBlockStarts {
                failures,
                end: end.clone(),
            };
            self.fail(task, cause, None, None);
        }
    }
}
