//! Definitions into a node that is made for them, compared as a restore compares, and gone with the job.
//!
//! Invariants: nothing is loaded by which a broker reaches for others.

use std::time::Instant;

use serde_json::Value;

use super::definitions::Definitions;
use super::dump::wanted;
use super::load::make;
use super::scratch::Scratch;
use crate::error::{Error, Result};
use crate::job::Job;
use crate::store::Whole;
use crate::task::Report;

/// Parameters that say something of a virtual host itself. All others are of plugins, which move messages between brokers
/// (shovels, upstreams of a federation) or are not there.
const OF_HOSTS: [&str; 2] = ["operator_policy", "vhost-limits"];
/// What the settings of policies begin with that make a broker reach for others.
const LINKS: &str = "federation-";
/// Plugins that do nothing but add a type of exchange, by that type.
const EXCHANGES: [(&str, &str); 7] = [
    ("x-consistent-hash", "rabbitmq_consistent_hash_exchange"),
    ("x-delayed-message", "rabbitmq_delayed_message_exchange"),
    ("x-jms-topic", "rabbitmq_jms_topic_exchange"),
    ("x-modulus-hash", "rabbitmq_sharding"),
    ("x-random", "rabbitmq_random_exchange"),
    ("x-recent-history", "rabbitmq_recent_history_exchange"),
    ("x-rtopic", "rabbitmq_rtopic_exchange"),
];
/// What a node says of definitions that only a plugin understands.
const UNKNOWN: [&str; 2] = ["unknown exchange type", "not recognised policy"];

/// Loads a dump into a node of the job's own.
pub(crate) fn drill(job: &Job, whole: &Whole) -> Result<Report> {
    let (bytes, _) = wanted(whole)?;
    whole.is_untouched()?;
    let Part { bytes, plugins, left_out } = Part::of(&bytes)?;
    let wanted = Definitions::parse(&bytes)?;
    let scratch = Scratch::start(job, &plugins)?;
    let began = Instant::now();
    let left = make(job, scratch.node(), &bytes, &wanted).map_err(of_plugins)?;
    if !left.is_empty() {
        return Err(Error::Unready("somebody uses the scratch node".to_owned()));
    }
    Ok(Report::CommandDrill { left_out, seconds: began.elapsed().as_secs_f64() })
}

/// What of a dump a node alone can be given.
#[derive(Debug)]
struct Part {
    bytes: Vec<u8>,
    /// Plugins that it needs.
    plugins: Vec<&'static str>,
    left_out: Vec<String>,
}

// === impl Part ===

impl Part {
    fn of(bytes: &[u8]) -> Result<Part> {
        let cannot = |error: serde_json::Error| Error::refused(error.to_string());
        let mut all: Value = serde_json::from_slice(bytes).map_err(cannot)?;
        let mut left_out = Vec::new();
        let mut leave = |kind: &str, word: &str, stays: fn(&Value) -> bool| {
            let Some(list) = all[kind].as_array_mut() else { return };
            list.retain(|one| {
                let stays = stays(one);
                if !stays {
                    let text = |key: &str| one[key].as_str().unwrap_or_default();
                    let named = [word, text("component"), text("vhost"), text("name")];
                    let named: Vec<&str> = named.into_iter().filter(|text| !text.is_empty()).collect();
                    left_out.push(format!(
                        "{} was not loaded: it would reach for other brokers, or needs a plugin",
                        named.join(" ")
                    ));
                }
                stays
            });
        };
        leave("parameters", "parameter", |one| {
            one["component"].as_str().is_some_and(|component| OF_HOSTS.contains(&component))
        });
        leave("policies", "policy", |one| {
            let settings = one["definition"].as_object();
            !settings.is_some_and(|settings| settings.keys().any(|key| key.starts_with(LINKS)))
        });
        let types = all["exchanges"].as_array().into_iter().flatten().filter_map(|one| one["type"].as_str());
        let types: Vec<&str> = types.collect();
        let needed = EXCHANGES.iter().filter(|(kind, _)| types.contains(kind));
        let plugins = needed.map(|(_, plugin)| *plugin).collect();
        Ok(Part { bytes: all.to_string().into_bytes(), plugins, left_out })
    }
}

/// A plugin that the scratch node lacks is no fault of the backup.
fn of_plugins(error: Error) -> Error {
    match error {
        Error::Tool { said, .. } if UNKNOWN.iter().any(|words| said.contains(words)) => {
            Error::Barred(format!("the scratch node lacks a plugin: {said}"))
        }
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_reaches_for_other_brokers_is_left_out_and_named_and_all_else_is_loaded() {
        let all = json!({
            "users": [], "vhosts": [{"name": "shop"}],
            "parameters": [
                {"vhost": "shop", "component": "operator_policy", "name": "limit", "value": {}},
                {"vhost": "shop", "component": "shovel", "name": "away", "value": {"dest-uri": "amqp://live"}},
                {"vhost": "shop", "component": "vhost-limits", "name": "limits", "value": {}},
                {"vhost": "shop", "component": "federation-upstream", "name": "up", "value": {}},
            ],
            "policies": [
                {"vhost": "shop", "name": "ttl", "definition": {"message-ttl": 1}},
                {"vhost": "shop", "name": "up", "definition": {"message-ttl": 1, "federation-upstream-set": "all"}},
            ],
            "exchanges": [{"vhost": "shop", "name": "in", "type": "x-consistent-hash"}, {"name": "b", "type": "topic"}],
        });
        let part = Part::of(all.to_string().as_bytes()).unwrap();
        let mut loaded = all;
        loaded["parameters"] = json!([loaded["parameters"][0], loaded["parameters"][2]]);
        loaded["policies"] = json!([loaded["policies"][0]]);
        assert_eq!(serde_json::from_slice::<Value>(&part.bytes).unwrap(), loaded);
        assert_eq!(part.plugins, ["rabbitmq_consistent_hash_exchange"]);
        let named: Vec<&str> =
            part.left_out.iter().filter_map(|told| told.split(" was not").next()).collect();
        assert_eq!(
            named,
            ["parameter shovel shop away", "parameter federation-upstream shop up", "policy shop up"]
        );
    }

    #[test]
    fn a_plugin_that_is_lacking_blames_no_backup() {
        let said = |said: &str| {
            of_plugins(Error::Tool { tool: "rabbitmqctl".into(), status: "70".into(), said: said.into() })
                .kind()
        };
        use crate::line::FaultKind::Circumstance;
        assert_eq!(said("{:error, unknown exchange type 'x-other'}"), Circumstance);
        assert_ne!(said("something else"), Circumstance);
    }
}
