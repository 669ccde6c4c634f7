//! Where the placement constraints of a spec allow its tasks.
//!
//! Invariant: a node is left out only by a constraint that is understood. What constraints say of the engine or the platform
//! is not, so that too many nodes may be found, and never too few.

use serde_json::Value;

use super::constraints;
use crate::swarm::object::Node;

/// The nodes, ready or not, on which the constraints allow tasks.
pub fn allowed<'a>(spec: &Value, nodes: &'a [Node]) -> Vec<&'a Node> {
    let constraints = constraints(spec);
    nodes.iter().filter(|node| constraints.iter().all(|one| allows(one, node))).collect()
}

fn allows(constraint: &str, node: &Node) -> bool {
    let (key, equal, wanted) = match (constraint.split_once("!="), constraint.split_once("==")) {
        (Some((key, wanted)), _) => (key.trim(), false, wanted.trim()),
        (None, Some((key, wanted))) => (key.trim(), true, wanted.trim()),
        (None, None) => return true,
    };
    let found = match key {
        "node.id" => node.id.as_str(),
        "node.hostname" => node.hostname.as_str(),
        "node.role" if node.manager => "manager",
        "node.role" => "worker",
        _ => match key.strip_prefix("node.labels.") {
            // A label that a node lacks is empty to Swarm.
            Some(label) => node.labels.get(label).map_or("", String::as_str),
            None => return true,
        },
    };
    // Swarm does not tell upper from lower case.
    found.eq_ignore_ascii_case(wanted) == equal
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::swarm::object::Labels;

    fn node(id: &str, manager: bool, labels: &[(&str, &str)]) -> Node {
        let labels = labels.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect::<Labels>();
        let architecture = "x86_64".to_owned();
        let (id, hostname) = (id.to_owned(), format!("host-{id}"));
        Node { id, hostname, ready: true, architecture, active: true, manager, labels }
    }

    #[test]
    fn a_node_is_left_out_only_by_what_is_understood() {
        let nodes = [
            node("a", true, &[("disk", "SSD")]),
            node("b", false, &[]),
            node("c", false, &[("disk", "hdd")]),
        ];
        let found = |constraints: &[&str]| {
            let spec = json!({"TaskTemplate": {"Placement": {"Constraints": constraints}}});
            allowed(&spec, &nodes).iter().map(|n| n.id.clone()).collect::<String>()
        };
        assert_eq!(found(&[]), "abc");
        assert_eq!(found(&["node.id==b"]), "b");
        assert_eq!(found(&["node.hostname == HOST-C"]), "c");
        assert_eq!(found(&["node.role!=manager"]), "bc");
        assert_eq!(found(&["node.role==worker", "node.labels.disk!=hdd"]), "b");
        assert_eq!(found(&["node.labels.disk==ssd"]), "a");
        assert_eq!(found(&["node.labels.disk==tape"]), "");
        assert_eq!(found(&["engine.labels.rack==1", "node.platform.os==linux", "odd"]), "abc");
    }
}
