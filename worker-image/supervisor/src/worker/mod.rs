//! The loop: what happens goes to the [`Machine`], what it decides is carried out.

mod executors;

use std::cell::RefCell;
use std::collections::{HashSet, VecDeque};
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::signal::unix::{Signal as SignalStream, SignalKind, signal};
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until};
use uuid::Uuid;
use waypost_link::{Hello, VERSIONS};

use crate::channel::{Channel, ExecutorEnds};
use crate::cli::Arguments;
use crate::link::{Link, LinkEvent};
use crate::machine::{Action, Ending, Event, Machine, SlotMemory};
use crate::memory::ControlGroup;
use crate::warm::{Said, Versions, Warm};
use crate::{dial, processes, python};

/// How often memory is looked at while tasks run, if there is a limit: the nearer it is, the more often.
const MEMORY_PERIOD_MAX: Duration = Duration::from_millis(100);
const MEMORY_PERIOD_MIN: Duration = Duration::from_millis(5);
/// How fast memory is taken at most: a looking process that is late finds the container killed.
const MEMORY_BYTES_PER_MILLISECOND: u64 = 4_000_000;
/// How long the last messages may take to be written.
const FAREWELL: Duration = Duration::from_secs(2);

/// How the worker ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Ended {
    /// Everything is done and settled.
    Drained,
    /// So many tasks could not be settled.
    Lost(usize),
    /// The agent does not want it.
    Refused(String),
    /// No agent answered, and why not.
    Orphaned(String),
    /// The Python cannot run tasks.
    Unusable(String),
}

/// Events of the tasks that watch executors.
#[derive(Default)]
struct Inbox {
    events: RefCell<VecDeque<Event>>,
    arrived: Notify,
}

struct Executor {
    generation: u64,
    channel: Rc<Channel>,
    watch: JoinHandle<()>,
}

impl Drop for Executor {
    fn drop(&mut self) {
        self.watch.abort();
    }
}

pub(crate) struct Worker {
    settings: python::Settings,
    arguments: Arguments,
    started: Instant,
    machine: Machine,
    executors: Vec<Option<Executor>>,
    inbox: Rc<Inbox>,
    warm: Option<Warm>,
    /// Executors that the warm process has been asked for and has not told of, oldest first.
    requested: VecDeque<(u32, u64)>,
    /// When the warm process must have said something.
    answer_due: Option<Instant>,
    /// Those that it has yet to be asked for, with the ends of their channels.
    to_request: VecDeque<(u32, u64, ExecutorEnds)>,
    /// Processes that ended before it was known whose they were.
    unclaimed: Vec<(i32, Ending)>,
    /// Children that were there before the first task: not ours to end.
    kept_children: HashSet<i32>,
    /// Children that nobody knows may have come.
    strays_due: bool,
    group: Option<ControlGroup>,
    /// How many processes of the group the kernel has ended for want of memory, as far as is known.
    kernel_kills: u64,
    link: Link,
    instance: Uuid,
    hostname: String,
    versions: Versions,
    ended: Option<Ended>,
}

impl Worker {
    pub(crate) fn new(
        arguments: Arguments,
        settings: python::Settings,
        machine: Machine,
        tls: Option<Arc<rustls::ClientConfig>>,
        warm: Warm,
        versions: Versions,
    ) -> Self {
        let hostname = nix::unistd::gethostname()
            .map_or_else(|_| String::new(), |hostname| hostname.to_string_lossy().into_owned());
        let mut kept_children: HashSet<_> = processes::children().into_iter().collect();
        kept_children.remove(&warm.process);
        let group = ControlGroup::find();
        let link = Link::new(arguments.connect.clone(), tls, arguments.orphan_timeout());
        Self {
            settings,
            started: Instant::now(),
            machine,
            executors: (0..arguments.slots).map(|_| None).collect(),
            inbox: Rc::default(),
            warm: Some(warm),
            requested: VecDeque::new(),
            answer_due: None,
            to_request: VecDeque::new(),
            unclaimed: Vec::new(),
            kept_children,
            strays_due: false,
            kernel_kills: group.as_ref().map_or(0, ControlGroup::kills),
            group,
            link,
            instance: Uuid::new_v4(),
            hostname,
            versions,
            ended: None,
            arguments,
        }
    }

    /// Works until there is a reason to end.
    ///
    /// # Errors
    /// The system's, where there is no going on: signals cannot be watched.
    pub(crate) async fn run(mut self, stop: &mut Stop) -> io::Result<Ended> {
        let mut children = signal(SignalKind::child())?;
        // What ended before this was watched for.
        self.reap();
        let memory = sleep_until(Instant::now());
        tokio::pin!(memory);
        let watch_memory = self.group.is_some() || self.arguments.memory_limit.is_some();
        let timer = sleep_until(Instant::now());
        tokio::pin!(timer);
        self.advance();
        while self.ended.is_none() {
            let deadline = self.machine.deadline().map(|deadline| self.started + deadline);
            if let Some(deadline) = deadline
                && deadline != timer.deadline()
            {
                timer.as_mut().reset(deadline);
            }
            tokio::select! {
                () = self.inbox.arrived.notified() => {}
                event = self.link.next() => self.link_event(event),
                said = next_said(&mut self.warm) => self.warm_said(said),
                _ = children.recv() => self.reap(),
                () = expire(self.answer_due) => {
                    self.warm_lost("it has not answered for too long");
                }
                () = stop.told() => {
                    tracing::info!("told to end: finishing what runs within {:?}", self.arguments.grace());
                    self.machine.handle(self.started.elapsed(), Event::Terminate { grace: self.arguments.grace() });
                }
                () = timer.as_mut(), if deadline.is_some() => self.machine.handle(self.started.elapsed(), Event::Tick),
                () = memory.as_mut(), if watch_memory && self.machine.is_busy() => {
                    let pause = self.look_at_memory();
                    memory.as_mut().reset(Instant::now() + pause);
                }
            }
            self.advance();
        }
        let ended = self.ended.take().unwrap_or(Ended::Drained);
        self.farewell().await;
        Ok(ended)
    }

    /// Handles what the executors' watchers have found, and carries out what the machine decides.
    fn advance(&mut self) {
        self.hear_executors();
        self.machine.settle(self.started.elapsed());
        for action in self.machine.take_actions() {
            self.carry_out(action);
        }
        self.request_executors();
        if self.strays_due && !self.machine.is_starting_any() {
            self.strays_due = false;
            let mut known = self.kept_children.clone();
            known.extend(self.machine.executors().map(|(_, process)| process));
            known.extend(self.warm.as_ref().map(|warm| warm.process));
            let strays = processes::kill_strays(&known);
            if strays > 0 {
                tracing::info!("{strays} processes that a task had left were ended");
            }
        }
    }

    /// Handles what the executors' watchers have found.
    fn hear_executors(&mut self) {
        loop {
            let event = self.inbox.events.borrow_mut().pop_front();
            let Some(event) = event else { return };
            self.machine.handle(self.started.elapsed(), event);
        }
    }

    fn carry_out(&mut self, action: Action) {
        match action {
            Action::Send(message) => self.link.send(&message),
            Action::Give {
                slot,
                task,
                serializers,
                body,
            } => {
                if let Some(executor) = &self.executors[slot as usize] {
                    executor.channel.give(task, &serializers, body);
                }
            }
            Action::Start { slot, generation } => self.open(slot, generation),
            Action::Kill { process } => processes::kill_executor(process),
            Action::End { lost: 0 } => self.ended = Some(Ended::Drained),
            Action::End { lost } => self.ended = Some(Ended::Lost(lost)),
        }
    }

    fn link_event(&mut self, event: LinkEvent) {
        let now = self.started.elapsed();
        match event {
            LinkEvent::DialNow => {
                let hello = self.hello(now);
                self.link.dial(hello);
            }
            LinkEvent::Up { result_credit } => self.machine.handle(now, Event::Connected { result_credit }),
            LinkEvent::Message(message) => {
                self.machine.handle(now, Event::Agent(message));
                // All that came in one go is answered in one go.
                while let Some(message) = self.link.received() {
                    self.machine.handle(now, Event::Agent(message));
                }
            }
            LinkEvent::Down => self.machine.handle(now, Event::Disconnected),
            LinkEvent::Refused(text) => self.ended = Some(Ended::Refused(text)),
            LinkEvent::Orphaned(reason) => self.ended = Some(Ended::Orphaned(reason)),
            LinkEvent::Nothing => {}
        }
    }

    fn hello(&mut self, now: Duration) -> Result<Box<Hello>, String> {
        let token = dial::read_token(&self.arguments.token_file)?;
        let (held, settled) = self.machine.held(now);
        Ok(Box::new(Hello {
            versions: VERSIONS,
            worker_version: env!("CARGO_PKG_VERSION").to_owned(),
            instance: self.instance,
            endpoint: self.arguments.endpoint_id,
            block: self.arguments.block.clone(),
            token,
            slots: self.arguments.slots,
            pid: std::process::id(),
            hostname: self.hostname.clone(),
            python_version: self.versions.python_version.clone(),
            sdk_version: self.versions.sdk_version.clone(),
            held,
            settled,
        }))
    }

    /// Gives how long it is until memory should be looked at again.
    fn look_at_memory(&mut self) -> Duration {
        let close = |limit: u64| limit / 10 * 8;
        let measured = self
            .group
            .as_ref()
            .and_then(|group| Some((group.used(close(group.limit))?, group.limit)));
        let (used, limit) = match (self.arguments.memory_limit, measured) {
            (Some(limit), _) => {
                let own = i32::try_from(std::process::id()).unwrap_or_default();
                (processes::memory(own).0, limit)
            }
            (None, Some(measured)) => measured,
            (None, None) => return MEMORY_PERIOD_MAX,
        };
        // The executors are only looked at when it gets close.
        let slots = if used > close(limit) {
            let measure = |(slot, process)| {
                let (resident, peak) = processes::memory(process);
                SlotMemory { slot, resident, peak }
            };
            self.machine.executors().map(measure).collect()
        } else {
            Vec::new()
        };
        self.machine
            .handle(self.started.elapsed(), Event::Memory { used, limit, slots });
        let left = (limit / 100 * 95).saturating_sub(used);
        Duration::from_millis(left / MEMORY_BYTES_PER_MILLISECOND).clamp(MEMORY_PERIOD_MIN, MEMORY_PERIOD_MAX)
    }

    /// The limit, if the kernel has ended a process for want of memory since this was asked last.
    fn kernel_ended_one(&mut self) -> Option<u64> {
        let group = self.group.as_ref()?;
        let before = std::mem::replace(&mut self.kernel_kills, group.kills());
        (self.kernel_kills > before).then_some(group.limit)
    }

    fn post(&self, event: Event) {
        self.inbox.events.borrow_mut().push_back(event);
        self.inbox.arrived.notify_one();
    }

    async fn farewell(mut self) {
        self.link.close(FAREWELL).await;
        for (_, process) in self.machine.executors() {
            processes::kill_executor(process);
        }
        if let Some(warm) = self.warm.take() {
            processes::kill_executor(warm.process);
        }
        // What the executors leave comes to this process as they end, and must not outlive it.
        for _ in 0..200 {
            processes::reap();
            if processes::kill_strays(&self.kept_children) == 0 {
                return;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

/// Waits for a line of the warm process; for ever if there is none.
async fn next_said(warm: &mut Option<Warm>) -> Result<Said, String> {
    match warm {
        Some(warm) => match warm.next().await {
            Ok(Some(said)) => Ok(said),
            Ok(None) => Err("it ended".to_owned()),
            Err(error) => Err(error.to_string()),
        },
        None => std::future::pending().await,
    }
}

/// Waits for a moment; for ever if there is none.
async fn expire(due: Option<Instant>) {
    match due {
        Some(due) => sleep_until(due).await,
        None => std::future::pending().await,
    }
}

/// The signals that tell a worker to end. Watched from its first moment on: to a pod's first process those that it
/// does not watch mean nothing.
pub(crate) struct Stop {
    terminate: SignalStream,
    interrupt: SignalStream,
}

impl Stop {
    /// # Errors
    /// The system's: signals cannot be watched.
    pub(crate) fn watch() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    /// Waits for the next one. Cancel-safe.
    pub(crate) async fn told(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}
