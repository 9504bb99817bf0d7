//! The names of all that lives on the broker, and who may do what to it.
//!
//! | name | what | who publishes | who consumes |
//! |---|---|---|---|
//! | queue `<endpoint>.tasks` | tasks of a direct endpoint or a user endpoint | the service, by the default exchange | that endpoint |
//! | queue `<endpoint>.commands` | commands to a template endpoint | the service, by the default exchange | that endpoint |
//! | topic exchange `results`, queue `results` | results; the key `<endpoint>.results` says whose | endpoints | the service |
//! | topic exchange `heartbeats`, queue `heartbeats` | heartbeats; the key `<endpoint>.heartbeats` says whose | endpoints | the service |
//! | queue `results.<client>.<task group>` | results of a task group; expires when unused | the service, by the default exchange | that client |
//!
//! Nobody but the service may configure anything or publish to the default exchange. An endpoint may publish under its
//! own key only, so the key names the sender.

use uuid::Uuid;

use crate::store::EndpointKind;

/// The exchange to which endpoints publish results, and the queue that takes them all.
pub(crate) const RESULTS: &str = "results";
/// The exchange to which endpoints publish heartbeats, and the queue that takes them all.
pub(crate) const HEARTBEATS: &str = "heartbeats";

/// A user of the broker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum BrokerUser {
    /// A client, who reads the results of its task groups.
    Client(Uuid),
    /// An endpoint or user endpoint.
    Endpoint(Uuid, EndpointKind),
}

impl BrokerUser {
    /// Its name on the broker.
    pub(crate) fn name(&self) -> String {
        match self {
            Self::Client(id) => format!("waypost.client.{id}"),
            Self::Endpoint(id, _) => format!("waypost.endpoint.{id}"),
        }
    }

    /// The names that it may publish to, as a regular expression.
    pub(crate) const fn write_pattern(&self) -> &'static str {
        match self {
            Self::Client(_) => NOTHING,
            Self::Endpoint(_, EndpointKind::Template) => "^heartbeats$",
            Self::Endpoint(_, EndpointKind::Direct | EndpointKind::User) => "^(results|heartbeats)$",
        }
    }

    /// The names that it may consume from, as a regular expression.
    pub(crate) fn read_pattern(&self) -> String {
        match self {
            Self::Client(id) => format!(r"^results\.{id}\.[0-9a-f-]+$"),
            Self::Endpoint(id, EndpointKind::Template) => format!(r"^{id}\.commands$"),
            Self::Endpoint(id, EndpointKind::Direct | EndpointKind::User) => format!(r"^{id}\.tasks$"),
        }
    }

    /// The routing keys under which it may publish to a topic exchange, as a regular expression.
    pub(crate) fn key_pattern(&self, exchange: &str) -> String {
        match (self, exchange) {
            (Self::Endpoint(id, EndpointKind::Direct | EndpointKind::User), RESULTS) => format!(r"^{id}\.results$"),
            (Self::Endpoint(id, _), HEARTBEATS) => format!(r"^{id}\.heartbeats$"),
            _ => NOTHING.to_owned(),
        }
    }
}

/// Matches no name.
pub(crate) const NOTHING: &str = "^$";

/// The queue of an endpoint: its tasks, or its commands.
pub(crate) fn endpoint_queue(id: Uuid, kind: EndpointKind) -> String {
    match kind {
        EndpointKind::Template => format!("{id}.commands"),
        EndpointKind::Direct | EndpointKind::User => format!("{id}.tasks"),
    }
}

/// The key under which an endpoint publishes results.
pub(crate) fn result_key(endpoint: Uuid) -> String {
    format!("{endpoint}.results")
}

/// The key under which an endpoint publishes heartbeats.
pub(crate) fn heartbeat_key(endpoint: Uuid) -> String {
    format!("{endpoint}.heartbeats")
}

/// The sender that a routing key names, such as `<endpoint>.results` for the suffix `results`.
pub(crate) fn sender(routing_key: &str, suffix: &str) -> Option<Uuid> {
    let (id, rest) = routing_key.split_once('.')?;
    if rest == suffix { Uuid::parse_str(id).ok() } else { None }
}

/// What a client must put before a task group's id to have the name of its result queue.
pub(crate) fn result_queue_prefix(client: Uuid) -> String {
    format!("results.{client}.")
}

/// The queue for the results of a client's task group.
pub(crate) fn result_queue(client: Uuid, group: Uuid) -> String {
    format!("results.{client}.{group}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_routing_key_names_its_sender_and_nobody_else() {
        let id = Uuid::from_u128(7);
        assert_eq!(sender(&result_key(id), RESULTS), Some(id));
        assert_eq!(sender(&heartbeat_key(id), RESULTS), None);
        assert_eq!(sender("results", RESULTS), None);
        assert_eq!(sender(&format!("{id}.results.more"), RESULTS), None);
    }

    #[test]
    fn a_template_endpoint_may_not_publish_results() {
        let user = BrokerUser::Endpoint(Uuid::from_u128(7), EndpointKind::Template);
        assert_eq!(user.key_pattern(RESULTS), NOTHING);
        assert!(!user.write_pattern().contains(RESULTS));
    }
}
