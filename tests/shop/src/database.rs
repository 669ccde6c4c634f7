//! Connections to PostgreSQL: few, kept, and made anew as soon as one was ended.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::time::timeout;
use tokio_postgres::error::SqlState;
use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, NoTls, Row};

use crate::Settings;

/// Most connections of one process.
const CONNECTIONS: usize = 8;
/// Longest time for a connection to be had, and for an answer. Callers turn it into 503.
const PATIENCE: Duration = Duration::from_secs(1);

/// The database, or what there is of it.
#[derive(Debug)]
pub struct Database {
    settings: Settings,
    idle: Mutex<Vec<Client>>,
    permits: Semaphore,
}

/// Why a statement gave no rows.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No connection could be made.
    #[error("cannot reach the database")]
    Unreachable(#[source] tokio_postgres::Error),
    /// The password file cannot be read.
    #[error("cannot read the database's password")]
    Password(#[source] std::io::Error),
    /// The connection ended under the statement.
    #[error("the database ended the connection")]
    Ended(#[source] tokio_postgres::Error),
    /// The server refused the statement.
    #[error("the database refused the statement")]
    Refused(#[source] tokio_postgres::Error),
    /// No answer in time.
    #[error("the database did not answer in time")]
    Slow,
}

// === impl Error ===

impl Error {
    /// What the driver or the server said about it.
    pub fn reason(&self) -> String {
        match self {
            Self::Unreachable(error) | Self::Ended(error) | Self::Refused(error) => {
                match error.as_db_error() {
                    Some(said) => said.to_string(),
                    None => std::error::Error::source(error)
                        .map_or_else(|| error.to_string(), ToString::to_string),
                }
            }
            Self::Password(error) => error.to_string(),
            Self::Slow => format!("no answer within {PATIENCE:?}"),
        }
    }

    /// Whether the server was there and said that a table is missing or damaged.
    pub fn is_damage(&self) -> bool {
        let Self::Refused(error) = self else { return false };
        error.code().is_some_and(|code| {
            [
                SqlState::UNDEFINED_TABLE,
                SqlState::UNDEFINED_COLUMN,
                SqlState::INVALID_SCHEMA_NAME,
                SqlState::DATA_CORRUPTED,
                SqlState::INDEX_CORRUPTED,
                SqlState::UNDEFINED_FILE,
                SqlState::IO_ERROR,
            ]
            .contains(code)
        })
    }
}

// === impl Database ===

impl Database {
    /// A database that is not connected to yet.
    pub fn new(settings: Settings) -> Self {
        Self { settings, idle: Mutex::default(), permits: Semaphore::new(CONNECTIONS) }
    }

    /// Rows of a statement that may be repeated: a connection that was ended under it is replaced once, at once.
    pub async fn read(&self, sql: &str, params: &[&(dyn ToSql + Sync)]) -> Result<Vec<Row>, Error> {
        match self.write(sql, params).await {
            Err(Error::Ended(_)) => self.write(sql, params).await,
            other => other,
        }
    }

    /// Rows of a statement that must not be repeated.
    pub async fn write(&self, sql: &str, params: &[&(dyn ToSql + Sync)]) -> Result<Vec<Row>, Error> {
        let Ok(Ok(_permit)) = timeout(PATIENCE, self.permits.acquire()).await else {
            return Err(Error::Slow);
        };
        let client = self.client().await?;
        let rows = match timeout(PATIENCE, client.query(sql, params)).await {
            // The connection is dropped: what is still under way on it must not meet the next caller.
            Err(_) => return Err(Error::Slow),
            Ok(rows) => rows.map_err(classified),
        };
        if !client.is_closed() {
            self.lock().push(client);
        }
        rows
    }

    /// Runs a script of several statements on a connection of its own, with no limit of time.
    pub async fn script(&self, sql: &str) -> Result<(), Error> {
        let client = self.connect().await?;
        client.batch_execute(sql).await.map_err(classified)
    }

    async fn client(&self) -> Result<Client, Error> {
        while let Some(client) = self.pop() {
            if !client.is_closed() {
                return Ok(client);
            }
        }
        timeout(PATIENCE, self.connect()).await.map_err(|_| Error::Slow)?
    }

    fn pop(&self) -> Option<Client> {
        self.lock().pop()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Client>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn connect(&self) -> Result<Client, Error> {
        let Settings { database_host, database_port, database_name, database_user, .. } = &self.settings;
        let mut config = tokio_postgres::Config::new();
        config.host(database_host).port(*database_port).dbname(database_name).user(database_user);
        config.application_name("shop").connect_timeout(PATIENCE);
        if let Some(password) = self.settings.password().map_err(Error::Password)? {
            config.password(password);
        }
        let (client, connection) = config.connect(NoTls).await.map_err(Error::Unreachable)?;
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::info!(%error, "a database connection ended");
            }
        });
        Ok(client)
    }
}

/// Which kind of failure a driver's error is.
fn classified(error: tokio_postgres::Error) -> Error {
    let ended = [SqlState::ADMIN_SHUTDOWN, SqlState::CRASH_SHUTDOWN, SqlState::CANNOT_CONNECT_NOW];
    let is_end = error.is_closed() || error.code().is_none_or(|code| ended.contains(code));
    if is_end { Error::Ended(error) } else { Error::Refused(error) }
}
