use std::time::Duration;

use waypost_engine::{ChannelEpoch, DeliveryTag, EntryId, Input, JournalRecord, Output, ToWorker, WorkerId};

use super::agent::task_of;
use crate::happening::{ChannelUse, Happening, Via};
use crate::world::World;

/// An engine that turns so often at one moment makes no progress.
const IDLE_TURNS_MAX: u32 = 10_000;

impl World<'_> {
    pub(crate) fn wake(&mut self, life: u64) {
        if self.turn_to(life) && self.agent.wake.is_some_and(|at| at <= self.now) {
            self.agent.wake = None;
            self.give(Input::Timeout);
        }
    }

    /// One turn of the run loop.
    pub(crate) fn give(&mut self, input: Input) {
        if self.agent.engine.is_none() {
            return;
        }
        self.trace(|| format!("  in  {}", shorten(&format!("{input:?}"))));
        let Some(engine) = &mut self.agent.engine else { return };
        let timeout = input == Input::Timeout;
        engine.handle(self.now, input);
        let mut outputs = Vec::new();
        let deadline = loop {
            match engine.poll_output() {
                Output::Idle => break None,
                Output::Deadline { at, .. } => break Some(at),
                output => outputs.push(output),
            }
        };
        engine.assert_invariants();
        let idle = timeout && outputs.is_empty();
        self.agent.idle_turns = if idle { self.agent.idle_turns + 1 } else { 0 };
        assert!(
            self.agent.idle_turns < IDLE_TURNS_MAX,
            "the engine wakes again and again and does nothing"
        );
        assert!(
            deadline.is_none_or(|at| at > self.now),
            "a deadline that has passed was not kept"
        );
        self.checkers.check_told(&outputs);
        self.check_standby(&outputs);
        for output in outputs {
            self.trace(|| format!("  out {}", shorten(&format!("{output:?}"))));
            self.carry_out(output);
        }
        if let Some(at) = deadline
            && self.agent.wake.is_none_or(|wake| wake > at || wake < self.now)
        {
            self.agent.wake = Some(at);
            let life = self.agent.life;
            self.at(at, Happening::Wake { life });
        }
    }

    fn carry_out(&mut self, output: Output) {
        match output {
            Output::Send { worker, message } => self.send_to_worker(worker, message),
            Output::Publish { publish, task, body } => {
                let Some(publisher) = self.agent.publisher else { return };
                let latency = self.latency();
                self.agent.publisher_clock = self.agent.publisher_clock.max(self.now + latency);
                self.at(
                    self.agent.publisher_clock,
                    Happening::Publish {
                        publisher,
                        publish,
                        task,
                        body,
                    },
                );
            }
            Output::Ack { tag, multiple } => {
                self.on_channel(tag.channel, ChannelUse::Acknowledge { tag: tag.tag, multiple })
            }
            Output::GiveBack { tag } => self.requeue_from(tag, false),
            Output::Refresh { tag } => self.requeue_from(tag, true),
            Output::SetPrefetch { window } => self.on_present_channel(ChannelUse::Consume { window }),
            Output::StopConsuming => {
                self.agent.consumes_no_more = true;
                self.on_present_channel(ChannelUse::Cancel);
            }
            Output::AskQueueDepth => self.on_present_channel(ChannelUse::Depth),
            Output::Journal { entry, record } => self.write_journal(entry, record),
            Output::StartBlock { block } => {
                self.check_start(block);
                self.start_block(block);
            }
            Output::DeleteBlock { block } => {
                self.check_fence(|| format!("block {block} is deleted"));
                self.check_deletion(block);
                self.delete_block(block);
            }
            Output::Event(event) => self.observe_event(&event),
            Output::Drained => {
                self.agent.drained = true;
                if self.agent.is_ending() {
                    let life = self.agent.life;
                    let pause = self.latency();
                    self.after(pause, Happening::KillAgent { life });
                }
            }
            Output::Deadline { .. } | Output::Idle => {}
        }
    }

    fn send_to_worker(&mut self, worker: WorkerId, message: ToWorker) {
        let Some(&block) = self.agent.links.get(&worker) else {
            return;
        };
        match &message {
            ToWorker::Run { task, .. } => {
                self.check_fence(|| format!("task {task} is sent to block {block}"));
                if self.agent.draining.contains(&worker) {
                    self.checkers
                        .violate(format!("task {task} was sent to block {block}, which drains"));
                }
            }
            ToWorker::Cancel { task, .. } => self.checkers.called_off(*task, block),
            ToWorker::Drain => {
                self.agent.draining.insert(worker);
                self.check_deletion(block);
                self.check_idleness(block);
            }
            _ => {}
        }
        let latency = self.latency();
        let clock = self.agent.link_clocks.entry(worker).or_default();
        let mut at = (*clock).max(self.now + latency);
        // A small message may overtake a large one, and never the other way round.
        if matches!(&message, ToWorker::Run { body, .. } if body.len() > self.options.overtaken) {
            at = at + latency;
        } else {
            *clock = at;
        }
        self.at(at, Happening::ToWorker { block, worker, message });
    }

    fn requeue_from(&mut self, tag: DeliveryTag, refreshed: bool) {
        let what = ChannelUse::Requeue {
            tag: tag.tag,
            refreshed,
        };
        self.on_channel(tag.channel, what);
    }

    fn on_present_channel(&mut self, what: ChannelUse) {
        if let Some(channel) = self.agent.channel {
            self.on_channel(ChannelEpoch(channel), what);
        }
    }

    fn on_channel(&mut self, channel: ChannelEpoch, what: ChannelUse) {
        if self.agent.channel != Some(channel.0) {
            return;
        }
        let latency = self.latency();
        self.agent.channel_clock = self.agent.channel_clock.max(self.now + latency);
        self.at(
            self.agent.channel_clock,
            Happening::ToBroker {
                channel: channel.0,
                what,
            },
        );
    }

    /// A plain write: once it is made it outlives the process.
    fn write_journal(&mut self, through: EntryId, record: JournalRecord) {
        let written = !self.agent.journal_fails;
        let task = task_of(&record);
        if let JournalRecord::Started { attempt, block, .. } = &record
            && written
        {
            self.checkers.start_recorded(task, *block, *attempt, self.agent.disk);
        }
        if written {
            if matches!(record, JournalRecord::Accepted { .. }) {
                self.agent.accepted.insert(task);
            }
            if let JournalRecord::Result { body, .. } = &record {
                self.checkers.result_recorded(task, body, self.agent.disk);
            }
            self.agent.journal.push(record);
        } else {
            self.checkers.unrecorded(task);
        }
        let latency = self.chance.time(Duration::from_micros(10), Duration::from_millis(20));
        // Outcomes come in the order of the entries.
        self.agent.journal_clock = self.agent.journal_clock.max(self.now + latency);
        let (at, life) = (self.agent.journal_clock, self.agent.life);
        self.at(
            at,
            Happening::ToAgent {
                life,
                via: Via::Process,
                input: Input::Journalled { through, written },
            },
        );
    }
}

fn shorten(text: &str) -> String {
    const LONGEST: usize = 300;
    let end = text.char_indices().nth(LONGEST).map_or(text.len(), |(index, _)| index);
    format!(
        "{}{}",
        text.get(..end).unwrap_or(text),
        if end < text.len() { "..." } else { "" }
    )
}
