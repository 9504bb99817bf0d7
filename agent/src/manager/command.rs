//! What a command must be before it is obeyed.

use std::collections::BTreeSet;

use endpoint_config::check_name;
use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;
use uuid::Uuid;
use waypost_protocol::{AmqpCredentials, Command, START_ENDPOINT};

use crate::state::Asked;

/// Clocks may differ so much, in seconds.
const SKEW_MAX: u64 = 180;

/// A command as it came from the broker.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Incoming<'a> {
    pub(crate) content_type: Option<&'a str>,
    /// When it was sent, in seconds since the Unix epoch.
    pub(crate) timestamp: Option<u64>,
    pub(crate) body: &'a [u8],
}

/// A user endpoint that is to be started, or whose credentials are to be refreshed.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct StartRequest {
    pub(crate) name: String,
    pub(crate) asked: Asked,
    pub(crate) credentials: AmqpCredentials,
    pub(crate) identity: Uuid,
    pub(crate) username: String,
    /// How long ago it was sent, in seconds.
    pub(crate) age: u64,
}

/// Why a command is not obeyed.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Refusal {
    /// For the log, and for the submitter.
    pub(crate) text: String,
    /// How the submitter can be told; absent if the command does not even say that.
    pub(crate) notify: Option<Box<AmqpCredentials>>,
}

/// The parts that must keep the order of their keys, for templates.
#[derive(Deserialize)]
struct Ordered<'a> {
    #[serde(borrow)]
    kwargs: OrderedArguments<'a>,
}

#[derive(Deserialize)]
struct OrderedArguments<'a> {
    #[serde(borrow, default)]
    user_opts: Option<&'a RawValue>,
    #[serde(borrow, default)]
    user_runtime: Option<&'a RawValue>,
}

/// Checks a command: its form, its time, who sent it, and what it asks. `owner` are the identities of the endpoint's
/// owner; `now` is in seconds since the Unix epoch.
///
/// A command that waited in the queue while the endpoint was away is obeyed however old it is: starting twice is the
/// same as starting once, and the broker has checked its sender. One from the future is not.
pub(crate) fn check(incoming: Incoming<'_>, owner: &BTreeSet<Uuid>, now: u64) -> Result<StartRequest, Refusal> {
    let unreadable = |what: String| Refusal {
        text: format!("Unable to deserialize Globus Compute services command.  {what}"),
        notify: None,
    };
    if incoming.content_type != Some("application/json") {
        return Err(unreadable("Invalid message type; expecting JSON".to_owned()));
    }
    let Some(timestamp) = incoming.timestamp else {
        return Err(unreadable("It has no timestamp".to_owned()));
    };
    let value: Value =
        serde_json::from_slice(incoming.body).map_err(|error| unreadable(format!("It is not JSON: {error}")))?;
    let notify = credentials(&value).map(Box::new);
    let refuse = |text: String| Refusal {
        text,
        notify: notify.clone(),
    };
    if timestamp > now + SKEW_MAX {
        return Err(refuse(format!(
            "Ignoring command from server\nCommand too old or skew between system clocks is too large.\n  Command timestamp:  {timestamp}\n  Endpoint timestamp: {now}"
        )));
    }
    match value.get("command").and_then(Value::as_str) {
        Some(START_ENDPOINT) => {}
        other => {
            return Err(refuse(format!(
                "(InvalidCommandError) Unknown or invalid command: {}",
                other.unwrap_or("none")
            )));
        }
    }
    if value.pointer("/kwargs/name").is_none() {
        return Err(refuse("(InvalidCommandError) Missing endpoint name".to_owned()));
    }
    let command: Command = serde_json::from_value(value)
        // The error may quote what it found, and credentials are among it.
        .map_err(|error| refuse(format!("Invalid server command.  {}", shape(&error))))?;
    let matched = command
        .globus_identity_set
        .iter()
        .map(|claim| claim.sub)
        .find(|sub| owner.contains(sub))
        .ok_or_else(|| {
            refuse(format!(
                "Ignoring start request for untrusted identity.\n  Globus effective identity: {}\n  Globus username: {}",
                command.globus_effective_identity, command.globus_username
            ))
        })?;
    let name = command.kwargs.name;
    // The name becomes a folder beside those of endpoints.
    if !name.starts_with("uep.") || check_name(&name).is_err() {
        return Err(refuse(format!(
            "(InvalidCommandError) {name:?} is not a name for a user endpoint"
        )));
    }
    let ordered: Ordered<'_> = serde_json::from_slice(incoming.body)
        .map_err(|error| refuse(format!("Invalid server command.  {}", shape(&error))))?;
    let text = |raw: Option<&RawValue>| raw.map_or_else(|| "null".to_owned(), |raw| raw.get().to_owned());
    Ok(StartRequest {
        name,
        asked: Asked {
            user_options: text(ordered.kwargs.user_opts),
            user_runtime: text(ordered.kwargs.user_runtime),
            matched,
        },
        credentials: command.kwargs.amqp_creds,
        identity: command.globus_effective_identity,
        username: command.globus_username,
        age: now.saturating_sub(timestamp),
    })
}

fn credentials(command: &Value) -> Option<AmqpCredentials> {
    serde_json::from_value(command.pointer("/kwargs/amqp_creds")?.clone()).ok()
}

/// What kind of mismatch it is, without the value that was found.
fn shape(error: &serde_json::Error) -> String {
    let text = error.to_string();
    if text.starts_with("missing field") {
        text
    } else {
        "A part of it is not of the type expected.".to_owned()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const OWNER: &str = "5334a9a1-6fd2-4a4f-9f50-0d6ff5ddbb43";
    const NOW: u64 = 1_795_217_418;

    fn command() -> Value {
        let queue = json!({"connection_url": "amqp://u:secret@h/", "queue": "q"});
        json!({
            "command": "cmd_start_endpoint", "args": [],
            "kwargs": {
                "name": "uep.a.b", "user_opts": {"z": 1, "a": 2}, "user_runtime": null,
                "amqp_creds": {
                    "endpoint_id": OWNER, "task_queue_info": queue, "result_queue_info": queue,
                    "heartbeat_queue_info": queue,
                },
            },
            "globus_effective_identity": OWNER, "globus_username": "me", "globus_identity_set": [{"sub": OWNER}],
        })
    }

    fn checked(command: &Value, timestamp: Option<u64>) -> Result<StartRequest, Refusal> {
        // Written by hand, so that `z` stays before `a`.
        let body = command.to_string().replace(r#"{"a":2,"z":1}"#, r#"{"z":1,"a":2}"#);
        check(
            Incoming {
                content_type: Some("application/json"),
                timestamp,
                body: body.as_bytes(),
            },
            &BTreeSet::from([OWNER.parse().unwrap()]),
            NOW,
        )
    }

    #[test]
    fn a_good_command_is_taken_with_its_options_in_their_order() {
        let request = checked(&command(), Some(NOW - 3)).unwrap();
        assert_eq!(request.asked.user_options, r#"{"z":1,"a":2}"#);
        assert_eq!((request.asked.user_runtime.as_str(), request.age), ("null", 3));
    }

    #[test]
    fn options_and_runtime_may_be_absent() {
        let mut command = command();
        let arguments = command["kwargs"].as_object_mut().unwrap();
        arguments.remove("user_opts");
        arguments.remove("user_runtime");
        command.as_object_mut().unwrap().remove("args");
        assert_eq!(checked(&command, Some(NOW)).unwrap().asked.user_options, "null");
    }

    #[test]
    fn a_command_that_waited_is_obeyed_and_one_from_the_future_is_not() {
        assert_eq!(checked(&command(), Some(NOW - 100_000)).unwrap().age, 100_000);
        assert!(checked(&command(), Some(NOW + 180)).is_ok());
        let refusal = checked(&command(), Some(NOW + 181)).unwrap_err();
        assert!(refusal.text.contains("skew") && refusal.notify.is_some());
    }

    #[test]
    fn strangers_are_refused_and_told() {
        let mut command = command();
        command["globus_identity_set"] = json!([{"sub": Uuid::nil()}]);
        let refusal = checked(&command, Some(NOW)).unwrap_err();
        assert!(
            refusal
                .text
                .starts_with("Ignoring start request for untrusted identity.")
        );
        assert!(refusal.notify.is_some());
    }

    #[test]
    fn what_is_not_a_command_is_refused_without_showing_secrets() {
        for (pointer, value) in [
            ("/command", json!("cmd_other")),
            ("/kwargs/name", json!("../default")),
            ("/kwargs/name", json!("default")),
            ("/kwargs/name", json!("uep./etc")),
            ("/globus_effective_identity", json!("x")),
            ("/kwargs/amqp_creds", json!("amqp://u:secret@h/")),
        ] {
            let mut command = command();
            *command.pointer_mut(pointer).unwrap() = value;
            let refusal = checked(&command, Some(NOW)).unwrap_err();
            assert!(!refusal.text.contains("secret"), "{}", refusal.text);
            assert_eq!(refusal.notify.is_none(), pointer == "/kwargs/amqp_creds");
        }
        assert!(checked(&command(), None).unwrap_err().notify.is_none());
        let text = check(
            Incoming {
                content_type: Some("text/plain"),
                timestamp: Some(NOW),
                body: b"{}",
            },
            &BTreeSet::new(),
            NOW,
        );
        assert!(text.unwrap_err().text.contains("expecting JSON"));
    }
}
