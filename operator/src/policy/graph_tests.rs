//! Tests of [`super`].

use proptest::prelude::*;

use super::*;
use crate::policy::{Maintenance, parse};

type Spec<'a> = (&'a str, &'a [(&'a str, &'a str)]);

/// The graph of a stack `shop` (short names) and of what stands outside of it (names with `/`, which is cut off).
fn graph(services: &[Spec<'_>]) -> Graph {
    let parsed: Vec<(String, bool, Policy)> = services
        .iter()
        .map(|(name, labels)| {
            let labels = [("skep.enable", "true")].iter().chain(*labels);
            let policy = parse(&labels.map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()).policy;
            match name.strip_prefix('/') {
                Some(full) => (full.to_owned(), false, policy),
                None => (format!("shop_{name}"), true, policy),
            }
        })
        .collect();
    Graph::of(parsed.iter().map(|(name, in_stack, policy)| Member {
        name,
        stack: in_stack.then_some("shop"),
        policy,
    }))
}

fn needs(names: &str) -> [(&str, &str); 1] {
    [("skep.depends-on", names)]
}

fn shop() -> Graph {
    graph(&[
        ("proxy", &needs("app")),
        ("app", &needs("db,cache")),
        ("worker", &needs("db, cache, queue")),
        ("db", &[("skep.data", "postgres"), ("skep.restore.ignore-clients", "/exporter")]),
        ("cache", &[]),
        ("queue", &[]),
        ("/metrics_exporter", &needs("shop_db")),
    ])
}

fn codes(graph: &Graph, service: &str) -> Vec<Code> {
    graph.problems_of(service).iter().map(|p| p.code).collect()
}

#[test]
fn names_mean_the_own_stack_first_and_full_names_after_that() {
    let graph = shop();
    assert_eq!(graph.resolve("shop_app", "db").as_deref(), Some("shop_db"));
    assert_eq!(graph.resolve("shop_app", "shop_db").as_deref(), Some("shop_db"));
    assert_eq!(graph.resolve("shop_app", "metrics_exporter").as_deref(), Some("metrics_exporter"));
    assert_eq!(graph.resolve("metrics_exporter", "db"), None);
    assert_eq!(graph.resolve("nobody", "shop_db").as_deref(), Some("shop_db"));
}

#[test]
fn dependents_are_direct_and_the_proxy_is_never_one_of_the_database() {
    let graph = shop();
    assert_eq!(graph.dependents_of("shop_db"), ["metrics_exporter", "shop_app", "shop_worker"]);
    assert_eq!(graph.dependencies_of("shop_app"), ["shop_cache", "shop_db"]);
    assert!(graph.dependents_of("shop_proxy").is_empty() && graph.dependents_of("nobody").is_empty());
}

#[test]
fn what_is_needed_starts_first_and_stops_last() {
    let graph = shop();
    let all = ["shop_proxy", "shop_app", "shop_db", "shop_cache", "shop_worker", "shop_queue"];
    let start = graph.start_order(all);
    let place = |name: &str| start.iter().position(|s| s == name).unwrap();
    assert!(place("shop_db") < place("shop_app") && place("shop_app") < place("shop_proxy"));
    assert!(place("shop_queue") < place("shop_worker"));
    let mut stop = graph.stop_order(all);
    stop.reverse();
    assert_eq!(stop, start);
    // The link between the two is not among them, and counts all the same.
    assert_eq!(graph.start_order(["shop_proxy", "shop_db", "nobody"]), ["shop_db", "shop_proxy"]);
}

#[test]
fn clients_are_the_dependents_unless_they_are_named() {
    let graph = shop();
    let default = Restore::default();
    assert_eq!(graph.clients("shop_db", &default).unwrap(), ["shop_worker", "shop_app", "metrics_exporter"]);
    let ignoring = Restore { ignore_clients: vec!["metrics_exporter".to_owned()], ..Restore::default() };
    assert_eq!(graph.clients("shop_db", &ignoring).unwrap(), ["shop_worker", "shop_app"]);
    assert_eq!(graph.ignored_clients("shop_db", &ignoring), BTreeSet::from(["metrics_exporter".to_owned()]));
    let named = Restore { clients: Some(vec!["app".to_owned(), "proxy".to_owned()]), ..Restore::default() };
    assert_eq!(graph.clients("shop_db", &named).unwrap(), ["shop_proxy", "shop_app"]);
    let mistaken = Restore { clients: Some(vec!["ap".to_owned()]), ..Restore::default() };
    let problem = graph.clients("shop_db", &mistaken).unwrap_err();
    assert_eq!((problem.got.as_str(), problem.hint.as_deref()), ("ap", Some("did you mean `app`?")));
}

#[test]
fn services_that_did_not_opt_in_are_not_dependents() {
    let policy = parse(&[("skep.depends-on".to_owned(), "db".to_owned())].into()).policy;
    let none = Policy::default();
    let graph = Graph::of([
        Member { name: "shop_app", stack: Some("shop"), policy: &policy },
        Member { name: "shop_db", stack: Some("shop"), policy: &none },
    ]);
    assert!(graph.dependents_of("shop_db").is_empty());
}

#[test]
fn unknown_names_are_problems_with_the_nearest_name() {
    let graph = graph(&[
        ("app", &needs("bd, elsewhere_redis")),
        ("db", &[("skep.data", "postgres"), ("skep.restore.clients", "ap"), ("skep.restore.flush", "cache")]),
    ]);
    let told: Vec<_> =
        graph.problems_of("shop_app").iter().map(|p| (p.got.as_str(), p.hint.as_deref())).collect();
    assert_eq!(told, [("bd", Some("did you mean `db`?")), ("elsewhere_redis", None)]);
    assert!(graph.problems_of("shop_app").iter().all(|p| p.blocks_destructive));
    assert_eq!(codes(&graph, "shop_db"), [Code::UnknownService, Code::UnknownService]);
    assert!(
        graph.problems_of("shop_db").iter().all(|p| p.section == Section::Restore && !p.blocks_destructive)
    );
}

#[test]
fn the_service_that_shows_the_page_must_exist() {
    let maintenance = Maintenance {
        mode: MaintenanceMode::Config("ngnix".to_owned()),
        ports: Vec::new(),
        page: None,
        retry_after: 120,
    };
    let app = Policy { enabled: true, maintenance: Some(maintenance), ..Policy::default() };
    let member = |name, policy| Member { name, stack: Some("shop"), policy };
    let graph = Graph::of([member("shop_app", &app), member("shop_nginx", &Policy::default())]);
    let told = &graph.problems_of("shop_app")[0];
    assert_eq!((told.section, told.hint.as_deref()), (Section::Maintenance, Some("did you mean `nginx`?")));
}

#[test]
fn circles_are_problems_of_those_on_them_and_of_nobody_else() {
    let graph = graph(&[
        ("a", &needs("b")),
        ("b", &needs("c")),
        ("c", &needs("a")),
        ("outside", &needs("a")),
        ("self", &needs("self")),
        ("x", &needs("y")),
        ("y", &needs("x")),
    ]);
    let circle = |service| graph.problems_of(service).iter().map(|p| p.got.clone()).collect::<Vec<_>>();
    assert_eq!(circle("shop_a"), ["shop_a → shop_b → shop_c → shop_a"]);
    assert_eq!(circle("shop_b"), ["shop_b → shop_c → shop_a → shop_b"]);
    assert_eq!(circle("shop_x"), ["shop_x → shop_y → shop_x"]);
    assert_eq!(codes(&graph, "shop_self"), [Code::DependsOnSelf]);
    assert!(graph.problems_of("shop_outside").is_empty());
    assert_eq!(graph.start_order(["shop_outside", "shop_a"]), ["shop_a", "shop_outside"]);
}

#[test]
fn what_needs_a_circle_comes_after_it() {
    let graph = graph(&[("a", &needs("x")), ("x", &needs("y")), ("y", &needs("x"))]);
    assert_eq!(graph.start_order(["shop_a", "shop_x"]), ["shop_x", "shop_a"]);
}

proptest! {
    #[test]
    fn the_order_is_complete_and_right_wherever_there_is_no_circle(
        edges in prop::collection::vec((0_usize..12, 0_usize..12), 0..30),
    ) {
        let policies: Vec<Policy> = (0..12).map(|from| Policy {
            enabled: true,
            depends_on: edges.iter().filter(|(f, _)| *f == from).map(|(_, to)| format!("s{to}")).collect(),
            ..Policy::default()
        }).collect();
        let names: Vec<String> = (0..12).map(|n| format!("s{n}")).collect();
        let graph = Graph::of(names.iter().zip(&policies).map(|(name, policy)| Member { name, stack: None, policy }));
        let order = graph.start_order(names.iter().map(String::as_str));
        prop_assert_eq!(order.len(), 12);
        let place = |name: &str| order.iter().position(|s| s == name).unwrap();
        // Reachability by brute force tells who is on a circle.
        let mut reach = [[false; 12]; 12];
        for (from, to) in edges.iter().filter(|(f, t)| f != t) {
            reach[*from][*to] = true;
        }
        for via in 0..12 {
            for from in 0..12 {
                for to in 0..12 {
                    reach[from][to] |= reach[from][via] && reach[via][to];
                }
            }
        }
        for (from, to) in edges.iter().filter(|(f, t)| f != t) {
            if !reach[*to][*from] {
                prop_assert!(place(&names[*to]) < place(&names[*from]), "{} before {} in {:?}", to, from, order);
            }
        }
        for (index, name) in names.iter().enumerate() {
            let told = graph.problems_of(name).iter().any(|p| p.code == Code::Cycle);
            prop_assert_eq!(told, reach[index][index]);
            let selfish = graph.problems_of(name).iter().any(|p| p.code == Code::DependsOnSelf);
            prop_assert_eq!(selfish, edges.contains(&(index, index)));
        }
    }
}
