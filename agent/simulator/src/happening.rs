use std::time::Duration;

use bytes::Bytes;
use waypost_engine::{BlockEnd, BlockId, Input, PublishId, TaskId, ToWorker, WorkerId};

use crate::Fault;

/// Something that will happen.
#[derive(Debug, Clone)]
pub(crate) enum Happening {
    Submit(TaskId),
    Fault(Fault),
    Heal,
    /// In the place of one that is gone.
    StartAgent,
    /// Beside one that lives.
    StartSecond,
    /// Of two, one ends.
    OneTooMany,
    AgentGivesUp {
        life: u64,
        channel: u64,
    },
    BrokerGivesUp {
        life: u64,
        channel: u64,
        publisher: Option<u64>,
    },
    WorkersGiveUp {
        life: u64,
    },
    KillAgent {
        life: u64,
    },
    KeepResults {
        life: u64,
    },
    ConnectConsumer {
        life: u64,
    },
    ConnectPublisher {
        life: u64,
    },
    Wake {
        life: u64,
    },
    ToAgent {
        life: u64,
        via: Via,
        input: Input,
    },
    ToBroker {
        channel: u64,
        what: ChannelUse,
    },
    Publish {
        publisher: u64,
        publish: PublishId,
        task: TaskId,
        body: Bytes,
    },
    ConsumerTimeout {
        channel: u64,
        tag: u64,
    },
    BrokerBack,
    JournalBack,
    ToWorker {
        block: BlockId,
        worker: WorkerId,
        message: ToWorker,
    },
    Dial {
        block: BlockId,
        dial: u64,
    },
    ExecutorEnds {
        block: BlockId,
        run: u64,
    },
    BlockCreated {
        block: BlockId,
        ready_in: Duration,
    },
    BlockAdvances {
        block: BlockId,
        ready_in: Duration,
    },
    BlockReady {
        block: BlockId,
    },
    GraceOver {
        block: BlockId,
        end: BlockEnd,
    },
    NodeBack {
        node: u32,
    },
    BlockDies {
        block: BlockId,
        end: BlockEnd,
    },
}

/// The connection that an input comes by; if that is gone by then, the input is lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Via {
    Channel(u64),
    Publisher(u64),
    Worker(WorkerId),
    Process,
}

/// What an agent does on its channel.
#[derive(Debug, Clone)]
pub(crate) enum ChannelUse {
    Acknowledge { tag: u64, multiple: bool },
    Requeue { tag: u64, refreshed: bool },
    Consume { window: u32 },
    Cancel,
    Depth,
}
