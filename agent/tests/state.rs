//! What the state promises, on a disk and in a Secret alike.
//!
//! The tests of the Secret need a cluster: `./test cluster` runs them (`--ignored`), with `KUBECONFIG` set.

#![expect(clippy::unwrap_used, reason = "a helper that fails is a test that fails")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use endpoint::service::RegistrationReply;
use endpoint::state::{Asked, SavedRegistration, SavedUserEndpoint, SecretMedium, StateError, StateStore};
use k8s_openapi::api::core::v1::{Namespace, Secret};
use kube::api::{Api, DeleteParams, PostParams};
use kube::{Client, Config};
use secrecy::ExposeSecret as _;
use uuid::Uuid;
use waypost_protocol::{AmqpCredentials, QueueInfo};

/// Opens the same state once more, as the next start of an agent would.
trait Place {
    async fn open(&self) -> StateStore;
}

struct OnDisk(tempfile::TempDir);

impl Place for OnDisk {
    async fn open(&self) -> StateStore {
        StateStore::in_folder(self.0.path()).unwrap()
    }
}

/// A Secret in a namespace of its own; the folder is another one at each start.
struct InSecret {
    client: Client,
    namespace: String,
    folders: tempfile::TempDir,
}

const SECRET: &str = "state";

impl InSecret {
    async fn new() -> Self {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let client = Client::try_from(Config::infer().await.unwrap()).unwrap();
        let mut namespace = Namespace::default();
        let digits = Uuid::new_v4().simple().to_string();
        let name = format!("waypost-state-{}", &digits[..8]);
        namespace.metadata.name = Some(name.clone());
        let namespaces = Api::<Namespace>::all(client.clone());
        namespaces.create(&PostParams::default(), &namespace).await.unwrap();
        let place = Self {
            client,
            namespace: name,
            folders: tempfile::tempdir().unwrap(),
        };
        let mut secret = Secret::default();
        secret.metadata.name = Some(SECRET.to_owned());
        let secrets = Api::<Secret>::namespaced(place.client.clone(), &place.namespace);
        secrets.create(&PostParams::default(), &secret).await.unwrap();
        place
    }

    fn store(&self, folder: &Path, secret: &str) -> StateStore {
        let medium = SecretMedium::with_client(self.client.clone(), secret.to_owned(), self.namespace.clone());
        StateStore::in_secret(folder, medium)
    }

    async fn remove(self) {
        let namespaces = Api::<Namespace>::all(self.client);
        namespaces
            .delete(&self.namespace, &DeleteParams::default())
            .await
            .unwrap();
    }
}

impl Place for InSecret {
    async fn open(&self) -> StateStore {
        let folder = self.folders.path().join(Uuid::new_v4().to_string());
        std::fs::create_dir(&folder).unwrap();
        self.store(&folder, SECRET)
    }
}

fn queue(password: &str) -> QueueInfo {
    QueueInfo {
        connection_url: format!("amqp://me:{password}@host/"),
        queue: "q".to_owned(),
        exchange: None,
        queue_publish_kwargs: None,
    }
}

fn saved(number: u128) -> SavedUserEndpoint {
    let id = Uuid::from_u128(number);
    SavedUserEndpoint {
        name: format!("uep.{}.{id}", Uuid::nil()),
        asked: Asked {
            user_options: "null".to_owned(),
            user_runtime: "null".to_owned(),
            matched: Uuid::from_u128(9),
        },
        config: "engine:\n  type: GlobusComputeEngine\n".repeat(50),
        environment: BTreeMap::from([("A".to_owned(), "b".to_owned())]),
        credentials: AmqpCredentials {
            endpoint_id: id,
            task_queue_info: queue("word"),
            result_queue_info: queue("word"),
            heartbeat_queue_info: queue("word"),
        },
        identity: Uuid::from_u128(9),
        username: "me@example.org".to_owned(),
    }
}

async fn everything_comes_back(place: &impl Place) {
    let first = place.open().await;
    assert_eq!(first.endpoint_id().await.unwrap(), None);
    assert_eq!(first.registration().await.unwrap(), None);
    assert!(!first.is_stopped().await.unwrap());
    let id = Uuid::from_u128(5);
    let registration = SavedRegistration {
        reply: RegistrationReply {
            endpoint_id: id,
            command_queue_info: Some(queue("word")),
            task_queue_info: None,
            result_queue_info: None,
            heartbeat_queue_info: Some(queue("word")),
        },
        owner: BTreeSet::from([Uuid::from_u128(8)]),
    };
    first.save_endpoint_id(id).await.unwrap();
    first.save_registration(&registration).await.unwrap();
    first.set_stopped(true).await.unwrap();
    let keys = first.link_keys().await.unwrap();
    assert_eq!(first.next_epoch().await.unwrap(), 1);

    let second = place.open().await;
    assert_eq!(second.endpoint_id().await.unwrap(), Some(id));
    assert_eq!(second.registration().await.unwrap(), Some(registration));
    assert!(second.is_stopped().await.unwrap());
    second.set_stopped(false).await.unwrap();
    assert!(!second.is_stopped().await.unwrap());
    let again = second.link_keys().await.unwrap();
    assert_eq!(keys.token_key.expose_secret(), again.token_key.expose_secret());
    assert_eq!(
        keys.authority().unwrap().reveal_key_pem(),
        again.authority().unwrap().reveal_key_pem()
    );
    assert_eq!(second.next_epoch().await.unwrap(), 2);
}

async fn user_endpoints_come_back_until_they_are_removed(place: &impl Place) {
    let store = place.open().await;
    store.save_user_endpoint(&saved(2)).await.unwrap();
    store.save_user_endpoint(&saved(1)).await.unwrap();
    let again = place.open().await;
    assert_eq!(again.user_endpoints().await.unwrap().0, vec![saved(1), saved(2)]);
    let mut refreshed = saved(2);
    refreshed.credentials.task_queue_info = queue("fresh");
    again.save_user_endpoint(&refreshed).await.unwrap();
    again.remove_user_endpoint(&saved(1)).await.unwrap();
    again.remove_user_endpoint(&saved(1)).await.unwrap();
    assert_eq!(again.user_endpoints().await.unwrap().0, vec![refreshed]);
}

#[tokio::test]
async fn everything_comes_back_from_a_folder() {
    everything_comes_back(&OnDisk(tempfile::tempdir().unwrap())).await;
}

#[tokio::test]
async fn user_endpoints_come_back_from_a_folder() {
    user_endpoints_come_back_until_they_are_removed(&OnDisk(tempfile::tempdir().unwrap())).await;
}

#[tokio::test]
#[ignore = "run by ./test cluster"]
async fn everything_comes_back_from_a_secret() {
    let place = InSecret::new().await;
    everything_comes_back(&place).await;
    place.remove().await;
}

#[tokio::test]
#[ignore = "run by ./test cluster"]
async fn user_endpoints_come_back_from_a_secret() {
    let place = InSecret::new().await;
    user_endpoints_come_back_until_they_are_removed(&place).await;
    place.remove().await;
}

#[tokio::test]
#[ignore = "run by ./test cluster"]
async fn two_agents_at_one_secret_overwrite_nothing_of_each_other() {
    let place = InSecret::new().await;
    let (one, other) = (place.open().await, place.open().await);
    // Both have seen the Secret as it was at first.
    assert!(one.user_endpoints().await.unwrap().0.is_empty());
    assert!(other.user_endpoints().await.unwrap().0.is_empty());
    let (mine, theirs) = tokio::join!(one.link_keys(), other.link_keys());
    assert_eq!(
        mine.unwrap().token_key.expose_secret(),
        theirs.unwrap().token_key.expose_secret(),
        "the keys that were there first count for both"
    );
    let (a, b, c) = tokio::join!(one.next_epoch(), other.next_epoch(), one.next_epoch());
    let epochs = BTreeSet::from([a.unwrap(), b.unwrap(), c.unwrap()]);
    assert_eq!(epochs, BTreeSet::from([1, 2, 3]), "no two lives have the same epoch");
    let (first, second) = (saved(1), saved(2));
    let (left, right) = tokio::join!(one.save_user_endpoint(&first), other.save_user_endpoint(&second));
    left.unwrap();
    right.unwrap();
    assert_eq!(one.user_endpoints().await.unwrap().0, vec![saved(1), saved(2)]);
    // The user endpoint came back to the other agent with fresh credentials; what the first one knows of it is past.
    let mut fresh = saved(1);
    fresh.credentials.task_queue_info = queue("fresh");
    other.save_user_endpoint(&fresh).await.unwrap();
    one.remove_user_endpoint(&saved(1)).await.unwrap();
    assert_eq!(one.user_endpoints().await.unwrap().0, vec![fresh, saved(2)]);
    place.remove().await;
}

#[tokio::test]
#[ignore = "run by ./test cluster"]
async fn what_a_secret_can_not_hold_is_refused_in_words_and_hurts_nothing() {
    let place = InSecret::new().await;
    let store = place.open().await;
    store.save_user_endpoint(&saved(1)).await.unwrap();
    let mut large = saved(2);
    // Hexadecimal digits of chance are packed to half of their size.
    large.config = std::iter::repeat_with(|| Uuid::new_v4().simple().to_string())
        .take(80_000)
        .collect();
    let error = store.save_user_endpoint(&large).await.unwrap_err();
    assert!(matches!(error, StateError::Full { .. }), "{error}");
    assert!(error.to_string().contains("max_user_endpoints"), "{error}");
    assert_eq!(store.user_endpoints().await.unwrap().0, vec![saved(1)]);
    place.remove().await;
}

#[tokio::test]
#[ignore = "run by ./test cluster"]
async fn a_secret_that_is_not_there_is_named() {
    let place = InSecret::new().await;
    let folder = tempfile::tempdir().unwrap();
    let error = place.store(folder.path(), "nowhere").endpoint_id().await.unwrap_err();
    assert!(!error.is_passing());
    let text = error.to_string();
    assert!(
        text.contains("nowhere") && text.contains("there is no such Secret"),
        "{text}"
    );
    place.remove().await;
}
