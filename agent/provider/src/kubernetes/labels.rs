//! The labels and annotations by which pods and Secrets are known to be ours, and whose.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use uuid::Uuid;
use waypost_engine::BlockId;

/// Label: the endpoint's id.
pub(super) const ENDPOINT: &str = "waypost.dev/endpoint";
/// Label: the user endpoint's id.
pub(super) const USER_ENDPOINT: &str = "waypost.dev/user-endpoint";
/// Label: [`BlockId::epoch`].
pub(super) const EPOCH: &str = "waypost.dev/epoch";
/// Label: [`BlockId::number`].
pub(super) const BLOCK: &str = "waypost.dev/block";
/// Annotation: which call to start the block made it. A repeated call finds its own work by it.
pub(super) const ATTEMPT: &str = "waypost.dev/attempt";
/// Annotation: the block has ended, and its pod is only there to be looked at, since this time.
pub(super) const KEPT: &str = "waypost.dev/kept";
/// Annotations by which autoscalers leave a busy worker's node alone, and what they must say for that.
pub(super) const BUSY: [(&str, &str); 2] = [
    ("cluster-autoscaler.kubernetes.io/safe-to-evict", "false"),
    ("karpenter.sh/do-not-disrupt", "true"),
];
/// What every label and annotation of ours begins with: users may set none of these.
pub(super) const OURS: &str = "waypost.dev/";

/// Label: the release of the chart that the endpoint belongs to. Network policies select its pods by it.
pub(super) const INSTANCE: &str = "app.kubernetes.io/instance";

const NAME: (&str, &str) = ("app.kubernetes.io/name", "waypost-worker");
const MANAGER: (&str, &str) = ("app.kubernetes.io/managed-by", "waypost");

/// The labels of a block's pod and Secret.
pub(super) fn of_block(endpoint: Uuid, user_endpoint: Uuid, block: BlockId) -> BTreeMap<String, String> {
    [
        (NAME.0, NAME.1.to_owned()),
        (MANAGER.0, MANAGER.1.to_owned()),
        (ENDPOINT, endpoint.to_string()),
        (USER_ENDPOINT, user_endpoint.to_string()),
        (EPOCH, block.epoch.to_string()),
        (BLOCK, block.number.to_string()),
    ]
    .map(|(key, value)| (key.to_owned(), value))
    .into()
}

/// Selects everything of an endpoint.
pub(super) fn select_endpoint(endpoint: Uuid) -> String {
    format!("{ENDPOINT}={endpoint}")
}

/// Selects everything of a user endpoint.
pub(super) fn select_user_endpoint(endpoint: Uuid, user_endpoint: Uuid) -> String {
    format!("{ENDPOINT}={endpoint},{USER_ENDPOINT}={user_endpoint}")
}

/// Whose it is.
pub(super) fn user_endpoint(metadata: &ObjectMeta) -> Option<Uuid> {
    metadata.labels.as_ref()?.get(USER_ENDPOINT)?.parse().ok()
}

/// Which block it is, or is for.
pub(super) fn block(metadata: &ObjectMeta) -> Option<BlockId> {
    let labels = metadata.labels.as_ref()?;
    Some(BlockId {
        epoch: labels.get(EPOCH)?.parse().ok()?,
        number: labels.get(BLOCK)?.parse().ok()?,
    })
}

/// An annotation's value.
pub(super) fn annotation<'a>(metadata: &'a ObjectMeta, key: &str) -> Option<&'a str> {
    metadata.annotations.as_ref()?.get(key).map(String::as_str)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_is_read_back_from_its_labels_and_every_value_fits_into_a_label() {
        let block_id = BlockId {
            epoch: u64::MAX,
            number: u32::MAX,
        };
        let user = Uuid::from_u128(u128::MAX);
        let metadata = ObjectMeta {
            labels: Some(of_block(Uuid::from_u128(1), user, block_id)),
            ..ObjectMeta::default()
        };
        assert_eq!(block(&metadata), Some(block_id));
        assert_eq!(user_endpoint(&metadata), Some(user));
        for (key, value) in metadata.labels.as_ref().into_iter().flatten() {
            let name = key.rsplit('/').next().unwrap_or_default();
            assert!(value.len() <= 63 && name.len() <= 63, "{key}={value}");
        }
        assert_eq!(block(&ObjectMeta::default()), None);
    }
}
