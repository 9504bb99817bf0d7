use std::time::Duration;

use waypost_engine::{BlockEnd, BlockEndKind, BlockId, Input};

use crate::Fault;
use crate::happening::Happening;
use crate::world::World;

impl World<'_> {
    /// Something goes wrong now.
    pub(crate) fn fault(&mut self, fault: Fault) {
        self.trace(|| format!("FAULT {fault:?}"));
        match fault {
            Fault::Channel => self.break_some_channel(),
            Fault::Publisher => {
                let publishers: Vec<u64> = self.broker.publishers.keys().copied().collect();
                if let Some(publisher) = self.chance.choose(&publishers) {
                    self.break_publisher(publisher);
                }
            }
            Fault::Outage => {
                self.broker.up = false;
                self.break_all();
                let pause = self.chance.millis(500, 120_000);
                self.after(pause, Happening::BrokerBack);
            }
            Fault::Link => {
                if let Some(block) = self.some_block() {
                    self.break_link(block, true);
                }
            }
            Fault::Silence => {
                let grace = self.options.settings.reconnect_grace;
                let until = self.now + self.chance.time(Duration::from_millis(100), grace * 3);
                if let Some(block) = self.some_block() {
                    self.break_link(block, true);
                    if let Some(machine) = self.machines.get_mut(&block) {
                        machine.unreachable_until = Some(until);
                    }
                }
            }
            Fault::Block => {
                if let Some(block) = self.some_block() {
                    let all = [
                        BlockEndKind::Crashed,
                        BlockEndKind::OutOfMemory,
                        BlockEndKind::Evicted,
                        BlockEndKind::NodeLost,
                    ];
                    let kind = self.chance.choose(&all).unwrap_or(BlockEndKind::Unknown);
                    self.block_dies(block, BlockEnd::new(kind, "bad luck"));
                }
            }
            Fault::Kill => {
                if self.turn_to_some() {
                    self.kill_agent(self.agent.life);
                }
            }
            Fault::HandOver => {
                if self.turn_to_some() {
                    self.hand_over();
                }
            }
            Fault::Fence => {
                let pause = self.chance.millis(1_000, 60_000);
                self.broker.held_by_other = Some(self.now + pause);
                if let Some((epoch, _)) = self.broker.holder() {
                    self.break_channel(epoch, None);
                }
            }
            Fault::Journal => {
                self.agent.journal_fails = true;
                let pause = self.chance.millis(100, 60_000);
                self.after(pause, Happening::JournalBack);
            }
            Fault::Terminate => {
                if let Some(block) = self.some_block() {
                    self.terminate(block);
                }
            }
            Fault::Cancel => {
                let tasks: Vec<waypost_engine::TaskId> = self.facts.keys().copied().collect();
                if let Some(task) = self.chance.choose(&tasks) {
                    self.checkers.cancelled(task);
                    if self.turn_to_some() && !self.agent.is_frozen(self.now) {
                        self.give(Input::Cancel { task });
                    }
                }
            }
            Fault::Room => {
                let pause = self.chance.millis(1_000, 300_000);
                self.cluster.room_at = self.now + pause;
            }
            Fault::Image => {
                let pause = self.chance.millis(1_000, 120_000);
                self.cluster.images_at = self.now + pause;
            }
            Fault::Evict => {
                if let Some(block) = self.some_block() {
                    let all = [
                        BlockEndKind::Evicted,
                        BlockEndKind::Preempted,
                        BlockEndKind::Drained,
                        BlockEndKind::Deleted,
                    ];
                    let kind = self.chance.choose(&all).unwrap_or(BlockEndKind::Unknown);
                    self.platform_ends(block, BlockEnd::new(kind, "the platform needs its place"));
                }
            }
            Fault::Node => self.lose_node(),
            Fault::Api => {
                let pause = self.chance.millis(500, 60_000);
                self.cluster.api_at = self.now + pause;
            }
            Fault::Move => {
                self.turn_to_some();
                self.lose_journal();
                self.kill_agent(self.agent.life);
            }
            Fault::Stop => self.stop_for_a_while(),
            Fault::Second => self.start_second(),
            Fault::Cut => self.cut_off(),
            Fault::Freeze => self.freeze(),
            Fault::Refusal
            | Fault::Start
            | Fault::Delete
            | Fault::Executor
            | Fault::Double
            | Fault::Never
            | Fault::Crash
            | Fault::Mute => {}
        }
    }

    fn some_block(&mut self) -> Option<BlockId> {
        let blocks = self.existing_blocks();
        self.chance.choose(&blocks)
    }
}
