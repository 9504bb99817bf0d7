//! What is asked, of each thing that an agent does, before the world lets it happen.

use std::time::Duration;

use bytes::Bytes;
use waypost_engine::{BlockId, Event, Output, TaskId, ToWorker};

use crate::world::World;

impl World<'_> {
    /// Blocks are started and ended, and tasks given to workers, only by who holds the queue as far as it can know, unless
    /// the endpoint is stopped for good.
    pub(super) fn check_fence(&mut self, what: impl Fn() -> String) {
        if !self.agent.may_act() {
            self.checkers
                .violate(format!("{} while somebody else may hold the queue", what()));
        } else if !self.agent.stopping && self.is_deposed() {
            self.mark("acts before it learns that another holds the queue");
        }
    }

    /// Who has been told that another holds the queue publishes the results in hand, sends its workers away, waits for the
    /// queue no longer if it is to end, and does nothing else.
    pub(super) fn check_standby(&mut self, outputs: &[Output]) {
        if !self.agent.standby {
            return;
        }
        let other = outputs.iter().find(|output| match output {
            Output::Send { message, .. } => *message != ToWorker::Close,
            Output::Publish { .. } | Output::Journal { .. } | Output::StopConsuming | Output::Drained => false,
            Output::Event(event) => !matches!(
                event,
                Event::PublishFailed { .. }
                    | Event::ResultConfirmed { .. }
                    | Event::ResultKept { .. }
                    | Event::TaskSettled { .. }
                    | Event::JournalFailed { .. }
                    | Event::HeldBytesExceeded(_)
            ),
            _ => true,
        });
        if let Some(output) = other {
            let what = format!("{output:?}");
            self.checkers
                .violate(format!("an agent that stands by does more than publish: {what}"));
        }
    }

    /// A process that was told to end and is killed because it did not: not for want of something to wait for.
    pub(super) fn check_patience(&mut self) {
        let Some(engine) = &self.agent.engine else { return };
        let told = self.agent.handing_over && self.agent.standby && !self.agent.is_frozen(self.now);
        if told && !self.agent.drained && engine.status(self.now).outstanding() == 0 {
            self.checkers.violate(
                "an agent that stands by has nothing in hand, was told to end, and does not say that it may".into(),
            );
        }
    }

    /// Never more blocks than may exist, and after failures ever later.
    pub(super) fn check_start(&mut self, block: BlockId) {
        const WINDOW: Duration = Duration::from_secs(60);
        /// Half a second, doubled each time: so many fit into a minute, and some more.
        const RETRIES: usize = 12;
        self.check_fence(|| format!("block {block} is started"));
        let most = self.options.settings.scaling.max_blocks as usize;
        self.agent.known.insert(block);
        if self.agent.known.len() > most {
            let known = self.agent.known.len();
            self.checkers.violate(format!(
                "block {block} is started as one of {known}, and {most} may exist"
            ));
        }
        let now = self.now;
        self.agent.starts.retain(|at| now.since(*at) < WINDOW);
        self.agent.starts.push(now);
        if self.agent.starts.len() > most + RETRIES {
            let starts = self.agent.starts.len();
            self.checkers.violate(format!(
                "{starts} blocks were started within a minute, and none came up"
            ));
        }
    }

    /// A block is ended for want of work only if it had none for as long as it may.
    pub(super) fn check_idleness(&mut self, block: BlockId) {
        let scaling = &self.options.settings.scaling;
        let least = scaling.max_idletime.max(scaling.deletion_lag);
        let Some(machine) = self.machines.get(&block) else {
            return;
        };
        let idle = self.now.since(machine.idle_since) + self.options.latency * 3;
        if !self.agent.stopping && machine.exists && idle < least {
            self.checkers.violate(format!(
                "block {block} is to be ended after {idle:?} without work, not {least:?}"
            ));
        }
    }

    /// A block that has something to do is never ended, unless the whole endpoint is.
    pub(super) fn check_deletion(&mut self, block: BlockId) {
        let Some(machine) = self.machines.get(&block) else {
            return;
        };
        let linked = machine
            .session
            .is_some_and(|worker| self.agent.links.contains_key(&worker));
        if !self.agent.stopping && linked && machine.exists && machine.is_busy() {
            self.checkers
                .violate(format!("block {block} is to be ended, and has something to do"));
        }
    }

    pub(super) fn observe_event(&mut self, event: &Event) {
        self.mark(event.name());
        if let Event::WorkerGivenUp { block, .. } = event {
            let (born, grace) = (self.agent.born, self.options.settings.reconnect_grace);
            let silent_for = match self.machines.get(block) {
                _ if self.agent.on_lost_nodes.contains(block) => Duration::MAX,
                Some(machine) if machine.exists => match self.agent.silent_since.get(block) {
                    Some(None) => Duration::ZERO,
                    Some(Some(since)) => self.now.since(*since),
                    None => self.now.since(born),
                },
                // A block that is gone is silent for as long as it likes.
                Some(_) | None => Duration::MAX,
            };
            self.checkers.given_up(*block, self.now, silent_for, grace);
        }
    }

    /// A result reached the broker: whose it is can be read in it.
    pub(crate) fn result_taken(&mut self, life: u64, task: TaskId, body: &Bytes) {
        let text = String::from_utf8_lossy(body);
        let made_in = text.trim_end_matches('\0').rsplit_once(" in ").and_then(|(_, block)| {
            let (epoch, number) = block.split_once('-')?;
            Some(BlockId {
                epoch: epoch.parse().ok()?,
                number: number.parse().ok()?,
            })
        });
        let made_in = if text.starts_with("result") { made_in } else { None };
        let author = self.author(life);
        self.checkers.result(task, body, made_in, author, self.now);
    }
}
