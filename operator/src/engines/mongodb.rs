//! MongoDB as the official image configures it: the whole server, by the login of its first user.

use serde_json::Value;
use skep_runner::task::Connect;

use super::{Access, Given, NoAccess, env, given, password};

/// The port where nothing is said.
const PORT: u16 = 27017;
/// Sets the first user; the password comes likewise.
const USER: &str = "MONGO_INITDB_ROOT_USERNAME";
/// Names the file with that user, which nobody but the service reads.
const USER_FILE: &str = "MONGO_INITDB_ROOT_USERNAME_FILE";

/// How to reach the server of a service; without a first user it asks for no login.
///
/// # Errors
/// When the spec does not say who the user is, or where the password is.
pub fn access(service: &str, spec: &Value) -> Result<Access, NoAccess> {
    if env(spec, USER_FILE).is_some() {
        return Err(NoAccess::UserInFile { variable: USER_FILE, instead: USER });
    }
    let (from, file) = password(spec, "MONGO_INITDB_ROOT_PASSWORD")?;
    let port = match given(spec, "--port") {
        Some(Given::Word(port)) => port.parse().unwrap_or(PORT),
        Some(Given::Variable(_) | Given::File(_)) | None => PORT,
    };
    let user = env(spec, USER).unwrap_or_default().to_owned();
    let connect = Connect { host: format!("tasks.{service}"), port, user, password_file: file };
    Ok(Access { connect, password: from })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::Password;
    use super::*;

    fn spec(env: &[&str], args: &[&str]) -> Value {
        json!({"TaskTemplate": {"ContainerSpec": {"Env": env, "Args": args, "Secrets": [{"File": {"Name": "pw"}}]}}})
    }

    #[test]
    fn the_login_is_that_of_the_first_user_or_none() {
        let found = access(
            "shop_db",
            &spec(&["MONGO_INITDB_ROOT_USERNAME=root", "MONGO_INITDB_ROOT_PASSWORD=x"], &[]),
        );
        let found = found.unwrap();
        assert_eq!((found.connect.host.as_str(), found.connect.port), ("tasks.shop_db", 27017));
        assert_eq!((found.connect.user.as_str(), found.connect.password_file.is_some()), ("root", true));
        let file = ["MONGO_INITDB_ROOT_USERNAME=root", "MONGO_INITDB_ROOT_PASSWORD_FILE=/run/secrets/pw"];
        let found = access("shop_db", &spec(&file, &["--port", "27018"])).unwrap();
        assert_eq!((found.password, found.connect.port), (Password::File, 27018));
        let found = access("shop_db", &spec(&[], &[])).unwrap();
        assert_eq!((found.password, found.connect.user.as_str()), (Password::Nowhere, ""));
        let hidden = access("shop_db", &spec(&["MONGO_INITDB_ROOT_USERNAME_FILE=/run/secrets/u"], &[]));
        assert!(hidden.unwrap_err().to_string().contains("MONGO_INITDB_ROOT_USERNAME"));
    }
}
