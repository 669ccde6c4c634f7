//! The same program as a plugin of the docker command: named `docker-skep`, it is called with the arguments of docker.
//!
//! ```text
//! docker --context far skep ps   ─▶  docker-skep --context far skep ps
//! docker skep ps                 ─▶  docker-skep skep ps
//! docker __complete skep p       ─▶  docker-skep __complete skep p
//! ```

use std::ffi::{OsStr, OsString};
use std::path::Path;

use clap::{Arg, Command};
use serde_json::json;

/// The plugin's name, and the word that docker passes.
const WORD: &str = "skep";
/// What docker asks every plugin.
const METADATA: &str = "docker-cli-plugin-metadata";
/// Options of docker that take a value, which is no command.
const VALUED: [&str; 10] = [
    "-H",
    "--host",
    "-c",
    "--context",
    "--config",
    "-l",
    "--log-level",
    "--tlscacert",
    "--tlscert",
    "--tlskey",
];
/// Tells a shell that nothing else is to be offered (cobra's protocol).
const NO_FILES: &str = ":4";
/// Tells a shell to offer files (cobra's protocol).
const FILES: &str = ":0";

/// How this program was called.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Called {
    /// By its own name.
    Plainly(Vec<OsString>),
    /// By docker; without its own word among the arguments.
    ByDocker(Vec<OsString>),
    /// By docker, which asks what it is.
    ForMetadata,
    /// By a shell, through docker, for what could come next.
    ForCompletion(Vec<String>),
}

/// Tells by name and arguments how this program was called.
pub(super) fn called(args: Vec<OsString>) -> Called {
    let stem = args.first().map(Path::new).and_then(Path::file_stem);
    if stem != Some(OsStr::new("docker-skep")) {
        return Called::Plainly(args);
    }
    if args.get(1).is_some_and(|a| a == METADATA) {
        return Called::ForMetadata;
    }
    let mut rest = args;
    if let Some(at) = own_word(&rest) {
        rest.remove(at);
    }
    match rest.get(1) {
        Some(word) if word == "__complete" || word == "__completeNoDesc" => {
            Called::ForCompletion(rest[2..].iter().map(|a| a.to_string_lossy().into_owned()).collect())
        }
        _ => Called::ByDocker(rest),
    }
}

/// Where our own word stands: the first that is neither an option nor its value, nor `help` before it.
fn own_word(args: &[OsString]) -> Option<usize> {
    let mut at = 1;
    while let Some(word) = args.get(at) {
        let text = word.to_string_lossy();
        if VALUED.contains(&text.as_ref()) {
            at += 2;
        } else if text.starts_with('-') || text == "help" || text.starts_with("__complete") {
            at += 1;
        } else {
            return (text == WORD).then_some(at);
        }
    }
    None
}

/// The answer to docker's question what this is.
pub(super) fn metadata() -> String {
    json!({
        "SchemaVersion": "0.1.0",
        "Vendor": "Skep",
        "Version": env!("CARGO_PKG_VERSION"),
        "ShortDescription": "Back up, restore and maintain the services of a swarm",
    })
    .to_string()
}

/// What could come next, a line each, then what else the shell may offer.
pub(super) fn completions(root: &Command, words: &[String]) -> String {
    let (last, before) = words.split_last().map_or(("", [].as_slice()), |(l, b)| (l.as_str(), b));
    let mut command = root;
    let mut skip = false;
    for word in before {
        if std::mem::take(&mut skip) {
            continue;
        }
        if let Some(option) = option(command, word) {
            skip = !word.contains('=') && option.get_action().takes_values();
        } else if let Some(sub) = command.find_subcommand(word) {
            command = sub;
        }
    }
    let mut lines = Vec::new();
    if last.starts_with('-') {
        let options = command.get_arguments().chain(root.get_arguments()).filter(|a| !a.is_hide_set());
        let named = options.filter_map(|a| Some(described(&format!("--{}", a.get_long()?), a.get_help())));
        lines.extend(named);
    } else {
        let commands = command.get_subcommands().filter(|c| !c.is_hide_set());
        lines.extend(commands.map(|c| described(c.get_name(), c.get_about())));
    }
    lines.retain(|l| l.starts_with(last));
    lines.sort();
    lines.dedup();
    let offers = if lines.is_empty() && !skip { FILES } else { NO_FILES };
    lines.push(offers.to_owned());
    lines.join("\n")
}

fn option<'a>(command: &'a Command, word: &str) -> Option<&'a Arg> {
    let long = word.strip_prefix("--")?.split('=').next()?;
    command.get_arguments().find(|a| a.get_long() == Some(long))
}

fn described(word: &str, help: Option<&clap::builder::StyledStr>) -> String {
    let text = help.map(ToString::to_string).unwrap_or_default();
    let line = text.lines().next().unwrap_or_default();
    if line.is_empty() { word.to_owned() } else { format!("{word}\t{line}") }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::super::Cli;
    use super::*;

    fn docker(args: &[&str]) -> Called {
        let program = "/usr/libexec/docker/cli-plugins/docker-skep";
        called(std::iter::once(program).chain(args.iter().copied()).map(OsString::from).collect())
    }

    fn by_docker(args: &[&str]) -> Vec<String> {
        match docker(args) {
            Called::ByDocker(args) => args[1..].iter().map(|a| a.to_string_lossy().into_owned()).collect(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn dockers_word_for_us_is_taken_out_wherever_it_stands() {
        assert_eq!(by_docker(&["skep", "ps"]), ["ps"]);
        assert_eq!(by_docker(&["--context", "skep", "skep", "ps"]), ["--context", "skep", "ps"]);
        assert_eq!(
            by_docker(&["-H=tcp://x", "-D", "skep", "ops", "show", "skep"])[2..],
            ["ops", "show", "skep"]
        );
        assert_eq!(by_docker(&["help", "skep"]), ["help"]);
        assert_eq!(by_docker(&["skep", "--help"]), ["--help"]);
        assert_eq!(by_docker(&["ps", "skep"]), ["ps", "skep"]);
    }

    #[test]
    fn under_its_own_name_nothing_is_taken_out() {
        let args: Vec<OsString> = ["skep", "skep", "ps"].map(OsString::from).into();
        assert_eq!(called(args.clone()), Called::Plainly(args));
    }

    #[test]
    fn docker_learns_what_this_is() {
        assert_eq!(docker(&[METADATA]), Called::ForMetadata);
        let metadata: serde_json::Value = serde_json::from_str(&metadata()).unwrap();
        assert_eq!(metadata["SchemaVersion"], "0.1.0");
        assert!(["Vendor", "Version", "ShortDescription"].iter().all(|k| metadata[k].is_string()));
    }

    #[test]
    fn shells_are_offered_commands_and_options() {
        let words = |args: &[&str]| match docker(args) {
            Called::ForCompletion(words) => completions(&Cli::command(), &words),
            other => panic!("{other:?}"),
        };
        assert!(words(&["__complete", "skep", "re"]).starts_with("release\t"));
        assert!(words(&["__complete", "skep", "re"]).contains("\nrestore\t"));
        assert!(words(&["__complete", "skep", "ops", "sh"]).starts_with("show\t"));
        assert!(words(&["__complete", "skep", "--output", "json", "ops", "app"]).starts_with("approve\t"));
        let options = words(&["__complete", "skep", "restore", "--"]);
        assert!(options.contains("--backup\t") && options.contains("--context\t") && options.ends_with(":4"));
        assert!(!options.contains("--tlskey"));
        assert_eq!(words(&["__complete", "skep", "check", ""]), ":0");
    }
}
