//! What a suite that failed leaves to read: how every task of the stage stood, what its services said last, and the journals.

use std::collections::BTreeMap;
use std::process::Command;

/// Tells what it sees when it is dropped by a panic, while everything still stands.
pub(super) struct Witness {
    environment: BTreeMap<String, String>,
    stack: String,
}

// === impl Witness ===

impl Witness {
    pub(super) fn of(environment: &BTreeMap<String, String>, stack: &str) -> Witness {
        Witness { environment: environment.clone(), stack: stack.to_owned() }
    }

    fn docker(&self, args: &[&str]) -> String {
        let mut command = Command::new("docker");
        let output = command.args(args).envs(&self.environment).env_remove("DOCKER_CONTEXT").output();
        output.map_or_else(
            |e| e.to_string(),
            |o| String::from_utf8_lossy(&[o.stdout, o.stderr].concat()).into(),
        )
    }

    fn tell(&self) {
        let namespace = format!("label=com.docker.stack.namespace={}", self.stack);
        let mut services = Vec::new();
        for filter in [namespace.as_str(), "label=skep.op"] {
            let list = self.docker(&["service", "ls", "--format", "{{.Name}}", "--filter", filter]);
            services.extend(list.lines().map(str::to_owned));
        }
        for service in &services {
            let columns = "{{.Name}} {{.Image}} {{.DesiredState}} {{.CurrentState}} {{.Error}}";
            let tasks = self.docker(&["service", "ps", "--no-trunc", "--format", columns, service]);
            let said = self.docker(&["service", "logs", "--raw", "--tail", "10", service]);
            eprintln!("--- tasks of {service}:\n{tasks}--- it said:\n{said}");
        }
        let operations = self.docker(&["config", "ls", "-q", "--filter", "label=skep.kind=operation"]);
        for id in operations.lines() {
            let journal = "{{.Spec.Name}}{{range $k, $v := .Spec.Labels}}\n  {{$k}} = {{$v}}{{end}}";
            eprintln!("--- {}", self.docker(&["config", "inspect", "--format", journal, id]));
        }
    }
}

impl Drop for Witness {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.tell();
        }
    }
}
