//! What a metric can be labelled with.

/// A closed set of values of one label.
pub trait Label: Copy + 'static {
    /// The label's name.
    const NAME: &'static str;
    /// All values, in the order of the documentation.
    const ALL: &'static [Self];
    /// The value as it is scraped.
    fn value(self) -> &'static str;
}

macro_rules! label {
    ($(#[$about:meta])* $type:ident as $name:literal { $($(#[$note:meta])* $variant:ident = $value:literal,)+ }) => {
        $(#[$about])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
        pub enum $type { $($(#[$note])* $variant,)+ }

        impl Label for $type {
            const NAME: &'static str = $name;
            const ALL: &'static [Self] = &[$(Self::$variant,)+];
            fn value(self) -> &'static str {
                match self { $(Self::$variant => $value,)+ }
            }
        }
    };
}

label! {
    /// Whether the broker had delivered a task before.
    DeliveryKind as "delivery" {
        /// For the first time.
        First = "first",
        /// Once more.
        Redelivered = "redelivered",
    }
}
label! {
    /// How a task ended.
    TaskOutcome as "outcome" {
        /// The function returned.
        Success = "success",
        /// The function raised, timed out, or its result was too large.
        Failed = "failed",
        /// Its executor or worker died under it.
        Lost = "lost",
        /// It was never started: not allowed, or not a task.
        Refused = "refused",
    }
}
label! {
    /// What the broker said to a published result.
    Publish as "outcome" {
        /// It is safe.
        Confirmed = "confirmed",
        /// No queue is bound.
        Returned = "returned",
        /// The broker would not have it.
        Nacked = "nacked",
        /// The channel was lost before the answer.
        Unknown = "unknown",
    }
}
label! {
    /// Where a task is that the agent holds.
    TaskState as "state" {
        /// Delivered, not started.
        Waiting = "waiting",
        /// Given to a worker.
        Running = "running",
        /// Its result waits for the broker's confirm.
        Finished = "finished",
    }
}
label! {
    /// The life of a block.
    BlockState as "state" {
        /// Asked for; its worker has not said hello.
        Starting = "starting",
        /// Its worker is connected.
        Running = "running",
        /// Its worker is silent.
        Lost = "lost",
        /// It takes no more tasks.
        Draining = "draining",
    }
}
label! {
    /// What keeps a block from running.
    BlockWait as "cause" {
        /// No node has room for it, or suits it.
        Scheduling = "scheduling",
        /// Its image can not be pulled.
        Image = "image",
        /// It can not work as it is configured.
        Misconfigured = "misconfigured",
        /// Anything else.
        Other = "other",
    }
}
label! {
    /// Why a block ended.
    BlockEnd as "reason" {
        /// The endpoint ended it: it was idle, or the endpoint was stopped.
        Released = "released",
        /// Its worker ended by itself, and well.
        Completed = "completed",
        /// It ended by itself with an error or a signal.
        Crashed = "crashed",
        /// It was killed for its use of memory.
        OutOfMemory = "out_of_memory",
        /// Its node had not enough of something.
        Evicted = "evicted",
        /// Its node was drained.
        Drained = "drained",
        /// It made room for something of a higher priority.
        Preempted = "preempted",
        /// Its node is gone.
        NodeLost = "node_lost",
        /// Somebody deleted it.
        Deleted = "deleted",
        /// It could not be started, and may be later.
        CannotStart = "cannot_start",
        /// The platform refused it, and would again.
        Rejected = "rejected",
        /// No node took it in time.
        Unschedulable = "unschedulable",
        /// Its image could not be pulled in time.
        ImageNotPulled = "image_not_pulled",
        /// It could not work as it was configured.
        Misconfigured = "misconfigured",
        /// It did not run in time.
        CreationTimeout = "creation_timeout",
        /// It ran, and its worker never said hello.
        NotRegistered = "not_registered",
        /// Nobody knows.
        Unknown = "unknown",
    }
}
label! {
    /// What a slot does.
    SlotState as "state" {
        /// It runs a task.
        Busy = "busy",
        /// It waits for one.
        Idle = "idle",
    }
}
label! {
    /// What a connection to the broker is for.
    Connection as "connection" {
        /// Tasks in, acknowledgements out.
        Tasks = "tasks",
        /// Results out.
        Results = "results",
        /// Heartbeats out.
        Heartbeats = "heartbeats",
        /// Commands in.
        Commands = "commands",
    }
}
label! {
    /// What became of a command.
    CommandOutcome as "outcome" {
        /// A user endpoint was started.
        Started = "started",
        /// A running user endpoint was given new credentials.
        Refreshed = "refreshed",
        /// It came from a stranger, from the future, or was not understood.
        Refused = "refused",
        /// Its template, schema or configuration did not pass.
        Invalid = "invalid",
    }
}
label! {
    /// How a call to the web service ended.
    ServiceOutcome as "outcome" {
        /// It answered as asked.
        Success = "success",
        /// It refused (4xx).
        Refused = "refused",
        /// It failed (5xx).
        Failed = "failed",
        /// It could not be reached.
        Unreachable = "unreachable",
    }
}
label! {
    /// Whose credentials are refused.
    Refused as "credential" {
        /// The web service or its login refuses the endpoint's.
        Service = "service",
        /// The broker refuses a user endpoint's.
        Broker = "broker",
    }
}
label! {
    /// What became of a heartbeat.
    HeartbeatOutcome as "outcome" {
        /// The broker has it.
        Confirmed = "confirmed",
        /// It could not be sent, or nobody knows.
        Failed = "failed",
    }
}

impl<T, E> From<&Result<T, E>> for HeartbeatOutcome {
    fn from(sent: &Result<T, E>) -> Self {
        if sent.is_ok() { Self::Confirmed } else { Self::Failed }
    }
}
