//! `skep check`, `skep labels` and `skep explain`: what people can ask about labels. The first needs the Swarm only
//! when it is asked about services there; the others never do.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

use super::out::Format;
use crate::operation::receiver::Standing;
use crate::policy::lint::{Environment, Finding};
use crate::policy::{CheckReport, Problem, Section, value};
use crate::policy::{Code, check_files, check_service, check_services, explain, labels_reference};
use crate::swarm::object::Service;

/// `skep check [STACK.yml | SERVICE]…`
#[derive(Clone, Debug, clap::Args)]
pub struct CheckArgs {
    /// Stack files (read together, as `docker stack deploy -c a.yml -c b.yml` does), or full names of services in
    /// the Swarm; all services of the Swarm where nothing is named.
    #[arg(value_name = "FILE|SERVICE")]
    pub targets: Vec<String>,
    /// Name that the stack of the files will have.
    #[arg(long, value_name = "NAME")]
    pub stack: Option<String>,
}

/// What of the Swarm is looked at, where it is needed.
#[derive(Clone, Debug, Default)]
pub struct Swarm {
    /// All services.
    pub services: Vec<Service>,
    /// How the receivers of write-ahead logs stand, by the names of their services.
    pub received: BTreeMap<String, Standing>,
}

/// `skep explain [CODE]`
#[derive(Clone, Debug, clap::Args)]
pub struct ExplainArgs {
    /// A code like `L007`; a list of all where absent.
    pub code: Option<String>,
}

/// What a command prints, and with which code it ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// For standard output.
    pub text: String,
    /// 0 for success, 1 where something is wrong with what was asked about, 2 where the question was.
    pub exit_code: u8,
}

// === impl CheckArgs ===

impl CheckArgs {
    /// Whether the services of the Swarm are needed for the answer.
    pub fn needs_swarm(&self) -> bool {
        self.targets.is_empty() || self.targets.iter().any(|target| !is_file(target))
    }

    /// Checks what was asked for.
    pub fn run(&self, environment: &Environment<'_>, swarm: &Swarm, format: Format) -> Answer {
        let services = swarm.services.as_slice();
        let (files, names): (Vec<&String>, Vec<&String>) = self.targets.iter().partition(|t| is_file(t));
        let mut report = CheckReport::default();
        if !files.is_empty() {
            let paths: Vec<&Path> = files.iter().map(Path::new).collect();
            report.add(check_files(&paths, environment, self.stack.as_deref()));
        }
        if self.targets.is_empty() {
            report.add(check_services(services));
        }
        for name in names {
            match check_service(services, name) {
                Some(found) => report.add(found),
                None => return no_such_service(name, services),
            }
        }
        swarm.tell_logs(&mut report);
        let text = match format {
            Format::Human => report.to_string(),
            Format::Json => serde_json::to_string_pretty(&report).map(|t| t + "\n").unwrap_or_default(),
        };
        Answer { text, exit_code: report.exit_code() }
    }
}

// === impl Swarm ===

impl Swarm {
    /// What a server lacks is known to the one who receives its log.
    fn tell_logs(&self, report: &mut CheckReport) {
        for name in &report.services {
            let Some(why) = self.received.get(name).and_then(|standing| standing.fault.as_ref()) else {
                continue;
            };
            let problem = Problem::new(Code::LogNotReceived, Section::Backup, "skep.backup.wal");
            report.findings.push(Finding {
                level: Code::LogNotReceived.level(),
                file: None,
                line: None,
                service: Some(name.clone()),
                problem: problem.got("true").want(why.as_str()),
            });
        }
    }
}

// === impl ExplainArgs ===

impl ExplainArgs {
    /// The page of a code, or the list of all codes.
    pub fn run(&self) -> Answer {
        let Some(code) = &self.code else {
            let all: Vec<String> =
                Code::ALL.iter().map(|code| format!("{code}  {}\n", code.title())).collect();
            return Answer { text: all.concat(), exit_code: 0 };
        };
        match explain(code) {
            Some(page) => {
                Answer { text: format!("{}\n", page.trim_start_matches('#').trim_start()), exit_code: 0 }
            }
            None => {
                let text = format!("there is no code `{code}`; `skep explain` lists them all\n");
                Answer { text, exit_code: 2 }
            }
        }
    }
}

// === impl Answer ===

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// `skep labels`: all labels with what they do.
pub fn labels() -> Answer {
    Answer { text: labels_reference(), exit_code: 0 }
}

/// A target is a file when it looks like one or is one; names of services have neither slashes nor endings.
fn is_file(target: &str) -> bool {
    let path = Path::new(target);
    let ending = path.extension().and_then(|e| e.to_str());
    target.contains('/') || matches!(ending, Some("yml" | "yaml")) || path.is_file()
}

fn no_such_service(name: &str, services: &[Service]) -> Answer {
    let near = value::nearest(name, services.iter().map(Service::name));
    let hint = near.map(|hint| format!("; {hint}")).unwrap_or_default();
    Answer { text: format!("there is no service `{name}`, and no file of that name{hint}\n"), exit_code: 2 }
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use jiff::Timestamp;
    use serde_json::json;

    use super::*;

    #[derive(Parser)]
    struct Command {
        #[command(flatten)]
        check: CheckArgs,
    }

    fn args(words: &[&str]) -> CheckArgs {
        Command::parse_from([&["check"], words].concat()).check
    }

    fn swarm() -> Swarm {
        let labels = json!({ "skep.enable": "true", "skep.data": "mongodbb" });
        let spec = json!({ "Name": "shop_db", "Labels": labels });
        let created = Timestamp::UNIX_EPOCH;
        let service = Service { id: "x".to_owned(), version: 1, spec, update: None, created };
        Swarm { services: vec![service], received: BTreeMap::new() }
    }

    const TEN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/check/ten-mistakes.yml");

    #[test]
    fn a_stack_file_is_checked_without_the_swarm() {
        let check = args(&[TEN]);
        assert!(!check.needs_swarm() && !args(&["not-there.yml"]).needs_swarm());
        let answer = check.run(&|_| None, &Swarm::default(), Format::Human);
        assert_eq!(answer.exit_code, 1);
        assert!(
            answer.text.ends_with("10 problems, 0 warnings, 3 services with labels of Skep\n"),
            "{answer}"
        );
    }

    #[test]
    fn services_are_checked_by_name_or_all_together() {
        for words in [&["shop_db"][..], &[]] {
            assert!(args(words).needs_swarm());
            let answer = args(words).run(&|_| None, &swarm(), Format::Human);
            assert_eq!(answer.exit_code, 1);
            assert!(
                answer.text.starts_with("L011  service `shop_db`, `skep.data` = \"mongodbb\"\n"),
                "{answer}"
            );
        }
        let answer = args(&["shop_bd"]).run(&|_| None, &swarm(), Format::Human);
        assert_eq!(answer.exit_code, 2);
        assert!(answer.text.contains("did you mean `shop_db`?"), "{answer}");
    }

    #[test]
    fn what_a_server_lacks_for_its_log_is_told_of_one_that_runs() {
        let mut swarm = swarm();
        let labels = json!({ "skep.enable": "true", "skep.data": "postgres", "skep.backup.wal": "true",
            "skep.backup.schedule": "@daily" });
        swarm.services[0].spec["Labels"] = labels;
        let mut standing = Standing { service: "shop_db".to_owned(), ..Standing::default() };
        swarm.received.insert("shop_db".to_owned(), standing.clone());
        let said = |swarm: &Swarm| args(&["shop_db"]).run(&|_| None, swarm, Format::Human);
        assert_eq!(said(&swarm).text, "0 problems, 0 warnings, 1 service with labels of Skep\n");
        standing.fault =
            Some("the write-ahead log cannot be received: set max_slot_wal_keep_size".to_owned());
        swarm.received.insert("shop_db".to_owned(), standing);
        let answer = said(&swarm);
        assert_eq!(answer.exit_code, 0);
        assert!(
            answer.text.starts_with("W011  service `shop_db`, `skep.backup.wal` = \"true\"\n"),
            "{answer}"
        );
        assert!(answer.text.contains("set max_slot_wal_keep_size"), "{answer}");
    }

    #[test]
    fn files_and_services_can_be_asked_about_together_and_as_json() {
        let answer = args(&[TEN, "shop_db"]).run(&|_| None, &swarm(), Format::Json);
        let report: serde_json::Value = serde_json::from_str(&answer.text).unwrap();
        assert_eq!(report["findings"].as_array().map(Vec::len), Some(11));
    }

    #[test]
    fn codes_are_explained_and_listed() {
        let explain = |code: Option<&str>| ExplainArgs { code: code.map(str::to_owned) }.run();
        assert!(explain(Some("L007")).text.starts_with("L007 not a retention\n"));
        assert_eq!(explain(Some("L7")).exit_code, 2);
        assert_eq!(explain(None).text.lines().count(), Code::ALL.len());
        assert!(labels().text.contains("skep.backup.schedule"));
    }
}
