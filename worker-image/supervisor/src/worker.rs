//! The loop: what happens goes to the [`Machine`], what it decides is carried out.

use std::cell::RefCell;
use std::collections::{HashSet, VecDeque};
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use nix::sys::signal::Signal;
use tokio::signal::unix::{Signal as SignalStream, SignalKind, signal};
use tokio::sync::Notify;
use tokio::task::{JoinHandle, spawn_local};
use tokio::time::{Instant, sleep_until};
use uuid::Uuid;
use waypost_link::{Hello, VERSIONS};

use crate::channel::{Channel, ExecutorEnds, Lost};
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
/// Requests for executors that the warm process has not answered, at most.
const REQUESTS_MAX: usize = 8;
/// How long a warm process may take that has yet to import what it needs.
const IMPORT_PATIENCE: Duration = Duration::from_secs(600);
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

    /// Opens the channel of an executor to be. From here on the slot can be given a task, which waits in the channel.
    fn open(&mut self, slot: u32, generation: u64) {
        match Channel::open(slot) {
            Ok((channel, ends)) => {
                let watch = spawn_local(watch(Rc::clone(&channel), slot, generation, Rc::clone(&self.inbox)));
                self.executors[slot as usize] = Some(Executor {
                    generation,
                    channel,
                    watch,
                });
                self.to_request.push_back((slot, generation, ends));
            }
            Err(error) => self.cannot_start(slot, generation, &error),
        }
    }

    fn cannot_start(&mut self, slot: u32, generation: u64, error: &io::Error) {
        self.executors[slot as usize] = None;
        let reason = format!("no executor can be made: {error}");
        self.post(Event::CannotStart {
            slot,
            generation,
            reason,
        });
    }

    /// Asks the warm process for the executors that are due.
    fn request_executors(&mut self) {
        while self.requested.len() < REQUESTS_MAX
            && let Some((slot, generation, ends)) = self.to_request.pop_front()
        {
            match self.request(slot, &ends) {
                Ok(()) => {
                    self.requested.push_back((slot, generation));
                    let patience = if self.warm.as_ref().is_some_and(|warm| warm.ready) {
                        self.arguments.fork_timeout()
                    } else {
                        IMPORT_PATIENCE
                    };
                    self.answer_due.get_or_insert_with(|| Instant::now() + patience);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    // The warm process says something before long: that it is ready, or has forked.
                    self.to_request.push_front((slot, generation, ends));
                    return;
                }
                Err(error) => self.cannot_start(slot, generation, &error),
            }
        }
    }

    fn request(&mut self, slot: u32, ends: &ExecutorEnds) -> io::Result<()> {
        let warm = match &self.warm {
            Some(warm) => warm,
            None => self.warm.insert(Warm::start(&self.arguments.python, &self.settings)?),
        };
        warm.request(slot, &ends.channel, &ends.output)
    }

    fn warm_said(&mut self, said: Result<Said, String>) {
        let now = self.started.elapsed();
        let answers = matches!(said, Ok(Said::Started(_) | Said::Failed(_)));
        let awaited = self.requested.len().saturating_sub(usize::from(answers));
        self.answer_due = (awaited > 0).then(|| Instant::now() + self.arguments.fork_timeout());
        match said {
            Ok(Said::Ready(versions)) => self.versions = versions,
            Ok(Said::Started(process)) => {
                let Some((slot, generation)) = self.requested.pop_front() else {
                    return;
                };
                self.machine.handle(
                    now,
                    Event::Started {
                        slot,
                        generation,
                        process,
                    },
                );
                if let Some(position) = self.unclaimed.iter().position(|(unclaimed, _)| *unclaimed == process) {
                    let (process, ending) = self.unclaimed.swap_remove(position);
                    self.executor_ended(process, ending);
                }
            }
            Ok(Said::Failed(reason)) => {
                if let Some((slot, generation)) = self.requested.pop_front() {
                    self.machine.handle(
                        now,
                        Event::CannotStart {
                            slot,
                            generation,
                            reason,
                        },
                    );
                }
            }
            Ok(Said::Unusable(reason)) | Err(reason) => self.warm_lost(&reason),
        }
    }

    /// Without its warm process the worker makes another when an executor is due.
    fn warm_lost(&mut self, reason: &str) {
        let Some(warm) = self.warm.take() else { return };
        tracing::warn!("the warm process is lost: {reason}");
        processes::kill_executor(warm.process);
        self.answer_due = None;
        let now = self.started.elapsed();
        let to_request = std::mem::take(&mut self.to_request)
            .into_iter()
            .map(|(slot, generation, _)| (slot, generation));
        for (slot, generation) in std::mem::take(&mut self.requested).into_iter().chain(to_request) {
            let reason = reason.to_owned();
            // If it was forked all the same it finds its channel closed, and ends.
            self.executors[slot as usize] = None;
            self.machine.handle(
                now,
                Event::CannotStart {
                    slot,
                    generation,
                    reason,
                },
            );
        }
    }

    fn reap(&mut self) {
        for (process, ending) in processes::reap() {
            if self.machine.slot_of(process).is_some() {
                self.executor_ended(process, ending);
            } else if self.warm.as_ref().is_some_and(|warm| warm.process == process) {
                self.warm_lost(&format!("it ended ({ending:?})"));
            } else {
                if self.machine.is_starting_any() {
                    self.unclaimed.push((process, ending));
                } else {
                    self.unclaimed.clear();
                }
                // If it was left behind by a task, what it has left in turn is ours now.
                self.strays_due |= !self.kept_children.remove(&process);
            }
        }
    }

    fn executor_ended(&mut self, process: i32, ending: Ending) {
        // Its answers that were read already come before its end.
        self.hear_executors();
        let now = self.started.elapsed();
        let mut output = String::new();
        if let Some(slot) = self.machine.slot_of(process)
            && let Some(executor) = self.executors[slot as usize].take()
        {
            executor.channel.set_ended();
            // A result that it had written before it ended counts.
            while let Ok(Some(answer)) = executor.channel.pump() {
                self.machine.handle(now, answer.into_event(slot, executor.generation));
            }
            output = executor.channel.last_lines();
        }
        // It is the kernel's choice whom it ends, and it names nobody; but it kills one at a time.
        let killed = ending == Ending::Signal(Signal::SIGKILL as i32);
        let ending = match self.kernel_ended_one() {
            Some(limit) if killed => Ending::OutOfMemory { limit },
            _ => ending,
        };
        // What was in its process group goes first; the rest becomes ours, and is found then.
        processes::kill_executor(process);
        self.strays_due = true;
        self.machine.handle(
            now,
            Event::Exited {
                process,
                ending,
                output,
            },
        );
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

/// Passes on what an executor says, until its channel is closed.
async fn watch(channel: Rc<Channel>, slot: u32, generation: u64, inbox: Rc<Inbox>) {
    loop {
        channel.ready().await;
        let event = match channel.pump() {
            Ok(None) => continue,
            Ok(Some(answer)) => answer.into_event(slot, generation),
            Err(Lost) => Event::ChannelLost { slot, generation },
        };
        let lost = matches!(event, Event::ChannelLost { .. });
        inbox.events.borrow_mut().push_back(event);
        inbox.arrived.notify_one();
        if lost {
            return;
        }
    }
}
