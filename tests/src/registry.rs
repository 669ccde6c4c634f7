//! A real registry of images in the sandbox, on its loopback interface: the engine asks it without TLS there.

use std::time::Duration;

use crate::debian;
use crate::sandbox::{Sandbox, eventually, unique, unique_port};

/// A running registry, which forgets everything when it is removed.
pub struct Registry {
    sandbox: &'static Sandbox,
    container: String,
    port: u16,
}

// === impl Registry ===

impl Registry {
    /// Starts one, and waits until it answers.
    ///
    /// # Panics
    /// When it does not start.
    pub async fn start(sandbox: &'static Sandbox) -> Registry {
        let program = debian::program("docker-registry", "usr/bin/docker-registry");
        let program = program.canonicalize().expect("it is there");
        let (container, port) = (unique("registry"), unique_port());
        let mount = format!("{}:/registry:ro", program.display());
        let config = format!(
            "version: 0.1\nstorage: {{ inmemory: {{}} }}\nhttp: {{ addr: '127.0.0.1:{port}' }}\nlog: {{ level: warn }}\n"
        );
        let serve = format!(
            "printf '%s' '{}' >/tmp/config.yml && exec /registry serve /tmp/config.yml",
            config.replace('\'', "\"")
        );
        let run = ["run", "-d", "--name", &container, "--network", "host", "-v", &mount];
        let what = ["--entrypoint", "sh", "skep-test/nginx:1", "-c", &serve];
        sandbox.docker(&[&run[..], &what[..]].concat()).await;
        let registry = Registry { sandbox, container, port };
        eventually("the registry", Duration::from_secs(30), async || {
            let logs = sandbox.try_docker(&["logs", &registry.container]).await;
            let up = sandbox.try_docker(&["top", &registry.container]).await;
            let said = String::from_utf8_lossy(&logs.stderr).into_owned();
            if up.status.success() { Ok(()) } else { Err(said) }
        })
        .await;
        registry
    }

    /// A name of an image there.
    pub fn name(&self, image: &str) -> String {
        format!("127.0.0.1:{}/{image}", self.port)
    }

    /// Gives it an image that the engine has, under a tag that may have been another one's before.
    pub async fn push(&self, local: &str, image: &str) {
        let name = self.name(image);
        self.sandbox.docker(&["tag", local, &name]).await;
        eventually("the registry to take an image", Duration::from_secs(60), async || {
            let pushed = self.sandbox.try_docker(&["push", "-q", &name]).await;
            let said = String::from_utf8_lossy(&pushed.stderr).into_owned();
            if pushed.status.success() { Ok(()) } else { Err(said) }
        })
        .await;
    }

    /// Ends it, with all that it has.
    pub async fn remove(&self) {
        self.sandbox.docker(&["rm", "-f", &self.container]).await;
    }
}
