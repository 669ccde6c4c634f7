use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::Duration;

use jiff::Timestamp;
use proptest::prelude::*;

use super::*;
use crate::operation::record::{Operation, State};
use crate::policy::Limit;
use crate::swarm::object::{Config, Labels};
use crate::triggers::guard::fixture::*;
use crate::triggers::guard::{Settings, Target, is_sick};

/// An in-memory Swarm that can die before or after any write.
#[derive(Default)]
struct Swarm {
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    targets: BTreeMap<String, Target>,
    histories: BTreeMap<String, (u64, Labels)>,
    operations: Vec<Operation>,
    settings: Settings,
    listening_since: Timestamp,
    now: Timestamp,
    /// Die at this write, counted from now.
    dies: Option<(usize, Cut)>,
    /// Another writer is faster, so many times.
    overtaken: usize,
    writes: usize,
}

#[derive(Clone, Copy, Debug)]
enum Cut {
    Before,
    After,
}

impl Inner {
    /// One write; dies where it was told to.
    fn write(&mut self, effect: impl FnOnce(&mut Inner)) -> Result<(), Unstored> {
        let cut = match &mut self.dies {
            Some((0, cut)) => Some(*cut),
            Some((left, _)) => {
                *left -= 1;
                None
            }
            None => None,
        };
        let died = Err(Unstored::Swarm("the process died".to_owned()));
        match cut {
            Some(Cut::Before) => died,
            Some(Cut::After) => {
                effect(self);
                died
            }
            None => {
                effect(self);
                self.writes += 1;
                Ok(())
            }
        }
    }

    fn history(&self, service: &str) -> Option<(u64, Result<History, guard::Unreadable>)> {
        let (version, labels) = self.histories.get(service)?;
        let config = Config {
            id: "g".to_owned(),
            name: History::config_name(service),
            version: *version,
            created: at(0),
            updated: at(0),
            labels: labels.clone(),
            data: vec![b'.'],
        };
        Some((*version, History::read(&config)))
    }
}

impl Port for Swarm {
    type At = u64;

    async fn situation(&self, service: &str) -> Result<(Situation, Option<u64>), Unstored> {
        let inner = self.inner.lock().unwrap();
        let stored = inner.history(service);
        let sick = |s: &&String| {
            s.as_str() != service
                && inner
                    .history(s)
                    .is_some_and(|(_, h)| h.is_ok_and(|h| is_sick(&h, &inner.settings, inner.now)))
        };
        let at = stored.as_ref().map(|(version, _)| *version);
        let situation = Situation {
            target: inner.targets.get(service).cloned(),
            history: stored.map_or_else(|| Ok(History::new(service, "s1")), |(_, history)| history),
            operations: inner.operations.iter().filter(|o| o.intent.service == service).cloned().collect(),
            neighbours: Vec::new(),
            sick_elsewhere: inner.histories.keys().filter(sick).count(),
            managed: inner.targets.len(),
            listening_since: inner.listening_since,
            settings: inner.settings.clone(),
        };
        Ok((situation, at))
    }

    async fn guarded(&self) -> Result<Vec<String>, Unstored> {
        Ok(self.inner.lock().unwrap().histories.keys().cloned().collect())
    }

    async fn create(&self, op: &OpId, intent: &Intent) -> Result<(), Unstored> {
        self.inner.lock().unwrap().write(|inner| {
            if inner.operations.iter().all(|o| o.id != *op) {
                let state = if intent.approval { State::AwaitingApproval } else { State::Pending };
                inner.operations.push(operation(op.clone(), intent.clone(), state));
            }
        })
    }

    async fn cancel(&self, op: &OpId, who: &str) -> Result<bool, Unstored> {
        let mut inner = self.inner.lock().unwrap();
        let Some(at) = inner.operations.iter().position(|o| o.id == *op) else { return Ok(true) };
        if !matches!(inner.operations[at].journal.state, State::Pending | State::AwaitingApproval) {
            return Ok(inner.operations[at].journal.cancel.as_deref() == Some(who));
        }
        inner.write(|inner| {
            inner.operations[at].journal.state = State::Cancelled;
            inner.operations[at].journal.cancel = Some(who.to_owned());
            inner.operations[at].journal.ended = Some(inner.now);
        })?;
        Ok(true)
    }

    async fn store(&self, history: &History, over: Option<&u64>) -> Result<bool, Unstored> {
        let mut inner = self.inner.lock().unwrap();
        let stored = inner.histories.get(&history.service).map(|(version, _)| *version);
        if inner.overtaken > 0 {
            inner.overtaken -= 1;
            return Ok(false);
        }
        if stored.as_ref() != over {
            return Ok(false);
        }
        let next = (stored.unwrap_or(0) + 1, history.labels());
        inner.write(|inner| drop(inner.histories.insert(history.service.clone(), next)))?;
        Ok(true)
    }
}

fn swarm_of(names: &[&str], settle: u64) -> Swarm {
    let swarm = Swarm::default();
    {
        let mut inner = swarm.inner.lock().unwrap();
        inner.settings = Settings { settle: Duration::from_secs(settle), ..Settings::default() };
        for name in names {
            inner.targets.insert((*name).to_owned(), Target { name: (*name).to_owned(), ..target() });
        }
    }
    swarm
}

fn on(service: &str, mut alert: Alert) -> Entry {
    alert.labels.insert("skep_service".to_owned(), service.to_owned());
    alert.fingerprint = format!("{}{service}", alert.fingerprint).replace('_', "");
    Entry::Alert(alert)
}

#[tokio::test]
async fn each_alert_of_a_post_is_judged_on_its_own() {
    let swarm = swarm_of(&["shop_db", "blog_db"], 0);
    let entries = [
        on("shop_db", fires(0)),
        Entry::Unreadable("no name".to_owned()),
        on("nobody", fires(0)),
        on("blog_db", ends(0)),
    ];
    let decided = take(&swarm, &entries, at(1)).await.unwrap();
    let names: Vec<_> = decided.iter().map(|d| d.decision).collect();
    assert_eq!(names, ["started", "ignored", "not-opted-in", "ignored"]);
    assert_eq!(swarm.inner.lock().unwrap().operations.len(), 1);
    let json = serde_json::to_value(&decided).unwrap();
    assert_eq!(json[0]["service"], "shop_db");
    assert_eq!(json[0]["operation"], decided[0].operation.as_ref().unwrap().as_str());
}

#[tokio::test]
async fn a_post_that_names_many_services_is_a_storm_from_its_first_alert_on() {
    let names = ["a_db", "b_db", "c_db", "d_db"];
    let swarm = swarm_of(&names, 0);
    let entries: Vec<_> = names.iter().map(|n| on(n, fires(0))).collect();
    let decided = take(&swarm, &entries, at(1)).await.unwrap();
    assert!(decided.iter().all(|d| d.decision == "storm"), "{decided:?}");
    assert!(
        swarm.inner.lock().unwrap().operations.iter().all(|o| o.journal.state == State::AwaitingApproval)
    );
}

#[tokio::test]
async fn services_that_fall_sick_one_after_the_other_within_the_settle_time_are_a_storm() {
    let names = ["a_db", "b_db", "c_db"];
    let swarm = swarm_of(&names, 15);
    for (i, name) in names.iter().enumerate() {
        let now = at(i64::try_from(i).unwrap());
        swarm.inner.lock().unwrap().now = now;
        let decided = take(&swarm, &[on(name, fires(0))], now).await.unwrap();
        assert_eq!(decided[0].decision, "settling");
    }
    swarm.inner.lock().unwrap().now = at(30);
    let decided = recheck(&swarm, at(30)).await.unwrap();
    assert_eq!(decided.iter().map(|d| d.decision).collect::<Vec<_>>(), ["storm"; 3]);
}

#[tokio::test]
async fn whoever_loses_the_compare_and_swap_judges_anew_and_starts_nothing_twice() {
    let swarm = swarm_of(&["shop_db"], 0);
    swarm.inner.lock().unwrap().overtaken = 3;
    let decided = take(&swarm, &[on("shop_db", fires(0))], at(1)).await.unwrap();
    assert_eq!(decided[0].decision, "started");
    assert_eq!(swarm.inner.lock().unwrap().operations.len(), 1);
    swarm.inner.lock().unwrap().overtaken = 1_000;
    let lost = take(&swarm, &[on("shop_db", ends(0))], at(2)).await;
    assert_eq!(lost, Err(Unstored::Contended));
}

#[tokio::test]
async fn two_alerts_at_the_same_moment_start_one_operation() {
    let swarm = swarm_of(&["shop_db"], 0);
    let mut gone = fires(0);
    gone.name = "DbGone".to_owned();
    gone.fingerprint = "g".to_owned();
    let (situation, at_version) = swarm.situation("shop_db").await.unwrap();
    let first = guard::judge(&fires(0), &situation, at(1));
    let second = guard::judge(&gone, &situation, at(1));
    assert!(second.decision.stores().is_some(), "both believe that they may");
    assert!(carry_out(&swarm, &first, at_version.as_ref()).await.unwrap());
    assert!(!carry_out(&swarm, &second, at_version.as_ref()).await.unwrap());
    assert_eq!(swarm.inner.lock().unwrap().operations.len(), 1);
}

#[tokio::test]
async fn whatever_write_it_dies_at_the_restore_is_stored_exactly_once_in_the_end() {
    for write in 0..3 {
        for cut in [Cut::Before, Cut::After] {
            let swarm = swarm_of(&["shop_db"], 0);
            swarm.inner.lock().unwrap().dies = Some((write, cut));
            let first = take(&swarm, &[on("shop_db", fires(0))], at(1)).await;
            swarm.inner.lock().unwrap().dies = None;
            if first.is_err() {
                take(&swarm, &[on("shop_db", fires(0))], at(2)).await.unwrap();
            }
            recheck(&swarm, at(100)).await.unwrap();
            assert_eq!(swarm.inner.lock().unwrap().operations.len(), 1, "died {cut:?} write {write}");
        }
    }
}

#[tokio::test]
async fn an_intent_that_was_noted_but_not_stored_is_stored_by_the_next_leader() {
    let swarm = swarm_of(&["shop_db"], 0);
    swarm.inner.lock().unwrap().dies = Some((1, Cut::Before));
    take(&swarm, &[on("shop_db", fires(0))], at(1)).await.unwrap_err();
    assert!(swarm.inner.lock().unwrap().operations.is_empty());
    swarm.inner.lock().unwrap().dies = None;
    let decided = recheck(&swarm, at(30)).await.unwrap();
    assert_eq!(decided.iter().map(|d| d.decision).collect::<Vec<_>>(), ["started"]);
    assert_eq!(swarm.inner.lock().unwrap().operations.len(), 1);
    assert!(recheck(&swarm, at(31)).await.unwrap().is_empty());
}

/// Kinds and sentences of the notices that are to be told at `now`.
fn notices(swarm: &Swarm, now: i64) -> Vec<guard::NoticeKind> {
    let history = swarm.inner.lock().unwrap().history("shop_db");
    let history = history.map(|(_, history)| history.unwrap());
    history.iter().flat_map(|h| h.due_notices(at(now))).map(|n| n.kind).collect()
}

fn with_limit(count: u32) -> Swarm {
    let swarm = swarm_of(&["shop_db"], 0);
    swarm.inner.lock().unwrap().targets.get_mut("shop_db").unwrap().policy.restore.as_mut().unwrap().limit =
        Limit { count, window: Duration::from_hours(1) };
    swarm
}

#[tokio::test]
async fn only_a_person_closes_an_open_circuit() {
    let swarm = with_limit(0);
    assert!(!reset_circuit(&swarm, "shop_db", at(0)).await.unwrap());
    let decided = take(&swarm, &[on("shop_db", fires(0))], at(1)).await.unwrap();
    assert_eq!(decided[0].decision, "limit");
    assert!(reset_circuit(&swarm, "shop_db", at(3)).await.unwrap());
    assert!(!reset_circuit(&swarm, "shop_db", at(4)).await.unwrap());
}

#[tokio::test]
async fn what_was_not_acted_on_is_told_once_an_incident_and_waits_until_it_was() {
    use guard::NoticeKind::Limit;
    let swarm = with_limit(0);
    for now in [1, 2, 300] {
        take(&swarm, &[on("shop_db", fires(0))], at(now)).await.unwrap();
        recheck(&swarm, at(now)).await.unwrap();
        assert_eq!(notices(&swarm, now), [Limit], "one, however often it repeats");
    }
    let (situation, _) = swarm.situation("shop_db").await.unwrap();
    let notice = situation.history.unwrap().notices.remove(0);
    assert!(notice.sentence.contains("the limit of 0 restores"), "{}", notice.sentence);
    swarm.inner.lock().unwrap().overtaken = 2;
    told(&swarm, "shop_db", &notice, at(301)).await.unwrap();
    assert_eq!(notices(&swarm, 301), []);
    told(&swarm, "shop_db", &notice, at(302)).await.unwrap();
    take(&swarm, &[on("shop_db", fires(0))], at(303)).await.unwrap();
    assert_eq!(notices(&swarm, 303), [], "its repeats are no news");
    take(&swarm, &[on("shop_db", ends(0))], at(400)).await.unwrap();
    take(&swarm, &[on("shop_db", fires(500))], at(501)).await.unwrap();
    assert_eq!(notices(&swarm, 501), [Limit], "another incident is");
    assert_eq!(notices(&swarm, 501 + 49 * 3_600), [], "after two days it is none any more");
}

#[tokio::test]
async fn a_decision_and_what_is_to_be_told_of_it_are_stored_in_one_write() {
    for cut in [Cut::Before, Cut::After] {
        let swarm = with_limit(0);
        swarm.inner.lock().unwrap().dies = Some((0, cut));
        take(&swarm, &[on("shop_db", fires(0))], at(1)).await.unwrap_err();
        swarm.inner.lock().unwrap().dies = None;
        take(&swarm, &[on("shop_db", fires(0))], at(2)).await.unwrap();
        assert_eq!(notices(&swarm, 2), [guard::NoticeKind::Limit], "died {cut:?}");
    }
}

#[tokio::test]
async fn why_a_person_is_asked_is_known_for_the_operations_own_mail() {
    let names = ["shop_db", "a_db", "b_db", "c_db"];
    let swarm = swarm_of(&names, 0);
    let entries: Vec<_> = names.iter().map(|n| on(n, fires(0))).collect();
    let decided = take(&swarm, &entries, at(1)).await.unwrap();
    let (situation, _) = swarm.situation("shop_db").await.unwrap();
    let history = situation.history.unwrap();
    let why = history.why_asked(decided[0].operation.as_ref().unwrap()).unwrap();
    assert!(why.contains("4 of 4 managed services are sick at once"), "{why}");
    assert_eq!(notices(&swarm, 1), [], "it makes no second mail");
}

/// One thing that happens.
#[derive(Clone, Debug)]
enum Event {
    /// Alert `a` of two fires anew.
    Fire(usize),
    /// Its last firing message comes again.
    Repeat(usize),
    /// An older firing message comes again.
    Replay(usize, usize),
    /// It ends.
    Resolve(usize),
    /// Time passes, and what is due is looked at.
    Pass(i64),
    /// The process dies at a write to come; another one begins to listen.
    Restart(usize, bool),
    /// The operation that waits begins.
    Begin,
    /// The operation that runs ends, well or not.
    End(bool),
    /// Ended operations are pruned.
    Prune,
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    let event = prop_oneof![
        4 => (0..2_usize).prop_map(Event::Fire),
        2 => (0..2_usize).prop_map(Event::Repeat),
        1 => (0..2_usize, 0..9_usize).prop_map(|(a, i)| Event::Replay(a, i)),
        3 => (0..2_usize).prop_map(Event::Resolve),
        3 => prop_oneof![1_i64..30, 30_i64..900, 900_i64..9_000].prop_map(Event::Pass),
        2 => (0..4_usize, any::<bool>()).prop_map(|(w, b)| Event::Restart(w, b)),
        3 => Just(Event::Begin),
        3 => any::<bool>().prop_map(Event::End),
        1 => Just(Event::Prune),
    ];
    proptest::collection::vec(event, 1..60)
}

/// Plays events, and keeps its own simple books of what may never be.
struct Play {
    swarm: Swarm,
    now: i64,
    /// All `startsAt` of each alert.
    firings: [Vec<i64>; 2],
    /// When each alert was last told to be resolved.
    resolved: [Option<i64>; 2],
    /// Begun restores: when, and the alert that asked.
    begun: Vec<(i64, String, OpId)>,
    /// Since when each alert has been quiet, by its messages; none while it fires.
    quiet_since: [Option<i64>; 2],
    /// For each alert, whether its present incident was answered by a restore that began.
    answered: [bool; 2],
}

const NAMES: [&str; 2] = ["DbCorrupt", "DbGone"];
const COOLDOWN: i64 = 3_600;

impl Play {
    fn new() -> Play {
        Play {
            swarm: swarm_of(&["shop_db"], 10),
            now: 0,
            firings: [Vec::new(), Vec::new()],
            resolved: [None, None],
            begun: Vec::new(),
            quiet_since: [None, None],
            answered: [false, false],
        }
    }

    fn alert(&self, a: usize, starts: i64, mut alert: Alert) -> Entry {
        alert.name = NAMES[a].to_owned();
        alert.starts_at = at(starts);
        alert.fingerprint = format!("f{a}");
        Entry::Alert(alert)
    }

    /// Sends until it is taken, as Alertmanager does; a process that died is followed by another.
    async fn send(&mut self, entry: Entry) {
        while take(&self.swarm, std::slice::from_ref(&entry), at(self.now)).await.is_err() {
            self.revive();
        }
    }

    fn revive(&mut self) {
        let mut inner = self.swarm.inner.lock().unwrap();
        inner.dies = None;
        inner.listening_since = at(self.now);
    }

    async fn fire(&mut self, a: usize, starts: i64) {
        let is_new = self.firings[a].last() < Some(&starts);
        if is_new {
            if self.quiet_since[a].is_some_and(|since| self.now - since >= COOLDOWN) {
                self.answered[a] = false;
            }
            self.quiet_since[a] = None;
            self.firings[a].push(starts);
        }
        self.send(self.alert(a, starts, fires(0))).await;
    }

    async fn play(&mut self, event: Event) {
        self.now += 1;
        self.swarm.inner.lock().unwrap().now = at(self.now);
        match event {
            Event::Fire(a) => self.fire(a, self.now).await,
            Event::Repeat(a) => {
                if let Some(starts) = self.firings[a].last().copied() {
                    self.fire(a, starts).await;
                }
            }
            Event::Replay(a, i) => {
                if let Some(starts) = self.firings[a].get(i).copied() {
                    self.fire(a, starts).await;
                }
            }
            Event::Resolve(a) => {
                if let Some(starts) = self.firings[a].last().copied() {
                    self.send(self.alert(a, starts, ends(0))).await;
                    self.resolved[a] = Some(starts);
                    self.quiet_since[a] = self.quiet_since[a].or(Some(self.now));
                }
            }
            Event::Pass(seconds) => {
                self.now += seconds;
                self.swarm.inner.lock().unwrap().now = at(self.now);
                while recheck(&self.swarm, at(self.now)).await.is_err() {
                    self.revive();
                }
            }
            Event::Restart(write, before) => {
                let cut = if before { Cut::Before } else { Cut::After };
                self.revive();
                self.swarm.inner.lock().unwrap().dies = Some((write, cut));
            }
            Event::Begin => self.begin(),
            Event::End(well) => self.end(well),
            Event::Prune => {
                let old = at(self.now - COOLDOWN);
                let mut inner = self.swarm.inner.lock().unwrap();
                inner.operations.retain(|o| o.journal.ended.is_none_or(|ended| ended > old));
            }
        }
    }

    /// The controller takes the first waiting operation, unless one runs.
    fn begin(&mut self) {
        let mut inner = self.swarm.inner.lock().unwrap();
        if inner.operations.iter().any(|o| o.journal.state == State::Running) {
            return;
        }
        let Some(op) = inner.operations.iter_mut().find(|o| o.journal.state == State::Pending) else {
            return;
        };
        op.journal.state = State::Running;
        op.journal.step_mut("claim", at(self.now));
        let crate::operation::record::Trigger::Alert { name, .. } = &op.intent.trigger else { return };
        let a = NAMES.iter().position(|n| n == name).unwrap();
        assert!(!self.answered[a], "a second restore for one incident of {name} at {}", self.now);
        assert_ne!(
            self.resolved[a],
            self.firings[a].last().copied(),
            "a restore for {name} began although it had ended"
        );
        self.answered[a] = true;
        self.begun.push((self.now, name.clone(), op.id.clone()));
    }

    fn end(&mut self, well: bool) {
        let mut inner = self.swarm.inner.lock().unwrap();
        let running = inner.operations.iter_mut().find(|o| o.journal.state == State::Running);
        if let Some(op) = running {
            op.journal.state = if well { State::Succeeded } else { State::RolledBack };
            op.journal.ended = Some(at(self.now));
        }
    }

    fn check(&self) {
        let inner = self.swarm.inner.lock().unwrap();
        let live = inner.operations.iter().filter(|o| !o.journal.state.is_terminal()).count();
        assert!(live <= 1, "{live} operations at once on one service");
        for (from, ..) in &self.begun {
            let within = self.begun.iter().filter(|(t, ..)| (*from..from + 24 * 3_600).contains(t)).count();
            assert!(within <= 2, "{within} restores within the window of the limit");
        }
        for pair in self.begun.windows(2) {
            assert!(pair[1].0 - pair[0].0 >= COOLDOWN, "two restores within the cooldown: {pair:?}");
        }
        let ids: BTreeSet<_> = self.begun.iter().map(|(_, _, id)| id).collect();
        assert_eq!(ids.len(), self.begun.len(), "one operation began twice");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whatever_is_heard_in_whatever_order_no_incident_is_restored_twice_and_no_limit_is_passed(events in events()) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let mut play = Play::new();
            for event in events {
                play.play(event).await;
                play.check();
            }
        });
    }
}

#[tokio::test]
async fn a_flapping_alert_restores_no_more_often_than_its_limit_allows() {
    let mut play = Play::new();
    for _ in 0..100 {
        for event in [
            Event::Fire(0),
            Event::Pass(30),
            Event::Begin,
            Event::Pass(60),
            Event::End(true),
            Event::Resolve(0),
            Event::Pass(4_000),
        ] {
            play.play(event).await;
            play.check();
        }
    }
    assert_eq!(play.begun.len(), 2, "and then the circuit is open, whatever the time: {:?}", play.begun);
}
