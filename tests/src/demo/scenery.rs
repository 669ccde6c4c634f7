//! What must be there before the play begins: the stacks, healthy, and one Skep that leads.

use std::time::Duration;

use tokio::time::Instant;

use super::Outcome;
use super::show::heading;
use super::stage::{Stage, until};
use crate::sandbox::{MONITORING_NETWORK, http_get};

const PATIENCE: Duration = Duration::from_secs(120);
const SERVICES: usize = 9;

/// Settings of Skep for the demo: alerts settle fast, mail goes to the mail stack.
const SKEP: [(&str, &str); 9] = [
    ("SKEP_CLUSTER", "demo"),
    ("SKEP_PAGE_IMAGE", "skep-test/nginx:1"),
    ("SKEP_SETTLE", "2s"),
    ("SKEP_RESETTLE", "2s"),
    ("SKEP_MAIL_HOST", "mail"),
    ("SKEP_MAIL_CA_FILE", "/mail-authority.pem"),
    ("SKEP_MAIL_USER", "skep"),
    ("SKEP_MAIL_FROM", "Skep <skep@shop.example>"),
    ("SKEP_MAIL_TO", "shop-team@shop.example"),
];

/// Engine, images, secrets, networks and stacks; until all of it is healthy.
pub(super) async fn build(stage: &Stage) -> Outcome<()> {
    heading("the scenery");
    println!("  an engine of its own in its own namespaces; your Docker is not touched");
    println!("  images from Debian packages and static binaries: minutes the first time, then cached");
    let begin = Instant::now();
    stage.up().await?;
    println!("  engine and images: {:.0} s", begin.elapsed().as_secs_f64());
    for name in ["skep-webhook-token", "skep-smtp-password", "shop-db-password"] {
        stage.store("secret", name, &format!("{:032x}", rand::random::<u128>())).await?;
    }
    let certificate = ["run", "--rm", "--entrypoint", "cat", "skep-test/mail:1", "/etc/mail/tls/ca.crt"];
    let certificate = stage.docker(&certificate).await?;
    stage.store("config", "mail-authority", &certificate).await?;
    stage.docker(&["network", "create", "-d", "overlay", "--attachable", MONITORING_NETWORK]).await?;
    stage.deploy("mail", &["manifests/mail.yml"], &[]).await?;
    stage.deploy("shop", &["manifests/shop.yml"], &[]).await?;
    let socket = stage.variable("DOCKER_HOST")?.trim_start_matches("unix://");
    let skep = [&SKEP[..], &[("SKEP_DOCKER_SOCKET", socket)]].concat();
    stage
        .deploy("skep", &["manifests/skep.yml", "manifests/skep-mail.yml", "tests/demo/skep.yml"], &skep)
        .await?;
    stage.deploy("monitoring", &["manifests/monitoring.yml"], &[]).await?;
    until("all services to be there", PATIENCE, async || complete(stage).await).await?;
    until("the shop to answer", PATIENCE, async || {
        let answer = http_get(stage.port(super::SHOP_PORT)?, "/orders/last").await?;
        if answer.status == 200 { Ok(()) } else { Err(format!("it answers {}", answer.status)) }
    })
    .await?;
    until("Prometheus to see the shop and Skep", PATIENCE, async || scraped(stage).await).await?;
    println!("  stacks mail, shop, skep and monitoring are up: {:.0} s", begin.elapsed().as_secs_f64());
    Ok(())
}

/// Swarm counts a task that has a health check as running once it is healthy.
async fn complete(stage: &Stage) -> Outcome<()> {
    let listed = stage.docker(&["service", "ls", "--format", "{{.Name}} {{.Replicas}}"]).await?;
    let is_complete = |line: &&str| {
        let count = line.split_whitespace().nth(1).and_then(|count| count.split_once('/'));
        count.is_some_and(|(running, wanted)| running == wanted)
    };
    if listed.lines().count() == SERVICES && listed.lines().all(|line| is_complete(&line)) {
        return Ok(());
    }
    Err(listed.lines().filter(|line| !is_complete(line)).collect::<Vec<_>>().join(", "))
}

async fn scraped(stage: &Stage) -> Outcome<()> {
    for query in ["shop_orders_table_ok==1", "skep_build_info"] {
        let path = format!("/api/v1/query?query={query}");
        let answer = stage.json(super::PROMETHEUS_PORT, &path).await?;
        if answer["data"]["result"].as_array().is_none_or(Vec::is_empty) {
            return Err(format!("`{query}` gives nothing"));
        }
    }
    Ok(())
}

/// The port of the replica that leads.
pub(super) async fn leader(stage: &Stage) -> Outcome<u16> {
    until("one Skep to lead", PATIENCE, async || {
        for port in stage.skep_ports().await? {
            if stage.json(port, "/api/v1/status").await.is_ok_and(|status| status["leads"] == true) {
                println!("  Skep leads; its status page: http://{}/", stage.port(port)?);
                return Ok(port);
            }
        }
        Err("none does".to_owned())
    })
    .await
}

/// One number of Skep's metrics.
pub(super) async fn metric(stage: &Stage, port: u16, name: &str) -> Outcome<f64> {
    let text = http_get(stage.port(port)?, "/metrics").await?.body;
    let value = text.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok());
    value.ok_or_else(|| format!("{name} is not among the metrics"))
}
