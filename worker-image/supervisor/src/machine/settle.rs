//! What follows from a batch of events: executors are made, work is handed out, results are sent, work is asked for.

use std::time::Duration;

use waypost_link::{Cause, ToAgent};

use super::slot::SlotState;
use super::{Action, FLUSH_GRACE, Machine, Progress, Time, Waiting, size};

impl Machine {
    /// Brings everything to where it can stand until the next event.
    pub(crate) fn settle(&mut self, now: Time) {
        if self.ended {
            return;
        }
        self.make_executors(now);
        self.hand_out(now);
        self.send_results();
        self.wind_up(now);
        self.ask();
    }

    fn make_executors(&mut self, now: Time) {
        if self.drain.is_some() {
            return;
        }
        for (number, slot) in (0u32..).zip(&mut self.slots) {
            if let SlotState::Broken { retry_at } = slot.state
                && retry_at <= now
            {
                slot.generation += 1;
                slot.state = SlotState::Starting;
                self.actions.push(Action::Start {
                    slot: number,
                    generation: slot.generation,
                });
            }
        }
    }

    fn hand_out(&mut self, now: Time) {
        for number in 0..self.settings.slots {
            if self.waiting.is_empty() {
                return;
            }
            let slot = &mut self.slots[number as usize];
            if !matches!(slot.state, SlotState::Idle) {
                continue;
            }
            let Some(Waiting {
                task,
                attempt,
                serializers,
                body,
                ..
            }) = self.waiting.pop_front()
            else {
                return;
            };
            slot.state = SlotState::Busy {
                task,
                attempt,
                since: now,
            };
            if let Some(entry) = self.tasks.get_mut(&task) {
                entry.progress = Progress::Running;
            }
            self.actions.push(Action::Give {
                slot: number,
                task,
                serializers,
                body,
            });
            if self.connection.is_some() {
                self.actions.push(Action::Send(ToAgent::Started {
                    task,
                    attempt,
                    slot: number,
                }));
            }
        }
    }

    fn send_results(&mut self) {
        let Some(connection) = &mut self.connection else {
            return;
        };
        for (place, result) in self.results.range(self.unsent..) {
            let bytes = size(result);
            if bytes > 0 {
                if connection.result_credit <= 0 {
                    return;
                }
                connection.result_credit -= bytes as i128;
            }
            self.unsent = place + 1;
            self.actions.push(Action::Send(result.clone()));
        }
        self.unsent = self.next_result;
    }

    /// While draining: says so, ends what takes too long, and ends the worker when nothing is left.
    fn wind_up(&mut self, now: Time) {
        let busy = self.is_busy();
        let Some(drain) = &mut self.drain else {
            return;
        };
        let left = drain.deadline.saturating_sub(now);
        if let Some(connection) = &mut self.connection
            && !connection.told_draining
        {
            connection.told_draining = true;
            let grace_ms = u64::try_from(left.as_millis()).unwrap_or(u64::MAX);
            self.actions.push(Action::Send(ToAgent::Draining { grace_ms }));
        }
        if left == Duration::ZERO && drain.flush_until.is_none() {
            drain.flush_until = Some(now.saturating_add(FLUSH_GRACE));
            if busy {
                for slot in 0..self.settings.slots {
                    self.doom(slot, Cause::GraceOver);
                }
                return;
            }
        }
        let flush_over = self
            .drain
            .as_ref()
            .and_then(|drain| drain.flush_until)
            .is_some_and(|until| until <= now);
        if (!busy && self.results.is_empty()) || flush_over {
            self.ended = true;
            let lost = self.results.len()
                + self
                    .slots
                    .iter()
                    .filter(|slot| matches!(slot.state, SlotState::Busy { .. }))
                    .count();
            if self.connection.is_some() {
                let reason = "every task is done and settled".to_owned();
                let reason = if lost == 0 {
                    reason
                } else {
                    format!("{lost} tasks could not be settled in time")
                };
                self.actions.push(Action::Send(ToAgent::Goodbye { reason }));
            }
            self.actions.push(Action::End { lost });
        }
    }

    fn ask(&mut self) {
        if self.drain.is_some() || self.results_bytes > self.settings.held_bytes_max {
            return;
        }
        let usable = self.slots.iter().filter(|slot| slot.is_started()).count();
        let busy = self
            .slots
            .iter()
            .filter(|slot| matches!(slot.state, SlotState::Busy { .. }))
            .count();
        let Some(connection) = &mut self.connection else {
            return;
        };
        let wanted = usable + self.appetite.ahead() as usize;
        let have = busy + self.waiting.len() + connection.asked as usize;
        // A few at a time is as good as one by one, and fewer messages.
        let idle = usable - busy.min(usable) > self.waiting.len() + connection.asked as usize;
        let missing = wanted.saturating_sub(have);
        if missing > 0 && (idle || missing * 4 >= wanted) {
            let tasks = u32::try_from(missing).unwrap_or(u32::MAX);
            connection.asked += tasks;
            self.actions.push(Action::Send(ToAgent::Credit { tasks }));
        }
    }
}
