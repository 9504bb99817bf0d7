//! What a folder alone promises. What folder and Secret promise alike is in `tests/state.rs`, for it needs a cluster.

use std::os::unix::fs::PermissionsExt as _;

use uuid::Uuid;
use waypost_protocol::{AmqpCredentials, QueueInfo};

use super::*;
use crate::auth::TokenKeeper;

fn saved(number: u128) -> SavedUserEndpoint {
    let queue = QueueInfo {
        connection_url: "amqp://me:hidden-word@host/".to_owned(),
        queue: "q".to_owned(),
        exchange: None,
        queue_publish_kwargs: None,
    };
    let id = Uuid::from_u128(number);
    SavedUserEndpoint {
        name: format!("uep.{}.{id}", Uuid::nil()),
        asked: Asked {
            user_options: "null".to_owned(),
            user_runtime: "null".to_owned(),
            matched: Uuid::from_u128(9),
        },
        config: "engine:\n".to_owned(),
        environment: [("A".to_owned(), "b".to_owned())].into(),
        credentials: AmqpCredentials {
            endpoint_id: id,
            task_queue_info: queue.clone(),
            result_queue_info: queue.clone(),
            heartbeat_queue_info: queue,
        },
        identity: Uuid::from_u128(9),
        username: "me@example.org".to_owned(),
    }
}

#[tokio::test]
async fn a_damaged_file_hides_no_other() {
    let folder = tempfile::tempdir().unwrap();
    let store = StateStore::in_folder(folder.path()).unwrap();
    store.save_user_endpoint(&saved(1)).await.unwrap();
    std::fs::write(folder.path().join("state/user_endpoints/x.json"), "{").unwrap();
    let (found, problems) = store.user_endpoints().await.unwrap();
    assert_eq!((found.len(), problems.len()), (1, 1));
    assert!(
        problems[0].to_string().contains("user_endpoints/x.json"),
        "{}",
        problems[0]
    );
}

#[tokio::test]
async fn only_the_owner_can_read_what_is_written() {
    let folder = tempfile::tempdir().unwrap();
    let store = StateStore::in_folder(folder.path()).unwrap();
    store.save_user_endpoint(&saved(1)).await.unwrap();
    store.link_keys().await.unwrap();
    TokenKeeper::save(&store, b"{}").await.unwrap();
    assert_eq!(TokenKeeper::load(&store).await.unwrap().unwrap().as_slice(), b"{}");
    for file in [
        "tokens",
        "token_key",
        "link_authority.pem",
        &format!("user_endpoints/{}.json", Uuid::from_u128(1)),
    ] {
        let mode = std::fs::metadata(folder.path().join("state").join(file))
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600, "{file}");
    }
}

#[tokio::test]
async fn tokens_are_forgotten_only_if_they_are_still_the_ones_that_were_read() {
    let folder = tempfile::tempdir().unwrap();
    let store = StateStore::in_folder(folder.path()).unwrap();
    TokenKeeper::save(&store, b"newer").await.unwrap();
    TokenKeeper::forget(&store, b"older").await.unwrap();
    let kept = TokenKeeper::load(&store).await.unwrap().unwrap();
    assert_eq!(kept.as_slice(), b"newer");
    TokenKeeper::forget(&store, b"newer").await.unwrap();
    assert!(TokenKeeper::load(&store).await.unwrap().is_none());
    assert!(!folder.path().join("state/tokens").exists());
}

#[test]
fn nothing_shows_a_password() {
    assert!(!format!("{:?}", saved(1)).contains("hidden-word"));
}
