//! What is wrong with the labels of a service or with a stack file.
//!
//! Every problem has a [`Code`] with a page of explanation (`docs/problems.md`, `skep explain L007`), says what
//! was found and what is wanted, and where it can, what was probably meant. Codes are never reused.

use std::fmt;

use serde::{Serialize, Serializer};

/// Explanations of all codes, one second-level heading each.
const PAGES: &str = include_str!("../../docs/problems.md");

/// One problem with one label.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Problem {
    /// What kind of problem.
    pub code: Code,
    /// The label, or the place in a stack file.
    pub key: String,
    /// The value found; empty where the problem is that there is none.
    pub got: String,
    /// What would be right.
    pub want: String,
    /// What was probably meant.
    pub hint: Option<String>,
    /// The section of the policy that is off because of it.
    pub section: Section,
    /// Whether it stands against every operation that changes data, until mended or accepted.
    pub blocks_destructive: bool,
}

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Level {
    /// A section is off, or the file cannot be deployed.
    Problem,
    /// Works, but probably not as hoped.
    Warning,
}

/// The parts of a policy. A fault turns its section off, and no other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Section {
    /// `skep.enable`, `skep.paused`, `skep.notify`, and keys that resemble no other.
    Common,
    /// `skep.depends-on`.
    DependsOn,
    /// `skep.scale.*`.
    Scale,
    /// `skep.maintenance` and below.
    Maintenance,
    /// `skep.data` and below.
    Data,
    /// `skep.backup.*`.
    Backup,
    /// `skep.drill.*`.
    Drill,
    /// `skep.point.*`.
    Point,
    /// `skep.restore.*`.
    Restore,
    /// `skep.restart.*`.
    Restart,
    /// `skep.update.*`.
    Update,
    /// `skep.check.*`.
    Check,
}

/// Declares the codes once: variant, text, and the list of all.
macro_rules! codes {
    ($($(#[$doc:meta])* $name:ident = $text:literal,)*) => {
        /// Codes of problems (`L…`) and warnings (`W…`).
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Code { $($(#[$doc])* $name,)* }

        impl Code {
            /// Every code.
            pub const ALL: &[Code] = &[$(Code::$name,)*];

            /// `L007`.
            pub const fn as_str(self) -> &'static str {
                match self { $(Code::$name => $text,)* }
            }
        }
    };
}

codes! {
    /// No such label.
    UnknownKey = "L001",
    /// A label that only Skep writes.
    ReservedKey = "L002",
    /// Labels without `skep.enable`.
    NotEnabled = "L003",
    /// Known, but this version does not do it yet.
    NotYet = "L004",
    /// Neither `true` nor `false`.
    BadFlag = "L005",
    /// Not a number, or out of range.
    BadNumber = "L006",
    /// Not a retention.
    BadKeep = "L007",
    /// Not a duration.
    BadDuration = "L008",
    /// Not a schedule.
    BadSchedule = "L009",
    /// A schedule that never comes due.
    NeverDue = "L010",
    /// Not one of the words allowed.
    BadChoice = "L011",
    /// Not a name.
    BadName = "L012",
    /// Not an e-mail address.
    BadAddress = "L013",
    /// Not an address that a check can ask.
    BadUrl = "L014",
    /// Not a comparison.
    BadExpect = "L015",
    /// Not a regular expression.
    BadRegex = "L016",
    /// Not a limit.
    BadLimit = "L017",
    /// A value is empty, or holds what it must not.
    BadText = "L018",
    /// Another label is needed beside this one.
    MissingKey = "L019",
    /// Two labels contradict each other.
    Conflict = "L020",
    /// A check with no kind, or more than one.
    CheckKinds = "L021",
    /// A setting that does not belong to this kind of check.
    CheckSetting = "L022",
    /// Restores on its own, but has no data check.
    AutoWithoutCheck = "L023",
    /// Encrypts, but nothing could decrypt without a person.
    EncryptWithoutIdentity = "L024",
    /// Names a store that Skep does not have.
    UnknownStore = "L025",
    /// Names a service that does not exist.
    UnknownService = "L030",
    /// A service that depends on itself.
    DependsOnSelf = "L031",
    /// Services that depend on each other in a circle.
    Cycle = "L032",
    /// Names a volume that the service does not mount.
    UnknownVolume = "L033",
    /// Keeps as many replicas as it has.
    NothingToScale = "L034",
    /// Looks for lines in a log that keeps nothing.
    UnreadLog = "L035",
    /// Data is to go back with an update, and there is none that could.
    NothingToGoBack = "L036",
    /// Users could come past the door.
    PastTheDoor = "L037",
    /// The name of the door is somebody else's.
    DoorTaken = "L038",
    /// The file cannot be read, or is not YAML.
    NotYaml = "L040",
    /// A value begins with `@`.
    LeadingAt = "L041",
    /// A value begins with `*`.
    LeadingStar = "L042",
    /// A YAML truth value where Compose wants text.
    UnquotedFlag = "L043",
    /// A number that YAML rewrites.
    RewrittenNumber = "L044",
    /// A Skep label on the containers.
    ContainerLabel = "L045",
    /// A variable that cannot be filled in.
    BadVariable = "L046",
    /// One label twice.
    DuplicateLabel = "L047",
    /// Not in the form of a stack file.
    BadShape = "L048",
    /// Not a schedule with a length.
    BadWindow = "L050",
    /// An image that names no tag is to be watched.
    NothingToWatch = "L051",
    /// The page replaces a service that has no health check.
    NoHealthCheck = "W001",
    /// The page replaces a service with a port in host mode.
    HostPort = "W002",
    /// A config that the stack does not define.
    UndefinedConfig = "W003",
    /// Restores, but no schedule takes backups.
    RestoreWithoutBackup = "W004",
    /// A mode for alerts, but no alert.
    ModeWithoutAlert = "W005",
    /// A service of another stack.
    ForeignService = "W006",
    /// A variable that is not set.
    UnsetVariable = "W007",
    /// A retention that drops the backups of today.
    ThinToday = "W008",
    /// A retention that keeps one backup only.
    LoneBackup = "W009",
    /// A log that is received, but no schedule takes base backups.
    LogWithoutBackup = "W010",
    /// A log that is not received now.
    LogNotReceived = "W011",
}

/// A problem with the service that it belongs to, for printing.
#[derive(Clone, Copy, Debug)]
pub struct OfService<'a> {
    problem: &'a Problem,
    service: &'a str,
}

// === impl Code ===

impl Code {
    /// Whether it is a problem or only a warning.
    pub fn level(self) -> Level {
        // Without an identity a backup is still a backup: turned off, there would be none.
        let is_warning = self.as_str().starts_with('W') || self == Code::EncryptWithoutIdentity;
        if is_warning { Level::Warning } else { Level::Problem }
    }

    /// One line that says what it is.
    pub fn title(self) -> &'static str {
        let heading = self.page().lines().next().unwrap_or_default();
        heading.trim_start_matches('#').trim().trim_start_matches(self.as_str()).trim()
    }

    /// The page that explains it.
    pub fn page(self) -> &'static str {
        page(self.as_str()).unwrap_or_default()
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Serialize for Code {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

// === impl Section ===

impl Section {
    /// The section whose keys begin with `skep.<group>`.
    pub fn of_group(group: &str) -> Option<Section> {
        Some(match group {
            "enable" | "paused" | "notify" => Section::Common,
            "depends-on" => Section::DependsOn,
            "scale" => Section::Scale,
            "maintenance" => Section::Maintenance,
            "data" => Section::Data,
            "backup" => Section::Backup,
            "drill" => Section::Drill,
            "point" => Section::Point,
            "restore" => Section::Restore,
            "restart" => Section::Restart,
            "update" => Section::Update,
            "check" => Section::Check,
            _ => return None,
        })
    }

    /// A word for metrics and headings.
    pub const fn as_str(self) -> &'static str {
        match self {
            Section::Common => "common",
            Section::DependsOn => "depends-on",
            Section::Scale => "scale",
            Section::Maintenance => "maintenance",
            Section::Data => "data",
            Section::Backup => "backup",
            Section::Drill => "drill",
            Section::Point => "point",
            Section::Restore => "restore",
            Section::Restart => "restart",
            Section::Update => "update",
            Section::Check => "check",
        }
    }

    /// Whether a fault in it makes it unsafe to change the service's data: what depends on it, what it is,
    /// how to tell that it works and what users see meanwhile would be guesses.
    pub const fn guards_data(self) -> bool {
        matches!(self, Section::DependsOn | Section::Data | Section::Check | Section::Maintenance)
    }
}

// === impl Problem ===

impl Problem {
    /// A problem; whether it blocks follows from its section and code.
    pub fn new(code: Code, section: Section, key: impl Into<String>) -> Problem {
        Problem {
            code,
            key: key.into(),
            got: String::new(),
            want: String::new(),
            hint: None,
            section,
            blocks_destructive: section.guards_data() && code.level() == Level::Problem,
        }
    }

    /// With the value found.
    #[must_use]
    pub fn got(mut self, got: impl Into<String>) -> Problem {
        self.got = got.into();
        self
    }

    /// With what is wanted.
    #[must_use]
    pub fn want(mut self, want: impl Into<String>) -> Problem {
        self.want = want.into();
        self
    }

    /// With what was probably meant.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<Option<String>>) -> Problem {
        self.hint = hint.into();
        self
    }

    /// The problem in one line that names the service.
    pub fn of<'a>(&'a self, service: &'a str) -> OfService<'a> {
        OfService { problem: self, service }
    }

    /// The value found, quoted and short enough for one line; nothing where there is none.
    pub fn quoted(&self) -> String {
        const LONGEST: usize = 80;
        if self.got.is_empty() {
            return String::new();
        }
        let mut shown: String = self.got.chars().take(LONGEST).collect();
        if shown.len() < self.got.len() {
            shown.push('…');
        }
        format!("{shown:?}")
    }

    fn sentence(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "label `{}`", self.key)?;
        if !self.got.is_empty() {
            write!(f, " = {}", self.quoted())?;
        }
        write!(f, ": want {}", self.want)?;
        match &self.hint {
            Some(hint) => write!(f, "; {hint}"),
            None => Ok(()),
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ", self.code)?;
        self.sentence(f)
    }
}

impl fmt::Display for OfService<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} service `{}`: ", self.problem.code, self.service)?;
        self.problem.sentence(f)
    }
}

/// The page that explains a code, as `skep explain` prints it. Case does not matter.
pub fn explain(code: &str) -> Option<&'static str> {
    let wanted = code.trim().to_ascii_uppercase();
    Code::ALL.iter().find(|c| c.as_str() == wanted).map(|c| c.page())
}

fn page(code: &str) -> Option<&'static str> {
    let start = PAGES.find(&format!("## {code} "))?;
    let rest = &PAGES[start..];
    let end = rest[3..].find("\n## ").map_or(rest.len(), |at| at + 3);
    Some(rest[..end].trim_end())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_has_a_page_of_explanation_and_every_page_a_code() {
        for code in Code::ALL {
            let page = explain(code.as_str()).unwrap_or_else(|| panic!("{code} has no page"));
            assert!(page.starts_with(&format!("## {code} ")), "{code}: {page}");
            assert!(!code.title().is_empty(), "{code} has no title");
            assert!(page.len() > 150, "{code}: the page explains nothing: {page}");
        }
        assert_eq!(PAGES.matches("\n## ").count(), Code::ALL.len());
    }

    #[test]
    fn codes_are_unique_and_in_order() {
        let texts: Vec<&str> = Code::ALL.iter().map(|c| c.as_str()).collect();
        let mut sorted = texts.clone();
        sorted.sort_unstable();
        sorted.dedup();
        assert_eq!(texts, sorted);
    }

    #[test]
    fn explain_takes_small_letters_and_refuses_codes_that_do_not_exist() {
        assert_eq!(explain("l007"), explain("L007"));
        assert_eq!(explain("L999"), None);
        assert_eq!(explain(""), None);
    }

    #[test]
    fn a_problem_reads_as_one_line_with_its_service() {
        let problem = Problem::new(Code::BadKeep, Section::Backup, "skep.backup.keep")
            .got("7 day")
            .want("counts with a period")
            .hint("did you mean `7 daily`?".to_owned());
        assert_eq!(
            problem.of("shop_db").to_string(),
            "L007 service `shop_db`: label `skep.backup.keep` = \"7 day\": want counts with a period; did you mean `7 daily`?"
        );
    }

    #[test]
    fn only_faults_in_the_sections_that_guard_data_block() {
        assert!(Problem::new(Code::BadName, Section::DependsOn, "k").blocks_destructive);
        assert!(!Problem::new(Code::BadKeep, Section::Backup, "k").blocks_destructive);
        assert!(!Problem::new(Code::NoHealthCheck, Section::Maintenance, "k").blocks_destructive);
    }
}
