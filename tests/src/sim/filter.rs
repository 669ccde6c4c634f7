//! The `filters` parameter of list calls.

use std::collections::BTreeMap;

use serde_json::Value;
use skep::swarm::object::Labels;

use super::api::Refusal;

/// Filter key → values. All keys must match; one value of a key is enough, but for `label`, where all must.
pub(super) type Filters = BTreeMap<String, Vec<String>>;

/// Reads the parameter: `{"key":["value"]}`, or the older `{"key":{"value":true}}`.
pub(super) fn parse(text: Option<&str>, allowed: &[&str]) -> Result<Filters, Refusal> {
    let Some(text) = text.filter(|t| !t.is_empty()) else { return Ok(Filters::new()) };
    let value: Value = serde_json::from_str(text)
        .map_err(|_| Refusal::new(500, "invalid character looking for beginning of object key string"))?;
    let mut filters = Filters::new();
    for (key, values) in value.as_object().into_iter().flatten() {
        if !allowed.contains(&key.as_str()) {
            return Err(Refusal::new(400, &format!("Invalid filter '{key}'")));
        }
        let list = match values {
            Value::Array(list) => list.iter().filter_map(|v| v.as_str().map(str::to_owned)).collect(),
            Value::Object(map) => map.keys().cloned().collect(),
            _ => Vec::new(),
        };
        filters.insert(key.clone(), list);
    }
    Ok(filters)
}

/// Whether an object passes: `name` and `id` by prefix, `label` as `k` or `k=v`.
pub(super) fn passes(filters: &Filters, id: &str, name: &str, labels: &Labels) -> bool {
    filters.iter().all(|(key, values)| match key.as_str() {
        "names" => values.iter().any(|v| v == name),
        "name" => values.iter().any(|v| name.starts_with(v.as_str())),
        "id" => values.iter().any(|v| id.starts_with(v.as_str())),
        "label" => has_labels(values, labels),
        _ => true,
    })
}

/// Whether the labels hold all of `k` and `k=v`; `k=` is the same as `k`.
pub(super) fn has_labels(wanted: &[String], labels: &Labels) -> bool {
    wanted.iter().all(|want| {
        let (key, value) = want.split_once('=').unwrap_or((want, ""));
        labels.get(key).is_some_and(|found| value.is_empty() || found == value)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(pairs: &[(&str, &str)]) -> Labels {
        pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
    }

    #[test]
    fn labels_are_joined_by_and_and_names_match_by_prefix() {
        let filters = parse(Some(r#"{"label":["a=1","b"],"name":["pa-k7"]}"#), &["label", "name"]).unwrap();
        let both = labels(&[("a", "1"), ("b", "")]);
        assert!(passes(&filters, "id", "pa-k77", &both));
        assert!(!passes(&filters, "id", "pa-k6", &both));
        assert!(!passes(&filters, "id", "pa-k77", &labels(&[("a", "1")])));
        assert!(!passes(&filters, "id", "pa-k77", &labels(&[("a", "2"), ("b", "")])));
    }

    #[test]
    fn an_unknown_filter_is_refused() {
        let refusal = parse(Some(r#"{"names":["a"]}"#), &["name"]).unwrap_err();
        assert_eq!((refusal.status, refusal.message.as_str()), (400, "Invalid filter 'names'"));
    }
}
