//! Mistakes that the engine can be made to make, so that a test can show that the simulator would notice. Without the
//! feature `mutations` nothing can switch one on.

/// One mistake.
#[cfg_attr(
    not(feature = "mutations"),
    expect(unreachable_pub, reason = "public with the feature")
)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mutation {
    /// A delivery is acknowledged when its result is published, not when it is confirmed.
    AckEarly,
    /// A delivery of a task in hand is taken for a new task.
    ForgetDedupe,
    /// Credit for tasks is not counted after the first.
    LoseCredit,
    /// More tasks are sent than there is credit for.
    IgnoreCredit,
    /// The memory of the settled is not asked.
    ForgetSettled,
    /// Redelivered tasks do not wait for the blocks that were found at the start.
    StartRedeliveredAtOnce,
    /// Blocks are ended for want of work though they have some.
    DeleteBusyBlock,
    /// A publish whose outcome is unknown is taken for done.
    DropUnknownPublish,
    /// A result that the broker returned is taken for confirmed.
    TrustReturned,
    /// A multiple acknowledgement covers deliveries that are still open.
    AckOverOpen,
    /// Tasks are sent to workers that drain.
    DispatchToDraining,
    /// Tasks that a lost worker had not begun are not put back into the queue.
    LoseUnbegun,
    /// Blocks that are not wanted are ended at once, whatever the lag.
    EndAtOnce,
    /// Blocks that fail to start are started again at once.
    NoStartBackOff,
    /// Waiting tasks are not told that no block starts.
    TellNobody,
    /// Blocks are deleted while somebody else may hold the queue.
    ActWithoutQueue,
    /// That the queue is lost, or another's, is not heeded: blocks are started and tasks sent as before.
    ForgetFence,
    /// Who has been told that the queue is another's keeps its workers, and takes their results.
    KeepWorkers,
    /// A deletion is asked for once, whatever becomes of it.
    TrustDeletion,
    /// A platform's word that it is ending a block is not heeded.
    IgnoreEnding,
    /// More blocks are started than may exist.
    IgnoreCap,
    /// Results that stand in the journal are not taken from it.
    ForgetResults,
    /// Old deliveries are refreshed though the broker counts how often they come back.
    IgnoreCount,
}

/// The mistakes that are switched on.
#[derive(Debug, Default)]
pub(crate) struct Mutations {
    #[cfg(feature = "mutations")]
    on: Option<Mutation>,
}

impl Mutations {
    #[cfg(feature = "mutations")]
    pub(crate) const fn has(&self, mutation: Mutation) -> bool {
        matches!(self.on, Some(on) if on as u8 == mutation as u8)
    }

    #[cfg(not(feature = "mutations"))]
    #[expect(clippy::unused_self, reason = "with the feature it is used")]
    pub(crate) const fn has(&self, _mutation: Mutation) -> bool {
        false
    }
}

#[cfg(feature = "mutations")]
impl crate::Engine {
    /// Makes this engine make a mistake from now on.
    pub fn mutate(&mut self, mutation: Mutation) {
        self.mutations.on = Some(mutation);
    }
}
