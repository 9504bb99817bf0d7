use std::time::Duration;

use uuid::Uuid;

/// What the deployment tells the agent about itself.
#[derive(Debug, Clone, Default)]
pub struct Deployment {
    /// The endpoint's id.
    pub endpoint_id: Uuid,
    /// The namespace that the agent runs in, if it runs in a pod.
    pub namespace: Option<String>,
    /// The name of the `ConfigMap` in each worker namespace that owns the pods and Secrets of the endpoint. Absent: the
    /// provider makes one itself.
    pub anchor: Option<String>,
    /// What the deployment is called: the release of the chart. Pods carry it as a label.
    pub release: Option<String>,
    /// The name of the agent's own pod: Events are about it.
    pub pod_name: Option<String>,
    /// The unique id of that pod, by which `kubectl describe` finds the Events.
    pub pod_uid: Option<String>,
    /// The image that brings the `worker` program, where the option `worker_image` does not say.
    pub worker_image: Option<String>,
    /// How long the agent's pod may take to end once it is told to; Kubernetes' 30 s if it is not said.
    pub termination_grace: Option<Duration>,
}
