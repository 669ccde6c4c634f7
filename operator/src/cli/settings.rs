//! The administrator's settings: on the command line, or in the environment as a stack file gives them. Secrets are
//! only ever named by a file.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use skep_runner::task::Binary;
use thiserror::Error;

use super::schedules::ScheduleArgs;
use crate::notify::MailSettings;
use crate::operation::saga::Runners;
use crate::operation::settings::{Settings, Store};
use crate::policy::duration;
use crate::triggers::guard;

/// All settings of `skep operator`.
#[derive(Clone, Debug, clap::Args)]
pub struct OperatorArgs {
    /// Settings of operations.
    #[command(flatten)]
    pub work: WorkArgs,
    /// Address of metrics, health, status page and webhook.
    #[arg(long, env = "SKEP_LISTEN", value_name = "ADDRESS:PORT", default_value = "0.0.0.0:9180")]
    pub listen: SocketAddr,
    /// File with the token that Alertmanager must send; the webhook is off without one.
    #[arg(long, env = "SKEP_WEBHOOK_TOKEN_FILE", value_name = "FILE")]
    pub webhook_token_file: Option<PathBuf>,
    /// File with the token that approving and cancelling on the status page asks for; both are off without one.
    #[arg(long, env = "SKEP_STATUS_TOKEN_FILE", value_name = "FILE")]
    pub status_token_file: Option<PathBuf>,
    /// Name of this process, unique among all replicas; made up where absent.
    #[arg(long, env = "SKEP_INSTANCE", value_name = "NAME")]
    pub instance: Option<String>,
    /// How long the lease of the leading replica lasts; the same for all replicas.
    #[arg(long, env = "SKEP_LEASE_TERM", value_name = "DURATION", value_parser = positive, hide = true)]
    pub lease_term: Option<Duration>,
    /// How logs are written.
    #[arg(long, env = "SKEP_LOG_FORMAT", value_enum, default_value_t)]
    pub log_format: LogFormat,
    /// What is logged: a level, or `module=level` separated by commas.
    #[arg(long, env = "SKEP_LOG", value_name = "FILTER", default_value = "info")]
    pub log: String,
    /// How alerts are judged.
    #[command(flatten)]
    pub alerts: AlertArgs,
    /// What runs by itself.
    #[command(flatten)]
    pub schedules: ScheduleArgs,
    /// How mail is sent.
    #[command(flatten)]
    pub mail: MailSettings,
}

/// Settings of operations, shared by the daemon and by commands that drive an operation themselves.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Operations")]
pub struct WorkArgs {
    /// Name of this Swarm, for mails and pages.
    #[arg(long, env = "SKEP_CLUSTER", value_name = "NAME", default_value = "swarm", hide_short_help = true)]
    pub cluster: String,
    /// A backup store, `name=bind:/path`, `name=volume:name[,driver=…][,opt.<name>=<value>…]` or
    /// `name=s3://bucket[/prefix][,endpoint=…][,region=…][,path-style=true][,credentials=<secret>][,network=…]`; a part with a comma in it
    /// is quoted whole, as in `"opt.o=addr=10.0.0.1,rw"`. May be repeated, or separated by `;`. The volume `skep-backups` as `default` where none is given.
    #[arg(
        long = "store",
        env = "SKEP_STORES",
        value_name = "NAME=STORE",
        value_delimiter = ';',
        hide_short_help = true
    )]
    pub stores: Vec<NamedStore>,
    /// Name of the Swarm secret with the age identity that decrypts backups. Without it they can be made, but people restore them.
    #[arg(long, env = "SKEP_AGE_IDENTITY", value_name = "SECRET", hide_short_help = true)]
    pub age_identity: Option<String>,
    /// Skep's own image, for jobs that run in it; that of the operator's own task where absent.
    #[arg(
        long = "skep-image",
        id = "skep_image",
        env = "SKEP_IMAGE",
        value_name = "IMAGE",
        hide_short_help = true
    )]
    pub image: Option<String>,
    /// Where wakers of services that sleep reach the operator, as `http://tasks.skep_operator:9180`; its own service where absent.
    #[arg(long, env = "SKEP_WAKE_URL", value_name = "URL", hide_short_help = true)]
    pub wake_url: Option<String>,
    /// The Swarm network on which they do; the first one of the operator's own service where absent.
    #[arg(long, env = "SKEP_WAKE_NETWORK", value_name = "NETWORK", hide_short_help = true)]
    pub wake_network: Option<String>,
    /// The Prometheus that is asked whether a service with `skep.scale.idle.query` is used, as `http://prometheus:9090`.
    #[arg(long, env = "SKEP_PROMETHEUS_URL", value_name = "URL", hide_short_help = true)]
    pub prometheus_url: Option<String>,
    /// A file with logins of the registries that services with `skep.update.watch` are looked up in, in the form of Docker's
    /// `config.json`; a Swarm secret, as at `/run/secrets/registries`. Without it they are asked without one.
    #[arg(long, env = "SKEP_REGISTRY_CONFIG", value_name = "FILE", hide_short_help = true)]
    pub registry_config: Option<PathBuf>,
    /// The store of services that name none; the only one where there is only one, else `default`.
    #[arg(long, env = "SKEP_DEFAULT_STORE", value_name = "NAME", hide_short_help = true)]
    pub default_store: Option<String>,
    /// Image of the maintenance page's server.
    #[arg(
        long,
        env = "SKEP_PAGE_IMAGE",
        value_name = "IMAGE",
        default_value = "nginx",
        hide_short_help = true
    )]
    pub page_image: String,
    /// The static runner binary that jobs run; `skep-runner` beside this program where absent.
    #[arg(long, env = "SKEP_RUNNER", value_name = "FILE", hide_short_help = true)]
    pub runner: Option<PathBuf>,
    /// The one for data that is a directory; `skep-runner-dir` beside the other where absent.
    #[arg(long, env = "SKEP_RUNNER_DIR", value_name = "FILE", hide_short_help = true)]
    pub runner_dir: Option<PathBuf>,
    /// The one for PostgreSQL's write-ahead log; `skep-runner-wal` beside the first where absent.
    #[arg(long, env = "SKEP_RUNNER_WAL", value_name = "FILE", hide_short_help = true)]
    pub runner_wal: Option<PathBuf>,
    /// The one for data that a running service alone tells; `skep-runner-service` beside the first where absent.
    #[arg(long, env = "SKEP_RUNNER_SERVICE", value_name = "FILE", hide_short_help = true)]
    pub runner_service: Option<PathBuf>,
    /// Longest time that clients may take to stop.
    #[arg(long, env = "SKEP_STOP_DEADLINE", value_name = "DURATION", value_parser = positive, hide_short_help = true)]
    pub stop_deadline: Option<Duration>,
    /// Longest time that a client may take to become healthy again.
    #[arg(long, env = "SKEP_START_DEADLINE", value_name = "DURATION", value_parser = positive, hide_short_help = true)]
    pub start_deadline: Option<Duration>,
    /// Longest time that an application's checks may take to pass.
    #[arg(long, env = "SKEP_CHECK_DEADLINE", value_name = "DURATION", value_parser = positive, hide_short_help = true)]
    pub check_deadline: Option<Duration>,
    /// Longest time for one data job.
    #[arg(long, env = "SKEP_JOB_DEADLINE", value_name = "DURATION", value_parser = positive, hide_short_help = true)]
    pub job_deadline: Option<Duration>,
    /// Longest wait for a node that does not answer while a job there may still write into a store.
    #[arg(long, env = "SKEP_LOST_DEADLINE", value_name = "DURATION", value_parser = positive, hide_short_help = true)]
    pub lost_deadline: Option<Duration>,
    /// How many ended operations are kept, at least those of the last 30 days.
    #[arg(long, env = "SKEP_KEEP_OPERATIONS", value_name = "COUNT", hide_short_help = true)]
    pub keep_operations: Option<usize>,
    /// How many restore points of a stack are kept; at least one.
    #[arg(long, env = "SKEP_KEEP_POINTS", value_name = "COUNT", hide_short_help = true)]
    pub keep_points: Option<usize>,
}

/// Settings of the judgement of alerts; what is absent has its default.
#[derive(Clone, Debug, Default, clap::Args)]
#[command(next_help_heading = "Alerts")]
pub struct AlertArgs {
    /// How long an alert must fire after it was first heard before anything is done.
    #[arg(long, env = "SKEP_SETTLE", value_name = "DURATION", value_parser = any)]
    pub settle: Option<Duration>,
    /// The same after a restart, when the alert's end may have been missed.
    #[arg(long, env = "SKEP_RESETTLE", value_name = "DURATION", value_parser = any)]
    pub resettle: Option<Duration>,
    /// How long after a restore or maintenance alerts may still be its doing.
    #[arg(long, env = "SKEP_AFTER_OPERATION", value_name = "DURATION", value_parser = any)]
    pub after_operation: Option<Duration>,
    /// Storm brake: more services with a fresh alert than this, and nothing is restored without a person.
    #[arg(long, env = "SKEP_STORM_SERVICES", value_name = "COUNT")]
    pub storm_services: Option<usize>,
    /// Storm brake: the same as a share of all managed services, in percent.
    #[arg(long, env = "SKEP_STORM_PERCENT", value_name = "PERCENT")]
    pub storm_percent: Option<usize>,
    /// Storm brake: an alert is fresh for so long.
    #[arg(long, env = "SKEP_STORM_WINDOW", value_name = "DURATION", value_parser = positive)]
    pub storm_window: Option<Duration>,
}

/// How logs are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    /// One JSON object a line.
    Json,
    /// Lines for people.
    #[default]
    Text,
}

/// A store with its name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamedStore {
    /// Name, as in `skep.backup.store`.
    pub name: String,
    /// Where it is.
    pub store: Store,
}

/// Settings that cannot work.
#[derive(Debug, Error)]
pub enum BadSettings {
    /// Two stores of one name.
    #[error("two stores are named `{0}`")]
    TwoStores(String),
    /// The default store does not exist.
    #[error("there is no store `{name}` (there are: {known})")]
    NoStore {
        /// What was asked for.
        name: String,
        /// What there is.
        known: String,
    },
    /// A file cannot be read.
    #[error("{what} cannot be read from `{}`", path.display())]
    File {
        /// What it holds.
        what: &'static str,
        /// Its path.
        path: PathBuf,
        /// Cause.
        #[source]
        source: std::io::Error,
    },
    /// A secret's file is empty.
    #[error("{what}: `{}` is empty", path.display())]
    Empty {
        /// What it should hold.
        what: &'static str,
        /// Its path.
        path: PathBuf,
    },
}

// === impl OperatorArgs ===

impl OperatorArgs {
    /// Mail settings, with the name of the cluster.
    pub fn mail(&self) -> MailSettings {
        let mut mail = self.mail.clone();
        mail.cluster.get_or_insert_with(|| self.work.cluster.clone());
        mail
    }

    /// The token that Alertmanager must send.
    ///
    /// # Errors
    /// When its file is named but cannot be read or is empty.
    pub fn webhook_token(&self) -> Result<Option<String>, BadSettings> {
        self.webhook_token_file.as_deref().map(|path| secret("the webhook's token", path)).transpose()
    }

    /// The token for changes through the status page.
    ///
    /// # Errors
    /// When its file is named but cannot be read or is empty.
    pub fn status_token(&self) -> Result<Option<String>, BadSettings> {
        self.status_token_file.as_deref().map(|path| secret("the status page's token", path)).transpose()
    }
}

// === impl WorkArgs ===

impl WorkArgs {
    /// The settings of operations driven by `instance`.
    ///
    /// # Errors
    /// When the stores contradict each other.
    pub fn settings(&self, instance: &str) -> Result<Settings, BadSettings> {
        let base = Settings::default();
        let stores = self.stores(&base)?;
        let default_store = self.default_store.clone().unwrap_or_else(|| match stores.len() {
            1 => stores.keys().next().cloned().unwrap_or_default(),
            _ => base.default_store.clone(),
        });
        if !stores.contains_key(&default_store) {
            let known = stores.keys().map(String::as_str).collect::<Vec<_>>().join(", ");
            return Err(BadSettings::NoStore { name: default_store, known });
        }
        Ok(Settings {
            cluster: self.cluster.clone(),
            instance: instance.to_owned(),
            stores,
            default_store,
            image: set(self.image.as_deref()),
            port: base.port,
            wake_url: set(self.wake_url.as_deref()),
            wake_network: set(self.wake_network.as_deref()),
            prometheus: set(self.prometheus_url.as_deref()),
            registry_config: self.registry_config.clone().filter(|file| !file.as_os_str().is_empty()),
            identity: set(self.age_identity.as_deref()),
            page_image: self.page_image.clone(),
            stop_deadline: self.stop_deadline.unwrap_or(base.stop_deadline),
            start_deadline: self.start_deadline.unwrap_or(base.start_deadline),
            check_deadline: self.check_deadline.unwrap_or(base.check_deadline),
            job_deadline: self.job_deadline.unwrap_or(base.job_deadline),
            lost_deadline: self.lost_deadline.unwrap_or(base.lost_deadline),
            keep_operations: self.keep_operations.unwrap_or(base.keep_operations),
            keep_points: self.keep_points.unwrap_or(base.keep_points),
        })
    }

    fn stores(&self, base: &Settings) -> Result<BTreeMap<String, Store>, BadSettings> {
        if self.stores.is_empty() {
            return Ok(base.stores.clone());
        }
        let mut stores = BTreeMap::new();
        for NamedStore { name, store } in &self.stores {
            if stores.insert(name.clone(), store.clone()).is_some() {
                return Err(BadSettings::TwoStores(name.clone()));
            }
        }
        Ok(stores)
    }

    /// The runner binaries.
    ///
    /// # Errors
    /// When one cannot be read.
    pub fn runners(&self) -> Result<Runners, BadSettings> {
        let first = self.runner.clone();
        let first = first.unwrap_or_else(|| std::env::current_exe().unwrap_or(PathBuf::from("/bin/skep")));
        Runners::read(|binary| {
            let given = match binary {
                Binary::Databases => &self.runner,
                Binary::Directories => &self.runner_dir,
                Binary::Log => &self.runner_wal,
                Binary::Services => &self.runner_service,
            };
            let path = given.clone().unwrap_or_else(|| first.with_file_name(binary.name()));
            let bytes = std::fs::read(&path);
            bytes.map(Into::into).map_err(|source| BadSettings::File { what: "the runner", path, source })
        })
    }
}

// === impl AlertArgs ===

impl AlertArgs {
    /// Times and thresholds of the guards.
    pub fn settings(&self) -> guard::Settings {
        let base = guard::Settings::default();
        guard::Settings {
            settle: self.settle.unwrap_or(base.settle),
            resettle: self.resettle.unwrap_or(base.resettle),
            after_operation: self.after_operation.unwrap_or(base.after_operation),
            storm_services: self.storm_services.unwrap_or(base.storm_services),
            storm_percent: self.storm_percent.unwrap_or(base.storm_percent),
            storm_window: self.storm_window.unwrap_or(base.storm_window),
            ..base
        }
    }
}

// === impl NamedStore ===

impl FromStr for NamedStore {
    type Err = String;

    fn from_str(text: &str) -> Result<NamedStore, String> {
        let (name, store) =
            text.split_once('=').ok_or("want `name=bind:/path`, `name=volume:name` or `name=s3://bucket`")?;
        let fine = !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_".contains(&b));
        if !fine {
            return Err(format!("`{name}` is no name: want letters, digits, `-` and `_`"));
        }
        let store = store.parse().map_err(|e: crate::operation::settings::BadStore| e.to_string())?;
        Ok(NamedStore { name: name.to_owned(), store })
    }
}

/// Reads a secret from its file; a line end at its end does not count.
///
/// # Errors
/// When it cannot be read or is empty.
pub fn secret(what: &'static str, path: &Path) -> Result<String, BadSettings> {
    let text = std::fs::read_to_string(path);
    let text = text.map_err(|source| BadSettings::File { what, path: path.to_owned(), source })?;
    match text.trim_end_matches(['\r', '\n']) {
        "" => Err(BadSettings::Empty { what, path: path.to_owned() }),
        secret => Ok(secret.to_owned()),
    }
}

/// What a stack file sets to nothing is not set.
fn set(text: Option<&str>) -> Option<String> {
    text.filter(|text| !text.is_empty()).map(str::to_owned)
}

/// A duration as in labels, `1h30m`; zero is one.
pub(super) fn any(text: &str) -> Result<Duration, String> {
    duration::parse(text).map_err(|_| "want a duration such as `30s`, `15m`, `1h30m` or `7d`".to_owned())
}

/// A duration as in labels that is longer than nothing.
pub(super) fn positive(text: &str) -> Result<Duration, String> {
    any(text).and_then(|d| if d.is_zero() { Err("it must be longer than nothing".to_owned()) } else { Ok(d) })
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        operator: OperatorArgs,
    }

    fn read(args: &[&str]) -> OperatorArgs {
        Line::try_parse_from(std::iter::once("skep").chain(args.iter().copied())).unwrap().operator
    }

    #[test]
    fn without_any_setting_the_defaults_hold() {
        let args = read(&[]);
        let (settings, base) = (args.work.settings("here").unwrap(), Settings::default());
        assert_eq!(settings.stores, base.stores);
        assert_eq!(settings.default_store, "default");
        assert_eq!(settings.stop_deadline, base.stop_deadline);
        assert_eq!(settings.instance, "here");
        assert_eq!(args.alerts.settings(), guard::Settings::default());
        assert_eq!(args.schedules.rules(), crate::plan::scheduled::Rules::default());
        assert_eq!(args.listen.port(), 9180);
        assert_eq!(args.mail().cluster.as_deref(), Some("swarm"));
        assert!(args.mail().validate().unwrap().is_none());
        assert_eq!(args.webhook_token().unwrap(), None);
    }

    #[test]
    fn stores_may_be_repeated_or_separated() {
        for args in [
            vec!["--store", "nfs=bind:/mnt/b", "--store", "local=volume:b"],
            vec!["--store", "nfs=bind:/mnt/b;local=volume:b"],
        ] {
            let work = read(&[args, vec!["--default-store", "nfs"]].concat()).work;
            let settings = work.settings("i").unwrap();
            assert_eq!(settings.stores.keys().collect::<Vec<_>>(), ["local", "nfs"]);
            assert_eq!(settings.default_store, "nfs");
        }
    }

    #[test]
    fn the_only_store_is_the_default_and_one_that_is_missing_is_named() {
        let only = read(&["--store", "nfs=bind:/mnt/b"]).work.settings("i").unwrap();
        assert_eq!(only.default_store, "nfs");
        let missing = read(&["--store", "a=bind:/a;b=bind:/b"]).work.settings("i").unwrap_err();
        assert_eq!(missing.to_string(), "there is no store `default` (there are: a, b)");
        let twice = read(&["--store", "a=bind:/a;a=bind:/b"]).work.settings("i").unwrap_err();
        assert_eq!(twice.to_string(), "two stores are named `a`");
    }

    #[test]
    fn what_cannot_be_read_is_refused_with_what_is_wanted() {
        for (args, said) in [
            (["--store", "bind:/mnt"], "want `name=bind:/path`"),
            (["--store", "a b=bind:/mnt"], "is no name"),
            (["--store", "a=s3://x"], "want `bind:/path`, `volume:name"),
            (["--settle", "10"], "want a duration"),
            (["--backups-at-once", "0"], "want a whole number from 1"),
            (["--stop-deadline", "0s"], "longer than nothing"),
            (["--listen", "9180"], "invalid"),
        ] {
            let error = Line::try_parse_from(["skep"].into_iter().chain(args)).unwrap_err().to_string();
            assert!(error.contains(said), "{error}");
        }
    }
}
