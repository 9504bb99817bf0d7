//! Functions: register, read, delete.

use std::sync::Arc;

use axum::extract::State;
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use uuid::Uuid;

use super::extract::{JsonBody, PathId};
use crate::app::App;
use crate::auth::Identity;
use crate::clock;
use crate::error::{ApiError, ErrorCode};
use crate::store::{Function, Store};

pub(super) fn router() -> Router<Arc<App>> {
    Router::new()
        .route("/v2/functions", post(register))
        .route("/v3/functions", post(register))
        .route("/v2/functions/{id}", get(read).delete(delete))
}

#[derive(Deserialize)]
struct Registration {
    function_name: String,
    function_code: String,
    /// False: `function_code` is Python source, to be packed here.
    serialized: Option<bool>,
    description: Option<String>,
    #[serde(default)]
    public: bool,
    group: Option<Uuid>,
    ha_endpoint_id: Option<Uuid>,
    /// `metadata` in the older call.
    #[serde(alias = "metadata")]
    meta: Option<Map<String, Value>>,
}

/// As the SDK's serializer packs buffers: the length in characters, a newline, the buffer.
fn pack(buffer: &str) -> String {
    format!("{}\n{buffer}", buffer.chars().count())
}

/// Source code in the form of the SDK's `PureSourceTextInspect` strategy.
fn pack_source(name: &str, source: &str) -> String {
    pack(&format!("st\n{name}:{source}"))
}

async fn register(
    State(app): State<Arc<App>>,
    Identity(client): Identity,
    JsonBody(body): JsonBody<Registration>,
) -> Result<Json<Value>, ApiError> {
    let invalid = |field, message: &str| Err(ApiError::field(ErrorCode::RequestInvalid, field, message));
    if body.function_name.is_empty() {
        return invalid("function_name", "it is empty");
    }
    if body.function_code.is_empty() {
        return invalid("function_code", "it is empty");
    }
    if body.function_code.len() > app.settings.max_payload_bytes {
        return Err(ApiError::field(
            ErrorCode::PayloadTooLarge,
            "function_code",
            format!(
                "it has {} bytes, and {} are allowed",
                body.function_code.len(),
                app.settings.max_payload_bytes
            ),
        ));
    }
    if body.group.is_some() {
        return invalid(
            "group",
            "sharing with a Globus group is not offered by this service; `public` is",
        );
    }
    if body.ha_endpoint_id.is_some() {
        return invalid("ha_endpoint_id", "high assurance is not offered by this service");
    }
    let code = if body.serialized.unwrap_or(true) {
        body.function_code
    } else {
        pack_source(&body.function_name, &body.function_code)
    };
    let function = Function {
        id: Uuid::new_v4(),
        owner: client.id,
        name: body.function_name,
        description: body.description,
        code,
        metadata: Value::Object(body.meta.unwrap_or_default()).to_string(),
        public: body.public,
        created_at: clock::now(),
    };
    app.store.create_function(&function).await?;
    tracing::info!(function_id = %function.id, client_id = %client.id, name = function.name, "function registered");
    Ok(Json(json!({"function_uuid": function.id})))
}

/// The function with this id, if this client may read and run it.
async fn readable(store: &Store, id: Uuid, client: Uuid) -> Result<Function, ApiError> {
    let function = store
        .function(id)
        .await?
        .ok_or_else(|| ApiError::function_not_found(id))?;
    if function.owner != client && !function.public {
        return Err(forbidden(id));
    }
    Ok(function)
}

pub(super) fn forbidden(id: Uuid) -> ApiError {
    ApiError::new(
        ErrorCode::FunctionAccessForbidden,
        format!("Unauthorized access to function {id}"),
    )
}

async fn read(
    State(app): State<Arc<App>>,
    Identity(client): Identity,
    PathId(id): PathId,
) -> Result<Json<Value>, ApiError> {
    let function = readable(&app.store, id, client.id).await?;
    let metadata: Value = serde_json::from_str(&function.metadata).unwrap_or_default();
    Ok(Json(json!({
        "function_uuid": function.id,
        "function_name": function.name,
        "function_code": function.code,
        "description": function.description,
        "owner": function.owner,
        "public": function.public,
        "meta": metadata,
        "metadata": metadata,
        "created_at": clock::as_seconds(function.created_at),
    })))
}

async fn delete(
    State(app): State<Arc<App>>,
    Identity(client): Identity,
    PathId(id): PathId,
) -> Result<Json<Value>, ApiError> {
    let function = app
        .store
        .function(id)
        .await?
        .ok_or_else(|| ApiError::function_not_found(id))?;
    if function.owner != client.id {
        return Err(forbidden(id));
    }
    app.store.delete_function(id, clock::now()).await?;
    tracing::info!(function_id = %id, client_id = %client.id, "function deleted");
    Ok(Json(json!({"result": 302})))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn source_is_packed_as_the_sdk_unpacks_it() {
        // Lengths count characters, as Python does, not bytes.
        assert_eq!(pack_source("f", "é"), "6\nst\nf:é");
    }
}
