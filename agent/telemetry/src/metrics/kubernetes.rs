//! How often the Kubernetes API is asked, and what comes of it.

use prometheus::{IntCounterVec, Opts, Registry};

use super::Label;
use super::instruments::register;

label! {
    /// What is asked of the Kubernetes API.
    ApiVerb as "verb" {
        /// One object.
        Get = "get",
        /// Many.
        List = "list",
        /// Many, and what becomes of them.
        Watch = "watch",
        /// A new object, or a dry run of one.
        Create = "create",
        /// A change of an object.
        Patch = "patch",
        /// An object's end.
        Delete = "delete",
        /// Anything else.
        Other = "other",
    }
}
label! {
    /// Of what it is asked.
    ApiResource as "resource" {
        /// Pods.
        Pods = "pods",
        /// What pods print.
        PodLogs = "pods/log",
        /// Secrets: of blocks, and the state's.
        Secrets = "secrets",
        /// Anchors.
        ConfigMaps = "configmaps",
        /// Events.
        Events = "events",
        /// What the agent's account may do.
        AccessReviews = "selfsubjectaccessreviews",
        /// Anything else.
        Other = "other",
    }
}
label! {
    /// How a request to the Kubernetes API ended.
    ApiOutcome as "outcome" {
        /// It was done.
        Success = "success",
        /// There is no such object.
        Missing = "missing",
        /// Another was faster, or has the name.
        Conflict = "conflict",
        /// There were too many.
        Throttled = "throttled",
        /// It was refused otherwise (4xx).
        Refused = "refused",
        /// The server failed (5xx).
        Failed = "failed",
        /// The server could not be reached.
        Unreachable = "unreachable",
    }
}

/// What the provider and the state's Secret ask. Anything else is counted as `other`, so that the number of series is bounded.
const ASKED: [(ApiVerb, ApiResource); 19] = [
    (ApiVerb::Get, ApiResource::Pods),
    (ApiVerb::List, ApiResource::Pods),
    (ApiVerb::Watch, ApiResource::Pods),
    (ApiVerb::Create, ApiResource::Pods),
    (ApiVerb::Patch, ApiResource::Pods),
    (ApiVerb::Delete, ApiResource::Pods),
    (ApiVerb::Get, ApiResource::PodLogs),
    (ApiVerb::Get, ApiResource::Secrets),
    (ApiVerb::List, ApiResource::Secrets),
    (ApiVerb::Create, ApiResource::Secrets),
    (ApiVerb::Patch, ApiResource::Secrets),
    (ApiVerb::Delete, ApiResource::Secrets),
    (ApiVerb::Get, ApiResource::ConfigMaps),
    (ApiVerb::Create, ApiResource::ConfigMaps),
    (ApiVerb::List, ApiResource::Events),
    (ApiVerb::Create, ApiResource::Events),
    (ApiVerb::Patch, ApiResource::Events),
    (ApiVerb::Create, ApiResource::AccessReviews),
    (ApiVerb::Other, ApiResource::Other),
];

/// Requests to the Kubernetes API, by what is asked and how that ended.
#[derive(Clone)]
pub struct ApiRequests {
    vector: IntCounterVec,
}

impl ApiRequests {
    pub(super) fn new(registry: &Registry) -> Self {
        let options = Opts::new(
            "waypost_kubernetes_requests_total",
            "Requests to the Kubernetes API, for blocks and for the state, by what was asked and how it ended.",
        );
        let vector = IntCounterVec::new(options, &[ApiVerb::NAME, ApiResource::NAME, ApiOutcome::NAME])
            .expect("metric names and labels are fixed");
        for (verb, resource) in ASKED {
            for outcome in ApiOutcome::ALL {
                vector.with_label_values(&[verb.value(), resource.value(), outcome.value()]);
            }
        }
        register(registry, &vector);
        Self { vector }
    }

    /// Counts one.
    pub fn increment(&self, verb: ApiVerb, resource: ApiResource, outcome: ApiOutcome) {
        let (verb, resource) = if ASKED.contains(&(verb, resource)) {
            (verb, resource)
        } else {
            (ApiVerb::Other, ApiResource::Other)
        };
        self.vector
            .with_label_values(&[verb.value(), resource.value(), outcome.value()])
            .inc();
    }

    /// The present count.
    #[must_use]
    pub fn get(&self, verb: ApiVerb, resource: ApiResource, outcome: ApiOutcome) -> u64 {
        self.vector
            .with_label_values(&[verb.value(), resource.value(), outcome.value()])
            .get()
    }
}
