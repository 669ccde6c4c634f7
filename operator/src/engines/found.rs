//! What the spec and the labels of a service say about its data.

use serde_json::Value;

use super::data::{By, Commands, Data, Directory, DirectoryEngine, Volume};
use super::{Access, NoAccess, Password, by_environment, mongodb, mysql, postgres, rabbitmq, redis};
use crate::policy::{self, Engine};

/// What a service keeps, and how to reach it.
#[derive(Clone, Debug, PartialEq)]
pub struct Found {
    /// What it keeps.
    pub data: Data,
    /// How to reach its server; to nowhere where it has none.
    pub access: Access,
    /// The database; empty where the engine has none.
    pub database: String,
}

/// What a service keeps. `stack` is the one that it belongs to, whose name Swarm puts before that of a volume.
///
/// # Errors
/// When the spec does not show where the data is or how to reach it.
pub fn find(
    asked: &policy::Data,
    service: &str,
    stack: Option<&str>,
    spec: &Value,
) -> Result<Found, NoAccess> {
    let label = asked.database.as_deref();
    match asked.engine {
        Engine::Postgres => Ok(Found {
            data: Data::Postgres,
            access: postgres::access(service, spec)?,
            database: postgres::database(label, spec),
        }),
        Engine::Redis => Ok(Found {
            data: of_server(DirectoryEngine::Redis, redis::directory(spec), stack, spec)?,
            access: redis::access(service, spec)?,
            database: label.unwrap_or_default().to_owned(),
        }),
        Engine::Mysql | Engine::Mariadb => {
            let engine = match asked.engine {
                Engine::Mysql => DirectoryEngine::Mysql,
                _ => DirectoryEngine::Mariadb,
            };
            Ok(Found {
                data: of_server(engine, mysql::directory(spec), stack, spec)?,
                access: mysql::access(service, spec)?,
                database: mysql::database(label, spec),
            })
        }
        Engine::Volume => {
            let volumes = volumes(&asked.volumes, stack, spec)?;
            let directory = Directory { engine: DirectoryEngine::Volume, volumes };
            if directory.is_brokers() && rabbitmq::node(spec).is_none() {
                return Err(NoAccess::NoNodeName);
            }
            Ok(Found { data: Data::Directory(directory), access: Access::nowhere(), database: String::new() })
        }
        Engine::Command => {
            let commands = asked.commands.clone().ok_or(NoAccess::NoCommands)?;
            let mounts = match asked.volumes.as_slice() {
                [] => Vec::new(),
                named => volumes(named, stack, spec)?.into_iter().map(|volume| volume.mount).collect(),
            };
            Ok(Found {
                data: Data::Command(Commands { by: By::Commands(commands), mounts }),
                access: by_environment(service, spec),
                database: String::new(),
            })
        }
        Engine::Rabbitmq => {
            let (access, mount) = rabbitmq::access(service, spec)?;
            let data = Data::Command(Commands { by: By::Rabbitmq, mounts: mount.into_iter().collect() });
            Ok(Found { data, access, database: String::new() })
        }
        Engine::Mongodb => Ok(Found {
            data: Data::Command(Commands { by: By::Mongodb, mounts: Vec::new() }),
            access: mongodb::access(service, spec)?,
            database: String::new(),
        }),
    }
}

/// The mount that holds `path`, and what of the path lies below its target.
pub(super) fn mount_over<'a>(spec: &'a Value, path: &str) -> Option<(&'a Value, String)> {
    let path = path.trim_end_matches('/');
    let kept = mounts(spec).filter(|m| matches!(m["Type"].as_str(), Some("volume" | "bind")));
    let over = kept.filter_map(|mount| {
        let target = mount["Target"].as_str()?.trim_end_matches('/');
        let below = path.strip_prefix(target)?;
        (below.is_empty() || below.starts_with('/'))
            .then(|| (mount, below.trim_start_matches('/').to_owned()))
    });
    over.min_by_key(|(_, below)| below.len())
}

fn mounts(spec: &Value) -> impl Iterator<Item = &Value> {
    spec["TaskTemplate"]["ContainerSpec"]["Mounts"].as_array().into_iter().flatten()
}

fn of_server(
    engine: DirectoryEngine,
    path: &str,
    stack: Option<&str>,
    spec: &Value,
) -> Result<Data, NoAccess> {
    let found = mount_over(spec, path).filter(|(mount, _)| is_named(mount) || mount["Type"] == "bind");
    let (mount, below) = found.ok_or_else(|| NoAccess::NoVolume { path: path.to_owned() })?;
    let volume = Volume::of_server(short_name(mount, stack), mount, &below);
    Ok(Data::Directory(Directory { engine, volumes: vec![volume] }))
}

/// The volumes named, by their own names or by those in the stack's file; where none is named, all that the service may
/// write to.
fn volumes(named: &[String], stack: Option<&str>, spec: &Value) -> Result<Vec<Volume>, NoAccess> {
    let mut found: Vec<&Value> = mounts(spec).filter(|m| m["Type"] == "volume" && is_named(m)).collect();
    found.sort_by_key(|mount| short_name(mount, stack));
    let wanted: Vec<&Value> = if named.is_empty() {
        found.into_iter().filter(|m| m["ReadOnly"] != true).collect()
    } else {
        let is_called = |m: &Value, name: &str| m["Source"] == name || short_name(m, stack) == name;
        let unknown = named.iter().find(|name| !found.iter().any(|m| is_called(m, name)));
        if let Some(name) = unknown {
            return Err(NoAccess::UnknownVolume { name: name.clone(), found: names(&found, stack) });
        }
        found.into_iter().filter(|m| named.iter().any(|name| is_called(m, name))).collect()
    };
    if wanted.is_empty() {
        return Err(NoAccess::NoVolumes);
    }
    let twice = wanted.windows(2).find(|pair| short_name(pair[0], stack) == short_name(pair[1], stack));
    if let Some(pair) = twice {
        return Err(NoAccess::MountedTwice { name: short_name(pair[0], stack).to_owned() });
    }
    Ok(wanted.into_iter().map(|mount| Volume::of_files(short_name(mount, stack), mount)).collect())
}

fn is_named(mount: &Value) -> bool {
    mount["Source"].as_str().is_some_and(|source| !source.is_empty())
}

fn names(mounts: &[&Value], stack: Option<&str>) -> String {
    let names: Vec<&str> = mounts.iter().map(|m| short_name(m, stack)).collect();
    if names.is_empty() { "none".to_owned() } else { names.join(", ") }
}

/// The name of a mount's volume as the stack's file has it.
fn short_name<'a>(mount: &'a Value, stack: Option<&str>) -> &'a str {
    let source = mount["Source"].as_str().unwrap_or_default();
    let short = stack.and_then(|stack| source.strip_prefix(stack)?.strip_prefix('_'));
    short.filter(|short| !short.is_empty()).unwrap_or(source)
}

// === impl Access ===

impl Access {
    /// Of data without a server.
    pub fn nowhere() -> Access {
        let connect = skep_runner::task::Connect {
            host: String::new(),
            port: 0,
            user: String::new(),
            password_file: None,
        };
        Access { connect, password: Password::Nowhere }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn spec() -> Value {
        json!({"TaskTemplate": {"ContainerSpec": {"Mounts": [
            {"Type": "volume", "Source": "shop_uploads", "Target": "/srv/uploads"},
            {"Type": "volume", "Source": "shared", "Target": "/srv/shared"},
            {"Type": "volume", "Source": "shop_conf", "Target": "/etc/app", "ReadOnly": true},
            {"Type": "volume", "Target": "/cache"},
            {"Type": "bind", "Source": "/var/run/docker.sock", "Target": "/var/run/docker.sock"},
        ]}}})
    }

    fn asked(engine: Engine, volumes: &[&str]) -> policy::Data {
        let volumes = volumes.iter().map(|v| (*v).to_owned()).collect();
        policy::Data { engine, database: None, volumes, commands: None }
    }

    fn names(volumes: &[&str]) -> Result<Vec<(String, String)>, NoAccess> {
        let found = find(&asked(Engine::Volume, volumes), "shop_app", Some("shop"), &spec())?;
        let directory = found.data.directory().unwrap().clone();
        Ok(directory.volumes.into_iter().map(|v| (v.name, v.root)).collect())
    }

    #[test]
    fn all_named_volumes_that_are_written_to_are_data_unless_some_are_named() {
        let pair = |name: &str| (name.to_owned(), format!("/skep/volumes/{name}"));
        assert_eq!(names(&[]), Ok(vec![pair("shared"), pair("uploads")]));
        assert_eq!(names(&["uploads"]), Ok(vec![pair("uploads")]));
        assert_eq!(names(&["shop_uploads", "conf"]), Ok(vec![pair("conf"), pair("uploads")]));
    }

    #[test]
    fn commands_see_the_volumes_that_are_named_and_find_what_the_environment_hides() {
        let mut spec = spec();
        spec["TaskTemplate"]["ContainerSpec"]["Env"] = json!(["ADDR=http://a", "VAULT_TOKEN=s.1"]);
        let commands = policy::Commands { dump: "d".into(), load: "l".into(), verify: None };
        let asked = |volumes: &[&str]| policy::Data {
            commands: Some(commands.clone()),
            ..asked(Engine::Command, volumes)
        };
        let found = find(&asked(&[]), "shop_app", Some("shop"), &spec).unwrap();
        let Data::Command(data) = &found.data else { panic!("{found:?}") };
        assert_eq!((data.mounts.len(), found.data.word()), (0, "command"));
        assert_eq!(found.access.connect.host, "tasks.shop_app");
        assert_eq!(found.access.password, Password::Environment);
        let found = find(&asked(&["uploads"]), "shop_app", Some("shop"), &spec).unwrap();
        let Data::Command(data) = &found.data else { panic!("{found:?}") };
        assert_eq!(data.mounts[0]["Target"], "/srv/uploads", "where the service has it");
        assert!(find(&asked(&["nope"]), "shop_app", Some("shop"), &spec).is_err());
    }

    #[test]
    fn a_volume_that_the_service_does_not_have_is_told_with_those_that_it_has() {
        let error = names(&["upload"]).unwrap_err();
        assert_eq!(error.to_string(), "it mounts no volume `upload` (it has: conf, shared, uploads)");
        let none = find(&asked(Engine::Volume, &[]), "a", None, &json!({})).unwrap_err();
        assert_eq!(none, NoAccess::NoVolumes);
    }

    #[test]
    fn one_volume_that_is_mounted_twice_is_refused() {
        let mount = |target: &str| json!({"Type": "volume", "Source": "v", "Target": target});
        let spec = json!({"TaskTemplate": {"ContainerSpec": {"Mounts": [mount("/a"), mount("/b")]}}});
        let error = find(&asked(Engine::Volume, &[]), "a", None, &spec).unwrap_err();
        assert_eq!(error, NoAccess::MountedTwice { name: "v".to_owned() });
    }

    #[test]
    fn the_files_of_a_server_are_in_the_volume_at_or_above_its_directory() {
        let mount = json!({"Type": "volume", "Source": "shop_db", "Target": "/var/lib"});
        let spec = json!({"TaskTemplate": {"ContainerSpec": {"Mounts": [mount]}}});
        let found = find(&asked(Engine::Mariadb, &[]), "shop_db", Some("shop"), &spec).unwrap();
        let directory = found.data.directory().unwrap();
        assert_eq!(directory.volumes[0].root, "/skep/data/mysql");
        assert_eq!(directory.volumes[0].name, "db");
        assert_eq!(found.data.word(), "mariadb");
        let none = find(&asked(Engine::Redis, &[]), "shop_db", Some("shop"), &spec).unwrap_err();
        assert_eq!(none, NoAccess::NoVolume { path: "/data".to_owned() });
    }

    #[test]
    fn the_mount_next_to_a_directory_is_the_one_that_holds_it() {
        let spec = json!({"TaskTemplate": {"ContainerSpec": {"Mounts": [
            {"Type": "volume", "Source": "other", "Target": "/var/lib/post"},
            {"Type": "volume", "Source": "above", "Target": "/var/lib"},
            {"Type": "volume", "Source": "pg", "Target": "/var/lib/postgresql/"},
            {"Type": "tmpfs", "Target": "/var/lib/postgresql/data"},
        ]}}});
        let (mount, below) = mount_over(&spec, "/var/lib/postgresql/data").unwrap();
        assert_eq!((mount["Source"].as_str(), below.as_str()), (Some("pg"), "data"));
    }
}
