use crate::mutation::Mutation;
use crate::state::task::{Message, State, Task};
use crate::transitions::journal::Pending;
use crate::{
    AcceptedTask, Acknowledge, Cause, ChannelEpoch, Delivery, Event, Guarantee, JournalRecord, Output, TaskId,
};

impl crate::Engine {
    pub(crate) fn on_consumer_started(&mut self, channel: ChannelEpoch) {
        if self.ending.is_some() {
            return;
        }
        self.ledger.start(channel);
        self.forget_deliveries();
        self.holds_queue = true;
        self.begin_restart_grace();
        self.consumer_window_started();
        self.delete_postponed();
    }

    pub(crate) fn on_consumer_lost(&mut self, channel: ChannelEpoch) {
        if self.ledger.channel() != Some(channel) {
            return;
        }
        self.ledger.lose();
        self.holds_queue = self.mutated(Mutation::ForgetFence);
        self.forget_deliveries();
    }

    /// No tag means anything any more. What was not given to a worker comes again with its delivery, or goes to whoever
    /// holds the queue then.
    fn forget_deliveries(&mut self) {
        let unstarted: Vec<TaskId> = self
            .tasks
            .all_waiting()
            .into_iter()
            .chain(self.tasks.all_held())
            .collect();
        for id in unstarted {
            if self.tasks.get(id).is_some_and(|task| !task.journalled) {
                self.let_go(id);
            }
        }
        let ids: Vec<TaskId> = self
            .tasks
            .iter()
            .filter(|(_, task)| task.delivery.is_some())
            .map(|(id, _)| id)
            .collect();
        for id in ids {
            if let Some(task) = self.tasks.get_mut(id) {
                task.delivery = None;
                task.duplicates.clear();
            }
        }
    }

    /// Drops a task that is not settled, but remembers that it was begun.
    pub(crate) fn let_go(&mut self, id: TaskId) -> Option<Task> {
        self.leave_owner(id);
        let task = self.tasks.remove(id)?;
        if task.interrupted {
            self.remember_start(id, task.failures);
        } else if let Some(begun) = task.failures.checked_sub(1) {
            self.remember_start(id, begun);
        }
        Some(task)
    }

    /// Remembers a start of a task that is not in hand: of as many as of the settled.
    pub(crate) fn remember_start(&mut self, id: TaskId, attempt: u32) {
        self.starts.insert(id, attempt);
        if self.starts.len() > self.settings.settled_count {
            self.starts.pop_first();
        }
    }

    pub(crate) fn on_delivery(&mut self, delivery: Delivery) {
        let (id, tag) = (delivery.task, delivery.tag);
        if !self.ledger.open(tag, id, self.now) {
            return;
        }
        self.count_delivery(delivery.body.len());
        self.counts_deliveries |= delivery.delivery_count.is_some();
        if self.settled.contains(id) && !self.mutated(Mutation::ForgetSettled) {
            self.ledger.settle(tag);
            self.event(Event::SettledTaskRedelivered { task: id });
        } else if self.tasks.get(id).is_some() && !self.mutated(Mutation::ForgetDedupe) {
            self.take_delivery(delivery);
        } else if self.ending.is_some() {
            self.ledger.give_back(tag);
            self.outputs.push_back(Output::GiveBack { tag });
        } else {
            self.accept(delivery);
        }
    }

    /// A task that may not run here is one like any other, but that it fails at once: so its delivery, too, is
    /// acknowledged only when its result is confirmed. One that began before it was forbidden goes on.
    pub(crate) fn on_denied(&mut self, delivery: Delivery) {
        let (id, function) = (delivery.task, delivery.function);
        self.on_delivery(delivery);
        if self
            .tasks
            .get(id)
            .is_some_and(|task| matches!(task.state, State::Held | State::Waiting | State::Reserved { .. }))
        {
            self.fail(id, Cause::Denied { function }, None, None);
        }
    }

    /// A delivery of a task in hand: the task takes its tag, and goes on.
    fn take_delivery(&mut self, delivery: Delivery) {
        let (id, tag) = (delivery.task, delivery.tag);
        let Some(task) = self.tasks.get_mut(id) else { return };
        if task.journalled {
            self.ledger.settle(tag);
        } else if let Some(before) = task.delivery.replace(tag)
            && self.ledger.owner(before) == Some(id)
        {
            task.duplicates.push(before);
        }
        let message = (task.message.is_none()).then(|| message(delivery));
        if message.is_some() {
            self.tasks.set_message(id, message);
            self.drop_needless_body(id);
        }
        self.event(Event::TaskRedelivered { task: id });
    }

    /// Drops the body of a task that runs and may not be run again, or is done.
    pub(crate) fn drop_needless_body(&mut self, id: TaskId) {
        let Some(task) = self.tasks.get(id) else { return };
        let needless = match &task.state {
            State::Held | State::Waiting | State::Reserved { .. } => false,
            State::Given(given) => given.begun.is_some() && !self.may_retry(task.failures + 1),
            State::Done(_) => true,
        };
        if needless {
            self.tasks.drop_body(id);
        }
    }

    /// Whether a task that the system ended so many times may be tried again.
    pub(crate) fn may_retry(&self, failures: u32) -> bool {
        self.settings.guarantee == Guarantee::AtLeastOnce && failures <= self.settings.max_retries_on_system_failure
    }

    fn accept(&mut self, delivery: Delivery) {
        let (id, redelivered, bytes) = (delivery.task, delivery.redelivered, delivery.body.len());
        let begun = self.starts.remove(&id);
        let hold =
            (redelivered || begun.is_some()) && self.restart_waits() && !self.mutated(Mutation::StartRedeliveredAtOnce);
        let tag = delivery.tag;
        let mut task = self.new_task(begun.unwrap_or(0));
        task.interrupted = begun.is_some();
        task.delivery = Some(tag);
        task.message = Some(message(delivery));
        if self.mutated(Mutation::ForgetDedupe) {
            self.leave_owner(id);
            self.tasks.remove(id);
        }
        self.tasks.insert(id, task);
        self.event(Event::TaskAccepted {
            task: id,
            bytes,
            redelivered,
        });
        // What is acknowledged no longer counts towards the window; so while too much is held, nothing is.
        if self.settings.acknowledge == Acknowledge::OnAccept && !self.window.over {
            self.journal_acceptance(id);
        }
        if !hold {
            self.release(id);
        }
    }

    /// A task that has just come, held.
    pub(crate) fn new_task(&mut self, failures: u32) -> Task {
        self.next_sequence += 1;
        Task {
            sequence: self.next_sequence,
            accepted: self.now,
            since: self.now,
            message: None,
            delivery: None,
            duplicates: Vec::new(),
            journalled: false,
            failures,
            interrupted: false,
            state: State::Held,
        }
    }

    /// Accepts what came while too much was held, and is still only the broker's.
    pub(crate) fn accept_late(&mut self) {
        if self.settings.acknowledge == Acknowledge::OnAccept {
            let tasks: Vec<TaskId> = self
                .ledger
                .iter()
                .filter(|(_, open)| !open.in_journal)
                .map(|(_, open)| open.task)
                .collect();
            for task in tasks {
                self.journal_acceptance(task);
            }
        }
    }

    /// Writes a task into the journal, so that its delivery can be acknowledged before it has a result.
    pub(crate) fn journal_acceptance(&mut self, id: TaskId) {
        let Some(task) = self.tasks.get(id) else { return };
        let Some(message) = task.message.clone() else { return };
        if let Some(tag) = task.delivery {
            self.ledger.set_in_journal(tag, true);
        }
        let accepted = AcceptedTask {
            task: id,
            function: message.function,
            resource_specification: message.resource_specification,
            result_serializers: message.result_serializers,
            body: message.body,
        };
        self.journal(
            JournalRecord::Accepted {
                task: accepted,
                at: self.now,
            },
            Pending::Accepted(id),
        );
    }
}

fn message(delivery: Delivery) -> Message {
    Message {
        function: delivery.function,
        resource_specification: delivery.resource_specification,
        result_serializers: delivery.result_serializers,
        body: Some(delivery.body),
    }
}
