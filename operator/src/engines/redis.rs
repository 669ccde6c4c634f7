//! Redis (and Valkey): data of its own, or a cache beside a database.

use serde_json::Value;
use skep_runner::task::Connect;

use super::{Access, Given, NoAccess, Password, TEMPORARY_SECRET, argument, given, has_secret_at, password};

/// The port inside the container.
const PORT: u16 = 6379;
/// The option that sets a password.
const REQUIRED: &str = "--requirepass";

/// How to reach the server of a service.
///
/// # Errors
/// When the spec does not say where the password is.
pub fn access(service: &str, spec: &Value) -> Result<Access, NoAccess> {
    let (from, file) = login(spec)?;
    let port = argument(spec, "--port").and_then(|p| p.parse().ok()).unwrap_or(PORT);
    let connect =
        Connect { host: format!("tasks.{service}"), port, user: String::new(), password_file: file };
    Ok(Access { connect, password: from })
}

/// The password that the server asks for: what its command sets counts before what the environment may say.
fn login(spec: &Value) -> Result<(Password, Option<String>), NoAccess> {
    let temporary = || Some(format!("/run/secrets/{TEMPORARY_SECRET}"));
    match given(spec, REQUIRED) {
        Some(Given::Word(_)) => Ok((Password::Command { after: REQUIRED.to_owned() }, temporary())),
        Some(Given::Variable(variable)) => Ok((Password::Env { variable }, temporary())),
        Some(Given::File(path)) if has_secret_at(spec, &path) => Ok((Password::File, Some(path))),
        Some(Given::File(path)) => Err(NoAccess::NotASecret { variable: REQUIRED.to_owned(), path }),
        None => match password(spec, "REDIS_PASSWORD")? {
            (Password::Nowhere, None) => Ok((Password::Nowhere, configuration(spec))),
            found => Ok(found),
        },
    }
}

/// The server's own configuration file, where the command names one; a job finds it where it is in the image, a config
/// or a secret, and looks there for the password.
fn configuration(spec: &Value) -> Option<String> {
    let container = &spec["TaskTemplate"]["ContainerSpec"];
    let words = ["Command", "Args"].into_iter().filter_map(|key| container[key].as_array()).flatten();
    let mut words = words.filter_map(Value::as_str).flat_map(str::split_ascii_whitespace);
    words.find(|word| word.starts_with('/') && word.ends_with(skep_runner::REDIS_CONF)).map(str::to_owned)
}

/// Where the server has its files.
pub fn directory(spec: &Value) -> &str {
    argument(spec, "--dir").unwrap_or("/data")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn found(args: &[&str]) -> Result<(Password, Option<String>), NoAccess> {
        let spec = json!({"TaskTemplate": {"ContainerSpec": {
            "Args": args, "Env": ["REDIS_PASSWORD=x"], "Secrets": [{"File": {"Name": "pw"}}],
        }}});
        access("shop_cache", &spec).map(|access| (access.password, access.connect.password_file))
    }

    #[test]
    fn the_password_is_what_the_command_sets_else_what_the_environment_says() {
        let temporary = Some("/run/secrets/skep_password".to_owned());
        let env = |variable: &str| Password::Env { variable: variable.to_owned() };
        let command = Password::Command { after: "--requirepass".to_owned() };
        assert_eq!(found(&["redis-server", "--requirepass", "y"]), Ok((command.clone(), temporary.clone())));
        assert_eq!(found(&["sh", "-c", "redis-server --requirepass y"]), Ok((command, temporary.clone())));
        assert_eq!(
            found(&["sh", "-c", "redis-server --requirepass $PW"]),
            Ok((env("PW"), temporary.clone()))
        );
        assert_eq!(found(&["redis-server"]), Ok((env("REDIS_PASSWORD"), temporary)));
        let file = "redis-server --requirepass \"$(cat /run/secrets/pw)\"";
        assert_eq!(found(&["sh", "-c", file]), Ok((Password::File, Some("/run/secrets/pw".to_owned()))));
        assert!(found(&["sh", "-c", "redis-server --requirepass $(cat /etc/pw)"]).is_err());
    }

    #[test]
    fn a_configuration_file_is_where_a_job_looks_for_the_password() {
        let spec =
            json!({"TaskTemplate": {"ContainerSpec": {"Args": ["redis-server", "/etc/redis/redis.conf"]}}});
        let access = access("shop_cache", &spec).unwrap();
        assert_eq!(access.connect.password_file.as_deref(), Some("/etc/redis/redis.conf"));
        assert_eq!(access.password, Password::Nowhere);
    }
}
