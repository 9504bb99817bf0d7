use endpoint_config::{BaseConfig, Configuration, UserEndpointConfig};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use uuid::Uuid;
use waypost_protocol::{AmqpCredentials, DIRECT_PROTOCOL_VERSION, QueueInfo, TEMPLATE_PROTOCOL_VERSION};

/// What a registration says of the machine.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Host {
    /// Its name.
    pub hostname: String,
    /// The user that the endpoint runs as.
    pub local_user: String,
    /// The version of the Python that workers use unless told otherwise; absent if there is none.
    pub python_version: Option<String>,
}

/// An endpoint to be registered.
#[derive(Debug, Clone, PartialEq)]
pub struct Registration<'a> {
    /// The endpoint's local name.
    pub name: &'a str,
    /// Its configuration.
    pub configuration: &'a Configuration,
    /// The text of `config.yaml`.
    pub config_text: &'a str,
    /// The text of the template; for a template endpoint.
    pub template: Option<&'a str>,
    /// The schema; for a template endpoint that has one.
    pub schema: Option<&'a Value>,
    /// The machine.
    pub host: &'a Host,
}

impl Registration<'_> {
    /// The body of the call. The version is that of the Globus Compute release whose protocol is spoken; our own is
    /// beside it.
    #[must_use]
    pub fn body(&self) -> Value {
        let mut metadata = json!({
            "hostname": self.host.hostname,
            "local_user": self.host.local_user,
            "endpoint_config": self.config_text,
            "waypost_version": env!("CARGO_PKG_VERSION"),
        });
        if let Some(version) = &self.host.python_version {
            metadata["python_version"] = json!(version);
        }
        let base = self.configuration.base();
        let mut body = json!({
            "endpoint_name": self.name,
            "high_assurance": base.high_assurance,
        });
        match self.configuration {
            Configuration::Template(config) => {
                metadata["endpoint_version"] = json!(TEMPLATE_PROTOCOL_VERSION);
                metadata["user_config_template"] = json!(self.template.unwrap_or_default());
                metadata["user_config_schema"] = json!(self.schema);
                body["public"] = json!(config.public);
            }
            Configuration::Direct(config) => {
                metadata["endpoint_version"] = json!(DIRECT_PROTOCOL_VERSION);
                metadata["config"] = describe(config);
            }
        }
        body["metadata"] = metadata;
        optional(&mut body, base);
        body
    }
}

fn optional(body: &mut Value, base: &BaseConfig) {
    if let Some(name) = &base.display_name {
        body["display_name"] = json!(name);
    }
    if let Some(functions) = base.allowed_functions.as_ref().filter(|list| !list.is_empty()) {
        body["allowed_functions"] = json!(functions);
    }
    if let Some(policy) = base.authentication_policy {
        body["authentication_policy"] = json!(policy);
    }
    if let Some(subscription) = base.subscription_id {
        body["subscription_uuid"] = json!(subscription);
    }
    if let Some(admins) = base.admins.as_ref().filter(|list| !list.is_empty()) {
        body["admins"] = json!(admins);
    }
}

/// `metadata.config`, by whose presence a direct endpoint is known; services of today ignore what is in it.
fn describe(config: &UserEndpointConfig) -> Value {
    let provider = config.engine.provider.blocks();
    json!({
        "type": "UserEndpointConfig",
        "display_name": config.base.display_name,
        "heartbeat_period": config.base.heartbeat_period.as_secs_f64(),
        "heartbeat_threshold": config.heartbeat_threshold.as_secs_f64(),
        "idle_heartbeats_soft": config.idle_heartbeats_soft,
        "idle_heartbeats_hard": config.idle_heartbeats_hard,
        "engine": {
            "type": "GlobusComputeEngine",
            "label": config.engine.label,
            "max_retries_on_system_failure": config.engine.max_retries_on_system_failure,
            "run_in_sandbox": config.engine.run_in_sandbox,
            "executor": {
                "max_workers_per_node": config.engine.max_workers_per_node,
                "provider": {
                    "type": config.engine.provider.type_name(),
                    "init_blocks": provider.init_blocks,
                    "min_blocks": provider.min_blocks,
                    "max_blocks": provider.max_blocks,
                    "parallelism": provider.parallelism,
                },
            },
        },
    })
}

/// What the service answers to a registration.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
pub struct RegistrationReply {
    /// The endpoint's id.
    pub endpoint_id: Uuid,
    /// Where commands come from; for a template endpoint.
    pub command_queue_info: Option<QueueInfo>,
    /// Where tasks come from; for a direct endpoint.
    pub task_queue_info: Option<QueueInfo>,
    /// Where results go; for a direct endpoint.
    pub result_queue_info: Option<QueueInfo>,
    /// Where heartbeats go.
    pub heartbeat_queue_info: Option<QueueInfo>,
}

/// A registration that can be used.
#[derive(Debug, Clone, PartialEq)]
pub enum Registered {
    /// Commands come from the first queue, heartbeats go to the second.
    Template {
        /// The endpoint's id.
        endpoint_id: Uuid,
        /// Where commands come from.
        commands: QueueInfo,
        /// Where heartbeats go.
        heartbeats: QueueInfo,
    },
    /// Tasks come at once.
    Direct(AmqpCredentials),
}

impl RegistrationReply {
    /// Takes what the kind of endpoint needs, with `port` in every address if one is given.
    ///
    /// # Errors
    /// The name of the part that is missing.
    pub fn usable(self, configuration: &Configuration) -> Result<Registered, &'static str> {
        let port = configuration.base().amqp_port;
        let take = |info: Option<QueueInfo>, name: &'static str| -> Result<QueueInfo, &'static str> {
            let mut info = info.ok_or(name)?;
            if let Some(port) = port {
                replace_port(&mut info, port);
            }
            Ok(info)
        };
        match configuration {
            Configuration::Template(_) => Ok(Registered::Template {
                endpoint_id: self.endpoint_id,
                commands: take(self.command_queue_info, "command_queue_info")?,
                heartbeats: take(self.heartbeat_queue_info, "heartbeat_queue_info")?,
            }),
            Configuration::Direct(_) => {
                // 3.16 sends its heartbeats by the result queue if the service names no other.
                let results = take(self.result_queue_info, "result_queue_info")?;
                Ok(Registered::Direct(AmqpCredentials {
                    endpoint_id: self.endpoint_id,
                    task_queue_info: take(self.task_queue_info, "task_queue_info")?,
                    heartbeat_queue_info: take(self.heartbeat_queue_info, "heartbeat_queue_info")
                        .unwrap_or_else(|_| results.clone()),
                    result_queue_info: results,
                }))
            }
        }
    }
}

impl From<Registered> for RegistrationReply {
    /// The answer from which the registration could have come.
    fn from(registered: Registered) -> Self {
        match registered {
            Registered::Template {
                endpoint_id,
                commands,
                heartbeats,
            } => Self {
                endpoint_id,
                command_queue_info: Some(commands),
                task_queue_info: None,
                result_queue_info: None,
                heartbeat_queue_info: Some(heartbeats),
            },
            Registered::Direct(credentials) => Self {
                endpoint_id: credentials.endpoint_id,
                command_queue_info: None,
                task_queue_info: Some(credentials.task_queue_info),
                result_queue_info: Some(credentials.result_queue_info),
                heartbeat_queue_info: Some(credentials.heartbeat_queue_info),
            },
        }
    }
}

/// Puts another port into a connection's address (`amqp_port`).
pub(crate) fn replace_port(info: &mut QueueInfo, port: u16) {
    if let Ok(mut url) = url::Url::parse(&info.connection_url)
        && url.set_port(Some(port)).is_ok()
    {
        info.connection_url = url.to_string();
    }
}

#[cfg(test)]
mod tests {
    use endpoint_config::endpoint_config;

    use super::*;

    fn body(text: &str) -> Value {
        let read = endpoint_config(text, None).unwrap();
        let host = Host {
            hostname: "host".to_owned(),
            local_user: "me".to_owned(),
            python_version: None,
        };
        Registration {
            name: "mine",
            configuration: &read.config.0,
            config_text: text,
            template: Some("engine:"),
            schema: None,
            host: &host,
        }
        .body()
    }

    #[test]
    fn a_template_endpoint_registers_as_4_19_does() {
        let body = body("display_name: Mine\npublic: true\n");
        assert_eq!(body["metadata"]["endpoint_version"], "4.19.0");
        assert_eq!(body["metadata"]["user_config_template"], "engine:");
        assert!(body["metadata"].get("config").is_none());
        assert_eq!((&body["public"], &body["display_name"]), (&json!(true), &json!("Mine")));
        assert!(body.get("admins").is_none());
    }

    #[test]
    fn a_direct_endpoint_registers_as_3_16_does() {
        let body = body("engine:\n  type: GlobusComputeEngine\n");
        assert_eq!(body["metadata"]["endpoint_version"], "3.16.1");
        assert!(body["metadata"]["config"].is_object());
        assert!(body["metadata"].get("user_config_template").is_none());
    }

    #[test]
    fn the_port_of_the_configuration_replaces_the_service_s() {
        let mut info = QueueInfo {
            connection_url: "amqps://me:secret@host/vhost?heartbeat=10".to_owned(),
            queue: "q".to_owned(),
            exchange: None,
            queue_publish_kwargs: None,
        };
        replace_port(&mut info, 443);
        assert_eq!(info.connection_url, "amqps://me:secret@host:443/vhost?heartbeat=10");
    }
}
