//! What blocks leave behind, and what their pods say to others.

use tokio::time::Instant;
use waypost_engine::BlockId;

use super::{Done, IDLE_FOR, Keeper, Timer};
use crate::kubernetes::{kept, labels};

impl Keeper {
    /// Removes what is left of an ended block, if that is ours to do.
    pub(super) fn clear_away(&mut self, id: BlockId) {
        let Some(block) = self.blocks.get(&id) else { return };
        if !self.holds && !block.asked {
            return;
        }
        let (jobs, name) = (self.jobs.clone(), block.name.clone());
        let endings = &self.jobs.endings;
        endings.spawn(async move { jobs.remove_secret(&name).await });
        if block.keep {
            self.keep(id);
        } else {
            self.remove(id);
        }
    }

    pub(super) fn keep(&mut self, id: BlockId) {
        let Some(block) = self.blocks.remove(&id) else { return };
        let Some(uid) = block.uid else { return };
        let jobs = self.jobs.clone();
        let name = block.name.clone();
        self.kept.add(block.name, uid, Instant::now());
        self.jobs.endings.spawn(async move {
            let [first, second] = labels::BUSY.map(|(key, _)| (key, None));
            let since = kept::annotation();
            jobs.annotate(&name, &[(labels::KEPT, Some(&since)), first, second])
                .await;
        });
        self.expire();
    }

    pub(super) fn expire(&mut self) {
        for (name, uid) in self.kept.expired(Instant::now()) {
            let jobs = self.jobs.clone();
            tokio::spawn(async move { kept::remove(&jobs, &name, uid).await });
        }
    }

    pub(super) fn set_busy(&mut self, id: BlockId, busy: bool) {
        let Some(block) = self.blocks.get_mut(&id) else { return };
        if let Some(at) = block.idle_at.take() {
            self.timers.remove(&(at, id, Timer::Idle));
        }
        if busy {
            block.busy = true;
            self.annotate(id);
        } else {
            let at = Instant::now() + IDLE_FOR;
            block.idle_at = Some(at);
            self.timers.insert((at, id, Timer::Idle));
        }
    }

    /// A block has been idle for long enough to say so.
    pub(super) fn is_idle(&mut self, id: BlockId) {
        let Some(block) = self.blocks.get_mut(&id) else { return };
        block.idle_at = None;
        block.busy = false;
        self.annotate(id);
    }

    /// Lets autoscalers know whether a block is busy, if they do not. One change at a time: those that wait for their turn
    /// would come too late to be true.
    fn annotate(&mut self, id: BlockId) {
        let Some(block) = self.blocks.get_mut(&id) else { return };
        if block.says_busy == block.busy || block.annotating || block.ended || block.removing.is_some() {
            return;
        }
        block.says_busy = block.busy;
        block.annotating = true;
        let (jobs, name, busy) = (self.jobs.clone(), block.name.clone(), block.busy);
        self.spawn(async move {
            let annotations = labels::BUSY.map(|(key, value)| (key, busy.then_some(value)));
            jobs.annotate(&name, &annotations).await;
            Done::Annotated(id)
        });
    }

    /// A change is done: perhaps it is not what they are to say any more.
    pub(super) fn annotated(&mut self, id: BlockId) {
        let Some(block) = self.blocks.get_mut(&id) else { return };
        block.annotating = false;
        self.annotate(id);
    }

    /// The queue is ours, or not any more.
    pub(super) fn hold(&mut self, holds: bool) {
        if std::mem::replace(&mut self.holds, holds) || !holds {
            return;
        }
        // One whose last lines are being read is cleared away when its end has been said.
        let ended: Vec<BlockId> = self
            .blocks
            .iter()
            .filter(|(_, block)| block.ended && !block.reading && block.removing.is_none())
            .map(|(id, _)| *id)
            .collect();
        for id in ended {
            self.clear_away(id);
        }
        self.expire();
        self.sweep();
    }

    /// Looks for Secrets of blocks that were gone before this agent came.
    pub(super) fn sweep(&self) {
        let jobs = self.jobs.clone();
        self.spawn(async move {
            let secrets = jobs.list_secrets().await.unwrap_or_else(|error| {
                tracing::debug!(%error, "Secrets of blocks that are gone can not be looked for");
                Vec::new()
            });
            Done::Swept(secrets)
        });
    }

    /// A block is known before its Secret is made, so that a Secret of none that is known is one left over.
    pub(super) fn swept(&self, secrets: Vec<(String, BlockId)>) {
        if !self.holds {
            // Another agent may have blocks that are not known here.
            return;
        }
        for (name, id) in secrets {
            if self.blocks.contains_key(&id) {
                continue;
            }
            let jobs = self.jobs.clone();
            tokio::spawn(async move {
                if matches!(jobs.read(&name).await, Ok(None)) {
                    jobs.remove_secret(&name).await;
                }
            });
        }
    }
}
