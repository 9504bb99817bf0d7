//! How a worker's executors come, are heard, and go.

use std::io;
use std::rc::Rc;
use std::time::Duration;

use nix::sys::signal::Signal;
use tokio::task::spawn_local;
use tokio::time::Instant;

use super::{Executor, Inbox, Worker};
use crate::channel::{Channel, ExecutorEnds, Lost};
use crate::machine::{Ending, Event};
use crate::processes;
use crate::warm::{Said, Warm};

/// Requests for executors that the warm process has not answered, at most.
const REQUESTS_MAX: usize = 8;
/// How long a warm process may take that has yet to import what it needs.
const IMPORT_PATIENCE: Duration = Duration::from_secs(600);

impl Worker {
    /// Opens the channel of an executor to be. From here on the slot can be given a task, which waits in the channel.
    pub(super) fn open(&mut self, slot: u32, generation: u64) {
        match Channel::open(slot) {
            Ok((channel, ends)) => {
                let watch = spawn_local(watch(Rc::clone(&channel), slot, generation, Rc::clone(&self.inbox)));
                self.executors[slot as usize] = Some(Executor {
                    generation,
                    channel,
                    watch,
                });
                self.to_request.push_back((slot, generation, ends));
            }
            Err(error) => self.cannot_start(slot, generation, &error),
        }
    }

    fn cannot_start(&mut self, slot: u32, generation: u64, error: &io::Error) {
        self.executors[slot as usize] = None;
        let reason = format!("no executor can be made: {error}");
        self.post(Event::CannotStart {
            slot,
            generation,
            reason,
        });
    }

    /// Asks the warm process for the executors that are due.
    pub(super) fn request_executors(&mut self) {
        while self.requested.len() < REQUESTS_MAX
            && let Some((slot, generation, ends)) = self.to_request.pop_front()
        {
            match self.request(slot, &ends) {
                Ok(()) => {
                    self.requested.push_back((slot, generation));
                    let patience = if self.warm.as_ref().is_some_and(|warm| warm.ready) {
                        self.arguments.fork_timeout()
                    } else {
                        IMPORT_PATIENCE
                    };
                    self.answer_due.get_or_insert_with(|| Instant::now() + patience);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    // The warm process says something before long: that it is ready, or has forked.
                    self.to_request.push_front((slot, generation, ends));
                    return;
                }
                Err(error) => self.cannot_start(slot, generation, &error),
            }
        }
    }

    fn request(&mut self, slot: u32, ends: &ExecutorEnds) -> io::Result<()> {
        let warm = match &self.warm {
            Some(warm) => warm,
            None => self.warm.insert(Warm::start(&self.arguments.python, &self.settings)?),
        };
        warm.request(slot, &ends.channel, &ends.output)
    }

    pub(super) fn warm_said(&mut self, said: Result<Said, String>) {
        let now = self.started.elapsed();
        let answers = matches!(said, Ok(Said::Started(_) | Said::Failed(_)));
        let awaited = self.requested.len().saturating_sub(usize::from(answers));
        self.answer_due = (awaited > 0).then(|| Instant::now() + self.arguments.fork_timeout());
        match said {
            Ok(Said::Ready(versions)) => self.versions = versions,
            Ok(Said::Started(process)) => {
                let Some((slot, generation)) = self.requested.pop_front() else {
                    return;
                };
                self.machine.handle(
                    now,
                    Event::Started {
                        slot,
                        generation,
                        process,
                    },
                );
                if let Some(position) = self.unclaimed.iter().position(|(unclaimed, _)| *unclaimed == process) {
                    let (process, ending) = self.unclaimed.swap_remove(position);
                    self.executor_ended(process, ending);
                }
            }
            Ok(Said::Failed(reason)) => {
                if let Some((slot, generation)) = self.requested.pop_front() {
                    self.machine.handle(
                        now,
                        Event::CannotStart {
                            slot,
                            generation,
                            reason,
                        },
                    );
                }
            }
            Ok(Said::Unusable(reason)) | Err(reason) => self.warm_lost(&reason),
        }
    }

    /// Without its warm process the worker makes another when an executor is due.
    pub(super) fn warm_lost(&mut self, reason: &str) {
        let Some(warm) = self.warm.take() else { return };
        tracing::warn!("the warm process is lost: {reason}");
        processes::kill_executor(warm.process);
        self.answer_due = None;
        let now = self.started.elapsed();
        let to_request = std::mem::take(&mut self.to_request)
            .into_iter()
            .map(|(slot, generation, _)| (slot, generation));
        for (slot, generation) in std::mem::take(&mut self.requested).into_iter().chain(to_request) {
            let reason = reason.to_owned();
            // If it was forked all the same it finds its channel closed, and ends.
            self.executors[slot as usize] = None;
            self.machine.handle(
                now,
                Event::CannotStart {
                    slot,
                    generation,
                    reason,
                },
            );
        }
    }

    pub(super) fn reap(&mut self) {
        for (process, ending) in processes::reap() {
            if self.machine.slot_of(process).is_some() {
                self.executor_ended(process, ending);
            } else if self.warm.as_ref().is_some_and(|warm| warm.process == process) {
                self.warm_lost(&format!("it ended ({ending:?})"));
            } else {
                if self.machine.is_starting_any() {
                    self.unclaimed.push((process, ending));
                } else {
                    self.unclaimed.clear();
                }
                // If it was left behind by a task, what it has left in turn is ours now.
                self.strays_due |= !self.kept_children.remove(&process);
            }
        }
    }

    fn executor_ended(&mut self, process: i32, ending: Ending) {
        // Its answers that were read already come before its end.
        self.hear_executors();
        let now = self.started.elapsed();
        let mut output = String::new();
        if let Some(slot) = self.machine.slot_of(process)
            && let Some(executor) = self.executors[slot as usize].take()
        {
            executor.channel.set_ended();
            // A result that it had written before it ended counts.
            while let Ok(Some(answer)) = executor.channel.pump() {
                self.machine.handle(now, answer.into_event(slot, executor.generation));
            }
            output = executor.channel.last_lines();
        }
        // It is the kernel's choice whom it ends, and it names nobody; but it kills one at a time.
        let killed = ending == Ending::Signal(Signal::SIGKILL as i32);
        let ending = match self.kernel_ended_one() {
            Some(limit) if killed => Ending::OutOfMemory { limit },
            _ => ending,
        };
        // What was in its process group goes first; the rest becomes ours, and is found then.
        processes::kill_executor(process);
        self.strays_due = true;
        self.machine.handle(
            now,
            Event::Exited {
                process,
                ending,
                output,
            },
        );
    }
}

/// Passes on what an executor says, until its channel is closed.
async fn watch(channel: Rc<Channel>, slot: u32, generation: u64, inbox: Rc<Inbox>) {
    loop {
        channel.ready().await;
        let event = match channel.pump() {
            Ok(None) => continue,
            Ok(Some(answer)) => answer.into_event(slot, generation),
            Err(Lost) => Event::ChannelLost { slot, generation },
        };
        let lost = matches!(event, Event::ChannelLost { .. });
        inbox.events.borrow_mut().push_back(event);
        inbox.arrived.notify_one();
        if lost {
            return;
        }
    }
}
