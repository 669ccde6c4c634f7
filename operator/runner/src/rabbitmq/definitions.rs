//! Definitions, by what names each of them, so that two sets can be compared.

use std::collections::BTreeMap;
use std::fmt;

use serde_json::Value;

use crate::error::{Error, Result};

/// The kinds in the order in which they may be removed, with what names one of them.
const KINDS: [(&str, &[&str]); 10] = [
    ("bindings", &["vhost", "source", "destination_type", "destination", "routing_key", "arguments"]),
    ("queues", &["vhost", "name"]),
    ("exchanges", &["vhost", "name"]),
    ("policies", &["vhost", "name"]),
    ("parameters", &["vhost", "component", "name"]),
    ("global_parameters", &["name"]),
    ("topic_permissions", &["vhost", "user", "exchange"]),
    ("permissions", &["vhost", "user"]),
    ("users", &["name"]),
    ("vhosts", &["name"]),
];
/// Without these it is none of RabbitMQ's.
const ALWAYS: [&str; 2] = ["users", "vhosts"];
/// Most of them that a message names.
const TOLD: usize = 5;

/// What names a definition: its kind and the values of the fields that do.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Name {
    /// Place of the kind in [`KINDS`].
    kind: usize,
    fields: Vec<String>,
}

/// All definitions of a broker.
#[derive(Debug)]
pub(super) struct Definitions {
    /// Version of the broker.
    pub(super) version: String,
    all: BTreeMap<Name, Value>,
}

/// What has to happen to a broker before the import makes it what is wanted.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Changes {
    /// Not wanted.
    pub(super) extra: Vec<Name>,
    /// Wanted otherwise, and of a kind that an import leaves alone where it is there.
    pub(super) otherwise: Vec<Name>,
}

// === impl Definitions ===

impl Definitions {
    /// Reads them in full; refuses what an import could not make sense of.
    pub(super) fn parse(bytes: &[u8]) -> Result<Definitions> {
        let no = |why: String| Error::refused(format!("these are no definitions of a RabbitMQ: {why}"));
        let json: Value = serde_json::from_slice(bytes).map_err(|error| no(error.to_string()))?;
        let mut all = BTreeMap::new();
        for (kind, (word, fields)) in KINDS.iter().enumerate() {
            let list = match &json[*word] {
                Value::Array(list) => list.as_slice(),
                Value::Null if !ALWAYS.contains(word) => &[],
                _ => return Err(no(format!("there are no {word}"))),
            };
            for one in list {
                let field = |field: &&str| {
                    let value = &one[*field];
                    let text = value.as_str().map(str::to_owned);
                    text.or_else(|| (*field == "arguments").then(|| plain(value).to_string()))
                };
                let named: Option<Vec<String>> = fields.iter().map(field).collect();
                let fields = named.ok_or_else(|| no(format!("one of the {word} has no name")))?;
                if all.insert(Name { kind, fields }, plain(one)).is_some() {
                    return Err(no(format!("two of the {word} have one name")));
                }
            }
        }
        let version = json["rabbitmq_version"].as_str().or(json["rabbit_version"].as_str());
        let version = version.unwrap_or_default().to_owned();
        let mut read = Definitions { version, all };
        read.forget_passing();
        Ok(read)
    }

    /// Queues of one connection are not told, but their bindings are: those come and go with the connection.
    fn forget_passing(&mut self) {
        let dangling: Vec<Name> =
            self.all.keys().filter(|name| name.is_dangling(&self.all)).cloned().collect();
        for name in dangling {
            self.all.remove(&name);
        }
    }

    /// How many there are.
    pub(super) fn len(&self) -> u64 {
        self.all.len() as u64
    }

    /// What makes a broker with these one with those that are wanted, besides importing them.
    pub(super) fn towards(&self, wanted: &Definitions) -> Changes {
        let extra = self.all.keys().filter(|name| !wanted.all.contains_key(name)).cloned().collect();
        let is_otherwise = |(name, value): &(&Name, &Value)| {
            name.stays_as_it_is() && wanted.all.get(name).is_some_and(|other| !name.is_same(value, other))
        };
        let otherwise = self.all.iter().filter(is_otherwise).map(|(name, _)| name.clone()).collect();
        Changes { extra, otherwise }
    }

    /// Those that are wanted and are not there as they should be.
    pub(super) fn lacking(&self, wanted: &Definitions) -> Vec<Name> {
        let is_there =
            |name: &Name, value: &Value| self.all.get(name).is_some_and(|found| name.is_same(found, value));
        wanted
            .all
            .iter()
            .filter(|(name, value)| !is_there(name, value))
            .map(|(name, _)| name.clone())
            .collect()
    }
}

// === impl Name ===

impl Name {
    /// The word of its kind, and its fields.
    pub(super) fn words(&self) -> Vec<&str> {
        let (word, _) = KINDS[self.kind];
        std::iter::once(word).chain(self.fields.iter().map(String::as_str)).collect()
    }

    /// As the expression that removes it reads it.
    pub(super) fn json(&self) -> Value {
        let (word, named) = KINDS[self.kind];
        let field = |(field, text): (&&str, &String)| match *field {
            "arguments" => serde_json::from_str(text).unwrap_or_default(),
            _ => Value::from(text.as_str()),
        };
        std::iter::once(Value::from(word)).chain(named.iter().zip(&self.fields).map(field)).collect()
    }

    /// Virtual host and name, where it is a queue.
    pub(super) fn queue(&self) -> Option<(&str, &str)> {
        match self.words().as_slice() {
            ["queues", host, name] => Some((host, name)),
            _ => None,
        }
    }

    /// The name, where it is a virtual host.
    pub(super) fn host(&self) -> Option<&str> {
        match self.words().as_slice() {
            ["vhosts", name] => Some(name),
            _ => None,
        }
    }

    /// Whether it is in this virtual host, or is it.
    pub(super) fn is_in(&self, host: &str) -> bool {
        let is_of_one = KINDS[self.kind].1.first() == Some(&"vhost") || self.host().is_some();
        is_of_one && self.fields.first().is_some_and(|first| first == host)
    }

    /// Whether it is a binding to this queue.
    pub(super) fn is_bound_to(&self, queue: (&str, &str)) -> bool {
        matches!(self.words().as_slice(), ["bindings", host, _, "queue", name, ..] if (*host, *name) == queue)
    }

    /// Whether it is the exchange that this binding is from.
    pub(super) fn is_source_of(&self, binding: &Name) -> bool {
        match (self.words().as_slice(), binding.words().as_slice()) {
            (["exchanges", host, name], ["bindings", of, source, ..]) => (host, name) == (of, source),
            _ => false,
        }
    }

    fn is_dangling(&self, all: &BTreeMap<Name, Value>) -> bool {
        let ["bindings", host, _, "queue", name, ..] = self.words()[..] else { return false };
        let queue = Name { kind: 1, fields: vec![host.to_owned(), name.to_owned()] };
        !all.contains_key(&queue)
    }

    /// An import leaves a queue or an exchange that is there as it is.
    fn stays_as_it_is(&self) -> bool {
        matches!(self.words()[0], "queues" | "exchanges")
    }

    /// Descriptions and tags of a virtual host are told in more than one way, and its limits are among the parameters.
    fn is_same(&self, one: &Value, other: &Value) -> bool {
        self.host().is_some() || one == other
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let words = self.words();
        let word = match words[0] {
            "policies" => "policy",
            other => other.strip_suffix('s').unwrap_or(other),
        };
        let fields = words[1..].iter().filter(|field| !matches!(**field, "" | "{}"));
        write!(f, "{} {}", word.replace('_', " "), fields.copied().collect::<Vec<_>>().join(" "))
    }
}

/// The first names of a list, for people.
pub(super) fn told(names: &[Name]) -> String {
    let mut told: Vec<String> = names.iter().take(TOLD).map(Name::to_string).collect();
    if names.len() > TOLD {
        told.push(format!("{} more", names.len() - TOLD));
    }
    told.join(", ")
}

/// An empty table is told as an empty list as well.
fn plain(value: &Value) -> Value {
    match value {
        Value::Array(list) if list.is_empty() => Value::Object(serde_json::Map::new()),
        Value::Array(list) => list.iter().map(plain).collect(),
        Value::Object(map) => map.iter().map(|(key, value)| (key.clone(), plain(value))).collect(),
        other => other.clone(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn sample() -> Value {
        json!({
            "rabbitmq_version": "3.10.8",
            "users": [{"name": "app", "password_hash": "x", "tags": []}],
            "vhosts": [{"name": "shop", "limits": [], "metadata": {"tags": ""}}],
            "permissions": [{"user": "app", "vhost": "shop", "configure": ".*"}],
            "queues": [{"vhost": "shop", "name": "orders", "durable": true, "arguments": {}}],
            "exchanges": [{"vhost": "shop", "name": "in", "type": "topic"}],
            "bindings": [
                {"vhost": "shop", "source": "in", "destination": "orders", "destination_type": "queue",
                 "routing_key": "k", "arguments": {"x": 1}},
                {"vhost": "shop", "source": "in", "destination": "amq.gen-1", "destination_type": "queue",
                 "routing_key": "k", "arguments": []},
            ],
        })
    }

    fn parse(json: &Value) -> Result<Definitions> {
        Definitions::parse(json.to_string().as_bytes())
    }

    fn changed(path: &str, value: Value) -> Definitions {
        let mut json = sample();
        *json.pointer_mut(path).unwrap() = value;
        parse(&json).unwrap()
    }

    fn shown(names: &[Name]) -> Vec<String> {
        names.iter().map(Name::to_string).collect()
    }

    #[test]
    fn what_is_no_set_of_definitions_is_refused_and_bindings_of_passing_queues_do_not_count() {
        let read = parse(&sample()).unwrap();
        assert_eq!((read.len(), read.version.as_str()), (6, "3.10.8"));
        for (path, value) in [
            ("/users", json!({})),
            ("/vhosts", Value::Null),
            ("/queues", json!([{"vhost": "shop"}])),
            ("/users", json!([{"name": "a"}, {"name": "a"}])),
        ] {
            let mut json = sample();
            *json.pointer_mut(path).unwrap() = value;
            assert!(parse(&json).is_err(), "{json}");
        }
        let text = sample().to_string();
        assert!(Definitions::parse(&text.as_bytes()[..text.len() - 1]).is_err(), "cut short");
    }

    #[test]
    fn what_an_import_would_leave_as_it_is_has_to_be_made_anew_and_what_is_not_wanted_goes() {
        let wanted = parse(&sample()).unwrap();
        assert_eq!(wanted.towards(&wanted), Changes::default());
        let live = changed("/queues/0/durable", json!(false));
        let changes = live.towards(&wanted);
        assert_eq!(
            (shown(&changes.extra), shown(&changes.otherwise)),
            (vec![], vec!["queue shop orders".into()])
        );
        let live = changed("/users/0", json!({"name": "intruder"}));
        let changes = live.towards(&wanted);
        assert_eq!(
            (shown(&changes.extra), shown(&changes.otherwise)),
            (vec!["user intruder".into()], vec![])
        );
        assert_eq!(shown(&live.lacking(&wanted)), ["user app"]);
        // An import does this.
        let live = changed("/users/0/password_hash", json!("y"));
        assert_eq!(
            (live.towards(&wanted), shown(&live.lacking(&wanted))),
            (Changes::default(), vec!["user app".into()])
        );
        // Told in two ways.
        let live = changed("/vhosts/0/metadata/tags", json!([]));
        assert!(live.lacking(&wanted).is_empty());
    }

    #[test]
    fn names_go_out_as_the_expression_reads_them() {
        let read = parse(&sample()).unwrap();
        let names: Vec<Value> = read.all.keys().map(Name::json).collect();
        assert_eq!(names[0], json!(["bindings", "shop", "in", "queue", "orders", "k", {"x": 1}]));
        assert_eq!(names.last().unwrap(), &json!(["vhosts", "shop"]));
    }
}
