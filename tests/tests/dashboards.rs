//! The dashboard and the alert rules: built by the rules of the trade, and every query in them run by a real
//! Prometheus that scrapes what Skep exports.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::routing::get;
use jiff::Timestamp;
use regex::Regex;
use serde_json::Value;
use skep::http::metrics::{Metrics, Outcome, Reconciled};
use skep::http::view::{
    Backups, Condition, GuardView, OperationView, ProblemView, Restored, ServiceView, View,
};
use skep::notify::Reading;
use skep::operation::catalogue::Finding;
use skep::operation::door;
use skep::operation::receiver::Standing;
use skep::operation::record::{OpId, State};
use skep::swarm::transport::Observed;
use skep_tests::grafana::{Query, dashboard, metrics_of, panels, queries, repository, substituted};
use skep_tests::prometheus::{Prometheus, promtool};

const RULES: &str = "grafana/alerts/skep.rules.yml";

fn yaml(path: &str) -> Value {
    let text = std::fs::read_to_string(repository().join(path)).unwrap();
    serde_saphyr::from_str(&text).unwrap()
}

fn rules() -> Vec<Value> {
    yaml(RULES)["groups"][0]["rules"].as_array().unwrap().clone()
}

fn rule_queries() -> Vec<Query> {
    let text = |rule: &Value, key: &str| rule[key].as_str().unwrap().to_owned();
    rules().iter().map(|r| Query { place: text(r, "alert"), expr: text(r, "expr") }).collect()
}

// === rules of dashboards ===

#[test]
fn the_dashboard_can_be_provisioned_anywhere() {
    let dashboard = dashboard();
    let uid = dashboard["uid"].as_str().unwrap();
    assert!(!uid.is_empty() && uid.len() <= 40, "{uid}");
    assert_eq!(dashboard["schemaVersion"], 39);
    assert_eq!(dashboard["editable"], false);
    for foreign in ["id", "__inputs", "__requires"] {
        assert!(dashboard.get(foreign).is_none(), "{foreign} belongs to one Grafana");
    }
}

#[test]
fn its_variables_are_the_usual_ones() {
    let dashboard = dashboard();
    let variables = dashboard["templating"]["list"].as_array().unwrap();
    let named = |name: &str| variables.iter().find(|v| v["name"] == name).unwrap();
    let sources: Vec<_> = variables.iter().filter(|v| v["type"] == "datasource").collect();
    assert_eq!(sources.len(), 1);
    assert_eq!((&sources[0]["name"], &sources[0]["label"]), (&"datasource".into(), &"Data source".into()));
    for name in ["job", "instance", "service"] {
        let variable = named(name);
        assert_eq!(variable["multi"], true, "{name}");
        assert_eq!(variable["includeAll"], true, "{name}");
        assert_eq!(variable["allValue"], ".+", "{name}");
        assert_eq!(variable["refresh"], 2, "{name} is read anew when the time range changes");
        assert_eq!(variable["datasource"]["uid"], "${datasource}", "{name}");
    }
}

#[test]
fn every_panel_says_what_it_shows_and_in_which_unit() {
    let dashboard = dashboard();
    let (mut ids, mut titles) = (BTreeSet::new(), BTreeSet::new());
    for panel in dashboard["panels"].as_array().unwrap() {
        assert!(ids.insert(panel["id"].as_u64().unwrap()), "{panel}");
        assert!(titles.insert(panel["title"].as_str().unwrap()), "{}", panel["title"]);
    }
    for panel in panels(&dashboard) {
        let title = panel["title"].as_str().unwrap();
        assert!(!title.is_empty());
        assert!(panel["description"].as_str().unwrap().len() > 10, "{title}");
        assert!(!panel["fieldConfig"]["defaults"]["unit"].as_str().unwrap().is_empty(), "{title}");
        assert_eq!(panel["datasource"]["uid"], "${datasource}", "{title}");
        let targets = panel["targets"].as_array().unwrap();
        assert!(!targets.is_empty(), "{title}");
        let references: BTreeSet<_> = targets.iter().map(|t| t["refId"].as_str().unwrap()).collect();
        assert_eq!(references.len(), targets.len(), "{title}");
        assert!(targets.iter().all(|t| t["datasource"]["uid"] == "${datasource}"), "{title}");
    }
}

#[test]
fn panels_do_not_overlap() {
    let dashboard = dashboard();
    let mut taken = BTreeMap::new();
    for panel in dashboard["panels"].as_array().unwrap() {
        let at = |key: &str| panel["gridPos"][key].as_u64().unwrap();
        assert!(at("x") + at("w") <= 24, "{}", panel["title"]);
        for (x, y) in
            (at("x")..at("x") + at("w")).flat_map(|x| (at("y")..at("y") + at("h")).map(move |y| (x, y)))
        {
            if let Some(other) = taken.insert((x, y), &panel["title"]) {
                panic!("{} overlaps {other}", panel["title"]);
            }
        }
    }
}

#[test]
fn every_selector_is_limited_to_the_chosen_job_and_instance() {
    let selector = Regex::new(r"\b(?:skep|process)_[a-z0-9_]+(\{[^}]*\})?").unwrap();
    for Query { place, expr } in queries(&dashboard()) {
        for found in selector.captures_iter(&expr) {
            let matchers = found.get(1).map_or("", |m| m.as_str());
            for wanted in ["job=~\"$job\"", "instance=~\"$instance\""] {
                assert!(matchers.contains(wanted), "{place}: {} lacks {wanted}", &found[0]);
            }
        }
    }
}

#[test]
fn counters_are_only_looked_at_as_rates() {
    let rate =
        Regex::new(r"\b(?:rate|irate|increase)\(\s*[a-z0-9_]+(?:\{[^}]*\})?\[([^\]]+)\]\s*\)").unwrap();
    let counter = Regex::new(r"\b[a-z0-9_]+_(?:total|bucket|sum|count)\b").unwrap();
    for Query { place, expr } in queries(&dashboard()) {
        for found in rate.captures_iter(&expr) {
            assert!(["$__rate_interval", "$__range"].contains(&&found[1]), "{place}");
        }
        assert!(!counter.is_match(&rate.replace_all(&expr, "")), "{place}: {expr}");
    }
    for Query { place, expr } in rule_queries() {
        assert!(!counter.is_match(&rate.replace_all(&expr, "")), "{place}: {expr}");
    }
}

#[test]
fn provisioning_names_what_exists() {
    let providers = yaml("grafana/provisioning/dashboards/skep.yaml");
    assert_eq!(providers["apiVersion"], 1);
    let provider = &providers["providers"][0];
    assert_eq!((&provider["type"], &provider["allowUiUpdates"]), (&"file".into(), &false.into()));
    let sources = yaml("grafana/provisioning/datasources/prometheus.yaml");
    assert_eq!(sources["apiVersion"], 1);
    let source = &sources["datasources"][0];
    assert_eq!((&source["type"], &source["isDefault"]), (&"prometheus".into(), &true.into()));
}

#[test]
fn stack_files_deliver_what_exists_to_where_it_is_looked_for() {
    let stack = yaml("manifests/grafana.yml");
    let configs = stack["configs"].as_object().unwrap();
    let mounts = stack["services"]["grafana"]["configs"].as_array().unwrap();
    for (name, config) in configs {
        let file = repository().join("manifests").join(config["file"].as_str().unwrap());
        let size = std::fs::metadata(&file).unwrap_or_else(|e| panic!("{}: {e}", file.display())).len();
        assert!(size < 1_000 * 1024, "{name}: a Swarm config holds less than 1000 KB");
        assert!(mounts.iter().any(|m| m["source"] == name.as_str()), "{name} is mounted");
    }
    let provider = yaml("grafana/provisioning/dashboards/skep.yaml");
    let directory = provider["providers"][0]["options"]["path"].as_str().unwrap();
    let target = format!("{directory}/skep-overview.json");
    assert!(mounts.iter().any(|m| m["target"] == target.as_str()), "{target}");
    let rules = &yaml("manifests/monitoring.yml")["configs"]["skep-rules"]["file"];
    assert!(repository().join("manifests").join(rules.as_str().unwrap()).ends_with(RULES));
}

// === rules of alerts ===

#[test]
fn every_alert_says_how_bad_it_is_and_what_it_means() {
    for rule in rules() {
        let name = rule["alert"].as_str().unwrap();
        assert!(name.starts_with("Skep") && name.bytes().all(|b| b.is_ascii_alphanumeric()), "{name}");
        let severity = rule["labels"]["severity"].as_str().unwrap();
        assert!(["critical", "warning", "info"].contains(&severity), "{name}: {severity}");
        for note in ["summary", "description"] {
            assert!(rule["annotations"][note].as_str().unwrap().len() > 10, "{name}: {note}");
        }
        let labels: Vec<_> = rule["labels"].as_object().unwrap().keys().collect();
        assert_eq!(labels, ["severity"], "{name}: an alert about Skep itself never asks for a restore");
    }
}

#[test]
fn every_alert_is_seen_to_fire_and_to_keep_quiet() {
    let tests = yaml("grafana/alerts/skep.test.yml");
    let cases: Vec<Value> = tests["tests"]
        .as_array()
        .unwrap()
        .iter()
        .flat_map(|t| t["alert_rule_test"].as_array().cloned().unwrap_or_default())
        .collect();
    for rule in rules() {
        let alerts: Vec<usize> = cases
            .iter()
            .filter(|case| case["alertname"] == rule["alert"])
            .map(|case| case["exp_alerts"].as_array().unwrap().len())
            .collect();
        assert!(alerts.contains(&0) && alerts.iter().any(|n| *n > 0), "{}: {alerts:?}", rule["alert"]);
    }
    let output = promtool(&["test", "rules", "skep.test.yml"], &repository().join("grafana/alerts"));
    let said =
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
}

// === against what Skep exports ===

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(1_795_000_000 + seconds).unwrap()
}

fn service(name: &str, condition: Condition) -> ServiceView {
    ServiceView {
        name: name.to_owned(),
        stack: Some("shop".to_owned()),
        condition,
        since: Some(at(-60)),
        operation: None,
        paused: false,
        desired: Some(2),
        running: 2,
        saves: Some(2),
        engine: None,
        backups: None,
        restored: None,
        guard: None,
        problems: Vec::new(),
    }
}

fn operation(kind: &'static str, state: State) -> OperationView {
    let ended = (!matches!(state, State::Running | State::AwaitingApproval)).then(|| at(30));
    OperationView {
        id: OpId::new(at(-20), kind),
        kind,
        what: String::new(),
        service: "shop_db".to_owned(),
        state,
        asked_by: "dba".to_owned(),
        created: at(-20),
        began: Some(at(-10)),
        ended,
        deadline: Some(at(3_600)),
        steps: Vec::new(),
        remarks: Vec::new(),
        approved_by: None,
        cancelled_by: None,
    }
}

/// A Skep that leads and has one of everything; `restore` and `backup` are how far these are.
fn view(restore: State, backup: State) -> View {
    // What ended was running before.
    let wake = backup;
    let data = ServiceView {
        engine: Some("postgres"),
        backups: Some(Backups {
            count: 7,
            copies_missing: 0,
            last_success: Some(at(-3_000)),
            last_attempt: Some(at(-3_010)),
            last_verified: Some(at(-2_990)),
            last_proved: Some(at(-80_000)),
            last_size: Some(412_000_000),
            oldest: Some(at(-600_000)),
            next: Some(at(600)),
            missed: Some(at(-2_400)),
            interval: Some(Duration::from_secs(3_600)),
            wanted_since: Some(at(-700_000)),
            last_loaded: Some(at(-90_000)),
            expected_s: Some(38.4),
            drill_failed: Some(Finding { at: at(-1_000), why: "check `orders`: 0".to_owned() }),
            drill_interval: Some(Duration::from_secs(86_400)),
            ..Backups::default()
        }),
        restored: Some(Restored {
            at: at(-80_000),
            took: Duration::from_secs(42),
            downtime: Some(Duration::from_secs(3)),
        }),
        guard: Some(GuardView {
            mode: "auto",
            alerts: vec!["ShopOrdersBroken".to_owned()],
            circuit: None,
            incidents: Vec::new(),
            unreadable: None,
        }),
        problems: vec![ProblemView {
            code: "L007".to_owned(),
            key: "skep.backup.keep".to_owned(),
            text: String::new(),
            hint: None,
            blocks: false,
            warning: false,
        }],
        ..service("shop_db", Condition::Operating)
    };
    View {
        taken: at(0),
        version: "0.1.0".to_owned(),
        cluster: "test".to_owned(),
        leads: true,
        leader: None,
        trouble: None,
        services: vec![
            data,
            service("shop_app", Condition::Maintenance),
            service("shop_proxy", Condition::Healthy),
        ],
        operations: vec![
            operation("restore", restore),
            operation("maintenance", State::Running),
            operation("backup", backup),
            operation("wake", wake),
        ],
    }
}

/// Metrics of a Skep in which everything has happened at least once.
fn metrics() -> Metrics {
    let metrics = Metrics::new("0.1.0", "abc123", &["operations", "plan"]);
    metrics.observe(&view(State::Running, State::Running));
    for controller in ["operations", "plan"] {
        metrics.reconciled(controller, Reconciled::Success, Duration::from_millis(3), at(0));
        metrics.queue(controller, 1, 1);
    }
    let call = |method, template| Observed {
        method,
        template,
        status: Some(200),
        duration: Duration::from_millis(2),
    };
    metrics.requested(&call(hyper::Method::GET, "/services/{id}"));
    metrics.event_stream_is_up(true);
    metrics.resynced();
    metrics.posted(Outcome::Accepted);
    metrics.decided("started");
    metrics.doors(&[door::Standing { service: "shop_app".to_owned(), stands: true }]);
    metrics.receivers(&[Standing { service: "shop_db".to_owned(), until: Some(at(-2)), fault: None }]);
    metrics.mailed(&Reading { sent: 2, deferred: 1, rejected: 0, waiting: 1, oldest: Some(at(-9)) });
    metrics
}

fn exported() -> BTreeSet<String> {
    let metrics = metrics();
    metrics.observe(&view(State::AwaitingApproval, State::Succeeded));
    let text = metrics.render();
    let types = text.lines().filter_map(|line| line.strip_prefix("# TYPE "));
    types.map(|line| line.split(' ').next().unwrap().to_owned()).collect()
}

#[test]
fn what_is_asked_for_is_exported_and_what_is_exported_is_looked_at() {
    let mut variables = String::new();
    for variable in dashboard()["templating"]["list"].as_array().unwrap() {
        variables += variable["definition"].as_str().unwrap_or_default();
    }
    let mut asked = metrics_of(&variables);
    for query in queries(&dashboard()).into_iter().chain(rule_queries()) {
        asked.extend(metrics_of(&query.expr));
    }
    let exported = exported();
    let missing: Vec<_> = asked.difference(&exported).collect();
    assert_eq!(missing, [""; 0], "asked for, and not exported");
    let unseen: Vec<_> =
        exported.difference(&asked).filter(|name| name.starts_with("skep_")).map(String::as_str).collect();
    assert_eq!(unseen, [""; 0], "exported, and looked at by nobody");
}

async fn serve(metrics: Arc<Metrics>) -> SocketAddr {
    let render = move || std::future::ready(metrics.render());
    let router = Router::new().route("/metrics", get(render));
    let listener = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, router).await });
    address
}

#[tokio::test(flavor = "multi_thread")]
async fn every_query_of_panels_and_rules_runs_and_every_panel_shows_something() {
    let metrics = Arc::new(metrics());
    let address = serve(Arc::clone(&metrics)).await;
    let prometheus = Prometheus::start(&[address], &[repository().join(RULES).canonicalize().unwrap()]).await;
    // Rates need the counters at two values.
    prometheus.until("count_over_time(skep_leader[1m]) > 2").await;
    metrics.observe(&view(State::AwaitingApproval, State::Succeeded));
    prometheus.until("skep_operations_awaiting_approval > 0").await;
    for query in queries(&dashboard()) {
        prometheus.until(&substituted(&query.expr, "1m")).await;
    }
    // Rules come to nothing as long as all is well; what counts here is that Prometheus can evaluate them.
    assert_eq!(prometheus.broken_rules().await, [""; 0]);
}
