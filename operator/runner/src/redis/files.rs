//! Which files a server reads at its start, and which names in its directory are its data.

use std::ffi::OsStr;

use super::client::Client;
use crate::error::{Error, Result};
use crate::job::Job;
use crate::task::{Connect, RedisFiles, ServerSettings};

/// Version and files of a running server.
pub(crate) fn ask(job: &Job, connect: &Connect) -> Result<(String, ServerSettings)> {
    let mut client = Client::open(job, connect)?;
    let (version, files) = asked(&mut client)?;
    Ok((version, ServerSettings::Redis(files)))
}

/// As [`ask`], of an open connection.
pub(super) fn asked(client: &mut Client) -> Result<(String, RedisFiles)> {
    let info = client.info("server")?;
    let of = |name: &str| info.iter().find(|(found, _)| found == name).map(|(_, value)| value.clone());
    let unknown = || Error::refused("the server does not tell its version");
    let version = of("valkey_version").or_else(|| of("redis_version")).ok_or_else(unknown)?;
    let mut known = |name: &str| {
        let unknown = || Error::refused(format!("the server does not tell its setting {name}"));
        client.setting(name)?.ok_or_else(unknown)
    };
    let (append_only, rdb, aof) =
        (known("appendonly")? == "yes", known("dbfilename")?, known("appendfilename")?);
    let databases = known("databases")?.parse().map_err(|_| Error::refused("`databases` is no number"))?;
    let aof_dir = client.setting("appenddirname")?.filter(|name| !name.is_empty());
    Ok((version, RedisFiles { append_only, rdb, aof, aof_dir, databases }))
}

/// Whether a name in the directory is data: the RDB, the append-only files, and what a killed server leaves of
/// writing them. The rest (configuration, access lists, modules) is the service's own and stays.
pub(crate) fn is_data(files: &RedisFiles, name: &OsStr) -> bool {
    let Some(name) = name.to_str() else { return false };
    let RedisFiles { rdb, aof, aof_dir, .. } = files;
    let is_temporary = name.starts_with("temp-") && (name.ends_with(".rdb") || name.ends_with(".aof"));
    name == rdb || name == aof || Some(name) == aof_dir.as_deref() || is_temporary
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_the_server_writes_is_data() {
        let files = RedisFiles {
            append_only: true,
            rdb: "dump.rdb".into(),
            aof: "appendonly.aof".into(),
            aof_dir: Some("appendonlydir".into()),
            databases: 16,
        };
        for name in ["dump.rdb", "appendonly.aof", "appendonlydir", "temp-12.rdb", "temp-rewriteaof-bg-7.aof"]
        {
            assert!(is_data(&files, OsStr::new(name)), "{name}");
        }
        for name in ["users.acl", "redis.conf", "nodes.conf", "dump.rdb.bak", "temp-notes.txt"] {
            assert!(!is_data(&files, OsStr::new(name)), "{name}");
        }
    }
}
