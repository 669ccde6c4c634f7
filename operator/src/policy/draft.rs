//! Labels read one by one, before they are put together: what the rows of [`KEYS`](super::keys::KEYS) fill in.
//!
//! A field is `None` when the label is absent and has no default, or when its value is faulty. So a section that
//! needs a field which is `None` cannot be built.

use std::collections::BTreeMap;
use std::time::Duration;

use skep_runner::task::Expect;
use skep_waker::Rule;
use skep_waker::task::{Mode, Port, Protocol};

use super::probe::{Body, Url};
use super::schedule::Schedule;
use super::types::{
    Backup, Check, CheckProbe, Commands, Data, Drill, Engine, GoBack, Idle, Keep, Limit, Maintenance,
    MaintenanceMode, OnDeploy, Phase, Points, RedFlags, Restore, RestoreMode, Scale, Strategy, Update,
    WakeOnDemand,
};
use super::window::Window;

/// All labels of one service that were understood.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Draft {
    pub(super) enable: Option<bool>,
    pub(super) paused: Option<bool>,
    pub(super) depends_on: Option<Vec<String>>,
    pub(super) notify: Option<Vec<String>>,
    pub(super) scale: ScaleDraft,
    pub(super) maintenance: MaintenanceDraft,
    pub(super) data: DataDraft,
    pub(super) backup: BackupDraft,
    pub(super) drill: DrillDraft,
    pub(super) point: PointDraft,
    pub(super) restore: RestoreDraft,
    pub(super) restarts: Option<Vec<Schedule>>,
    pub(super) update: UpdateDraft,
    pub(super) checks: BTreeMap<String, CheckDraft>,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct ScaleDraft {
    pub(super) down: Option<Vec<Schedule>>,
    pub(super) up: Option<Vec<Schedule>>,
    pub(super) on_deploy: Option<OnDeploy>,
    pub(super) min: Option<u32>,
    pub(super) idle_query: Option<String>,
    pub(super) idle_after: Option<Duration>,
    pub(super) wake: Option<bool>,
    pub(super) wake_http: Option<Vec<u16>>,
    pub(super) wake_tcp: Option<Vec<u16>>,
    pub(super) wake_mode: Option<Mode>,
    pub(super) wake_timeout: Option<Duration>,
    pub(super) wake_ignore: Option<Vec<Rule>>,
    pub(super) wake_page: Option<String>,
    pub(super) wake_door: Option<String>,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct MaintenanceDraft {
    pub(super) on: Option<bool>,
    pub(super) mode: Option<MaintenanceMode>,
    pub(super) ports: Option<Vec<u16>>,
    pub(super) page: Option<String>,
    pub(super) retry_after: Option<u32>,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct DataDraft {
    pub(super) engine: Option<Engine>,
    pub(super) database: Option<String>,
    pub(super) volumes: Option<Vec<String>>,
    pub(super) dump: Option<String>,
    pub(super) load: Option<String>,
    pub(super) verify: Option<String>,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct BackupDraft {
    pub(super) schedules: Option<Vec<Schedule>>,
    pub(super) store: Option<String>,
    pub(super) keep: Option<Vec<Keep>>,
    pub(super) encrypt: Option<Vec<String>>,
    pub(super) copies: Option<Vec<String>>,
    pub(super) wal: Option<bool>,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct DrillDraft {
    pub(super) schedules: Option<Vec<Schedule>>,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct PointDraft {
    pub(super) schedules: Option<Vec<Schedule>>,
    pub(super) keep: Option<Vec<Keep>>,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct UpdateDraft {
    pub(super) backup: Option<bool>,
    pub(super) monitor: Option<Duration>,
    pub(super) rollback: Option<GoBack>,
    pub(super) red_flag_log: Option<String>,
    pub(super) red_flag_query: Option<String>,
    pub(super) watch: Option<bool>,
    pub(super) window: Option<Window>,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct RestoreDraft {
    pub(super) on_alert: Option<Vec<String>>,
    pub(super) mode: Option<RestoreMode>,
    pub(super) cooldown: Option<Duration>,
    pub(super) limit: Option<Limit>,
    pub(super) strategy: Option<Strategy>,
    pub(super) clients: Option<Vec<String>>,
    pub(super) ignore_clients: Option<Vec<String>>,
    pub(super) lookback: Option<Duration>,
    pub(super) flush: Option<Vec<String>>,
    pub(super) canary: Option<bool>,
    pub(super) quiesce: Option<bool>,
    pub(super) keep_old: Option<Duration>,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct CheckDraft {
    pub(super) http: Option<Url>,
    pub(super) status: Option<u16>,
    pub(super) body: Option<Body>,
    pub(super) sql: Option<String>,
    pub(super) tcp: Option<u16>,
    pub(super) within: Option<Duration>,
    pub(super) expect: Option<Expect>,
    pub(super) phase: Option<Phase>,
    pub(super) command: Option<String>,
    pub(super) timeout: Option<Duration>,
    pub(super) log: Option<String>,
}

// === impl Draft ===

impl Draft {
    /// The draft of a check, made where there is none yet.
    pub(super) fn check(&mut self, name: &str) -> &mut CheckDraft {
        self.checks.entry(name.to_owned()).or_default()
    }
}

// === building ===

impl ScaleDraft {
    pub(super) fn build(self) -> Option<Scale> {
        let wake = self.wake?;
        let is_seen = self.idle_query.is_some() || (wake && self.wake_door.is_some());
        let idle = self.idle_after.filter(|_| is_seen);
        let idle = idle.map(|after| Idle { query: self.idle_query.clone(), after });
        let min = self.min?;
        if !wake && self.down.is_none() && idle.is_none() && min == 0 {
            return None;
        }
        Some(Scale {
            idle,
            on_deploy: self.on_deploy?,
            min: min.into(),
            wake: if wake { Some(self.wake_on_demand()?) } else { None },
            down: self.down.unwrap_or_default(),
            up: self.up.unwrap_or_default(),
        })
    }

    fn wake_on_demand(&self) -> Option<WakeOnDemand> {
        let of = |ports: &Option<Vec<u16>>, protocol: Protocol| {
            ports.iter().flatten().map(|port| Port { port: *port, protocol }).collect::<Vec<_>>()
        };
        Some(WakeOnDemand {
            ports: [of(&self.wake_http, Protocol::Http), of(&self.wake_tcp, Protocol::Tcp)].concat(),
            mode: self.wake_mode?,
            timeout: self.wake_timeout?,
            ignore: self.wake_ignore.clone().unwrap_or_default(),
            page: self.wake_page.clone(),
            door: self.wake_door.clone(),
        })
    }
}

impl MaintenanceDraft {
    pub(super) fn build(self) -> Option<Maintenance> {
        if !self.on? {
            return None;
        }
        Some(Maintenance {
            mode: self.mode?,
            ports: self.ports.unwrap_or_default(),
            page: self.page,
            retry_after: self.retry_after?,
        })
    }
}

impl DataDraft {
    pub(super) fn build(self) -> Option<Data> {
        Some(Data {
            engine: self.engine?,
            database: self.database,
            volumes: self.volumes.unwrap_or_default(),
            commands: self.dump.zip(self.load).map(|(dump, load)| Commands {
                dump,
                load,
                verify: self.verify,
            }),
        })
    }
}

impl BackupDraft {
    pub(super) fn build(self) -> Option<Backup> {
        let schedules = self.schedules.unwrap_or_default();
        let keep = self.keep.or_else(|| (!schedules.is_empty()).then(Keep::of_schedules));
        Some(Backup {
            schedules,
            store: self.store,
            keep: keep.unwrap_or_default(),
            encrypt: self.encrypt.unwrap_or_default(),
            copies: self.copies.unwrap_or_default(),
            wal: self.wal.unwrap_or_default(),
        })
    }
}

impl PointDraft {
    pub(super) fn build(self) -> Option<Points> {
        if self.schedules.is_none() && self.keep.is_none() {
            return None;
        }
        Some(Points { schedules: self.schedules.unwrap_or_default(), keep: self.keep.unwrap_or_default() })
    }
}

impl DrillDraft {
    pub(super) fn build(self) -> Drill {
        Drill { schedules: self.schedules.unwrap_or_default() }
    }
}

impl UpdateDraft {
    pub(super) fn build(self) -> Option<Update> {
        let red_flags = RedFlags { log: self.red_flag_log, query: self.red_flag_query };
        Some(Update {
            backup: self.backup?,
            monitor: self.monitor?,
            rollback: self.rollback,
            red_flags,
            watch: self.watch?,
            window: self.window,
        })
    }
}

impl RestoreDraft {
    pub(super) fn build(self) -> Option<Restore> {
        Some(Restore {
            on_alert: self.on_alert.unwrap_or_default(),
            mode: self.mode?,
            cooldown: self.cooldown?,
            limit: self.limit?,
            strategy: self.strategy?,
            clients: self.clients,
            ignore_clients: self.ignore_clients.unwrap_or_default(),
            lookback: self.lookback?,
            flush: self.flush.unwrap_or_default(),
            canary: self.canary?,
            quiesce: self.quiesce?,
            keep_old: self.keep_old?,
        })
    }
}

impl CheckDraft {
    /// Exactly one kind, with the settings that belong to it.
    pub(super) fn build(self, name: &str) -> Option<(Phase, Check)> {
        let phase = self.phase?;
        let probe = match (self.http, self.sql, self.tcp, self.command, self.log) {
            (Some(url), None, None, None, None) => CheckProbe::Http {
                host: url.host,
                port: url.port,
                path: url.path,
                status: self.status?,
                within: self.within?,
                body: self.body.map(|body| body.0),
            },
            (None, Some(sql), None, None, None) => CheckProbe::Sql { sql, expect: self.expect? },
            (None, None, Some(port), None, None) => CheckProbe::Tcp { port, within: self.within? },
            (None, None, None, None, Some(log)) => CheckProbe::Log { log, expect: self.expect? },
            (None, None, None, Some(command), None) => {
                CheckProbe::Command { command, expect: self.expect?, within: self.timeout? }
            }
            _ => return None,
        };
        Some((phase, Check { name: name.to_owned(), probe }))
    }
}
