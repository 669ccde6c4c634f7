//! Redis (and Valkey): data of its own, or a cache beside a database.

use serde_json::Value;
use skep_runner::task::Connect;

use super::{Access, NoAccess, argument, password};

/// The port inside the container.
const PORT: u16 = 6379;

/// How to reach the server of a service.
///
/// # Errors
/// When the spec does not say where the password is.
pub fn access(service: &str, spec: &Value) -> Result<Access, NoAccess> {
    let (from, file) = password(spec, "REDIS_PASSWORD")?;
    let port = argument(spec, "--port").and_then(|p| p.parse().ok()).unwrap_or(PORT);
    let connect =
        Connect { host: format!("tasks.{service}"), port, user: String::new(), password_file: file };
    Ok(Access { connect, password: from })
}

/// Where the server has its files.
pub fn directory(spec: &Value) -> &str {
    argument(spec, "--dir").unwrap_or("/data")
}
