//! What the administrator configures once for the whole Swarm, as far as operations need it.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use serde_json::{Value, json};
use thiserror::Error;

/// Settings of operations.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Name of this Swarm, for mails and pages.
    pub cluster: String,
    /// Who drives: unique per process.
    pub instance: String,
    /// Backup stores by name.
    pub stores: BTreeMap<String, Store>,
    /// The store of services that name none.
    pub default_store: String,
    /// Skep's own image, for jobs that run in it; found out from the Swarm where absent.
    pub image: Option<String>,
    /// Port on which the operator listens.
    pub port: u16,
    /// Where wakers reach the operator, `http://host:port`; found out from the Swarm where absent.
    pub wake_url: Option<String>,
    /// The network on which they do; found out from the Swarm where absent.
    pub wake_network: Option<String>,
    /// URL of the Prometheus that is asked whether a service is used.
    pub prometheus: Option<String>,
    /// A file with logins of registries, in the form of Docker's `config.json`.
    pub registry_config: Option<PathBuf>,
    /// Name of the Swarm secret with the age identity that decrypts backups; none where people decrypt.
    pub identity: Option<String>,
    /// Image of the maintenance page's server.
    pub page_image: String,
    /// Longest time that clients may take to stop.
    pub stop_deadline: Duration,
    /// Longest time that a client may take to become healthy again.
    pub start_deadline: Duration,
    /// Longest time that an application's checks may take to pass.
    pub check_deadline: Duration,
    /// Longest time for one data job.
    pub job_deadline: Duration,
    /// Longest wait for a node that does not answer while a job there may still write files (S8).
    pub lost_deadline: Duration,
    /// How many terminal operations are kept.
    pub keep_operations: usize,
    /// How many restore points of a stack are kept.
    pub keep_points: usize,
}

/// Where backups go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Store {
    /// A directory of the host, the same on every node (NFS), or on the one node that has the data.
    Bind(String),
    /// A named volume, with driver and options.
    Volume {
        /// Volume name.
        name: String,
        /// Driver; the engine's default where absent.
        driver: Option<String>,
        /// Driver options.
        options: BTreeMap<String, String>,
    },
    /// A bucket.
    S3(S3),
}

/// A bucket of an S3-compatible server, as a store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct S3 {
    /// Bucket.
    pub bucket: String,
    /// What all keys begin with, without slashes at its ends; may be empty.
    pub prefix: String,
    /// URL of the server.
    pub endpoint: String,
    /// Region, as requests are signed for.
    pub region: String,
    /// `endpoint/bucket/key` instead of `bucket.endpoint/key`.
    pub path_style: bool,
    /// Name of the Swarm secret with access key id and secret access key, a line each.
    pub credentials: String,
    /// Name of the network through which jobs reach the server; the node's own way out where absent.
    pub network: Option<String>,
}

/// Stands for the staging volume where a store is named: no store's name has parentheses.
pub const STAGE: &str = "(staging)";
/// Name of the staging volume, one a node.
const STAGE_VOLUME: &str = "skep-stage";
/// The secret with the credentials of an S3 store that names none.
const CREDENTIALS: &str = "skep-s3";

/// A store that cannot be understood.
#[derive(Debug, Error, PartialEq, Eq)]
#[error(
    "store `{given}`: want `bind:/path`, `volume:name[,driver=…][,opt.<name>=<value>…]` or \
     `s3://bucket[/prefix][,endpoint=…][,region=…][,path-style=true][,credentials=…][,network=…]`; a part with a comma in it is \
     quoted whole, as in `\"opt.o=addr=10.0.0.1,rw\"`"
)]
pub struct BadStore {
    given: String,
}

// === impl Settings ===

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            cluster: "swarm".to_owned(),
            instance: "skep".to_owned(),
            stores: BTreeMap::from([(
                "default".to_owned(),
                Store::Volume { name: "skep-backups".to_owned(), driver: None, options: BTreeMap::new() },
            )]),
            default_store: "default".to_owned(),
            image: None,
            port: 9180,
            wake_url: None,
            wake_network: None,
            prometheus: None,
            registry_config: None,
            identity: None,
            page_image: "nginx".to_owned(),
            stop_deadline: Duration::from_secs(120),
            start_deadline: Duration::from_secs(180),
            check_deadline: Duration::from_secs(60),
            job_deadline: Duration::from_secs(4 * 3600),
            lost_deadline: Duration::from_secs(30 * 60),
            keep_operations: 200,
            keep_points: 7,
        }
    }
}

// === impl Settings ===

impl Settings {
    /// A store that jobs of a service's own image mount, or the staging volume.
    ///
    /// # Errors
    /// A sentence, when there is no such store or it cannot be mounted.
    pub fn mounted(&self, name: &str) -> Result<Store, String> {
        match self.stores.get(name) {
            _ if name == STAGE => Ok(stage()),
            None => Err(format!("there is no store `{name}`")),
            Some(Store::S3(_)) => Err(format!("store `{name}` is a bucket, which cannot be mounted")),
            Some(store) => Ok(store.clone()),
        }
    }
}

/// The staging volume.
pub fn stage() -> Store {
    Store::Volume { name: STAGE_VOLUME.to_owned(), driver: None, options: BTreeMap::new() }
}

// === impl Store ===

impl Store {
    /// Whether each node has one of its own under this name: a volume of the local driver that is mounted from nowhere
    /// else. What a directory of the host is nobody can tell.
    pub fn is_of_each_node(&self) -> bool {
        const FROM_ELSEWHERE: [&str; 4] = ["nfs", "nfs4", "cifs", "smb3"];
        match self {
            Store::Bind(_) | Store::S3(_) => false,
            Store::Volume { driver, options, .. } => {
                let is_mounted = options.get("type").is_some_and(|t| FROM_ELSEWHERE.contains(&t.as_str()));
                driver.as_deref().is_none_or(|d| d == "local") && !is_mounted
            }
        }
    }

    /// The mount that gives a job this store; none of a bucket.
    pub fn mount(&self, target: &str, read_only: bool) -> Option<Value> {
        Some(match self {
            Store::S3(_) => return None,
            Store::Bind(path) => {
                json!({"Type": "bind", "Source": path, "Target": target, "ReadOnly": read_only})
            }
            Store::Volume { name, driver, options } => {
                let mut mount =
                    json!({"Type": "volume", "Source": name, "Target": target, "ReadOnly": read_only});
                if let Some(driver) = driver {
                    mount["VolumeOptions"] = json!({"DriverConfig": {"Name": driver, "Options": options}});
                } else if !options.is_empty() {
                    mount["VolumeOptions"] = json!({"DriverConfig": {"Name": "local", "Options": options}});
                }
                mount
            }
        })
    }
}

impl FromStr for Store {
    type Err = BadStore;

    fn from_str(text: &str) -> Result<Store, BadStore> {
        let bad = || BadStore { given: text.to_owned() };
        if let Some(path) = text.strip_prefix("bind:") {
            return path.starts_with('/').then(|| Store::Bind(path.to_owned())).ok_or_else(bad);
        }
        if let Some(bucket) = text.strip_prefix("s3://") {
            return fields(bucket).and_then(|parts| s3(&parts)).map(Store::S3).ok_or_else(bad);
        }
        let parts = text.strip_prefix("volume:").and_then(fields).ok_or_else(bad)?;
        let mut parts = parts.into_iter();
        let name = parts.next().filter(|n| !n.is_empty()).ok_or_else(bad)?;
        let (mut driver, mut options) = (None, BTreeMap::new());
        for part in parts {
            let (key, value) = part.split_once('=').ok_or_else(bad)?;
            match (key, key.strip_prefix("opt.")) {
                ("driver", _) => driver = Some(value.to_owned()),
                (_, Some(option)) => {
                    options.insert(option.to_owned(), value.to_owned());
                }
                _ => return Err(bad()),
            }
        }
        Ok(Store::Volume { name, driver, options })
    }
}

/// A bucket with its settings; none where they cannot be understood.
fn s3(parts: &[String]) -> Option<S3> {
    let (place, settings) = parts.split_first()?;
    let (bucket, prefix) = place.split_once('/').unwrap_or((place, ""));
    let fits = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b".-".contains(&b);
    if !(3..=63).contains(&bucket.len()) || !bucket.bytes().all(fits) {
        return None;
    }
    let (mut endpoint, mut region, mut path_style) = (None, "us-east-1".to_owned(), None);
    let (mut credentials, mut network) = (CREDENTIALS.to_owned(), None);
    for setting in settings {
        match setting.split_once('=').filter(|(_, value)| !value.is_empty())? {
            ("endpoint", url) if url.starts_with("http://") || url.starts_with("https://") => {
                endpoint = Some(url.trim_end_matches('/').to_owned());
            }
            ("region", value) => region = value.to_owned(),
            ("path-style", value) => path_style = Some(value.parse().ok()?),
            ("credentials", value) => credentials = value.to_owned(),
            ("network", value) => network = Some(value.to_owned()),
            _ => return None,
        }
    }
    Some(S3 {
        bucket: bucket.to_owned(),
        prefix: prefix.trim_matches('/').to_owned(),
        // Amazon's own names buckets in the host; most others name them in the path.
        path_style: path_style.unwrap_or(endpoint.is_some()),
        endpoint: endpoint.unwrap_or_else(|| format!("https://s3.{region}.amazonaws.com")),
        region,
        credentials,
        network,
    })
}

/// The fields of a line of comma-separated values, as `docker --mount` reads them: one that holds commas stands in quotes as
/// a whole, with quotes in it doubled. None where quotes do not match.
fn fields(text: &str) -> Option<Vec<String>> {
    let (mut fields, mut field) = (Vec::new(), String::new());
    let mut chars = text.chars().peekable();
    loop {
        let quoted = field.is_empty() && chars.next_if_eq(&'"').is_some();
        if quoted {
            loop {
                match chars.next()? {
                    '"' if chars.next_if_eq(&'"').is_some() => field.push('"'),
                    '"' => break,
                    other => field.push(other),
                }
            }
        }
        match chars.next() {
            None => {
                fields.push(field);
                return Some(fields);
            }
            Some(',') => fields.push(std::mem::take(&mut field)),
            Some(other) if !quoted && other != '"' => field.push(other),
            Some(_) => return None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_with_commas_are_quoted_as_docker_mounts_are() {
        let text = r#"volume:backups,opt.type=nfs,"opt.o=addr=10.0.0.1,rw,nfsvers=4",opt.device=:/b"#;
        let Store::Volume { name, options, .. } = text.parse().unwrap() else { panic!("{text}") };
        assert_eq!((name.as_str(), options["o"].as_str()), ("backups", "addr=10.0.0.1,rw,nfsvers=4"));
        assert_eq!((options["type"].as_str(), options["device"].as_str()), ("nfs", ":/b"));
        assert_eq!(fields(r#"a,"b ""c"" ,d",,e"#).unwrap(), ["a", "b \"c\" ,d", "", "e"]);
        for bad in
            [r#"volume:a,"opt.o=rw"#, r#"volume:a,"opt.o=rw"x"#, r#"volume:a,opt.o="rw""#, r#"volume:a"b"#]
        {
            assert!(bad.parse::<Store>().is_err(), "{bad}");
        }
    }

    #[test]
    fn stores_are_read_from_text() {
        assert_eq!("bind:/mnt/b".parse(), Ok(Store::Bind("/mnt/b".to_owned())));
        let nfs: Store = "volume:backups,driver=local,opt.type=nfs,opt.device=:/b".parse().unwrap();
        let mount = nfs.mount("/skep/store", false).unwrap();
        assert_eq!(mount["VolumeOptions"]["DriverConfig"]["Options"]["device"], ":/b");
        for bad in ["", "bind:relative", "volume:", "volume:a,b", "s3://x", "volume:a,x=1"] {
            assert!(bad.parse::<Store>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_bucket_is_read_with_its_settings() {
        let Store::S3(amazon) = "s3://my-backups,region=eu-west-1".parse().unwrap() else {
            panic!("no bucket")
        };
        assert_eq!(amazon.endpoint, "https://s3.eu-west-1.amazonaws.com");
        assert_eq!(
            (amazon.path_style, amazon.prefix.as_str(), amazon.credentials.as_str()),
            (false, "", "skep-s3")
        );
        let text = "s3://b-1/swarm/one/,endpoint=http://minio:9000/,credentials=minio-keys,network=storage";
        let Store::S3(own) = text.parse().unwrap() else { panic!("no bucket") };
        assert_eq!((own.endpoint.as_str(), own.prefix.as_str()), ("http://minio:9000", "swarm/one"));
        assert_eq!((own.path_style, own.network.as_deref()), (true, Some("storage")));
        for wrong in
            ["s3://", "s3://B", "s3://abc,endpoint=minio:9000", "s3://abc,path-style=1", "s3://abc,x=y"]
        {
            assert!(wrong.parse::<Store>().is_err(), "{wrong}");
        }
    }
}
