//! The spec of a job: an allow-list (S14).

use serde_json::{Value, json};
use skep_runner::{RUNNER_PATH, TICKET_PATH};

use super::{JOB, JobSpec, OwnSpec, Reach, SecretFile};
use crate::swarm::object::{Labels, OP, ObjectRef};
use crate::swarm::spec::{self, FileKind, FileRef};

/// Everybody may read and execute it, nobody may write it.
const EXECUTABLE: u32 = 0o555;
/// Everybody in the container may read it.
const READABLE: u32 = 0o444;
/// Time between SIGTERM and SIGKILL, in nanoseconds.
const GRACE: u64 = 10_000_000_000;

/// The service spec of a job.
pub fn build(job: &JobSpec<'_>) -> Value {
    let mut container = json!({
        "Image": job.image,
        "Command": [RUNNER_PATH, "task"],
        "Env": spec::env_without_secrets(&job.service.spec),
        "Labels": labels_of_container(job.name, &job.labels),
        "Mounts": job.mounts,
        "Configs": configs(job),
        "Secrets": secrets(job),
        "Healthcheck": {"Test": ["NONE"]},
        "StopGracePeriod": GRACE,
        // The runner starts tools: somebody must bury what they leave behind and pass signals on.
        "Init": true,
    });
    let of_service = &job.service.spec["TaskTemplate"]["ContainerSpec"];
    for key in ["User", "Groups"] {
        if let Some(value) = of_service.get(key) {
            container[key] = value.clone();
        }
    }
    if let Some(user) = job.user {
        container["User"] = json!(user);
    }
    service(job.name, &job.labels, &container, &constraints(job), &networks(job))
}

/// The service spec of a job in Skep's own image, which begins with its program.
pub fn build_own(job: &OwnSpec<'_>) -> Value {
    let ticket = ObjectRef { id: job.ticket.to_owned(), name: job.name.to_owned() };
    let ticket = FileRef { object: ticket, path: TICKET_PATH.to_owned(), mode: READABLE };
    let container = json!({
        "Image": job.image,
        "Args": ["task"],
        "Labels": labels_of_container(job.name, &job.labels),
        "Mounts": job.mounts,
        "Configs": [ticket.to_entry(FileKind::Config)],
        "Secrets": extra(&job.secrets).collect::<Vec<_>>(),
        "Healthcheck": {"Test": ["NONE"]},
        "StopGracePeriod": GRACE,
        // What the database's jobs write in the staging volume is any user's.
        "User": "0",
        "Init": true,
    });
    let constraints: Vec<String> = job.node.map(node_constraint).into_iter().collect();
    let networks: Vec<Value> = job.networks.iter().map(|id| json!({"Target": id})).collect();
    service(job.name, &job.labels, &container, &constraints, &networks)
}

fn service(
    name: &str,
    labels: &Labels,
    container: &Value,
    constraints: &[String],
    networks: &[Value],
) -> Value {
    json!({
        "Name": name,
        "Labels": labels,
        "TaskTemplate": {
            "ContainerSpec": container,
            "RestartPolicy": {"Condition": "none", "MaxAttempts": 0},
            "Placement": {"Constraints": constraints},
            "LogDriver": {"Name": "json-file"},
            "Networks": networks,
        },
        "Mode": {"Replicated": {"Replicas": 1}},
        // Else the engine allocates a virtual address that nobody uses.
        "EndpointSpec": {"Mode": "dnsrr"},
    })
}

/// The placement constraint that pins a task to a node.
pub fn node_constraint(node: &str) -> String {
    format!("node.id=={node}")
}

fn labels_of_container(name: &str, labels: &Labels) -> Value {
    let mut of_container = json!({JOB: name});
    if let Some(op) = labels.get(OP) {
        of_container[OP] = op.as_str().into();
    }
    of_container
}

fn constraints(job: &JobSpec<'_>) -> Vec<String> {
    match job.node {
        Some(node) => vec![node_constraint(node)],
        None => spec::constraints(&job.service.spec).into_iter().map(str::to_owned).collect(),
    }
}

fn networks(job: &JobSpec<'_>) -> Vec<Value> {
    match job.reach {
        Reach::Service => {
            spec::networks(&job.service.spec).iter().map(|n| json!({"Target": n.target})).collect()
        }
        Reach::Nothing => Vec::new(),
    }
}

fn configs(job: &JobSpec<'_>) -> Vec<Value> {
    let ticket = ObjectRef { id: job.ticket.to_owned(), name: job.name.to_owned() };
    let runner = FileRef { object: job.runner.clone(), path: RUNNER_PATH.to_owned(), mode: EXECUTABLE };
    let ticket = FileRef { object: ticket, path: TICKET_PATH.to_owned(), mode: READABLE };
    let of_service = spec::file_entries(&job.service.spec, FileKind::Config).cloned();
    of_service.chain([runner, ticket].map(|f| f.to_entry(FileKind::Config))).collect()
}

fn secrets(job: &JobSpec<'_>) -> Vec<Value> {
    let of_service = match job.reach {
        Reach::Service => spec::file_entries(&job.service.spec, FileKind::Secret).cloned().collect(),
        Reach::Nothing => Vec::new(),
    };
    of_service.into_iter().chain(extra(&job.secrets)).collect()
}

fn extra(secrets: &[SecretFile]) -> impl Iterator<Item = Value> + '_ {
    secrets.iter().map(|s| {
        let object = ObjectRef { id: s.id.clone(), name: s.name.clone() };
        FileRef { object, path: s.file.clone(), mode: READABLE }.to_entry(FileKind::Secret)
    })
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;
    use crate::swarm::job::SecretFile;
    use crate::swarm::object::Service;

    fn database() -> Service {
        let spec = json!({
            "Name": "shop_db",
            "Labels": {"com.docker.stack.namespace": "shop", "traefik.enable": "true", "skep.enable": "true"},
            "Mode": {"Replicated": {"Replicas": 3}},
            "UpdateConfig": {"Parallelism": 1},
            "TaskTemplate": {
                "ContainerSpec": {
                    "Image": "postgres:17",
                    "Labels": {"com.docker.stack.namespace": "shop"},
                    "Command": ["docker-entrypoint.sh"],
                    "Args": ["postgres"],
                    "Hostname": "db",
                    "User": "999",
                    "Env": ["POSTGRES_USER=shop", "POSTGRES_PASSWORD=hunter22", "POSTGRES_PASSWORD_FILE=/run/secrets/pw"],
                    "Secrets": [{"SecretID": "s1", "SecretName": "pw", "File": {"Name": "pw", "UID": "999", "GID": "0", "Mode": 256}}],
                    "Mounts": [{"Type": "volume", "Source": "data", "Target": "/var/lib/postgresql/data"}],
                    "Healthcheck": {"Test": ["CMD", "pg_isready"]}
                },
                "Placement": {"Constraints": ["node.labels.disk==ssd"]},
                "Resources": {"Limits": {"MemoryBytes": 1}},
                "LogDriver": {"Name": "none"},
                "Networks": [{"Target": "net1", "Aliases": ["db"]}]
            },
            "EndpointSpec": {"Mode": "vip", "Ports": [{"TargetPort": 5432, "PublishMode": "host"}]}
        });
        Service { id: "db1".into(), version: 1, spec, update: None, created: Timestamp::UNIX_EPOCH }
    }

    fn built(node: Option<&str>, reach: Reach) -> Value {
        let runner = ObjectRef { id: "r1".into(), name: "skep-runner-abc".into() };
        build(&JobSpec {
            name: "skep-job-1-dump-1",
            ticket: "t1",
            runner: &runner,
            service: &database(),
            image: "postgres:17@sha256:00",
            node,
            mounts: vec![json!({"Type": "bind", "Source": "/backups", "Target": "/skep/store"})],
            secrets: vec![SecretFile { id: "s2".into(), name: "tmp".into(), file: "/skep/password".into() }],
            reach,
            user: None,
            labels: Labels::from([(OP.to_owned(), "1".to_owned())]),
        })
    }

    #[test]
    fn s14_a_job_in_skeps_own_image_gets_what_it_names_and_nothing_of_a_service() {
        let file = "/run/secrets/skep-s3-cloud".to_owned();
        let spec = build_own(&OwnSpec {
            name: "skep-job-1-ship-ship-1",
            ticket: "t1",
            image: "skep:1",
            node: Some("n1"),
            mounts: vec![json!({"Type": "volume", "Source": "skep-stage", "Target": "/skep/stage"})],
            secrets: vec![SecretFile { id: "s2".into(), name: "skep-s3".into(), file: file.clone() }],
            networks: vec!["net2".to_owned()],
            labels: Labels::from([(OP.to_owned(), "1".to_owned())]),
        });
        let task = &spec["TaskTemplate"];
        let container = &task["ContainerSpec"];
        let keys: Vec<&str> = container.as_object().unwrap().keys().map(String::as_str).collect();
        let allowed = [
            "Args",
            "Configs",
            "Healthcheck",
            "Image",
            "Init",
            "Labels",
            "Mounts",
            "Secrets",
            "StopGracePeriod",
            "User",
        ];
        assert_eq!(keys, allowed);
        assert_eq!(container["Args"], json!(["task"]));
        assert_eq!(container["Secrets"][0]["File"]["Name"], file);
        assert_eq!(task["RestartPolicy"]["Condition"], "none");
        assert_eq!(task["Placement"]["Constraints"], json!(["node.id==n1"]));
        assert_eq!(task["Networks"], json!([{"Target": "net2"}]));
        assert_eq!(spec["Labels"], json!({OP: "1"}));
    }

    #[test]
    fn only_what_is_allowed_of_the_service_reaches_the_job() {
        let spec = built(Some("n1"), Reach::Service);
        let text = spec.to_string();
        let denied = [
            "hunter22",
            "stack.namespace",
            "traefik",
            "pg_isready",
            "docker-entrypoint",
            "aliases",
            "Aliases",
            "Ports",
            "MemoryBytes",
            "postgresql/data",
            "Hostname",
            "ssd",
        ];
        for denied in denied {
            assert!(!text.contains(denied), "{denied} is in {text}");
        }
        assert_eq!(spec["Labels"], json!({"skep.op": "1"}));
        assert_eq!(spec["TaskTemplate"]["ContainerSpec"]["User"], "999");
    }

    #[test]
    fn it_runs_once_on_the_node_with_logs_that_can_be_read() {
        let spec = built(Some("n1"), Reach::Service);
        assert_eq!(spec["Mode"], json!({"Replicated": {"Replicas": 1}}));
        assert_eq!(spec["TaskTemplate"]["RestartPolicy"]["Condition"], "none");
        assert_eq!(spec["TaskTemplate"]["Placement"]["Constraints"], json!(["node.id==n1"]));
        assert_eq!(spec["TaskTemplate"]["LogDriver"]["Name"], "json-file");
        assert_eq!(spec["TaskTemplate"]["ContainerSpec"]["Healthcheck"]["Test"], json!(["NONE"]));
        assert_eq!(spec["EndpointSpec"], json!({"Mode": "dnsrr"}));
    }

    #[test]
    fn it_keeps_to_the_constraints_of_the_service_where_no_node_is_given() {
        assert_eq!(
            built(None, Reach::Service)["TaskTemplate"]["Placement"]["Constraints"],
            json!(["node.labels.disk==ssd"])
        );
    }

    #[test]
    fn it_joins_the_networks_of_the_service_without_aliases_or_reaches_nothing_of_it() {
        assert_eq!(built(None, Reach::Service)["TaskTemplate"]["Networks"], json!([{"Target": "net1"}]));
        let alone = &built(None, Reach::Nothing)["TaskTemplate"];
        assert_eq!(alone["Networks"], json!([]));
        let secrets = alone["ContainerSpec"]["Secrets"].as_array().unwrap();
        assert_eq!(secrets.iter().map(|s| &s["SecretID"]).collect::<Vec<_>>(), ["s2"], "only its own");
    }

    #[test]
    fn the_runner_is_executable_and_the_ticket_is_beside_it() {
        let spec = built(None, Reach::Service);
        let configs = &spec["TaskTemplate"]["ContainerSpec"]["Configs"];
        assert_eq!(configs[0]["ConfigID"], "r1");
        assert_eq!(
            configs[0]["File"],
            json!({"Name": "/skep/runner", "UID": "0", "GID": "0", "Mode": 0o555})
        );
        assert_eq!(configs[1]["ConfigID"], "t1");
        assert_eq!(configs[1]["File"]["Name"], "/skep/ticket.json");
        assert_eq!(spec["TaskTemplate"]["ContainerSpec"]["Command"], json!(["/skep/runner", "task"]));
    }

    #[test]
    fn secrets_of_the_service_and_of_the_job_are_there() {
        let spec = built(None, Reach::Service);
        let secrets = &spec["TaskTemplate"]["ContainerSpec"]["Secrets"];
        let own = json!({"Name": "pw", "UID": "999", "GID": "0", "Mode": 256});
        assert_eq!(secrets[0]["File"], own, "its owner must still be able to read it");
        assert_eq!(secrets[1]["SecretID"], "s2");
        assert_eq!(secrets[1]["File"]["Name"], "/skep/password");
    }
}
