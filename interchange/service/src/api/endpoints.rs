//! Endpoints: register, look at, stop, delete.

use std::sync::Arc;

use axum::extract::{Query, State};
use axum::routing::{get, post, put};
use axum::{Json, Router};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use uuid::Uuid;

use super::extract::{JsonBody, PathId};
use crate::app::App;
use crate::auth::Identity;
use crate::broker::{BrokerUser, endpoint_queue};
use crate::error::{ApiError, ErrorCode};
use crate::store::{Client, Endpoint, EndpointKind, Registration};
use crate::{clock, user_endpoints};

pub(super) fn router() -> Router<Arc<App>> {
    Router::new()
        .route("/v2/endpoints", get(list).post(register))
        .route("/v3/endpoints", post(register))
        .route("/v3/endpoints/{id}", put(update))
        .route("/v2/endpoints/{id}", get(read).delete(delete))
        .route("/v2/endpoints/{id}/status", get(status))
        .route("/v2/endpoints/{id}/lock", post(lock))
        .route("/v3/endpoints/{id}/lock", post(lock))
        .route("/v3/endpoints/{id}/allowed_functions", get(allowed_functions))
}

#[derive(Deserialize)]
struct Body {
    endpoint_name: String,
    display_name: Option<String>,
    metadata: Option<Map<String, Value>>,
    #[serde(default)]
    multi_user: bool,
    #[serde(default)]
    public: bool,
    #[serde(default)]
    high_assurance: bool,
    allowed_functions: Option<Vec<Uuid>>,
    admins: Option<Vec<Uuid>>,
    authentication_policy: Option<Uuid>,
    subscription_uuid: Option<Uuid>,
}

impl Body {
    fn registration(self) -> Result<Registration, ApiError> {
        let invalid = |field, message: &str| Err(ApiError::field(ErrorCode::RequestInvalid, field, message));
        if self.endpoint_name.is_empty() || self.endpoint_name.chars().count() > 128 {
            return invalid("endpoint_name", "it must have 1 to 128 characters");
        }
        if self.high_assurance {
            return invalid("high_assurance", "high assurance is not offered by this service");
        }
        if self.authentication_policy.is_some() {
            return invalid(
                "authentication_policy",
                "authentication policies are not offered by this service",
            );
        }
        let metadata = self.metadata.unwrap_or_default();
        let mut properties = Map::new();
        if let Some(subscription) = self.subscription_uuid {
            properties.insert("subscription_uuid".to_owned(), json!(subscription));
        }
        Ok(Registration {
            kind: kind_of(&metadata, self.multi_user),
            name: self.endpoint_name,
            display_name: self.display_name,
            public: self.public,
            multi_user: self.multi_user,
            metadata: Value::Object(metadata).to_string(),
            allowed_functions: self.allowed_functions.filter(|list| !list.is_empty()),
            admins: self.admins.unwrap_or_default(),
            properties: Value::Object(properties).to_string(),
        })
    }
}

/// An endpoint that has a template, or that serves many users, takes commands; one with an `engine` in its
/// configuration (to version 4.10) takes tasks itself.
fn kind_of(metadata: &Map<String, Value>, multi_user: bool) -> EndpointKind {
    let has_template = metadata
        .get("user_config_template")
        .is_some_and(|template| !template.is_null());
    if has_template || multi_user {
        EndpointKind::Template
    } else {
        EndpointKind::Direct
    }
}

async fn register(
    State(app): State<Arc<App>>,
    Identity(client): Identity,
    JsonBody(body): JsonBody<Body>,
) -> Result<Json<Value>, ApiError> {
    let registration = body.registration()?;
    let live = app.broker.live()?;
    let endpoint = Endpoint {
        id: Uuid::new_v4(),
        owner: client.id,
        parent: None,
        registration,
        user_config: None,
        user_runtime: None,
        registered_at: clock::now(),
        locked_until: 0,
        heartbeat_at: 0,
        heartbeat_period_ms: 0,
        report: None,
        rotation: 0,
        broker_user_at: 0,
    };
    app.store.create_endpoint(&endpoint).await?;
    user_endpoints::provision(&app, &live, &endpoint).await?;
    tracing::info!(endpoint_id = %endpoint.id, client_id = %client.id, kind = ?endpoint.registration.kind, "endpoint registered");
    Ok(Json(registered(&app, &endpoint)))
}

async fn update(
    State(app): State<Arc<App>>,
    Identity(client): Identity,
    PathId(id): PathId,
    JsonBody(body): JsonBody<Body>,
) -> Result<Json<Value>, ApiError> {
    let known = managed(&app, id, &client).await?;
    if known.registration.kind == EndpointKind::User {
        return Err(ApiError::endpoint_not_found(id));
    }
    let now = clock::now();
    if known.locked_until > now {
        return Err(ApiError::new(
            ErrorCode::EndpointLocked,
            format!(
                "Endpoint {id} was stopped remotely and may register again in {} seconds",
                (known.locked_until - now) / 1000 + 1
            ),
        ));
    }
    let mut registration = body.registration()?;
    // A display name that is not given stays.
    registration.display_name = registration
        .display_name
        .or_else(|| known.registration.display_name.clone());
    let live = app.broker.live()?;
    let changes = registration.kind != known.registration.kind;
    if changes {
        // Before it is another: if this fails, the endpoint's next attempt does it.
        user_endpoints::give_up_former(&app, &known).await?;
    }
    app.store.update_endpoint(id, &registration, now).await?;
    if changes {
        // What came meanwhile.
        user_endpoints::give_up_former(&app, &known).await?;
        live.delete_queue(&endpoint_queue(id, known.registration.kind)).await?;
    }
    let endpoint = Endpoint { registration, ..known };
    user_endpoints::provision(&app, &live, &endpoint).await?;
    tracing::info!(endpoint_id = %id, client_id = %client.id, kind = ?endpoint.registration.kind, "endpoint registered again");
    Ok(Json(registered(&app, &endpoint)))
}

/// What an endpoint is told at its registration. It holds the broker password.
fn registered(app: &App, endpoint: &Endpoint) -> Value {
    let mut reply = json!({
        "endpoint_id": endpoint.id,
        "endpoint_name": endpoint.registration.name,
        "display_name": endpoint.registration.display_name,
    });
    let queues = if endpoint.registration.kind == EndpointKind::Template {
        let (commands, heartbeats) = app.broker.template_queues(endpoint);
        json!({"command_queue_info": commands, "heartbeat_queue_info": heartbeats})
    } else {
        let credentials = app.broker.endpoint_credentials(endpoint);
        json!({
            "task_queue_info": credentials.task_queue_info,
            "result_queue_info": credentials.result_queue_info,
            "heartbeat_queue_info": credentials.heartbeat_queue_info,
        })
    };
    if let (Value::Object(reply), Value::Object(queues)) = (&mut reply, queues) {
        reply.extend(queues);
    }
    reply
}

/// The endpoint with this id, if this client may change it.
async fn managed(app: &App, id: Uuid, client: &Client) -> Result<Endpoint, ApiError> {
    let endpoint = app
        .store
        .endpoint(id)
        .await?
        .ok_or_else(|| ApiError::endpoint_not_found(id))?;
    if !endpoint.is_managed_by(client.id) {
        return Err(ApiError::endpoint_forbidden(id));
    }
    Ok(endpoint)
}

/// The endpoint with this id, if this client may see it.
async fn visible(app: &App, id: Uuid, client: &Client) -> Result<Endpoint, ApiError> {
    let endpoint = app
        .store
        .endpoint(id)
        .await?
        .ok_or_else(|| ApiError::endpoint_not_found(id))?;
    if !endpoint.is_managed_by(client.id) && !endpoint.registration.public {
        return Err(ApiError::endpoint_forbidden(id));
    }
    Ok(endpoint)
}

#[derive(Deserialize)]
struct ListQuery {
    role: Option<String>,
}

async fn list(
    State(app): State<Arc<App>>,
    Identity(client): Identity,
    Query(query): Query<ListQuery>,
) -> Result<Json<Value>, ApiError> {
    let public = match query.role.as_deref() {
        None | Some("owner") => false,
        Some("any") => true,
        Some(other) => {
            return Err(ApiError::field(
                ErrorCode::RequestInvalid,
                "role",
                format!("{other:?} is neither owner nor any"),
            ));
        }
    };
    let endpoints = app.store.endpoints_of(client.id, public).await?;
    Ok(Json(endpoints.iter().map(summary).collect()))
}

fn summary(endpoint: &Endpoint) -> Value {
    json!({
        "uuid": endpoint.id,
        "name": endpoint.registration.name,
        "display_name": endpoint.registration.display_name,
        "owner": endpoint.owner,
    })
}

async fn read(
    State(app): State<Arc<App>>,
    Identity(client): Identity,
    PathId(id): PathId,
) -> Result<Json<Value>, ApiError> {
    let endpoint = visible(&app, id, &client).await?;
    let registration = &endpoint.registration;
    let metadata: Value = serde_json::from_str(&registration.metadata).unwrap_or_default();
    let mut reply = summary(&endpoint);
    let mut more = json!({
        "public": registration.public,
        "multi_user": registration.multi_user || registration.kind == EndpointKind::Template,
        "allowed_functions": registration.allowed_functions,
        "registered_at": clock::as_seconds(endpoint.registered_at),
        "status": if endpoint.is_online(clock::now()) { "online" } else { "offline" },
        "endpoint_version": metadata.get("endpoint_version"),
        "python_version": metadata.get("python_version"),
    });
    if endpoint.is_managed_by(client.id)
        && let Some(more) = more.as_object_mut()
    {
        // What it runs on and with is for those who run it.
        more.insert("metadata".to_owned(), metadata);
        more.insert("admins".to_owned(), json!(registration.admins));
    }
    if let (Value::Object(reply), Value::Object(more)) = (&mut reply, more) {
        reply.extend(more);
    }
    Ok(Json(reply))
}

async fn status(
    State(app): State<Arc<App>>,
    Identity(client): Identity,
    PathId(id): PathId,
) -> Result<Json<Value>, ApiError> {
    let endpoint = visible(&app, id, &client).await?;
    let now = clock::now();
    let mut details = report_of(&endpoint);
    if endpoint.registration.kind == EndpointKind::Template {
        // Each sees its own user endpoints; the template endpoint's managers see all.
        let all = endpoint.is_managed_by(client.id);
        let list: Vec<Value> = app
            .store
            .user_endpoints(id)
            .await?
            .iter()
            .filter(|user_endpoint| all || user_endpoint.owner == client.id)
            .map(|user_endpoint| {
                json!({
                    "uuid": user_endpoint.id,
                    "owner": user_endpoint.owner,
                    "status": online(user_endpoint, now),
                    "details": report_of(user_endpoint),
                })
            })
            .collect();
        if let Some(details) = details.as_object_mut() {
            details.insert("user_endpoints".to_owned(), Value::Array(list));
        }
    }
    Ok(Json(json!({"status": online(&endpoint, now), "details": details})))
}

const fn online(endpoint: &Endpoint, now: clock::Milliseconds) -> &'static str {
    if endpoint.is_online(now) { "online" } else { "offline" }
}

/// The figures of the last heartbeat, with its time.
fn report_of(endpoint: &Endpoint) -> Value {
    let mut report: Map<String, Value> = endpoint
        .report
        .as_deref()
        .and_then(|text| serde_json::from_str(text).ok())
        .unwrap_or_default();
    if endpoint.heartbeat_at > 0 {
        report.insert(
            "last_heartbeat".to_owned(),
            json!(clock::as_seconds(endpoint.heartbeat_at)),
        );
    }
    Value::Object(report)
}

/// `stop --remote`: the endpoint's connections are closed, and it may not come back for a while.
async fn lock(
    State(app): State<Arc<App>>,
    Identity(client): Identity,
    PathId(id): PathId,
) -> Result<Json<Value>, ApiError> {
    let endpoint = managed(&app, id, &client).await?;
    let until = clock::now().saturating_add(clock::milliseconds(app.settings.lock_duration));
    let users = broker_users(&app, &endpoint).await?;
    app.store.lock_endpoint(id, until).await?;
    for user in users {
        app.broker.delete_user(&user).await?;
    }
    tracing::info!(endpoint_id = %id, client_id = %client.id, "endpoint stopped remotely");
    Ok(Json(
        json!({"endpoint_id": id, "locked_until": clock::as_seconds(until)}),
    ))
}

/// The broker users of an endpoint and its user endpoints.
async fn broker_users(app: &App, endpoint: &Endpoint) -> Result<Vec<BrokerUser>, ApiError> {
    let mut users = vec![BrokerUser::Endpoint(endpoint.id, endpoint.registration.kind)];
    for user_endpoint in app.store.user_endpoints(endpoint.id).await? {
        users.push(BrokerUser::Endpoint(user_endpoint.id, EndpointKind::User));
    }
    Ok(users)
}

async fn delete(
    State(app): State<Arc<App>>,
    Identity(client): Identity,
    PathId(id): PathId,
) -> Result<Json<Value>, ApiError> {
    managed(&app, id, &client).await?;
    app.store.delete_endpoint(id, clock::now()).await?;
    tracing::info!(endpoint_id = %id, client_id = %client.id, "endpoint deleted");
    // It is deleted even if the broker can't be told now: housekeeping tells it later.
    if let Err(error) = crate::housekeeping::remove_deleted_endpoints(&app).await {
        tracing::warn!(%error, endpoint_id = %id, "what the endpoint has on the broker will be removed later");
    }
    Ok(Json(json!({"result": 302})))
}

async fn allowed_functions(
    State(app): State<Arc<App>>,
    Identity(client): Identity,
    PathId(id): PathId,
) -> Result<Json<Value>, ApiError> {
    let endpoint = visible(&app, id, &client).await?;
    Ok(Json(json!({
        "endpoint_id": id,
        "restricted": endpoint.registration.allowed_functions.is_some(),
        "functions": endpoint.registration.allowed_functions.unwrap_or_default(),
    })))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_template_makes_an_endpoint_take_commands() {
        let metadata = |value: Value| value.as_object().unwrap().clone();
        assert_eq!(
            kind_of(&metadata(json!({"user_config_template": "a"})), false),
            EndpointKind::Template
        );
        assert_eq!(
            kind_of(&metadata(json!({"config": {"engine": {}}})), false),
            EndpointKind::Direct
        );
        assert_eq!(kind_of(&metadata(json!({})), true), EndpointKind::Template);
    }
}
