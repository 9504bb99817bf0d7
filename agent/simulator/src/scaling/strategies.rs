//! The rules that act on a tick: Parsl's, and the old chart's. Whoever has a free slot gets the next task, the fullest
//! pod first, which is more than they have: Parsl chooses among its managers at random, and so keeps them all busy.

use std::collections::VecDeque;
use std::time::Duration;

use super::fleet::{Fleet, Happening, Record};
use super::{Load, MAX_IDLETIME, MAX_PODS, SLOTS};

/// What a rule sees on its tick.
#[derive(Debug)]
pub(super) struct View<'a, 'b> {
    fleet: &'b Fleet<'a>,
}

/// What it does then.
#[derive(Debug, Default)]
pub(super) struct Decision {
    start: u32,
    stop: Vec<u32>,
}

/// A rule that acts on a tick.
pub(super) trait Strategy {
    const PERIOD: Duration;
    fn decide(&mut self, view: &View<'_, '_>) -> Decision;
}

impl View<'_, '_> {
    fn pods(&self) -> Vec<u32> {
        let pods = self.fleet.pods.iter().filter(|(_, pod)| !pod.ending);
        pods.map(|(id, _)| *id).collect()
    }

    /// Pods, slots and tasks: with a parallelism of 1 and no minimum, all that these rules look at.
    fn counts(&self) -> (u32, u32, u32) {
        let pods = u32::try_from(self.pods().len()).unwrap_or(u32::MAX);
        let tasks = u32::try_from(self.fleet.outstanding).unwrap_or(u32::MAX);
        (pods, pods * SLOTS, tasks)
    }

    /// As many pods as the missing slots ask for, and there may be.
    fn missing(&self) -> u32 {
        let (pods, slots, tasks) = self.counts();
        (tasks - slots).div_ceil(SLOTS).min(MAX_PODS - pods)
    }
}

/// All pods are ended once there has been no task for so long.
#[derive(Debug, Default)]
struct Idle(Option<Duration>);

impl Idle {
    fn over(&mut self, view: &View<'_, '_>) -> Vec<u32> {
        let now = view.fleet.now;
        let (pods, _, tasks) = view.counts();
        if tasks > 0 || pods == 0 {
            self.0 = None;
            return Vec::new();
        }
        let since = *self.0.get_or_insert(now);
        if now - since > MAX_IDLETIME {
            view.pods()
        } else {
            Vec::new()
        }
    }
}

/// Parsl's `simple`: every 5 s; out by what is missing, in altogether, when there is nothing to do at all.
#[derive(Debug, Default)]
pub(super) struct Simple(Idle);

impl Strategy for Simple {
    const PERIOD: Duration = Duration::from_secs(5);

    fn decide(&mut self, view: &View<'_, '_>) -> Decision {
        let stop = self.0.over(view);
        let (_, slots, tasks) = view.counts();
        let start = if slots < tasks { view.missing() } else { 0 };
        Decision { start, stop }
    }
}

/// Parsl's `htex_auto_scale`: as `simple`, and while there are more slots than tasks, pods that have been idle for long
/// enough are ended.
#[derive(Debug, Default)]
pub(super) struct HtexAutoScale(Simple);

impl Strategy for HtexAutoScale {
    const PERIOD: Duration = Simple::PERIOD;

    fn decide(&mut self, view: &View<'_, '_>) -> Decision {
        let mut decision = self.0.decide(view);
        let (_, slots, tasks) = view.counts();
        if tasks > 0 && slots > tasks {
            let excess = (slots - tasks) / SLOTS;
            let idle = view.fleet.pods.iter().filter(|(_, pod)| {
                pod.ready && !pod.ending && pod.running == 0 && view.fleet.now - pod.idle_since > MAX_IDLETIME
            });
            decision.stop = idle.map(|(id, _)| *id).take(excess as usize).collect();
        }
        decision
    }
}

/// The old chart's `KubeSimpleStrategy`: as `simple`, every second.
#[derive(Debug, Default)]
pub(super) struct KubeSimple(Simple);

impl Strategy for KubeSimple {
    const PERIOD: Duration = Duration::from_secs(1);

    fn decide(&mut self, view: &View<'_, '_>) -> Decision {
        self.0.decide(view)
    }
}

/// Plays a load under a rule that acts on a tick.
pub(super) fn play<S: Strategy>(load: &Load, mut strategy: S) -> Record {
    let mut fleet = Fleet::new(load);
    let mut queue: VecDeque<usize> = VecDeque::new();
    fleet.at(S::PERIOD, Happening::Wake);
    while !fleet.is_over() {
        match fleet.step() {
            Some(Happening::Arrives(task)) => queue.push_back(task),
            Some(Happening::Wake) => {
                let decision = strategy.decide(&View { fleet: &fleet });
                for _ in 0..decision.start {
                    fleet.start_pod();
                }
                for pod in decision.stop {
                    fleet.end_pod(pod);
                }
                fleet.at(fleet.now + S::PERIOD, Happening::Wake);
            }
            Some(Happening::Ready(_) | Happening::Ends { .. } | Happening::Gone(_)) => {}
            None => break,
        }
        dispatch(&mut fleet, &mut queue);
    }
    fleet.finish()
}

fn dispatch(fleet: &mut Fleet<'_>, queue: &mut VecDeque<usize>) {
    while let Some(task) = queue.front().copied() {
        let free = |pod: &super::fleet::Pod| pod.ready && !pod.ending && pod.running < SLOTS;
        let fullest = fleet.pods.iter().filter(|(_, pod)| free(pod));
        let Some(pod) = fullest
            .max_by_key(|(id, pod)| (pod.running, u32::MAX - **id))
            .map(|(id, _)| *id)
        else {
            return;
        };
        queue.pop_front();
        fleet.begin(task, pod);
    }
}
