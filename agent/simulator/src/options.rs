use std::fmt;
use std::time::Duration;

use waypost_engine::{Acknowledge, Guarantee, OnUnschedulable, Prefetch, Scaling, Settings};

use crate::chance::Chance;

/// What may go wrong. Each can be switched off by its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "each is described by its line in FAULTS")]
pub enum Fault {
    Channel,
    Publisher,
    Refusal,
    Outage,
    Link,
    Silence,
    Block,
    Kill,
    HandOver,
    Fence,
    Start,
    Delete,
    Executor,
    Journal,
    Double,
    Terminate,
    Cancel,
    Room,
    Image,
    Never,
    Crash,
    Mute,
    Evict,
    Node,
    Api,
    Move,
    Stop,
    Second,
    Cut,
    Freeze,
}

/// The faults, the names that switch them off, and what they are.
pub const FAULTS: [(Fault, &str, &str); 30] = [
    (
        Fault::Channel,
        "channel",
        "the consumer's channel closes: everything unacknowledged is requeued",
    ),
    (
        Fault::Publisher,
        "publisher",
        "the publisher's channel closes: confirms are lost, publishes may be",
    ),
    (
        Fault::Refusal,
        "refusal",
        "a publish is returned, nacked, or of unknown outcome",
    ),
    (Fault::Outage, "outage", "the broker is away for a while"),
    (Fault::Link, "link", "the link between agent and worker breaks"),
    (
        Fault::Silence,
        "silence",
        "a worker cannot be reached, perhaps for longer than the grace",
    ),
    (Fault::Block, "block", "a block dies with all that is in it"),
    (Fault::Kill, "kill", "the agent is killed and starts again"),
    (Fault::HandOver, "handover", "the agent hands over to its next life"),
    (Fault::Fence, "fence", "another agent holds the queue for a while"),
    (
        Fault::Start,
        "start",
        "the start of a block fails, is slow, or has an unknown outcome",
    ),
    (
        Fault::Delete,
        "delete",
        "the deletion of a block fails or has an unknown outcome",
    ),
    (Fault::Executor, "executor", "an executor dies under its task"),
    (Fault::Journal, "journal", "the journal cannot be written for a while"),
    (Fault::Double, "double", "the service publishes a task twice"),
    (Fault::Terminate, "terminate", "a worker is told to end by its platform"),
    (Fault::Cancel, "cancel", "somebody cancels a task"),
    (Fault::Room, "room", "no node has room for new blocks for a while"),
    (Fault::Image, "image", "images cannot be pulled for a while"),
    (
        Fault::Never,
        "never",
        "a block is made in such a way that it can never run",
    ),
    (Fault::Crash, "crash", "a block dies soon after its start"),
    (Fault::Mute, "mute", "a block runs, and its worker never dials"),
    (
        Fault::Evict,
        "evict",
        "the platform ends a block: evicted, preempted, drained from its node, deleted by hand",
    ),
    (
        Fault::Node,
        "node",
        "a node is lost for a while, with or without what runs on it",
    ),
    (
        Fault::Api,
        "api",
        "the platform cannot be asked, and says nothing, for a while",
    ),
    (Fault::Move, "move", "the agent is killed and its journal is gone"),
    (
        Fault::Stop,
        "stop",
        "the endpoint is stopped, waits for the broker only so long, and is started again",
    ),
    (
        Fault::Second,
        "second",
        "a second agent is started beside the one that lives, as in a rollout",
    ),
    (
        Fault::Cut,
        "cut",
        "the agent that holds the queue is cut off from the broker, and a second is started",
    ),
    (
        Fault::Freeze,
        "freeze",
        "the agent that holds the queue stands still, and a second is started",
    ),
];

/// Everything that decides a world. The same options make the same run.
#[derive(Debug, Clone)]
pub struct Options {
    /// The seed that everything else is drawn from.
    pub seed: u64,
    /// How many tasks are submitted.
    pub tasks: u32,
    /// For how long things go wrong.
    pub trouble: Duration,
    /// How often each fault happens on average in that time (or, for what goes wrong with a step, in a thousand).
    pub odds: Vec<(Fault, u32)>,
    /// The engine's settings.
    pub settings: Settings,
    /// The broker counts deliveries, as a quorum queue does.
    pub quorum: bool,
    /// It drops what comes back to it more often than this, as a quorum queue of RabbitMQ 4 does after 20 times unless
    /// told otherwise. A world is short, so here it is fewer.
    pub delivery_limit: Option<u64>,
    /// The broker's consumer timeout, which the engine may not know.
    pub consumer_timeout: Duration,
    /// Slots of a block.
    pub slots: u32,
    /// How many tasks a worker takes beyond its slots.
    pub prefetch: u32,
    /// The longest that a task takes.
    pub longest: Duration,
    /// The largest message, in bytes.
    pub largest: u64,
    /// The slowest message between two processes.
    pub latency: Duration,
    /// How long the agent takes to consume after its start: more than the workers take to redial, or less.
    pub consumer_delay: Duration,
    /// Workers keep tasks that have not begun when their link breaks, and say so when they redial.
    pub keeps_queue: bool,
    /// Messages with a larger body are overtaken by others on the same link.
    pub overtaken: usize,
    /// How long workers take to redial a new life of the agent.
    pub redial_delay: Duration,
    /// All tasks are submitted within this time.
    pub submitted_within: Duration,
    /// Print every input and output.
    pub trace: bool,
}

/// How long an agent may be cut off before it sees that: workers are waited for no shorter than that where this happens,
/// for until then they may be with an agent that does not know that it has lost the queue.
const NOTICE_MAX: Duration = Duration::from_secs(30);

impl Options {
    /// Draws a world from a seed.
    #[must_use]
    pub fn draw(seed: u64) -> Self {
        let mut chance = Chance::new(seed ^ 0x6f70_7469_6f6e_7321);
        let largest = chance.range(1, 20_000);
        let max_blocks = chance.number(1, 5);
        let min_blocks = if chance.happens(300) {
            chance.number(1, max_blocks)
        } else {
            0
        };
        let slots = chance.number(1, 4);
        let consumer_timeout = Duration::from_secs(chance.range(120, 1800));
        let knows_timeout = chance.happens(800);
        let scaling = Scaling {
            init_blocks: chance.number(0, max_blocks),
            min_blocks,
            max_blocks,
            parallelism: if chance.happens(700) { 1.0 } else { 0.3 },
            max_idletime: if chance.happens(200) {
                Duration::ZERO
            } else {
                Duration::from_secs(chance.range(5, 120))
            },
            starts_in_flight: chance.number(1, 5),
            creation_timeout: Duration::from_secs(chance.range(30, 120)),
            drain_timeout: Duration::from_secs(chance.range(5, 30)),
            start_failures_max: if chance.happens(500) { 5 } else { 0 },
            min_idle_blocks: if chance.happens(150) { chance.number(1, 2) } else { 0 },
            registration_timeout: Duration::from_secs(chance.range(20, 200)),
            scheduling_timeout: Duration::from_secs(chance.range(20, 200)),
            on_unschedulable: if chance.happens(300) {
                OnUnschedulable::Wait
            } else {
                OnUnschedulable::Fail
            },
            image_grace: Duration::from_secs(chance.range(5, 60)),
            deletion_lag: Duration::from_secs(chance.range(2, 10)),
            ..Scaling::default()
        };
        let mut settings = Settings {
            slots_per_block: slots,
            scaling,
            max_retries_on_system_failure: if chance.happens(500) { chance.number(1, 3) } else { 0 },
            reconnect_grace: Duration::from_secs(chance.range(5, 60)),
            silent_block_timeout: Duration::from_secs(chance.range(60, 300)),
            held_bytes: if chance.happens(300) {
                largest * chance.range(4, 40)
            } else {
                256 << 20
            },
            prefetch: Prefetch {
                initial: chance.number(1, 32),
                max: chance.number(4, 1000),
            },
            acknowledge: if chance.happens(150) {
                Acknowledge::OnAccept
            } else {
                Acknowledge::AfterResult
            },
            guarantee: if chance.happens(150) {
                Guarantee::AtMostOnce
            } else {
                Guarantee::AtLeastOnce
            },
            consumer_timeout: if knows_timeout {
                consumer_timeout
            } else {
                Duration::from_secs(1800)
            },
            ..Settings::default()
        };
        let quorum = chance.happens(300);
        let mut odds = Vec::new();
        for (fault, _, _) in FAULTS.into_iter().filter(|(fault, ..)| !Self::is_drawn_apart(*fault)) {
            let often = match fault {
                Fault::Refusal | Fault::Start | Fault::Delete | Fault::Double => chance.number(0, 300),
                Fault::Never | Fault::Crash | Fault::Mute => chance.number(0, 400),
                Fault::Executor => chance.number(0, 150),
                Fault::Room | Fault::Image | Fault::Node | Fault::Api => chance.number(0, 3),
                // What only a journal could know may be lost with it, if it was acknowledged for its sake.
                Fault::Move if quorum || settings.acknowledge == Acknowledge::OnAccept => 0,
                Fault::Move => chance.number(0, 2),
                Fault::Kill => chance.number(0, 6),
                Fault::Journal => {
                    if chance.happens(150) {
                        1
                    } else {
                        0
                    }
                }
                Fault::Fence => chance.number(0, 2),
                _ => chance.number(0, 8),
            };
            // Half of the faults are absent from any one world, so that each is also seen alone.
            odds.push((fault, if chance.happens(500) { often } else { 0 }));
        }
        // Drawn apart, so that the worlds without them are what they were before there were these faults.
        let mut apart = Chance::new(seed ^ 0x7374_6f70_7065_6421);
        if apart.happens(300) {
            odds.push((Fault::Stop, apart.number(1, 3)));
        }
        // A second agent has a disk of its own, and knows nothing of what only the journal of the first could.
        let mut apart = Chance::new(seed ^ 0x7365_636f_6e64_2121);
        if apart.happens(300) && !quorum && settings.acknowledge == Acknowledge::AfterResult {
            for fault in [Fault::Second, Fault::Cut, Fault::Freeze] {
                if apart.happens(500) {
                    odds.push((fault, apart.number(1, 3)));
                    settings.reconnect_grace = settings.reconnect_grace.max(NOTICE_MAX);
                }
            }
        }
        let trouble = Duration::from_secs(chance.range(30, 600));
        let mut options = Self {
            seed,
            trouble,
            submitted_within: trouble.mul_f64(chance.range(1, 100) as f64 / 100.0),
            keeps_queue: chance.happens(500),
            overtaken: usize::try_from(chance.range(1_000, 40_000)).unwrap_or(usize::MAX),
            redial_delay: chance.millis(10, 20_000),
            tasks: chance.number(1, 120),
            odds,
            settings,
            quorum,
            delivery_limit: None,
            consumer_timeout,
            slots,
            prefetch: chance.number(0, 3),
            longest: chance.time(Duration::from_millis(50), Duration::from_secs(400)),
            largest,
            latency: chance.millis(1, 500),
            consumer_delay: chance.millis(10, 20_000),
            trace: false,
        };
        if quorum && chance.happens(500) {
            options.delivery_limit = Some(chance.range(1, 5));
        }
        options
    }

    /// The odds of a fault.
    #[must_use]
    pub fn odds(&self, fault: Fault) -> u32 {
        self.odds
            .iter()
            .find(|(known, _)| *known == fault)
            .map_or(0, |(_, odds)| *odds)
    }

    /// Whether it goes wrong with a step, and not at a moment of its own.
    #[must_use]
    pub const fn is_of_a_step(fault: Fault) -> bool {
        matches!(
            fault,
            Fault::Refusal
                | Fault::Start
                | Fault::Delete
                | Fault::Executor
                | Fault::Double
                | Fault::Never
                | Fault::Crash
                | Fault::Mute
        )
    }

    const fn is_drawn_apart(fault: Fault) -> bool {
        matches!(fault, Fault::Stop | Fault::Second | Fault::Cut | Fault::Freeze)
    }

    /// Switches a fault off.
    pub fn without(&mut self, fault: Fault) {
        self.odds.retain(|(known, _)| *known != fault);
    }
}

impl fmt::Display for Options {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            formatter,
            "seed {}: {} tasks, {:?} of trouble:",
            self.seed, self.tasks, self.trouble
        )?;
        for (fault, name, _) in FAULTS {
            if self.odds(fault) > 0 {
                write!(formatter, " {name} {}", self.odds(fault))?;
            }
        }
        let settings = &self.settings;
        write!(
            formatter,
            "; {:?} {:?}, {} retries, grace {:?}, {} slots + {}, blocks {}/{}/{} + {}, idle {:?}, held {} B, messages up to {} B, tasks up to {:?}, \
             latency up to {:?}, consumer after {:?}, redial after {:?}, consumer timeout {:?}{}",
            settings.acknowledge,
            settings.guarantee,
            settings.max_retries_on_system_failure,
            settings.reconnect_grace,
            self.slots,
            self.prefetch,
            settings.scaling.init_blocks,
            settings.scaling.min_blocks,
            settings.scaling.max_blocks,
            settings.scaling.min_idle_blocks,
            settings.scaling.max_idletime,
            settings.held_bytes,
            self.largest,
            self.longest,
            self.latency,
            self.consumer_delay,
            self.redial_delay,
            self.consumer_timeout,
            match (self.quorum, self.delivery_limit) {
                (false, _) => String::new(),
                (true, None) => ", quorum queue".to_owned(),
                (true, Some(limit)) => format!(", quorum queue that drops after {limit}"),
            },
        )?;
        write!(
            formatter,
            ", over {} B overtaken{}",
            self.overtaken,
            if self.keeps_queue {
                ", workers keep their queue"
            } else {
                ""
            },
        )
    }
}
