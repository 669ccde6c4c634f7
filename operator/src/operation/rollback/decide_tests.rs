use serde_json::{Value, json};

use super::*;
use crate::operation::points::{self, Member, Named, Network, Part, Purpose};
use crate::operation::record::OpId;

fn spec(name: &str, image: &str, more: &Value) -> Value {
    let mut spec = json!({
        "Name": name,
        "Labels": { "com.docker.stack.namespace": "shop", "skep.enable": "true", "com.docker.stack.image": image },
        "TaskTemplate": {
            "ForceUpdate": 1,
            "ContainerSpec": {
                "Image": image,
                "Configs": [{ "ConfigID": "c1", "ConfigName": "conf" }],
                "Secrets": [{ "SecretID": "s1", "SecretName": "key" }],
            },
            "Networks": [{ "Target": "n1" }],
        },
        "Mode": { "Replicated": { "Replicas": 2 } },
    });
    for (pointer, value) in more.as_object().into_iter().flatten() {
        *spec.pointer_mut(pointer).unwrap() = value.clone();
    }
    spec
}

fn service(spec: Value) -> Service {
    let id = format!("{}-id", spec["Name"].as_str().unwrap());
    Service { id, version: 7, spec, update: None, created: jiff::Timestamp::UNIX_EPOCH }
}

fn point() -> OpId {
    OpId::parse("20260101t000000abcdef").unwrap()
}

/// A point of one service, as it was then.
fn head(then: &Value, engine: Option<&str>) -> Head {
    let part = Part::of(&point(), b"");
    let member = Member {
        name: then["Name"].as_str().unwrap().to_owned(),
        id: "x".to_owned(),
        spec: part.clone(),
        image: String::new(),
        nodes: vec!["n9".to_owned()],
        data: engine.map(|e| points::Data { engine: e.to_owned(), backup: "b1".to_owned() }),
    };
    let (id, name) = ("c1".to_owned(), "conf".to_owned());
    Head {
        schema: Head::VERSION,
        id: point(),
        stack: "shop".to_owned(),
        taken: jiff::Timestamp::UNIX_EPOCH,
        purpose: Purpose::Regular,
        services: vec![member],
        configs: vec![Copied { id, name, labels: [].into(), data: part }],
        secrets: vec![Named { id: "s1".to_owned(), name: "key".to_owned() }],
        networks: vec![Network {
            id: "n1".to_owned(),
            name: "shop_default".to_owned(),
            definition: json!({}),
        }],
        volumes: Vec::new(),
    }
}

/// Everything that the point names is there.
fn there(now: Value, then: &Value) -> Now {
    let pair = |a: &str, b: &str| (a.to_owned(), b.to_owned());
    Now {
        services: vec![service(now.clone())],
        swarm: vec![service(now)],
        then: [(then["Name"].as_str().unwrap().to_owned(), then.clone())].into(),
        networks: [pair("n1", "shop_default")].into(),
        secrets: [pair("s1", "key")].into(),
        configs: [("c1".to_owned(), Found::Same("c1".to_owned()))].into(),
        ready: ["n9".to_owned()].into(),
    }
}

fn then() -> Value {
    spec("shop_app", "app:1", &json!({}))
}

fn now() -> Value {
    spec(
        "shop_app",
        "app:2",
        &json!({ "/TaskTemplate/ForceUpdate": 5, "/Mode/Replicated/Replicas": 3,
            "/TaskTemplate/ContainerSpec/Configs": [{ "ConfigID": "c2", "ConfigName": "conf_2" }] }),
    )
}

/// The spec that comes back.
fn wanted(only: &[Component]) -> Value {
    let decision = decide(&head(&then(), None), &there(now(), &then()), only);
    assert_eq!(decision.refused, [] as [String; 0]);
    decision.changes[0].wanted.clone()
}

#[test]
fn all_of_it_comes_back_but_how_often_the_service_was_told_to_restart() {
    let mut expected = then();
    expected["TaskTemplate"]["ForceUpdate"] = json!(5);
    assert_eq!(wanted(&SPECS), expected);
    assert_eq!(wanted(&[]), expected);
}

#[test]
fn each_component_comes_back_alone_and_leaves_the_others_as_they_are() {
    let mut image = now();
    image["TaskTemplate"]["ContainerSpec"]["Image"] = json!("app:1");
    image["Labels"]["com.docker.stack.image"] = json!("app:1");
    assert_eq!(wanted(&[Component::Images]), image);
    let mut configs = now();
    configs["TaskTemplate"]["ContainerSpec"]["Configs"] =
        then()["TaskTemplate"]["ContainerSpec"]["Configs"].clone();
    assert_eq!(wanted(&[Component::Configs]), configs);
    let mut specs = now();
    specs["Mode"] = then()["Mode"].clone();
    assert_eq!(wanted(&[Component::Specs]), specs);
}

#[test]
fn what_is_as_it_was_is_not_written() {
    let mut same = then();
    same["TaskTemplate"]["ForceUpdate"] = json!(9);
    let decision = decide(&head(&then(), None), &there(same, &then()), &SPECS);
    assert_eq!((decision.changes, decision.left), (vec![], vec![("shop_app".to_owned(), Why::Same)]));
}

#[test]
fn what_has_another_id_by_now_is_found_by_its_name() {
    let mut seen = there(now(), &then());
    seen.networks = [("n7".to_owned(), "shop_default".to_owned())].into();
    seen.secrets = [("s7".to_owned(), "key".to_owned())].into();
    seen.configs = [("c1".to_owned(), Found::Same("c7".to_owned()))].into();
    let decision = decide(&head(&then(), None), &seen, &SPECS);
    let template = &decision.changes[0].wanted["TaskTemplate"];
    let container = &template["ContainerSpec"];
    assert_eq!(template["Networks"][0]["Target"], "n7");
    assert_eq!(
        (&container["Secrets"][0]["SecretID"], &container["Configs"][0]["ConfigID"]),
        (&json!("s7"), &json!("c7"))
    );
    assert!(decision.mind[0].contains("secret key of shop_app was made anew"), "{:?}", decision.mind);
}

#[test]
fn what_is_gone_refuses_but_a_config_is_made_again() {
    let mut seen = there(now(), &then());
    seen.networks.clear();
    seen.secrets.clear();
    seen.configs.clear();
    let decision = decide(&head(&then(), None), &seen, &SPECS);
    let refused = decision.refused.join("\n");
    assert!(refused.contains("network shop_default of shop_app is gone"), "{refused}");
    assert!(refused.contains("secret key of shop_app is gone"), "{refused}");
    assert_eq!(decision.make.iter().map(|c| c.name.as_str()).collect::<Vec<_>>(), ["conf"]);

    let mut seen = there(now(), &then());
    seen.configs = [("c1".to_owned(), Found::Other)].into();
    let refused = decide(&head(&then(), None), &seen, &SPECS).refused.join("\n");
    assert!(refused.contains("config conf of shop_app was made anew with other data"), "{refused}");
    seen.services.clear();
    let refused = decide(&head(&then(), None), &seen, &SPECS).refused.join("\n");
    assert!(refused.contains("shop_app was removed"), "{refused}");
}

#[test]
fn another_image_or_mount_under_data_refuses() {
    for (now, said) in [(now(), "an older server may not read"), (then(), "its mounts were others then")] {
        let mut now = now;
        if said.starts_with("its mounts") {
            now["TaskTemplate"]["ContainerSpec"]["Mounts"] =
                json!([{ "Type": "volume", "Source": "other", "Target": "/d" }]);
        }
        let decision = decide(&head(&then(), Some("postgres")), &there(now, &then()), &SPECS);
        assert!(decision.refused.iter().any(|r| r.contains(said)), "{:?}", decision.refused);
    }
    let mut other = then();
    other["Mode"] = json!({ "Global": {} });
    let decision = decide(&head(&then(), None), &there(other, &then()), &SPECS);
    assert!(decision.refused[0].contains("was replicated then and is global now"), "{:?}", decision.refused);
}

/// A database that an application uses behind a proxy, all in the point, and the two changed since.
fn stack(db: &Value, app: &Value) -> (Head, Now) {
    let mut head = head(&then(), None);
    let now = |name: &str, more: &Value, env: &str| {
        let mut spec = spec(name, "app:1", &json!({}));
        for (key, value) in more.as_object().unwrap() {
            spec["Labels"][key] = value.clone();
        }
        spec["TaskTemplate"]["ContainerSpec"]["Env"] = json!([env]);
        spec
    };
    let services = [
        now("shop_db", db, "A=1"),
        now("shop_app", app, "A=2"),
        now("shop_proxy", &json!({ "skep.depends-on": "app" }), "A=2"),
        now("shop_other", &json!({}), "A=2"),
    ];
    let mut seen = there(then(), &then());
    seen.services = services.iter().cloned().map(service).collect();
    seen.swarm = seen.services.clone();
    let member = head.services[0].clone();
    head.services = Vec::new();
    for spec in &services {
        let name = spec["Name"].as_str().unwrap().to_owned();
        let mut then = spec.clone();
        then["TaskTemplate"]["ContainerSpec"]["Env"] = json!(["A=1"]);
        seen.then.insert(name.clone(), then);
        let engine = if name == "shop_db" { db["skep.data"].as_str() } else { None };
        let data = engine.map(|e| points::Data { engine: e.to_owned(), backup: "b1".to_owned() });
        head.services.push(Member { name, data, ..member.clone() });
    }
    (head, seen)
}

const ALL: [Component; 4] = [Component::Specs, Component::Configs, Component::Images, Component::Database];

#[test]
fn clients_of_data_that_goes_back_stop_and_so_do_dependents_of_theirs_that_change() {
    let db = json!({ "skep.data": "postgres" });
    let (head, seen) = stack(&db, &json!({ "skep.depends-on": "db" }));
    let decision = decide(&head, &seen, &ALL);
    assert_eq!(decision.refused, [] as [String; 0]);
    let data: Vec<(&str, &str)> =
        decision.data.iter().map(|d| (d.name.as_str(), d.backup.as_str())).collect();
    assert_eq!(data, [("shop_db", "b1")]);
    assert_eq!(decision.clients, ["shop_proxy", "shop_app"], "dependents first");
    let alone = decide(&head, &seen, &[Component::Database]);
    assert_eq!((alone.clients.as_slice(), alone.changes.len()), (&["shop_app".to_owned()][..], 0));
    assert!(decide(&head, &seen, &SPECS).data.is_empty(), "nobody asked for data");
}

/// The stack, whose application keeps files as well.
fn with_files(app: &Value) -> (Head, Now) {
    let (mut head, seen) = stack(&json!({ "skep.data": "postgres" }), app);
    head.services[1].data = Some(points::Data { engine: "volume".to_owned(), backup: "b2".to_owned() });
    (head, seen)
}

#[test]
fn who_holds_files_and_uses_data_that_both_go_back_stops_once_for_both() {
    let (head, seen) = with_files(&json!({ "skep.depends-on": "db", "skep.data": "volume" }));
    let both = [Component::Database, Component::Volumes];
    let decision = decide(&head, &seen, &both);
    assert_eq!(decision.refused, [] as [String; 0]);
    let data: Vec<&str> = decision.data.iter().map(|d| d.name.as_str()).collect();
    assert_eq!(data, ["shop_db", "shop_app"]);
    assert_eq!(decision.clients, ["shop_proxy", "shop_app"], "who uses the files stops before");
}

#[test]
fn the_image_of_who_holds_files_goes_back_only_with_them() {
    let (head, mut seen) = with_files(&json!({ "skep.data": "volume" }));
    seen.services[1].spec["TaskTemplate"]["ContainerSpec"]["Image"] = json!("app:2");
    let refused = decide(&head, &seen, &SPECS).refused.join("\n");
    assert!(refused.contains("an older server may not read"), "{refused}");
    let with_files = [&SPECS[..], &[Component::Volumes]].concat();
    let decision = decide(&head, &seen, &with_files);
    assert_eq!(decision.refused, [] as [String; 0]);
    assert!(decision.clients.contains(&"shop_app".to_owned()), "it starts on both: {:?}", decision.clients);
}

#[test]
fn data_that_cannot_go_back_refuses() {
    let db = json!({ "skep.data": "postgres" });
    let on_db = json!({ "skep.depends-on": "db" });
    let refused = |head: &Head, seen: &Now, only: &[Component]| decide(head, seen, only).refused.join("\n");

    let (head, seen) = stack(&db, &on_db);
    let said = refused(&head, &seen, &[Component::Volumes]);
    assert!(said.contains("holds no data of the component volumes"), "{said}");

    let (head, mut seen) = stack(&db, &on_db);
    seen.services[0].spec["Labels"]["skep.data"] = json!("mysql");
    let said = refused(&head, &seen, &[Component::Database]);
    assert!(said.contains("it was postgres then, and skep.data says mysql now"), "{said}");

    // The application keeps data as well, which only its server shows.
    let (mut head, seen) = stack(&db, &json!({ "skep.depends-on": "db", "skep.data": "redis" }));
    head.services[1].data = Some(points::Data { engine: "redis".to_owned(), backup: "b2".to_owned() });
    let said = refused(&head, &seen, &[Component::Database, Component::Cache]);
    assert!(
        said.contains("shop_app uses data that goes back and holds data that goes back itself (redis)"),
        "{said}"
    );
    assert_eq!(refused(&head, &seen, &[Component::Database]), "");

    // Somebody of another stack uses it.
    let (head, mut seen) = stack(&db, &on_db);
    let mut other = spec("bi_report", "bi:1", &json!({}));
    other["Labels"]["com.docker.stack.namespace"] = json!("bi");
    other["Labels"]["skep.depends-on"] = json!("shop_db");
    seen.swarm.push(service(other));
    let said = refused(&head, &seen, &[Component::Database]);
    assert!(said.contains("bi_report uses data that goes back and is of no service of this stack"), "{said}");
}

#[test]
fn who_has_not_opted_in_stays_as_it_is_and_so_does_who_came_later() {
    let mut off = now();
    off["Labels"].as_object_mut().unwrap().remove("skep.enable");
    let mut seen = there(off, &then());
    let late = spec("shop_late", "late:1", &json!({}));
    seen.services.push(service(late));
    let decision = decide(&head(&then(), None), &seen, &SPECS);
    assert_eq!(
        decision.left,
        [("shop_app".to_owned(), Why::NotEnabled), ("shop_late".to_owned(), Why::NotThen)]
    );
    assert_eq!(decision.changes, []);
}

#[test]
fn an_image_that_ran_on_no_ready_node_is_told() {
    let mut seen = there(now(), &then());
    seen.ready.clear();
    let decision = decide(&head(&then(), None), &seen, &SPECS);
    assert!(decision.mind[0].contains("a registry has to serve app:1"), "{:?}", decision.mind);
}
