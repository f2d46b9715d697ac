//! The model hub's routes: those of Firebase's login and of OpenGradient's hub. Reached by the unmodified SDK through a proxy that
//! stands for its hosts (`clients/hub_proxy.py`).

use std::io::Write;
use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::{Multipart, Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use isobit_hub::{AccountError, Tokens};
use serde_json::{Value, json};

use crate::model_hub::{self, ModelHub, Refusal};
use crate::{Local, NodeError};

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.0).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        (status, Json(json!({ "detail": self.1 }))).into_response()
    }
}

type Answer = Result<(StatusCode, Json<Value>), Refusal>;

async fn blocking<T: Send + 'static>(
    f: impl FnOnce() -> Result<T, Refusal> + Send + 'static,
) -> Result<T, Refusal> {
    let done = tokio::task::spawn_blocking(f).await;
    done.unwrap_or_else(|_| Err(NodeError::Stopping.into()))
}

fn text(body: &Value, keys: &[&str]) -> String {
    keys.iter().find_map(|k| body.get(k)?.as_str()).unwrap_or("").to_owned()
}

fn object(body: &Bytes) -> Result<Value, Refusal> {
    serde_json::from_slice(body).map_err(|e| Refusal(422, format!("the body is no JSON: {e}")))
}

/// The hub's routes. `is_open`: anybody can make an account.
pub(crate) fn routes(hub: Arc<ModelHub>, is_open: bool) -> Router<Local> {
    let login = post({
        let hub = hub.clone();
        async move |body: Bytes| {
            session(&hub, &body, |hub, body| {
                let email = text(body, &["email"]);
                let tokens = hub.accounts.login(&email, &text(body, &["password"]), model_hub::now())?;
                Ok(model_hub::logged_in(&tokens, &email))
            })
            .await
        }
    });
    let sign_up = post({
        let hub = hub.clone();
        async move |body: Bytes| {
            session(&hub, &body, move |hub, body| {
                if !is_open {
                    return Err(AccountError::Invalid(
                        "accounts are made by the operator: isobit hub add-user",
                    ));
                }
                let (email, password) = (text(body, &["email"]), text(body, &["password"]));
                let name = text(body, &["displayName"]);
                let name =
                    if name.is_empty() { email.split('@').next().unwrap_or("").to_owned() } else { name };
                hub.accounts.add(&email, &name, &password)?;
                let tokens = hub.accounts.login(&email, &password, model_hub::now())?;
                Ok(model_hub::logged_in(&tokens, &email))
            })
            .await
        }
    });
    let refresh = post({
        let hub = hub.clone();
        async move |body: Bytes| {
            session(&hub, &body, |hub, body| {
                let token = text(body, &["refreshToken", "refresh_token"]);
                let tokens: Tokens = hub.accounts.refresh(&token, model_hub::now())?;
                Ok(model_hub::refreshed(&tokens))
            })
            .await
        }
    });
    let create = post({
        let hub = hub.clone();
        async move |State(local): State<Local>, headers: HeaderMap, body: Bytes| -> Answer {
            let created = as_user(&hub, &headers, move |hub, user| {
                let body = object(&body)?;
                hub.create(&local, user, &text(&body, &["name"]), &text(&body, &["description"]))
            });
            Ok((StatusCode::CREATED, Json(created.await?)))
        }
    });
    let list = {
        let hub = hub.clone();
        async move |headers: HeaderMap| -> Answer {
            Ok((StatusCode::OK, Json(as_user(&hub, &headers, |hub, _| hub.models()).await?)))
        }
    };
    let version = {
        let hub = hub.clone();
        async move |State(local): State<Local>,
                    Path(name): Path<String>,
                    headers: HeaderMap,
                    body: Bytes|
                    -> Answer {
            let made = as_user(&hub, &headers, move |hub, user| {
                let body = object(&body)?;
                let is_major = body.get("is_major").and_then(Value::as_bool).unwrap_or(false);
                hub.version(&local, user, &name, &text(&body, &["notes"]), is_major)
            });
            Ok((StatusCode::CREATED, Json(made.await?)))
        }
    };
    let files = {
        let hub = hub.clone();
        async move |Path((name, version)): Path<(String, String)>, headers: HeaderMap| -> Answer {
            let files = as_user(&hub, &headers, move |hub, user| hub.files(user, &name, &version));
            Ok((StatusCode::OK, Json(files.await?)))
        }
    };
    let upload =
        async move |State(local): State<Local>,
                    Path(place): Path<(String, String)>,
                    headers: HeaderMap,
                    form: Multipart| { upload(hub, local, place, headers, form).await };
    Router::new()
        .route("/identitytoolkit/v3/relyingparty/verifyPassword", login)
        .route("/identitytoolkit/v3/relyingparty/signupNewUser", sign_up)
        .route("/v1/token", refresh)
        .route("/api/v0/models/", create.get(list))
        .route("/api/v0/models/{name}/versions", post(version))
        .route("/api/v0/models/{name}/versions/{version}/files", get(files).post(upload))
}

/// Something of Firebase's: its errors have a form of their own.
async fn session(
    hub: &Arc<ModelHub>,
    body: &Bytes,
    f: impl FnOnce(&ModelHub, &Value) -> Result<Value, AccountError> + Send + 'static,
) -> Response {
    let (hub, body) = (hub.clone(), serde_json::from_slice(body).unwrap_or(Value::Null));
    let done = tokio::task::spawn_blocking(move || f(&hub, &body)).await;
    match done {
        Ok(Ok(value)) => Json(value).into_response(),
        Ok(Err(e)) => {
            let (status, body) = model_hub::firebase_error(&e);
            (StatusCode::from_u16(status).unwrap_or(StatusCode::BAD_REQUEST), Json(body)).into_response()
        }
        Err(_) => StatusCode::SERVICE_UNAVAILABLE.into_response(),
    }
}

/// Something that only people with an account may do.
async fn as_user(
    hub: &Arc<ModelHub>,
    headers: &HeaderMap,
    f: impl FnOnce(&ModelHub, &str) -> Result<Value, Refusal> + Send + 'static,
) -> Result<Value, Refusal> {
    let token = bearer(headers)?;
    let hub = hub.clone();
    blocking(move || {
        let user = hub.accounts.who(&token, model_hub::now())?;
        f(&hub, &user)
    })
    .await
}

fn bearer(headers: &HeaderMap) -> Result<String, Refusal> {
    let token = headers.get("authorization").and_then(|h| h.to_str().ok()?.strip_prefix("Bearer "));
    token.map(str::to_owned).ok_or_else(|| Refusal(401, "log in first".into()))
}

async fn upload(
    hub: Arc<ModelHub>,
    local: Local,
    (name, version): (String, String),
    headers: HeaderMap,
    mut form: Multipart,
) -> Answer {
    // Nobody without an account has anything stored.
    let token = bearer(&headers)?;
    let user = {
        let hub = hub.clone();
        blocking(move || Ok(hub.accounts.who(&token, model_hub::now())?)).await?
    };
    let bad = |e: &dyn std::fmt::Display| Refusal(422, format!("the upload: {e}"));
    let mut field = loop {
        match form.next_field().await.map_err(|e| bad(&e))? {
            Some(field) if field.name() == Some("file") => break field,
            Some(_) => {}
            None => return Err(bad(&"there is no field 'file'")),
        }
    };
    let path = field.file_name().unwrap_or("").to_owned();
    if path.is_empty() {
        return Err(bad(&"the file has no name"));
    }
    let mut file = tempfile::tempfile().map_err(|e| bad(&e))?;
    while let Some(chunk) = field.chunk().await.map_err(|e| bad(&e))? {
        file = blocking(move || {
            file.write_all(&chunk).map_err(|e| Refusal(503, e.to_string()))?;
            Ok(file)
        })
        .await?;
    }
    let made = blocking(move || {
        std::io::Seek::rewind(&mut file).map_err(|e| Refusal(503, e.to_string()))?;
        hub.upload(&local, &user, (&name, &version), &path, file)
    });
    Ok((StatusCode::CREATED, Json(made.await?)))
}
