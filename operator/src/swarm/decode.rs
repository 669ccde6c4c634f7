//! The engine's JSON and bollard's types → [`super::object`].

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bollard::models;
use jiff::Timestamp;
use serde_json::Value;

use super::object::{
    Config, Event, EventAction, EventKind, Info, Labels, Network, Node, Secret, Service, Task, TaskState,
    UpdateState, UpdateStatus,
};

/// What is wrong with an answer.
pub(super) type Wrong = String;

pub(super) fn config(value: &Value) -> Result<Config, Wrong> {
    let spec = &value["Spec"];
    let data = spec["Data"].as_str().unwrap_or_default();
    Ok(Config {
        id: text(value, "ID")?,
        name: text(spec, "Name")?,
        version: version(value)?,
        created: time(value, "CreatedAt")?,
        updated: time(value, "UpdatedAt")?,
        labels: labels(&spec["Labels"]),
        data: STANDARD.decode(data).map_err(|e| format!("Data: {e}"))?,
    })
}

pub(super) fn listed_config(config: models::Config) -> Result<Config, Wrong> {
    let spec = config.spec.ok_or("a config without Spec")?;
    Ok(Config {
        id: config.id.ok_or("a config without ID")?,
        name: spec.name.ok_or("a config without Name")?,
        version: config.version.and_then(|v| v.index).ok_or("a config without Version")?,
        created: moment(config.created_at.as_deref())?,
        updated: moment(config.updated_at.as_deref())?,
        labels: spec.labels.unwrap_or_default().into_iter().collect(),
        data: STANDARD.decode(spec.data.unwrap_or_default()).map_err(|e| format!("Data: {e}"))?,
    })
}

pub(super) fn secret(value: &Value) -> Result<Secret, Wrong> {
    let spec = &value["Spec"];
    Ok(Secret {
        id: text(value, "ID")?,
        name: text(spec, "Name")?,
        version: version(value)?,
        labels: labels(&spec["Labels"]),
        created: time(value, "CreatedAt")?,
    })
}

pub(super) fn service(value: &mut Value) -> Result<Service, Wrong> {
    let update = &value["UpdateStatus"];
    let update = update["State"].as_str().and_then(update_state).map(|state| UpdateStatus {
        state,
        message: update["Message"].as_str().unwrap_or_default().to_owned(),
    });
    Ok(Service {
        id: text(value, "ID")?,
        version: version(value)?,
        created: time(value, "CreatedAt")?,
        update,
        spec: value["Spec"].take(),
    })
}

pub(super) fn task(value: &mut Value) -> Result<Task, Wrong> {
    let status = &value["Status"];
    let state = task_state(status, "State")?;
    let exit = status["ContainerStatus"]["ExitCode"].as_i64();
    Ok(Task {
        id: text(value, "ID")?,
        service: text(value, "ServiceID")?,
        node: value["NodeID"].as_str().filter(|n| !n.is_empty()).map(str::to_owned),
        slot: value["Slot"].as_u64().unwrap_or(0),
        state,
        desired: task_state(value, "DesiredState")?,
        error: status["Err"].as_str().unwrap_or_default().to_owned(),
        // Tasks that never ran a container carry a 0 too.
        exit_code: exit.filter(|_| state.is_terminal() && state != TaskState::Rejected),
        image: value["Spec"]["ContainerSpec"]["Image"].as_str().unwrap_or_default().to_owned(),
        spec_version: value["JobIteration"]["Index"].as_u64(),
        addresses: addresses(&value["NetworksAttachments"]),
        created: time(value, "CreatedAt")?,
        changed: time(status, "Timestamp")?,
        spec: value["Spec"].take(),
    })
}

pub(super) fn node(node: models::Node) -> Result<Node, Wrong> {
    let description = node.description.unwrap_or_default();
    let spec = node.spec.unwrap_or_default();
    let availability = spec.availability.unwrap_or(models::NodeSpecAvailabilityEnum::ACTIVE);
    Ok(Node {
        id: node.id.ok_or("a node without ID")?,
        hostname: description.hostname.unwrap_or_default(),
        ready: node.status.and_then(|s| s.state) == Some(models::NodeState::READY),
        architecture: description.platform.and_then(|p| p.architecture).unwrap_or_default(),
        active: availability == models::NodeSpecAvailabilityEnum::ACTIVE,
        manager: spec.role == Some(models::NodeSpecRoleEnum::MANAGER),
        labels: spec.labels.unwrap_or_default().into_iter().collect(),
    })
}

pub(super) fn listed_network(network: models::Network) -> Result<Network, Wrong> {
    Ok(Network {
        id: network.id.ok_or("a network without Id")?,
        name: network.name.unwrap_or_default(),
        driver: network.driver.unwrap_or_default(),
        labels: network.labels.unwrap_or_default().into_iter().collect(),
    })
}

pub(super) fn network(value: &Value) -> Result<Network, Wrong> {
    Ok(Network {
        id: text(value, "Id")?,
        name: text(value, "Name")?,
        driver: value["Driver"].as_str().unwrap_or_default().to_owned(),
        labels: labels(&value["Labels"]),
    })
}

pub(super) fn info(value: &Value, api_version: &str) -> Info {
    let swarm = &value["Swarm"];
    let string = |v: &Value| v.as_str().unwrap_or_default().to_owned();
    Info {
        engine_version: string(&value["ServerVersion"]),
        api_version: api_version.to_owned(),
        active: swarm["LocalNodeState"] == "active",
        manager: swarm["ControlAvailable"] == true,
        node: string(&swarm["NodeID"]),
        cluster: swarm["Cluster"]["ID"].as_str().filter(|id| !id.is_empty()).map(str::to_owned),
        log_driver: string(&value["LoggingDriver"]),
        error: string(&swarm["Error"]),
    }
}

pub(super) fn event(message: models::EventMessage) -> Event {
    use models::EventMessageTypeEnum as Type;
    let actor = message.actor.unwrap_or_default();
    let kind = match message.typ {
        Some(Type::SERVICE) => EventKind::Service,
        Some(Type::CONFIG) => EventKind::Config,
        Some(Type::SECRET) => EventKind::Secret,
        Some(Type::NETWORK) => EventKind::Network,
        Some(Type::NODE) => EventKind::Node,
        _ => EventKind::Other,
    };
    let action = match message.action.as_deref() {
        Some("create") => EventAction::Create,
        Some("update") => EventAction::Update,
        Some("remove") => EventAction::Remove,
        _ => EventAction::Other,
    };
    let name = actor.attributes.and_then(|mut a| a.remove("name"));
    Event { kind, action, id: actor.id.unwrap_or_default(), name }
}

fn addresses(attachments: &Value) -> Vec<(String, String)> {
    let attachments = attachments.as_array().map(Vec::as_slice).unwrap_or_default();
    let of_one = |a: &Value| {
        let network = a["Network"]["ID"].as_str().unwrap_or_default().to_owned();
        let addresses = a["Addresses"].as_array().cloned().unwrap_or_default();
        addresses.into_iter().filter_map(move |address| {
            let bare = address.as_str()?.split('/').next()?.to_owned();
            Some((network.clone(), bare))
        })
    };
    attachments.iter().flat_map(of_one).collect()
}

fn update_state(text: &str) -> Option<UpdateState> {
    Some(match text {
        "updating" => UpdateState::Updating,
        "paused" => UpdateState::Paused,
        "completed" => UpdateState::Completed,
        "rollback_started" => UpdateState::RollbackStarted,
        "rollback_paused" => UpdateState::RollbackPaused,
        "rollback_completed" => UpdateState::RollbackCompleted,
        _ => return None,
    })
}

fn task_state(value: &Value, key: &str) -> Result<TaskState, Wrong> {
    let text = value[key].as_str().unwrap_or_default();
    TaskState::parse(text).ok_or_else(|| format!("{key}: `{text}` is no task state"))
}

fn text(value: &Value, key: &str) -> Result<String, Wrong> {
    value[key].as_str().map(str::to_owned).ok_or_else(|| format!("{key} is missing"))
}

fn version(value: &Value) -> Result<u64, Wrong> {
    value["Version"]["Index"].as_u64().ok_or_else(|| "Version.Index is missing".to_owned())
}

fn time(value: &Value, key: &str) -> Result<Timestamp, Wrong> {
    moment(value[key].as_str())
}

fn moment(text: Option<&str>) -> Result<Timestamp, Wrong> {
    let text = text.ok_or("a time is missing")?;
    text.parse().map_err(|e| format!("`{text}` is no time: {e}"))
}

fn labels(value: &Value) -> Labels {
    let labels = value.as_object().into_iter().flatten();
    labels.map(|(k, v)| (k.clone(), v.as_str().unwrap_or_default().to_owned())).collect()
}
