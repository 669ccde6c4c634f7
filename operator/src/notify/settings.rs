//! Mail settings: as given on the command line or in the environment, and as validated.

use std::path::PathBuf;
use std::time::Duration;

use jiff::SignedDuration;
use jiff::tz::TimeZone;
use lettre::Address;
use lettre::message::Mailbox;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::phase::Routine;
use crate::policy::Schedule;

/// Where and how to send mail. Without a host no mail is sent.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, clap::Args)]
#[serde(default)]
#[command(next_help_heading = "Mail")]
pub struct MailSettings {
    /// SMTP server; no mail is sent without one.
    #[arg(id = "mail-host", long = "mail-host", env = "SKEP_MAIL_HOST", value_name = "HOST")]
    pub host: Option<String>,
    /// Port; 587 with `starttls`, 465 with `implicit`, 25 with `none`.
    #[arg(id = "mail-port", long = "mail-port", env = "SKEP_MAIL_PORT", value_name = "PORT")]
    pub port: Option<u16>,
    /// How the connection is encrypted.
    #[arg(id = "mail-tls", long = "mail-tls", env = "SKEP_MAIL_TLS", value_enum, default_value_t)]
    pub tls: Tls,
    /// PEM file with the certificate authority of the server; the public ones where absent.
    #[arg(id = "mail-ca-file", long = "mail-ca-file", env = "SKEP_MAIL_CA_FILE", value_name = "FILE")]
    pub ca_file: Option<PathBuf>,
    /// Name that the server's certificate must carry; the host where absent.
    #[arg(long = "mail-tls-name", env = "SKEP_MAIL_TLS_NAME", value_name = "NAME")]
    pub tls_name: Option<String>,
    /// User to log in as.
    #[arg(id = "mail-user", long = "mail-user", env = "SKEP_MAIL_USER", value_name = "NAME")]
    pub user: Option<String>,
    /// File that holds the password, a Docker secret.
    #[arg(
        id = "mail-password-file",
        long = "mail-password-file",
        env = "SKEP_MAIL_PASSWORD_FILE",
        value_name = "FILE"
    )]
    pub password_file: Option<PathBuf>,
    /// Sender: `Skep <skep@example.org>`.
    #[arg(id = "mail-from", long = "mail-from", env = "SKEP_MAIL_FROM", value_name = "ADDRESS")]
    pub from: Option<String>,
    /// Where answers go.
    #[arg(id = "mail-reply-to", long = "mail-reply-to", env = "SKEP_MAIL_REPLY_TO", value_name = "ADDRESS")]
    pub reply_to: Option<String>,
    /// Who is told about every service, beside those that its `skep.notify` names.
    #[arg(
        id = "mail-to",
        long = "mail-to",
        env = "SKEP_MAIL_TO",
        value_name = "ADDRESS",
        value_delimiter = ','
    )]
    pub to: Vec<String>,
    /// Domains that `skep.notify` may name; any where absent.
    #[arg(
        id = "mail-domains",
        long = "mail-domains",
        env = "SKEP_MAIL_DOMAINS",
        value_name = "DOMAIN",
        value_delimiter = ','
    )]
    pub domains: Vec<String>,
    /// Name of this cluster, in every subject.
    #[arg(id = "mail-cluster", long = "mail-cluster", env = "SKEP_CLUSTER", value_name = "NAME")]
    pub cluster: Option<String>,
    /// Time zone of the readers; UTC where absent.
    #[arg(id = "mail-time-zone", long = "mail-time-zone", env = "SKEP_MAIL_TIME_ZONE", value_name = "ZONE")]
    pub time_zone: Option<String>,
    /// Address of the status page, for links.
    #[arg(id = "status-url", long = "status-url", env = "SKEP_STATUS_URL", value_name = "URL")]
    pub status_url: Option<String>,
    /// What operations on a schedule, or that are part of another, tell.
    #[arg(
        id = "mail-routine",
        long = "mail-routine",
        env = "SKEP_MAIL_ROUTINE",
        value_enum,
        default_value_t
    )]
    pub routine: Routine,
    /// When the message about all backups is sent: a schedule as in labels, by the readers' zone where it names none, or
    /// `off`. `0 8 * * MON` where absent.
    #[arg(id = "mail-weekly", long = "mail-weekly", env = "SKEP_MAIL_WEEKLY", value_name = "SCHEDULE")]
    pub weekly: Option<String>,
    /// Longest time for one answer of the server; 30s where absent.
    #[arg(id = "mail-timeout", long = "mail-timeout", env = "SKEP_MAIL_TIMEOUT", value_name = "DURATION")]
    pub timeout: Option<SignedDuration>,
    /// Name to greet the server with; the host's own where absent.
    #[arg(id = "mail-hello", long = "mail-hello", env = "SKEP_MAIL_HELLO", value_name = "NAME")]
    pub hello: Option<String>,
}

/// How the connection to the server is encrypted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Tls {
    /// Upgraded by STARTTLS; a server that does not offer it gets no mail.
    #[default]
    Starttls,
    /// From the first byte on.
    Implicit,
    /// Not at all.
    None,
}

/// Validated settings.
#[derive(Clone, Debug)]
pub struct Mail {
    /// Host name or address.
    pub host: String,
    /// Port.
    pub port: u16,
    /// Encryption.
    pub tls: Tls,
    /// Own certificate authority.
    pub ca_file: Option<PathBuf>,
    /// Name that the certificate must carry.
    pub tls_name: String,
    /// User and the file with the password.
    pub login: Option<(String, PathBuf)>,
    /// Sender.
    pub from: Mailbox,
    /// Where answers go.
    pub reply_to: Option<Mailbox>,
    /// Who is told about every service.
    pub to: Vec<Address>,
    /// Domains that labels may name, lower case; any where empty.
    pub domains: Vec<String>,
    /// Name of the cluster; empty where none was given.
    pub cluster: String,
    /// Time zone of the readers.
    pub zone: TimeZone,
    /// Address of the status page, without a slash at its end.
    pub status_url: Option<String>,
    /// What routine operations tell.
    pub routine: Routine,
    /// When the message about all backups is sent; never where absent.
    pub weekly: Option<Schedule>,
    /// Longest time for one answer.
    pub timeout: Duration,
    /// Name to greet with.
    pub hello: Option<String>,
}

/// Settings that cannot work.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum Invalid {
    /// A setting that must be given with another.
    #[error("`{missing}` is needed with `{given}`")]
    Missing {
        /// What was given.
        given: &'static str,
        /// What is missing.
        missing: &'static str,
    },
    /// Not an e-mail address.
    #[error("`{setting}`: `{found}` is not an e-mail address")]
    Address {
        /// The setting.
        setting: &'static str,
        /// What was found.
        found: String,
    },
    /// Not a time zone.
    #[error("`--mail-time-zone`: `{0}` is not a time zone, want a name such as `Europe/Paris`")]
    Zone(String),
    /// Not a schedule.
    #[error(
        "`--mail-weekly`: `{0}` is neither `off` nor a schedule, want five fields such as `0 8 * * MON`, or `@weekly`"
    )]
    Weekly(String),
    /// Not an address of a page.
    #[error("`--status-url`: `{0}` does not begin with http:// or https://")]
    Url(String),
    /// Not a usable duration.
    #[error("`--mail-timeout`: `{0:#}` is not between 1s and 10m")]
    Timeout(SignedDuration),
}

// === impl MailSettings ===

impl MailSettings {
    /// Validates the settings; nothing where no host is given, that is, no mail is wanted.
    ///
    /// # Errors
    /// When the settings cannot work.
    pub fn validate(&self) -> Result<Option<Mail>, Invalid> {
        let Some(host) = self.host.as_deref().map(str::trim).filter(|h| !h.is_empty()) else {
            return Ok(None);
        };
        let from =
            self.from.as_deref().ok_or(Invalid::Missing { given: "--mail-host", missing: "--mail-from" })?;
        let timeout = self.timeout.unwrap_or(SignedDuration::from_secs(30));
        let fine = timeout >= SignedDuration::from_secs(1) && timeout <= SignedDuration::from_mins(10);
        Ok(Some(Mail {
            host: host.to_owned(),
            port: self.port.unwrap_or(self.tls.port()),
            tls: self.tls,
            ca_file: self.ca_file.clone(),
            tls_name: self.tls_name.clone().unwrap_or_else(|| host.to_owned()),
            login: self.login()?,
            from: parse("--mail-from", from)?,
            reply_to: self.reply_to.as_deref().map(|r| parse("--mail-reply-to", r)).transpose()?,
            to: self.to.iter().map(|to| parse("--mail-to", to.trim())).collect::<Result<_, _>>()?,
            domains: self.domains.iter().map(|d| d.trim().to_lowercase()).collect(),
            cluster: self.cluster.clone().unwrap_or_default(),
            zone: self.zone()?,
            status_url: self.status_url()?,
            routine: self.routine,
            weekly: self.weekly()?,
            timeout: Duration::try_from(timeout).ok().filter(|_| fine).ok_or(Invalid::Timeout(timeout))?,
            hello: self.hello.clone(),
        }))
    }

    fn login(&self) -> Result<Option<(String, PathBuf)>, Invalid> {
        match (&self.user, &self.password_file) {
            (Some(user), Some(file)) => Ok(Some((user.clone(), file.clone()))),
            (None, None) => Ok(None),
            (Some(_), None) => {
                Err(Invalid::Missing { given: "--mail-user", missing: "--mail-password-file" })
            }
            (None, Some(_)) => {
                Err(Invalid::Missing { given: "--mail-password-file", missing: "--mail-user" })
            }
        }
    }

    fn zone(&self) -> Result<TimeZone, Invalid> {
        let Some(name) = &self.time_zone else { return Ok(TimeZone::UTC) };
        TimeZone::get(name).map_err(|_| Invalid::Zone(name.clone()))
    }

    fn weekly(&self) -> Result<Option<Schedule>, Invalid> {
        const MONDAY_MORNING: &str = "0 8 * * MON";
        let text = self.weekly.as_deref().map(str::trim).filter(|text| !text.is_empty());
        let text = text.unwrap_or(MONDAY_MORNING);
        if text == "off" {
            return Ok(None);
        }
        let wrong = |_| Invalid::Weekly(text.to_owned());
        let schedule = Schedule::parse(text).map_err(wrong)?;
        let Some(zone) = self.time_zone.as_ref().filter(|_| !schedule.is_zoned()) else {
            return Ok(Some(schedule));
        };
        Schedule::parse(&format!("CRON_TZ={zone} {text}")).map(Some).map_err(wrong)
    }

    fn status_url(&self) -> Result<Option<String>, Invalid> {
        let Some(url) = &self.status_url else { return Ok(None) };
        let fine = url.starts_with("https://") || url.starts_with("http://");
        let fine = fine && !url.contains(|c: char| c.is_whitespace() || c.is_control());
        fine.then(|| Some(url.trim_end_matches('/').to_owned())).ok_or_else(|| Invalid::Url(url.clone()))
    }
}

// === impl Tls ===

impl Tls {
    /// The port that goes with it.
    pub const fn port(self) -> u16 {
        match self {
            Tls::Starttls => 587,
            Tls::Implicit => 465,
            Tls::None => 25,
        }
    }
}

// === impl Mail ===

impl Mail {
    /// Whom to tell, each once: the configured recipients and those of the label that are valid and allowed.
    /// The second part holds those of the label that are not.
    pub fn recipients(&self, label: &[String]) -> (Vec<Address>, Vec<String>) {
        let (mut good, mut bad) = (self.to.clone(), Vec::new());
        for text in label {
            match text.trim().parse::<Address>() {
                Ok(address) if self.allows(&address) => good.push(address),
                Ok(_) | Err(_) => bad.push(text.clone()),
            }
        }
        let mut seen = std::collections::BTreeSet::new();
        good.retain(|address| seen.insert(address.to_string().to_lowercase()));
        (good, bad)
    }

    fn allows(&self, address: &Address) -> bool {
        self.domains.is_empty() || self.domains.contains(&address.domain().to_lowercase())
    }
}

fn parse<T: std::str::FromStr>(setting: &'static str, text: &str) -> Result<T, Invalid> {
    text.parse().map_err(|_| Invalid::Address { setting, found: text.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings() -> MailSettings {
        MailSettings {
            host: Some("mail.example.org".to_owned()),
            from: Some("Skep <skep@example.org>".to_owned()),
            ..MailSettings::default()
        }
    }

    #[test]
    fn without_a_host_no_mail_is_wanted() {
        assert!(MailSettings::default().validate().unwrap().is_none());
        let empty = MailSettings { host: Some(" ".to_owned()), ..settings() };
        assert!(empty.validate().unwrap().is_none());
    }

    #[test]
    fn the_port_follows_the_encryption() {
        for (tls, port) in [(Tls::Starttls, 587), (Tls::Implicit, 465), (Tls::None, 25)] {
            assert_eq!(MailSettings { tls, ..settings() }.validate().unwrap().unwrap().port, port);
        }
    }

    #[test]
    fn mistakes_are_named() {
        let wrong = [
            (MailSettings { from: None, ..settings() }, "`--mail-from` is needed with `--mail-host`"),
            (
                MailSettings { user: Some("skep".to_owned()), ..settings() },
                "`--mail-password-file` is needed with `--mail-user`",
            ),
            (
                MailSettings { to: vec!["ops".to_owned()], ..settings() },
                "`--mail-to`: `ops` is not an e-mail address",
            ),
            (
                MailSettings { time_zone: Some("Mars/Base".to_owned()), ..settings() },
                "`--mail-time-zone`: `Mars/Base` is not a time zone, want a name such as `Europe/Paris`",
            ),
            (
                MailSettings { status_url: Some("javascript:alert(1)".to_owned()), ..settings() },
                "`--status-url`: `javascript:alert(1)` does not begin with http:// or https://",
            ),
            (
                MailSettings { weekly: Some("sometimes".to_owned()), ..settings() },
                "`--mail-weekly`: `sometimes` is neither `off` nor a schedule, want five fields such as `0 8 * * MON`, or `@weekly`",
            ),
            (
                MailSettings { timeout: Some(SignedDuration::ZERO), ..settings() },
                "`--mail-timeout`: `0s` is not between 1s and 10m",
            ),
        ];
        for (settings, message) in wrong {
            assert_eq!(settings.validate().unwrap_err().to_string(), message);
        }
    }

    #[test]
    fn the_weekly_message_comes_on_monday_morning_of_its_readers_unless_told_otherwise() {
        let next = |weekly: Option<&str>, zone: Option<&str>| {
            let (weekly, time_zone) = (weekly.map(str::to_owned), zone.map(str::to_owned));
            let mail = MailSettings { weekly, time_zone, ..settings() }.validate().unwrap().unwrap();
            let thursday = "2026-07-02T00:00:00Z".parse().unwrap();
            mail.weekly.and_then(|schedule| schedule.next_after(thursday)).map(|at| at.to_string())
        };
        assert_eq!(next(None, None).unwrap(), "2026-07-06T08:00:00Z");
        assert_eq!(next(None, Some("Europe/Paris")).unwrap(), "2026-07-06T06:00:00Z");
        assert_eq!(
            next(Some("CRON_TZ=America/New_York 0 7 * * FRI"), Some("Europe/Paris")).unwrap(),
            "2026-07-03T11:00:00Z"
        );
        assert_eq!(next(Some("@weekly"), None).unwrap(), "2026-07-05T00:00:00Z");
        assert_eq!(next(Some("off"), None), None);
    }

    #[test]
    fn recipients_are_validated_filtered_and_told_once() {
        let settings = MailSettings {
            to: vec!["ops@example.org".to_owned()],
            domains: vec!["Example.org".to_owned()],
            ..settings()
        };
        let label = ["dba@example.org", "OPS@example.org", "x@elsewhere.net", "a@example.org\r\nBcc: b@c.de"];
        let (good, bad) = settings.validate().unwrap().unwrap().recipients(&label.map(str::to_owned));
        assert_eq!(
            good.iter().map(ToString::to_string).collect::<Vec<_>>(),
            ["ops@example.org", "dba@example.org"]
        );
        assert_eq!(bad, [label[2], label[3]]);
    }
}
