//! Redis as a cache beside a database.

use serde_json::Value;
use skep_runner::task::Connect;

use super::{Access, NoAccess, password};

/// How to reach the server of a service, to empty it.
///
/// # Errors
/// When the spec does not say where the password is.
pub fn access(service: &str, spec: &Value) -> Result<Access, NoAccess> {
    let (from, file) = password(spec, "REDIS_PASSWORD")?;
    let connect =
        Connect { host: format!("tasks.{service}"), port: 6379, user: String::new(), password_file: file };
    Ok(Access { connect, password: from })
}
