//! The status page, its pages of one operation, and the same as JSON.
//!
//! One template renders a page for browsers with and without JavaScript; a small script asks for the same page again
//! and takes over what differs, so that nothing flickers and nothing that is being typed is lost.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::response::{Html, IntoResponse, Response};
use jiff::Timestamp;
use minijinja::syntax::SyntaxConfig;
use minijinja::value::Serde;
use minijinja::{Environment, UndefinedBehavior, Value, context};
use serde::Serialize;
use serde_json::json;

use super::server::{Desk, Shared};
use super::shown::{Overview, ShownOperation};
use super::view::View;
use super::words;

const STYLE: &str = include_str!("templates/status.css");
const SCRIPT: &str = include_str!("templates/status.js");
const LOGO: &str = include_str!("templates/skep.svg");

/// Renders pages.
pub struct Pages {
    templates: Environment<'static>,
}

// === impl Pages ===

impl Default for Pages {
    fn default() -> Pages {
        Pages::new()
    }
}

impl Pages {
    /// With the templates that are part of the binary.
    ///
    /// # Panics
    /// Never: a test renders every template.
    pub fn new() -> Pages {
        let mut templates = Environment::new();
        templates.set_undefined_behavior(UndefinedBehavior::Strict);
        templates.set_syntax(
            SyntaxConfig::builder()
                .trim_blocks(true)
                .lstrip_blocks(true)
                .build()
                .expect("the options are constants"),
        );
        for (name, source) in [
            ("layout.html", include_str!("templates/layout.html")),
            ("parts.html", include_str!("templates/parts.html")),
            ("overview.html", include_str!("templates/overview.html")),
            ("operation.html", include_str!("templates/operation.html")),
            ("message.html", include_str!("templates/message.html")),
        ] {
            templates.add_template(name, source).expect("a test renders every template");
        }
        words::register(&mut templates);
        templates.add_global("style", words::asset("status.css", STYLE));
        templates.add_global("script", words::asset("status.js", SCRIPT));
        templates.add_global("logo", words::asset("skep.svg", LOGO));
        Pages { templates }
    }

    /// The overview.
    pub fn overview(&self, view: &View, can_decide: bool, now: Timestamp) -> Html<String> {
        let page = Overview::of(view, now);
        self.render(
            "overview.html",
            context! { page => of(&page), view => of(&Head::of(view)), can_decide, now => now.to_string() },
        )
    }

    /// The page of one operation; none where there is no such operation.
    pub fn operation(&self, view: &View, id: &str, can_decide: bool, now: Timestamp) -> Option<Html<String>> {
        let op = ShownOperation::of(view.operation(id)?, now);
        Some(self.render(
            "operation.html",
            context! { op => of(&op), view => of(&Head::of(view)), can_decide, now => now.to_string() },
        ))
    }

    /// A page with one sentence.
    pub fn message(&self, text: &str, back: &str) -> Html<String> {
        self.render("message.html", context! { text, back, view => of(&Head::nothing()) })
    }

    fn render(&self, name: &str, context: Value) -> Html<String> {
        let template = self.templates.get_template(name).expect("all are added at the beginning");
        Html(template.render(context).unwrap_or_else(|e| {
            debug_assert!(false, "a page cannot be rendered: {e:#}");
            tracing::error!(error = %e, name, "a page cannot be rendered");
            "<!doctype html><title>Skep</title><p>This page cannot be shown; the JSON at /api/v1/status can."
                .to_owned()
        }))
    }
}

fn of(value: &impl Serialize) -> Value {
    Value::from(Serde(value))
}

/// What the frame of every page shows.
#[derive(Serialize)]
struct Head<'a> {
    cluster: &'a str,
    version: &'a str,
    leads: bool,
    leader: Option<&'a str>,
    trouble: Option<&'a str>,
    taken: Option<Timestamp>,
}

// === impl Head ===

impl Head<'_> {
    fn of(view: &View) -> Head<'_> {
        Head {
            cluster: &view.cluster,
            version: &view.version,
            leads: view.leads,
            leader: view.leader.as_deref(),
            trouble: view.trouble.as_deref(),
            taken: Some(view.taken),
        }
    }

    const fn nothing() -> Head<'static> {
        Head { cluster: "", version: "", leads: true, leader: None, trouble: None, taken: None }
    }
}

pub(super) async fn overview<D: Desk>(State(shared): State<Arc<Shared<D>>>) -> Response {
    let Some(view) = shared.desk.view() else { return starting(&shared) };
    let can_decide = !shared.people_tokens.is_empty();
    shared.pages.overview(&view, can_decide, (shared.now)()).into_response()
}

pub(super) async fn operation<D: Desk>(
    State(shared): State<Arc<Shared<D>>>,
    Path(id): Path<String>,
) -> Response {
    let Some(view) = shared.desk.view() else { return starting(&shared) };
    let can_decide = !shared.people_tokens.is_empty();
    match shared.pages.operation(&view, &id, can_decide, (shared.now)()) {
        Some(page) => page.into_response(),
        None => missing(&shared, "There is no such operation, or its record was removed after its time."),
    }
}

pub(super) async fn not_found<D: Desk>(State(shared): State<Arc<Shared<D>>>) -> Response {
    missing(&shared, "There is no such page.")
}

fn missing<D>(shared: &Shared<D>, text: &str) -> Response {
    (StatusCode::NOT_FOUND, shared.pages.message(text, "/")).into_response()
}

fn starting<D>(shared: &Shared<D>) -> Response {
    let text = "Skep has just started and reads the Swarm: this takes a moment.";
    (StatusCode::SERVICE_UNAVAILABLE, shared.pages.message(text, "/")).into_response()
}

pub(super) async fn api_overview<D: Desk>(State(shared): State<Arc<Shared<D>>>) -> Response {
    match shared.desk.view() {
        Some(view) => Json(&*view).into_response(),
        None => (StatusCode::SERVICE_UNAVAILABLE, Json(json!({ "error": "the Swarm is being read" })))
            .into_response(),
    }
}

pub(super) async fn api_operation<D: Desk>(
    State(shared): State<Arc<Shared<D>>>,
    Path(id): Path<String>,
) -> Response {
    let view = shared.desk.view();
    match view.as_deref().and_then(|v| v.operation(&id)) {
        Some(operation) => Json(operation).into_response(),
        None => {
            (StatusCode::NOT_FOUND, Json(json!({ "error": "there is no such operation" }))).into_response()
        }
    }
}

pub(super) async fn asset(Path(name): Path<String>) -> Response {
    let (kind, text) = match name.as_str() {
        "status.css" => ("text/css; charset=utf-8", STYLE),
        "status.js" => ("text/javascript; charset=utf-8", SCRIPT),
        "skep.svg" => ("image/svg+xml", LOGO),
        _ => return StatusCode::NOT_FOUND.into_response(),
    };
    // The address carries the hash of the content.
    ([(CONTENT_TYPE, kind), (CACHE_CONTROL, "public, max-age=31536000, immutable")], text).into_response()
}

#[cfg(test)]
#[path = "status_tests.rs"]
mod tests;
