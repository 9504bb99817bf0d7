//! What each event changes.

use std::time::Duration;

use uuid::Uuid;
use waypost_link::{Cause, Refusal, ToAgent, ToWorker};

use super::slot::SlotState;
use super::{
    Action, Connection, Drain, EARLY_CANCELS_MAX, END_DELAY, Ending, Event, MEMORY_THRESHOLD_PERCENT, Machine,
    Progress, START_FAILURES_MAX, SlotMemory, TIMEOUT_GRACE, Task, Time, Waiting, size,
};

/// What of the limit is left to the supervisor and the warm process, in bytes.
const MEMORY_OWN: u64 = 64 << 20;

impl Machine {
    /// Takes note of an event. What follows from it for others is found out by [`Machine::settle`].
    pub(crate) fn handle(&mut self, now: Time, event: Event) {
        match event {
            Event::Connected { result_credit } => self.connected(result_credit),
            Event::Disconnected => self.disconnected(),
            Event::Agent(message) => self.agent(now, message),
            Event::Answer {
                slot,
                generation,
                outcome,
                run_time_ns,
                body,
            } => {
                let Some((task, attempt)) = self.task_in(slot, generation) else {
                    return;
                };
                self.appetite.learn(run_time_ns);
                let slot = &mut self.slots[slot as usize];
                slot.failures = 0;
                // If it is being killed, the result was there first; the executor goes all the same.
                slot.state = if slot.doom.is_some() {
                    SlotState::Leaving
                } else {
                    SlotState::Idle
                };
                let result = ToAgent::Finished {
                    task,
                    attempt,
                    outcome,
                    run_time_ns,
                    body,
                };
                self.finish(now, task, result);
            }
            Event::Started {
                slot,
                generation,
                process,
            } => self.started(slot, generation, process),
            Event::CannotStart {
                slot,
                generation,
                reason,
            } => self.cannot_start(now, slot, generation, reason),
            Event::ChannelLost { slot, generation } => {
                if self.is_current(slot, generation) {
                    let slot = &mut self.slots[slot as usize];
                    slot.end_due = Some(now + END_DELAY);
                    if matches!(slot.state, SlotState::Idle) {
                        slot.state = SlotState::Leaving;
                    }
                }
            }
            Event::Exited {
                process,
                ending,
                output,
            } => self.exited(now, process, ending, output),
            Event::Memory { used, limit, slots } => self.memory(used, limit, &slots),
            Event::Terminate { grace } => self.drain(now, grace),
            Event::Tick => self.tick(now),
        }
    }

    fn connected(&mut self, result_credit: u64) {
        self.connection = Some(Connection {
            result_credit: i128::from(result_credit),
            asked: 0,
            told_draining: false,
        });
        // Whatever was sent on an earlier connection and is not settled may have been lost with it.
        self.unsent = 0;
        for (task, attempt) in std::mem::take(&mut self.greeted) {
            if !self.tasks.contains_key(&task) {
                // It was given up between the hello and its answer.
                self.refuse(task, attempt, Refusal::Draining);
            }
        }
    }

    /// What has not begun is given up: the agent gives it again, to this worker or to another, and if both began it,
    /// it would run twice.
    fn disconnected(&mut self) {
        self.connection = None;
        for waiting in std::mem::take(&mut self.waiting) {
            self.tasks.remove(&waiting.task);
        }
    }

    fn agent(&mut self, now: Time, message: ToWorker) {
        match message {
            ToWorker::Run {
                task,
                attempt,
                result_serializers,
                body,
            } => self.run(
                Waiting {
                    task,
                    attempt,
                    serializers: result_serializers,
                    body,
                },
                now,
            ),
            ToWorker::Cancel { task, attempt } => self.cancel(task, attempt),
            ToWorker::Recall { task, attempt } => self.recall(task, attempt),
            ToWorker::Forget { task, attempt } => self.forget(task, attempt),
            ToWorker::Settled { tasks } => {
                for task in tasks {
                    self.settled(now, task);
                }
            }
            ToWorker::ResultCredit { bytes } => {
                if let Some(connection) = &mut self.connection {
                    connection.result_credit += i128::from(bytes);
                }
            }
            ToWorker::Drain { grace_ms } => self.drain(now, Duration::from_millis(grace_ms)),
            // The connection's own business.
            ToWorker::Welcome { .. } | ToWorker::Refused { .. } | ToWorker::Heartbeat => {}
        }
    }

    fn run(&mut self, waiting: Waiting, now: Time) {
        let (task, attempt) = (waiting.task, waiting.attempt);
        let asked = match &mut self.connection {
            Some(connection) if connection.asked > 0 => {
                connection.asked -= 1;
                true
            }
            _ => false,
        };
        let cancelled = self.early_cancels.iter().position(|cancel| *cancel == (task, attempt));
        let refusal = if self.tasks.contains_key(&task) || self.settled.contains(&task, now) {
            Some(Refusal::Duplicate)
        } else if let Some(position) = cancelled {
            self.early_cancels.remove(position);
            Some(Refusal::Cancelled)
        } else if self.drain.is_some() {
            Some(Refusal::Draining)
        } else if !asked {
            Some(Refusal::NoCredit)
        } else {
            None
        };
        if let Some(reason) = refusal {
            self.refuse(task, attempt, reason);
            return;
        }
        let progress = Progress::Waiting;
        self.tasks.insert(task, Task { attempt, progress });
        self.waiting.push_back(waiting);
    }

    fn cancel(&mut self, task: Uuid, attempt: u32) {
        let Some(entry) = self.tasks.get(&task) else {
            // A small message may overtake a large task.
            self.early_cancels.push_back((task, attempt));
            if self.early_cancels.len() > EARLY_CANCELS_MAX {
                self.early_cancels.pop_front();
            }
            return;
        };
        if entry.attempt != attempt {
            return;
        }
        match entry.progress {
            Progress::Waiting => {
                self.drop_waiting(task);
                self.refuse(task, attempt, Refusal::Cancelled);
            }
            Progress::Running => {
                if let Some(slot) = self.slot_with(task) {
                    self.doom(slot, Cause::Cancelled);
                }
            }
            Progress::Finished(_) => {}
        }
    }

    fn recall(&mut self, task: Uuid, attempt: u32) {
        let waits = |entry: &Task| entry.attempt == attempt && matches!(entry.progress, Progress::Waiting);
        if self.tasks.get(&task).is_some_and(waits) {
            self.drop_waiting(task);
            self.refuse(task, attempt, Refusal::Recalled);
        }
    }

    fn forget(&mut self, task: Uuid, attempt: u32) {
        let Some(entry) = self.tasks.get(&task).filter(|entry| entry.attempt == attempt) else {
            return;
        };
        match entry.progress {
            Progress::Finished(place) => self.drop_result(task, place),
            Progress::Waiting => self.drop_waiting(task),
            Progress::Running => self.cancel(task, attempt),
        }
    }

    fn drop_waiting(&mut self, task: Uuid) {
        self.waiting.retain(|waiting| waiting.task != task);
        self.tasks.remove(&task);
    }

    fn drop_result(&mut self, task: Uuid, place: u64) {
        if let Some(result) = self.results.remove(&place) {
            self.results_bytes -= size(&result);
        }
        self.tasks.remove(&task);
    }

    fn settled(&mut self, now: Time, task: Uuid) {
        self.settled.add(task, now);
        let Some(entry) = self.tasks.get(&task) else {
            return;
        };
        match entry.progress {
            Progress::Finished(place) => self.drop_result(task, place),
            // Its result came from elsewhere, so nobody waits for this one.
            Progress::Waiting => self.drop_waiting(task),
            Progress::Running => {
                if let Some(slot) = self.slot_with(task) {
                    self.doom(slot, Cause::Cancelled);
                }
            }
        }
    }

    fn started(&mut self, slot: u32, generation: u64, process: i32) {
        if !self.is_current(slot, generation) {
            return;
        }
        let state = &mut self.slots[slot as usize];
        if !matches!(state.state, SlotState::Starting) {
            return;
        }
        state.process = Some(process);
        state.state = if state.doom.is_some() || state.end_due.is_some() {
            SlotState::Leaving
        } else {
            SlotState::Idle
        };
        if state.doom.is_some() {
            self.actions.push(Action::Kill { process });
        }
    }

    fn cannot_start(&mut self, now: Time, slot: u32, generation: u64, reason: String) {
        if !self.is_current(slot, generation) || !matches!(self.slots[slot as usize].state, SlotState::Starting) {
            return;
        }
        let state = &mut self.slots[slot as usize];
        state.failures += 1;
        state.doom = None;
        state.end_due = None;
        let pause = Duration::from_millis(100 << state.failures.min(6)).min(Duration::from_secs(5));
        let given_up = state.failures >= START_FAILURES_MAX;
        state.state = SlotState::Broken { retry_at: now + pause };
        // What waits is begun by another slot, or by this one when it has an executor.
        if given_up && !self.slots.iter().any(|slot| slot.process.is_some()) {
            for Waiting { task, attempt, .. } in std::mem::take(&mut self.waiting) {
                let reason = reason.clone();
                self.fail(now, task, attempt, Cause::CannotStart { reason }, String::new());
            }
        }
    }

    fn exited(&mut self, now: Time, process: i32, ending: Ending, output: String) {
        let Some(slot) = self.slot_of(process) else {
            return;
        };
        let state = &mut self.slots[slot as usize];
        state.process = None;
        state.end_due = None;
        let doom = state.doom.take();
        // One that took all there was at once was never looked at.
        let peak = state.peak.take();
        let before = std::mem::replace(&mut state.state, SlotState::Broken { retry_at: now });
        if let SlotState::Busy { task, attempt, .. } = before {
            let cause = doom.unwrap_or_else(|| match ending {
                Ending::Signal(number) => Cause::Signal { number },
                Ending::Exit(code) => Cause::Exit { code },
                Ending::OutOfMemory { limit } => Cause::OutOfMemory {
                    peak: peak.unwrap_or(limit),
                    limit: self.share(limit),
                },
            });
            self.fail(now, task, attempt, cause, output);
        } else if doom.is_none() {
            // One that ends by itself again and again without a task is not made anew at full speed.
            state.failures += 1;
            let pause = Duration::from_millis(20 << state.failures.min(8)).min(Duration::from_secs(5));
            state.state = SlotState::Broken { retry_at: now + pause };
        }
    }

    fn memory(&mut self, used: u64, limit: u64, slots: &[SlotMemory]) {
        for memory in slots {
            if let Some(slot) = self.slots.get_mut(memory.slot as usize) {
                slot.peak = Some(memory.peak.max(memory.resident));
            }
        }
        let pending = self
            .slots
            .iter()
            .any(|slot| matches!(slot.doom, Some(Cause::OutOfMemory { .. })));
        if pending || used.saturating_mul(100) <= limit.saturating_mul(MEMORY_THRESHOLD_PERCENT) {
            return;
        }
        // All have the same share, so the furthest over it is the largest.
        let Some(largest) = slots.iter().max_by_key(|memory| memory.resident) else {
            return;
        };
        let cause = Cause::OutOfMemory {
            peak: largest.peak.max(largest.resident),
            limit: self.share(limit),
        };
        self.doom(largest.slot, cause);
    }

    /// What one slot may have of a limit, in bytes.
    fn share(&self, limit: u64) -> u64 {
        let by_slots = limit.saturating_sub(MEMORY_OWN) / u64::from(self.settings.slots.max(1));
        self.settings.memory_per_slot.unwrap_or(by_slots)
    }

    fn drain(&mut self, now: Time, grace: Duration) {
        let deadline = now.saturating_add(grace);
        match &mut self.drain {
            Some(drain) => drain.deadline = drain.deadline.min(deadline),
            None => {
                self.drain = Some(Drain {
                    deadline,
                    flush_until: None,
                });
            }
        }
        for waiting in std::mem::take(&mut self.waiting) {
            self.tasks.remove(&waiting.task);
            self.refuse(waiting.task, waiting.attempt, Refusal::Draining);
        }
    }

    fn tick(&mut self, now: Time) {
        if let Some(timeout) = self.settings.task_timeout {
            let limit_ms = u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX);
            for slot in 0..self.settings.slots {
                if let SlotState::Busy { since, .. } = &self.slots[slot as usize].state
                    && now >= *since + timeout + TIMEOUT_GRACE
                {
                    self.doom(slot, Cause::TimedOut { limit_ms });
                }
            }
        }
        for slot in 0..self.settings.slots {
            if self.slots[slot as usize].end_due.is_some_and(|due| due <= now) {
                self.doom(slot, Cause::LostChannel);
            }
        }
    }

    /// Ends a slot's executor, for `cause`. The first cause stands.
    pub(super) fn doom(&mut self, slot: u32, cause: Cause) {
        let Some(slot) = self.slots.get_mut(slot as usize) else {
            return;
        };
        if slot.doom.is_some() || !slot.is_started() {
            return;
        }
        slot.doom = Some(cause);
        if matches!(slot.state, SlotState::Idle) {
            slot.state = SlotState::Leaving;
        }
        if let Some(process) = slot.process {
            self.actions.push(Action::Kill { process });
        }
    }

    fn refuse(&mut self, task: Uuid, attempt: u32, reason: Refusal) {
        if self.connection.is_some() {
            self.actions
                .push(Action::Send(ToAgent::Refused { task, attempt, reason }));
        }
    }

    fn is_current(&self, slot: u32, generation: u64) -> bool {
        self.slots
            .get(slot as usize)
            .is_some_and(|slot| slot.generation == generation && slot.is_started())
    }

    fn task_in(&self, slot: u32, generation: u64) -> Option<(Uuid, u32)> {
        let slot = self
            .slots
            .get(slot as usize)
            .filter(|slot| slot.generation == generation)?;
        if let SlotState::Busy { task, attempt, .. } = &slot.state {
            Some((*task, *attempt))
        } else {
            None
        }
    }

    fn slot_with(&self, task: Uuid) -> Option<u32> {
        (0u32..)
            .zip(&self.slots)
            .find(|(_, slot)| matches!(&slot.state, SlotState::Busy { task: busy, .. } if *busy == task))
            .map(|(number, _)| number)
    }
}
