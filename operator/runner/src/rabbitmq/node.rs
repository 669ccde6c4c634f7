//! A running node, asked through its own `rabbitmqctl` with its cookie.

use std::net::{IpAddr, Ipv4Addr};
use std::process::Command;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;

use crate::error::{Error, Result};
use crate::home::Home;
use crate::job::{Job, read_secret};
use crate::net;
use crate::task::Connect;
use crate::tool;

const TOOL: &str = "rabbitmqctl";
pub(super) const COOKIE: &str = ".erlang.cookie";

/// What the names of variables begin with that a node or Erlang heeds. Where the programs are, `RABBITMQ_HOME` may tell.
const HEEDED: [&str; 2] = ["RABBITMQ_", "ERL_"];

/// A node, and a home for the programs that speak to it.
pub(super) struct Node {
    name: String,
    home: Home,
    surroundings: Surroundings,
}

/// What of the job's environment the programs get that speak to a node.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Surroundings {
    /// The service's: its node may be reached by other ports.
    Services,
    /// Nothing that a node or Erlang would heed.
    None,
}

// === impl Node ===

impl Node {
    /// The node whose name is the user of `connect`: a node is reached by the host in its name alone, so that this host
    /// is said to be where the service's task is, whatever the network says.
    pub(super) fn reach(job: &Job, connect: &Connect) -> Result<Node> {
        let Connect { host, port, user: name, password_file } = connect;
        let path =
            password_file.as_deref().ok_or_else(|| Error::refused("there is no cookie to reach it with"))?;
        let cookie = read_secret(path)?;
        job.out.keep_back(&cookie);
        let addresses = net::resolve(host, *port).map_err(Error::io(format!("{host} does not resolve")))?;
        let address = addresses.first().ok_or_else(|| Error::Unready(format!("{host} has no address")))?;
        let named = name.split_once('@').map(|(_, host)| host);
        let named = named.ok_or_else(|| Error::refused(format!("`{name}` is not the name of a node")))?;
        let home = Home::make()?;
        home.write(COOKIE, cookie.trim().as_bytes())?;
        home.write("inetrc", hosts(named, address.ip()).as_bytes())?;
        Ok(Node { name: name.clone(), home, surroundings: Surroundings::Services })
    }

    /// A node of the job's own on the loopback interface, whose cookie is in `home` before it starts.
    pub(super) fn alone(name: &str, home: Home) -> Result<Node> {
        let host = name.rsplit('@').next().unwrap_or_default();
        home.write("inetrc", hosts(host, Ipv4Addr::LOCALHOST.into()).as_bytes())?;
        Ok(Node { name: name.to_owned(), home, surroundings: Surroundings::None })
    }

    /// Where its programs, and it itself where it is the job's own, have their files.
    pub(super) fn home(&self) -> &Home {
        &self.home
    }

    /// Waits until it has started, as far as it can be asked.
    pub(super) fn is_up(&self) -> Result<bool> {
        let mut command = self.command(&["await_startup", "--timeout", "60"]);
        match tool::output_of(&mut command).map_err(told) {
            Ok(_) => Ok(true),
            // The next look, or the end of the node, tells.
            Err(Error::Tool { .. } | Error::Unready(_) | Error::Barred(_)) => Ok(false),
            Err(other) => Err(other),
        }
    }

    /// What an expression comes to that ends in base64, decoded; `given` is the JSON that it finds as `Given`.
    pub(super) fn eval(&self, text: &str, given: Option<&str>) -> Result<Vec<u8>> {
        let given = given.map(|json| {
            let json = BASE64.encode(json);
            format!("Given = rabbit_json:decode(base64:decode(<<\"{json}\">>)),\n")
        });
        let path = self.home.write("eval.erl", (given.unwrap_or_default() + text).as_bytes())?;
        let mut command = self.command(&["eval_file"]);
        let printed = tool::output_of(command.arg(path)).map_err(told)?;
        unbase64(&printed)
            .ok_or_else(|| Error::refused("rabbitmqctl printed something else than was asked for"))
    }

    /// Hands definitions to it, all or none of whose parts it may take.
    pub(super) fn import(&self, definitions: &[u8]) -> Result<()> {
        let path = self.home.write("import.json", definitions)?;
        tool::output_of(self.command(&["import_definitions"]).arg(path)).map(drop).map_err(told)
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(TOOL);
        if self.surroundings == Surroundings::None {
            without_surroundings(&mut command);
        }
        command.args(["-q", "-n", &self.name]);
        if self.name.contains('.') {
            command.arg("-l");
        }
        command.args(args);
        let home = self.home.path();
        command.env("HOME", home).env("ERL_INETRC", home.join("inetrc")).env("LC_ALL", "C.UTF-8");
        for variable in ["RABBITMQ_ERLANG_COOKIE", "RABBITMQ_CTL_ERL_ARGS"] {
            command.env_remove(variable);
        }
        command.current_dir(home);
        command
    }
}

/// Takes away whatever of the job's environment a node of RabbitMQ, its tools or Erlang would heed.
pub(super) fn without_surroundings(command: &mut Command) {
    for (variable, _) in std::env::vars_os() {
        let is_heeded = variable.to_str().is_some_and(|name| {
            HEEDED.iter().any(|prefix| name.starts_with(prefix)) && name != "RABBITMQ_HOME"
        });
        if is_heeded {
            command.env_remove(variable);
        }
    }
}

/// Where the host in the node's name is, as Erlang reads it.
fn hosts(name: &str, address: IpAddr) -> String {
    let parts: Vec<String> = match address {
        IpAddr::V4(address) => address.octets().iter().map(u8::to_string).collect(),
        IpAddr::V6(address) => address.segments().iter().map(u16::to_string).collect(),
    };
    format!("{{host, {{{}}}, [\"{name}\"]}}.\n{{lookup, [file, native]}}.\n", parts.join(","))
}

/// What the tool says of a node that it cannot reach is a page of advice, and a hash of the cookie.
fn told(error: Error) -> Error {
    let Error::Tool { tool, status, said } = error else { return error };
    if said.contains("Erlang distribution failed") {
        return Error::Barred(
            "the node refuses its own rabbitmqctl: the cookie is another one, it speaks TLS between nodes, or it has another name than its service says".to_owned(),
        );
    }
    if said.contains("unable to connect") || said.contains("attempted to contact") {
        return Error::Unready("the node cannot be reached: it is down, or still starting".to_owned());
    }
    let lines = said.split("; ").filter(|line| !line.contains("cookie") && !line.trim().is_empty());
    Error::Tool { tool, status, said: lines.collect::<Vec<_>>().join("; ") }
}

/// The bytes of the only base64 in `<<"…">>`, which the shell breaks into several pieces where it is long.
fn unbase64(printed: &str) -> Option<Vec<u8>> {
    let inner = printed.trim().strip_prefix("<<")?.strip_suffix(">>")?;
    let coded: Vec<u8> = inner.bytes().filter(|byte| !byte.is_ascii_whitespace() && *byte != b'"').collect();
    BASE64.decode(coded).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_in_base64_is_read_back_whatever_its_length_and_however_it_is_broken() {
        for text in ["", "a", "ab", "abc", "{\"ä\":[1,2]}"] {
            let coded = BASE64.encode(text);
            assert_eq!(unbase64(&format!("<<\"{coded}\">>")).unwrap(), text.as_bytes(), "{coded}");
        }
        assert_eq!(BASE64.encode(b"any carnal pleas"), "YW55IGNhcm5hbCBwbGVhcw==");
        assert_eq!(unbase64("<<\"YW55\"\n  \"IGNh\">>").unwrap(), b"any ca");
        for wrong in ["{error,undef}", "<<\"a-b\">>", "<<\"Y\">>", ""] {
            assert_eq!(unbase64(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn the_host_in_a_nodes_name_is_said_to_be_where_its_task_is() {
        assert_eq!(hosts("mq", [10, 0, 1, 7].into()).lines().next(), Some("{host, {10,0,1,7}, [\"mq\"]}."));
    }

    #[test]
    fn what_the_tool_says_of_a_node_tells_what_to_do_and_shows_no_hash_of_the_cookie() {
        let error = |said: &str| {
            told(Error::Tool { tool: TOOL.into(), status: "exit status: 69".into(), said: said.into() })
        };
        let down =
            "attempted to contact: [rabbit@mq];  * unable to connect to epmd (port 4369) on mq: nxdomain";
        assert!(matches!(error(down), Error::Unready(_)));
        let cookie =
            "TCP connection succeeded but Erlang distribution failed;  * Erlang cookie hash: iQWNQTX";
        assert!(matches!(error(cookie), Error::Barred(_)));
        let other = error("Error:; Validation failed;  * Erlang cookie hash: iQWNQTX").chain();
        assert!(other.contains("Validation failed") && !other.contains("iQWN"), "{other}");
    }
}
