//! Watches without touching: the alert on its way, and the operation that it leads to.

use std::time::Duration;

use serde_json::Value;
use tokio::time::{Instant, sleep};

use super::Outcome;
use super::stage::{Stage, until};

/// Longest time from the damage to an operation.
const NOTICED: Duration = Duration::from_secs(90);

/// An operation that has ended, as Skep shows it.
pub(super) struct Ended {
    pub(super) state: String,
    pub(super) remarks: Vec<String>,
    /// From the moment that it was asked for, in seconds.
    pub(super) took_s: f64,
}

/// Tells of the alert until Skep has an operation for it; answers that one's id.
pub(super) async fn alert(stage: &Stage, port: u16, since: Instant) -> Outcome<String> {
    let mut told = String::new();
    loop {
        // Between two looks each may be out of reach for a moment; only the deadline is an error.
        let rule = rule_state(stage).await.unwrap_or_default();
        if !rule.is_empty() && rule != told {
            println!("  {:5.1} s  Prometheus: ShopOrdersBroken is {rule}", since.elapsed().as_secs_f64());
            told = rule;
        }
        if let Ok(status) = stage.json(port, "/api/v1/status").await
            && let Some(op) = operation_of_alert(&status)
        {
            let by = op["asked_by"].as_str().unwrap_or_default();
            println!("  {:5.1} s  Skep: a restore, asked for by {by}", since.elapsed().as_secs_f64());
            return op["id"].as_str().map(str::to_owned).ok_or_else(|| "it has no id".to_owned());
        }
        if since.elapsed() > NOTICED {
            return Err(format!(
                "no restore {} s after the damage; the alert is {told:?}",
                NOTICED.as_secs()
            ));
        }
        sleep(Duration::from_millis(200)).await;
    }
}

async fn rule_state(stage: &Stage) -> Outcome<String> {
    let alerts = stage.json(super::PROMETHEUS_PORT, "/api/v1/alerts").await?;
    let alerts = alerts["data"]["alerts"].as_array().cloned().unwrap_or_default();
    let ours = alerts.iter().find(|alert| alert["labels"]["alertname"] == "ShopOrdersBroken");
    Ok(ours.and_then(|alert| alert["state"].as_str()).unwrap_or_default().to_owned())
}

fn operation_of_alert(status: &Value) -> Option<&Value> {
    let by_alert = |op: &&Value| op["asked_by"].as_str().is_some_and(|by| by.starts_with("alert "));
    status["operations"].as_array()?.iter().filter(|op| op["kind"] == "restore").find(by_alert)
}

/// Follows the operation with the command line's own view, then reads how it ended.
pub(super) async fn operation(stage: &Stage, port: u16, id: &str) -> Outcome<Ended> {
    stage.skep(&["ops", "show", id, "--follow"]).await?;
    let path = format!("/api/v1/operations/{id}");
    until("the status page to know the end of the restore", Duration::from_secs(30), async || {
        let view = stage.json(port, &path).await?;
        ended(&view).ok_or_else(|| format!("the operation is {}", view["state"]))
    })
    .await
}

fn ended(view: &Value) -> Option<Ended> {
    let time = |key: &str| view[key].as_str()?.parse::<jiff::Timestamp>().ok();
    let remarks = view["remarks"].as_array().cloned().unwrap_or_default();
    Some(Ended {
        took_s: time("ended")?.duration_since(time("created")?).as_secs_f64(),
        state: view["state"].as_str()?.to_owned(),
        remarks: remarks.iter().filter_map(|remark| remark.as_str().map(str::to_owned)).collect(),
    })
}

// === impl Ended ===

impl Ended {
    /// The database in which the old data is kept.
    pub(super) fn kept_database(&self) -> Outcome<&str> {
        let named = self
            .remarks
            .iter()
            .find_map(|remark| remark.strip_prefix("the old data is kept as database `")?.split('`').next());
        named.ok_or_else(|| format!("no remark names a kept database: {:?}", self.remarks))
    }
}
