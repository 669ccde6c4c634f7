//! Logins of registries, from a file in the form of Docker's `config.json`. None of it is ever shown (S15).

use std::collections::BTreeMap;
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE};
use serde::Deserialize;
use serde_json::json;
use thiserror::Error;

use crate::swarm::object::RegistryAuth;
use crate::swarm::spec::Reference;

/// The registry of images that name none.
const HUB: &str = "docker.io";
/// How it is called where logins are kept.
const HUB_SERVER: &str = "https://index.docker.io/v1/";

/// A file that cannot be used.
#[derive(Debug, Error)]
pub enum Unusable {
    /// It cannot be read.
    #[error("`{0}` cannot be read")]
    Read(String, #[source] std::io::Error),
    /// It is not what it should be.
    #[error("`{0}` is no `config.json` of Docker's")]
    Form(String),
    /// It only says where the logins are.
    #[error(
        "`{0}` keeps its logins in a helper (`credsStore`, `credHelpers`), which cannot be asked here; want `auths`"
    )]
    Helper(String),
}

/// Logins by registry.
#[derive(Clone, Default)]
pub struct Logins(BTreeMap<String, RegistryAuth>);

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct File {
    #[serde(default)]
    auths: BTreeMap<String, Entry>,
    #[serde(default)]
    creds_store: Option<String>,
    #[serde(default)]
    cred_helpers: BTreeMap<String, String>,
}

#[derive(Default, Deserialize)]
struct Entry {
    #[serde(default)]
    auth: String,
    #[serde(default)]
    username: String,
    #[serde(default)]
    password: String,
    #[serde(default)]
    identitytoken: String,
}

// === impl Logins ===

impl Logins {
    /// Reads the file.
    ///
    /// # Errors
    /// When it cannot be used.
    pub fn read(path: &Path) -> Result<Logins, Unusable> {
        let name = path.display().to_string();
        let text = std::fs::read(path).map_err(|source| Unusable::Read(name.clone(), source))?;
        Logins::parse(&text, &name)
    }

    fn parse(text: &[u8], name: &str) -> Result<Logins, Unusable> {
        // What the parser says could hold a part of a password.
        let file: File = serde_json::from_slice(text).map_err(|_| Unusable::Form(name.to_owned()))?;
        let mut logins = BTreeMap::new();
        for (server, entry) in file.auths {
            if let Some(header) = header(&server, &entry) {
                logins.insert(registry_of_server(&server), RegistryAuth::Header(header));
            }
        }
        let is_elsewhere = file.creds_store.is_some() || !file.cred_helpers.is_empty();
        match logins.is_empty() && is_elsewhere {
            true => Err(Unusable::Helper(name.to_owned())),
            false => Ok(Logins(logins)),
        }
    }

    /// The login for the registry of an image; none where there is none.
    pub fn of(&self, image: &str) -> RegistryAuth {
        self.0.get(registry_of(image)).cloned().unwrap_or_default()
    }
}

/// What the engine is given for a login.
fn header(server: &str, entry: &Entry) -> Option<String> {
    let server = if registry_of_server(server) == HUB { HUB_SERVER } else { server };
    let login = if entry.identitytoken.is_empty() {
        let decoded = STANDARD.decode(entry.auth.trim()).ok().and_then(|bytes| String::from_utf8(bytes).ok());
        let pair = decoded.as_deref().and_then(|text| text.split_once(':'));
        let (user, password) = pair.unwrap_or((&entry.username, &entry.password));
        (!user.is_empty())
            .then(|| json!({ "username": user, "password": password.trim_end_matches('\0'), "serveraddress": server }))?
    } else {
        json!({ "identitytoken": entry.identitytoken, "serveraddress": server })
    };
    Some(URL_SAFE.encode(login.to_string()))
}

/// The registry that an image is of: where the first part of its name cannot be one, it is the hub.
fn registry_of(image: &str) -> &str {
    match Reference::of(image).name.split_once('/') {
        Some((first, _)) if first.contains(['.', ':']) || first == "localhost" => plain(first),
        Some(_) | None => HUB,
    }
}

/// The registry that a key of the file means: `https://index.docker.io/v1/` or `registry.example.org:5000`.
fn registry_of_server(server: &str) -> String {
    let rest = server.strip_prefix("https://").or_else(|| server.strip_prefix("http://")).unwrap_or(server);
    plain(rest.split('/').next().unwrap_or(rest)).to_owned()
}

fn plain(host: &str) -> &str {
    if matches!(host, "index.docker.io" | "registry-1.docker.io") { HUB } else { host }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn logins(text: &str) -> Logins {
        Logins::parse(text.as_bytes(), "config.json").unwrap()
    }

    fn sent(logins: &Logins, image: &str) -> Option<serde_json::Value> {
        match logins.of(image) {
            RegistryAuth::Anonymous => None,
            RegistryAuth::Header(header) => {
                Some(serde_json::from_slice(&URL_SAFE.decode(header).unwrap()).unwrap())
            }
        }
    }

    #[test]
    fn each_registry_is_given_its_own_login_and_no_other() {
        let all = logins(&format!(
            r#"{{ "auths": {{ "https://index.docker.io/v1/": {{ "auth": "{}" }}, "registry.example.org:5000": {{ "username": "u", "password": "p:w" }},
               "https://token.example.org": {{ "identitytoken": "t" }}, "empty.example.org": {{}} }} }}"#,
            STANDARD.encode("somebody:s3cret:with:colons")
        ));
        let hub = sent(&all, "team/app:2").unwrap();
        assert_eq!(
            (hub["username"].as_str(), hub["password"].as_str()),
            (Some("somebody"), Some("s3cret:with:colons"))
        );
        assert_eq!(hub["serveraddress"], HUB_SERVER);
        assert_eq!(sent(&all, "nginx:1"), Some(hub.clone()));
        assert_eq!(sent(&all, "docker.io/library/nginx:1"), Some(hub));
        assert_eq!(sent(&all, "registry.example.org:5000/app:2").unwrap()["password"], "p:w");
        assert_eq!(sent(&all, "token.example.org/app:2").unwrap()["identitytoken"], "t");
        for image in ["registry.example.org/app:2", "localhost/app:2", "empty.example.org/app:2"] {
            assert_eq!(sent(&all, image), None, "{image}");
        }
    }

    #[test]
    fn a_file_that_is_of_no_use_says_why_and_shows_nothing_of_itself() {
        let refused = |text: &str| match Logins::parse(text.as_bytes(), "config.json") {
            Ok(_) => panic!("{text}"),
            Err(why) => why.to_string(),
        };
        assert!(refused(r#"{ "auths": {}, "credsStore": "desktop" }"#).contains("credsStore"));
        let broken = refused(r#"{ "auths": { "a": { "password": hunter2 } } }"#);
        assert!(!broken.contains("hunter2"), "{broken}");
        assert!(sent(&logins("{}"), "nginx").is_none());
        assert!(matches!(Logins::read(Path::new("/nowhere/config.json")), Err(Unusable::Read(..))));
    }
}
