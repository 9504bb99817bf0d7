use std::time::Duration;

use crate::state::timers::Timer;
use crate::{Event, Output, TaskId, Time};

/// How often the queue's depth may be asked.
const DEPTH_PERIOD: Duration = Duration::from_secs(1);
/// How many sizes must have been seen before they say anything.
const SIZES_MIN: u32 = 16;

/// The prefetch window of the present consumer, and what it follows.
#[derive(Debug)]
pub(crate) struct Window {
    pub(crate) size: u32,
    initial: u32,
    /// Mean size of a task's message in bytes, the later ones counting more.
    mean: f64,
    seen: u32,
    pub(crate) over: bool,
}

impl Window {
    pub(crate) const fn new(initial: u32) -> Self {
        Self {
            size: initial,
            initial,
            mean: 0.0,
            seen: 0,
            over: false,
        }
    }
}

/// What is known of the messages that wait in the queue.
#[derive(Debug, Default)]
pub(crate) struct Depth {
    ready: u64,
    asked: Option<Time>,
    awaited: bool,
    refused: bool,
}

impl Depth {
    pub(crate) const fn ready(&self) -> u64 {
        self.ready
    }
}

impl crate::Engine {
    pub(crate) fn count_delivery(&mut self, bytes: usize) {
        self.depth.ready = self.depth.ready.saturating_sub(1);
        let weight = if self.window.seen < 32 {
            1.0 / f64::from(self.window.seen + 1)
        } else {
            1.0 / 32.0
        };
        self.window.seen = self.window.seen.saturating_add(1);
        self.window.mean += (approximate(bytes as u64) - self.window.mean) * weight;
    }

    /// A new channel's consumer begins with the window that the settings name.
    pub(crate) fn consumer_window_started(&mut self) {
        self.window.size = self.window.initial;
        self.window.over = false;
        self.depth = Depth::default();
    }

    /// Follows the mean size with the window; while too many bytes are held, it is 1, and the newest tasks that were
    /// not begun are given back.
    pub(crate) fn adjust_window(&mut self) {
        if !self.holds_queue || self.ending.is_some() {
            return;
        }
        let (held, bound) = (self.tasks.held_bytes(), self.settings.held_bytes);
        if self.window.over {
            if held < bound / 4 * 3 {
                self.window.over = false;
                self.event(Event::HeldBytesExceeded(false));
                self.accept_late();
            }
        } else if held > bound {
            self.window.over = true;
            self.event(Event::HeldBytesExceeded(true));
            self.set_window(1);
            self.give_back_newest();
        }
        if self.window.over || self.window.seen < SIZES_MIN && self.window.size == self.window.initial {
            return;
        }
        // A new consumer's window does not count what came by the one before, so it must not be more than there is
        // room for at this moment.
        let (wanted, room) = (
            self.wanted_window(bound / 4 * 3),
            self.wanted_window((bound / 4 * 3).saturating_sub(held)),
        );
        let next = wanted.min(room);
        if wanted * 5 < self.window.size * 4 || self.should_open(next, wanted) {
            self.set_window(next);
        }
    }

    /// A wider window is worth a new consumer if it is much wider, or as wide as it will be.
    const fn should_open(&self, next: u32, wanted: u32) -> bool {
        let size = self.window.size;
        next >= size.saturating_mul(2) || next == wanted && next > size + size / 4
    }

    /// How many deliveries of mean size so many bytes hold, besides those whose body is held no more.
    fn wanted_window(&self, bytes: u64) -> u32 {
        let most = self
            .settings
            .prefetch
            .max
            .max(self.blocks.slots().saturating_mul(2))
            .min(u32::from(u16::MAX));
        let fit = approximate(bytes) / self.window.mean.max(1.0);
        let without_body = u32::try_from(self.tasks.without_body()).unwrap_or(u32::MAX);
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "the cast saturates, as it should"
        )]
        let fit = fit as u32;
        fit.saturating_add(without_body).clamp(1, most)
    }

    fn set_window(&mut self, window: u32) {
        if self.window.size != window {
            self.window.size = window;
            self.outputs.push_back(Output::SetPrefetch { window });
        }
    }

    /// Gives back what came last and was not begun, until it fits again, but for one task.
    fn give_back_newest(&mut self) {
        let mut excess = self
            .tasks
            .held_bytes()
            .saturating_sub(self.settings.held_bytes / 10 * 9);
        let mut given_back: Vec<TaskId> = Vec::new();
        let waiting = self.tasks.waiting_count();
        for id in self.tasks.newest_waiting().take(waiting.saturating_sub(1)) {
            if excess == 0 {
                break;
            }
            let Some(task) = self.tasks.get(id).filter(|task| !task.journalled) else {
                continue;
            };
            excess = excess.saturating_sub(task.body_len());
            given_back.push(id);
        }
        for id in given_back {
            self.give_back(id);
        }
    }

    /// Asks how much more waits in the queue: when the window is full, so that there may be more, and when more was
    /// believed to be there than comes.
    pub(crate) fn ask_depth(&mut self) {
        let full = self.ledger.len() >= self.window.size as usize;
        let doubtful = self.depth.ready > 0;
        if !self.holds_queue || self.ending.is_some() || self.depth.awaited || self.depth.refused || !(full || doubtful)
        {
            self.timers.clear(Timer::AskQueueDepth);
            return;
        }
        match self.depth.asked.map(|asked| asked + DEPTH_PERIOD) {
            Some(next) if next > self.now => self.timers.set(Timer::AskQueueDepth, next),
            Some(_) | None => {
                self.timers.clear(Timer::AskQueueDepth);
                self.depth.asked = Some(self.now);
                self.depth.awaited = true;
                self.outputs.push_back(Output::AskQueueDepth);
            }
        }
    }

    pub(crate) fn on_queue_depth(&mut self, ready: Option<u64>) {
        self.depth.awaited = false;
        self.depth.refused = ready.is_none();
        self.depth.ready = ready.unwrap_or(0);
    }
}

#[expect(clippy::cast_precision_loss, reason = "a size in bytes need not be exact")]
const fn approximate(bytes: u64) -> f64 {
    bytes as f64
}
