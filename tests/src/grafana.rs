//! The shipped dashboards and alert rules as data, for the suites that check and run every query in them.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use regex::Regex;
use serde_json::Value;

/// A query of a dashboard or of an alert rule.
#[derive(Clone, Debug)]
pub struct Query {
    /// Where it stands: the panel's title, or the alert's name.
    pub place: String,
    /// PromQL, with Grafana's variables in it.
    pub expr: String,
}

/// Root of the repository.
pub fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// The overview dashboard.
///
/// # Panics
/// When it is not JSON.
pub fn dashboard() -> Value {
    let file = repository().join("grafana/dashboards/skep-overview.json");
    let text = std::fs::read_to_string(file).expect("the dashboard is in the repository");
    serde_json::from_str(&text).expect("the dashboard is JSON")
}

/// Its panels without the rows.
pub fn panels(dashboard: &Value) -> Vec<&Value> {
    let panels = dashboard["panels"].as_array().map(Vec::as_slice).unwrap_or_default();
    panels.iter().filter(|panel| panel["type"] != "row").collect()
}

/// Every query of the dashboard: those of panels and of annotations.
pub fn queries(dashboard: &Value) -> Vec<Query> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let of_panel = |panel: &Value| {
        let targets = panel["targets"].as_array().cloned().unwrap_or_default();
        let place = text(&panel["title"]);
        targets.into_iter().map(move |t| Query { place: place.clone(), expr: text(&t["expr"]) })
    };
    let mut queries: Vec<Query> = panels(dashboard).into_iter().flat_map(of_panel).collect();
    let annotations = dashboard["annotations"]["list"].as_array().cloned().unwrap_or_default();
    queries.extend(annotations.iter().map(|a| Query { place: text(&a["name"]), expr: text(&a["expr"]) }));
    queries
}

/// A query as Grafana would send it, with every variable at "All".
pub fn substituted(expr: &str, rate_interval: &str) -> String {
    let mut expr = expr.to_owned();
    for (variable, value) in
        [("$__rate_interval", rate_interval), ("$__range", rate_interval), ("$__interval", rate_interval)]
    {
        expr = expr.replace(variable, value);
    }
    for variable in ["$job", "$instance", "$service"] {
        expr = expr.replace(variable, ".+");
    }
    expr
}

/// Names of the metrics that a query reads, with the suffixes of histograms taken off.
///
/// # Panics
/// Never: the pattern is a constant.
pub fn metrics_of(expr: &str) -> BTreeSet<String> {
    let names = Regex::new(r"\b(?:skep|process)_[a-z0-9_]+").expect("the pattern is a constant");
    let family = |name: &str| {
        let cut = ["_bucket", "_sum", "_count"].iter().find_map(|suffix| name.strip_suffix(suffix));
        cut.unwrap_or(name).to_owned()
    };
    names.find_iter(expr).map(|found| family(found.as_str())).collect()
}
