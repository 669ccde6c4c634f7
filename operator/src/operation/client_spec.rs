//! Specs of clients while they are stopped, and the three-way rule (S12): what Skep wrote is put back; what a person or
//! a deploy changed becomes the new base. Pure.
//!
//! Two ways to stop (S1): `zero` sets the replicas to 0 (or, of a service that keeps some in its sleep, to these); `swap` replaces the task template by the maintenance page, or by the
//! waker where the service sleeps. A template of ours carries the container label `skep.op`, which goes away with it.

use serde_json::{Map, Value, json};

use super::frozen::{Method, StandIn};
use super::record::OpId;
use crate::swarm::object::OP;

/// What to do next to stop a client.
#[derive(Clone, Debug, PartialEq)]
pub enum StopMove {
    /// This spec is what must be put back: save it before anything else.
    SaveBase(Value),
    /// Write this spec.
    Write(Value),
    /// Put the page or the waker into the base and write that (see [`swapped`]).
    SwapIn(Value),
    /// The spec is written; look at the tasks.
    Watch,
}

/// What to do next to start a client again.
#[derive(Clone, Debug, PartialEq)]
pub enum StartMove {
    /// Somebody changed the service meanwhile: theirs is what it goes back to.
    SaveBase(Value),
    /// Write this spec.
    Write(Value),
    /// The template is back under Skep's update settings; once that rollout has come to rest, write this.
    Settle(Value),
    /// The exact spec is back; look at the tasks.
    Watch,
}

/// Settings under which a template is swapped: everything at once, the new before the old, stop at a failure.
pub fn update_config(stop_first: bool) -> Value {
    json!({
        "Parallelism": 0,
        "FailureAction": "pause",
        "Monitor": 500_000_000,
        "MaxFailureRatio": 0,
        "Order": if stop_first { "stop-first" } else { "start-first" },
    })
}

/// Whether a task template (or the spec of a task) is a page of this operation.
pub fn is_page(template: &Value, op: &OpId) -> bool {
    template["ContainerSpec"]["Labels"][OP] == op.as_str()
}

/// Container label of a waker.
pub const WAKER: &str = "skep.waker";

/// Whether a task template (or the spec of a task) is a waker, of whichever operation: there is never another use of one.
pub fn is_waker(template: &Value) -> bool {
    !template["ContainerSpec"]["Labels"][WAKER].is_null()
}

/// Whether a task template (or the spec of a task) is what this operation puts in a service's place.
pub fn is_stand_in(method: &Method, template: &Value, op: &OpId) -> bool {
    match method {
        Method::Waker(_) => is_waker(template),
        Method::Zero | Method::Fewer { .. } | Method::Swap { .. } => is_page(template, op),
    }
}

/// Decides the next move towards stopped.
pub fn stop(method: &Method, op: &OpId, found: &Value, base: Option<&Value>) -> StopMove {
    let Some(base) = base else {
        return StopMove::SaveBase(found.clone());
    };
    let rebased = rebase(method, op, found, base);
    if rebased != *base {
        return StopMove::SaveBase(rebased);
    }
    match method.stand_in() {
        None if *found == scaled(base, method.left()) => StopMove::Watch,
        None => StopMove::Write(scaled(base, method.left())),
        Some(stand_in) if is_swapped(found, base, op, &stand_in) => StopMove::Watch,
        Some(_) => StopMove::SwapIn(base.clone()),
    }
}

fn is_swapped(found: &Value, base: &Value, op: &OpId, stand_in: &StandIn<'_>) -> bool {
    let template = &found["TaskTemplate"];
    let is_counted = !stand_in.is_waker || found["Mode"] == one(base);
    is_page(template, op) && is_whole(template) && is_counted
}

/// Whether nobody has given a page or a waker another image.
fn is_whole(template: &Value) -> bool {
    let container = &template["ContainerSpec"];
    container["Image"] == container["Labels"][PAGE_IMAGE]
}

/// As many tasks as a waker needs: one, or one a node.
fn one(base: &Value) -> Value {
    match replicas(base) {
        Some(_) => json!({ "Replicated": { "Replicas": 1 } }),
        None => base["Mode"].clone(),
    }
}

/// Decides the next move towards the base (S11: for a swap in two writes, so that the exact spec is back at the end and
/// Swarm's own previous spec is a sane one).
pub fn start(method: &Method, op: &OpId, found: &Value, base: &Value) -> StartMove {
    let rebased = rebase(method, op, found, base);
    if rebased != *base {
        return StartMove::SaveBase(rebased);
    }
    if found == base {
        return StartMove::Watch;
    }
    if method.stand_in().is_none() || is_stand_in(method, &found["TaskTemplate"], op) {
        return StartMove::Write(first_of_start(method, base));
    }
    StartMove::Settle(base.clone())
}

/// The first write towards a spec of a service that is stopped.
pub fn first_of_start(method: &Method, base: &Value) -> Value {
    let mut first = base.clone();
    if let Some(stand_in) = method.stand_in() {
        first["UpdateConfig"] = update_config(stand_in.stop_first);
    }
    first
}

/// The spec to go back to, given what is found: the base with whatever somebody changed since Skep wrote.
fn rebase(method: &Method, op: &OpId, found: &Value, base: &Value) -> Value {
    let Some(stand_in) = method.stand_in() else { return rebase_scaled(found, base, method.left()) };
    let is_ours = is_stand_in(method, &found["TaskTemplate"], op);
    let mut theirs = rebase_swap(is_ours, found, base, &update_config(stand_in.stop_first));
    if is_ours && stand_in.is_waker && found["Mode"] == one(base) {
        theirs["Mode"] = base["Mode"].clone();
    }
    if stand_in.image.is_some_and(|image| carries_over(&theirs, base, image)) {
        theirs["TaskTemplate"]["ContainerSpec"]["Image"] =
            base["TaskTemplate"]["ContainerSpec"]["Image"].clone();
    }
    theirs
}

/// Without its replicas the found spec is theirs; as many as Skep leaves are ours unless the base itself had no more.
fn rebase_scaled(found: &Value, base: &Value, left: u64) -> Value {
    let mut theirs = found.clone();
    if replicas(found) == Some(left) {
        theirs["Mode"] = base["Mode"].clone();
    } else if is_nowhere(found) {
        put(&mut theirs["TaskTemplate"], "Placement", base["TaskTemplate"].get("Placement"));
    }
    theirs
}

fn is_nowhere(spec: &Value) -> bool {
    let constraints = spec["TaskTemplate"]["Placement"]["Constraints"].as_array();
    constraints.into_iter().flatten().any(|c| c == NOWHERE)
}

/// On a page of ours, what differs from what was written is theirs: whole sections beside the template, and in the
/// template the image and the environment (`docker service update --image`, `--env-add`). Any other template is theirs.
fn rebase_swap(is_ours: bool, found: &Value, base: &Value, ours: &Value) -> Value {
    let mut theirs = found.clone();
    if same_update_config(&found["UpdateConfig"], ours) {
        put(&mut theirs, "UpdateConfig", base.get("UpdateConfig"));
    }
    if is_ours {
        theirs["TaskTemplate"] = base["TaskTemplate"].clone();
        let container = &found["TaskTemplate"]["ContainerSpec"];
        let written_image = &container["Labels"][PAGE_IMAGE];
        if !written_image.is_null() && container["Image"] != *written_image {
            theirs["TaskTemplate"]["ContainerSpec"]["Image"] = container["Image"].clone();
        }
        merge_env(&mut theirs["TaskTemplate"]["ContainerSpec"], &container["Env"]);
    }
    theirs
}

/// Where `docker stack deploy` notes the image that the stack file names.
const STACK_IMAGE: &str = "com.docker.stack.image";

/// Whether a deploy has put the page's image into the application's template: where the stack file names the same image as
/// at the last deploy, `docker stack deploy --resolve-image changed` (or `never`) keeps whichever image it finds.
fn carries_over(theirs: &Value, base: &Value, page_image: &str) -> bool {
    let named = &theirs["Labels"][STACK_IMAGE];
    theirs["TaskTemplate"]["ContainerSpec"]["Image"] == page_image
        && !named.is_null()
        && *named == base["Labels"][STACK_IMAGE]
}

/// Container label of a page that tells with which image it was written.
pub const PAGE_IMAGE: &str = "skep.page-image";

fn merge_env(container: &mut Value, added: &Value) {
    let Some(added) = added.as_array().filter(|a| !a.is_empty()) else { return };
    let mut env = container["Env"].as_array().cloned().unwrap_or_default();
    let name = |entry: &Value| entry.as_str().and_then(|e| e.split('=').next()).map(str::to_owned);
    for entry in added {
        env.retain(|e| name(e) != name(entry));
        env.push(entry.clone());
    }
    container["Env"] = Value::Array(env);
}

fn same_update_config(found: &Value, ours: &Value) -> bool {
    let fields = ["Parallelism", "FailureAction", "Monitor", "Order"];
    found.is_object() && fields.iter().all(|f| found[*f] == ours[*f])
}

fn put(spec: &mut Value, key: &str, value: Option<&Value>) {
    let Some(map) = spec.as_object_mut() else { return };
    match value {
        Some(value) => map.insert(key.to_owned(), value.clone()),
        None => map.remove(key),
    };
}

/// Replicas that a spec asks for; none of a global service.
pub fn replicas(spec: &Value) -> Option<u64> {
    let mode = spec["Mode"]["Replicated"].as_object()?;
    Some(mode.get("Replicas").and_then(Value::as_u64).unwrap_or(0))
}

/// A placement constraint that no node meets: how a global service sleeps.
pub const NOWHERE: &str = "node.labels.skep.asleep == never";

/// The spec at zero: no replicas, or for a global service no node that fits.
pub fn zero(base: &Value) -> Value {
    scaled(base, 0)
}

/// The spec with so many replicas where it has more; of a global service, of which none are counted, the spec at zero.
pub fn scaled(base: &Value, left: u64) -> Value {
    let mut spec = base.clone();
    if let Some(replicas) = replicas(base) {
        spec["Mode"]["Replicated"] = json!({ "Replicas": left.min(replicas) });
        return spec;
    }
    let placement = &mut spec["TaskTemplate"]["Placement"];
    if !placement.is_object() {
        *placement = Value::Object(Map::new());
    }
    let mut constraints = placement["Constraints"].as_array().cloned().unwrap_or_default();
    constraints.push(Value::from(NOWHERE));
    placement["Constraints"] = Value::Array(constraints);
    spec
}

/// Whether nothing of the application runs by this spec, whoever wrote it: it is at zero, or the waker alone stands there.
pub fn is_asleep(spec: &Value) -> bool {
    let template = &spec["TaskTemplate"];
    let is_held = is_waker(template) && is_whole(template) && replicas(spec).is_none_or(|n| n <= 1);
    is_held || replicas(spec) == Some(0) || is_nowhere(spec)
}

/// Whether somebody changed nothing of a service that sleeps but how many tasks it asks for.
pub fn is_only_counted(found: &Value, base: &Value) -> bool {
    let template = &found["TaskTemplate"];
    if is_waker(template) && is_whole(template) {
        return true;
    }
    let mut counted = found.clone();
    if replicas(found).is_some() && replicas(base).is_some() {
        counted["Mode"] = base["Mode"].clone();
    }
    counted == *base
}

/// The spec with a page or a waker in place of the application: same name, mode, ports, networks and labels.
pub fn swapped(base: &Value, page: &Value, stand_in: &StandIn<'_>) -> Value {
    let mut spec = base.clone();
    spec["TaskTemplate"] = page.clone();
    spec["UpdateConfig"] = update_config(stand_in.stop_first);
    if stand_in.is_waker {
        spec["Mode"] = one(base);
    }
    spec
}

#[cfg(test)]
mod tests {
    use skep_waker::task::{Mode, Token};

    use super::super::frozen::Waker;
    use super::*;

    fn op() -> OpId {
        OpId::parse("20260101t000000abcdef").unwrap()
    }

    fn app() -> Value {
        json!({
            "Name": "shop_app", "Labels": {"a": "b"},
            "TaskTemplate": {"ContainerSpec": {"Image": "app:1", "Env": ["A=1"], "Healthcheck": {"Test": ["CMD", "x"]}}},
            "Mode": {"Replicated": {"Replicas": 2}},
            "UpdateConfig": {"Parallelism": 1, "FailureAction": "rollback", "Monitor": 1, "Order": "stop-first"},
        })
    }

    fn page() -> Value {
        json!({"ContainerSpec": {"Image": "nginx", "Labels": {"skep.op": op().as_str(), "skep.page-image": "nginx"}}})
    }

    fn swap() -> Method {
        Method::Swap {
            image: Some("nginx".to_owned()),
            ports: vec![8000],
            page: None,
            retry_after: 120,
            stop_first: false,
        }
    }

    fn waker() -> Method {
        Method::Waker(Waker {
            image: "skep:1".to_owned(),
            ports: Vec::new(),
            mode: Mode::Hold,
            timeout_s: 60,
            ignore: Vec::new(),
            page: None,
            url: "http://skep:9180/v1/wake".to_owned(),
            network: "n1".to_owned(),
            token: Token::new("secret"),
            stop_first: false,
        })
    }

    /// What stands in for the application when it is stopped in this way.
    fn stand_in_of(method: &Method) -> Value {
        let mut page = page();
        if let Method::Waker(waker) = method {
            let labels = json!({OP: op().as_str(), PAGE_IMAGE: waker.image, WAKER: "shop_app"});
            page["ContainerSpec"] = json!({"Image": waker.image, "Labels": labels});
        }
        page
    }

    /// Plays moves until nothing is left to write; returns the final spec and base.
    fn play_stop(method: &Method, mut found: Value, mut base: Option<Value>) -> (Value, Value) {
        for _ in 0..5 {
            match stop(method, &op(), &found, base.as_ref()) {
                StopMove::SaveBase(b) => base = Some(b),
                StopMove::Write(s) => found = s,
                StopMove::SwapIn(b) => found = swapped(&b, &stand_in_of(method), &method.stand_in().unwrap()),
                StopMove::Watch => return (found, base.unwrap()),
            }
        }
        panic!("no rest: {found} {base:?}");
    }

    fn play_start(method: &Method, mut found: Value, mut base: Value) -> (Value, usize) {
        let mut writes = 0;
        for _ in 0..6 {
            match start(method, &op(), &found, &base) {
                StartMove::SaveBase(b) => base = b,
                StartMove::Write(s) | StartMove::Settle(s) => {
                    found = s;
                    writes += 1;
                }
                StartMove::Watch => return (found, writes),
            }
        }
        panic!("no rest: {found} {base}");
    }

    #[test]
    fn both_methods_end_at_the_exact_spec_they_found() {
        for method in [Method::Zero, swap(), waker()] {
            let (stopped, base) = play_stop(&method, app(), None);
            assert_ne!(stopped, app());
            let (back, writes) = play_start(&method, stopped, base);
            assert_eq!(back, app(), "{method:?}");
            assert_eq!(writes, if method == Method::Zero { 1 } else { 2 });
        }
    }

    #[test]
    fn a_stack_deploy_in_the_middle_becomes_the_new_base_and_the_stop_is_applied_again() {
        let mut deployed = app();
        deployed["TaskTemplate"]["ContainerSpec"]["Image"] = json!("app:2");
        deployed["Mode"]["Replicated"]["Replicas"] = json!(3);
        for method in [Method::Zero, swap(), waker()] {
            let (_, base) = play_stop(&method, app(), None);
            let (stopped, base) = play_stop(&method, deployed.clone(), Some(base));
            assert_eq!(base, deployed);
            assert_ne!(stopped, deployed);
            assert_eq!(play_start(&method, stopped, base).0, deployed);
        }
    }

    /// A deploy over the page with `--resolve-image changed` whose stack file names this image, as at the first deploy or not.
    fn deployed_over_the_page(named_before: &str, named_now: &str) -> Value {
        let mut app = app();
        app["Labels"][STACK_IMAGE] = json!(named_before);
        let (stopped, base) = play_stop(&swap(), app.clone(), None);
        let mut deployed = app;
        deployed["Labels"][STACK_IMAGE] = json!(named_now);
        let found = &stopped["TaskTemplate"]["ContainerSpec"]["Image"];
        let image = if named_before == named_now { found.clone() } else { json!(named_now) };
        deployed["TaskTemplate"]["ContainerSpec"]["Image"] = image;
        deployed["TaskTemplate"]["ContainerSpec"]["Env"] = json!(["A=2"]);
        play_stop(&swap(), deployed, Some(base)).1
    }

    #[test]
    fn the_pages_image_that_a_deploy_carries_over_is_not_the_applications() {
        let base = deployed_over_the_page("app:1", "app:1");
        let container = &base["TaskTemplate"]["ContainerSpec"];
        assert_eq!((&container["Image"], &container["Env"]), (&json!("app:1"), &json!(["A=2"])));
    }

    #[test]
    fn an_image_that_a_deploy_names_is_kept_also_when_it_is_the_pages() {
        for named in ["app:2", "nginx"] {
            let base = deployed_over_the_page("app:1", named);
            assert_eq!(base["TaskTemplate"]["ContainerSpec"]["Image"], named);
        }
    }

    #[test]
    fn an_image_and_environment_changed_on_the_page_go_to_the_application() {
        let (mut stopped, base) = play_stop(&swap(), app(), None);
        stopped["TaskTemplate"]["ContainerSpec"]["Image"] = json!("app:2");
        stopped["TaskTemplate"]["ContainerSpec"]["Env"] = json!(["B=2"]);
        stopped["Mode"]["Replicated"]["Replicas"] = json!(5);
        let (_, base) = play_stop(&swap(), stopped, Some(base));
        let container = &base["TaskTemplate"]["ContainerSpec"];
        assert_eq!((&container["Image"], &container["Env"]), (&json!("app:2"), &json!(["A=1", "B=2"])));
        assert_eq!(base["Mode"]["Replicated"]["Replicas"], 5);
        assert_eq!(base["UpdateConfig"], app()["UpdateConfig"]);
    }

    #[test]
    fn an_image_changed_while_at_zero_keeps_the_replicas_found() {
        let (mut stopped, base) = play_stop(&Method::Zero, app(), None);
        stopped["TaskTemplate"]["ContainerSpec"]["Image"] = json!("app:2");
        let (stopped, base) = play_stop(&Method::Zero, stopped, Some(base));
        assert_eq!(base["Mode"]["Replicated"]["Replicas"], 2);
        let (back, _) = play_start(&Method::Zero, stopped, base);
        assert_eq!(back["TaskTemplate"]["ContainerSpec"]["Image"], "app:2");
        assert_eq!(back["Mode"]["Replicated"]["Replicas"], 2);
    }

    #[test]
    fn a_global_service_sleeps_behind_a_constraint() {
        let mut global = app();
        global["Mode"] = json!({"Global": {}});
        let (stopped, base) = play_stop(&Method::Zero, global.clone(), None);
        assert_eq!(stopped["TaskTemplate"]["Placement"]["Constraints"], json!([NOWHERE]));
        assert_eq!(play_start(&Method::Zero, stopped, base).0, global);
    }

    #[test]
    fn a_service_found_at_zero_stays_at_zero() {
        let mut asleep = app();
        asleep["Mode"]["Replicated"]["Replicas"] = json!(0);
        let (stopped, base) = play_stop(&Method::Zero, asleep.clone(), None);
        assert_eq!((stopped, &base), (asleep.clone(), &asleep));
        assert_eq!(play_start(&Method::Zero, asleep.clone(), base), (asleep, 0));
    }

    #[test]
    fn one_waker_stands_for_all_replicas_whose_number_is_kept() {
        let (stopped, base) = play_stop(&waker(), app(), None);
        assert_eq!((&stopped["Mode"]["Replicated"]["Replicas"], &base), (&json!(1), &app()));
        assert!(is_asleep(&stopped) && !is_asleep(&base));
        let mut global = app();
        global["Mode"] = json!({"Global": {}});
        let (stopped, base) = play_stop(&waker(), global.clone(), None);
        assert!(is_asleep(&stopped));
        assert_eq!(play_start(&waker(), stopped, base).0, global);
    }

    #[test]
    fn another_number_of_wakers_is_the_wish_for_as_many_of_the_application() {
        let (mut stopped, base) = play_stop(&waker(), app(), None);
        stopped["Mode"]["Replicated"]["Replicas"] = json!(5);
        assert!(!is_asleep(&stopped) && is_only_counted(&stopped, &base));
        let (back, _) = play_start(&waker(), stopped, base);
        assert_eq!(back["Mode"]["Replicated"]["Replicas"], 5);
        assert_eq!(back["TaskTemplate"], app()["TaskTemplate"]);
    }

    #[test]
    fn a_waker_that_was_given_another_image_is_no_sleeper_and_the_image_is_the_applications() {
        let (mut stopped, base) = play_stop(&waker(), app(), None);
        stopped["TaskTemplate"]["ContainerSpec"]["Image"] = json!("app:2");
        assert!(!is_asleep(&stopped) && !is_only_counted(&stopped, &base));
        let (back, _) = play_start(&waker(), stopped, base);
        assert_eq!(back["TaskTemplate"]["ContainerSpec"]["Image"], "app:2");
        assert_eq!(back["Mode"], app()["Mode"]);
    }
}
