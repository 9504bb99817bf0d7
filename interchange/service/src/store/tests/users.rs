use uuid::Uuid;

use super::{NOW, client, on_each_database};
use crate::store::{AuthorizationCode, NO_SECRET, Redeemed, RefreshToken, SignIn, Store, TokenRecord, User};

on_each_database!(
    a_name_belongs_to_one_user_until_that_is_removed,
    a_removed_user_and_a_new_password_end_what_was_signed_in,
    a_code_used_twice_revokes_what_it_gave,
    of_two_who_redeem_a_code_at_once_nobody_keeps_anything,
    a_revoked_refresh_token_takes_its_access_tokens_with_it,
    a_revoked_native_client_loses_what_users_gave_it,
    attempts_to_sign_in_are_paused_by_name,
    what_nobody_used_for_long_is_forgotten,
);

const GRANT: u128 = 70;
const CLIENT: u128 = 71;

fn user(id: u128, name: &str) -> User {
    User {
        id: Uuid::from_u128(id),
        name: name.to_owned(),
        password_hash: "hash".to_owned(),
        created_at: NOW,
    }
}

fn code(user: u128) -> AuthorizationCode {
    AuthorizationCode {
        digest: vec![1; 32],
        grant_id: Uuid::from_u128(GRANT),
        user_id: Uuid::from_u128(user),
        client_id: Uuid::from_u128(CLIENT),
        redirect_uri: "http://127.0.0.1/".to_owned(),
        challenge: "challenge".to_owned(),
        scope: "openid".to_owned(),
        nonce: Some("nonce".to_owned()),
        offline: true,
        signed_in_at: NOW,
        expires_at: NOW + 10,
        used_at: None,
    }
}

fn access(digest: u8, user: u128) -> TokenRecord {
    TokenRecord {
        digest: vec![digest; 32],
        client_id: Uuid::from_u128(user),
        issued_to: Uuid::from_u128(CLIENT),
        resource_server: "auth.globus.org".to_owned(),
        scope: "openid".to_owned(),
        grant_id: Some(Uuid::from_u128(GRANT)),
        created_at: NOW,
        expires_at: NOW + 100,
    }
}

fn refreshing(digest: u8, user: u128) -> RefreshToken {
    RefreshToken {
        digest: vec![digest; 32],
        grant_id: Uuid::from_u128(GRANT),
        user_id: Uuid::from_u128(user),
        client_id: Uuid::from_u128(CLIENT),
        resource_server: "auth.globus.org".to_owned(),
        scope: "openid".to_owned(),
        created_at: NOW,
        used_at: NOW,
    }
}

/// A user who has signed in: access token 2, refresh token 3.
async fn signed_in(store: &Store, id: u128) {
    assert!(store.create_user(&user(id, "ada")).await.unwrap());
    store.insert_code(&code(id)).await.unwrap();
    let (tokens, refresh_tokens) = ([access(2, id)], [refreshing(3, id)]);
    let redeemed = store.redeem_code(&[1; 32], NOW + 9, &tokens, &refresh_tokens).await;
    assert_eq!(redeemed.unwrap(), Redeemed::Now);
}

async fn has_access(store: &Store, digest: u8) -> bool {
    store.token_bearer(&[digest; 32], NOW).await.unwrap().is_some()
}

async fn can_refresh(store: &Store) -> bool {
    store.refresh_token(&[3; 32]).await.unwrap().is_some()
}

async fn a_name_belongs_to_one_user_until_that_is_removed(store: Store) {
    assert!(store.create_user(&user(1, "ada")).await.unwrap());
    assert!(!store.create_user(&user(2, "ada")).await.unwrap());
    assert!(store.client(Uuid::from_u128(2)).await.unwrap().is_none());
    let identity = store.client(Uuid::from_u128(1)).await.unwrap().unwrap();
    assert_eq!(
        (identity.name.as_str(), identity.secret_hash.as_str()),
        ("ada", NO_SECRET)
    );
    assert!(store.revoke_client(Uuid::from_u128(1), NOW).await.unwrap());
    assert!(store.user_named("ada").await.unwrap().is_none());
    assert!(store.create_user(&user(2, "ada")).await.unwrap());
    assert_eq!(store.user_named("ada").await.unwrap().unwrap().id, Uuid::from_u128(2));
    assert_eq!(store.users().await.unwrap().len(), 1);
}

async fn a_removed_user_and_a_new_password_end_what_was_signed_in(store: Store) {
    signed_in(&store, 1).await;
    let bearer = store.token_bearer(&[2; 32], NOW).await.unwrap().unwrap();
    assert_eq!(
        (bearer.client.id, bearer.issued_to),
        (Uuid::from_u128(1), Uuid::from_u128(CLIENT))
    );
    assert!(store.set_password(Uuid::from_u128(1), "another").await.unwrap());
    assert!(!has_access(&store, 2).await && !can_refresh(&store).await);
    assert!(store.revoke_client(Uuid::from_u128(1), NOW).await.unwrap());
    signed_in(&store, 2).await;
    assert!(store.revoke_client(Uuid::from_u128(2), NOW).await.unwrap());
    assert!(!has_access(&store, 2).await && !can_refresh(&store).await);
    assert!(store.code(&[1; 32]).await.unwrap().is_none());
}

async fn a_code_used_twice_revokes_what_it_gave(store: Store) {
    signed_in(&store, 1).await;
    assert!(has_access(&store, 2).await && can_refresh(&store).await);
    assert!(store.refresh(&[3; 32], &access(4, 1)).await.unwrap());
    let again = store.redeem_code(&[1; 32], NOW, &[access(5, 1)], &[]).await.unwrap();
    assert_eq!(again, Redeemed::Before);
    for digest in [2, 4, 5] {
        assert!(!has_access(&store, digest).await, "{digest}");
    }
    assert!(!can_refresh(&store).await);
    assert!(!store.refresh(&[3; 32], &access(6, 1)).await.unwrap());
    assert!(!has_access(&store, 6).await);

    let late = AuthorizationCode {
        digest: vec![9; 32],
        ..code(1)
    };
    store.insert_code(&late).await.unwrap();
    assert_eq!(store.code(&[9; 32]).await.unwrap().unwrap(), late);
    let redeemed = store
        .redeem_code(&[9; 32], NOW + 10, &[access(5, 1)], &[])
        .await
        .unwrap();
    assert_eq!(redeemed, Redeemed::Before);
    assert!(!has_access(&store, 5).await);
}

async fn of_two_who_redeem_a_code_at_once_nobody_keeps_anything(store: Store) {
    assert!(store.create_user(&user(1, "ada")).await.unwrap());
    store.insert_code(&code(1)).await.unwrap();
    let (first, second) = ([access(2, 1)], [access(4, 1)]);
    let (one, other) = tokio::join!(
        store.redeem_code(&[1; 32], NOW, &first, &[]),
        store.redeem_code(&[1; 32], NOW, &second, &[])
    );
    assert_ne!(one.unwrap(), other.unwrap());
    assert!(!has_access(&store, 2).await && !has_access(&store, 4).await);
}

async fn a_revoked_refresh_token_takes_its_access_tokens_with_it(store: Store) {
    signed_in(&store, 1).await;
    assert!(store.refresh(&[3; 32], &access(4, 1)).await.unwrap());
    store.revoke_token(&[3; 32], Uuid::from_u128(1)).await.unwrap();
    assert!(can_refresh(&store).await, "another client's call has revoked it");
    store.revoke_token(&[3; 32], Uuid::from_u128(CLIENT)).await.unwrap();
    assert!(!can_refresh(&store).await && !has_access(&store, 2).await && !has_access(&store, 4).await);
}

async fn a_revoked_native_client_loses_what_users_gave_it(store: Store) {
    let native = crate::store::Client {
        secret_hash: NO_SECRET.to_owned(),
        ..client(CLIENT)
    };
    let sign_in = SignIn {
        native: true,
        redirect_uris: vec!["https://a.example/b".to_owned()],
    };
    store.create_sign_in_client(&native, &sign_in).await.unwrap();
    let (known, how) = store.sign_in_client(native.id).await.unwrap().unwrap();
    assert_eq!((known.id, how), (native.id, sign_in));
    signed_in(&store, 1).await;
    assert!(store.revoke_client(native.id, NOW).await.unwrap());
    assert!(!can_refresh(&store).await && !has_access(&store, 2).await);
    assert!(store.sign_in_client(native.id).await.unwrap().is_none());
    assert!(store.user_named("ada").await.unwrap().is_some());
}

async fn attempts_to_sign_in_are_paused_by_name(store: Store) {
    let pause = |attempts: i64| if attempts < 3 { 0 } else { 1_000 };
    let begin = |name: u8, now| {
        let store = &store;
        async move { store.begin_sign_in(&[name; 32], now, now - 5_000, pause).await.unwrap() }
    };
    assert_eq!(begin(1, NOW).await, Some(1));
    assert_eq!(begin(1, NOW).await, Some(2));
    assert_eq!(begin(1, NOW).await, Some(3));
    assert_eq!(begin(1, NOW + 999).await, None);
    assert_eq!(store.next_sign_in(&[1; 32]).await.unwrap(), NOW + 1_000);
    assert_eq!(begin(2, NOW).await, Some(1), "another name waits for nobody");
    assert_eq!(begin(1, NOW + 1_000).await, Some(4));
    assert_eq!(begin(1, NOW + 7_000).await, Some(1), "they are not remembered for ever");
    store.forget_sign_ins(&[1; 32]).await.unwrap();
    assert_eq!(begin(1, NOW + 7_000).await, Some(1));
}

async fn what_nobody_used_for_long_is_forgotten(store: Store) {
    signed_in(&store, 1).await;
    store.begin_sign_in(&[1; 32], NOW, NOW, |_| 0).await.unwrap();
    assert_eq!(store.delete_old_sign_ins(NOW, NOW).await.unwrap(), 0);
    assert_eq!(store.delete_old_sign_ins(NOW + 1, NOW + 11).await.unwrap(), 3);
    assert!(!can_refresh(&store).await && store.code(&[1; 32]).await.unwrap().is_none());
}
