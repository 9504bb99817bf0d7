//! The results of tasks that could not be run, in the form of upstream's engine: a traceback between two lines of 68
//! signs, no details, and two states by the actor `interchange`.

use std::fmt::Write as _;

use bytes::Bytes;
use endpoint_provider::BlockNames;
use uuid::Uuid;
use waypost_engine::{
    BlockEnd, BlockEndKind, Cause, ComposeFailure, ExecutorEnd, ExecutorExit, Failure, ProcessExit, TaskId,
};
use waypost_protocol::{Actor, ErrorDetails, Message, State, StatusEntry, TaskResult, encode, error_code};

/// What upstream's engine tells programs of any failure that is not one of its own classes.
const USER_MESSAGE: &str = "An error occurred during the execution of this task";
const FRAME: usize = 68;

/// Composes failures of one user endpoint.
#[derive(Debug, Clone)]
pub(super) struct Composer {
    pub(super) names: BlockNames,
    pub(super) endpoint_id: Uuid,
}

impl ComposeFailure for Composer {
    fn compose(&self, task: TaskId, failure: &Failure) -> Bytes {
        // Whole seconds and parts of it come from the failure alone, so that the same failure is the same bytes.
        let at = i64::try_from(failure.at.as_micros())
            .unwrap_or(i64::MAX)
            .saturating_mul(1000);
        if let Cause::Denied { function } = failure.cause {
            return not_allowed(task, function.0, self.endpoint_id, at);
        }
        let text = self.text(failure);
        error_result(task, at, &text, error_code::REMOTE_EXECUTION, USER_MESSAGE)
    }
}

/// The result of a task of a function that the endpoint may not run, with upstream's words.
fn not_allowed(task: TaskId, function: Uuid, endpoint: Uuid, at_ns: i64) -> Bytes {
    let text = format!("Function {function} not permitted on endpoint {endpoint}");
    error_result(task, at_ns, &text, error_code::FUNCTION_NOT_ALLOWED, &text)
}

fn error_result(task: TaskId, at_ns: i64, text: &str, code: &str, user_message: &str) -> Bytes {
    let entry = |state| StatusEntry {
        timestamp: at_ns,
        state,
        actor: Actor::Interchange,
    };
    let result = TaskResult {
        task_id: task.0,
        data: format!("{}\n{text}\n{}", "+".repeat(FRAME), "-".repeat(FRAME)),
        details: None,
        error_details: Some(ErrorDetails {
            code: code.to_owned(),
            user_message: user_message.to_owned(),
        }),
        task_statuses: vec![entry(State::WaitingForLaunch), entry(State::ExecutionEnd)],
    };
    Bytes::from(encode(&Message::Result(result)))
}

impl Composer {
    fn text(&self, failure: &Failure) -> String {
        let place = match failure.block {
            Some(block) => format!("block {}", self.names.name(block)),
            None => "a block".to_owned(),
        };
        let (name, mut text, output) = match &failure.cause {
            Cause::ExecutorDied(end) => executor_died(end, &place),
            Cause::BlockEnded { end, neighbours } => block_ended(end, &place, *neighbours),
            Cause::WorkerLost { silent_for } => (
                "WorkerLost",
                format!(
                    "the worker in {place} that ran this task has said nothing for {} s, and was given up",
                    silent_for.as_secs()
                ),
                "",
            ),
            Cause::WorkerForgot => (
                "WorkerLost",
                format!("the worker in {place} that ran this task came back after a lost connection without the task"),
                "",
            ),
            Cause::Interrupted => (
                "TaskInterrupted",
                format!("the endpoint was restarted while this task ran, and what ran it ({place}) is gone"),
                "",
            ),
            Cause::NoBlockStarts { failures, end } => (
                "BlocksFailedToStart",
                no_block_starts(*failures, end),
                end.output.as_str(),
            ),
            Cause::Refused { reason } => (
                "TaskRefused",
                format!("the worker in {place} can not run this task: {reason}"),
                "",
            ),
            Cause::Denied { function } => (
                "FunctionNotAllowed",
                format!("the function {} may not run on this endpoint", function.0),
                "",
            ),
            Cause::JournalFailed => (
                "JournalFailed",
                "the endpoint's disk could not take a note of this task, so that it was not begun; its disk may be full"
                    .to_owned(),
                "",
            ),
            Cause::Cancelled => ("TaskCancelled", "this task was cancelled".to_owned(), ""),
            Cause::EndpointStopped => (
                "EndpointStopped",
                "the endpoint was stopped while this task ran".to_owned(),
                "",
            ),
        };
        if failure.attempts > 1 {
            let _ = write!(text, " (this was attempt {} of {})", failure.attempts, failure.attempts);
        }
        let mut text = format!("{name}: {text}.");
        let output = output.trim_end();
        if !output.is_empty() {
            let _ = write!(text, "\nThe last lines that it printed:\n{output}");
        }
        text
    }
}

fn no_block_starts(failures: u32, end: &BlockEnd) -> String {
    let why = end_in_words(end);
    match failures {
        0 | 1 => format!("no worker could be started for this task, because {why}"),
        _ => format!(
            "no worker could be started for this task: {failures} attempts in a row failed, the last because {why}"
        ),
    }
}

fn executor_died<'a>(end: &'a ExecutorEnd, place: &str) -> (&'static str, String, &'a str) {
    let what = format!("the process that ran this task in {place}");
    let (name, text) = match &end.how {
        ExecutorExit::Process(exit) => ("ExecutorDied", format!("{what} {}", exit_in_words(*exit))),
        ExecutorExit::OutOfMemory(memory) => (
            "OutOfMemory",
            format!(
                "{what} was ended because memory ran out: it had used {} MiB, and its limit is {} MiB",
                memory.peak >> 20,
                memory.limit >> 20
            ),
        ),
        ExecutorExit::Cancelled => ("TaskCancelled", "this task was cancelled".to_owned()),
        ExecutorExit::GraceOver => (
            "WorkerStopped",
            format!("the worker in {place} had to end before this task did"),
        ),
        ExecutorExit::Other { words } => ("ExecutorDied", format!("this task, in {place}, {words}")),
        ExecutorExit::CannotStart { reason } => (
            "ExecutorFailedToStart",
            format!("no process could be started for this task in {place}: {reason}"),
        ),
    };
    (name, text, &end.output)
}

fn block_ended<'a>(end: &'a BlockEnd, place: &str, neighbours: u32) -> (&'static str, String, &'a str) {
    let mut text = format!("{place} ended while it ran this task, because {}", end_in_words(end));
    if let (BlockEndKind::OutOfMemory, Some(limit)) = (end.kind, end.memory_limit) {
        let _ = write!(text, " (its limit is {} MiB)", limit >> 20);
    }
    if neighbours > 0 {
        let _ = write!(text, "; {neighbours} other tasks ran in it");
    }
    ("BlockEnded", text, &end.output)
}

/// How a block ended, as what follows "because".
fn end_in_words(end: &BlockEnd) -> String {
    if end.message.is_empty() {
        format!("of this: {}", end.kind.as_str().replace('_', " "))
    } else {
        end.message.clone()
    }
}

fn exit_in_words(exit: ProcessExit) -> String {
    match exit {
        ProcessExit::Code(code) => format!("ended with exit code {code}"),
        ProcessExit::Signal(number) => match signal_name(number) {
            Some(name) => format!("was ended by signal {number} ({name})"),
            None => format!("was ended by signal {number}"),
        },
        ProcessExit::Unknown => "is gone".to_owned(),
    }
}

fn signal_name(number: i32) -> Option<&'static str> {
    nix::sys::signal::Signal::try_from(number)
        .ok()
        .map(nix::sys::signal::Signal::as_str)
}

#[cfg(test)]
mod tests {
    use waypost_engine::{BlockId, Time};
    use waypost_protocol::decode;

    use super::*;

    fn composer() -> Composer {
        Composer {
            names: BlockNames::new(Uuid::from_u128(0xabc << 96)),
            endpoint_id: Uuid::from_u128(0xdef),
        }
    }

    fn failure(cause: Cause) -> Failure {
        let block = Some(BlockId { epoch: 2, number: 1 });
        Failure {
            cause,
            block,
            attempts: 1,
            at: Time::from_micros(1_795_217_418_661_970),
        }
    }

    fn result(failure: &Failure) -> TaskResult {
        let bytes = composer().compose(TaskId(Uuid::from_u128(5)), failure);
        assert_eq!(
            bytes,
            composer().compose(TaskId(Uuid::from_u128(5)), failure),
            "the same failure is the same bytes"
        );
        let Message::Result(result) = decode(&bytes).unwrap() else {
            panic!("a result was composed")
        };
        result
    }

    #[test]
    fn a_segfault_is_told_with_its_signal_its_block_and_the_last_output() {
        let end = ExecutorEnd {
            how: ExecutorExit::Process(ProcessExit::Signal(11)),
            output: "before the end\n".to_owned(),
        };
        let result = result(&failure(Cause::ExecutorDied(end)));
        let text = "ExecutorDied: the process that ran this task in block 00000abc-2-1 was ended by signal 11 (SIGSEGV).\n\
                    The last lines that it printed:\nbefore the end";
        assert_eq!(result.data, format!("{}\n{text}\n{}", "+".repeat(68), "-".repeat(68)));
        assert_eq!(result.details, None);
        assert_eq!(result.error_details.unwrap().code, "RemoteExecutionError");
        let statuses: Vec<_> = result
            .task_statuses
            .iter()
            .map(|entry| (entry.state, entry.actor))
            .collect();
        assert_eq!(
            statuses,
            [
                (State::WaitingForLaunch, Actor::Interchange),
                (State::ExecutionEnd, Actor::Interchange)
            ]
        );
        assert_eq!(result.task_statuses[0].timestamp, 1_795_217_418_661_970_000);
    }

    #[test]
    fn a_task_for_which_there_is_no_node_is_told_the_schedulers_words() {
        let words = "no node took it within 600 s: 0/1 nodes are available: 1 Insufficient cpu";
        let end = BlockEnd::new(BlockEndKind::Unschedulable, words);
        let result = result(&failure(Cause::NoBlockStarts { failures: 1, end }));
        let text = format!("BlocksFailedToStart: no worker could be started for this task, because {words}.");
        assert!(result.data.contains(&text), "{}", result.data);
    }

    #[test]
    fn a_block_that_can_not_start_is_told_with_the_platforms_words() {
        let end = BlockEnd {
            output: "bash: line 4: modul: command not found".to_owned(),
            ..BlockEnd::new(BlockEndKind::Crashed, "its worker ended with exit code 127")
        };
        let result = result(&failure(Cause::NoBlockStarts { failures: 5, end }));
        assert!(
            result
                .data
                .contains("5 attempts in a row failed, the last because its worker ended with exit code 127")
        );
        assert!(result.data.contains("modul: command not found"));
    }
}
