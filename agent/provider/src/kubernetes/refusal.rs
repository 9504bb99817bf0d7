//! What the API server's refusal of a pod or a Secret means for its block, in words that lead to what is to be changed.

use kube::core::Status;
use waypost_engine::{BlockEnd, BlockEndKind};

use super::api::ApiError;

/// What the refusal of `what` (such as "its pod waypost-1-2") says of the block.
pub(super) fn end(what: &str, error: &ApiError) -> BlockEnd {
    let (kind, words) = match error {
        ApiError::Answered(status) => answered(status),
        ApiError::Unsure(_) | ApiError::Unusable(_) => (BlockEndKind::CannotStart, error.to_string()),
    };
    BlockEnd::new(kind, format!("{what} could not be created: {words}"))
}

/// Whether the refused object would be refused again for what it is.
fn answered(status: &Status) -> (BlockEndKind, String) {
    let message = &status.message;
    if message.contains("admission webhook") || message.contains("failed calling webhook") {
        return (BlockEndKind::CannotStart, message.clone());
    }
    if message.contains("violates PodSecurity") || status.is_invalid() || matches!(status.code, 400 | 422) {
        return (BlockEndKind::Rejected, with_options(status));
    }
    if status.is_not_found() {
        return (
            BlockEndKind::CannotStart,
            format!("{message} (the option `namespace` names where pods go)"),
        );
    }
    if let Some(missing) = missing_permission(message) {
        return (BlockEndKind::CannotStart, format!("{missing} ({message})"));
    }
    (BlockEndKind::CannotStart, message.clone())
}

/// "User ... cannot create resource "pods" in API group "" in the namespace "n"": in words with the verb and the resource.
pub(super) fn missing_permission(message: &str) -> Option<String> {
    let (subject, rest) = message.split_once("\" cannot ")?;
    let user = subject.rsplit('"').next()?;
    let (verb, rest) = rest.split_once(" resource \"")?;
    let (resource, rest) = rest.split_once('"')?;
    let place = rest
        .split_once("in the namespace \"")
        .and_then(|(_, rest)| rest.split_once('"'));
    let place = place.map_or_else(String::new, |(namespace, _)| format!(" in the namespace {namespace}"));
    Some(format!(
        "{user} may not {verb} {resource}{place}: its Role lacks the verb `{verb}` on the resource `{resource}`"
    ))
}

/// The server's words, with the options that stand behind the fields that it names.
fn with_options(status: &Status) -> String {
    let causes = status.details.iter().flat_map(|details| &details.causes);
    let mut options: Vec<&str> = causes.filter_map(|cause| option(&cause.field)).collect();
    options.sort_unstable();
    options.dedup();
    if options.is_empty() {
        return status.message.clone();
    }
    format!("{} (options: {})", status.message, options.join(", "))
}

/// The option from which a field of the pod comes, if it is not the field of the same name in `pod_template`.
fn option(field: &str) -> Option<&'static str> {
    let options = [
        (".resources.requests[cpu]", "init_cpu"),
        (".resources.requests[memory]", "init_mem"),
        (".resources.limits[cpu]", "max_cpu"),
        (".resources.limits[memory]", "max_mem"),
        (
            ".resources",
            "init_cpu, max_cpu, init_mem, max_mem, extra_requests, extra_limits, accelerators",
        ),
        (".image", "image"),
        (".env[", "env"),
        (".envFrom", "env_from"),
        (".volumeMounts", "volume_mounts, persistent_volumes"),
        ("spec.volumes", "volumes, persistent_volumes"),
        ("spec.tolerations", "tolerations"),
        ("spec.affinity", "affinity"),
        ("spec.nodeSelector", "node_selector"),
        ("spec.topologySpreadConstraints", "topology_spread_constraints"),
        ("spec.priorityClassName", "priority_class_name"),
        ("spec.runtimeClassName", "runtime_class_name"),
        ("spec.serviceAccountName", "service_account_name"),
        ("spec.imagePullSecrets", "secret"),
        (
            ".securityContext",
            "security_profile, user_id, group_id, run_as_non_root, writable_root",
        ),
        ("metadata.labels", "labels"),
        ("metadata.annotations", "annotations"),
        ("spec.initContainers", "init_containers"),
    ];
    options
        .into_iter()
        .find(|(part, _)| field.contains(part))
        .map(|(_, option)| option)
}

#[cfg(test)]
mod tests {
    use kube::core::response::{StatusCause, StatusDetails};

    use super::*;

    fn refused(code: u16, reason: &str, message: &str) -> BlockEnd {
        let status = Status::failure(message, reason).with_code(code);
        end("its pod p", &ApiError::Answered(status.boxed()))
    }

    #[test]
    fn a_missing_permission_is_named_by_its_verb_and_resource() {
        let end = refused(
            403,
            "Forbidden",
            "pods is forbidden: User \"system:serviceaccount:lab:agent\" cannot create resource \"pods\" in API group \"\" in the namespace \"work\"",
        );
        assert_eq!(end.kind, BlockEndKind::CannotStart);
        assert!(
            end.message.contains(
                "system:serviceaccount:lab:agent may not create pods in the namespace work: its Role lacks the verb `create` on the resource `pods`"
            ),
            "{}",
            end.message
        );
    }

    #[test]
    fn quota_and_webhooks_may_change_their_mind_and_an_invalid_pod_does_not() {
        let quota = "pods \"a\" is forbidden: exceeded quota: q, requested: pods=1, used: pods=5, limited: pods=5";
        for (code, reason, message, kind) in [
            (403, "Forbidden", quota, BlockEndKind::CannotStart),
            (
                400,
                "BadRequest",
                "admission webhook \"w\" denied the request: no",
                BlockEndKind::CannotStart,
            ),
            (
                500,
                "InternalError",
                "failed calling webhook \"w\"",
                BlockEndKind::CannotStart,
            ),
            (404, "NotFound", "namespaces \"x\" not found", BlockEndKind::CannotStart),
            (
                403,
                "Forbidden",
                "pods \"a\" is forbidden: violates PodSecurity \"restricted:latest\": x",
                BlockEndKind::Rejected,
            ),
            (422, "Invalid", "Pod \"a\" is invalid: y", BlockEndKind::Rejected),
        ] {
            let end = refused(code, reason, message);
            assert_eq!(end.kind, kind, "{message}");
            assert!(end.message.contains(message), "{}", end.message);
        }
    }

    #[test]
    fn an_invalid_field_is_led_back_to_the_option_that_it_comes_from() {
        let status = Status::failure(
            "Pod \"a\" is invalid: spec.containers[0].image: Required value",
            "Invalid",
        )
        .with_code(422)
        .with_details(StatusDetails {
            name: "a".to_owned(),
            group: String::new(),
            kind: "Pod".to_owned(),
            uid: String::new(),
            causes: vec![StatusCause {
                reason: "FieldValueRequired".to_owned(),
                message: "Required value".to_owned(),
                field: "spec.containers[0].image".to_owned(),
            }],
            retry_after_seconds: 0,
        });
        let end = end("its pod a", &ApiError::Answered(status.boxed()));
        assert!(end.message.ends_with("(options: image)"), "{}", end.message);
    }
}
