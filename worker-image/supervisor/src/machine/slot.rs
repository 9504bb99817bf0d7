use uuid::Uuid;
use waypost_link::Cause;

use super::Time;

/// A place for one task at a time, and the executor in it.
#[derive(Debug)]
pub(super) struct Slot {
    /// Raised with each executor, so that what an earlier one did is told from what this one does.
    pub(super) generation: u64,
    /// The executor's process id, once the warm process has told it.
    pub(super) process: Option<i32>,
    pub(super) state: SlotState,
    /// Set when its channel was lost: its end should be told by then.
    pub(super) end_due: Option<Time>,
    /// Why the executor is being killed, if it is.
    pub(super) doom: Option<Cause>,
    /// The most memory that its executor was seen to have, in bytes. Looked at near the limit only.
    pub(super) peak: Option<u64>,
    /// Attempts to make an executor that failed in a row.
    pub(super) failures: u32,
}

#[derive(Debug)]
pub(super) enum SlotState {
    /// There is no executor, and none will be made before then.
    Broken { retry_at: Time },
    /// An executor is on its way. It is given nothing before its process is known: if it never comes, what was given
    /// to it might have begun in a process that nobody knows of.
    Starting,
    /// An executor is there, without a task.
    Idle,
    /// It has a task.
    Busy { task: Uuid, attempt: u32, since: Time },
    /// Its task is done with, and it is about to end.
    Leaving,
}

impl Slot {
    pub(super) fn new() -> Self {
        Self {
            generation: 0,
            process: None,
            state: SlotState::Broken { retry_at: Time::ZERO },
            end_due: None,
            doom: None,
            peak: None,
            failures: 0,
        }
    }

    pub(super) fn is_started(&self) -> bool {
        !matches!(self.state, SlotState::Broken { .. })
    }
}
