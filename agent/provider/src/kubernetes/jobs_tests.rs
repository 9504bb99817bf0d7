//! The jobs against an API server whose answers are written down, one for each request: what a real one does only when it
//! breaks at the wrong moment.

use std::collections::VecDeque;
use std::pin::pin;
use std::sync::Mutex;

use futures_util::poll;
use http::{Method, Request, Response};
use kube::client::Body;
use serde_json::{Value, json};

use super::*;
use crate::kubernetes::Deployment;
use crate::kubernetes::tests::settings;

const BLOCK: BlockId = BlockId { epoch: 7, number: 3 };
const NAME: &str = "lab-02000000-7-3";

/// What is answered to a request.
enum Answer {
    /// A status and a body, made from the request's.
    With(u16, fn(&Value) -> Value),
    /// The connection breaks.
    Nothing,
    /// None ever comes.
    Never,
}

/// What was asked: method and path, and the body.
type Asked = Arc<Mutex<Vec<(Method, String, Value)>>>;

/// Jobs whose requests get these answers. Anything beyond them fails the test.
fn jobs(answers: impl IntoIterator<Item = Answer>) -> (Jobs, Asked) {
    let asked: Asked = Arc::default();
    let answers: Arc<Mutex<VecDeque<Answer>>> = Arc::new(Mutex::new(answers.into_iter().collect()));
    let log = Arc::clone(&asked);
    let service = tower::service_fn(move |request: Request<Body>| {
        let (log, answers) = (Arc::clone(&log), Arc::clone(&answers));
        async move {
            let (parts, body) = request.into_parts();
            let body = body.collect_bytes().await?;
            let body: Value = serde_json::from_slice(&body).unwrap_or_default();
            let path = parts.uri.path().to_owned();
            log.lock()
                .expect("no test panics here")
                .push((parts.method, path.clone(), body.clone()));
            // The same for every start, and no part of what is tried.
            if path.contains("/configmaps/") {
                let anchor = json!({"metadata": {"name": "anchor", "uid": "anchor-uid"}});
                return Ok::<_, tower::BoxError>(answer(200, &anchor));
            }
            let next = answers.lock().expect("no test panics here").pop_front();
            match next {
                Some(Answer::With(code, make)) => Ok(answer(code, &make(&body))),
                Some(Answer::Nothing) => Err(std::io::Error::other("connection reset").into()),
                Some(Answer::Never) => std::future::pending().await,
                None => panic!("nobody expected {path}"),
            }
        }
    });
    let client = Client::new(service, "work");
    let deployment = Deployment {
        worker_image: Some("registry.example/worker:1".to_owned()),
        anchor: Some("anchor".to_owned()),
        ..Deployment::default()
    };
    let jobs = Jobs {
        settings: Arc::new(settings()),
        cluster: Cluster::with_client(deployment, client),
        standby: watch::channel(false).1,
        endings: TaskTracker::new(),
    };
    (jobs, asked)
}

fn answer(code: u16, body: &Value) -> Response<Body> {
    let body = Body::from(body.to_string().into_bytes());
    Response::builder().status(code).body(body).expect("a response")
}

fn status(code: u16, reason: &str, message: &str) -> Value {
    json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code, "reason": reason, "message": message})
}

/// As the API server answers to a create.
fn stored(body: &Value) -> Value {
    let mut object = body.clone();
    object["metadata"]["uid"] = json!("pod-uid");
    object
}

fn exists(_: &Value) -> Value {
    status(409, "AlreadyExists", "pods \"lab-02000000-7-3\" already exists")
}

async fn create(jobs: &Jobs) -> (Creation, Vec<String>) {
    let troubles = Mutex::new(Vec::new());
    let trouble = |words| troubles.lock().expect("no test panics here").push(words);
    let created = jobs.create(BLOCK, &CancellationToken::new(), trouble).await;
    (created, troubles.into_inner().expect("no test panics here"))
}

fn methods(asked: &Asked) -> Vec<(Method, String)> {
    let asked = asked.lock().expect("no test panics here");
    let named = asked.iter().filter(|(_, path, _)| !path.contains("/configmaps/"));
    named
        .map(|(method, path, _)| (method.clone(), path.rsplit('/').next().unwrap_or_default().to_owned()))
        .collect()
}

#[tokio::test]
async fn the_secret_is_made_before_its_pod_and_both_belong_to_the_anchor() {
    let (jobs, asked) = jobs([Answer::With(201, stored), Answer::With(201, stored)]);
    let (created, _) = create(&jobs).await;
    assert!(matches!(created, Creation::Made { uid } if uid == "pod-uid"));
    assert_eq!(
        methods(&asked),
        [(Method::POST, "secrets".to_owned()), (Method::POST, "pods".to_owned())]
    );
    for (_, path, body) in asked.lock().expect("no test panics here").iter() {
        if !path.contains("/configmaps/") {
            assert_eq!(body["metadata"]["name"], NAME);
            assert_eq!(body["metadata"]["ownerReferences"][0]["uid"], "anchor-uid", "{path}");
        }
    }
}

#[tokio::test]
async fn events_say_what_a_pod_waits_for_and_are_not_asked_for_again_once_they_were_refused() {
    let event = |_: &Value| {
        let lost = "MountVolume.SetUp failed for volume \"data\" : secret \"lost\" not found";
        json!({"metadata": {}, "items": [{"metadata": {}, "involvedObject": {}, "reason": "FailedMount", "message": lost}]})
    };
    let forbidden = |_: &Value| status(403, "Forbidden", "events is forbidden: cannot list resource \"events\"");
    let (jobs, asked) = jobs([Answer::With(200, event), Answer::With(403, forbidden)]);
    let waiting = jobs.waiting_by_events("uid").await.unwrap();
    assert!(waiting.text.contains("secret \"lost\" not found"), "{}", waiting.text);
    // Nothing is written down for a third request.
    for _ in 0..3 {
        assert!(jobs.waiting_by_events("uid").await.is_none());
    }
    assert_eq!(methods(&asked), vec![(Method::GET, "events".to_owned()); 2]);
}

/// The pod of the attempt that was asked for, as the API server has it.
fn answered_with_what_was_made(asked: &Asked, terminating: bool) -> Value {
    let asked = asked.lock().expect("no test panics here");
    let made = asked
        .iter()
        .rev()
        .find(|(method, path, _)| *method == Method::POST && path.ends_with("/pods"));
    let mut pod = made.map(|(_, _, body)| stored(body)).unwrap_or_default();
    if terminating {
        pod["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
    }
    pod
}

#[tokio::test]
async fn a_create_without_an_answer_is_repeated_under_its_name_and_finds_its_own_pod() {
    // The pod's first create is done, and its answer lost. The read must show what was made, so that this API server has
    // a memory of its own.
    for terminating in [false, true] {
        let asked: Asked = Arc::default();
        let log = Arc::clone(&asked);
        let lost = Arc::new(Mutex::new(false));
        let service = tower::service_fn(move |request: Request<Body>| {
            let (log, lost) = (Arc::clone(&log), Arc::clone(&lost));
            async move {
                let (parts, body) = request.into_parts();
                let body: Value = serde_json::from_slice(&body.collect_bytes().await?).unwrap_or_default();
                let path = parts.uri.path().to_owned();
                log.lock()
                    .expect("no test panics here")
                    .push((parts.method.clone(), path.clone(), body.clone()));
                let response = match (parts.method, path.rsplit('/').next().unwrap_or_default()) {
                    (Method::GET, "anchor") => answer(200, &json!({"metadata": {"name": "anchor", "uid": "u"}})),
                    (Method::GET, _) => answer(200, &answered_with_what_was_made(&log, terminating)),
                    (Method::POST, "pods")
                        if !std::mem::replace(&mut *lost.lock().expect("no test panics here"), true) =>
                    {
                        return Err(tower::BoxError::from(std::io::Error::other("connection reset")));
                    }
                    (Method::POST, "pods") => answer(409, &exists(&body)),
                    (_, _) if log.lock().expect("no test panics here").len() > 3 => answer(409, &exists(&body)),
                    (_, _) => answer(201, &stored(&body)),
                };
                Ok(response)
            }
        });
        let (mut jobs, _) = jobs([]);
        let deployment = jobs.cluster.deployment().clone();
        jobs.cluster = Cluster::with_client(deployment, Client::new(service, "work"));
        let (created, troubles) = create(&jobs).await;
        assert_eq!(troubles.len(), 1, "{troubles:?}");
        assert!(troubles[0].contains("connection reset"), "{troubles:?}");
        match created {
            Creation::Made { uid } => assert!(!terminating && uid == "pod-uid"),
            Creation::Failed(end) => {
                assert!(terminating && end.kind == BlockEndKind::CannotStart, "{}", end.message);
            }
            Creation::Abandoned => panic!("nobody abandoned it"),
        }
        let names: Vec<Value> = asked
            .lock()
            .expect("no test panics here")
            .iter()
            .filter(|(method, path, _)| *method == Method::POST && path.ends_with("/pods"))
            .map(|(_, _, body)| body["metadata"]["annotations"]["waypost.dev/attempt"].clone())
            .collect();
        assert_eq!(names.len(), 2);
        assert_eq!(names[0], names[1], "it is the same attempt");
    }
}

#[tokio::test]
async fn a_name_that_another_pod_has_is_a_start_that_failed() {
    let other =
        |_: &Value| json!({"metadata": {"name": NAME, "uid": "other", "annotations": {"waypost.dev/attempt": "x"}}});
    let (jobs, _) = jobs([
        Answer::With(201, stored),
        Answer::With(409, exists),
        Answer::With(200, other),
    ]);
    let (created, _) = create(&jobs).await;
    let Creation::Failed(end) = created else {
        panic!("{created:?}")
    };
    assert!(end.message.contains("another pod has its name"), "{}", end.message);
}

#[tokio::test]
async fn a_refused_pod_takes_its_secret_along() {
    let quota = |_: &Value| status(403, "Forbidden", "pods \"a\" is forbidden: exceeded quota: q");
    let (jobs, asked) = jobs([
        Answer::With(201, stored),
        Answer::With(403, quota),
        Answer::With(200, |_| status(200, "", "")),
    ]);
    let (created, troubles) = create(&jobs).await;
    assert!(matches!(created, Creation::Failed(end) if end.kind == BlockEndKind::CannotStart));
    assert!(troubles.is_empty());
    assert_eq!(methods(&asked).last(), Some(&(Method::DELETE, NAME.to_owned())));
}

#[tokio::test]
async fn a_start_that_is_not_wanted_any_more_stops_trying_and_says_that_it_does_not_know() {
    let (jobs, _) = jobs([Answer::Nothing]);
    let cancel = CancellationToken::new();
    let trouble = |_| cancel.cancel();
    let created = jobs.create(BLOCK, &cancel, trouble).await;
    assert!(matches!(created, Creation::Abandoned), "{created:?}");
}

#[tokio::test]
async fn a_deletion_means_one_pod_alone_and_is_asked_until_there_is_an_answer() {
    let conflict = |_: &Value| status(409, "Conflict", "the UID in the precondition does not match");
    let (first, asked) = jobs([Answer::Nothing, Answer::With(200, |_| status(200, "", ""))]);
    assert!(matches!(
        first
            .remove(NAME, Some("uid".to_owned()), &CancellationToken::new())
            .await,
        Removal::Taken
    ));
    let body = asked.lock().expect("no test panics here")[1].2.clone();
    assert_eq!(body["preconditions"]["uid"], "uid");
    let (second, _) = jobs([Answer::With(409, conflict)]);
    assert!(matches!(
        second
            .remove(NAME, Some("uid".to_owned()), &CancellationToken::new())
            .await,
        Removal::Absent
    ));
    let forbidden = |_: &Value| status(403, "Forbidden", "no");
    let (third, _) = jobs([Answer::With(403, forbidden)]);
    assert!(matches!(
        third.remove(NAME, None, &CancellationToken::new()).await,
        Removal::Refused(_)
    ));
}

#[tokio::test]
async fn who_stands_by_creates_and_deletes_nothing_until_the_queue_is_its_own_again() {
    let (mut jobs, asked) = jobs([
        Answer::With(201, stored),
        Answer::With(201, stored),
        Answer::With(200, |_| status(200, "", "")),
    ]);
    let (standby, stands_by) = watch::channel(true);
    jobs.standby = stands_by;
    let cancel = CancellationToken::new();
    let mut creating = pin!(jobs.create(BLOCK, &cancel, |_| {}));
    let mut removing = pin!(jobs.remove(NAME, None, &cancel));
    assert!(poll!(&mut creating).is_pending() && poll!(&mut removing).is_pending());
    assert!(methods(&asked).is_empty());
    standby.send_replace(false);
    assert!(matches!(creating.await, Creation::Made { .. }));
    assert!(matches!(removing.await, Removal::Taken));
}

#[tokio::test]
async fn what_is_under_way_is_left_when_another_agent_gets_the_queue_and_given_up_if_it_does_not_come_back() {
    for given_up in [false, true] {
        let (mut jobs, asked) = jobs([Answer::Never, Answer::Never]);
        let (standby, stands_by) = watch::channel(false);
        jobs.standby = stands_by;
        let cancel = CancellationToken::new();
        let leave = async {
            while methods(&asked).len() < 2 {
                tokio::task::yield_now().await;
            }
            standby.send_replace(true);
            if given_up {
                cancel.cancel();
            } else {
                // The user endpoint ends.
                drop(standby);
            }
        };
        let trouble = |words| panic!("it waited for an answer: {words}");
        let (created, removed, ()) = tokio::join!(
            jobs.create(BLOCK, &cancel, trouble),
            jobs.remove(NAME, None, &cancel),
            leave
        );
        assert!(matches!(created, Creation::Abandoned), "{created:?}");
        assert!(matches!(removed, Removal::Abandoned), "{removed:?}");
    }
}
