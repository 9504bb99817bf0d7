//! What the store promises, on each database.

mod clients;
mod commit;
mod endpoints;
mod groups;
mod migrations;
mod postgres;
mod results;
mod tasks;
mod users;

use std::sync::Arc;

use uuid::Uuid;

use super::{Arrival, Client, Endpoint, EndpointKind, Function, OutboxEntry, Registration, Store, Submission};
use crate::clock::Milliseconds;

/// Makes a test of each function on each database.
macro_rules! on_each_database {
    ($($test:ident),+ $(,)?) => {
        mod on_sqlite {
            $(#[tokio::test]
            async fn $test() {
                let directory = tempfile::tempdir().unwrap();
                let url = format!("sqlite://{}", directory.path().join("test.db").display());
                super::$test($crate::store::Store::open(&url).await.unwrap()).await;
            })+
        }
        mod on_postgresql {
            $(#[tokio::test]
            async fn $test() {
                let url = $crate::store::tests::postgres::new_database().await;
                super::$test($crate::store::Store::open(&url).await.unwrap()).await;
            })+
        }
    };
}
pub(crate) use on_each_database;

const NOW: Milliseconds = 1_795_000_000_000;

fn client(id: u128) -> Client {
    Client {
        id: Uuid::from_u128(id),
        name: format!("client {id}"),
        secret_hash: "hash".to_owned(),
        created_at: NOW,
        revoked_at: None,
        rotation: 0,
        broker_user_at: 0,
    }
}

fn endpoint(id: u128, kind: EndpointKind, owner: u128, parent: Option<u128>) -> Endpoint {
    Endpoint {
        id: Uuid::from_u128(id),
        owner: Uuid::from_u128(owner),
        parent: parent.map(Uuid::from_u128),
        registration: Registration {
            kind,
            name: "name".to_owned(),
            display_name: None,
            public: false,
            multi_user: false,
            metadata: "{}".to_owned(),
            allowed_functions: None,
            admins: Vec::new(),
            properties: "{}".to_owned(),
        },
        user_config: None,
        user_runtime: None,
        registered_at: NOW,
        locked_until: 0,
        heartbeat_at: 0,
        heartbeat_period_ms: 0,
        report: None,
        rotation: 0,
        broker_user_at: 0,
    }
}

const OWNER: u128 = 1;
const GROUP: u128 = 2;
const FUNCTION: u128 = 3;
const ENDPOINT: u128 = 4;

/// Submits tasks with these ids to [`ENDPOINT`], as one group with a queue.
async fn submit(store: &Store, ids: &[u128], claimed_until: Milliseconds) {
    let function = Uuid::from_u128(FUNCTION);
    if store.function(function).await.unwrap().is_none() {
        store
            .create_function(&Function {
                id: function,
                owner: Uuid::from_u128(OWNER),
                name: "f".to_owned(),
                description: None,
                code: "code".to_owned(),
                metadata: "{}".to_owned(),
                public: false,
                created_at: NOW,
            })
            .await
            .unwrap();
    }
    let group = Uuid::from_u128(GROUP);
    store
        .submit(submission(
            group,
            store.group(group).await.unwrap().is_none(),
            ids,
            claimed_until,
        ))
        .await
        .unwrap();
}

/// Tasks with these ids.
fn submission(group: Uuid, is_new: bool, ids: &[u128], claimed_until: Milliseconds) -> Arc<Submission> {
    let entry = |id: &u128| OutboxEntry {
        task_id: Uuid::from_u128(*id),
        endpoint_id: Uuid::from_u128(ENDPOINT),
        function_id: Uuid::from_u128(FUNCTION),
        code: "code".into(),
        payload: format!("payload {id}"),
        resource_specification: Some("{\"cores\":1}".to_owned()),
        result_serializers: vec!["a.B".to_owned()],
    };
    Arc::new(Submission {
        group_id: group,
        new_group: is_new.then_some(NOW),
        owner: Uuid::from_u128(OWNER),
        target_id: Uuid::from_u128(ENDPOINT),
        received_at: NOW,
        claimed_until,
        entries: ids.iter().map(entry).collect(),
    })
}

fn arrival(task: u128, sender: Option<u128>, body: &'static str) -> Arrival {
    Arrival {
        task_id: Uuid::from_u128(task),
        sender: sender.map(Uuid::from_u128),
        body: body.as_bytes().into(),
        failed: false,
        started_at: Some(NOW + 1),
        ended_at: None,
    }
}
