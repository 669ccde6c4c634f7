//! What a person does on the status page or through its JSON: approve, cancel, reset a circuit.
//!
//! Invariants: the token travels in the form or the `Authorization` header of this very request and is never kept in
//! a cookie, so no other site can act in a person's name; without configured tokens nothing can be done here at all.

use std::sync::Arc;

use axum::Json;
use axum::extract::{FromRequest, Path, Request, State};
use axum::http::header::{ACCEPT, CONTENT_TYPE};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Redirect, Response};
use axum::{Form, http::HeaderValue};
use serde::Deserialize;
use serde_json::json;

use super::server::{Denied, Desk, Shared};
use crate::operation::record::OpId;
use crate::runtime::scrub;

/// What a form or a JSON body says.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Said {
    token: String,
    who: String,
}

/// One wish.
enum Wish {
    Approve(OpId),
    Cancel(OpId),
    Reset(String),
}

/// The outcome, in words for either kind of caller.
struct Answer {
    status: StatusCode,
    text: String,
    back: String,
}

pub(super) async fn approve<D: Desk>(
    State(shared): State<Arc<Shared<D>>>,
    Path(id): Path<String>,
    request: Request,
) -> Response {
    fulfil(&shared, OpId::parse(&id).map(Wish::Approve), request).await
}

pub(super) async fn cancel<D: Desk>(
    State(shared): State<Arc<Shared<D>>>,
    Path(id): Path<String>,
    request: Request,
) -> Response {
    fulfil(&shared, OpId::parse(&id).map(Wish::Cancel), request).await
}

pub(super) async fn reset_circuit<D: Desk>(
    State(shared): State<Arc<Shared<D>>>,
    Path(name): Path<String>,
    request: Request,
) -> Response {
    fulfil(&shared, Some(Wish::Reset(name)), request).await
}

async fn fulfil<D: Desk>(shared: &Arc<Shared<D>>, wish: Option<Wish>, request: Request) -> Response {
    let headers = request.headers().clone();
    let answer = decide(shared, wish, request).await;
    if wants_page(&headers) {
        if answer.status.is_success() {
            return Redirect::to(&answer.back).into_response();
        }
        let page = shared.pages.message(&answer.text, &answer.back);
        return (answer.status, page).into_response();
    }
    let name = if answer.status.is_success() { "done" } else { "error" };
    (answer.status, Json(json!({ name: answer.text }))).into_response()
}

async fn decide<D: Desk>(shared: &Arc<Shared<D>>, wish: Option<Wish>, request: Request) -> Answer {
    let answer = |status, text: &str, back: String| Answer { status, text: text.to_owned(), back };
    let Some(wish) = wish else {
        return answer(StatusCode::NOT_FOUND, "There is no such operation.", "/".to_owned());
    };
    let back = wish.page();
    if shared.people_tokens.is_empty() {
        let text = "No token is configured for people, so nothing can be decided here: use the command line.";
        return answer(StatusCode::FORBIDDEN, text, back);
    }
    let by_header = shared.people_tokens.accept_header(request.headers());
    let Some(said) = read(request).await else {
        return answer(StatusCode::BAD_REQUEST, "The request is neither a form nor JSON.", back);
    };
    if !by_header && !shared.people_tokens.accept(&said.token) {
        tracing::warn!(what = wish.name(), "refused on the status page: no valid token");
        return answer(StatusCode::UNAUTHORIZED, "The token is not valid.", back);
    }
    let who = match scrub::line(&said.who, 60) {
        name if name.is_empty() => "somebody on the status page".to_owned(),
        name => format!("{name} (status page)"),
    };
    tracing::info!(what = wish.name(), who, "asked for on the status page");
    // Carried through although the browser may leave.
    let (desk, name) = (Arc::clone(shared), wish.done());
    let done = tokio::spawn(async move {
        match wish {
            Wish::Approve(op) => desk.desk.approve(&op, &who).await,
            Wish::Cancel(op) => desk.desk.cancel(&op, &who).await,
            Wish::Reset(service) => desk.desk.reset_circuit(&service, &who).await,
        }
    });
    match done.await {
        Ok(Ok(())) => answer(StatusCode::OK, name, back),
        Ok(Err(denied)) => answer(denied.status(), &format!("Not done: {denied}."), back),
        Err(_) => answer(StatusCode::INTERNAL_SERVER_ERROR, "Not done: it failed unexpectedly.", back),
    }
}

async fn read(request: Request) -> Option<Said> {
    let kind = request.headers().get(CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or_default();
    if kind.starts_with("application/x-www-form-urlencoded") {
        return Form::from_request(request, &()).await.ok().map(|Form(said)| said);
    }
    if kind.starts_with("application/json") {
        return Json::from_request(request, &()).await.ok().map(|Json(said)| said);
    }
    kind.is_empty().then(Said::default)
}

fn wants_page(headers: &HeaderMap) -> bool {
    let accepts = |v: &HeaderValue| v.to_str().is_ok_and(|v| v.contains("text/html"));
    headers.get(ACCEPT).is_some_and(accepts)
}

// === impl Wish ===

impl Wish {
    const fn name(&self) -> &'static str {
        match self {
            Wish::Approve(_) => "approve",
            Wish::Cancel(_) => "cancel",
            Wish::Reset(_) => "reset-circuit",
        }
    }

    const fn done(&self) -> &'static str {
        match self {
            Wish::Approve(_) => "approved",
            Wish::Cancel(_) => "cancelled",
            Wish::Reset(_) => "the circuit is closed",
        }
    }

    fn page(&self) -> String {
        match self {
            Wish::Approve(op) | Wish::Cancel(op) => format!("/operations/{op}"),
            Wish::Reset(_) => "/".to_owned(),
        }
    }
}

// === impl Denied ===

impl Denied {
    pub(super) const fn status(&self) -> StatusCode {
        match self {
            Denied::NotFound => StatusCode::NOT_FOUND,
            Denied::Conflict(_) => StatusCode::CONFLICT,
            Denied::Unstored(_) => StatusCode::SERVICE_UNAVAILABLE,
        }
    }
}
