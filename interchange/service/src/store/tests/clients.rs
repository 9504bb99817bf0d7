use uuid::Uuid;

use super::{NOW, client, on_each_database};
use crate::store::{Store, TokenRecord};

on_each_database!(
    a_token_speaks_for_its_client_until_it_expires,
    a_revoked_client_has_no_tokens_and_another_password,
    a_token_is_revoked_by_its_own_client_only,
);

fn token(client: u128) -> TokenRecord {
    TokenRecord {
        digest: vec![7; 32],
        client_id: Uuid::from_u128(client),
        issued_to: Uuid::from_u128(client),
        scope: "a b".to_owned(),
        grant_id: None,
        resource_server: "funcx_service".to_owned(),
        created_at: NOW,
        expires_at: NOW + 10,
    }
}

async fn a_token_speaks_for_its_client_until_it_expires(store: Store) {
    store.create_client(&client(1)).await.unwrap();
    store.insert_token(&token(1)).await.unwrap();
    let bearer = store.token_bearer(&[7; 32], NOW + 9).await.unwrap().unwrap();
    assert_eq!(
        (bearer.client.id, bearer.resource_server.as_str(), bearer.scope.as_str()),
        (Uuid::from_u128(1), "funcx_service", "a b")
    );
    assert!(store.token_bearer(&[7; 32], NOW + 10).await.unwrap().is_none());
    assert!(store.token_bearer(&[8; 32], NOW).await.unwrap().is_none());
    assert_eq!(store.delete_expired_tokens(NOW + 10).await.unwrap(), 1);
}

async fn a_revoked_client_has_no_tokens_and_another_password(store: Store) {
    store.create_client(&client(1)).await.unwrap();
    store.insert_token(&token(1)).await.unwrap();
    assert!(store.revoke_client(Uuid::from_u128(1), NOW).await.unwrap());
    assert!(!store.revoke_client(Uuid::from_u128(1), NOW).await.unwrap());
    assert!(store.token_bearer(&[7; 32], NOW).await.unwrap().is_none());
    let known = store.client(Uuid::from_u128(1)).await.unwrap().unwrap();
    assert_eq!((known.revoked_at, known.rotation), (Some(NOW), 1));
    assert_eq!(store.clients().await.unwrap().len(), 1);
}

async fn a_token_is_revoked_by_its_own_client_only(store: Store) {
    store.create_client(&client(1)).await.unwrap();
    store.insert_token(&token(1)).await.unwrap();
    store.revoke_token(&[7; 32], Uuid::from_u128(2)).await.unwrap();
    assert!(store.token_bearer(&[7; 32], NOW).await.unwrap().is_some());
    store.revoke_token(&[7; 32], Uuid::from_u128(1)).await.unwrap();
    assert!(store.token_bearer(&[7; 32], NOW).await.unwrap().is_none());
}
