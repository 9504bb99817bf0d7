//! What becomes of tasks.

use endpoint_telemetry::{DeliveryKind, Publish, TaskOutcome as Outcome};
use waypost_engine::{CauseKind, Event, PublishOutcome, TaskOutcome, Time};

use super::{Observer, Phase};

impl Observer {
    #[expect(clippy::wildcard_enum_match_arm, reason = "observe tells the kinds apart")]
    pub(super) fn observe_task(&mut self, now: Time, event: Event) {
        match event {
            Event::TaskAccepted {
                task,
                bytes,
                redelivered,
            } => {
                let kind = if redelivered {
                    DeliveryKind::Redelivered
                } else {
                    DeliveryKind::First
                };
                self.metrics.tasks_received.increment(kind);
                self.received += 1;
                self.phase(now, task, Some(Phase::Waiting { since: now }));
                tracing::debug!(%task, bytes, redelivered, "task received");
            }
            Event::TaskRedelivered { task } => {
                self.metrics.tasks_received.increment(DeliveryKind::Redelivered);
                tracing::debug!(%task, "task delivered again while it is in hand");
            }
            Event::SettledTaskRedelivered { task } => {
                self.metrics.tasks_received.increment(DeliveryKind::Redelivered);
                tracing::debug!(%task, "task delivered again after its result was confirmed");
            }
            Event::TaskDispatched {
                task,
                worker,
                block,
                attempt,
                waited,
            } => {
                tracing::debug!(%task, %worker, %block, attempt, ?waited, "task sent to a worker");
            }
            Event::TaskAdopted { task, block } => {
                self.received += 1;
                self.phase(now, task, Some(Phase::Running { block }));
                tracing::info!(%task, %block, "task of an earlier life found with its worker");
            }
            Event::TaskStarted { task, block, slot } => {
                if let Some(Phase::Waiting { since }) = self.tasks.get(&task) {
                    self.metrics.task_queue_wait.observe(now.since(*since));
                }
                self.phase(now, task, Some(Phase::Running { block }));
                tracing::debug!(%task, %block, slot = slot.0, "task begun");
            }
            Event::TaskFinished {
                task,
                block,
                outcome,
                bytes,
                ran,
            } => {
                if let Some(ran) = ran {
                    self.metrics.task_run.observe(ran);
                }
                self.metrics.task_results.increment(match outcome {
                    TaskOutcome::Succeeded => Outcome::Success,
                    TaskOutcome::Failed => Outcome::Failed,
                });
                self.phase(now, task, Some(Phase::Finished));
                tracing::debug!(%task, %block, ?outcome, bytes, ?ran, "task ended");
            }
            Event::TaskRetried { task, failures, cause } => {
                self.phase(now, task, Some(Phase::Waiting { since: now }));
                tracing::warn!(%task, failures, cause = cause.as_str(), "task was ended by a fault and is tried again");
            }
            Event::TaskFailed { task, cause, block } => {
                self.metrics.task_results.increment(outcome_of(cause));
                self.phase(now, task, Some(Phase::Finished));
                let block = block.map(|block| block.to_string());
                tracing::warn!(%task, cause = cause.as_str(), block, "task could not be run to its end");
            }
            Event::TaskRunTwice { task, block } => {
                self.metrics.tasks_run_twice.inc();
                tracing::warn!(%task, %block, "task was run twice");
            }
            Event::TaskRecalled { task, worker } => {
                tracing::debug!(%task, %worker, "task asked back from a worker that has not begun it");
            }
            Event::TaskGivenBack { task } => {
                self.phase(now, task, None);
                tracing::debug!(%task, "task given back to the queue");
            }
            Event::DeliveryRefreshed { task } => tracing::debug!(%task, "delivery refreshed"),
            Event::PublishFailed {
                task,
                outcome,
                again_in,
            } => {
                self.metrics.result_publishes.increment(match outcome {
                    PublishOutcome::Returned => Publish::Returned,
                    PublishOutcome::Nacked => Publish::Nacked,
                    PublishOutcome::Unknown | PublishOutcome::Confirmed => Publish::Unknown,
                });
                if outcome == PublishOutcome::Returned {
                    self.note_error("the broker has no queue for results: a result was returned".to_owned());
                }
                tracing::warn!(%task, ?outcome, ?again_in, "result was not taken by the broker");
            }
            Event::ResultConfirmed { task, took, publishes } => {
                self.metrics.result_publishes.increment(Publish::Confirmed);
                self.metrics.result_confirm.observe(took);
                tracing::debug!(%task, ?took, publishes, "result confirmed");
            }
            Event::ResultKept { task } => {
                self.phase(now, task, None);
                tracing::debug!(%task, "result kept in the journal");
            }
            Event::TaskSettled { task, took } => {
                self.settled += 1;
                self.phase(now, task, None);
                tracing::debug!(%task, ?took, "task settled");
            }
            _ => {}
        }
    }
}

const fn outcome_of(cause: CauseKind) -> Outcome {
    match cause {
        CauseKind::Refused | CauseKind::Denied | CauseKind::NoBlockStarts | CauseKind::JournalFailed => {
            Outcome::Refused
        }
        CauseKind::ExecutorDied
        | CauseKind::OutOfMemory
        | CauseKind::BlockEnded
        | CauseKind::WorkerLost
        | CauseKind::WorkerForgot
        | CauseKind::Interrupted
        | CauseKind::Cancelled
        | CauseKind::EndpointStopped => Outcome::Lost,
    }
}
