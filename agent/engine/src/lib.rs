//! The core of a Waypost user endpoint: a pure state machine, and the rules by which it scales.
//!
//! It knows every task that was taken from the broker and is not settled, every block and its worker, and decides what
//! happens next. It does no input or output, has no clock, no thread, no randomness but its seed, and depends on nothing
//! that could wait. So the same inputs always give the same outputs, and a whole endpoint can be simulated.
//!
//! The main types: [`Engine`] takes [`Input`]s with [`Engine::handle`] and gives [`Output`]s by [`Engine::poll_output`];
//! [`Settings`] steer it; [`JournalRecord`]s are what outlives it; [`Failure`] is what a task gets that could not be run.
//!
//! # The run loop
//! At start: make the engine, give [`Engine::restore`] the journal's records, then [`Input::BlocksListed`], then let
//! workers dial, then consume. The engine asks for nothing before its first input.
//! ```
//! use bytes::Bytes;
//! use waypost_engine::{Engine, Failure, Input, Output, Settings, TaskId, Time};
//!
//! let compose = |task: TaskId, failure: &Failure| Bytes::from(format!("{task}: {failure:?}"));
//! let mut engine = Engine::new(Settings::default(), 7, Box::new(compose));
//! let mut now = Time::from_micros(0);
//! engine.restore(now, []);
//! engine.handle(now, Input::BlocksListed { blocks: vec![] });
//! let deadline = loop {
//!     match engine.poll_output() {
//!         Output::Deadline { at, .. } => break Some(at), // drained: wait for an input, or give Timeout at this moment
//!         Output::Idle => break None,                    // drained: wait for an input
//!         _output => {}                                  // carry it out, without waiting for what becomes of it
//!     }
//! };
//! assert_eq!(deadline, None);
//! ```
//! Between two inputs the outputs must be polled until the engine says [`Output::Deadline`] or [`Output::Idle`].
//! Outputs to one worker, to the consumer's channel and to the journal must each keep their order.

mod engine;
mod event;
mod failure;
mod ids;
mod input;
mod invariants;
mod journal;
mod mutation;
mod output;
mod scaling;
mod settings;
mod state;
mod status;
mod transitions;

pub use engine::Engine;
pub use event::Event;
pub use failure::{
    BlockEnd, BlockEndKind, Cause, CauseKind, ComposeFailure, ExecutorEnd, ExecutorExit, Failure, MemoryUse,
    ProcessExit,
};
pub use ids::{BlockId, ChannelEpoch, DeliveryTag, EntryId, FunctionId, PublishId, Slot, TaskId, Time, WorkerId};
pub use input::{
    BlockState, Delivery, Drain, HeldState, HeldTask, Input, PublishOutcome, RefusalReason, StartOutcome, TaskOutcome,
    Waiting, WaitingCause,
};
pub use journal::{AcceptedTask, JournalRecord};
#[cfg(feature = "mutations")]
pub use mutation::Mutation;
pub use output::{DeadlineReason, Output, ToWorker};
pub use settings::{Acknowledge, Bound, Budget, Guarantee, OnUnschedulable, Prefetch, Scaling, Settings};
pub use status::Status;
