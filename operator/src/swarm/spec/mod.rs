//! Pure questions about, and edits of, service specs as raw JSON: nothing of a user's spec is lost on the way.
//!
//! All functions take the whole spec (what the engine calls `Spec`), and answer "nothing" for what is absent.

mod compare;
pub mod placement;
mod redact;
mod reference;

use serde_json::{Map, Value, json};

pub use compare::{same_spec, same_template};
pub use redact::{looks_secret, redacted};
pub use reference::Reference;

use super::object::ObjectRef;

/// A config or secret as a file of a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileRef {
    /// Which.
    pub object: ObjectRef,
    /// Absolute path in the container.
    pub path: String,
    /// Permissions.
    pub mode: u32,
}

/// A network of a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NetworkRef {
    /// Network id (a name, in a spec that was never read from the engine).
    pub target: String,
    /// Names other than the service's own under which the service is found there.
    pub aliases: Vec<String>,
}

/// Which of the two kinds of files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileKind {
    /// Swarm configs.
    Config,
    /// Swarm secrets.
    Secret,
}

// === impl FileRef ===

impl FileRef {
    /// The entry of `ContainerSpec.Configs` or `.Secrets`.
    pub fn to_entry(&self, kind: FileKind) -> Value {
        let file = json!({"Name": self.path, "UID": "0", "GID": "0", "Mode": self.mode});
        json!({kind.id_key(): self.object.id, kind.name_key(): self.object.name, "File": file})
    }
}

// === impl FileKind ===

impl FileKind {
    const fn list_key(self) -> &'static str {
        match self {
            FileKind::Config => "Configs",
            FileKind::Secret => "Secrets",
        }
    }

    const fn id_key(self) -> &'static str {
        match self {
            FileKind::Config => "ConfigID",
            FileKind::Secret => "SecretID",
        }
    }

    const fn name_key(self) -> &'static str {
        match self {
            FileKind::Config => "ConfigName",
            FileKind::Secret => "SecretName",
        }
    }

    /// Where a file with a relative name lands.
    const fn root(self) -> &'static str {
        match self {
            FileKind::Config => "/",
            FileKind::Secret => "/run/secrets/",
        }
    }
}

/// Replicas wanted; none for services that are not replicated.
pub fn replicas(spec: &Value) -> Option<u64> {
    let replicated = spec["Mode"]["Replicated"].as_object()?;
    Some(replicated.get("Replicas").and_then(Value::as_u64).unwrap_or(0))
}

/// Sets the replicas wanted; false, and nothing is changed, where the service is not replicated.
#[must_use]
pub fn set_replicas(spec: &mut Value, replicas: u64) -> bool {
    let Some(replicated) = spec.pointer_mut("/Mode/Replicated").and_then(Value::as_object_mut) else {
        return false;
    };
    replicated.insert("Replicas".to_owned(), replicas.into());
    true
}

/// The task template.
pub fn template(spec: &Value) -> &Value {
    &spec["TaskTemplate"]
}

/// The spec with another task template; all else stays.
#[must_use]
pub fn with_template(spec: &Value, template: &Value) -> Value {
    let mut spec = spec.clone();
    spec["TaskTemplate"] = template.clone();
    spec
}

/// Image reference, with its digest where the spec has one.
pub fn image(spec: &Value) -> &str {
    container(spec)["Image"].as_str().unwrap_or_default()
}

/// Sets the image reference.
pub fn set_image(spec: &mut Value, image: &str) {
    spec["TaskTemplate"]["ContainerSpec"]["Image"] = image.into();
}

/// How often the service was told to restart; 0 where never.
pub fn force_update(spec: &Value) -> u64 {
    template(spec)["ForceUpdate"].as_u64().unwrap_or(0)
}

/// Sets how often the service was told to restart.
pub fn set_force_update(spec: &mut Value, count: u64) {
    spec["TaskTemplate"]["ForceUpdate"] = count.into();
}

/// The value of an environment variable; the last entry counts, as it does for the container.
pub fn env<'a>(spec: &'a Value, name: &str) -> Option<&'a str> {
    env_entries(spec).into_iter().rev().find(|(n, _)| *n == name).map(|(_, v)| v)
}

/// The environment as name and value; a name without `=` has an empty value.
pub fn env_entries(spec: &Value) -> Vec<(&str, &str)> {
    let entries = items(&container(spec)["Env"]).iter().filter_map(Value::as_str);
    entries.map(|e| e.split_once('=').unwrap_or((e, ""))).collect()
}

/// The environment as it stands in the spec, without the entries that look secret.
pub fn env_without_secrets(spec: &Value) -> Vec<&str> {
    let entries = items(&container(spec)["Env"]).iter().filter_map(Value::as_str);
    entries.filter(|e| !redact::is_secret_entry(e)).collect()
}

/// The entries of the environment that look secret: those that [`env_without_secrets`] leaves out.
pub fn secret_env(spec: &Value) -> Vec<&str> {
    let entries = items(&container(spec)["Env"]).iter().filter_map(Value::as_str);
    entries.filter(|e| redact::is_secret_entry(e)).collect()
}

/// The secrets of the service and where they are in the container.
pub fn secrets(spec: &Value) -> Vec<FileRef> {
    files(spec, FileKind::Secret)
}

/// The configs of the service and where they are in the container.
pub fn configs(spec: &Value) -> Vec<FileRef> {
    files(spec, FileKind::Config)
}

/// The entries of the service's files as they stand in the spec, owner and permissions included.
pub fn file_entries(spec: &Value, kind: FileKind) -> impl Iterator<Item = &Value> {
    // A config without a file is a credential spec: no file in the container.
    items(&container(spec)[kind.list_key()]).iter().filter(|entry| entry["File"]["Name"].is_string())
}

/// The configs or secrets that the spec names, also such that are no files.
pub fn object_refs(spec: &Value, kind: FileKind) -> Vec<ObjectRef> {
    let named = |entry: &Value| {
        let text = |key: &str| entry[key].as_str().unwrap_or_default().to_owned();
        ObjectRef { id: text(kind.id_key()), name: text(kind.name_key()) }
    };
    items(&container(spec)[kind.list_key()]).iter().map(named).collect()
}

/// The mounts of the service as they stand in the spec.
pub fn mounts(spec: &Value) -> &[Value] {
    items(&container(spec)["Mounts"])
}

/// The networks of the service.
pub fn networks(spec: &Value) -> Vec<NetworkRef> {
    let of_template = items(&template(spec)["Networks"]);
    // Where engines before 1.25 kept them; they still answer specs that were written so.
    let entries = if of_template.is_empty() { items(&spec["Networks"]) } else { of_template };
    let network = |entry: &Value| NetworkRef {
        target: entry["Target"].as_str().unwrap_or_default().to_owned(),
        aliases: items(&entry["Aliases"]).iter().filter_map(Value::as_str).map(str::to_owned).collect(),
    };
    entries.iter().map(network).collect()
}

/// Placement constraints.
pub fn constraints(spec: &Value) -> Vec<&str> {
    items(&template(spec)["Placement"]["Constraints"]).iter().filter_map(Value::as_str).collect()
}

/// Whether the spec has a health check. One that the image brings is not seen here.
pub fn has_health_check(spec: &Value) -> bool {
    let test = items(&container(spec)["Healthcheck"]["Test"]);
    test.first().and_then(Value::as_str).is_some_and(|kind| kind != "NONE")
}

/// The log driver of a service, where it keeps nothing that can be read: the engine answers as if nothing had been printed. Since
/// Docker 20.10 what other drivers send away is also kept, unless an option says otherwise.
pub fn keeps_no_log(spec: &Value) -> Option<&str> {
    let driver = &template(spec)["LogDriver"];
    let name = driver["Name"].as_str().filter(|name| !name.is_empty())?;
    let is_off = driver["Options"]["cache-disabled"].as_str();
    no_log_of(name, is_off).then_some(name)
}

/// Whether a log driver with this option `cache-disabled` keeps nothing that can be read.
pub fn no_log_of(driver: &str, cache_disabled: Option<&str>) -> bool {
    let keeps = matches!(driver, "json-file" | "local" | "journald");
    let is_off =
        cache_disabled.is_some_and(|text| matches!(text, "1" | "t" | "T" | "true" | "TRUE" | "True"));
    driver == "none" || (is_off && !keeps)
}

/// Whether its containers have a terminal.
pub fn has_terminal(spec: &Value) -> bool {
    container(spec)["TTY"] == true
}

/// Ports that tasks publish on their own node, as the container has them. Such a service cannot be updated
/// start-first: the new task waits for the port of the old.
pub fn host_ports(spec: &Value) -> Vec<u16> {
    let ports = items(&spec["EndpointSpec"]["Ports"]).iter().filter(|p| p["PublishMode"] == "host");
    ports.filter_map(|p| u16::try_from(p["TargetPort"].as_u64()?).ok()).collect()
}

/// The members of an object, none where it is no object.
pub(super) fn members(value: &Value) -> impl Iterator<Item = (&String, &Value)> {
    value.as_object().into_iter().flat_map(Map::iter)
}

/// The items of an array, none where it is no array.
pub(super) fn items(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

pub(super) fn container(spec: &Value) -> &Value {
    &template(spec)["ContainerSpec"]
}

fn files(spec: &Value, kind: FileKind) -> Vec<FileRef> {
    let file = |entry: &Value| {
        let text = |key: &str| entry[key].as_str().unwrap_or_default().to_owned();
        let name = entry["File"]["Name"].as_str()?;
        let path = if name.starts_with('/') { name.to_owned() } else { format!("{}{name}", kind.root()) };
        let mode = entry["File"]["Mode"].as_u64().and_then(|m| u32::try_from(m).ok()).unwrap_or(0o444);
        Some(FileRef {
            object: ObjectRef { id: text(kind.id_key()), name: text(kind.name_key()) },
            path,
            mode,
        })
    };
    file_entries(spec, kind).filter_map(file).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn database() -> Value {
        json!({
            "Name": "shop_db",
            "Labels": {"skep.enable": "true"},
            "Mode": {"Replicated": {"Replicas": 2}},
            "TaskTemplate": {
                "ContainerSpec": {
                    "Image": "postgres:17@sha256:00",
                    "Env": ["POSTGRES_USER=first", "POSTGRES_USER=shop", "EMPTY"],
                    "Secrets": [{"SecretID": "s1", "SecretName": "pw", "File": {"Name": "db_pw", "UID": "0", "GID": "0", "Mode": 292}}],
                    "Configs": [
                        {"ConfigID": "c1", "ConfigName": "conf", "File": {"Name": "/etc/pg.conf", "Mode": 292}},
                        {"ConfigID": "c2", "ConfigName": "credentials", "Runtime": {}}
                    ],
                    "Mounts": [{"Type": "volume", "Source": "data", "Target": "/var/lib/postgresql/data"}],
                    "Healthcheck": {"Test": ["CMD", "pg_isready"], "Interval": 1000000000}
                },
                "Networks": [{"Target": "n1", "Aliases": ["db"]}],
                "Placement": {"Constraints": ["node.role==worker"]},
                "ForceUpdate": 3
            },
            "EndpointSpec": {"Ports": [
                {"TargetPort": 5432, "PublishedPort": 5432, "PublishMode": "host"},
                {"TargetPort": 80, "PublishedPort": 80, "PublishMode": "ingress"}
            ]}
        })
    }

    #[test]
    fn replicas_change_and_nothing_else_does() {
        let mut spec = database();
        assert!(set_replicas(&mut spec, 0));
        assert_eq!(replicas(&spec), Some(0));
        assert!(set_replicas(&mut spec, 2));
        assert_eq!(spec, database());
    }

    #[test]
    fn a_global_service_has_no_replicas_to_set() {
        let mut spec = json!({"Mode": {"Global": {}}});
        assert_eq!(replicas(&spec), None);
        assert!(!set_replicas(&mut spec, 0));
        assert_eq!(spec, json!({"Mode": {"Global": {}}}));
    }

    #[test]
    fn a_replicated_service_without_a_number_wants_none() {
        let mut spec = json!({"Mode": {"Replicated": {}}});
        assert_eq!(replicas(&spec), Some(0));
        assert!(set_replicas(&mut spec, 3));
        assert_eq!(replicas(&spec), Some(3));
    }

    #[test]
    fn the_last_entry_of_a_variable_counts() {
        assert_eq!(env(&database(), "POSTGRES_USER"), Some("shop"));
        assert_eq!(env(&database(), "EMPTY"), Some(""));
        assert_eq!(env(&database(), "ABSENT"), None);
    }

    #[test]
    fn the_environment_can_be_had_without_what_looks_secret() {
        let spec = json!({"TaskTemplate": {"ContainerSpec": {"Env": [
            "A=b", "DB_PASSWORD=x", "DB_PASSWORD_FILE=/run/secrets/x", "URL=postgres://u:p@db/x"]}}});
        assert_eq!(env_without_secrets(&spec), ["A=b", "DB_PASSWORD_FILE=/run/secrets/x"]);
    }

    #[test]
    fn files_have_their_paths_in_the_container() {
        let spec = database();
        assert_eq!(secrets(&spec)[0].path, "/run/secrets/db_pw");
        let configs = configs(&spec);
        assert_eq!(configs.len(), 1, "a credential spec is no file");
        assert_eq!(configs[0].path, "/etc/pg.conf");
        assert_eq!(configs[0].object, ObjectRef { id: "c1".into(), name: "conf".into() });
    }

    #[test]
    fn a_template_is_replaced_and_put_back_unchanged() {
        let spec = database();
        let page = with_template(&spec, &json!({"ContainerSpec": {"Image": "nginx"}}));
        assert_eq!(image(&page), "nginx");
        assert_eq!(page["Mode"], spec["Mode"]);
        assert_eq!(with_template(&page, template(&spec)), spec);
    }

    #[test]
    fn health_checks_count_only_where_they_check() {
        let mut spec = database();
        assert!(has_health_check(&spec));
        spec["TaskTemplate"]["ContainerSpec"]["Healthcheck"] = json!({"Test": ["NONE"]});
        assert!(!has_health_check(&spec));
        spec["TaskTemplate"]["ContainerSpec"]["Healthcheck"] = json!({"Interval": 5});
        assert!(!has_health_check(&spec), "an interval alone leaves the check to the image");
    }

    #[test]
    fn only_host_mode_ports_stand_in_the_way_of_start_first() {
        assert_eq!(host_ports(&database()), [5432]);
        assert_eq!(host_ports(&json!({})), [0; 0]);
    }

    #[test]
    fn networks_constraints_and_counters_are_read() {
        let spec = database();
        assert_eq!(networks(&spec), [NetworkRef { target: "n1".into(), aliases: vec!["db".into()] }]);
        assert_eq!(networks(&json!({"Networks": [{"Target": "old"}]}))[0].target, "old");
        assert_eq!(constraints(&spec), ["node.role==worker"]);
        assert_eq!(force_update(&spec), 3);
    }
}
