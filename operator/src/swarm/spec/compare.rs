//! Whether two specs ask for the same thing, although the engine writes defaults into what it is given.
//!
//! Rules. Absent, `null`, `[]`, `{}` and `""` mean the same; so do absent and `0` or `false`, except where the engine's
//! own type tells them apart ([`ZERO_COUNTS`], and `Init`, whose default is the daemon's). Members that only repeat a
//! default ([`DEFAULTS`]) are as if absent. `ForceUpdate` does not count: it asks for a restart, not for other tasks.
//! Below the keys of [`VERBATIM`] stand names and values that people chose: there everything counts. Order in
//! arrays counts, order in objects does not.

use serde_json::{Map, Value};

/// Members whose zero is not their default.
const ZERO_COUNTS: [&str; 5] = ["Replicas", "StopGracePeriod", "Delay", "Init", "Parallelism"];
/// Members below which everything counts.
const VERBATIM: [&str; 4] = ["Labels", "Options", "Sysctls", "DriverOpts"];
/// Members that the engine fills in.
const DEFAULTS: [(&str, &str); 2] = [("Runtime", "container"), ("Isolation", "default")];

/// Whether the tasks of both specs would be alike: task template and networks, whatever the replicas, labels, ports and
/// update settings are.
pub fn same_template(a: &Value, b: &Value) -> bool {
    let part = |spec: &Value| [normal("", &spec["TaskTemplate"]), normal("", &spec["Networks"])];
    part(a) == part(b)
}

/// Whether both specs ask for the same service in every respect but `ForceUpdate`.
pub fn same_spec(a: &Value, b: &Value) -> bool {
    normal("", a) == normal("", b)
}

/// A value in its normal form, none where it says nothing.
fn normal(key: &str, value: &Value) -> Option<Value> {
    if VERBATIM.contains(&key) {
        let empty = value.is_null() || value.as_object().is_some_and(Map::is_empty);
        return (!empty).then(|| value.clone());
    }
    let zero_counts = ZERO_COUNTS.contains(&key);
    match value {
        Value::Null => None,
        Value::Bool(false) if !zero_counts => None,
        Value::Number(n) if !zero_counts && n.as_f64() == Some(0.0) => None,
        Value::Number(_) if key == "ForceUpdate" => None,
        // The engine answers 0.5 for 0.5 but may answer 1 for 1.0.
        Value::Number(n) if n.as_i64().is_none() => n.as_f64().map(normal_number),
        Value::String(s) if s.is_empty() || DEFAULTS.contains(&(key, s)) => None,
        Value::Array(items) if items.is_empty() => None,
        Value::Array(items) => Some(items.iter().map(item).collect()),
        Value::Object(members) => object(members),
        Value::Bool(_) | Value::Number(_) | Value::String(_) => Some(value.clone()),
    }
}

/// Items keep their place, also where they say nothing.
fn item(value: &Value) -> Value {
    match value {
        Value::Object(_) | Value::Array(_) => normal("", value).unwrap_or(Value::Null),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => value.clone(),
    }
}

fn object(members: &Map<String, Value>) -> Option<Value> {
    let normal: Map<String, Value> =
        members.iter().filter_map(|(k, v)| Some((k.clone(), normal(k, v)?))).collect();
    // Which mode a service has is told by the key alone.
    let tells = normal.is_empty() && (members.contains_key("Global") || members.contains_key("Replicated"));
    if tells {
        Some(Value::Object(members.clone()))
    } else {
        (!normal.is_empty()).then_some(Value::Object(normal))
    }
}

fn normal_number(number: f64) -> Value {
    if number.fract() == 0.0 && number.abs() < 1e15 {
        // In range and whole, so the conversion is exact.
        return Value::from(number as i64);
    }
    Value::from(number)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn template(container: &Value) -> Value {
        json!({"TaskTemplate": {"ContainerSpec": container}})
    }

    #[test]
    fn what_the_engine_fills_in_makes_no_difference() {
        let written = json!({"Name": "a", "TaskTemplate": {"ContainerSpec": {"Image": "x"}, "Networks": [{"Target": "n"}]}});
        let read = json!({"Name": "a", "Labels": {}, "TaskTemplate": {
            "ContainerSpec": {"Image": "x", "Isolation": "default", "DNSConfig": {}, "Privileges": null, "ReadOnly": false},
            "Resources": {"Limits": {}, "Reservations": {}}, "Placement": {}, "ForceUpdate": 0, "Runtime": "container",
            "Networks": [{"Target": "n"}]}});
        assert!(same_template(&written, &read));
        assert!(same_spec(&written, &read));
    }

    #[test]
    fn a_forced_restart_is_no_other_template_but_another_image_is() {
        let a = json!({"TaskTemplate": {"ContainerSpec": {"Image": "x"}, "ForceUpdate": 1}});
        let b = json!({"TaskTemplate": {"ContainerSpec": {"Image": "x"}, "ForceUpdate": 7}});
        let c = json!({"TaskTemplate": {"ContainerSpec": {"Image": "y"}, "ForceUpdate": 1}});
        assert!(same_template(&a, &b));
        assert!(!same_template(&a, &c));
    }

    #[test]
    fn replicas_and_labels_belong_to_the_spec_but_not_to_the_template() {
        let a = json!({"Labels": {"a": "1"}, "Mode": {"Replicated": {"Replicas": 1}}});
        let b = json!({"Labels": {"a": "2"}, "Mode": {"Replicated": {"Replicas": 0}}});
        assert!(same_template(&a, &b));
        assert!(!same_spec(&a, &b));
    }

    #[test]
    fn zeroes_that_mean_something_count() {
        assert!(!same_template(&template(&json!({"StopGracePeriod": 0})), &template(&json!({}))));
        assert!(!same_template(&template(&json!({"Init": false})), &template(&json!({}))));
        assert!(same_template(&template(&json!({"TTY": false})), &template(&json!({}))));
        let zero = json!({"Mode": {"Replicated": {"Replicas": 0}}});
        assert!(!same_spec(&zero, &json!({"Mode": {"Replicated": {"Replicas": 1}}})));
    }

    #[test]
    fn labels_count_to_the_letter() {
        assert!(!same_template(&template(&json!({"Labels": {"a": ""}})), &template(&json!({}))));
        assert!(same_template(&template(&json!({"Labels": {}})), &template(&json!({}))));
    }

    #[test]
    fn modes_differ_although_both_are_empty() {
        assert!(!same_spec(&json!({"Mode": {"Global": {}}}), &json!({"Mode": {"Replicated": {}}})));
    }

    #[test]
    fn empty_arguments_and_the_order_of_arguments_count() {
        assert!(!same_template(&template(&json!({"Args": ["a", ""]})), &template(&json!({"Args": ["a"]}))));
        assert!(!same_template(
            &template(&json!({"Args": ["a", "b"]})),
            &template(&json!({"Args": ["b", "a"]}))
        ));
        assert!(same_template(&template(&json!({"Args": []})), &template(&json!({}))));
    }

    #[test]
    fn whole_numbers_are_equal_however_they_are_written() {
        let a = json!({"UpdateConfig": {"MaxFailureRatio": 1.0}});
        assert!(same_spec(&a, &json!({"UpdateConfig": {"MaxFailureRatio": 1}})));
        assert!(!same_spec(&a, &json!({"UpdateConfig": {"MaxFailureRatio": 0.5}})));
    }
}
