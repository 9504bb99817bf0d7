//! What the tests of this module share.

use std::sync::Arc;

use endpoint_config::{KubernetesProviderConfig, ProviderConfig, user_endpoint_config};
use serde_json::{Value, json};
use uuid::Uuid;
use waypost_link::BlockToken;

use super::KubernetesSettings;
use crate::BlockNames;

/// Settings with every default.
pub(super) fn settings() -> KubernetesSettings {
    KubernetesSettings {
        endpoint_id: Uuid::from_u128(1 << 120),
        names: BlockNames::of_release(Uuid::from_u128(2 << 120), "lab"),
        config: KubernetesProviderConfig {
            image: "registry.example/python:3.12".to_owned(),
            namespace: "work".to_owned(),
            ..KubernetesProviderConfig::default()
        },
        addresses: vec!["agent.lab.svc:5800".to_owned(), "10.0.0.1:5800".to_owned()],
        certificate_pem: "certificate".to_owned(),
        worker_options: Vec::new(),
        environment: [("GC_TASK_TIMEOUT".to_owned(), "60".to_owned())].into(),
        working_directory: "tasks".to_owned(),
        token: Arc::new(|name| BlockToken::from_text(&format!("token of {name}"))),
    }
}

/// Options of the provider as they are read from a configuration that has these, and an image.
pub(super) fn options(given: &Value) -> KubernetesProviderConfig {
    let mut provider = json!({"type": "KubernetesProvider", "image": "registry.example/python:3.12"});
    let (Some(all), Some(given)) = (provider.as_object_mut(), given.as_object()) else {
        panic!("{given} is no mapping");
    };
    all.extend(given.clone());
    // JSON is YAML.
    let text = json!({"engine": {"type": "GlobusComputeEngine", "provider": provider}}).to_string();
    let read = user_endpoint_config(&text, None).expect("the options are right");
    let ProviderConfig::Kubernetes(config) = read.config.engine.provider else {
        panic!("the provider is another");
    };
    *config
}
