//! What the deployment tells the agent by environment variables, as a pod's manifest sets them.
//!
//! | variable | meaning |
//! |---|---|
//! | `WAYPOST_LINK_LISTEN` | where workers in pods are listened for, such as `0.0.0.0:5800`; absent: not at all |
//! | `WAYPOST_LINK_ADDRESS` | where pods reach that, as `host:port`, several with commas |
//! | `WAYPOST_LINK_SERVICE` | the Service by which pods reach it, if there is no address; its cluster IP is the second choice |
//! | `WAYPOST_STATE_SECRET` | the Secret in the agent's own namespace that holds the state; absent: the endpoint's folder |
//! | `WAYPOST_NAMESPACE` | the agent's own namespace; absent: its service account's |
//! | `WAYPOST_ANCHOR` | the ConfigMap in each worker namespace that owns the pods; absent: the agent makes one |
//! | `WAYPOST_RELEASE` | what the names of pods begin with |
//! | `WAYPOST_POD_NAME`, `WAYPOST_POD_UID` | the agent's own pod, which Kubernetes Events are about |
//! | `WAYPOST_WORKER_IMAGE` | the image that brings the `worker` program into pods |
//! | `WAYPOST_TERMINATION_GRACE` | the pod's `terminationGracePeriodSeconds`; absent: 30, as Kubernetes has it |

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use endpoint_provider::kubernetes::Deployment;
use k8s_openapi::api::core::v1::ObjectReference;
use secrecy::SecretString;
use uuid::Uuid;

use crate::cli::error::{CliError, exit_code};
use crate::runtime::LinkSettings;

const NAMESPACE_FILE: &str = "/var/run/secrets/kubernetes.io/serviceaccount/namespace";

/// What the deployment says of itself.
pub(super) struct Facts<R> {
    read: R,
    namespace: Option<String>,
}

/// Reads environment variables.
pub(super) fn facts() -> Facts<fn(&str) -> Option<String>> {
    Facts::new(crate::cli::variable, Path::new(NAMESPACE_FILE))
}

impl<R: Fn(&str) -> Option<String>> Facts<R> {
    fn new(read: R, namespace_file: &Path) -> Self {
        let mut facts = Self { read, namespace: None };
        facts.namespace = facts.get("WAYPOST_NAMESPACE").or_else(|| {
            let text = std::fs::read_to_string(namespace_file).ok()?;
            Some(text.trim().to_owned()).filter(|name| !name.is_empty())
        });
        facts
    }

    fn get(&self, name: &str) -> Option<String> {
        (self.read)(name).filter(|value| !value.is_empty())
    }

    /// The agent's own namespace.
    pub(super) fn namespace(&self) -> Option<String> {
        self.namespace.clone()
    }

    /// The agent's own pod, if it runs in one.
    pub(super) fn pod(&self) -> Option<ObjectReference> {
        let (name, namespace) = self.get("WAYPOST_POD_NAME").zip(self.namespace.clone())?;
        Some(ObjectReference {
            api_version: Some("v1".to_owned()),
            kind: Some("Pod".to_owned()),
            name: Some(name),
            namespace: Some(namespace),
            uid: self.get("WAYPOST_POD_UID"),
            ..ObjectReference::default()
        })
    }

    /// What the names of pods begin with.
    pub(super) fn release(&self) -> Option<String> {
        self.get("WAYPOST_RELEASE")
    }

    /// What the provider of pods is to know.
    pub(super) fn deployment(&self, endpoint_id: Uuid) -> Result<Deployment, CliError> {
        Ok(Deployment {
            endpoint_id,
            namespace: self.namespace.clone(),
            anchor: self.get("WAYPOST_ANCHOR"),
            release: self.release(),
            pod_name: self.get("WAYPOST_POD_NAME"),
            pod_uid: self.get("WAYPOST_POD_UID"),
            worker_image: self.get("WAYPOST_WORKER_IMAGE"),
            termination_grace: self.termination_grace()?,
        })
    }

    fn termination_grace(&self) -> Result<Option<Duration>, CliError> {
        let Some(text) = self.get("WAYPOST_TERMINATION_GRACE") else {
            return Ok(None);
        };
        let seconds = text.parse().map_err(|_| {
            refused(format!(
                "WAYPOST_TERMINATION_GRACE must be a whole number of seconds, the pod's terminationGracePeriodSeconds (it is \
                 {text:?})"
            ))
        })?;
        Ok(Some(Duration::from_secs(seconds)))
    }

    /// How workers in pods reach the agent.
    pub(super) fn link(&self, authority_key: SecretString) -> Result<Option<LinkSettings>, CliError> {
        let Some(text) = self.get("WAYPOST_LINK_LISTEN") else {
            return Ok(None);
        };
        let listen: SocketAddr = text.parse().map_err(|_| {
            refused(format!(
                "WAYPOST_LINK_LISTEN must be an address and a port, such as 0.0.0.0:5800 (it is {text:?})"
            ))
        })?;
        let addresses = match self.get("WAYPOST_LINK_ADDRESS") {
            Some(text) => text.split(',').map(address).collect::<Result<_, _>>()?,
            None => self.service_addresses(listen)?,
        };
        Ok(Some(LinkSettings {
            listen,
            addresses,
            authority_key,
        }))
    }

    /// The Service's name in the cluster, and its cluster IP for clusters whose DNS fails.
    fn service_addresses(&self, listen: SocketAddr) -> Result<Vec<String>, CliError> {
        let Some(service) = self.get("WAYPOST_LINK_SERVICE") else {
            if listen.ip().is_unspecified() {
                return Err(refused(
                    "WAYPOST_LINK_LISTEN is set, and nothing says how pods reach it: set WAYPOST_LINK_SERVICE to the name \
                     of a Service, or WAYPOST_LINK_ADDRESS to host:port"
                        .to_owned(),
                ));
            }
            return Ok(Vec::new());
        };
        let namespace = self.namespace.as_ref().ok_or_else(|| {
            refused(
                "WAYPOST_LINK_SERVICE is set, and the agent does not know its namespace: set WAYPOST_NAMESPACE"
                    .to_owned(),
            )
        })?;
        let prefix = service.to_uppercase().replace('-', "_");
        let port = self
            .get(&format!("{prefix}_SERVICE_PORT"))
            .and_then(|port| port.parse().ok())
            .unwrap_or_else(|| listen.port());
        let mut addresses = vec![format!("{service}.{namespace}.svc:{port}")];
        if let Some(ip) = self.get(&format!("{prefix}_SERVICE_HOST")) {
            addresses.push(if ip.contains(':') {
                format!("[{ip}]:{port}")
            } else {
                format!("{ip}:{port}")
            });
        }
        Ok(addresses)
    }
}

fn address(text: &str) -> Result<String, CliError> {
    let text = text.trim();
    match text.rsplit_once(':') {
        Some((host, port)) if !host.is_empty() && port.parse::<u16>().is_ok() => Ok(text.to_owned()),
        _ => Err(refused(format!(
            "WAYPOST_LINK_ADDRESS must be host:port, or several with commas ({text:?} is not)"
        ))),
    }
}

fn refused(what: String) -> CliError {
    CliError::said(what, exit_code::ERROR)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link(variables: &[(&str, &str)]) -> Result<Option<Vec<String>>, String> {
        let read = |name: &str| {
            let found = variables.iter().find(|(key, _)| *key == name);
            found.map(|(_, value)| (*value).to_owned())
        };
        Facts::new(read, Path::new("/nonexistent"))
            .link(SecretString::from(String::new()))
            .map(|link| link.map(|link| link.addresses))
            .map_err(|error| error.to_string())
    }

    #[test]
    fn a_service_is_dialled_by_its_name_and_then_by_its_address() {
        let listen = ("WAYPOST_LINK_LISTEN", "0.0.0.0:5800");
        let service = ("WAYPOST_LINK_SERVICE", "my-agent");
        let namespace = ("WAYPOST_NAMESPACE", "lab");
        assert_eq!(link(&[]), Ok(None));
        assert_eq!(
            link(&[listen, service, namespace]),
            Ok(Some(vec!["my-agent.lab.svc:5800".to_owned()]))
        );
        let (host, port) = (("MY_AGENT_SERVICE_HOST", "10.96.0.7"), ("MY_AGENT_SERVICE_PORT", "443"));
        assert_eq!(
            link(&[listen, service, namespace, host, port]),
            Ok(Some(vec![
                "my-agent.lab.svc:443".to_owned(),
                "10.96.0.7:443".to_owned()
            ]))
        );
        let given = ("WAYPOST_LINK_ADDRESS", "a.example:1, [::1]:2");
        assert_eq!(
            link(&[listen, service, namespace, given]),
            Ok(Some(vec!["a.example:1".to_owned(), "[::1]:2".to_owned()]))
        );
    }

    #[test]
    fn the_time_that_the_pod_has_to_end_is_a_number_of_seconds() {
        let grace = |text: &'static str| {
            let read = move |name: &str| (name == "WAYPOST_TERMINATION_GRACE").then(|| text.to_owned());
            Facts::new(read, Path::new("/nonexistent")).deployment(Uuid::nil())
        };
        assert_eq!(grace("60").unwrap().termination_grace, Some(Duration::from_secs(60)));
        assert_eq!(grace("").unwrap().termination_grace, None);
        let error = grace("1m").unwrap_err().to_string();
        assert!(
            error.contains("WAYPOST_TERMINATION_GRACE") && error.contains("1m"),
            "{error}"
        );
    }

    #[test]
    fn what_is_missing_or_wrong_is_named() {
        let listen = ("WAYPOST_LINK_LISTEN", "0.0.0.0:5800");
        for (variables, named) in [
            (vec![("WAYPOST_LINK_LISTEN", "5800")], "WAYPOST_LINK_LISTEN"),
            (vec![listen], "WAYPOST_LINK_SERVICE"),
            (vec![listen, ("WAYPOST_LINK_SERVICE", "agent")], "WAYPOST_NAMESPACE"),
            (vec![listen, ("WAYPOST_LINK_ADDRESS", "agent")], "WAYPOST_LINK_ADDRESS"),
        ] {
            let error = link(&variables).unwrap_err();
            assert!(error.contains(named), "{error}");
        }
    }
}
