use jiff::Timestamp;
use serde_json::json;

use super::*;

fn service(name: &str, labels: &Value) -> Service {
    let stack = name.split('_').next().unwrap();
    let mut all = json!({ "com.docker.stack.namespace": stack, "skep.enable": "true" });
    for (key, value) in labels.as_object().unwrap() {
        all[key] = value.clone();
    }
    let template = json!({ "ContainerSpec": { "Image": "image:1" }, "Networks": [{ "Target": "net" }] });
    Service {
        id: format!("{name}-id"),
        version: 1,
        spec: json!({ "Name": name, "Labels": all, "TaskTemplate": template }),
        update: None,
        created: Timestamp::UNIX_EPOCH,
    }
}

/// An application that uses a database, as another one does, and a proxy before it.
fn shop() -> Vec<Service> {
    vec![
        service("shop_db", &json!({ "skep.data": "postgres" })),
        service("shop_app", &json!({ "skep.depends-on": "db", "skep.update.rollback": "full" })),
        service("shop_worker", &json!({ "skep.depends-on": "db" })),
        service("shop_proxy", &json!({ "skep.depends-on": "app" })),
        service("shop_other", &json!({ "skep.data": "postgres" })),
    ]
}

fn of(services: &[Service], name: &str) -> Result<Scope, Vec<String>> {
    let service = services.iter().find(|s| s.name() == name).unwrap();
    let wanted = [Wanted { service, image: "image:2" }];
    scope_of(services, &Policies::of(services), &wanted, &[name], false)
}

fn together(services: &[Service], names: &[&str]) -> Option<Result<Scope, Vec<String>>> {
    let found = |name: &&str| services.iter().find(|s| s.name() == *name).unwrap();
    let wanted = names.iter().map(|name| Wanted { service: found(name), image: "image:2" });
    scope(services, &Policies::of(services), &wanted.collect::<Vec<_>>(), false)
}

fn set(services: &mut [Service], name: &str, key: &str, value: &str) {
    services.iter_mut().find(|s| s.name() == name).unwrap().spec["Labels"][key] = json!(value);
}

/// What refuses the application, as one text.
fn refused(services: &[Service]) -> String {
    of(services, "shop_app").unwrap_err().join("; ")
}

#[test]
fn the_data_that_it_uses_goes_back_and_no_other_and_whoever_uses_that_stops() {
    let scope = of(&shop(), "shop_app").unwrap();
    assert_eq!((scope.stack.as_str(), scope.data.as_slice()), ("shop", ["shop_db".to_owned()].as_slice()));
    assert_eq!(scope.clients, ["shop_worker", "shop_app"]);
    assert_eq!(scope.held(["shop_app"]), ["shop_app", "shop_db", "shop_worker"]);
}

#[test]
fn its_own_files_go_back_with_it() {
    let mut services = shop();
    set(&mut services, "shop_app", "skep.data", "volume");
    assert_eq!(of(&services, "shop_app").unwrap().data, ["shop_db", "shop_app"]);
    set(&mut services, "shop_app", "skep.depends-on", "worker");
    assert_eq!(of(&services, "shop_app").unwrap().data, ["shop_app"]);
}

#[test]
fn where_no_data_could_go_back_it_is_not_begun() {
    let mut services = shop();
    set(&mut services, "shop_app", "skep.depends-on", "proxy");
    set(&mut services, "shop_proxy", "skep.depends-on", "worker");
    assert!(refused(&services).contains("neither shop_app nor anything"));
    // A server of data does not come back to what a newer one wrote.
    let mut services = shop();
    set(&mut services, "shop_app", "skep.data", "redis");
    assert!(refused(&services).contains("a server of data"), "{}", refused(&services));
    let mut services = shop();
    set(&mut services, "shop_db", "skep.data", "postgrse");
    assert!(refused(&services).contains("labels skep.data.* of shop_db"));
}

#[test]
fn what_the_rollback_would_refuse_refuses_the_update() {
    let mut services = shop();
    services.push(service("bi_report", &json!({ "skep.depends-on": "shop_db" })));
    assert!(refused(&services).contains("bi_report"), "{}", refused(&services));
    let mut services = shop();
    services.push(service("base_db", &json!({ "skep.data": "postgres" })));
    set(&mut services, "shop_app", "skep.depends-on", "db,base_db");
    assert!(refused(&services).contains("base_db is in another stack"), "{}", refused(&services));
    let mut services = shop();
    set(&mut services, "shop_db", "skep.enable", "false");
    assert!(refused(&services).contains("shop_db"), "{}", refused(&services));
    // Labels that would stand against the rollback later.
    let mut services = shop();
    set(&mut services, "shop_worker", "skep.maintenance", "maybe");
    assert!(refused(&services).contains("labels of shop_worker"), "{}", refused(&services));
    let wanted = [Wanted { service: &services[1], image: "image:2" }];
    assert!(scope(&services, &Policies::of(&services), &wanted, true).unwrap().is_ok());
    let mut services = shop();
    services[1].spec["Labels"].as_object_mut().unwrap().remove("com.docker.stack.namespace");
    assert!(refused(&services).contains("in no stack"), "{}", refused(&services));
}

#[test]
fn of_several_the_data_goes_back_where_the_labels_of_one_say_so() {
    assert_eq!(together(&shop(), &["shop_worker", "shop_proxy"]), None);
    let scope = together(&shop(), &["shop_worker", "shop_app", "shop_proxy"]).unwrap().unwrap();
    assert_eq!((scope.data.as_slice(), scope.stack.as_str()), (["shop_db".to_owned()].as_slice(), "shop"));
    assert_eq!(scope.clients, ["shop_worker", "shop_proxy", "shop_app"]);
    assert_eq!(
        scope.held(["shop_worker", "shop_app", "shop_proxy"]),
        ["shop_app", "shop_db", "shop_proxy", "shop_worker"]
    );
    // A server of data does not go back, whichever of them it is.
    let refused = together(&shop(), &["shop_app", "shop_db"]).unwrap().unwrap_err().join("; ");
    assert!(refused.contains("shop_db is a server of data"), "{refused}");
    let mut services = shop();
    services.push(service("bi_report", &json!({})));
    let refused = together(&services, &["shop_app", "bi_report"]).unwrap().unwrap_err().join("; ");
    assert!(refused.contains("bi_report is not in stack shop"), "{refused}");
}
