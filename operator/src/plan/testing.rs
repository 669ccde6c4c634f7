//! Objects for the tests of this module.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde_json::{Value, json};

use crate::operation::frozen::Kept;
use crate::operation::record::{Intent, Journal, OpId, Operation, SCHEMA, State, Trigger, Work};
use crate::swarm::object::{Service, Task, TaskState};

pub(crate) fn service(name: &str) -> Service {
    Service {
        id: format!("{name}-id"),
        version: 1,
        spec: json!({ "Name": name, "Labels": { "skep.enable": "true" } }),
        update: None,
        created: Timestamp::UNIX_EPOCH,
    }
}

/// One of a stack, named as in `shop_app`, that runs an image; with labels besides.
pub(crate) fn deployed(name: &str, image: &str, labels: &Value) -> Service {
    let stack = name.split('_').next().unwrap();
    let mut all = json!({ "com.docker.stack.namespace": stack, "skep.enable": "true" });
    for (key, value) in labels.as_object().unwrap() {
        all[key] = value.clone();
    }
    let spec = json!({
        "Name": name,
        "Labels": all,
        "TaskTemplate": { "ContainerSpec": { "Image": image } },
        "Mode": { "Replicated": { "Replicas": 1 } },
    });
    Service { spec, ..service(name) }
}

/// A task of it that is to run.
pub(crate) fn task(service: &Service, state: TaskState) -> Task {
    Task {
        id: format!("{}-task", service.id),
        service: service.id.clone(),
        node: Some("node".to_owned()),
        slot: 1,
        state,
        desired: TaskState::Running,
        error: String::new(),
        exit_code: None,
        image: String::new(),
        spec_version: None,
        spec: json!({ "ContainerSpec": { "Image": "app:1" } }),
        addresses: Vec::new(),
        created: Timestamp::UNIX_EPOCH,
        changed: Timestamp::UNIX_EPOCH,
    }
}

pub(crate) fn op(service: &str, work: Work, created: &str, state: State) -> Operation {
    let created: Timestamp = created.parse().unwrap();
    let id = OpId::new(created, &format!("{service}{work:?}"));
    let mut journal = Journal::new(state);
    journal.ended = state.is_terminal().then_some(created);
    Operation {
        config: format!("config-{id}"),
        id,
        version: 1,
        intent: Intent {
            schema: SCHEMA,
            service: service.to_owned(),
            service_id: format!("{service}-id"),
            work,
            trigger: Trigger::Person { name: "ann".to_owned() },
            created,
            approval: false,
            accept_problems: false,
        },
        journal,
    }
}

/// A restore that has kept the old database.
pub(crate) fn kept(service: &str, at: &str, until: &str) -> Operation {
    let work = Work::Restore {
        to: None,
        backup: None,
        before: None,
        in_place: None,
        quiesce: None,
        create_roles: false,
    };
    let mut op = op(service, work, at, State::Succeeded);
    let kept = Kept {
        operation: op.id.clone(),
        form: crate::operation::frozen::KeptForm::Database,
        name: format!("skep_{}_old", op.id),
        oid: 17_000,
        until: until.parse().unwrap(),
    };
    let ended = op.intent.created;
    op.journal.step_mut("keep", ended).out = serde_json::to_value(kept).unwrap();
    op.journal.steps.retain(|(_, r)| r.jobs == BTreeMap::new());
    op
}
