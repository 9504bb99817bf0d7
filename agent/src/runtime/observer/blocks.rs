//! What becomes of blocks and their workers.

use endpoint_telemetry::{BlockEnd, BlockState};
use waypost_engine::{BlockEndKind, Event, Time};

use super::Observer;

impl Observer {
    #[expect(clippy::wildcard_enum_match_arm, reason = "observe tells the kinds apart")]
    pub(super) fn observe_block(&mut self, now: Time, event: Event) {
        match event {
            Event::WorkerJoined {
                worker,
                block,
                slots,
                returned,
            } => {
                let of = self.block(now, block);
                of.worker = Some(worker);
                of.slots = slots;
                of.waiting = None;
                if of.state != BlockState::Draining {
                    of.state = BlockState::Running;
                }
                self.changed = true;
                tracing::info!(%worker, %block, slots, returned, "worker joined");
            }
            Event::WorkerSilent { worker, block } => {
                let of = self.block(now, block);
                if of.worker == Some(worker) {
                    of.worker = None;
                    of.state = BlockState::Lost;
                }
                tracing::warn!(%worker, %block, "the link to a worker is gone");
            }
            Event::WorkerGivenUp { block, tasks } => {
                tracing::warn!(%block, tasks, "a silent worker was not back in time");
            }
            Event::BlockStarting { block } => {
                self.block(now, block);
                tracing::info!(%block, "block is being started");
            }
            Event::BlockStartFailed {
                block,
                end,
                failures,
                again_in,
            } => {
                self.blocks.remove(&block);
                self.metrics.block_ends.increment(end_label(end.kind));
                self.note_error(format!("a block could not be started: {}", end.message));
                tracing::warn!(%block, failures, ?again_in, why = %end.message, output = %end.output, "block could not be started");
            }
            Event::BlockWaiting { block, waiting } => {
                tracing::warn!(%block, name = self.names.name(block), cause = waiting.cause.as_str(), why = %waiting.text, "block does not run yet");
                self.block(now, block).waiting = Some(waiting);
            }
            Event::BlockEnding { block, end } => {
                self.block(now, block).state = BlockState::Draining;
                tracing::warn!(%block, kind = end.kind.as_str(), why = %end.message, "the platform is ending a block");
            }
            Event::CircuitOpened { failures, end, tasks } => {
                self.note_error(format!("no block starts: {}", end.message));
                tracing::warn!(failures, tasks, why = %end.message, "no block starts, and the waiting tasks were told so");
            }
            Event::CircuitClosed => tracing::info!("blocks start again"),
            Event::BlockDraining { block, idle_for } => {
                self.block(now, block).state = BlockState::Draining;
                tracing::info!(%block, ?idle_for, "idle block is being drained");
            }
            Event::BlockDeleting { block } => {
                self.block(now, block).state = BlockState::Draining;
                tracing::info!(%block, "block is being deleted");
            }
            Event::BlockEnded {
                block,
                end,
                tasks,
                expected,
            } => {
                self.blocks.remove(&block);
                self.metrics.block_ends.increment(if expected {
                    BlockEnd::Released
                } else {
                    end_label(end.kind)
                });
                if expected {
                    tracing::info!(%block, "block has ended");
                } else {
                    self.note_error(format!("a block ended by itself: {}", end.message));
                    tracing::warn!(%block, tasks, why = %end.message, output = %end.output, "block ended by itself");
                }
            }
            _ => {}
        }
    }
}

const fn end_label(kind: BlockEndKind) -> BlockEnd {
    match kind {
        BlockEndKind::Completed => BlockEnd::Completed,
        BlockEndKind::Crashed => BlockEnd::Crashed,
        BlockEndKind::OutOfMemory => BlockEnd::OutOfMemory,
        BlockEndKind::Evicted => BlockEnd::Evicted,
        BlockEndKind::Drained => BlockEnd::Drained,
        BlockEndKind::Preempted => BlockEnd::Preempted,
        BlockEndKind::NodeLost => BlockEnd::NodeLost,
        BlockEndKind::Deleted => BlockEnd::Deleted,
        BlockEndKind::CannotStart => BlockEnd::CannotStart,
        BlockEndKind::Rejected => BlockEnd::Rejected,
        BlockEndKind::Unschedulable => BlockEnd::Unschedulable,
        BlockEndKind::ImageNotPulled => BlockEnd::ImageNotPulled,
        BlockEndKind::Misconfigured => BlockEnd::Misconfigured,
        BlockEndKind::CreationTimeout => BlockEnd::CreationTimeout,
        BlockEndKind::NotRegistered => BlockEnd::NotRegistered,
        BlockEndKind::Unknown => BlockEnd::Unknown,
    }
}
