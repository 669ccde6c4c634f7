//! `POST /v1/wake`: what stands in for a service that sleeps says that somebody asks for it.
//!
//! Invariants: each waker has a token of its own, which wakes its own service and does nothing else; the answer comes when the
//! wake is stored, not when it is done.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::extract::rejection::JsonRejection;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde_json::json;
use skep_waker::task::Token;

use super::server::{Desk, Shared};
use super::token::bearer;
use crate::operation::waker::{Granted, Request};

/// What the waker says.
#[derive(Deserialize)]
pub(super) struct Said {
    service: String,
    sleep: String,
}

pub(super) async fn wake<D: Desk>(
    State(shared): State<Arc<Shared<D>>>,
    headers: HeaderMap,
    said: Result<Json<Said>, JsonRejection>,
) -> Response {
    let refuse = |status: StatusCode, why: &str| (status, Json(json!({ "error": why }))).into_response();
    let Some(token) = bearer(&headers) else {
        return refuse(StatusCode::UNAUTHORIZED, "a bearer token is needed");
    };
    let Ok(Json(Said { service, sleep })) = said else {
        return refuse(StatusCode::BAD_REQUEST, "want `service` and `sleep` in JSON");
    };
    let request = Request { service, sleep, token: Token::new(token) };
    match shared.desk.wake(&request).await {
        Ok(Granted::UnderWay(id)) => (StatusCode::ACCEPTED, Json(json!({ "operation": id }))).into_response(),
        Ok(Granted::Awake) => refuse(StatusCode::NOT_FOUND, "it does not sleep"),
        Ok(Granted::Stranger) => {
            tracing::warn!(service = request.service, "a wake was asked for without the token of this sleep");
            refuse(StatusCode::FORBIDDEN, "this is not the waker of this sleep")
        }
        Err(denied) => refuse(denied.status(), &denied.to_string()),
    }
}
