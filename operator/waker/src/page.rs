//! What the waker answers itself.

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderValue, RETRY_AFTER, VARY, X_CONTENT_TYPE_OPTIONS};
use hyper::{Response, StatusCode};

use crate::body::Body;
use crate::task::Task;

/// The page in both forms.
#[derive(Clone, Debug)]
pub(crate) struct Page {
    html: Bytes,
    json: Bytes,
    retry_after: HeaderValue,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    Html,
    Json,
}

// === impl Page ===

impl Page {
    pub(crate) fn new(task: &Task) -> Page {
        Page {
            html: task.html.clone().into(),
            json: task.json.clone().into(),
            retry_after: task.retry_after_s.into(),
        }
    }

    /// 503, as the maintenance page answers.
    pub(crate) fn answer(&self, accept: Option<&HeaderValue>) -> Response<Body> {
        let (text, kind) = match form(accept) {
            Form::Html => (&self.html, "text/html; charset=utf-8"),
            Form::Json => (&self.json, "application/json"),
        };
        let mut response = plain(StatusCode::SERVICE_UNAVAILABLE, text.clone(), kind);
        let headers = response.headers_mut();
        headers.insert(RETRY_AFTER, self.retry_after.clone());
        headers.insert(VARY, HeaderValue::from_static("Accept"));
        headers.insert("x-skep-page", HeaderValue::from_static("1"));
        headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        response
    }
}

/// A short answer that nobody keeps.
pub(crate) fn plain(status: StatusCode, text: Bytes, kind: &'static str) -> Response<Body> {
    let mut response = Response::new(Body::Own(Full::new(text)));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// JSON for who names it first, or names it and no page; the page for everybody else.
fn form(accept: Option<&HeaderValue>) -> Form {
    let accept = accept.and_then(|a| a.to_str().ok()).unwrap_or_default().to_ascii_lowercase();
    let mut kinds = accept.split(',').map(|k| k.split(';').next().unwrap_or_default().trim());
    let is_json = |kind: &str| kind.ends_with("/json") || kind.ends_with("+json");
    let is_page = |kind: &str| kind == "text/html" || kind == "application/xhtml+xml";
    match kinds.next() {
        Some(first) if is_json(first) => Form::Json,
        Some(first) if is_page(first) => Form::Html,
        _ => {
            let rest: Vec<_> = kinds.collect();
            let json_only = rest.iter().any(|k| is_json(k)) && !rest.iter().any(|k| is_page(k));
            if json_only { Form::Json } else { Form::Html }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_form_is_as_the_maintenance_page_chooses_it() {
        for (accept, expected) in [
            ("", Form::Html),
            ("*/*", Form::Html),
            ("text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8", Form::Html),
            ("application/json", Form::Json),
            ("Application/JSON; charset=utf-8", Form::Json),
            ("application/json, text/html", Form::Json),
            ("text/html, application/json", Form::Html),
            ("application/problem+json", Form::Json),
            ("text/plain, application/json", Form::Json),
            ("text/plain, text/html, application/json", Form::Html),
            ("application/jsonp", Form::Html),
        ] {
            assert_eq!(form(Some(&HeaderValue::from_str(accept).unwrap())), expected, "{accept}");
        }
        assert_eq!(form(None), Form::Html);
    }
}
