//! What the shop is told by its environment.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

/// Settings of the shop; the same for the web part and the worker.
#[derive(Args, Clone, Debug)]
pub struct Settings {
    /// Host of the database; looked up anew for every connection
    #[arg(long, env = "DATABASE_HOST", default_value = "db")]
    pub database_host: String,
    /// Port of the database
    #[arg(long, env = "DATABASE_PORT", default_value_t = 5432)]
    pub database_port: u16,
    /// Name of the database
    #[arg(long, env = "DATABASE_NAME", default_value = "shop")]
    pub database_name: String,
    /// User of the database
    #[arg(long, env = "DATABASE_USER", default_value = "shop")]
    pub database_user: String,
    /// File that holds the password
    #[arg(long, env = "DATABASE_PASSWORD_FILE")]
    pub database_password_file: Option<PathBuf>,
    /// Password, where there is no file
    #[arg(long, env = "DATABASE_PASSWORD", hide_env_values = true)]
    pub database_password: Option<String>,
    /// Host of the cache; no cache where absent
    #[arg(long, env = "CACHE_HOST")]
    pub cache_host: Option<String>,
    /// Port of the cache
    #[arg(long, env = "CACHE_PORT", default_value_t = 6379)]
    pub cache_port: u16,
    /// Port to listen on
    #[arg(long, env = "PORT", default_value_t = 8000)]
    pub port: u16,
    /// How long requests are still taken after SIGTERM, in milliseconds
    #[arg(long, env = "DRAIN_MS", default_value_t = 300)]
    pub drain_ms: u64,
    /// Orders to begin with, placed when the schema is made
    #[arg(long, env = "SEED_ORDERS", default_value_t = 0)]
    pub seed_orders: i32,
    /// What a broken release says every second
    #[arg(long, env = "SAYS")]
    pub says: Option<String>,
    /// What a broken release does not give back, MiB each 100 ms
    #[arg(long, env = "LEAKS_MIB")]
    pub leaks_mib: Option<usize>,
}

// === impl Settings ===

impl Settings {
    /// The password, read from its file each time, because files change.
    pub fn password(&self) -> std::io::Result<Option<String>> {
        match &self.database_password_file {
            Some(path) => {
                let text = std::fs::read_to_string(path)?;
                Ok(Some(text.trim_end_matches(['\r', '\n']).to_owned()))
            }
            None => Ok(self.database_password.clone()),
        }
    }

    /// How long requests are still taken after SIGTERM.
    pub fn drain(&self) -> Duration {
        Duration::from_millis(self.drain_ms)
    }
}
