use std::collections::BTreeSet;
use std::time::Duration;

use bytes::Bytes;
use waypost_engine::{BlockId, ExecutorEnd, ExecutorExit, Input, ProcessExit, Slot, TaskId, TaskOutcome};

use crate::checkers::Beginning;
use crate::happening::Happening;
use crate::state::{Held, Running};
use crate::world::World;

impl World<'_> {
    pub(super) fn begin_tasks(&mut self, block: BlockId) {
        loop {
            let slots = self.options.slots;
            let run = self.number();
            let Some(machine) = self.machines.get_mut(&block) else {
                return;
            };
            if !machine.heard {
                return;
            }
            let used: BTreeSet<u32> = machine.running.values().map(|run| run.slot).collect();
            let Some(slot) = (0..slots).find(|slot| !used.contains(slot)) else {
                return;
            };
            let Some((task, attempt)) = machine.queue.pop_front() else {
                return;
            };
            machine.held.remove(&task);
            machine.running.insert(run, Running { task, attempt, slot });
            let (session, life) = (machine.session, machine.agent);
            let max = self.max_attempt();
            let beginning = Beginning {
                task,
                number: run,
                block,
                attempt,
                author: self.author(life),
                acknowledged: self.broker.acknowledged.contains(&task),
            };
            self.checkers.run_begins(beginning, self.now, max);
            self.trace(|| format!("block {block} begins {task} as run {run}"));
            if let Some(worker) = session {
                self.tell_agent(
                    block,
                    Input::TaskStarted {
                        worker,
                        task,
                        attempt,
                        slot: Slot(slot),
                    },
                );
            }
            let takes = self.facts.get(&task).map_or(Duration::ZERO, |facts| facts.takes);
            let takes = takes.mul_f64(0.5 + self.chance.range(0, 1000) as f64 / 1000.0);
            self.after(takes, Happening::ExecutorEnds { block, run });
        }
    }

    pub(super) fn max_attempt(&self) -> u32 {
        match self.options.settings.guarantee {
            waypost_engine::Guarantee::AtLeastOnce => self.options.settings.max_retries_on_system_failure,
            waypost_engine::Guarantee::AtMostOnce => 0,
        }
    }

    pub(crate) fn executor_ends(&mut self, block: BlockId, run: u64) {
        let Some(machine) = self.machines.get_mut(&block) else {
            return;
        };
        let Some(Running { task, attempt, .. }) = machine.running.remove(&run) else {
            return;
        };
        let Some(facts) = self.facts.get_mut(&task) else { return };
        facts.runs += 1;
        let died = facts.runs <= facts.deaths;
        let mut body = format!("result of {task} by run {run} in {block}").into_bytes();
        body.resize(body.len().max(facts.result_bytes), 0);
        let held = Held {
            attempt,
            body: (!died).then(|| Bytes::from(body)),
            how: ExecutorExit::Process(ProcessExit::Signal(11)),
        };
        machine.held.insert(task, held);
        machine.unsent.push_back(task);
        self.checkers.run_ends(task, run, died);
        self.trace(|| format!("block {block} ends {task}{}", if died { " by a signal" } else { "" }));
        self.send_results(block);
        self.grant(block);
        self.begin_tasks(block);
    }

    pub(super) fn send_results(&mut self, block: BlockId) {
        loop {
            let Some(machine) = self.machines.get_mut(&block) else {
                return;
            };
            let Some(worker) = machine.session else { return };
            if machine.result_credit <= 0 {
                return;
            }
            let Some(task) = machine.unsent.pop_front() else { return };
            let Some(held) = machine.held.get(&task).cloned() else {
                continue;
            };
            let attempt = held.attempt;
            match held.body {
                Some(body) => {
                    machine.result_credit -= i64::try_from(body.len()).unwrap_or(i64::MAX);
                    let outcome = TaskOutcome::Succeeded;
                    self.tell_agent(
                        block,
                        Input::TaskFinished {
                            worker,
                            task,
                            attempt,
                            outcome,
                            body,
                        },
                    );
                }
                None => {
                    let end = ExecutorEnd {
                        how: held.how,
                        output: String::new(),
                    };
                    self.tell_agent(
                        block,
                        Input::TaskDied {
                            worker,
                            task,
                            attempt,
                            end,
                        },
                    );
                }
            }
        }
    }

    pub(super) fn cancel(&mut self, block: BlockId, task: TaskId, attempt: u32) {
        let Some(machine) = self.machines.get_mut(&block) else {
            return;
        };
        if !machine.has(task) {
            machine.early.insert((task, attempt));
            return;
        }
        let before = machine.queue.len();
        machine.queue.retain(|queued| *queued != (task, attempt));
        if machine.queue.len() < before {
            self.grant(block);
        }
        let Some(machine) = self.machines.get_mut(&block) else {
            return;
        };
        let run = machine
            .running
            .iter()
            .find(|(_, run)| run.task == task && run.attempt == attempt)
            .map(|(run, _)| *run);
        if let Some(run) = run {
            machine.running.remove(&run);
            machine.held.insert(
                task,
                Held {
                    attempt,
                    body: None,
                    how: ExecutorExit::Cancelled,
                },
            );
            machine.unsent.push_back(task);
            self.checkers.run_cancelled(task, run);
            self.send_results(block);
            self.grant(block);
            self.begin_tasks(block);
        }
    }
}
