//! `POST /v1/wake`: what stands in for a service that sleeps, or before one, says that somebody asks for it. `POST /v1/sleep`: what
//! stands before one says that nobody does.
//!
//! Invariants: each waker has a token of its own, which wakes its own service and does nothing else; that of a door wakes its own
//! service and lets it sleep; the answer comes when the operation is stored, not when it is done.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::extract::rejection::JsonRejection;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::json;
use skep_waker::task::Token;

use super::server::{Desk, Shared};
use super::token::bearer;
use crate::operation::record::OpId;
use crate::operation::waker::{Granted, Request};
use crate::triggers::doors::{Lulled, Unused};

/// What the waker says; a door names no sleep.
#[derive(Deserialize)]
pub(super) struct Said {
    service: String,
    #[serde(default)]
    sleep: Option<String>,
}

/// What a door says that sees nobody.
#[derive(Deserialize)]
pub(super) struct SaidUnused {
    service: String,
    /// Seconds since 1970.
    asked: i64,
}

fn refuse(status: StatusCode, why: &str) -> Response {
    (status, Json(json!({ "error": why }))).into_response()
}

fn under_way(id: &OpId) -> Response {
    (StatusCode::ACCEPTED, Json(json!({ "operation": id }))).into_response()
}

pub(super) async fn wake<D: Desk>(
    State(shared): State<Arc<Shared<D>>>,
    headers: HeaderMap,
    said: Result<Json<Said>, JsonRejection>,
) -> Response {
    let Some(token) = bearer(&headers) else {
        return refuse(StatusCode::UNAUTHORIZED, "a bearer token is needed");
    };
    let Ok(Json(Said { service, sleep })) = said else {
        return refuse(StatusCode::BAD_REQUEST, "want `service` in JSON, and `sleep` of a waker");
    };
    let request = Request { service, sleep, token: Token::new(token) };
    match shared.desk.wake(&request).await {
        Ok(Granted::UnderWay(id)) => under_way(&id),
        Ok(Granted::Awake) => refuse(StatusCode::NOT_FOUND, "it does not sleep"),
        Ok(Granted::Stranger) => {
            tracing::warn!(service = request.service, "a wake was asked for without the token of this sleep");
            refuse(StatusCode::FORBIDDEN, "this is not the waker of this sleep")
        }
        Err(denied) => refuse(denied.status(), &denied.to_string()),
    }
}

pub(super) async fn lull<D: Desk>(
    State(shared): State<Arc<Shared<D>>>,
    headers: HeaderMap,
    said: Result<Json<SaidUnused>, JsonRejection>,
) -> Response {
    let Some(token) = bearer(&headers) else {
        return refuse(StatusCode::UNAUTHORIZED, "a bearer token is needed");
    };
    let said = said.ok().and_then(|Json(SaidUnused { service, asked })| {
        Some(Unused { service, asked: Timestamp::from_second(asked).ok()?, token: Token::new(token) })
    });
    let Some(unused) = said else {
        return refuse(StatusCode::BAD_REQUEST, "want `service` and `asked` in JSON");
    };
    match shared.desk.lull(&unused).await {
        Ok(Lulled::UnderWay(id)) => under_way(&id),
        Ok(Lulled::NotNow(why)) => refuse(StatusCode::CONFLICT, why),
        Ok(Lulled::Stranger) => {
            tracing::warn!(service = unused.service, "a sleep was asked for without the token of the door");
            refuse(StatusCode::FORBIDDEN, "this is not the door of this service")
        }
        Err(denied) => refuse(denied.status(), &denied.to_string()),
    }
}
