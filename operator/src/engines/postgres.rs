//! PostgreSQL as the official image and those that follow it configure it.

use serde_json::Value;
use skep_runner::task::Connect;

use super::{Access, NoAccess, env, password};

/// The port inside the container.
const PORT: u16 = 5432;

/// How to reach the server of a service. The host is `tasks.<service>`, so that no VIP stands between.
///
/// # Errors
/// When the spec does not say where the password is.
pub fn access(service: &str, spec: &Value) -> Result<Access, NoAccess> {
    let (from, file) = password(spec, "POSTGRES_PASSWORD")?;
    let port = env(spec, "PGPORT").and_then(|p| p.parse().ok()).unwrap_or(PORT);
    let connect =
        Connect { host: format!("tasks.{service}"), port, user: user(spec).to_owned(), password_file: file };
    Ok(Access { connect, password: from })
}

/// The superuser that the image creates.
pub fn user(spec: &Value) -> &str {
    env(spec, "POSTGRES_USER").unwrap_or("postgres")
}

/// The database: the label's, else the one that the image creates.
pub fn database(label: Option<&str>, spec: &Value) -> String {
    label.or_else(|| env(spec, "POSTGRES_DB")).unwrap_or_else(|| user(spec)).to_owned()
}

/// The mount that holds the data directory, if it is a volume or bind of the service.
pub fn data_mount(spec: &Value) -> Option<&Value> {
    let data = env(spec, "PGDATA").unwrap_or("/var/lib/postgresql/data");
    super::found::mount_over(spec, data).map(|(mount, _)| mount)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_database_is_the_labels_then_the_images() {
        let spec = json!({"TaskTemplate": {"ContainerSpec": {"Env": ["POSTGRES_USER=u"]}}});
        assert_eq!(database(Some("shop"), &spec), "shop");
        assert_eq!(database(None, &spec), "u");
        let named = json!({"TaskTemplate": {"ContainerSpec": {"Env": ["POSTGRES_USER=u", "POSTGRES_DB=d"]}}});
        assert_eq!(database(None, &named), "d");
        assert_eq!(database(None, &json!({})), "postgres");
    }

    #[test]
    fn the_data_mount_is_the_one_above_the_data_directory() {
        let spec = json!({"TaskTemplate": {"ContainerSpec": {"Mounts": [
            {"Type": "volume", "Source": "other", "Target": "/var/lib/post"},
            {"Type": "volume", "Source": "pg", "Target": "/var/lib/postgresql"},
            {"Type": "tmpfs", "Target": "/var/lib/postgresql/data"},
        ]}}});
        assert_eq!(data_mount(&spec).unwrap()["Source"], "pg");
        assert_eq!(data_mount(&json!({})), None);
    }
}
