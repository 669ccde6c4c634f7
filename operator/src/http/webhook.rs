//! `POST /webhooks/alertmanager`.
//!
//! Invariants: without a token nothing of the body is read; every decision is a 200, also "do nothing"; what could
//! not be stored is a 503, which Alertmanager sends again. Whether the caller waits for the answer does not matter to
//! what is done.

use std::sync::Arc;

use axum::Json;
use axum::body::{Body, to_bytes};
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::http::header::WWW_AUTHENTICATE;
use axum::response::{IntoResponse, Response};
use http_body_util::LengthLimitError;
use serde_json::json;

use super::metrics::Outcome;
use super::server::{Desk, Shared, WHOLE};
use crate::triggers::alertmanager;

/// Largest body.
pub(super) const LARGEST: usize = 1024 * 1024;

pub(super) async fn alertmanager<D: Desk>(
    State(shared): State<Arc<Shared<D>>>,
    request: Request,
) -> Response {
    let (outcome, response) = match tokio::time::timeout(WHOLE, take(&shared, request)).await {
        Ok(answered) => answered,
        Err(_) => refuse(Outcome::Unstored, "it took too long"),
    };
    shared.metrics.posted(outcome);
    response
}

async fn take<D: Desk>(shared: &Arc<Shared<D>>, request: Request) -> (Outcome, Response) {
    if !shared.webhook_tokens.accept_header(request.headers()) {
        tracing::warn!("a post to the webhook carried no valid token");
        return refuse(Outcome::Unauthorized, "a valid bearer token is needed");
    }
    let body = match read(request.into_body()).await {
        Ok(body) => body,
        Err(refusal) => return refusal,
    };
    let entries = match alertmanager::read(&body) {
        Ok(entries) => entries,
        Err(e) => return refuse(Outcome::Malformed, &e.to_string()),
    };
    let desk = Arc::clone(shared);
    let judged = tokio::spawn(async move { desk.desk.alerts(entries).await }).await;
    match judged {
        Ok(Ok(decided)) => {
            for one in &decided {
                shared.metrics.decided(one.decision);
                let service = one.service.as_deref().unwrap_or("-");
                tracing::info!(alert = one.alert, service, decision = one.decision, "{}", one.sentence);
            }
            (Outcome::Accepted, Json(json!({ "decided": decided })).into_response())
        }
        Ok(Err(e)) => refuse(Outcome::Unstored, &e.to_string()),
        Err(_) => refuse(Outcome::Unstored, "judging it failed"),
    }
}

async fn read(body: Body) -> Result<axum::body::Bytes, (Outcome, Response)> {
    to_bytes(body, LARGEST).await.map_err(|e| {
        let too_large = std::error::Error::source(&e).is_some_and(|s| s.is::<LengthLimitError>());
        if too_large {
            refuse(Outcome::TooLarge, "the body is larger than 1 MiB")
        } else {
            refuse(Outcome::Malformed, "the body broke off")
        }
    })
}

fn refuse(outcome: Outcome, why: &str) -> (Outcome, Response) {
    let status = match outcome {
        Outcome::Accepted => StatusCode::OK,
        Outcome::Unauthorized => StatusCode::UNAUTHORIZED,
        Outcome::Malformed => StatusCode::BAD_REQUEST,
        Outcome::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
        Outcome::Unstored => StatusCode::SERVICE_UNAVAILABLE,
    };
    let mut response = (status, Json(json!({ "error": why }))).into_response();
    if status == StatusCode::UNAUTHORIZED {
        let challenge = axum::http::HeaderValue::from_static("Bearer realm=\"skep\"");
        response.headers_mut().insert(WWW_AUTHENTICATE, challenge);
    }
    (outcome, response)
}
