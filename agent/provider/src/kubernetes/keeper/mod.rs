//! The keeper of one user endpoint's blocks: hears orders, sightings and outcomes one after the other, so that nothing
//! needs a lock, and says what the engine is to know.
//!
//! Of a block it keeps a few words, never its pod's object: memory is bounded by the number of own pods.

mod leavings;
mod pods;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;
use waypost_engine::{BlockEnd, BlockEndKind, BlockId, BlockState, StartOutcome, Waiting, WaitingCause};

use super::events::Reason;
use super::jobs::{Creation, Jobs, Removal};
use super::kept::{self, Kept};
use super::labels;
use super::observed::ObservedPod;
use super::pod::WORKER;
use super::watch::{Sighting, Subscription};
use crate::{ListError, ProviderEvent};

/// When the Events about a pod that does not start are looked at, each time after the one before.
const LOOKS: [Duration; 5] = [
    Duration::from_secs(3),
    Duration::from_secs(5),
    Duration::from_secs(15),
    Duration::from_secs(30),
    Duration::from_secs(60),
];
/// How long a block must be idle before its pod says so: the next task may come at once.
const IDLE_FOR: Duration = Duration::from_secs(10);

/// What the keeper is told to do.
pub(in crate::kubernetes) enum Order {
    List(oneshot::Sender<Result<Vec<BlockId>, ListError>>),
    Start(BlockId),
    Delete(BlockId),
    Busy(BlockId, bool),
    Hold(bool),
    /// To be answered when all that was told before is under way.
    Finish(oneshot::Sender<()>),
}

/// What became of a job.
enum Done {
    /// A start takes its time, and why.
    Delayed(BlockId, String),
    Created(BlockId, Creation),
    Removed(BlockId, Removal),
    /// The last lines of a block that was alive when its end was asked for.
    Printed(BlockId, String),
    /// The same of a block that has ended.
    Ended(BlockId, BlockEnd),
    /// A pod that was missing in a list: what it is now; not given if the API did not say.
    Read(BlockId, Option<Option<Box<ObservedPod>>>),
    Looked(BlockId, Option<Waiting>),
    /// A pod's annotations say what they were to, or could not be made to.
    Annotated(BlockId),
    /// The Secrets that there are, and for which block each is.
    Swept(Vec<(String, BlockId)>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Timer {
    Look,
    Idle,
    Read,
    Remove,
}

/// What is known of a block.
#[derive(Default)]
struct Block {
    name: String,
    uid: Option<String>,
    /// Its start is under way.
    creating: Option<CancellationToken>,
    /// Its end was ordered.
    asked: bool,
    /// The deletion of its pod is under way, or was taken.
    removing: Option<CancellationToken>,
    /// Its end was said, or will be once its last lines are read.
    ended: bool,
    /// They are being read.
    reading: bool,
    /// Its pod is not there any more.
    gone: bool,
    told: Option<BlockState>,
    /// That is what Events said, and nothing that its pod shows.
    by_events: bool,
    /// Its worker's container was seen running.
    ran: bool,
    /// What it printed last, read before its pod was deleted.
    output: String,
    node: Option<String>,
    looks: usize,
    /// What its pod's annotations say, and should.
    says_busy: bool,
    busy: bool,
    /// When they are to say that it is idle, unless it gets work before.
    idle_at: Option<Instant>,
    /// They are being changed.
    annotating: bool,
    /// It stays for inspection.
    keep: bool,
}

impl Block {
    fn new(name: String) -> Self {
        Self {
            name,
            says_busy: true,
            busy: true,
            ..Self::default()
        }
    }
}

/// See the module.
pub(in crate::kubernetes) struct Keeper {
    jobs: Jobs,
    events: mpsc::UnboundedSender<ProviderEvent>,
    blocks: BTreeMap<BlockId, Block>,
    kept: Kept,
    timers: BTreeSet<(Instant, BlockId, Timer)>,
    subscription: Option<Subscription>,
    done: mpsc::UnboundedSender<Done>,
    /// The queue is ours: only then is anything removed that nobody ordered to be.
    holds: bool,
}

impl Keeper {
    /// Runs until nobody can give orders any more.
    pub(in crate::kubernetes) async fn run(
        jobs: Jobs,
        events: mpsc::UnboundedSender<ProviderEvent>,
        mut orders: mpsc::UnboundedReceiver<Order>,
    ) {
        let (done, mut outcomes) = mpsc::unbounded_channel();
        let kept = Kept::new(jobs.settings.config.keep_failed_pods);
        let mut keeper = Self {
            jobs,
            events,
            blocks: BTreeMap::new(),
            kept,
            timers: BTreeSet::new(),
            subscription: None,
            done,
            holds: false,
        };
        loop {
            let timer = keeper.timers.first().map(|(at, _, _)| *at);
            let expiry = if keeper.holds { keeper.kept.next_expiry() } else { None };
            let next = [timer, expiry].into_iter().flatten().min();
            tokio::select! {
                // Outcomes first: what a block printed is told before the sighting of its end.
                biased;
                Some(outcome) = outcomes.recv() => keeper.outcome(outcome),
                order = orders.recv() => match order {
                    Some(order) => keeper.order(order).await,
                    None => break,
                },
                sighting = sighting(&mut keeper.subscription) => keeper.sighting(sighting),
                () = sleep_until(next.unwrap_or_else(Instant::now)), if next.is_some() => keeper.timeout(),
            }
        }
        keeper.leave();
    }

    /// The user endpoint has ended.
    fn leave(self) {
        for block in self.blocks.values() {
            if let Some(cancel) = &block.creating {
                cancel.cancel();
            }
        }
        if self.holds {
            tokio::spawn(self.kept.outlast(self.jobs));
        }
    }

    fn say(&self, event: ProviderEvent) {
        // Nobody listens any more when the user endpoint has ended.
        let _ = self.events.send(event);
    }

    fn spawn(&self, job: impl Future<Output = Done> + Send + 'static) {
        let done = self.done.clone();
        tokio::spawn(async move {
            let _ = done.send(job.await);
        });
    }

    async fn order(&mut self, order: Order) {
        match order {
            Order::List(reply) => {
                let listed = self.list().await;
                let _ = reply.send(listed);
            }
            Order::Start(block) => self.start(block),
            Order::Delete(block) => self.delete(block),
            Order::Busy(block, busy) => self.set_busy(block, busy),
            Order::Hold(holds) => self.hold(holds),
            Order::Finish(reply) => {
                let _ = reply.send(());
            }
        }
    }

    /// The blocks that exist. What they are is said after, of each.
    async fn list(&mut self) -> Result<Vec<BlockId>, ListError> {
        let place = format!("the namespace {}", self.jobs.settings.config.namespace);
        let failed = |error| ListError::new(place.clone(), error);
        let client = self.jobs.client().await.map_err(failed)?;
        if self.subscription.is_none() {
            // Before the list, so that nothing is missed between the two.
            self.subscription = Some(self.jobs.cluster.watches().subscribe(
                &client,
                &self.jobs.settings.config.namespace,
                self.jobs.settings.names.user_endpoint(),
            ));
        }
        let pods = self.jobs.list().await.map_err(failed)?;
        // What an engine before this one had begun and not finished is not wanted any more: another agent may have given work
        // to the blocks that were to go.
        for block in self.blocks.values_mut() {
            block.told = None;
            block.by_events = false;
            block.asked = false;
            if let Some(cancel) = &block.creating {
                cancel.cancel();
            }
            if let Some(cancel) = block.removing.take() {
                cancel.cancel();
                block.output.clear();
            }
            // An end that was said before may have been heard by nobody: it is said again.
            block.ended &= block.reading;
        }
        let mut found = Vec::new();
        for pod in pods {
            let Some(id) = self.sees(&pod) else { continue };
            found.push(id);
            self.seen(pod);
        }
        found.sort_unstable();
        Ok(found)
    }

    /// Which block's pod this is, if it is one that matters: not another of the same name, nor one that is only kept.
    fn sees(&mut self, pod: &ObservedPod) -> Option<BlockId> {
        let block = labels::block(&pod.metadata)?;
        let (name, uid) = (pod.metadata.name.clone()?, pod.metadata.uid.clone()?);
        if let Some(annotation) = labels::annotation(&pod.metadata, labels::KEPT) {
            if pod.metadata.deletion_timestamp.is_none() {
                self.kept.add(name, uid, kept::since(annotation));
            }
            return None;
        }
        if self.kept.has(&uid) {
            return None;
        }
        let known = self.blocks.entry(block).or_insert_with(|| Block::new(name));
        let same = known.uid.get_or_insert_with(|| uid.clone()) == &uid;
        same.then_some(block)
    }

    fn start(&mut self, id: BlockId) {
        if self.blocks.contains_key(&id) {
            return;
        }
        let cancel = CancellationToken::new();
        let mut block = Block::new(self.jobs.settings.names.name(id));
        block.creating = Some(cancel.clone());
        self.blocks.insert(id, block);
        let (jobs, delays) = (self.jobs.clone(), self.done.clone());
        self.spawn(async move {
            let trouble = |words| {
                let _ = delays.send(Done::Delayed(id, words));
            };
            Done::Created(id, jobs.create(id, &cancel, trouble).await)
        });
    }

    fn delete(&mut self, id: BlockId) {
        let Some(block) = self.blocks.get_mut(&id) else {
            self.say(ProviderEvent::Deleted { block: id, done: true });
            let end = BlockEnd::new(BlockEndKind::Unknown, "its pod does not exist");
            self.say(ProviderEvent::Observed {
                block: id,
                state: BlockState::Ended(end),
            });
            return;
        };
        block.asked = true;
        if let Some(cancel) = &block.creating {
            cancel.cancel();
        } else if !block.ended {
            self.remove(id);
        }
        self.say(ProviderEvent::Deleted { block: id, done: true });
    }

    /// Deletes a block's pod. What a living worker printed last is read before, for it may be why it is deleted.
    fn remove(&mut self, id: BlockId) {
        let Some(block) = self.blocks.get_mut(&id) else { return };
        if block.gone || block.removing.is_some() {
            return;
        }
        let cancel = CancellationToken::new();
        block.removing = Some(cancel.clone());
        let (name, uid) = (block.name.clone(), block.uid.clone());
        let asks = block.asked && block.ran && !block.ended && block.output.is_empty();
        let (jobs, done) = (self.jobs.clone(), self.done.clone());
        self.spawn(self.jobs.endings.track_future(async move {
            if asks {
                let _ = done.send(Done::Printed(id, jobs.last_lines(&name, WORKER).await));
            }
            Done::Removed(id, jobs.remove(&name, uid, &cancel).await)
        }));
    }

    fn outcome(&mut self, outcome: Done) {
        match outcome {
            Done::Delayed(id, text) => {
                let cause = WaitingCause::Other;
                if self.blocks.get(&id).is_some_and(|block| block.creating.is_some()) {
                    self.tell(
                        id,
                        BlockState::Pending {
                            why: Some(Waiting { cause, text }),
                        },
                    );
                }
            }
            Done::Created(id, creation) => self.created(id, creation),
            Done::Removed(id, removal) => self.removed(id, removal),
            Done::Printed(id, output) => {
                if let Some(block) = self.blocks.get_mut(&id) {
                    block.output = output;
                }
            }
            Done::Ended(id, end) => self.tell_ended(id, end),
            Done::Read(id, Some(Some(pod))) => {
                if self.sees(&pod) == Some(id) {
                    self.seen(*pod);
                } else {
                    self.vanished(id);
                }
            }
            Done::Read(id, Some(None)) => self.vanished(id),
            Done::Read(id, None) => {
                self.timers.insert((Instant::now() + LOOKS[1], id, Timer::Read));
            }
            Done::Looked(id, waiting) => self.looked(id, waiting),
            Done::Annotated(id) => self.annotated(id),
            Done::Swept(secrets) => self.swept(secrets),
        }
    }

    fn created(&mut self, id: BlockId, creation: Creation) {
        let Some(block) = self.blocks.get_mut(&id) else { return };
        block.creating = None;
        let outcome = match creation {
            Creation::Made { uid } => {
                block.uid = Some(uid);
                if block.asked {
                    self.remove(id);
                }
                StartOutcome::Started
            }
            Creation::Failed(end) => {
                self.blocks.remove(&id);
                self.record(Reason::NotCreated, &end.message);
                StartOutcome::Failed(end)
            }
            Creation::Abandoned => {
                // Of one that was listed since, the engine says what becomes of it.
                if block.asked || block.uid.is_none() {
                    block.asked = true;
                    self.remove(id);
                }
                StartOutcome::Unknown
            }
        };
        self.say(ProviderEvent::Started { block: id, outcome });
    }

    fn removed(&mut self, id: BlockId, removal: Removal) {
        match removal {
            // The watch says when it is gone.
            Removal::Taken | Removal::Abandoned => {}
            Removal::Absent => self.vanished(id),
            Removal::Refused(error) => {
                tracing::warn!(block = %id, %error, "a pod can not be deleted");
                let Some(block) = self.blocks.get_mut(&id) else { return };
                block.removing = None;
                if block.asked && !block.ended {
                    self.say(ProviderEvent::Deleted { block: id, done: false });
                } else {
                    self.timers.insert((Instant::now() + LOOKS[4], id, Timer::Remove));
                }
            }
        }
    }

    fn timeout(&mut self) {
        let now = Instant::now();
        while let Some((at, id, timer)) = self.timers.first().copied() {
            if at > now {
                break;
            }
            self.timers.pop_first();
            let Some(block) = self.blocks.get(&id) else { continue };
            match timer {
                Timer::Read => self.read(id),
                // What has ended is cleared away when the queue is ours again.
                Timer::Remove if block.ended && (self.holds || block.asked) => self.remove(id),
                Timer::Remove => {}
                Timer::Idle => self.is_idle(id),
                Timer::Look => {
                    if let (Some(BlockState::Pending { .. }), Some(uid)) = (&block.told, block.uid.clone()) {
                        let jobs = self.jobs.clone();
                        self.spawn(async move { Done::Looked(id, jobs.waiting_by_events(&uid).await) });
                    }
                }
            }
        }
        if self.holds {
            self.expire();
        }
    }
}

async fn sighting(subscription: &mut Option<Subscription>) -> Sighting {
    if let Some(subscription) = subscription
        && let Some(sighting) = subscription.next().await
    {
        return sighting;
    }
    std::future::pending().await
}
