use serde_json::json;

use super::*;
use crate::operation::clients::Turns;
use crate::swarm::object::Service;

/// `name → label` of a stack `shop`; what is not named is enabled, has one replica and keeps nothing.
fn service(name: &str, depends_on: &str, change: impl FnOnce(&mut Value)) -> Service {
    let mut spec = json!({
        "Name": name,
        "Labels": {
            "com.docker.stack.namespace": "shop", "skep.enable": "true", "skep.depends-on": depends_on
        },
        "TaskTemplate": { "ContainerSpec": { "Image": "app:1" } },
        "Mode": { "Replicated": { "Replicas": 1 } },
    });
    if depends_on.is_empty() {
        drop(spec["Labels"].as_object_mut().unwrap().remove("skep.depends-on"));
    }
    change(&mut spec);
    Service { id: format!("{name}-id"), version: 1, spec, update: None, created: jiff::Timestamp::UNIX_EPOCH }
}

fn keeps(spec: &mut Value) {
    spec["TaskTemplate"]["ContainerSpec"]["Mounts"] =
        json!([{ "Type": "volume", "Source": "files", "Target": "/data" }]);
}

fn at_zero(spec: &mut Value) {
    spec["Mode"]["Replicated"]["Replicas"] = json!(0);
}

fn shop() -> Vec<Service> {
    vec![
        service("shop_db", "", keeps),
        service("shop_cache", "", |_| {}),
        service("shop_app", "db,cache", |_| {}),
        service("shop_worker", "db,cache", |_| {}),
        service("shop_web", "app", |_| {}),
        service("shop_docs", "", |_| {}),
    ]
}

fn decided(services: &[Service], wanted: Wanted<'_>) -> Decision {
    decide(services, &Policies::of(services), &BTreeSet::new(), wanted)
}

fn one(name: &str) -> Wanted<'_> {
    Wanted { name, whole: false, manner: Manner::Fitting, flush: &[] }
}

#[test]
fn what_needs_a_service_directly_stops_before_it_and_what_is_further_up_stays() {
    let decision = decided(&shop(), one("shop_db"));
    assert_eq!(decision.stop, ["shop_worker", "shop_app", "shop_db"]);
    assert_eq!((decision.roll, decision.left, decision.refused), (vec![], vec![], vec![]));
}

#[test]
fn a_stack_stops_in_order_and_what_stands_beside_it_is_replaced() {
    let decision = decided(&shop(), Wanted { whole: true, ..one("shop") });
    assert_eq!(decision.stop, ["shop_worker", "shop_web", "shop_app", "shop_db", "shop_cache"]);
    assert_eq!(decision.roll, [("shop_docs".to_owned(), Order::StartFirst)]);
}

#[test]
fn what_has_nothing_to_do_with_each_other_does_not_wait_for_each_other() {
    let services = shop();
    let decision = decided(&services, Wanted { whole: true, ..one("shop") });
    let turns = Turns::by_need(Policies::of(&services).graph(), &decision.stop);
    // Whose turn it is while nothing is done yet.
    let free = |order: &[&str]| -> Vec<String> {
        let first =
            |(nth, name): (usize, &&str)| (!turns.waits(name, &order[..nth])).then(|| (*name).to_owned());
        order.iter().enumerate().filter_map(first).collect()
    };
    let mut order: Vec<&str> = decision.stop.iter().map(String::as_str).collect();
    assert_eq!(free(&order), ["shop_worker", "shop_web"]);
    order.reverse();
    assert_eq!(free(&order), ["shop_cache", "shop_db"]);
    assert!(turns.waits("shop_web", &["shop_db"]), "also through others that are done");
    assert!(Turns::OneByOne.waits("shop_db", &["shop_cache"]), "a plan that knew no turns keeps its order");
}

#[test]
fn what_keeps_nothing_and_is_needed_by_nothing_does_not_stop_unless_that_was_asked_for() {
    let decision = decided(&shop(), one("shop_web"));
    assert_eq!(decision.stop, [] as [String; 0]);
    assert_eq!(decision.roll, [("shop_web".to_owned(), Order::StartFirst)]);
    let decision = decided(&shop(), Wanted { manner: Manner::Stopped, ..one("shop_web") });
    assert_eq!((decision.stop.as_slice(), decision.roll), (["shop_web".to_owned()].as_slice(), vec![]));
}

#[test]
fn what_is_in_front_of_a_service_with_a_page_stays_to_show_it() {
    let mut services = shop();
    services[2] = service("shop_app", "db,cache", |spec| {
        spec["Labels"]["skep.maintenance"] = json!("true");
        spec["Labels"]["skep.maintenance.port"] = json!("80");
    });
    let whole = decided(&services, Wanted { whole: true, ..one("shop") });
    assert_eq!(whole.stop, ["shop_worker", "shop_app", "shop_db", "shop_cache"]);
    let rolled: Vec<&str> = whole.roll.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(rolled, ["shop_docs", "shop_web"]);
    let stopped = decided(&services, Wanted { manner: Manner::Stopped, ..one("shop_app") });
    assert_eq!(stopped.stop, ["shop_app"]);
    let alone = decided(&services, one("shop_app"));
    assert_eq!((alone.stop, alone.roll.len()), (vec![], 1));
}

#[test]
fn two_at_once_of_what_keeps_files_or_holds_a_port_never_run() {
    let rolling = |services: &[Service], name: &str| {
        let decision = decided(services, Wanted { manner: Manner::Rolling, ..one(name) });
        assert_eq!(decision.stop, [] as [String; 0]);
        decision.roll[0].1
    };
    let host = |spec: &mut Value| {
        spec["EndpointSpec"] = json!({ "Ports": [{ "TargetPort": 80, "PublishMode": "host" }] });
    };
    let bind = |spec: &mut Value| {
        spec["TaskTemplate"]["ContainerSpec"]["Mounts"] =
            json!([{ "Type": "bind", "Source": "/srv", "Target": "/srv" }]);
    };
    let read_only = |spec: &mut Value| {
        spec["TaskTemplate"]["ContainerSpec"]["Mounts"] =
            json!([{ "Type": "bind", "Source": "/etc", "Target": "/etc", "ReadOnly": true }]);
    };
    let labelled = |spec: &mut Value| spec["Labels"]["skep.data"] = json!("postgres");
    let global = |spec: &mut Value| spec["Mode"] = json!({ "Global": {} });
    assert_eq!(rolling(&[service("shop_a", "", keeps)], "shop_a"), Order::StopFirst);
    assert_eq!(rolling(&[service("shop_a", "", host)], "shop_a"), Order::StopFirst);
    assert_eq!(rolling(&[service("shop_a", "", bind)], "shop_a"), Order::StopFirst);
    assert_eq!(rolling(&[service("shop_a", "", labelled)], "shop_a"), Order::StopFirst);
    assert_eq!(rolling(&[service("shop_a", "", global)], "shop_a"), Order::StopFirst);
    assert_eq!(rolling(&[service("shop_a", "", read_only)], "shop_a"), Order::StartFirst);
}

#[test]
fn what_sleeps_or_was_scaled_to_zero_stays_there_and_is_told() {
    let mut services = shop();
    services[2] = service("shop_app", "db,cache", at_zero);
    services[3] = service("shop_worker", "db,cache", at_zero);
    let asleep = BTreeSet::from(["shop_worker-id".to_owned()]);
    let policies = Policies::of(&services);
    let decision = decide(&services, &policies, &asleep, one("shop_db"));
    assert_eq!(decision.stop, ["shop_db"]);
    let left = [("shop_app".to_owned(), Left::AtZero), ("shop_worker".to_owned(), Left::Asleep)];
    assert_eq!(decision.left, left);
    let decision = decide(&services, &policies, &asleep, one("shop_worker"));
    assert_eq!(decision.refused, ["shop_worker sleeps, and is left asleep"]);
    let decision = decide(&services, &policies, &asleep, Wanted { whole: true, ..one("shop") });
    assert!(!decision.touched().contains("shop_app"), "{decision:?}");
}

#[test]
fn a_stack_without_a_service_that_opted_in_is_refused() {
    let none = |spec: &mut Value| drop(spec["Labels"].as_object_mut().unwrap().remove("skep.enable"));
    let decision = decided(&[service("shop_a", "", none)], Wanted { whole: true, ..one("shop") });
    assert_eq!(decision.refused.len(), 1);
    let decision = decided(&shop(), Wanted { whole: true, ..one("other") });
    assert_eq!(decision.refused, ["there is no stack `other`"]);
}

#[test]
fn what_uses_a_cache_stops_while_it_is_emptied() {
    let flush = ["cache".to_owned()];
    let decision = decided(&shop(), Wanted { flush: &flush, ..one("shop_web") });
    assert_eq!(decision.flush, ["shop_cache"]);
    assert_eq!(decision.stop, ["shop_worker", "shop_web", "shop_app"], "and not the cache");
    let whole = decided(&shop(), Wanted { whole: true, flush: &flush, ..one("shop") });
    assert_eq!(whole.flush, ["shop_cache"]);
    let rolling = decided(&shop(), Wanted { manner: Manner::Rolling, flush: &flush, ..one("shop_web") });
    assert_eq!(rolling.refused.len(), 1);
    let unknown = ["cash".to_owned()];
    let decision = decided(&shop(), Wanted { flush: &unknown, ..one("shop_web") });
    assert_eq!(decision.refused, ["cache cash does not exist"]);
}

#[test]
fn what_a_volume_of_a_node_holds_is_not_tied_to_it_without_a_constraint() {
    assert_eq!(untied(&service("shop_a", "", keeps)), Some("files"));
    let tied = service("shop_a", "", |spec| {
        keeps(spec);
        spec["TaskTemplate"]["Placement"] = json!({ "Constraints": ["node.hostname == a"] });
    });
    assert_eq!(untied(&tied), None);
    let shared = service("shop_a", "", |spec| {
        keeps(spec);
        spec["TaskTemplate"]["ContainerSpec"]["Mounts"][0]["VolumeOptions"] =
            json!({ "DriverConfig": { "Name": "local", "Options": { "type": "nfs" } } });
    });
    assert_eq!(untied(&shared), None);
}
