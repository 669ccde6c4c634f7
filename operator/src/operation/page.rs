//! What stands in for a service as a task template: its own becomes the maintenance page while `swap` holds it, or the waker
//! while it sleeps.

use serde_json::{Value, json};

use super::client_spec::PAGE_IMAGE;
use super::frozen::{Client, Method};
use super::record::Work;
use super::saga::{Cx, Fault};
use super::waker;
use crate::engines::nginx;
use crate::swarm::error::Error;
use crate::swarm::object::{Kind, OP, short_hash};

/// Builds the task template of what stands in for a client, and makes the configs that it mounts. Networks, placement and
/// everything outside the template stay those of `base`.
///
/// # Errors
/// What the engine says.
pub async fn template(cx: &mut Cx<'_>, client: &Client, base: &Value) -> Result<Value, Fault> {
    match &client.method {
        Method::Zero | Method::Fewer { .. } => {
            Err(Fault::failed(format!("nothing stands in for {}", client.name)))
        }
        Method::Waker(waker) => waker::template(cx, client, waker, base).await,
        Method::Swap { image, ports, page, retry_after, .. } => {
            let image = image.clone().unwrap_or_else(|| cx.env.settings.page_image.clone());
            maintenance(cx, client, base, &image, ports, page.as_deref(), *retry_after).await
        }
    }
}

async fn maintenance(
    cx: &mut Cx<'_>,
    client: &Client,
    base: &Value,
    image: &str,
    ports: &[u16],
    page: Option<&str>,
    retry_after: u32,
) -> Result<Value, Fault> {
    let text = nginx::PageText {
        reason: nginx::Reason::Maintenance,
        title: "Down for maintenance".to_owned(),
        message: "We are working on it and will be back shortly.".to_owned(),
        started: cx.op.intent.created,
        // How long a restore takes nobody knows well enough to promise it to users.
        expected_end: match cx.op.intent.work {
            Work::Maintenance { until } => until,
            Work::Backup
            | Work::Restore { .. }
            | Work::Drill { .. }
            | Work::Expire
            | Work::Report
            | Work::Verify { .. }
            | Work::Import { .. }
            | Work::Point { .. }
            | Work::Sleep { .. }
            | Work::Wake
            | Work::Restart { .. }
            | Work::Update { .. }
            | Work::Rollback { .. } => None,
        },
        retry_after,
        operation: cx.op.id.to_string(),
    };
    let rendered = nginx::render(&text, ports);
    let html = match page {
        Some(name) => user_page(cx, name).await?.unwrap_or(rendered.html),
        None => rendered.html,
    };
    let files = [
        ("conf", nginx::CONF_PATH, rendered.conf),
        ("html", nginx::HTML_PATH, html),
        ("json", nginx::JSON_PATH, rendered.json),
    ];
    let mut configs = Vec::new();
    for (part, path, content) in files {
        configs.push(file(cx, client, Kind::Page, part, path, content.as_bytes()).await?);
    }
    let container = json!({
        "Image": image,
        "Labels": { OP: cx.op.id.as_str(), PAGE_IMAGE: image },
        "Configs": configs,
        "Healthcheck": {
            "Test": nginx::health_test(ports),
            "Interval": 500_000_000u64,
            "Timeout": 2_000_000_000u64,
            "StartPeriod": 5_000_000_000u64,
            "Retries": 3,
        },
        "Isolation": "default",
    });
    Ok(in_place_of(base, container))
}

/// A template with this container in place of the one of `base`: on the same networks and nodes.
pub(super) fn in_place_of(base: &Value, mut container: Value) -> Value {
    let template = &base["TaskTemplate"];
    if let Some(dns) = template["ContainerSpec"].get("DNSConfig") {
        container["DNSConfig"] = dns.clone();
    }
    let mut page = json!({
        "ContainerSpec": container,
        "RestartPolicy": { "Condition": "any", "Delay": 1_000_000_000u64, "MaxAttempts": 0 },
        // A deploy carries this number over: it must find the application's own.
        "ForceUpdate": template["ForceUpdate"].as_u64().unwrap_or(0),
        "Runtime": "container",
    });
    for kept in ["Networks", "Placement"] {
        if let Some(value) = template.get(kept) {
            page[kept] = value.clone();
        }
    }
    page
}

/// The user's own page: the data of a Swarm config of theirs.
pub(super) async fn user_page(cx: &mut Cx<'_>, name: &str) -> Result<Option<String>, Fault> {
    match cx.engine().config(name).await {
        Ok(config) => Ok(String::from_utf8(config.data).ok()),
        Err(Error::NotFound { .. }) => {
            cx.remark(format!("the page `{name}` is not among the Swarm's configs; Skep's own was shown"));
            Ok(None)
        }
        Err(other) => Err(other.into()),
    }
}

/// A file in the container of what stands in for a client: a config, and how it is mounted.
pub(super) async fn file(
    cx: &Cx<'_>,
    client: &Client,
    kind: Kind,
    part: &str,
    path: &str,
    data: &[u8],
) -> Result<Value, Fault> {
    let name = format!("skep-{}-{}-{}-{part}", kind.as_str(), cx.op.id, short_hash(&client.name));
    let id = cx.engine().ensure_config(&name, &cx.labels(kind), data).await?;
    Ok(json!({
        "File": { "Name": path, "UID": "0", "GID": "0", "Mode": 0o444 },
        "ConfigID": id,
        "ConfigName": name,
    }))
}
