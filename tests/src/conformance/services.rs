//! Services: what is refused, what is kept, what a change does.

use serde_json::{Value, json};

use super::{Rig, state, version_of};

super::facts![
    a_service_name_is_taken_once,
    references_to_what_does_not_exist_are_refused,
    specs_that_cannot_work_are_refused,
    a_spec_reads_back_normalised_and_can_be_posted_again,
    an_update_of_a_service_needs_its_current_version,
    neither_name_nor_mode_may_change,
    a_config_in_use_cannot_be_deleted,
    a_network_is_named_by_its_id_in_what_reads_back,
    labels_and_update_settings_change_without_a_restart,
    a_write_forgets_the_status_of_the_last_rollout,
    the_allocation_of_ports_is_one_more_write,
    lists_of_services_filter_by_label,
    service_counts_come_with_status,
];

async fn a_service_name_is_taken_once(rig: Rig) {
    let spec = scaled_to_zero(rig.spec("web", &["serve"]));
    rig.create(&spec).await;
    let reply = rig.post("/services/create", &spec).await;
    assert_eq!(reply.status, 409);
    let text = format!("name conflicts with an existing object: service {} already exists", rig.name("web"));
    assert!(reply.message().ends_with(&text), "{}", reply.message());
}

fn scaled_to_zero(mut spec: Value) -> Value {
    spec["Mode"] = json!({ "Replicated": { "Replicas": 0 } });
    spec
}

fn mounted(mut spec: Value, kind: &str, id: &str, name: &str) -> Value {
    spec["TaskTemplate"]["ContainerSpec"][format!("{kind}s")] = json!([{
        "File": { "Name": "/x", "UID": "0", "GID": "0", "Mode": 0o444 },
        format!("{kind}ID"): id,
        format!("{kind}Name"): name,
    }]);
    spec
}

async fn references_to_what_does_not_exist_are_refused(rig: Rig) {
    let id = rig.store("configs", "real", "x", &[]).await;
    let spec = || rig.spec("web", &["serve"]);
    let invalid = |text: &str| (400, format!("rpc error: code = InvalidArgument desc = {text}"));
    let mut network = spec();
    network["TaskTemplate"]["Networks"] = json!([{ "Target": "nonet" }]);
    let cases = [
        (mounted(spec(), "Config", "nope", "gone"), invalid("config not found: gone")),
        (mounted(spec(), "Config", &id, "another"), invalid("config not found: another")),
        (mounted(spec(), "Config", "", "gone"), invalid("malformed config reference")),
        (mounted(spec(), "Secret", "nope", "gone"), invalid("secret not found: gone")),
        (network, (500, "network nonet not found".to_owned())),
    ];
    for (spec, wanted) in cases {
        let reply = rig.post("/services/create", &spec).await;
        assert_eq!((reply.status, reply.message()), wanted);
    }
}

async fn specs_that_cannot_work_are_refused(rig: Rig) {
    let with = |pointer: &str, value: Value| {
        let mut spec = rig.spec("web", &["serve"]);
        let (parent, key) = pointer.rsplit_once('/').expect("a pointer has parts");
        spec.pointer_mut(parent).expect("the parent is there")[key] = value;
        spec
    };
    let port = json!({ "Protocol": "tcp", "TargetPort": 80, "PublishedPort": 1, "PublishMode": "ingress" });
    let mount = json!({ "Type": "volume", "Source": "v", "Target": "/y" });
    let cases = [
        (with("/Name", json!("a.b")), 400, "name must be valid as a DNS name component"),
        (with("/Name", json!("x".repeat(64))), 400, "name must be 63 characters or fewer"),
        (with("/TaskTemplate/ContainerSpec/Image", json!("")), 400, "image reference must be provided"),
        (with("/TaskTemplate/ContainerSpec/Mounts", json!([mount, mount])), 400, "duplicate mount point: /y"),
        (with("/EndpointSpec/Ports", json!([port])), 400, "ingress mode can't be used with dnsrr mode"),
        (
            with("/TaskTemplate/Placement", json!({ "Constraints": ["node.id=x"] })),
            500,
            "constraint expected one operator from ==, !=",
        ),
        (with("/UpdateConfig/Order", json!("bogus")), 400, "unrecognized update order bogus"),
        (
            with("/UpdateConfig/FailureAction", json!("bogus")),
            400,
            "unrecognized update failure action bogus",
        ),
        (with("/TaskTemplate", json!({})), 400, "mismatched Runtime and *Spec fields"),
    ];
    for (spec, status, text) in cases {
        let reply = rig.post("/services/create", &spec).await;
        assert_eq!(reply.status, status, "{text}: {}", reply.message());
        assert!(reply.message().ends_with(text), "{}", reply.message());
    }
}

async fn a_spec_reads_back_normalised_and_can_be_posted_again(rig: Rig) {
    let posted = json!({
        "Name": rig.name("web"), "Labels": rig.labels(&[("empty", "")]),
        "TaskTemplate": {
            "ContainerSpec": {
                "Image": super::IMAGE, "Args": ["serve"], "Command": [], "Labels": {}, "Init": false,
                "Env": ["A=1"], "Hostname": "", "ReadOnly": false, "DNSConfig": {}, "StopGracePeriod": 0,
                "Healthcheck": {}, "Unknown": 1,
                "Mounts": [{ "Type": "volume", "Source": "v", "Target": "/y", "ReadOnly": false }],
            },
            "Resources": {}, "Placement": {}, "RestartPolicy": {}, "Networks": [],
        },
        "Mode": { "Replicated": { "Replicas": 0 } },
        "UpdateConfig": { "Order": "start-first", "Monitor": 2_000_000_000_u64 }, "RollbackConfig": {},
        "EndpointSpec": { "Mode": "dnsrr", "Ports": [{ "TargetPort": 80, "PublishMode": "host" }] },
    });
    rig.create(&posted).await;
    let read = rig.service("web").await;
    let wanted = json!({
        "Name": rig.name("web"), "Labels": rig.labels(&[("empty", "")]),
        "TaskTemplate": {
            "ContainerSpec": {
                "Image": super::IMAGE, "Args": ["serve"], "Init": false, "Env": ["A=1"], "DNSConfig": {},
                "StopGracePeriod": 0, "Healthcheck": {}, "Isolation": "default",
                "Mounts": [{ "Type": "volume", "Source": "v", "Target": "/y" }],
            },
            "Resources": {}, "Placement": {}, "RestartPolicy": { "Condition": "any", "MaxAttempts": 0 },
            "ForceUpdate": 0, "Runtime": "container",
        },
        "Mode": { "Replicated": { "Replicas": 0 } },
        "UpdateConfig": {
            "Parallelism": 0, "FailureAction": "pause", "Monitor": 2_000_000_000_u64, "MaxFailureRatio": 0,
            "Order": "start-first",
        },
        "RollbackConfig": {
            "Parallelism": 0, "FailureAction": "pause", "MaxFailureRatio": 0, "Order": "stop-first",
        },
        "EndpointSpec": {
            "Mode": "dnsrr", "Ports": [{ "Protocol": "tcp", "TargetPort": 80, "PublishMode": "host" }],
        },
    });
    assert_eq!(read["Spec"], wanted);
    rig.changed("web", |_| {}).await;
    assert_eq!(rig.service("web").await["Spec"], wanted);
}

async fn an_update_of_a_service_needs_its_current_version(rig: Rig) {
    rig.create(&scaled_to_zero(rig.spec("web", &["serve"]))).await;
    let service = rig.service("web").await;
    let path = format!("/services/{}/update", rig.name("web"));
    let reply = rig.post(&path, &service["Spec"]).await;
    assert_eq!(reply.status, 400);
    assert!(reply.message().contains("strconv.ParseUint: parsing \"\""), "{}", reply.message());
    for wrong in [1, version_of(&service) + 1_000_000] {
        let reply = rig.post(&format!("{path}?version={wrong}"), &service["Spec"]).await;
        let text = "rpc error: code = Unknown desc = update out of sequence";
        assert_eq!((reply.status, reply.message().as_str()), (500, text));
    }
    let reply = rig.post(&format!("{path}?version={}", version_of(&service)), &service["Spec"]).await;
    assert_eq!((reply.status, reply.json()), (200, json!({ "Warnings": null })));
    let reply = rig.post("/services/nobody/update?version=1", &service["Spec"]).await;
    assert_eq!((reply.status, reply.message().as_str()), (404, "service nobody not found"));
}

async fn neither_name_nor_mode_may_change(rig: Rig) {
    rig.create(&scaled_to_zero(rig.spec("web", &["serve"]))).await;
    let reply = rig.change("web", |spec| spec["Name"] = json!(rig.name("other"))).await;
    assert_eq!(reply.status, 501);
    assert!(reply.message().ends_with("renaming services is not supported"), "{}", reply.message());
    let reply = rig.change("web", |spec| spec["Mode"] = json!({ "Global": {} })).await;
    assert_eq!(reply.status, 501);
    assert!(reply.message().ends_with("service mode change is not allowed"), "{}", reply.message());
}

async fn a_config_in_use_cannot_be_deleted(rig: Rig) {
    for (kind, path, word) in [("Config", "configs", "config"), ("Secret", "secrets", "secret")] {
        let id = rig.store(path, "used", "x", &[]).await;
        let mut spec = scaled_to_zero(mounted(rig.spec("web", &["serve"]), kind, &id, &rig.name("used")));
        spec["Name"] = json!(rig.name(word));
        rig.create(&spec).await;
        let reply = rig.delete(&format!("/{path}/{id}")).await;
        let text = format!(
            "rpc error: code = InvalidArgument desc = {word} '{}' is in use by the following service: {}",
            rig.name("used"),
            rig.name(word)
        );
        assert_eq!((reply.status, reply.message()), (400, text));
        assert_eq!(rig.delete(&format!("/services/{}", rig.name(word))).await.status, 200);
        assert_eq!(rig.delete(&format!("/{path}/{id}")).await.status, 204, "free at once");
    }
}

async fn a_network_is_named_by_its_id_in_what_reads_back(rig: Rig) {
    let body = json!({ "Name": rig.name("net"), "Driver": "overlay", "Labels": rig.labels(&[]) });
    let reply = rig.post("/networks/create", &body).await;
    assert_eq!(reply.status, 201, "{}", reply.message());
    let id = super::id_of(&reply.json());
    let again = rig.post("/networks/create", &body).await;
    assert_eq!(again.message(), format!("network with name {} already exists", rig.name("net")));
    let mut spec = scaled_to_zero(rig.spec("web", &["serve"]));
    spec["TaskTemplate"]["Networks"] = json!([{ "Target": rig.name("net"), "Aliases": ["web"] }]);
    rig.create(&spec).await;
    let networks = rig.service("web").await["Spec"]["TaskTemplate"]["Networks"].clone();
    assert_eq!(networks, json!([{ "Target": id, "Aliases": ["web"] }]));
    let reply = rig.delete(&format!("/networks/{id}")).await;
    assert_eq!(reply.status, 400);
    assert!(reply.message().contains("is in use by service"), "{}", reply.message());
}

async fn labels_and_update_settings_change_without_a_restart(rig: Rig) {
    rig.create(&rig.spec("web", &["serve"])).await;
    rig.running("web", 1).await;
    let before = rig.tasks("web").await;
    rig.changed("web", |spec| {
        spec["Labels"]["note"] = json!("1");
        spec["UpdateConfig"]["Parallelism"] = json!(2);
        spec["RollbackConfig"] = json!({ "Order": "start-first" });
    })
    .await;
    tokio::time::sleep(std::time::Duration::from_secs(1)).await;
    let after = rig.tasks("web").await;
    assert_eq!(after.len(), 1);
    assert_eq!((&after[0]["ID"], state(&after[0])), (&before[0]["ID"], "running"));
    let service = rig.service("web").await;
    assert_eq!(service.get("UpdateStatus"), None);
    assert_eq!(service["PreviousSpec"]["Labels"], rig.labels(&[]), "but the previous spec is overwritten");
}

async fn a_write_forgets_the_status_of_the_last_rollout(rig: Rig) {
    rig.create(&rig.spec("web", &["serve"])).await;
    rig.running("web", 1).await;
    rig.changed("web", |spec| spec["TaskTemplate"]["ForceUpdate"] = json!(1)).await;
    rig.rolled("web", "completed").await;
    rig.changed("web", |spec| spec["Labels"]["note"] = json!("1")).await;
    assert_eq!(rig.service("web").await.get("UpdateStatus"), None);
}

async fn the_allocation_of_ports_is_one_more_write(rig: Rig) {
    let mut spec = scaled_to_zero(rig.spec("web", &["serve"]));
    spec["EndpointSpec"]["Ports"] = json!([{ "TargetPort": 80, "PublishMode": "host" }]);
    let mut plain = scaled_to_zero(rig.spec("plain", &["serve"]));
    plain["Name"] = json!(rig.name("plain"));
    rig.create(&spec).await;
    rig.create(&plain).await;
    rig.until("it was written again", async || {
        let service = rig.service("web").await;
        service["UpdatedAt"] != service["CreatedAt"]
    })
    .await;
    let service = rig.service("plain").await;
    assert_eq!(service["UpdatedAt"], service["CreatedAt"], "nothing to allocate");
}

async fn lists_of_services_filter_by_label(rig: Rig) {
    for (part, label) in [("one", "a"), ("two", "b")] {
        let mut spec = scaled_to_zero(rig.spec(part, &["serve"]));
        spec["Labels"]["which"] = json!(label);
        rig.create(&spec).await;
    }
    let mine = format!("{}={}", super::LABEL, rig.prefix);
    let count = async |labels: Value| {
        rig.list("/services", &json!({ "label": labels })).await.json().as_array().map_or(0, Vec::len)
    };
    assert_eq!(count(json!([&mine])).await, 2);
    assert_eq!(count(json!([&mine, "which=a"])).await, 1);
    assert_eq!(count(json!([&mine, "which"])).await, 2);
    assert_eq!(count(json!([&mine, "which=c"])).await, 0);
}

async fn service_counts_come_with_status(rig: Rig) {
    let mut spec = rig.spec("web", &["serve"]);
    spec["Mode"] = json!({ "Replicated": { "Replicas": 2 } });
    rig.create(&spec).await;
    rig.running("web", 2).await;
    let path = format!(
        "/services?status=true&filters={}",
        super::encode(&json!({ "name": [rig.name("web")] }).to_string())
    );
    let listed = rig.get(&path).await;
    assert_eq!(listed[0]["ServiceStatus"]["RunningTasks"], 2);
    assert_eq!(listed[0]["ServiceStatus"]["DesiredTasks"], 2);
}
