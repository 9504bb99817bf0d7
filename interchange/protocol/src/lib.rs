//! The messages that Globus Compute's service, endpoints and SDKs exchange over AMQP.
//!
//! This crate knows their form and nothing else: no I/O, no policy. The form was seen on the wire between
//! `globus-compute-sdk` 4.19 and `globus-compute-endpoint` 4.19 and 3.16.1 (`globus-compute-common` 1.0.0).
//!
//! | message | on | type |
//! |---|---|---|
//! | a task | `<endpoint>.tasks` | [`Task`], with the headers of [`TaskHeaders`] |
//! | a result | exchange `results` | [`TaskResult`] |
//! | a heartbeat | exchange `heartbeats` | [`StatusReport`] |
//! | a command | `<endpoint>.commands` | [`Command`] (bare JSON) |
//! | where to connect | registration reply, start command | [`QueueInfo`] |

mod command;
mod envelope;
mod queue;
mod result;
mod status;
mod task;

pub use command::{AmqpCredentials, Command, IdentityClaim, START_ENDPOINT, StartArguments};
pub use envelope::{DecodeError, Message, decode, encode};
pub use queue::{PublishArguments, QueueInfo};
pub use result::{Actor, ErrorDetails, RESULT_SIZE_LIMIT, State, StatusEntry, TaskResult, error_code};
pub use status::StatusReport;
pub use task::{HEADER_FUNCTION, HEADER_RESOURCES, HEADER_SERIALIZERS, HEADER_TASK, Task, TaskHeaders};

/// The Globus Compute release whose template protocol (command queue and user endpoints) is spoken here.
pub const TEMPLATE_PROTOCOL_VERSION: &str = "4.19.0";
/// The Globus Compute release whose direct protocol (an `engine:` in `config.yaml`) is spoken here.
pub const DIRECT_PROTOCOL_VERSION: &str = "3.16.1";
