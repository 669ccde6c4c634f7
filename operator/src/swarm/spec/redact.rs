//! Specs as people may see them (S15): whatever looks like a secret is `***`.
//!
//! Redacted are environment values, label and option values whose names look secret, passwords inside URLs, arguments
//! of flags that look secret, and every other place where a value so found occurs again.

use std::sync::LazyLock;

use regex::{Captures, Regex};
use serde_json::Value;

use super::{env_entries, items, members};

/// What stands in the place of a secret.
const HIDDEN: &str = "***";
/// A secret that is shorter is not looked for elsewhere: it would also hit what is none.
const SHORTEST: usize = 6;

/// Parts of a name that make it secret wherever they stand in it.
const PARTS: [&str; 12] = [
    "password",
    "passwd",
    "passphrase",
    "secret",
    "token",
    "credential",
    "apikey",
    "privatekey",
    "basicauth",
    "requirepass",
    "masterauth",
    "erlangcookie",
];
/// Words of a name that make it secret.
const WORDS: [&str; 7] = ["pass", "pwd", "pw", "key", "auth", "dsn", "jwt"];

static URL_PASSWORD: LazyLock<Regex> = LazyLock::new(|| pattern(r"(://[^/\s:@]*:)[^/\s@]+@"));
static ASSIGNMENT: LazyLock<Regex> = LazyLock::new(|| {
    pattern(r#"(?P<name>[A-Za-z0-9_.-]+)(?P<gap>=|:\s*)(?P<value>"[^"]*"|'[^']*'|[^\s"']+)"#)
});
static FLAG: LazyLock<Regex> = LazyLock::new(|| {
    pattern(r#"(?P<name>-[A-Za-z0-9_.-]+)(?P<gap>\s+)(?P<value>"[^"]*"|'[^']*'|[^\s"'-][^\s"']*)"#)
});

/// Whether a value of that name is one to hide. The path of a file that holds a secret is none.
pub fn looks_secret(name: &str) -> bool {
    let lower = name.to_ascii_lowercase();
    if lower.ends_with("_file") || lower.ends_with("-file") {
        return false;
    }
    let joined: String = lower.chars().filter(char::is_ascii_alphanumeric).collect();
    PARTS.iter().any(|part| joined.contains(part))
        || lower.split(|c: char| !c.is_ascii_alphanumeric()).any(|word| WORDS.contains(&word))
}

/// Whether an entry `NAME=value` of an environment is one to hide, by its name or because its value is a URL with a
/// password.
pub(super) fn is_secret_entry(entry: &str) -> bool {
    let (name, value) = entry.split_once('=').unwrap_or((entry, ""));
    looks_secret(name) || URL_PASSWORD.is_match(value)
}

/// The spec without its secrets, for logs, manifests, differences and pages.
#[must_use]
pub fn redacted(spec: &Value) -> Value {
    let known = known_secrets(spec);
    hide("", spec, &known)
}

/// Values that are secret by their name: they are hidden wherever they occur.
fn known_secrets(spec: &Value) -> Vec<String> {
    let env = env_entries(spec).into_iter().filter(|(name, _)| looks_secret(name));
    let mut known: Vec<String> = env.map(|(_, value)| value.to_owned()).collect();
    known.retain(|value| value.len() >= SHORTEST);
    // The longest first: one may be part of another.
    known.sort_by_key(|value| std::cmp::Reverse(value.len()));
    known
}

fn hide(key: &str, value: &Value, known: &[String]) -> Value {
    match value {
        Value::String(text) => Value::String(hide_in_text(text, known)),
        Value::Array(_) => Value::Array(hide_in_list(key, items(value), known)),
        Value::Object(_) => members(value).map(|(k, v)| (k.clone(), hide_member(key, k, v, known))).collect(),
        Value::Null | Value::Bool(_) | Value::Number(_) => value.clone(),
    }
}

/// Only maps of names that people chose hold secrets by name; `SecretName` is no secret.
fn hide_member(map: &str, key: &str, value: &Value, known: &[String]) -> Value {
    let chosen = matches!(map, "Labels" | "Options" | "Sysctls" | "DriverOpts");
    if chosen && looks_secret(key) && !key.starts_with("skep.") && value.is_string() {
        return HIDDEN.into();
    }
    hide(key, value, known)
}

fn hide_in_list(key: &str, list: &[Value], known: &[String]) -> Vec<Value> {
    let mut hidden = Vec::with_capacity(list.len());
    let mut after_flag = false;
    for value in list {
        let Some(text) = value.as_str() else {
            hidden.push(hide(key, value, known));
            continue;
        };
        let text = match (key, text.split_once('=')) {
            ("Env", Some((name, _))) if looks_secret(name) => format!("{name}={HIDDEN}"),
            ("Command" | "Args", Some((flag, _))) if flag.starts_with('-') && looks_secret(flag) => {
                format!("{flag}={HIDDEN}")
            }
            ("Command" | "Args" | "Test", _) if after_flag => HIDDEN.to_owned(),
            ("Command" | "Args" | "Test", _) => hide_assignments(&hide_in_text(text, known)),
            _ => hide_in_text(text, known),
        };
        after_flag =
            value.as_str().is_some_and(|t| t.starts_with('-') && !t.contains('=') && looks_secret(t));
        hidden.push(Value::String(text));
    }
    hidden
}

fn hide_in_text(text: &str, known: &[String]) -> String {
    let mut text = URL_PASSWORD.replace_all(text, format!("${{1}}{HIDDEN}@")).into_owned();
    for secret in known {
        if text.contains(secret.as_str()) {
            text = text.replace(secret.as_str(), HIDDEN);
        }
    }
    text
}

/// Hides the values of `NAME=value` and `--name value` inside of a shell command.
fn hide_assignments(text: &str) -> String {
    let replace = |found: &Captures<'_>| {
        let (name, gap) = (&found["name"], &found["gap"]);
        if looks_secret(name) { format!("{name}{gap}{HIDDEN}") } else { found[0].to_owned() }
    };
    let text = ASSIGNMENT.replace_all(text, replace);
    FLAG.replace_all(&text, replace).into_owned()
}

fn pattern(text: &str) -> Regex {
    Regex::new(text).expect("the pattern is a constant that a test compiles")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn redacted_container(container: &Value) -> Value {
        redacted(&json!({"TaskTemplate": {"ContainerSpec": container}}))["TaskTemplate"]["ContainerSpec"]
            .clone()
    }

    #[test]
    fn names_that_look_secret_do_and_others_do_not() {
        for name in [
            "POSTGRES_PASSWORD",
            "API_TOKEN",
            "AWS_SECRET_ACCESS_KEY",
            "apiKey",
            "DB_PASS",
            "PGPASSWORD",
            "SENTRY_DSN",
            "RABBITMQ_ERLANG_COOKIE",
        ] {
            assert!(looks_secret(name), "{name}");
        }
        for name in
            ["POSTGRES_USER", "PGDATA", "POSTGRES_PASSWORD_FILE", "MONKEY", "AUTHOR", "KEYBOARD", "PATH"]
        {
            assert!(!looks_secret(name), "{name}");
        }
    }

    #[test]
    fn secret_environment_values_are_hidden_and_paths_of_secrets_are_not() {
        let seen = redacted_container(
            &json!({"Env": ["POSTGRES_PASSWORD=hunter22", "POSTGRES_PASSWORD_FILE=/run/secrets/pw", "A=b"]}),
        );
        assert_eq!(
            seen["Env"],
            json!(["POSTGRES_PASSWORD=***", "POSTGRES_PASSWORD_FILE=/run/secrets/pw", "A=b"])
        );
    }

    #[test]
    fn a_password_inside_a_url_is_hidden() {
        let seen =
            redacted_container(&json!({"Env": ["DATABASE_URL=postgres://shop:hunter22@db:5432/shop?x=y"]}));
        assert_eq!(seen["Env"], json!(["DATABASE_URL=postgres://shop:***@db:5432/shop?x=y"]));
    }

    #[test]
    fn arguments_after_secret_flags_are_hidden() {
        let seen = redacted_container(
            &json!({"Args": ["redis-server", "--requirepass", "hunter22", "--token=abc", "--port", "6379"]}),
        );
        assert_eq!(
            seen["Args"],
            json!(["redis-server", "--requirepass", "***", "--token=***", "--port", "6379"])
        );
    }

    #[test]
    fn assignments_inside_of_shell_commands_are_hidden() {
        let command =
            json!({"Command": ["sh", "-c", "PGPASSWORD='top secret' psql --user shop --password x1"]});
        assert_eq!(
            redacted_container(&command)["Command"][2],
            "PGPASSWORD=*** psql --user shop --password ***"
        );
    }

    #[test]
    fn a_secret_found_by_name_is_hidden_wherever_it_occurs() {
        let seen = redacted_container(&json!({
            "Env": ["REDIS_PASSWORD=hunter22"],
            "Healthcheck": {"Test": ["CMD-SHELL", "redis-cli -a hunter22 ping"]}
        }));
        assert_eq!(seen["Healthcheck"]["Test"], json!(["CMD-SHELL", "redis-cli -a *** ping"]));
    }

    #[test]
    fn labels_with_secret_names_are_hidden_and_the_names_of_secrets_are_not() {
        let spec = json!({
            "Labels": {"traefik.http.middlewares.a.basicauth.users": "admin:$apr1$x", "skep.enable": "true"},
            "TaskTemplate": {
                "LogDriver": {"Name": "splunk", "Options": {"splunk-token": "t0ken"}},
                "ContainerSpec": {"Secrets": [{"SecretID": "s", "SecretName": "db_password", "File": {"Name": "db_password"}}]}
            }
        });
        let seen = redacted(&spec);
        assert_eq!(
            seen["Labels"],
            json!({"traefik.http.middlewares.a.basicauth.users": "***", "skep.enable": "true"})
        );
        assert_eq!(seen["TaskTemplate"]["LogDriver"]["Options"]["splunk-token"], "***");
        assert_eq!(
            seen["TaskTemplate"]["ContainerSpec"]["Secrets"],
            spec["TaskTemplate"]["ContainerSpec"]["Secrets"]
        );
    }

    #[test]
    fn a_spec_without_secrets_is_shown_whole() {
        let spec = json!({"Name": "a", "TaskTemplate": {"ContainerSpec": {"Image": "x", "Args": ["-c", "max_connections=10"]}}});
        assert_eq!(redacted(&spec), spec);
    }
}
