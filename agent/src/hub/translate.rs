//! Between the link's messages and the engine's inputs and outputs.

use waypost_engine::{
    ExecutorEnd, ExecutorExit, HeldState, HeldTask, Input, MemoryUse, ProcessExit, RefusalReason, Slot, TaskId,
    TaskOutcome, WorkerId,
};
use waypost_link::{Cause, Failure, Hello, Outcome, Refusal, ToAgent, ToWorker};

/// How long a drained worker's tasks may take. The engine deletes the block when its own time for that is over.
const DRAIN_GRACE_MS: u64 = 24 * 60 * 60 * 1000;

/// Everything that a worker has of tasks, as it said in its hello.
pub(super) fn held(hello: &Hello) -> Vec<HeldTask> {
    let tasks = hello.held.iter().map(|held| HeldTask {
        task: TaskId(held.task),
        attempt: held.attempt,
        state: match held.state {
            waypost_link::HeldState::Waiting => HeldState::Queued,
            waypost_link::HeldState::Running => HeldState::Running,
            waypost_link::HeldState::Finished => HeldState::Finished,
        },
    });
    let settled = hello.settled.iter().map(|task| HeldTask {
        task: TaskId(*task),
        attempt: 0,
        state: HeldState::Settled,
    });
    tasks.chain(settled).collect()
}

/// What a worker said, for the engine. None if it says nothing to it.
pub(super) fn to_engine(worker: WorkerId, message: ToAgent) -> Option<Input> {
    Some(match message {
        ToAgent::Credit { tasks } => Input::WorkerCredit { worker, tasks },
        ToAgent::Started { task, attempt, slot } => Input::TaskStarted {
            worker,
            task: TaskId(task),
            attempt,
            slot: Slot(slot),
        },
        ToAgent::Finished {
            task,
            attempt,
            outcome,
            run_time_ns: _,
            body,
        } => Input::TaskFinished {
            worker,
            task: TaskId(task),
            attempt,
            outcome: match outcome {
                Outcome::Success => TaskOutcome::Succeeded,
                Outcome::Raised | Outcome::TooLarge | Outcome::NotATask => TaskOutcome::Failed,
            },
            body,
        },
        ToAgent::Failed { task, attempt, failure } => Input::TaskDied {
            worker,
            task: TaskId(task),
            attempt,
            end: executor_end(*failure),
        },
        ToAgent::Refused { task, attempt, reason } => Input::TaskRefused {
            worker,
            task: TaskId(task),
            attempt,
            reason: match reason {
                Refusal::Draining => RefusalReason::Draining,
                Refusal::Recalled | Refusal::Busy => RefusalReason::Recalled,
                Refusal::NoCredit => RefusalReason::NoCredit,
                Refusal::Duplicate => RefusalReason::Duplicate,
                // Who asked for the end of a task expects nothing more of it.
                Refusal::Cancelled => return None,
            },
        },
        ToAgent::Draining { grace_ms: _ } => Input::WorkerDraining { worker },
        // A second hello is a fault of the worker that nothing hangs on; the other two need no answer.
        ToAgent::Hello(_) | ToAgent::Heartbeat | ToAgent::Goodbye { .. } => return None,
    })
}

fn executor_end(failure: Failure) -> ExecutorEnd {
    let words = failure.cause.to_string();
    let how = match failure.cause {
        Cause::Signal { number } => ExecutorExit::Process(ProcessExit::Signal(number)),
        Cause::Exit { code } => ExecutorExit::Process(ProcessExit::Code(code)),
        Cause::OutOfMemory { peak, limit } => ExecutorExit::OutOfMemory(MemoryUse { peak, limit }),
        Cause::Cancelled => ExecutorExit::Cancelled,
        Cause::GraceOver => ExecutorExit::GraceOver,
        Cause::CannotStart { reason } => ExecutorExit::CannotStart { reason },
        Cause::TimedOut { .. } | Cause::LostChannel => ExecutorExit::Other { words },
    };
    ExecutorEnd {
        how,
        output: failure.output,
    }
}

/// What the engine says to a worker, for the link.
pub(super) enum Translated {
    /// Send this.
    Message(ToWorker),
    /// End the session.
    Close,
}

/// Translates what the engine says to a worker.
pub(super) fn to_worker(message: waypost_engine::ToWorker) -> Translated {
    use waypost_engine::ToWorker as Said;
    Translated::Message(match message {
        // The headers that upstream's workers do not look at, either, stay here.
        Said::Run {
            task,
            function: _,
            attempt,
            resource_specification: _,
            result_serializers,
            body,
        } => ToWorker::Run {
            task: task.0,
            attempt,
            result_serializers: result_serializers.map(|paths| paths.to_vec()).unwrap_or_default(),
            body,
        },
        Said::Cancel { task, attempt } => ToWorker::Cancel { task: task.0, attempt },
        Said::Settled { tasks } => ToWorker::Settled {
            tasks: tasks.into_iter().map(|task| task.0).collect(),
        },
        Said::ResultCredit { bytes } => ToWorker::ResultCredit { bytes },
        Said::Drain => ToWorker::Drain {
            grace_ms: DRAIN_GRACE_MS,
        },
        Said::Recall { task, attempt } => ToWorker::Recall { task: task.0, attempt },
        Said::Forget { task, attempt } => ToWorker::Forget { task: task.0, attempt },
        Said::Close => return Translated::Close,
    })
}
