//! What the agent's account may do where the pods go: asked at the start, so that a Role that lacks something is found
//! before the first block needs it.

use futures_util::future::join_all;
use k8s_openapi::api::authorization::v1::{ResourceAttributes, SelfSubjectAccessReview, SelfSubjectAccessReviewSpec};
use kube::api::PostParams;
use kube::{Api, Client};

use super::api::{ApiError, call};
use super::limits::RateLimit;

/// Verb and resource of everything that a provider does in the end. Whether it may create pods is seen by the dry run;
/// what it can do without (`events`, `list` on `secrets`) is not asked for.
const NEEDED: [(&str, &str); 8] = [
    ("get", "pods"),
    ("list", "pods"),
    ("watch", "pods"),
    ("delete", "pods"),
    ("patch", "pods"),
    ("get", "pods/log"),
    ("create", "secrets"),
    ("delete", "secrets"),
];

/// What the account may not do, in words; empty if it may do all that is needed.
pub(super) async fn missing(client: &Client, limit: &RateLimit, namespace: &str) -> Result<Option<String>, ApiError> {
    let api: Api<SelfSubjectAccessReview> = Api::all(client.clone());
    let answers = join_all(NEEDED.map(|(verb, resource)| {
        let api = api.clone();
        async move {
            let review = review(namespace, verb, resource);
            call(limit, api.create(&PostParams::default(), &review)).await
        }
    }))
    .await;
    let mut refused = Vec::new();
    for ((verb, resource), answer) in NEEDED.into_iter().zip(answers) {
        if !answer?.status.is_some_and(|status| status.allowed) {
            refused.push((verb, resource));
        }
    }
    Ok(words(namespace, &refused))
}

fn words(namespace: &str, refused: &[(&str, &str)]) -> Option<String> {
    if refused.is_empty() {
        return None;
    }
    let lacks: Vec<String> = refused
        .iter()
        .map(|(verb, resource)| format!("the verb `{verb}` on the resource `{resource}`"))
        .collect();
    Some(format!(
        "the agent's Role in the namespace {namespace} lacks {}",
        lacks.join(", ")
    ))
}

fn review(namespace: &str, verb: &str, resource: &str) -> SelfSubjectAccessReview {
    let (resource, subresource) = resource.split_once('/').unwrap_or((resource, ""));
    SelfSubjectAccessReview {
        spec: SelfSubjectAccessReviewSpec {
            resource_attributes: Some(ResourceAttributes {
                namespace: Some(namespace.to_owned()),
                verb: Some(verb.to_owned()),
                resource: Some(resource.to_owned()),
                subresource: (!subresource.is_empty()).then(|| subresource.to_owned()),
                ..ResourceAttributes::default()
            }),
            non_resource_attributes: None,
        },
        ..SelfSubjectAccessReview::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_is_named_by_verb_and_resource_and_a_part_of_a_resource_is_asked_for_as_such() {
        assert_eq!(words("work", &[]), None);
        assert_eq!(
            words("work", &[("get", "pods/log"), ("create", "secrets")]).as_deref(),
            Some(
                "the agent's Role in the namespace work lacks the verb `get` on the resource `pods/log`, \
                 the verb `create` on the resource `secrets`"
            )
        );
        let asked = review("work", "get", "pods/log")
            .spec
            .resource_attributes
            .unwrap_or_default();
        assert_eq!(
            (asked.resource.as_deref(), asked.subresource.as_deref()),
            (Some("pods"), Some("log"))
        );
    }
}
