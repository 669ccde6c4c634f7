//! In what two specs differ, for people: images, counts and names; never a value of the environment, of a label, or of an
//! option (S15). Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde_json::{Value, json};

use crate::swarm::object::ObjectRef;
use crate::swarm::spec::{self, FileKind};

/// One difference.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Difference {
    /// Another image.
    Image {
        /// Now.
        from: String,
        /// Afterwards.
        to: String,
    },
    /// Another number of replicas.
    Replicas {
        /// Now.
        from: u64,
        /// Afterwards.
        to: u64,
    },
    /// Members of something that has names.
    Names {
        /// Of what: `environment`, `label`, `config`, `secret`, `network`.
        of: &'static str,
        /// Those that come.
        come: Vec<String>,
        /// Those that go.
        go: Vec<String>,
        /// Those whose value changes.
        change: Vec<String>,
    },
    /// Other sections of the spec, by their names.
    Sections(Vec<String>),
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Difference::Image { from, to } => write!(f, "image {from} → {to}"),
            Difference::Replicas { from, to } => write!(f, "replicas {from} → {to}"),
            Difference::Names { of, come, go, change } => {
                let part = |names: &[String], what: &str| {
                    (!names.is_empty()).then(|| format!("{} {what}", names.join(", ")))
                };
                let parts = [part(come, "comes back"), part(go, "goes"), part(change, "changes")];
                let parts: Vec<String> = parts.into_iter().flatten().collect();
                write!(f, "{of}: {}", parts.join("; "))
            }
            Difference::Sections(names) => write!(f, "also {}", names.join(", ")),
        }
    }
}

/// In what the spec of a service would differ afterwards.
pub(super) fn differences(now: &Value, wanted: &Value) -> Vec<Difference> {
    let mut found = Vec::new();
    let (from, to) = (spec::image(now), spec::image(wanted));
    if from != to {
        found.push(Difference::Image { from: from.to_owned(), to: to.to_owned() });
    }
    if let (Some(from), Some(to)) = (spec::replicas(now), spec::replicas(wanted))
        && from != to
    {
        found.push(Difference::Replicas { from, to });
    }
    let env = |spec: &Value| pairs(spec::env_entries(spec).into_iter().map(|(k, v)| (k, json!(v))));
    let labels = |labels: &Value| {
        let members = labels.as_object().into_iter().flatten();
        pairs(members.map(|(k, v)| (k.as_str(), v.clone())).filter(|(k, _)| *k != "com.docker.stack.image"))
    };
    let files = |spec: &Value, kind| refs(&spec::object_refs(spec, kind));
    let networks = |s: &Value| pairs(spec::networks(s).iter().map(|n| (n.target.as_str(), json!(n.aliases))));
    found.extend(names("environment", &env(now), &env(wanted)));
    found.extend(names("label", &labels(&now["Labels"]), &labels(&wanted["Labels"])));
    found.extend(names("config", &files(now, FileKind::Config), &files(wanted, FileKind::Config)));
    found.extend(names("secret", &files(now, FileKind::Secret), &files(wanted, FileKind::Secret)));
    found.extend(names("network", &networks(now), &networks(wanted)));
    let sections = sections(now, wanted);
    if !sections.is_empty() {
        found.push(Difference::Sections(sections));
    }
    found
}

type Pairs = BTreeMap<String, Value>;

fn pairs<'a>(entries: impl Iterator<Item = (&'a str, Value)>) -> Pairs {
    entries.map(|(k, v)| (k.to_owned(), v)).collect()
}

fn refs(refs: &[ObjectRef]) -> Pairs {
    pairs(refs.iter().map(|r| (r.name.as_str(), json!(r.id))))
}

fn names(of: &'static str, now: &Pairs, then: &Pairs) -> Option<Difference> {
    let come: Vec<String> = then.keys().filter(|k| !now.contains_key(*k)).cloned().collect();
    let go: Vec<String> = now.keys().filter(|k| !then.contains_key(*k)).cloned().collect();
    let differs = |(k, v): &(&String, &Value)| now.get(*k).is_some_and(|n| n != *v);
    let change: Vec<String> = then.iter().filter(differs).map(|(k, _)| k.clone()).collect();
    let is_same = come.is_empty() && go.is_empty() && change.is_empty();
    (!is_same).then_some(Difference::Names { of, come, go, change })
}

/// Names of the other sections that differ, in words where there are any.
fn sections(now: &Value, wanted: &Value) -> Vec<String> {
    const TOLD: [&str; 4] = ["Image", "Env", "Configs", "Secrets"];
    const PARTS: [&str; 5] = ["ContainerSpec", "Networks", "ForceUpdate", "TaskTemplate", "Labels"];
    const TOP: [&str; 1] = ["Name"];
    let mut found = BTreeSet::new();
    let (here, there) = (spec::template(now), spec::template(wanted));
    differ(&here["ContainerSpec"], &there["ContainerSpec"], &TOLD, &mut found);
    differ(here, there, &PARTS, &mut found);
    let mut top = BTreeSet::new();
    differ(now, wanted, &[&PARTS[..], &TOP[..]].concat(), &mut top);
    if spec::replicas(now).is_some() && spec::replicas(wanted).is_some() {
        top.remove("Mode");
    }
    found.extend(top);
    found.iter().map(|key| word(key)).collect()
}

fn differ(now: &Value, wanted: &Value, but: &[&str], found: &mut BTreeSet<String>) {
    let keys = |v: &Value| v.as_object().into_iter().flat_map(|o| o.keys().cloned()).collect::<BTreeSet<_>>();
    for key in keys(now).union(&keys(wanted)).filter(|k| !but.contains(&k.as_str())) {
        let only = |v: &Value| json!({ key.as_str(): v[key.as_str()].clone() });
        if !spec::same_spec(&only(now), &only(wanted)) {
            found.insert(key.clone());
        }
    }
}

/// `EndpointSpec` as `endpoint spec`.
fn word(key: &str) -> String {
    let mut text = String::new();
    for c in key.chars() {
        if c.is_uppercase() && !text.is_empty() && !text.ends_with(|l: char| l.is_uppercase()) {
            text.push(' ');
        }
        text.push(c);
    }
    text.to_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_differs_is_named_and_no_value_is_told() {
        let now = json!({
            "Name": "shop_app", "Labels": { "a": "secret-1", "b": "x" },
            "TaskTemplate": { "ForceUpdate": 4, "ContainerSpec": {
                "Image": "app:2", "Env": ["PASSWORD=secret-2", "NEW=secret-3"], "Healthcheck": { "Test": ["CMD", "secret-4"] },
                "Configs": [{ "ConfigID": "c2", "ConfigName": "conf_2" }] } },
            "Mode": { "Replicated": { "Replicas": 3 } }, "UpdateConfig": { "Order": "start-first" },
        });
        let then = json!({
            "Name": "shop_app", "Labels": { "a": "secret-5" },
            "TaskTemplate": { "ContainerSpec": {
                "Image": "app:1", "Env": ["PASSWORD=secret-6"], "Healthcheck": { "Test": ["CMD", "secret-7"] },
                "Configs": [{ "ConfigID": "c1", "ConfigName": "conf_1" }] } },
            "Mode": { "Replicated": { "Replicas": 2 } }, "UpdateConfig": {},
        });
        let said: Vec<String> = differences(&now, &then).iter().map(ToString::to_string).collect();
        assert_eq!(
            said,
            [
                "image app:2 → app:1",
                "replicas 3 → 2",
                "environment: NEW goes; PASSWORD changes",
                "label: b goes; a changes",
                "config: conf_1 comes back; conf_2 goes",
                "also healthcheck, update config",
            ]
        );
        assert!(!said.join(" ").contains("secret-"));
        assert_eq!(differences(&now, &now), []);
    }
}
