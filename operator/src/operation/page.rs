//! The maintenance page as a task template: what a service's own template becomes while `swap` holds it.

use serde_json::{Value, json};

use super::client_spec::PAGE_IMAGE;
use super::frozen::{Client, Method};
use super::record::Work;
use super::saga::{Cx, Fault};
use crate::engines::nginx;
use crate::swarm::error::Error;
use crate::swarm::object::{Kind, OP, short_hash};

/// Builds the page's task template for a client and makes the configs that it mounts. Networks, placement and
/// everything outside the template stay those of `base`.
///
/// # Errors
/// What the engine says.
pub async fn template(cx: &mut Cx<'_>, client: &Client, base: &Value) -> Result<Value, Fault> {
    let Method::Swap { image, ports, page, retry_after, .. } = &client.method else {
        return Err(Fault::failed(format!("{} has no maintenance page", client.name)));
    };
    let text = nginx::PageText {
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
            | Work::Verify { .. }
            | Work::Import { .. }
            | Work::Point { .. }
            | Work::Sleep { .. }
            | Work::Wake
            | Work::Restart { .. }
            | Work::Rollback { .. } => None,
        },
        retry_after: *retry_after,
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
        configs.push(file(cx, client, part, path, content.as_bytes()).await?);
    }
    let image = image.as_ref().unwrap_or(&cx.env.settings.page_image);
    let template = &base["TaskTemplate"];
    let mut page = json!({
        "ContainerSpec": {
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
        },
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
    if let Some(dns) = template["ContainerSpec"].get("DNSConfig") {
        page["ContainerSpec"]["DNSConfig"] = dns.clone();
    }
    Ok(page)
}

/// The user's own page: the data of a Swarm config of theirs.
async fn user_page(cx: &mut Cx<'_>, name: &str) -> Result<Option<String>, Fault> {
    match cx.engine().config(name).await {
        Ok(config) => Ok(String::from_utf8(config.data).ok()),
        Err(Error::NotFound { .. }) => {
            cx.remark(format!("the page `{name}` is not among the Swarm's configs; Skep's own was shown"));
            Ok(None)
        }
        Err(other) => Err(other.into()),
    }
}

async fn file(cx: &Cx<'_>, client: &Client, part: &str, path: &str, data: &[u8]) -> Result<Value, Fault> {
    let name = format!("skep-page-{}-{}-{part}", cx.op.id, short_hash(&client.name));
    let id = cx.engine().ensure_config(&name, &cx.labels(Kind::Page), data).await?;
    Ok(json!({
        "File": { "Name": path, "UID": "0", "GID": "0", "Mode": 0o444 },
        "ConfigID": id,
        "ConfigName": name,
    }))
}
