//! The maintenance page as an nginx that answers every request with it: its HTML, its JSON, and the server's whole
//! configuration. Pure.
//!
//! Works with any nginx image (official, Alpine, unprivileged, Debian's): the configuration replaces `nginx.conf`, so
//! nothing of the image's own sites is left, and the page is two files beside it. All three are delivered as Swarm
//! configs; a page of the user's own takes the place of the HTML.

use std::sync::LazyLock;

use jiff::Timestamp;
use jiff::tz::TimeZone;
use minijinja::syntax::SyntaxConfig;
use minijinja::{Environment, UndefinedBehavior, context};
use serde::Serialize;
use serde_json::json;

/// Where the configuration belongs in the container.
pub const CONF_PATH: &str = "/etc/nginx/nginx.conf";
/// Where the HTML belongs in the container.
pub const HTML_PATH: &str = "/etc/nginx/skep/page.html";
/// Where the JSON belongs in the container.
pub const JSON_PATH: &str = "/etc/nginx/skep/page.json";

/// Why a page is shown in place of the application.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// People work on it.
    Maintenance,
    /// It sleeps.
    Asleep,
}

/// What the page says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PageText {
    /// Why it is shown.
    pub reason: Reason,
    /// Heading.
    pub title: String,
    /// One or two sentences.
    pub message: String,
    /// Since when it is shown.
    pub started: Timestamp,
    /// When it should be over, where that is known.
    pub expected_end: Option<Timestamp>,
    /// `Retry-After`, seconds.
    pub retry_after: u32,
    /// Id of the operation, for whoever calls about it.
    pub operation: String,
}

/// The files of a page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rendered {
    /// For [`HTML_PATH`].
    pub html: String,
    /// For [`JSON_PATH`].
    pub json: String,
    /// For [`CONF_PATH`].
    pub conf: String,
}

#[derive(Serialize)]
struct Moment {
    machine: String,
    human: String,
}

static TEMPLATES: LazyLock<Environment<'static>> = LazyLock::new(|| {
    let syntax = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build();
    let mut templates = Environment::new();
    templates.set_undefined_behavior(UndefinedBehavior::Strict);
    templates.set_syntax(syntax.expect("the syntax is a constant and tested"));
    let sources =
        [("page.html", include_str!("page/page.html")), ("nginx.conf", include_str!("page/nginx.conf"))];
    for (name, source) in sources {
        templates.add_template(name, source).expect("the template is a constant and tested");
    }
    templates
});

/// Renders a page that is served on `ports`.
pub fn render(text: &PageText, ports: &[u16]) -> Rendered {
    let html = context! {
        title => text.title.as_str(),
        message => text.message.as_str(),
        started => minijinja::value::Serde(Moment::of(text.started)),
        expected_end => text.expected_end.map(|at| minijinja::Value::from(minijinja::value::Serde(Moment::of(at)))),
        operation => text.operation.as_str(),
        refresh => text.retry_after.clamp(2, 300),
    };
    let ports: std::collections::BTreeSet<u16> = ports.iter().copied().collect();
    let conf = context! {
        ports => ports.into_iter().collect::<Vec<_>>(),
        retry_after => text.retry_after,
        html => HTML_PATH,
        json => JSON_PATH,
    };
    let json = json!({
        "error": match text.reason {
            Reason::Maintenance => "maintenance",
            Reason::Asleep => "asleep",
        },
        "status": 503,
        "title": text.title,
        "message": text.message,
        "started": text.started.to_string(),
        "expected_end": text.expected_end.map(|at| at.to_string()),
        "retry_after": text.retry_after,
        "operation": text.operation,
    });
    Rendered { html: fill("page.html", html), json: format!("{json}\n"), conf: fill("nginx.conf", conf) }
}

/// A health check of the page's container: answers of the server itself on every port. Needs a shell, and `curl` or
/// `wget` (the official images have one of them); without either it looks whether the server runs.
pub fn health_test(ports: &[u16]) -> Vec<String> {
    let ports = ports.iter().map(u16::to_string).collect::<Vec<_>>().join(" ");
    let script = format!(
        r#"for port in {ports}; do url="http://127.0.0.1:$port/__skep/healthy"; if command -v curl >/dev/null; then curl -fsS -m 2 --noproxy '*' -o /dev/null "$url" || exit 1; elif command -v wget >/dev/null; then wget -q -T 2 -O /dev/null "$url" || exit 1; else kill -0 "$(cat /tmp/skep-page.pid)" || exit 1; fi; done"#
    );
    vec!["CMD-SHELL".to_owned(), script]
}

// === impl Moment ===

impl Moment {
    fn of(at: Timestamp) -> Moment {
        let human = at.to_zoned(TimeZone::UTC).strftime("%-d %b %Y, %H:%M UTC").to_string();
        Moment { machine: at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string(), human }
    }
}

fn fill(template: &str, with: minijinja::Value) -> String {
    let template = TEMPLATES.get_template(template).expect("the template is added above");
    template.render(with).expect("the template is given every field that it names, and tested")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text() -> PageText {
        PageText {
            reason: Reason::Maintenance,
            title: "Down for maintenance".to_owned(),
            message: "We are working on it and will be back shortly.".to_owned(),
            started: "2026-11-21T13:00:00Z".parse().unwrap(),
            expected_end: Some("2026-11-21T13:30:00Z".parse().unwrap()),
            retry_after: 120,
            operation: "20261121t130000adhoiy".to_owned(),
        }
    }

    #[test]
    fn markup_in_texts_stays_text() {
        let evil = "</title><script>alert(1)</script>".to_owned();
        let page = render(
            &PageText { title: evil.clone(), message: evil.clone(), operation: evil.clone(), ..text() },
            &[80],
        );
        assert!(!page.html.contains(&evil), "{}", page.html);
        let json: serde_json::Value = serde_json::from_str(&page.json).unwrap();
        assert_eq!(json["message"], evil);
    }

    #[test]
    fn the_page_needs_nothing_from_elsewhere_and_is_small() {
        let page = render(&text(), &[80]);
        for foreign in ["src=", "url(", "<link", "@import", "http:", "https:"] {
            assert!(!page.html.contains(foreign), "{foreign} in {}", page.html);
        }
        assert!(page.html.len() < 6000, "{} bytes", page.html.len());
    }

    #[test]
    fn every_port_is_listened_on_once() {
        let conf = render(&text(), &[8080, 80, 8080]).conf;
        let listens: Vec<&str> = conf.lines().map(str::trim).filter(|l| l.starts_with("listen")).collect();
        assert_eq!(listens, ["listen 80 default_server;", "listen 8080 default_server;"]);
    }

    #[test]
    fn an_end_that_is_not_known_is_not_promised() {
        let page = render(&PageText { expected_end: None, ..text() }, &[80]);
        assert!(!page.html.contains("Expected"), "{}", page.html);
        assert!(page.json.contains(r#""expected_end":null"#), "{}", page.json);
    }

    /// `SKEP_SAMPLES=<directory>` writes the page, to look at.
    #[test]
    fn a_sample_of_the_page_can_be_looked_at() {
        let page = render(&text(), &[80]);
        assert!(page.html.ends_with("</html>"));
        if let Some(directory) = std::env::var_os("SKEP_SAMPLES") {
            std::fs::create_dir_all(&directory).unwrap();
            std::fs::write(std::path::Path::new(&directory).join("page.html"), &page.html).unwrap();
        }
    }
}
