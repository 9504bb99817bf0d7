//! Every request to the API server, counted by what it asks and how it ends.

use std::sync::Arc;
use std::task::{Context, Poll};

use endpoint_telemetry::{ApiOutcome, ApiResource, ApiVerb, Metrics};
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use http::{Method, Request, Response, StatusCode, Uri};
use kube::client::Body;
use tower::{Layer, Service};

/// Counts what passes, each attempt for itself.
#[derive(Clone)]
pub(super) struct CountLayer(pub(super) Arc<Metrics>);

/// A service whose requests are counted.
#[derive(Clone)]
pub(super) struct Counted<S> {
    inner: S,
    metrics: Arc<Metrics>,
}

impl<S> Layer<S> for CountLayer {
    type Service = Counted<S>;

    fn layer(&self, inner: S) -> Counted<S> {
        Counted {
            inner,
            metrics: Arc::clone(&self.0),
        }
    }
}

impl<S, B> Service<Request<Body>> for Counted<S>
where
    S: Service<Request<Body>, Response = Response<B>>,
    S::Future: Send + 'static,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = BoxFuture<'static, Result<S::Response, S::Error>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let (verb, resource) = asked(request.method(), request.uri());
        let mut pending = Pending {
            metrics: Arc::clone(&self.metrics),
            verb,
            resource,
            outcome: ApiOutcome::Unreachable,
        };
        let answer = self.inner.call(request);
        async move {
            let answer = answer.await;
            if let Ok(response) = &answer {
                pending.answered(response.status());
            }
            answer
        }
        .boxed()
    }
}

/// A request under way. One that nobody waits for any more had no answer in time.
struct Pending {
    metrics: Arc<Metrics>,
    verb: ApiVerb,
    resource: ApiResource,
    outcome: ApiOutcome,
}

impl Pending {
    const fn answered(&mut self, status: StatusCode) {
        self.outcome = outcome(status);
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        let requests = &self.metrics.kubernetes_requests;
        requests.increment(self.verb, self.resource, self.outcome);
    }
}

const fn outcome(status: StatusCode) -> ApiOutcome {
    match status.as_u16() {
        100..=399 => ApiOutcome::Success,
        404 => ApiOutcome::Missing,
        409 => ApiOutcome::Conflict,
        429 => ApiOutcome::Throttled,
        400..=499 => ApiOutcome::Refused,
        _ => ApiOutcome::Failed,
    }
}

/// What a request is about, by its path: `/api/v1/namespaces/NAMESPACE/RESOURCE/NAME/PART`, or `/apis/GROUP/VERSION/...`.
fn asked(method: &Method, uri: &Uri) -> (ApiVerb, ApiResource) {
    let mut parts = uri.path().split('/').filter(|part| !part.is_empty());
    let _version = match parts.next() {
        Some("api") => parts.next(),
        Some("apis") => parts.nth(1),
        Some(_) | None => return (ApiVerb::Other, ApiResource::Other),
    };
    let mut resource = parts.next();
    if resource == Some("namespaces") {
        let _namespace = parts.next();
        resource = parts.next();
    }
    let (name, part) = (parts.next(), parts.next());
    let resource = match (resource, part) {
        (Some("pods"), None) => ApiResource::Pods,
        (Some("pods"), Some("log")) => ApiResource::PodLogs,
        (Some("secrets"), None) => ApiResource::Secrets,
        (Some("configmaps"), None) => ApiResource::ConfigMaps,
        (Some("events"), None) => ApiResource::Events,
        (Some("selfsubjectaccessreviews"), None) => ApiResource::AccessReviews,
        (Some(_) | None, Some(_) | None) => ApiResource::Other,
    };
    let watches = || {
        let query = uri.query().unwrap_or_default();
        query.split('&').any(|pair| matches!(pair, "watch=true" | "watch=1"))
    };
    let verb = match (method, name) {
        (&Method::GET, Some(_)) => ApiVerb::Get,
        (&Method::GET, None) if watches() => ApiVerb::Watch,
        (&Method::GET, None) => ApiVerb::List,
        (&Method::POST, None) => ApiVerb::Create,
        (&Method::PATCH, Some(_)) => ApiVerb::Patch,
        (&Method::DELETE, Some(_)) => ApiVerb::Delete,
        _ => ApiVerb::Other,
    };
    (verb, resource)
}

#[cfg(test)]
mod tests {
    use std::future::{pending, ready};

    use tower::ServiceExt as _;

    use super::*;

    #[test]
    fn what_is_asked_is_read_from_method_and_path() {
        let pods = "/api/v1/namespaces/lab/pods";
        for (method, path, expected) in [
            (Method::GET, format!("{pods}/a"), (ApiVerb::Get, ApiResource::Pods)),
            (
                Method::GET,
                format!("{pods}?&limit=5"),
                (ApiVerb::List, ApiResource::Pods),
            ),
            (
                Method::GET,
                format!("{pods}?&watch=true&timeoutSeconds=60"),
                (ApiVerb::Watch, ApiResource::Pods),
            ),
            (
                Method::POST,
                format!("{pods}?&dryRun=All"),
                (ApiVerb::Create, ApiResource::Pods),
            ),
            (
                Method::DELETE,
                format!("{pods}/a?"),
                (ApiVerb::Delete, ApiResource::Pods),
            ),
            (
                Method::GET,
                format!("{pods}/a/log?&container=worker"),
                (ApiVerb::Get, ApiResource::PodLogs),
            ),
            (
                Method::PATCH,
                "/apis/events.k8s.io/v1/namespaces/lab/events/e".to_owned(),
                (ApiVerb::Patch, ApiResource::Events),
            ),
            (
                Method::POST,
                "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews".to_owned(),
                (ApiVerb::Create, ApiResource::AccessReviews),
            ),
            (Method::GET, "/version".to_owned(), (ApiVerb::Other, ApiResource::Other)),
            (
                Method::GET,
                "/api/v1/nodes/n".to_owned(),
                (ApiVerb::Get, ApiResource::Other),
            ),
        ] {
            let uri: Uri = path.parse().unwrap();
            assert_eq!(asked(&method, &uri), expected, "{method} {path}");
        }
    }

    fn get() -> Request<Body> {
        let path = "/api/v1/namespaces/lab/pods/a";
        Request::get(path).body(Body::empty()).unwrap()
    }

    #[tokio::test]
    async fn each_answer_is_counted_by_its_status_and_no_answer_as_such() {
        let metrics = Metrics::shared();
        let counted = |outcome| {
            metrics
                .kubernetes_requests
                .get(ApiVerb::Get, ApiResource::Pods, outcome)
        };
        for (code, outcome) in [
            (200, ApiOutcome::Success),
            (404, ApiOutcome::Missing),
            (409, ApiOutcome::Conflict),
            (429, ApiOutcome::Throttled),
            (403, ApiOutcome::Refused),
            (503, ApiOutcome::Failed),
        ] {
            let server = tower::service_fn(move |_| {
                let response = Response::builder().status(code).body(Body::empty()).unwrap();
                ready(Ok::<_, std::convert::Infallible>(response))
            });
            let client = CountLayer(Arc::clone(&metrics)).layer(server);
            client.oneshot(get()).await.unwrap();
            assert_eq!(counted(outcome), 1, "{code}");
        }
        let broken = tower::service_fn(|_| ready(Err::<Response<Body>, _>(std::io::Error::other("reset"))));
        let client = CountLayer(Arc::clone(&metrics)).layer(broken);
        client.oneshot(get()).await.unwrap_err();
        assert_eq!(counted(ApiOutcome::Unreachable), 1);
        let silent = tower::service_fn(|_| pending::<Result<Response<Body>, std::io::Error>>());
        let client = CountLayer(Arc::clone(&metrics)).layer(silent);
        let mut request = client.oneshot(get());
        assert!(futures_util::poll!(&mut request).is_pending());
        drop(request);
        assert_eq!(counted(ApiOutcome::Unreachable), 2);
    }
}
