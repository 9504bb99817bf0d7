use crate::mutation::Mutation;
use crate::state::task::{State, Step};
use crate::state::timers::Timer;
use crate::transitions::drain::Ending;
use crate::transitions::journal::Pending;
use crate::{BlockId, Event, JournalRecord, Output, PublishId, PublishOutcome, TaskId, ToWorker};

/// The least that a worker's credit for results is, in bytes.
const RESULT_CREDIT_MIN: u64 = 64 * 1024;
/// The most that it is: more would not be faster, and only fill the memory.
const RESULT_CREDIT_MAX: u64 = 32 * 1024 * 1024;
/// So many bytes of results go into the journal at a time: what is written is copied first.
const KEPT_AT_A_TIME: usize = 8 * 1024 * 1024;

impl crate::Engine {
    /// Publishes every result that waits for it.
    pub(crate) fn publish_due(&mut self) {
        while self.publisher_up
            && !self.keeps_results()
            && let Some(id) = self.tasks.first_due()
        {
            self.next_publish += 1;
            let publish = PublishId(self.next_publish);
            self.tasks.set_step(id, Step::Published(publish));
            self.publishes.insert(publish, id);
            let now = self.now;
            let Some(done) = self.tasks.done_mut(id) else { return };
            done.publishes += 1;
            done.first_published.get_or_insert(now);
            let body = done.body.clone();
            self.outputs.push_back(Output::Publish {
                publish,
                task: id,
                body,
            });
            if self.mutated(Mutation::AckEarly)
                && let Some(tag) = self.tasks.get(id).and_then(|task| task.delivery)
            {
                self.ledger.settle(tag);
            }
        }
    }

    pub(crate) fn on_publisher_started(&mut self) {
        self.publisher_up = true;
    }

    /// What became of the publishes in flight is unknown, so they are published again as soon as that is possible.
    pub(crate) fn on_publisher_lost(&mut self) {
        self.publisher_up = false;
        if self.mutated(Mutation::DropUnknownPublish) {
            return;
        }
        for (_, id) in std::mem::take(&mut self.publishes) {
            let outcome = PublishOutcome::Unknown;
            self.event(Event::PublishFailed {
                task: id,
                outcome,
                again_in: None,
            });
            self.tasks.set_step(id, Step::Due);
        }
    }

    pub(crate) fn on_publish_outcome(&mut self, publish: PublishId, outcome: PublishOutcome) {
        let Some(id) = self.publishes.remove(&publish) else {
            return;
        };
        match outcome {
            PublishOutcome::Confirmed => self.on_confirmed(id),
            PublishOutcome::Returned if self.mutated(Mutation::TrustReturned) => self.on_confirmed(id),
            PublishOutcome::Returned | PublishOutcome::Nacked | PublishOutcome::Unknown => self.pause(id, outcome),
        }
    }

    fn on_confirmed(&mut self, id: TaskId) {
        let entry = self.journal(JournalRecord::Settled { task: id, at: self.now }, Pending::Settled(id));
        self.tasks.set_step(id, Step::Settling(entry));
        let now = self.now;
        if let Some(done) = self.tasks.done_mut(id) {
            let took = done
                .first_published
                .map_or_else(Default::default, |first| now.since(first));
            let publishes = done.publishes;
            self.event(Event::ResultConfirmed {
                task: id,
                took,
                publishes,
            });
        }
    }

    /// The broker would not have it: it is published again after a while.
    fn pause(&mut self, id: TaskId, outcome: PublishOutcome) {
        let Some(done) = self.tasks.done_mut(id) else { return };
        let refusals = done.refusals;
        done.refusals += 1;
        let (min, max) = (self.settings.publish_back_off_min, self.settings.publish_back_off_max);
        let pause = self.random.back_off(refusals, min, max);
        self.tasks.set_step(id, Step::Paused);
        self.timers.set(Timer::PublishAgain(id), self.now + pause);
        self.event(Event::PublishFailed {
            task: id,
            outcome,
            again_in: Some(pause),
        });
    }

    pub(crate) fn on_publish_again(&mut self, id: TaskId) {
        if self.step(id) == Some(Step::Paused) {
            self.tasks.set_step(id, Step::Due);
        }
    }

    /// The broker is waited for no longer.
    pub(crate) const fn on_keep_results(&mut self) {
        if let Some(Ending::Stop { keep, .. }) = &mut self.ending {
            *keep = true;
        }
    }

    const fn keeps_results(&self) -> bool {
        matches!(self.ending, Some(Ending::Stop { keep: true, .. }))
    }

    /// Writes results that the broker has not confirmed into the journal, for the next life to publish.
    pub(crate) fn keep_results(&mut self) {
        let writing = |(_, pending): &(_, Pending)| matches!(pending, Pending::Result(_));
        if !self.keeps_results() || self.entries.iter().any(writing) {
            return;
        }
        let mut bytes = 0;
        let results: Vec<(TaskId, bytes::Bytes)> = self
            .tasks
            .iter()
            .filter_map(|(id, task)| match &task.state {
                State::Done(done) if !matches!(done.step, Step::Recording(_) | Step::Settling(_)) => {
                    Some((id, done.body.clone()))
                }
                State::Done(_) | State::Held | State::Waiting | State::Reserved { .. } | State::Given(_) => None,
            })
            .take_while(|(_, body)| {
                let before = bytes;
                bytes += body.len();
                before < KEPT_AT_A_TIME
            })
            .collect();
        for (id, body) in results {
            self.publishes.retain(|_, published| *published != id);
            self.timers.clear(Timer::PublishAgain(id));
            let record = JournalRecord::Result {
                task: id,
                body,
                at: self.now,
            };
            let entry = self.journal(record, Pending::Result(id));
            self.tasks.set_step(id, Step::Recording(entry));
        }
    }

    /// The journal has a result, if it could be written: then the next life can publish it, too.
    pub(crate) fn on_result_journalled(&mut self, id: TaskId, written: bool) {
        if written && self.keeps_results() {
            self.event(Event::ResultKept { task: id });
            self.give_back(id);
            return;
        }
        // A life that can not keep its results has nobody but the broker to give them to.
        if let Some(Ending::Stop { keep, .. }) = &mut self.ending {
            *keep = false;
        }
        self.tasks.set_step(id, Step::Due);
    }

    /// The task is over: its confirmed result is remembered, so its delivery may go, and its worker may forget it.
    pub(crate) fn settle(&mut self, id: TaskId) {
        self.leave_owner(id);
        let Some(task) = self.tasks.remove(id) else { return };
        if let State::Done(done) = &task.state
            && let Some(block) = done.block
        {
            self.settled_for.entry(block).or_default().push(id);
        }
        for tag in task.delivery.into_iter().chain(task.duplicates) {
            self.ledger.settle(tag);
        }
        self.settled.insert(id, self.now, self.now);
        self.event(Event::TaskSettled {
            task: id,
            took: self.now.since(task.accepted),
        });
    }

    /// Tells each worker once what of its results is settled.
    pub(crate) fn tell_settled(&mut self) {
        for (block, tasks) in std::mem::take(&mut self.settled_for) {
            self.tell_block(block, ToWorker::Settled { tasks });
        }
    }

    pub(crate) fn count_result(&mut self, block: BlockId, bytes: usize) {
        let bytes = i64::try_from(bytes).unwrap_or(i64::MAX);
        self.blocks.change(block, self.now, |block| {
            block.result_credit = block.result_credit.saturating_sub(bytes)
        });
    }

    /// Lets workers send results, as far as what is held allows.
    pub(crate) fn grant_results(&mut self) {
        let share = self.settings.held_bytes / 4;
        if self.tasks.result_bytes() > share {
            return;
        }
        let workers = u64::from(self.blocks.up().max(1));
        let credit = (share / workers).clamp(RESULT_CREDIT_MIN, RESULT_CREDIT_MAX);
        for block in self.blocks.short_of_result_credit() {
            let Some((granted, worker)) = self.blocks.grant_result_credit(block, credit, self.now) else {
                continue;
            };
            self.tell(worker, ToWorker::ResultCredit { bytes: granted });
        }
    }
}
