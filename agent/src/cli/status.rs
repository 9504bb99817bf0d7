use std::fmt::Write as _;
use std::path::Path;
use std::time::{Duration, Instant};

use endpoint_config::EndpointDirectory;
use endpoint_telemetry::ask_control;
use serde_json::Value;

use super::arguments::StatusOptions;
use super::error::{CliError, exit_code};
use super::instance::{Holder, holder};
use super::print;
use super::start::state_secret;
use crate::manager::EndpointStatus;

/// An endpoint that runs answers within so long, or something is wrong with it.
const PATIENCE: Duration = Duration::from_secs(5);

pub(super) fn status(base: &Path, options: StatusOptions) -> Result<(), CliError> {
    let directory = EndpointDirectory::find(base, &options.name)?;
    if !directory.exists() {
        directory.read()?;
    }
    let said = |error: &dyn std::fmt::Display| CliError::said(error.to_string(), exit_code::ERROR);
    let text = match running_status(&directory)? {
        Some(text) => text,
        None => serde_json::to_string(&EndpointStatus::stopped(directory.name(), directory.endpoint_id()?))
            .map_err(|error| said(&error))?,
    };
    if options.json {
        print(&text);
        return Ok(());
    }
    let status: Value = serde_json::from_str(&text).map_err(|error| said(&error))?;
    print(describe(&status).trim_end());
    Ok(())
}

/// What the process that runs the endpoint says, if there is one.
pub(super) fn running_status(directory: &EndpointDirectory) -> Result<Option<String>, CliError> {
    let start = Instant::now();
    loop {
        let Holder::Process(pid) =
            holder(&directory.pid_file()).map_err(|error| CliError::said(error.to_string(), exit_code::ERROR))?
        else {
            return Ok(None);
        };
        match ask_control(&directory.control_socket(), "status") {
            Ok(text) => return Ok(Some(text)),
            // For a moment at its start and its end it runs and does not listen.
            Err(_) if start.elapsed() < PATIENCE => std::thread::sleep(Duration::from_millis(20)),
            Err(error) => {
                return Err(CliError::said(
                    format!("the endpoint runs (process {pid}), and does not answer: {error}"),
                    exit_code::TEMPORARY,
                ));
            }
        }
    }
}

/// Whether it is in a pod, and its agent waits there for `endpoint start`.
pub(super) fn is_stopped_in_pod(directory: &EndpointDirectory) -> bool {
    state_secret().is_some()
        && running_status(directory)
            .ok()
            .flatten()
            .and_then(|text| serde_json::from_str::<Value>(&text).ok())
            .is_some_and(|status| status["state"] == "stopped")
}

/// The status for a person.
fn describe(status: &Value) -> String {
    let text = |value: &Value| match value {
        Value::String(text) => text.clone(),
        Value::Null => "-".to_owned(),
        other @ (Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_)) => other.to_string(),
    };
    let mut out = String::new();
    let _ = writeln!(out, "{}: {}", text(&status["name"]), text(&status["state"]));
    let _ = writeln!(out, "  endpoint id      {}", text(&status["endpoint_id"]));
    if status["pid"].is_null() {
        return out;
    }
    let _ = writeln!(
        out,
        "  process          {}, since {} ({} endpoint, version {})",
        text(&status["pid"]),
        text(&status["started"]),
        text(&status["kind"]),
        text(&status["version"])
    );
    if !status["http"].is_null() {
        let _ = writeln!(out, "  metrics          http://{}/metrics", text(&status["http"]));
    }
    let _ = writeln!(
        out,
        "  blocks, slots    {}, {}",
        text(&status["blocks"]),
        text(&status["slots"])
    );
    let _ = write!(
        out,
        "  tasks            {} running, {} waiting",
        text(&status["tasks_running"]),
        text(&status["tasks_waiting"])
    );
    match status["oldest_wait_ms"].as_u64() {
        Some(wait) => {
            let _ = writeln!(out, ", the oldest for {}", duration(wait));
        }
        None => out.push('\n'),
    }
    if !status["last_error"].is_null() {
        let _ = writeln!(out, "  last error       {}", text(&status["last_error"]));
    }
    let credentials = &status["credentials"];
    if !credentials.is_null() {
        let _ = write!(out, "  credentials      {}", text(&credentials["state"]));
        if let Some(of) = credentials["of"].as_str() {
            let _ = write!(out, " ({of})");
        }
        if let Some(why) = credentials["why"].as_str() {
            let _ = write!(out, ": {}", why.replace('\n', ", "));
        }
        out.push('\n');
    }
    let none = Vec::new();
    let user_endpoints = status["user_endpoints"].as_array().unwrap_or(&none);
    if status["kind"] == "template" {
        let _ = writeln!(out, "  user endpoints   {}", user_endpoints.len());
    }
    for one in user_endpoints {
        let _ = writeln!(
            out,
            "\n  {}: {}\n    broker         {}\n    tasks          {} running, {} waiting, {} done",
            text(&one["name"]),
            text(&one["state"]),
            text(&one["broker"]),
            text(&one["tasks_running"]),
            text(&one["tasks_waiting"]),
            text(&one["tasks_settled"])
        );
        if let Some(bound) = one["blocks_bound"].as_str() {
            let _ = writeln!(
                out,
                "    blocks         {} of at most {} ({bound}){}",
                one["blocks"].as_array().map_or(0, Vec::len),
                text(&one["blocks_max"]),
                if one["blocks_bounded"] == true {
                    ", and more are wanted"
                } else {
                    ""
                }
            );
        }
        for block in one["blocks"].as_array().unwrap_or(&none) {
            let _ = write!(
                out,
                "    block          {}: {}",
                text(&block["name"]),
                text(&block["state"])
            );
            if !block["node"].is_null() {
                let _ = write!(out, " on {}", text(&block["node"]));
            }
            if block["slots"] != 0 {
                let _ = write!(
                    out,
                    ", {} of {} slots busy",
                    text(&block["busy"]),
                    text(&block["slots"])
                );
            }
            out.push('\n');
            if !block["waiting"].is_null() {
                let _ = writeln!(out, "                   waits: {}", text(&block["waiting"]));
            }
        }
        if !one["last_error"].is_null() {
            let _ = writeln!(out, "    last error     {}", text(&one["last_error"]));
        }
    }
    out
}

fn duration(milliseconds: u64) -> String {
    let seconds = milliseconds / 1000;
    match (seconds / 3600, seconds / 60 % 60, seconds % 60) {
        (0, 0, 0) => format!("{milliseconds} ms"),
        (0, 0, seconds) => format!("{seconds} s"),
        (0, minutes, seconds) => format!("{minutes} min {seconds} s"),
        (hours, minutes, _) => format!("{hours} h {minutes} min"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_that_does_not_run_is_described_in_two_lines() {
        let status = serde_json::to_value(EndpointStatus::stopped("mine", None)).unwrap();
        assert_eq!(describe(&status), "mine: initialized\n  endpoint id      -\n");
    }

    #[test]
    fn a_block_is_shown_with_its_node_or_with_what_it_waits_for() {
        let block = |node: Value, waiting: Value, slots: u32| {
            serde_json::json!({"name": "my-12345678-3-1", "state": "pending", "busy": 0, "slots": slots, "node": node,
                "waiting": waiting})
        };
        let status = serde_json::json!({
            "name": "mine", "state": "running", "pid": 1, "kind": "direct", "user_endpoints": [{
                "name": "mine", "state": "running", "broker": "consuming", "blocks_max": 2, "blocks_bound": "max_cores",
                "blocks_bounded": true, "blocks": [
                    block("node-1".into(), Value::Null, 2),
                    block(Value::Null, "no node takes the pod: 0/1 nodes are available".into(), 0),
                ],
            }],
        });
        let text = describe(&status);
        assert!(
            text.contains("    blocks         2 of at most 2 (max_cores), and more are wanted\n"),
            "{text}"
        );
        assert!(
            text.contains("my-12345678-3-1: pending on node-1, 0 of 2 slots busy\n"),
            "{text}"
        );
        assert!(
            text.contains("my-12345678-3-1: pending\n                   waits: no node takes the pod: 0/1"),
            "{text}"
        );
    }

    #[test]
    fn times_are_told_in_units_of_their_size() {
        assert_eq!(duration(3), "3 ms");
        assert_eq!(duration(61_000), "1 min 1 s");
        assert_eq!(duration(3_660_000), "1 h 1 min");
    }
}
