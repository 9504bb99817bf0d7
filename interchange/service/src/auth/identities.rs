//! Who somebody is, told to themselves: there is no directory of the others.

use axum::Json;
use axum::extract::Query;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use uuid::Uuid;

use super::AuthIdentity;
use crate::store::{Client, User};

fn claims(id: Uuid, username: &str, name: &str) -> Map<String, Value> {
    let claims = json!({
        "sub": id,
        "username": username,
        "preferred_username": username,
        "name": name,
        "email": null,
        "organization": null,
        "identity_provider": id,
    });
    match claims {
        Value::Object(claims) => claims,
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => Map::new(),
    }
}

/// What is said of a user.
pub(super) fn of_user(user: &User) -> Map<String, Value> {
    claims(user.id, &user.name, &user.name)
}

/// What is said of a client or user.
pub(super) fn of(client: &Client) -> Map<String, Value> {
    claims(client.id, &client.username(), &client.name)
}

/// `GET /v2/oauth2/userinfo`.
pub(super) async fn user_info(AuthIdentity(client): AuthIdentity) -> Json<Value> {
    let mut claims = of(&client);
    let identity = claims.clone();
    claims.insert("identity_set".to_owned(), json!([identity]));
    Json(Value::Object(claims))
}

/// What `GET /v2/api/identities` is asked for.
#[derive(Deserialize)]
pub(super) struct IdentitiesQuery {
    #[serde(default)]
    ids: String,
    #[serde(default)]
    usernames: String,
}

/// `GET /v2/api/identities`.
pub(super) async fn identities(
    AuthIdentity(client): AuthIdentity,
    Query(query): Query<IdentitiesQuery>,
) -> Json<Value> {
    let username = client.username();
    let names = |list: &str, wanted: &str| list.split(',').any(|item| item.trim().eq_ignore_ascii_case(wanted));
    let is_asked_for = names(&query.ids, &client.id.to_string()) || names(&query.usernames, &username);
    let found: Vec<Value> = is_asked_for
        .then(|| {
            json!({
                "id": client.id,
                "username": username,
                "name": client.name,
                "email": null,
                "status": "used",
                "identity_provider": client.id,
                "organization": null,
            })
        })
        .into_iter()
        .collect();
    Json(json!({"identities": found}))
}
