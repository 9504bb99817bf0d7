//! The Secret of a block: what its worker needs to find and to prove itself to the agent, and nothing else.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use waypost_engine::BlockId;

use super::{KubernetesSettings, labels};

/// Key: the block's token.
pub(super) const TOKEN: &str = "token";
/// Key: the certificate of the authority that signs the agent's, in PEM.
pub(super) const CERTIFICATE: &str = "ca.crt";

/// The Secret of the block of this name.
pub(super) fn secret(settings: &KubernetesSettings, name: &str, block: BlockId, owner: OwnerReference) -> Secret {
    let token = (settings.token)(name).reveal().to_owned();
    Secret {
        metadata: ObjectMeta {
            name: Some(name.to_owned()),
            namespace: Some(settings.config.namespace.clone()),
            labels: Some(labels::of_block(
                settings.endpoint_id,
                settings.names.user_endpoint(),
                block,
            )),
            owner_references: Some(vec![owner]),
            ..ObjectMeta::default()
        },
        immutable: Some(true),
        string_data: Some(BTreeMap::from([
            (TOKEN.to_owned(), token),
            (CERTIFICATE.to_owned(), settings.certificate_pem.clone()),
        ])),
        type_: Some("Opaque".to_owned()),
        data: None,
    }
}
