//! A node of the job's own: begun empty from the image's programs, with a name, a cookie and files of its own, on the
//! loopback interface, without the service's settings and plugins.
//!
//! Invariants: it takes no connections from anywhere else, joins no cluster, and ends with the job.

use std::io::Read as _;
use std::process::{Command, Stdio};
use std::time::Duration;

use super::node::{COOKIE, Node, without_surroundings};
use crate::error::{Error, Result};
use crate::home::Home;
use crate::job::Job;
use crate::stop;
use crate::tool::Tool;

const SERVER: &str = "rabbitmq-server";
/// Its name: nobody else's, and at a host that is the job's container.
const NAME: &str = "skep-drill@localhost";
/// How long it may take to start.
const START: Duration = Duration::from_secs(300);
/// Instead of the service's settings: no listener for clients.
const SETTINGS: &str = "listeners.tcp = none\n";
/// Random bytes of its cookie.
const COOKIE_BYTES: usize = 32;

/// The node. Dropped, it ends; its files go then too.
pub(super) struct Scratch {
    // Before the node, whose home is what it runs in.
    _server: Tool,
    node: Node,
}

// === impl Scratch ===

impl Scratch {
    /// Starts it with these plugins and no others, and waits until it has.
    pub(super) fn start(job: &Job, plugins: &[&str]) -> Result<Scratch> {
        let home = Home::make_on_disk()?;
        home.write(COOKIE, cookie()?.as_bytes())?;
        let node = Node::alone(NAME, home)?;
        let mut command = server(node.home(), plugins)?;
        let mut server = Tool::start(command.stdin(Stdio::null()).stdout(Stdio::null()))?;
        job.out.progress("a scratch node", 0, None);
        let late = || Error::Barred(format!("the scratch node has not started within {} s", START.as_secs()));
        stop::until(START, late, || {
            if server.has_ended()? {
                let (status, said) = server.end()?;
                let said = Vec::from(said).join("; ");
                // Whatever it is, no backup has been near it.
                return Err(Error::Barred(format!(
                    "a scratch node does not start in this image ({status}): {said}"
                )));
            }
            node.is_up()
        })?;
        Ok(Scratch { _server: server, node })
    }

    /// How to ask it.
    pub(super) fn node(&self) -> &Node {
        &self.node
    }
}

/// The command that starts it. Every file that a node looks for by itself has its place here.
fn server(home: &Home, plugins: &[&str]) -> Result<Command> {
    let mut command = Command::new(SERVER);
    without_surroundings(&mut command);
    let files = [
        ("RABBITMQ_CONF_ENV_FILE", "env.conf", String::new()),
        ("RABBITMQ_CONFIG_FILE", "node.conf", SETTINGS.to_owned()),
        ("RABBITMQ_ADVANCED_CONFIG_FILE", "advanced.config", "[].\n".to_owned()),
        ("RABBITMQ_ENABLED_PLUGINS_FILE", "plugins", format!("[{}].\n", plugins.join(","))),
    ];
    for (variable, name, text) in files {
        command.env(variable, home.write(name, text.as_bytes())?);
    }
    let places = [
        ("HOME", "."),
        ("RABBITMQ_CONFIG_FILES", "conf.d"),
        ("RABBITMQ_MNESIA_BASE", "data"),
        ("RABBITMQ_LOG_BASE", "log"),
        ("RABBITMQ_SCHEMA_DIR", "schema"),
        ("RABBITMQ_GENERATED_CONFIG_DIR", "settings"),
        ("RABBITMQ_PLUGINS_EXPAND_DIR", "expanded"),
        ("RABBITMQ_PID_FILE", "pid"),
        ("ERL_INETRC", "inetrc"),
    ];
    for (variable, name) in places {
        command.env(variable, home.path().join(name));
    }
    let words = [
        ("RABBITMQ_NODENAME", NAME),
        ("RABBITMQ_USE_LONGNAME", "false"),
        ("RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS", "-kernel inet_dist_use_interface {127,0,0,1}"),
        ("ERL_EPMD_ADDRESS", "127.0.0.1"),
        ("ERL_CRASH_DUMP", "/dev/null"),
        ("LC_ALL", "C.UTF-8"),
    ];
    command.envs(words).current_dir(home.path());
    Ok(command)
}

/// A new secret.
fn cookie() -> Result<String> {
    let cannot = || Error::io("cannot make a cookie");
    let mut bytes = [0_u8; COOKIE_BYTES];
    let mut source = std::fs::File::open("/dev/urandom").map_err(cannot())?;
    source.read_exact(&mut bytes).map_err(cannot())?;
    Ok(bytes.iter().map(|byte| format!("{byte:02X}")).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scratch_node_finds_nothing_of_the_services_and_no_two_have_one_cookie() {
        let home = Home::make_on_disk().unwrap();
        let command = server(&home, &["rabbitmq_random_exchange"]).unwrap();
        let set = |name: &str| command.get_envs().find(|(key, _)| *key == name).and_then(|(_, value)| value);
        assert_eq!(set("RABBITMQ_NODENAME").unwrap(), NAME);
        for (name, value) in command.get_envs() {
            let text = value.map(|value| value.to_string_lossy().into_owned()).unwrap_or_default();
            let is_own = !text.starts_with('/')
                || text == "/dev/null"
                || text.starts_with(&*home.path().to_string_lossy());
            assert!(is_own, "{name:?}={text}");
        }
        let plugins = std::fs::read_to_string(home.path().join("plugins")).unwrap();
        assert_eq!(plugins, "[rabbitmq_random_exchange].\n");
        assert_ne!(cookie().unwrap(), cookie().unwrap());
        assert_eq!(cookie().unwrap().len(), 2 * COOKIE_BYTES);
    }
}
