//! Whose turn it is where services stop and start in an order.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::policy::Graph;

/// Which services wait for which.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Turns {
    /// Each waits for all that come before it.
    #[default]
    OneByOne,
    /// Each waits for those that it has to do with; by full name, what it needs, also through others.
    ByNeed(BTreeMap<String, BTreeSet<String>>),
}

// === impl Turns ===

impl Turns {
    /// The turns of these services: what has nothing to do with each other does not wait for each other.
    pub fn by_need(graph: &Graph, services: &[String]) -> Turns {
        let needs = |name: &String| graph.all_dependencies_of(name).into_iter().collect();
        Turns::ByNeed(services.iter().map(|name| (name.clone(), needs(name))).collect())
    }

    /// Whether one waits for any of these, which come before it in the order and are not done.
    pub fn waits(&self, service: &str, before: &[&str]) -> bool {
        match self {
            Turns::OneByOne => !before.is_empty(),
            Turns::ByNeed(needs) => {
                let needs = |one: &str, other: &str| needs.get(one).is_none_or(|needs| needs.contains(other));
                before.iter().any(|other| needs(service, other) || needs(other, service))
            }
        }
    }
}
