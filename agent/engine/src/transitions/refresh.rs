use std::time::Duration;

use crate::mutation::Mutation;
use crate::state::task::State;
use crate::state::timers::Timer;
use crate::{DeliveryTag, Event, Output, TaskId};

impl crate::Engine {
    /// From which age on a delivery is refreshed: a little before half of the broker's time, so that the refreshing of
    /// many is over by then.
    fn refresh_age(&self) -> Duration {
        self.settings.consumer_timeout * 3 / 8
    }

    /// Sets the timer for the oldest delivery, if it is not running. A life that ends leaves them to the next.
    pub(crate) fn set_refresh_timer(&mut self) {
        if self.ending.is_some() {
            self.timers.clear(Timer::Refresh);
            return;
        }
        if self.timers.is_set(Timer::Refresh) {
            return;
        }
        if let Some((_, oldest)) = self.ledger.oldest() {
            self.timers.set(Timer::Refresh, oldest.received + self.refresh_age());
        }
    }

    /// Refreshes the oldest delivery if it is old enough, and sets the time for the next: so that all that are open now
    /// would be refreshed within an eighth of the broker's time, one after the other, for their payloads come again.
    pub(crate) fn on_refresh_due(&mut self) {
        let Some((tag, oldest)) = self.ledger.oldest() else {
            return;
        };
        if self.now.since(oldest.received) < self.refresh_age() {
            return;
        }
        let id = oldest.task;
        let spacing = self.settings.consumer_timeout / 8 / u32::try_from(self.ledger.len()).unwrap_or(u32::MAX).max(1);
        self.timers.set(Timer::Refresh, self.now + spacing);
        let counts = self.counts_deliveries && !self.mutated(Mutation::IgnoreCount);
        let Some(task) = self.tasks.get_mut(id) else { return };
        if counts {
            // To give it back again and again would have it dropped: the journal keeps it instead.
            if !task.journalled && task.message.is_some() {
                self.ledger.set_in_journal(tag, true);
                self.journal_acceptance(id);
            }
            return;
        }
        if matches!(task.state, State::Held | State::Waiting) {
            self.give_back(id);
            return;
        }
        self.refresh(id, tag);
    }

    /// Gives the delivery of a task that goes on back to the broker, which brings it again.
    pub(crate) fn refresh(&mut self, id: TaskId, tag: DeliveryTag) {
        let Some(task) = self.tasks.get_mut(id) else { return };
        if task.delivery == Some(tag) {
            task.delivery = None;
        }
        task.duplicates.retain(|duplicate| *duplicate != tag);
        if self.ledger.give_back(tag) {
            self.outputs.push_back(Output::Refresh { tag });
            self.event(Event::DeliveryRefreshed { task: id });
        }
    }
}
