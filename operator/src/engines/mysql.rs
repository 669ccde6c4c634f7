//! MySQL and MariaDB as the official images configure them.

use serde_json::Value;
use skep_runner::task::Connect;

use super::{Access, NoAccess, Password, argument, env, password};

/// The port inside the container.
const PORT: u16 = 3306;
/// The account that may read and write everything.
const USER: &str = "root";
/// How the images of both call the password of root and the database that they create.
const PASSWORDS: [&str; 2] = ["MARIADB_ROOT_PASSWORD", "MYSQL_ROOT_PASSWORD"];
const DATABASES: [&str; 2] = ["MARIADB_DATABASE", "MYSQL_DATABASE"];

/// How to reach the server of a service as root.
///
/// # Errors
/// When the spec does not say where the password is.
pub fn access(service: &str, spec: &Value) -> Result<Access, NoAccess> {
    let mut found = (Password::Nowhere, None);
    for variable in PASSWORDS {
        if found.0 == Password::Nowhere {
            found = password(spec, variable)?;
        }
    }
    let (from, file) = found;
    let port = argument(spec, "--port").and_then(|p| p.parse().ok()).unwrap_or(PORT);
    let connect =
        Connect { host: format!("tasks.{service}"), port, user: USER.to_owned(), password_file: file };
    Ok(Access { connect, password: from })
}

/// The database in which checks run: the label's, else the one that the image creates; empty where there is none.
pub fn database(label: Option<&str>, spec: &Value) -> String {
    let created = || DATABASES.into_iter().find_map(|variable| env(spec, variable));
    label.or_else(created).unwrap_or_default().to_owned()
}

/// Where the server has its files.
pub fn directory(spec: &Value) -> &str {
    argument(spec, "--datadir").unwrap_or("/var/lib/mysql")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn root_is_reached_by_the_password_of_either_image() {
        let spec = json!({"TaskTemplate": {"ContainerSpec": {
            "Env": ["MYSQL_ROOT_PASSWORD=x", "MARIADB_DATABASE=shop"], "Args": ["--port=3307", "--datadir", "/data/db"],
        }}});
        let access = access("shop_db", &spec).unwrap();
        assert_eq!(access.password, Password::Env { variable: "MYSQL_ROOT_PASSWORD".to_owned() });
        assert_eq!((access.connect.host.as_str(), access.connect.port), ("tasks.shop_db", 3307));
        assert_eq!(database(None, &spec), "shop");
        assert_eq!(database(Some("other"), &spec), "other");
        assert_eq!(directory(&spec), "/data/db");
        assert_eq!(directory(&json!({})), "/var/lib/mysql");
    }
}
