use std::collections::BTreeMap;
use std::time::Duration;

use super::{Load, MAX_PODS, SLOTS};
use crate::chance::Chance;

/// How long a pod takes from being asked for to its worker's hello: as on a node that has its image.
const START: (u64, u64) = (2_000, 5_000);
/// How long it takes to be gone once it ends.
const STOP: Duration = Duration::from_secs(1);

/// What happens in a fleet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Happening {
    /// A task comes.
    Arrives(usize),
    /// A pod's worker says hello.
    Ready(u32),
    /// A task ends in a pod.
    Ends { task: usize, pod: u32 },
    /// A pod is gone.
    Gone(u32),
    /// The rule wakes.
    Wake,
}

/// One pod.
#[derive(Debug)]
pub(super) struct Pod {
    asked: Duration,
    pub(super) ready: bool,
    pub(super) running: u32,
    pub(super) idle_since: Duration,
    pub(super) ending: bool,
    has_run: bool,
}

/// Pods and tasks, and what is measured of them.
#[derive(Debug)]
pub(super) struct Fleet<'a> {
    pub(super) load: &'a Load,
    pub(super) now: Duration,
    pub(super) pods: BTreeMap<u32, Pod>,
    /// Tasks that came and are not over.
    pub(super) outstanding: usize,
    agenda: BTreeMap<(Duration, u64), Happening>,
    next: u64,
    started: u32,
    chance: Chance,
    record: Record,
}

/// How many pods and tasks there were from a moment on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sample {
    /// Since the beginning.
    pub at: Duration,
    /// Pods that exist, whatever they do.
    pub pods: usize,
    /// Tasks that came and are not over.
    pub tasks: usize,
}

/// What came of a load under a rule.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Record {
    /// How long each task waited, sorted.
    pub waits: Vec<Duration>,
    /// Over all pods, from being asked for to being gone.
    pub pod_time: Duration,
    /// When pods were asked for.
    pub starts: Vec<Duration>,
    /// When one was told to end, and how many there were until then.
    pub stops: Vec<(Duration, usize)>,
    /// Pods that came and went without having run a task: started for nothing.
    pub unused: usize,
    /// What there was at each change.
    pub samples: Vec<Sample>,
}

impl Sample {
    /// How many pods the tasks ask for.
    #[must_use]
    pub fn wanted(&self) -> usize {
        self.tasks.div_ceil(SLOTS as usize).min(MAX_PODS as usize)
    }
}

impl Record {
    /// Starts within so long after a stop.
    #[must_use]
    pub fn starts_within(&self, time: Duration) -> usize {
        let soon = |start: &&Duration| {
            let mut stops = self.stops.iter();
            stops.any(|(stop, _)| stop <= *start && **start - *stop < time)
        };
        self.starts.iter().filter(soon).count()
    }

    /// Flaps: stops of a pod that the tasks asked for again sooner than so long after they last had. The last of so many
    /// pods is asked for when there are tasks for all of their slots but its own, and one more.
    #[must_use]
    pub fn flaps(&self, time: Duration) -> usize {
        self.stops
            .iter()
            .filter(|(at, pods)| self.gap(*at, *pods) < time)
            .count()
    }

    /// How long before and after a moment the tasks asked for fewer pods than so many.
    fn gap(&self, at: Duration, pods: usize) -> Duration {
        let asks = |sample: &&Sample| sample.wanted() >= pods;
        let next = self.samples.partition_point(|sample| sample.at <= at);
        let (before, after) = self.samples.split_at(next);
        // What was asked for last was asked for until the sample after it.
        let last = before.iter().rposition(|sample| asks(&sample));
        let until = last
            .and_then(|last| self.samples.get(last + 1))
            .map(|sample| sample.at.min(at));
        match (until, after.iter().find(asks)) {
            (Some(until), Some(again)) => again.at - until,
            (None, _) | (_, None) => Duration::MAX,
        }
    }

    /// The wait that so many of a hundred tasks do not exceed.
    #[must_use]
    pub fn wait(&self, percent: usize) -> Duration {
        let rank = (self.waits.len() * percent).div_ceil(100).saturating_sub(1);
        self.waits.get(rank).copied().unwrap_or_default()
    }
}

impl<'a> Fleet<'a> {
    pub(super) fn new(load: &'a Load) -> Self {
        let mut fleet = Self {
            load,
            now: Duration::ZERO,
            pods: BTreeMap::new(),
            outstanding: 0,
            agenda: BTreeMap::new(),
            next: 0,
            started: 0,
            // The same for every rule, so that the first pod of each takes as long.
            chance: Chance::new(99),
            record: Record::default(),
        };
        for (task, (at, _)) in load.tasks.iter().enumerate() {
            fleet.at(*at, Happening::Arrives(task));
        }
        fleet
    }

    pub(super) fn at(&mut self, at: Duration, happening: Happening) {
        self.next += 1;
        self.agenda.insert((at.max(self.now), self.next), happening);
    }

    /// The next thing that happens, with what it does to pods and tasks done.
    pub(super) fn step(&mut self) -> Option<Happening> {
        let ((at, _), happening) = self.agenda.pop_first()?;
        self.now = at;
        match happening {
            Happening::Arrives(_) => self.outstanding += 1,
            Happening::Ready(pod) => {
                if let Some(pod) = self.pods.get_mut(&pod) {
                    pod.ready = true;
                    pod.idle_since = at;
                }
            }
            Happening::Ends { pod, .. } => {
                self.outstanding -= 1;
                if let Some(pod) = self.pods.get_mut(&pod) {
                    pod.running -= 1;
                    pod.idle_since = at;
                }
            }
            Happening::Gone(pod) => {
                if let Some(pod) = self.pods.remove(&pod) {
                    self.record.pod_time += at - pod.asked;
                    self.record.unused += usize::from(!pod.has_run);
                }
            }
            Happening::Wake => return Some(happening),
        }
        self.sample();
        Some(happening)
    }

    /// Nothing comes any more, and nothing is left.
    pub(super) fn is_over(&self) -> bool {
        let last = self.load.tasks.last().map_or(Duration::ZERO, |(at, _)| *at);
        self.now >= last && self.outstanding == 0 && self.pods.is_empty()
    }

    fn sample(&mut self) {
        let sample = Sample {
            at: self.now,
            pods: self.pods.len(),
            tasks: self.outstanding,
        };
        self.record.samples.push(sample);
    }

    pub(super) fn start_pod(&mut self) -> u32 {
        let pod = self.started;
        self.started += 1;
        let ready = self.now + Duration::from_millis(self.chance.range(START.0, START.1));
        let (asked, idle_since) = (self.now, ready);
        self.pods.insert(
            pod,
            Pod {
                asked,
                ready: false,
                running: 0,
                idle_since,
                ending: false,
                has_run: false,
            },
        );
        self.record.starts.push(self.now);
        self.at(ready, Happening::Ready(pod));
        self.sample();
        pod
    }

    pub(super) fn end_pod(&mut self, id: u32) {
        let Some(pod) = self.pods.get_mut(&id).filter(|pod| !pod.ending) else {
            return;
        };
        assert_eq!(pod.running, 0, "pod {id} is ended while it has something to do");
        pod.ending = true;
        let others = self.pods.values().filter(|pod| !pod.ending).count();
        self.record.stops.push((self.now, others + 1));
        self.at(self.now + STOP, Happening::Gone(id));
    }

    pub(super) fn begin(&mut self, task: usize, id: u32) {
        let Some(&(came, takes)) = self.load.tasks.get(task) else {
            return;
        };
        let Some(pod) = self.pods.get_mut(&id) else { return };
        assert!(
            pod.ready && !pod.ending && pod.running < SLOTS,
            "pod {id} takes no task"
        );
        pod.running += 1;
        pod.has_run = true;
        self.record.waits.push(self.now - came);
        self.at(self.now + takes, Happening::Ends { task, pod: id });
    }

    pub(super) fn finish(mut self) -> Record {
        assert_eq!(self.record.waits.len(), self.load.tasks.len(), "every task has run");
        self.record.waits.sort_unstable();
        self.record
    }
}
