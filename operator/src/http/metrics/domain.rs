//! Metrics of services and operations, derived from a view.

use std::collections::BTreeSet;
use std::time::Duration;

use jiff::Timestamp;
use prometheus::{CounterVec, GaugeVec, HistogramVec, IntCounterVec, IntGaugeVec, Registry};

use super::{counters, float_counters, gauges, histograms, int_gauges, seconds};
use crate::http::view::{Backups, Condition, OperationView, ServiceView, View, between};
use crate::operation::record::{OpId, State, Work};

const OPERATION: [f64; 12] =
    [1.0, 5.0, 15.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0, 3600.0, 7200.0, 14_400.0];

const WAKE: [f64; 10] = [0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 30.0, 60.0, 120.0, 300.0];
/// What is saved is counted from view to view, which are never longer apart than this while Skep works.
const LONGEST_VIEW: Duration = Duration::from_secs(60);

/// Metrics of services and operations.
pub(super) struct Domain {
    gauges: Gauges,
    operations: IntCounterVec,
    durations: HistogramVec,
    wakes: HistogramVec,
    saved: CounterVec,
    /// When the last view was taken.
    last: Option<Timestamp>,
    /// Operations whose end was counted, or was before this process led.
    counted: BTreeSet<OpId>,
    /// Services with counters.
    known: BTreeSet<String>,
    /// Whether the last view was of a leader.
    led: bool,
}

/// Made anew with every view.
struct Gauges {
    managed: IntGaugeVec,
    problems: IntGaugeVec,
    paused: IntGaugeVec,
    state: IntGaugeVec,
    desired: IntGaugeVec,
    running: IntGaugeVec,
    maintenance: GaugeVec,
    circuit: IntGaugeVec,
    awaiting: IntGaugeVec,
    stuck: IntGaugeVec,
    started: GaugeVec,
    deadline: GaugeVec,
    backup: BackupGauges,
    restore_success: GaugeVec,
    restore_duration: GaugeVec,
    restore_downtime: GaugeVec,
}

struct BackupGauges {
    last_success: GaugeVec,
    last_attempt: GaugeVec,
    last_verified: GaugeVec,
    last_proved: GaugeVec,
    last_loaded: GaugeVec,
    drill_failed: GaugeVec,
    drill_interval: GaugeVec,
    expected: GaugeVec,
    oldest: GaugeVec,
    last_size: GaugeVec,
    next: GaugeVec,
    missed: GaugeVec,
    interval: GaugeVec,
    created: GaugeVec,
    count: IntGaugeVec,
    copies_missing: IntGaugeVec,
}

// === impl Domain ===

impl Domain {
    pub(super) fn new(r: &Registry) -> Domain {
        Domain {
            gauges: Gauges::new(r),
            operations: counters(
                r,
                "operations_total",
                "Operations that ended, by result.",
                &["operation", "service", "result"],
            ),
            durations: histograms(
                r,
                "operation_duration_seconds",
                "Time from the first step of an operation to its end.",
                &["operation", "result"],
                &OPERATION,
            ),
            wakes: histograms(
                r,
                "wake_duration_seconds",
                "Time from when a sleeping service was asked for until it was up.",
                &["service"],
                &WAKE,
            ),
            saved: float_counters(
                r,
                "saved_replica_seconds_total",
                "Seconds times replicas that a service did not run because Skep has put it to sleep.",
                &["service"],
            ),
            last: None,
            counted: BTreeSet::new(),
            known: BTreeSet::new(),
            led: false,
        }
    }

    pub(super) fn observe(&mut self, view: &View) {
        self.gauges.reset();
        self.count(view);
        if !view.leads {
            self.led = false;
            return;
        }
        self.save(view);
        self.led = true;
        for service in &view.services {
            self.gauges.service(service);
        }
        for operation in &view.operations {
            self.gauges.operation(operation);
        }
    }

    /// Counts what ended since the last view. What had ended before this process began to lead was counted by another.
    fn count(&mut self, view: &View) {
        if view.leads {
            self.know(view);
        }
        let ended = |o: &&OperationView| result(o.state).is_some();
        for operation in view.operations.iter().filter(ended) {
            let is_new = self.counted.insert(operation.id.clone());
            if is_new && view.leads && self.led {
                self.count_one(operation);
            }
        }
        let listed: BTreeSet<&OpId> = view.operations.iter().filter(ended).map(|o| &o.id).collect();
        self.counted.retain(|id| listed.contains(id));
    }

    /// What sleeping services have saved since the last view.
    fn save(&mut self, view: &View) {
        let since = self.last.replace(view.taken).filter(|_| self.led);
        let passed = since.map_or(Duration::ZERO, |last| between(last, view.taken)).min(LONGEST_VIEW);
        for service in &view.services {
            let Some(replicas) = service.saves else { continue };
            #[expect(clippy::cast_precision_loss, reason = "a measure, not an id")]
            let saved = passed.as_secs_f64() * replicas as f64;
            self.saved.with_label_values(&[service.name.as_str()]).inc_by(saved);
        }
    }

    fn count_one(&mut self, operation: &OperationView) {
        let (Some(result), Some(ended)) = (result(operation.state), operation.ended) else { return };
        self.operations.with_label_values(&[operation.kind, operation.service.as_str(), result]).inc();
        self.known.insert(operation.service.clone());
        if let Some(ran) = operation.ran(ended) {
            self.durations.with_label_values(&[operation.kind, result]).observe(ran.as_secs_f64());
        }
        if (operation.kind, operation.state) == (Work::Wake.kind(), State::Succeeded) {
            let took = between(operation.created, ended).as_secs_f64();
            self.wakes.with_label_values(&[operation.service.as_str()]).observe(took);
        }
    }

    /// Counters begin at zero for every managed service and its stack, and go with them.
    fn know(&mut self, view: &View) {
        let stacks: BTreeSet<&String> = view.services.iter().filter_map(|s| s.stack.as_ref()).collect();
        let names = view.services.iter().map(|s| &s.name).chain(stacks.iter().copied());
        let now: BTreeSet<String> = names.cloned().collect();
        for service in &view.services {
            for kind in kinds(service) {
                for result in RESULTS {
                    self.operations.with_label_values(&[kind, service.name.as_str(), result]);
                }
            }
        }
        for stack in stacks {
            for kind in OF_STACKS {
                for result in RESULTS {
                    self.operations.with_label_values(&[kind, stack.as_str(), result]);
                }
            }
        }
        for gone in self.known.difference(&now) {
            // Absent where it never slept.
            let _ = self.wakes.remove_label_values(&[gone.as_str()]);
            let _ = self.saved.remove_label_values(&[gone.as_str()]);
            for kind in KINDS.into_iter().chain(OF_STACKS) {
                for result in RESULTS {
                    // Absent where the service never had such an operation.
                    let _ = self.operations.remove_label_values(&[kind, gone.as_str(), result]);
                }
            }
        }
        self.known = now;
    }
}

const KINDS: [&str; 11] = [
    "backup",
    "restore",
    "drill",
    "maintenance",
    "expire",
    "verify",
    "import",
    "sleep",
    "wake",
    "restart",
    "update",
];
/// Kinds of operation that are about a whole stack, whose name then is in the label `service`.
const OF_STACKS: [&str; 3] = ["point", "restart", "rollback"];
const RESULTS: [&str; 5] = ["success", "rolled_back", "failure", "cancelled", "stuck"];

/// The kinds of operation that a service's labels can lead to.
fn kinds(service: &ServiceView) -> &'static [&'static str] {
    if service.engine.is_some() { &KINDS } else { &["maintenance", "sleep", "wake", "restart", "update"] }
}

fn result(state: State) -> Option<&'static str> {
    match state {
        State::Pending | State::AwaitingApproval | State::Running => None,
        State::Succeeded => Some("success"),
        State::RolledBack => Some("rolled_back"),
        State::Failed => Some("failure"),
        State::Cancelled => Some("cancelled"),
        State::Stuck => Some("stuck"),
    }
}

// === impl Gauges ===

impl Gauges {
    fn new(r: &Registry) -> Gauges {
        let ints = |name, help, labels: &[&str]| int_gauges(r, name, help, labels);
        let floats = |name, help, labels: &[&str]| gauges(r, name, help, labels);
        let service = &["service"][..];
        Gauges {
            managed: ints("managed_services", "Services that opted in, by stack.", &["stack"]),
            problems: ints("label_problems", "Problems of labels.", &["service", "code"]),
            paused: ints("paused", "Whether schedules and alerts leave the service alone.", service),
            state: ints("service_state", "1 for what the service is doing, else 0.", &["service", "state"]),
            desired: ints("service_desired_replicas", "Replicas wanted.", service),
            running: ints("service_running_tasks", "Tasks that run.", service),
            maintenance: floats(
                "maintenance_started_timestamp_seconds",
                "Since when users see the maintenance page; absent where they do not.",
                service,
            ),
            circuit: ints(
                "remediation_circuit_open",
                "Whether alerts restore the service no more until a person resets its circuit.",
                service,
            ),
            awaiting: ints("operations_awaiting_approval", "Operations that wait for a person.", service),
            stuck: ints("operations_stuck", "Operations that need a person.", service),
            started: floats(
                "operation_started_timestamp_seconds",
                "When the running operation began; absent where none runs.",
                &["operation", "service"],
            ),
            deadline: floats(
                "operation_deadline_seconds",
                "How long the running operation may take; absent where none runs.",
                &["operation", "service"],
            ),
            backup: BackupGauges::new(r),
            restore_success: floats(
                "restore_last_success_timestamp_seconds",
                "When a restore last succeeded.",
                service,
            ),
            restore_duration: floats(
                "restore_last_duration_seconds",
                "How long the last successful restore took.",
                service,
            ),
            restore_downtime: floats(
                "restore_last_downtime_seconds",
                "How long users could not work during the last successful restore.",
                service,
            ),
        }
    }

    fn reset(&self) {
        let Gauges {
            managed,
            problems,
            paused,
            state,
            desired,
            running,
            maintenance,
            circuit,
            awaiting,
            stuck,
            started,
            deadline,
            backup,
            restore_success,
            restore_duration,
            restore_downtime,
        } = self;
        for vec in [managed, problems, paused, state, desired, running, circuit, awaiting, stuck] {
            vec.reset();
        }
        for vec in [maintenance, started, deadline, restore_success, restore_duration, restore_downtime] {
            vec.reset();
        }
        backup.reset();
    }

    fn service(&self, service: &ServiceView) {
        let name = &[service.name.as_str()];
        self.managed.with_label_values(&[service.stack.as_deref().unwrap_or("")]).inc();
        for problem in &service.problems {
            self.problems.with_label_values(&[service.name.as_str(), problem.code.as_str()]).inc();
        }
        self.paused.with_label_values(name).set(i64::from(service.paused));
        for condition in Condition::ALL {
            let is = i64::from(service.condition == condition);
            self.state.with_label_values(&[service.name.as_str(), condition.as_str()]).set(is);
        }
        if let Some(desired) = service.desired {
            self.desired.with_label_values(name).set(i64::try_from(desired).unwrap_or(i64::MAX));
        }
        self.running.with_label_values(name).set(i64::try_from(service.running).unwrap_or(i64::MAX));
        if service.condition == Condition::Maintenance {
            self.maintenance.with_label_values(name).set(service.since.map_or(0.0, seconds));
        }
        if let Some(guard) = &service.guard {
            self.circuit.with_label_values(name).set(i64::from(guard.circuit.is_some()));
        }
        self.awaiting.with_label_values(name).set(0);
        self.stuck.with_label_values(name).set(0);
        if let Some(backups) = &service.backups {
            self.backup.set(&service.name, backups);
        }
        if let Some(restored) = &service.restored {
            self.restore_success.with_label_values(name).set(seconds(restored.at));
            self.restore_duration.with_label_values(name).set(restored.took.as_secs_f64());
            if let Some(downtime) = restored.downtime {
                self.restore_downtime.with_label_values(name).set(downtime.as_secs_f64());
            }
        }
    }

    fn operation(&self, operation: &OperationView) {
        match operation.state {
            State::AwaitingApproval => self.awaiting.with_label_values(&[operation.service.as_str()]).inc(),
            State::Stuck => self.stuck.with_label_values(&[operation.service.as_str()]).inc(),
            State::Running => {
                let labels = &[operation.kind, operation.service.as_str()];
                let began = operation.began.unwrap_or(operation.created);
                self.started.with_label_values(labels).set(seconds(began));
                if let Some(deadline) = operation.deadline {
                    self.deadline.with_label_values(labels).set(seconds(deadline) - seconds(began));
                }
            }
            State::Pending | State::Succeeded | State::RolledBack | State::Failed | State::Cancelled => {}
        }
    }
}

// === impl BackupGauges ===

impl BackupGauges {
    fn new(r: &Registry) -> BackupGauges {
        let time = |name: &str, help: &str| {
            gauges(r, &format!("backup_{name}_timestamp_seconds"), help, &["service"])
        };
        BackupGauges {
            last_success: time("last_success", "When the newest backup was taken; 0 where there is none."),
            last_attempt: time("last_attempt", "When a backup was last begun; 0 where none was."),
            last_verified: time(
                "last_verified",
                "When a backup was last read back in full; 0 where none was.",
            ),
            last_proved: time(
                "last_proved",
                "When a backup last passed the checks in a drill or a restore; 0 where none did.",
            ),
            last_loaded: time(
                "last_loaded",
                "When a backup was last loaded where no check could prove anything; 0 where none was.",
            ),
            drill_failed: time(
                "drill_failed",
                "When the newest backup last failed its drill; 0 where it did not, or was proved since.",
            ),
            drill_interval: gauges(
                r,
                "drill_schedule_interval_seconds",
                "Longest time between two drills that the schedule allows; absent without one.",
                &["service"],
            ),
            expected: gauges(
                r,
                "restore_expected_seconds",
                "How long a restore is expected to load: as long as the newest backup took that was proved; absent where none was loaded.",
                &["service"],
            ),
            oldest: time("oldest_restorable", "When the oldest backup was taken; 0 where there is none."),
            next: time("next_run", "When the next backup is due; absent without a schedule."),
            missed: time(
                "missed",
                "When the newest backup was due that is not made yet; 0 where none is missing, absent without a schedule.",
            ),
            created: time("policy_created", "Since when backups are wanted."),
            last_size: gauges(r, "backup_last_size_bytes", "Size of the newest backup.", &["service"]),
            interval: gauges(
                r,
                "backup_schedule_interval_seconds",
                "Longest time between two backups that the schedule allows; absent without one.",
                &["service"],
            ),
            count: int_gauges(r, "backups", "Backups that are registered.", &["service"]),
            copies_missing: int_gauges(
                r,
                "backup_copies_missing",
                "Copies that `skep.backup.copies` wants of the newest backups and that are not made.",
                &["service"],
            ),
        }
    }

    fn reset(&self) {
        let BackupGauges {
            last_success,
            last_attempt,
            last_verified,
            last_proved,
            last_loaded,
            drill_failed,
            drill_interval,
            expected,
            oldest,
            last_size,
            next,
            missed,
            interval,
            created,
            count,
            copies_missing,
        } = self;
        for vec in [
            last_success,
            last_attempt,
            last_verified,
            last_proved,
            last_loaded,
            drill_failed,
            drill_interval,
            expected,
            oldest,
            last_size,
            next,
            missed,
            interval,
            created,
        ] {
            vec.reset();
        }
        count.reset();
        copies_missing.reset();
    }

    #[allow(clippy::cast_precision_loss, reason = "a size is a measure, not an id")]
    fn set(&self, service: &str, backups: &Backups) {
        let name = &[service];
        let time =
            |vec: &GaugeVec, at: Option<Timestamp>| vec.with_label_values(name).set(at.map_or(0.0, seconds));
        time(&self.last_success, backups.last_success);
        time(&self.last_attempt, backups.last_attempt);
        time(&self.last_verified, backups.last_verified);
        time(&self.last_proved, backups.last_proved);
        time(&self.last_loaded, backups.last_loaded);
        time(&self.drill_failed, backups.drill_failed.as_ref().map(|f| f.at));
        time(&self.oldest, backups.oldest);
        self.count.with_label_values(name).set(i64::try_from(backups.count).unwrap_or(i64::MAX));
        let missing = i64::try_from(backups.copies_missing).unwrap_or(i64::MAX);
        self.copies_missing.with_label_values(name).set(missing);
        self.last_size.with_label_values(name).set(backups.last_size.unwrap_or(0) as f64);
        if let Some(next) = backups.next {
            time(&self.next, Some(next));
            time(&self.missed, backups.missed);
        }
        if let Some(seconds) = backups.expected_s {
            self.expected.with_label_values(name).set(seconds);
        }
        if let Some(interval) = backups.drill_interval {
            self.drill_interval.with_label_values(name).set(interval.as_secs_f64());
        }
        if let Some(interval) = backups.interval {
            self.interval.with_label_values(name).set(interval.as_secs_f64());
        }
        if let Some(since) = backups.wanted_since {
            time(&self.created, Some(since));
        }
    }
}
