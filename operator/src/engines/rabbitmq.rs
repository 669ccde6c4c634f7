//! RabbitMQ as the official image configures it: a node is reached by its name, and by the cookie that it keeps.

use serde_json::{Value, json};
use skep_runner::DATA_PATH;
use skep_runner::task::Connect;

use super::found::mount_over;
use super::{Access, NoAccess, Password, TEMPORARY_SECRET, env, has_secret_at};

/// The port of the mapper that tells where a node listens.
const PORT: u16 = 4369;
/// What a node is called where only its host is said.
const PREFIX: &str = "rabbit";
/// Where the node has its cookie.
const COOKIE: &str = "/var/lib/rabbitmq/.erlang.cookie";
/// Where it keeps everything, messages among it, in a directory that bears its name.
const HOME: &str = "/var/lib/rabbitmq";
/// What sets the cookie instead.
const VARIABLE: &str = "RABBITMQ_ERLANG_COOKIE";

/// How to reach the node of a service, and the mount that a job needs for it.
///
/// # Errors
/// When the spec does not say what the node is called, or where its cookie is.
pub fn access(service: &str, spec: &Value) -> Result<(Access, Option<Value>), NoAccess> {
    let (password, file, mount) = cookie(spec)?;
    let connect = Connect {
        host: format!("tasks.{service}"),
        port: PORT,
        user: node(spec).ok_or(NoAccess::NoNodeName)?,
        password_file: Some(file),
    };
    Ok((Access { connect, password }, mount))
}

/// The node's full name. A host that Swarm fills in, or that is the container's id, is another one after a restart.
pub fn node(spec: &Value) -> Option<String> {
    let host = spec["TaskTemplate"]["ContainerSpec"]["Hostname"].as_str().filter(|host| !host.is_empty());
    let is_long = env(spec, "RABBITMQ_USE_LONGNAME").is_some_and(|text| text.eq_ignore_ascii_case("true"));
    let given = env(spec, "RABBITMQ_NODENAME").filter(|name| !name.is_empty());
    let name = match (given, host) {
        (Some(name), _) if name.contains('@') => name.to_owned(),
        (name, Some(host)) => {
            let host = if is_long { host } else { host.split('.').next().unwrap_or(host) };
            format!("{}@{host}", name.unwrap_or(PREFIX))
        }
        (_, None) => return None,
    };
    let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '@' | '.' | '-' | '_');
    (name.chars().all(is_plain) && !name.starts_with('-')).then_some(name)
}

/// Whether a mount holds what a node keeps.
pub fn is_home(mount: &Value) -> bool {
    let target = mount["Target"].as_str().unwrap_or_default().trim_end_matches('/');
    target.strip_prefix(HOME).is_some_and(|below| below.is_empty() || below.starts_with('/'))
}

fn cookie(spec: &Value) -> Result<(Password, String, Option<Value>), NoAccess> {
    if env(spec, VARIABLE).is_some() {
        let file = format!("/run/secrets/{TEMPORARY_SECRET}");
        return Ok((Password::Env { variable: VARIABLE.to_owned() }, file, None));
    }
    if has_secret_at(spec, COOKIE) {
        return Ok((Password::File, COOKIE.to_owned(), None));
    }
    let (mount, below) = mount_over(spec, COOKIE).ok_or(NoAccess::NoCookie { path: COOKIE })?;
    let mut mount = mount.clone();
    mount["Target"] = json!(DATA_PATH);
    Ok((Password::File, format!("{DATA_PATH}/{below}"), Some(mount)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(host: &str, env: &[&str]) -> Value {
        json!({"TaskTemplate": {"ContainerSpec": {"Hostname": host, "Env": env, "Mounts": [
            {"Type": "volume", "Source": "shop_mq", "Target": "/var/lib/rabbitmq"},
        ]}}})
    }

    #[test]
    fn a_node_is_called_as_its_host_or_its_environment_say_and_never_by_chance() {
        let name = |host: &str, env: &[&str]| node(&spec(host, env));
        assert_eq!(name("mq", &[]).as_deref(), Some("rabbit@mq"));
        assert_eq!(name("mq.example.org", &[]).as_deref(), Some("rabbit@mq"));
        let long = name("mq.example.org", &["RABBITMQ_USE_LONGNAME=true", "RABBITMQ_NODENAME=bunny"]);
        assert_eq!(long.as_deref(), Some("bunny@mq.example.org"));
        assert_eq!(name("", &["RABBITMQ_NODENAME=rabbit@localhost"]).as_deref(), Some("rabbit@localhost"));
        for unknown in [name("", &[]), name("", &["RABBITMQ_NODENAME=bunny"]), name("{{.Task.ID}}", &[])] {
            assert_eq!(unknown, None);
        }
    }

    #[test]
    fn what_a_node_keeps_is_at_its_home_or_below() {
        let is_home = |target: &str| is_home(&json!({"Type": "volume", "Source": "v", "Target": target}));
        assert!(
            ["/var/lib/rabbitmq", "/var/lib/rabbitmq/", "/var/lib/rabbitmq/mnesia"].into_iter().all(is_home)
        );
        assert!(!["/var/lib", "/var/lib/rabbitmq2", "/srv"].into_iter().any(is_home));
    }

    #[test]
    fn the_cookie_is_in_the_environment_in_a_secret_or_in_the_volume() {
        let (access, mount) = access("shop_mq", &spec("mq", &[])).unwrap();
        assert_eq!(access.connect.password_file.as_deref(), Some("/skep/data/.erlang.cookie"));
        assert_eq!(
            (access.connect.host.as_str(), access.connect.user.as_str()),
            ("tasks.shop_mq", "rabbit@mq")
        );
        assert_eq!(mount.unwrap()["Target"], "/skep/data");
        let (access, mount) = super::access("shop_mq", &spec("mq", &["RABBITMQ_ERLANG_COOKIE=x"])).unwrap();
        assert_eq!((access.password, mount), (Password::Env { variable: VARIABLE.to_owned() }, None));
        let mut with_secret = spec("mq", &[]);
        with_secret["TaskTemplate"]["ContainerSpec"]["Secrets"] = json!([{"File": {"Name": COOKIE}}]);
        let (access, mount) = super::access("shop_mq", &with_secret).unwrap();
        assert_eq!((access.connect.password_file.as_deref(), mount), (Some(COOKIE), None));
        let mut nowhere = spec("mq", &[]);
        nowhere["TaskTemplate"]["ContainerSpec"]["Mounts"] = json!([]);
        assert_eq!(super::access("shop_mq", &nowhere), Err(NoAccess::NoCookie { path: COOKIE }));
    }
}
