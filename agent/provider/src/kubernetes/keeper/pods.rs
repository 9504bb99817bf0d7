//! What pods show, and what is said of their blocks.

use tokio::time::Instant;
use waypost_engine::{BlockEnd, BlockEndKind, BlockId, BlockState, Waiting, WaitingCause};

use super::{Done, Keeper, LOOKS, Timer};
use crate::kubernetes::events::Reason;
use crate::kubernetes::observed::ObservedPod;
use crate::kubernetes::watch::Sighting;
use crate::kubernetes::{explain, labels};
use crate::{BlockDetails, ProviderEvent};

impl Keeper {
    pub(super) fn sighting(&mut self, sighting: Sighting) {
        match sighting {
            Sighting::Seen(pod) => {
                if self.sees(&pod).is_some() {
                    self.seen(*pod);
                }
            }
            Sighting::Gone(pod) => self.gone(&pod),
            Sighting::Listed(names) => {
                let missing: Vec<BlockId> = self
                    .blocks
                    .iter()
                    .filter(|(_, block)| {
                        block.uid.is_some() && block.creating.is_none() && !names.contains(&block.name)
                    })
                    .map(|(id, _)| *id)
                    .collect();
                // It may have been made after the list: only a look at it tells.
                for id in missing {
                    self.read(id);
                }
            }
        }
    }

    pub(super) fn read(&self, id: BlockId) {
        let Some(block) = self.blocks.get(&id) else { return };
        let (jobs, name) = (self.jobs.clone(), block.name.clone());
        self.spawn(async move { Done::Read(id, jobs.read(&name).await.ok().map(|pod| pod.map(Box::new))) });
    }

    /// A pod as it is now.
    pub(super) fn seen(&mut self, pod: ObservedPod) {
        let Some(id) = labels::block(&pod.metadata) else { return };
        let Some(block) = self.blocks.get_mut(&id) else { return };
        if block.ended {
            return;
        }
        let node = pod.spec.as_ref().and_then(|spec| spec.node_name.as_ref());
        if block.node.as_ref() != node {
            block.node = node.cloned();
            let details = BlockDetails {
                name: block.name.clone(),
                node: block.node.clone(),
            };
            self.say(ProviderEvent::Located { block: id, details });
        }
        let Some(block) = self.blocks.get_mut(&id) else { return };
        let observation = explain::observe(&pod, block.asked);
        match observation.state {
            BlockState::Ended(end) => {
                let end = caused_by(end, block.told.as_ref());
                let keep = !block.asked && end.kind != BlockEndKind::Completed;
                block.keep = keep && pod.metadata.deletion_timestamp.is_none() && self.kept.is_wanted();
                // Of a block that we end, what it printed was read before.
                let log = observation.log.filter(|_| !block.asked);
                self.end(id, end, log);
            }
            BlockState::Running => {
                block.ran = true;
                self.tell(id, BlockState::Running);
            }
            BlockState::Pending { why: None } if explain::is_being_made(&pod) => {
                if block.looks == 0 {
                    block.looks = 1;
                    self.timers.insert((Instant::now() + LOOKS[0], id, Timer::Look));
                }
                // What the Events said holds until something else is seen.
                if !block.by_events {
                    self.tell(id, BlockState::Pending { why: None });
                }
            }
            state @ (BlockState::Pending { .. } | BlockState::Ending(_)) => self.tell(id, state),
        }
    }

    /// A block has ended: once its last words are known this is said, and its pod removed.
    pub(super) fn end(&mut self, id: BlockId, mut end: BlockEnd, log: Option<String>) {
        let Some(block) = self.blocks.get_mut(&id) else { return };
        if std::mem::replace(&mut block.ended, true) {
            return;
        }
        if !block.output.is_empty() {
            end.output = std::mem::take(&mut block.output);
        }
        match log {
            None => self.tell_ended(id, end),
            Some(container) => {
                block.reading = true;
                let (jobs, name) = (self.jobs.clone(), block.name.clone());
                self.spawn(async move {
                    let lines = jobs.last_lines(&name, &container).await;
                    if !lines.is_empty() {
                        end.output = lines;
                    }
                    Done::Ended(id, end)
                });
            }
        }
    }

    pub(super) fn tell_ended(&mut self, id: BlockId, mut end: BlockEnd) {
        let Some(block) = self.blocks.get_mut(&id) else { return };
        block.reading = false;
        let gone = block.gone;
        if end.kind == BlockEndKind::Crashed {
            let config = &self.jobs.settings.config;
            let advice = explain::advice(&end.output, config.security_profile, config.writable_root);
            if !advice.is_empty() {
                end.message = format!("{}; {advice}", end.message);
            }
        }
        if !block.asked && end.kind != BlockEndKind::Completed {
            self.record(Reason::Failed, &end.message);
        }
        self.say(ProviderEvent::Observed {
            block: id,
            state: BlockState::Ended(end),
        });
        self.clear_away(id);
        if gone {
            self.blocks.remove(&id);
        }
    }

    pub(super) fn gone(&mut self, pod: &ObservedPod) {
        if let Some(name) = &pod.metadata.name {
            self.kept.forget(name);
        }
        let Some(id) = labels::block(&pod.metadata) else { return };
        let Some(block) = self.blocks.get_mut(&id) else { return };
        if block.uid.is_some() && block.uid != pod.metadata.uid {
            return;
        }
        let end = match block.told.take() {
            // What the platform said while it still did is more than what its last object says.
            Some(BlockState::Ending(end)) => end,
            _ => explain::gone(pod, block.asked),
        };
        self.is_gone(id, end);
    }

    /// A pod is not there, and its last state was not seen.
    pub(super) fn vanished(&mut self, id: BlockId) {
        let Some(block) = self.blocks.get_mut(&id) else { return };
        let end = match block.told.take() {
            Some(BlockState::Ending(end)) => end,
            _ if block.asked => BlockEnd::new(BlockEndKind::Deleted, "its pod was deleted"),
            _ => BlockEnd::new(
                BlockEndKind::Unknown,
                format!("its pod {} is gone, and nobody saw how it ended", block.name),
            ),
        };
        self.is_gone(id, end);
    }

    pub(super) fn is_gone(&mut self, id: BlockId, mut end: BlockEnd) {
        let Some(block) = self.blocks.get_mut(&id) else { return };
        block.keep = false;
        block.gone = true;
        if block.reading {
            // Its end is said when its last lines are there, or are not to be had.
            return;
        }
        if block.ended {
            self.blocks.remove(&id);
            return;
        }
        block.ended = true;
        end.output = std::mem::take(&mut block.output);
        self.tell_ended(id, end);
    }

    /// Says what a block is now, if that is not what was said last.
    pub(super) fn tell(&mut self, id: BlockId, state: BlockState) {
        let Some(block) = self.blocks.get_mut(&id) else { return };
        block.by_events = false;
        if block.ended || block.told.as_ref() == Some(&state) {
            return;
        }
        block.told = Some(state.clone());
        if let BlockState::Pending { why: Some(waiting) } = &state {
            let reason = match waiting.cause {
                WaitingCause::Scheduling => Some(Reason::Unschedulable),
                WaitingCause::Image => Some(Reason::ImageNotPulled),
                WaitingCause::Never => Some(Reason::Misconfigured),
                WaitingCause::Other => None,
            };
            if let Some(reason) = reason {
                let note = format!("pod {}: {}", block.name, waiting.text);
                self.record(reason, &note);
            }
        }
        self.say(ProviderEvent::Observed { block: id, state });
    }

    /// Writes a Kubernetes Event, if the like was not written lately.
    pub(super) fn record(&self, reason: Reason, note: &str) {
        let recorder = self.jobs.cluster.recorder();
        if !recorder.is_due(self.jobs.settings.names.user_endpoint(), reason) {
            return;
        }
        let (jobs, note) = (self.jobs.clone(), note.to_owned());
        tokio::spawn(async move {
            let Ok(client) = jobs.client().await else { return };
            let namespace = &jobs.settings.config.namespace;
            let anchor = jobs.cluster.owner(&client, namespace).await.ok();
            let recorder = jobs.cluster.recorder();
            recorder.tell(client, namespace, anchor, reason, &note).await;
        });
    }

    pub(super) fn looked(&mut self, id: BlockId, waiting: Option<Waiting>) {
        let Some(block) = self.blocks.get_mut(&id) else { return };
        if block.ended || !matches!(block.told, Some(BlockState::Pending { .. })) {
            return;
        }
        let pause = LOOKS[block.looks.min(LOOKS.len() - 1)];
        block.looks += 1;
        self.timers.insert((Instant::now() + pause, id, Timer::Look));
        if waiting.is_none() || block.told == Some(BlockState::Pending { why: waiting.clone() }) {
            return;
        }
        self.tell(id, BlockState::Pending { why: waiting });
        if let Some(block) = self.blocks.get_mut(&id) {
            block.by_events = true;
        }
    }
}

/// How a block ended of which `told` was said last. A worker that is told to end does, well or otherwise: what counts is who
/// told it.
fn caused_by(end: BlockEnd, told: Option<&BlockState>) -> BlockEnd {
    match (end.kind, told) {
        (BlockEndKind::Completed | BlockEndKind::Crashed, Some(BlockState::Ending(cause))) => BlockEnd {
            exit: end.exit,
            output: end.output,
            ..cause.clone()
        },
        _ => end,
    }
}
