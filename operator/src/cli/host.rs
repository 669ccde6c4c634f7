//! Which engine to talk to, found as the docker command finds it.
//!
//! ```text
//! --context │ --host │ DOCKER_HOST │ DOCKER_CONTEXT │ currentContext of config.json │ unix:///var/run/docker.sock
//! ```

use std::path::{Path, PathBuf};

use serde_json::Value;
use sha2::{Digest, Sha256};
use thiserror::Error;

use super::ssh::{self, Destination};
use crate::swarm::transport::Endpoint;

/// The engine's socket where nothing says otherwise.
const SOCKET: &str = "unix:///var/run/docker.sock";

/// Options of the docker command, which it also passes to its plugins.
#[derive(Clone, Debug, Default, clap::Args)]
#[command(next_help_heading = "Engine")]
pub struct HostArgs {
    /// The engine: `unix:///path`, `tcp://host:port` or `ssh://[user@]host[:port]`.
    #[arg(short = 'H', long, global = true, value_name = "URL", hide_short_help = true)]
    pub host: Option<String>,
    /// A context of the docker command.
    #[arg(short = 'c', long, global = true, value_name = "NAME", hide_short_help = true)]
    pub context: Option<String>,
    /// Directory of the docker command's configuration.
    #[arg(long, global = true, value_name = "DIR", hide_short_help = true)]
    pub config: Option<PathBuf>,
    /// Say on stderr what is done.
    #[arg(short = 'D', long, global = true, hide_short_help = true)]
    pub debug: bool,
    #[arg(short = 'l', long, global = true, hide = true)]
    log_level: Option<String>,
    #[arg(long, global = true, hide = true)]
    tls: bool,
    #[arg(long, global = true, hide = true)]
    tlsverify: bool,
    #[arg(long, global = true, hide = true)]
    tlscacert: Option<String>,
    #[arg(long, global = true, hide = true)]
    tlscert: Option<String>,
    #[arg(long, global = true, hide = true)]
    tlskey: Option<String>,
}

/// An engine that cannot be found.
#[derive(Debug, Error)]
pub enum HostError {
    /// Two answers to one question.
    #[error("--host and --context contradict each other; give one of them")]
    Both,
    /// There is no such context.
    #[error("there is no context `{name}` (looked for `{}`)", path.display())]
    NoContext {
        /// Its name.
        name: String,
        /// Its file.
        path: PathBuf,
    },
    /// A file that does not hold what it should.
    #[error("`{}` cannot be understood", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
    },
    /// An address of no kind that is known.
    #[error("`{0}` is no engine: want `unix:///path`, `tcp://host:port` or `ssh://[user@]host[:port]`")]
    Address(String),
    /// TLS.
    #[error("{0} asks for TLS, which is not supported yet; use ssh:// or the socket of a manager")]
    Tls(String),
}

// === impl HostArgs ===

impl HostArgs {
    /// The engine. `env` gives variables of the environment.
    ///
    /// # Errors
    /// When what is configured contradicts itself, does not exist or is not supported.
    pub fn endpoint(&self, env: &dyn Fn(&str) -> Option<String>) -> Result<Endpoint, HostError> {
        let env = |name: &str| env(name).filter(|v| !v.is_empty());
        if self.host.is_some() && self.context.is_some() {
            return Err(HostError::Both);
        }
        if let Some(name) = &self.context {
            return self.of_context(name, &env);
        }
        if let Some(host) = self.host.clone().or_else(|| env("DOCKER_HOST")) {
            return self.address(&host, &env);
        }
        match env("DOCKER_CONTEXT").map(Ok).or_else(|| self.current(&env)) {
            Some(name) => self.of_context(&name?, &env),
            None => self.address(SOCKET, &env),
        }
    }

    fn of_context(&self, name: &str, env: &dyn Fn(&str) -> Option<String>) -> Result<Endpoint, HostError> {
        if name == "default" {
            return self.address(&env("DOCKER_HOST").unwrap_or_else(|| SOCKET.to_owned()), env);
        }
        let (dir, hash) = (self.dir(env), hex(&Sha256::digest(name.as_bytes())));
        let path = dir.join("contexts/meta").join(&hash).join("meta.json");
        let text = std::fs::read_to_string(&path)
            .map_err(|_| HostError::NoContext { name: name.to_owned(), path: path.clone() })?;
        let meta = json(&text, &path)?;
        let host = meta["Endpoints"]["docker"]["Host"].as_str().unwrap_or(SOCKET);
        if dir.join("contexts/tls").join(&hash).join("docker").is_dir() {
            return Err(HostError::Tls(format!("context `{name}`")));
        }
        self.address(host, env)
    }

    /// The context of `docker context use`.
    fn current(&self, env: &dyn Fn(&str) -> Option<String>) -> Option<Result<String, HostError>> {
        let path = self.dir(env).join("config.json");
        let text = std::fs::read_to_string(&path).ok()?;
        let config = match json(&text, &path) {
            Ok(config) => config,
            Err(error) => return Some(Err(error)),
        };
        config["currentContext"].as_str().filter(|name| !name.is_empty()).map(|name| Ok(name.to_owned()))
    }

    fn dir(&self, env: &dyn Fn(&str) -> Option<String>) -> PathBuf {
        let home = || PathBuf::from(env("HOME").unwrap_or_else(|| "/".to_owned())).join(".docker");
        self.config.clone().or_else(|| env("DOCKER_CONFIG").map(PathBuf::from)).unwrap_or_else(home)
    }

    fn address(&self, host: &str, env: &dyn Fn(&str) -> Option<String>) -> Result<Endpoint, HostError> {
        if host.starts_with("ssh://") {
            let destination = Destination::parse(host).ok_or_else(|| HostError::Address(host.to_owned()))?;
            return Ok(ssh::endpoint(destination));
        }
        let endpoint = Endpoint::parse(host).ok_or_else(|| HostError::Address(host.to_owned()))?;
        let tls = self.tls || self.tlsverify || self.tlscacert.is_some() || self.tlscert.is_some();
        let asked = tls || self.tlskey.is_some() || env("DOCKER_TLS_VERIFY").is_some();
        match endpoint {
            Endpoint::Tcp(_) if asked => Err(HostError::Tls(format!("`{host}`"))),
            Endpoint::Tcp(_) | Endpoint::Unix(_) | Endpoint::InProcess(_) => Ok(endpoint),
        }
    }
}

fn json(text: &str, path: &Path) -> Result<Value, HostError> {
    serde_json::from_str(text).map_err(|_| HostError::Unreadable { path: path.to_owned() })
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A configuration directory with contexts, gone with its owner.
    struct Dir(PathBuf);

    impl Dir {
        fn new(name: &str, config: &str, contexts: &[(&str, &str)]) -> Dir {
            let dir = std::env::temp_dir().join(format!("skep-host-{}-{name}", std::process::id()));
            for (context, host) in contexts {
                let hash = hex(&Sha256::digest(context.as_bytes()));
                let meta = dir.join("contexts/meta").join(hash);
                std::fs::create_dir_all(&meta).unwrap();
                let json =
                    serde_json::json!({ "Name": context, "Endpoints": { "docker": { "Host": host } } });
                std::fs::write(meta.join("meta.json"), json.to_string()).unwrap();
            }
            std::fs::create_dir_all(&dir).unwrap();
            std::fs::write(dir.join("config.json"), config).unwrap();
            Dir(dir)
        }

        fn ask(&self, args: &HostArgs, env: &[(&str, &str)]) -> Result<String, String> {
            let args = HostArgs { config: Some(self.0.clone()), ..args.clone() };
            let env = |name: &str| env.iter().find(|(k, _)| *k == name).map(|(_, v)| (*v).to_owned());
            args.endpoint(&env).map(|e| e.to_string()).map_err(|e| e.to_string())
        }
    }

    impl Drop for Dir {
        fn drop(&mut self) {
            drop(std::fs::remove_dir_all(&self.0));
        }
    }

    fn host(host: &str) -> HostArgs {
        HostArgs { host: Some(host.to_owned()), ..HostArgs::default() }
    }

    fn context(name: &str) -> HostArgs {
        HostArgs { context: Some(name.to_owned()), ..HostArgs::default() }
    }

    #[test]
    fn the_engine_is_found_in_the_order_of_the_docker_command() {
        let contexts = [("far", "tcp://far:2375"), ("near", "unix:///run/near.sock")];
        let dir = Dir::new("order", r#"{"currentContext": "near"}"#, &contexts);
        let env = [("DOCKER_HOST", "tcp://env:2375"), ("DOCKER_CONTEXT", "far")];
        let none = HostArgs::default();
        assert_eq!(dir.ask(&context("far"), &env).unwrap(), "tcp://far:2375");
        assert_eq!(dir.ask(&host("tcp://given:1"), &env).unwrap(), "tcp://given:1");
        assert_eq!(dir.ask(&none, &env).unwrap(), "tcp://env:2375");
        assert_eq!(dir.ask(&none, &env[1..]).unwrap(), "tcp://far:2375");
        assert_eq!(dir.ask(&none, &[]).unwrap(), "unix:///run/near.sock");
        assert_eq!(dir.ask(&context("default"), &[]).unwrap(), SOCKET);
        assert_eq!(dir.ask(&none, &[("DOCKER_HOST", "")]).unwrap(), "unix:///run/near.sock");
    }

    #[test]
    fn without_any_configuration_it_is_the_local_socket() {
        let dir = Dir::new("plain", "{}", &[]);
        assert_eq!(dir.ask(&HostArgs::default(), &[]).unwrap(), SOCKET);
    }

    #[test]
    fn what_cannot_work_is_said() {
        let dir = Dir::new("wrong", "{", &[("far", "tcp://far:2376")]);
        let both = HostArgs { context: Some("far".to_owned()), ..host("tcp://x:1") };
        let tls = HostArgs { tlsverify: true, ..host("tcp://x:2376") };
        for (args, env, said) in [
            (both, None, "contradict"),
            (context("nowhere"), None, "there is no context `nowhere`"),
            (HostArgs::default(), None, "config.json` cannot be understood"),
            (host("docker.example.org"), None, "is no engine"),
            (host("ssh://"), None, "is no engine"),
            (tls, None, "TLS"),
            (context("far"), Some(("DOCKER_TLS_VERIFY", "1")), "TLS"),
        ] {
            let env: Vec<_> = env.into_iter().collect();
            let error = dir.ask(&args, &env).unwrap_err();
            assert!(error.contains(said), "{error}");
        }
        let hash = hex(&Sha256::digest(b"far"));
        std::fs::create_dir_all(dir.0.join("contexts/tls").join(hash).join("docker")).unwrap();
        assert!(dir.ask(&context("far"), &[]).unwrap_err().contains("context `far` asks for TLS"));
    }
}
