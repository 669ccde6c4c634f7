//! The product list in Redis. Without a cache, or with a broken one, everything still works.

use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{AsyncCommands, RedisError};
use tokio::sync::Mutex;
use tokio::time::timeout;

/// Longest time that a request waits for the cache.
const PATIENCE: Duration = Duration::from_millis(250);
/// How long an entry lives, in seconds.
const LIFETIME_S: u64 = 30;

/// A cache that is connected to when it is first used, and again after each failure.
#[derive(Default)]
pub struct Cache {
    address: Option<String>,
    connection: Mutex<Option<MultiplexedConnection>>,
}

// === impl Cache ===

impl Cache {
    /// The cache at `host:port`, or none.
    pub fn new(host: Option<&str>, port: u16) -> Self {
        Self { address: host.map(|host| format!("redis://{host}:{port}/")), connection: Mutex::default() }
    }

    /// The value of `key`.
    pub async fn get(&self, key: &str) -> Option<String> {
        let mut connection = self.connection().await?;
        let answer = timeout(PATIENCE, connection.get::<_, Option<String>>(key)).await;
        self.settle(answer.ok()?).await.flatten()
    }

    /// Stores `value` under `key` for half a minute.
    pub async fn set(&self, key: &str, value: &str) {
        let Some(mut connection) = self.connection().await else { return };
        let answer = timeout(PATIENCE, connection.set_ex::<_, _, ()>(key, value, LIFETIME_S)).await;
        if let Ok(answer) = answer {
            self.settle(answer).await;
        }
    }

    async fn connection(&self) -> Option<MultiplexedConnection> {
        let address = self.address.as_deref()?;
        let mut held = self.connection.lock().await;
        if held.is_none() {
            *held = timeout(PATIENCE, connect(address)).await.ok()?.ok();
        }
        held.clone()
    }

    /// The value, or the connection forgotten.
    async fn settle<T>(&self, answer: Result<T, RedisError>) -> Option<T> {
        match answer {
            Ok(value) => Some(value),
            Err(error) => {
                tracing::info!(%error, "the cache failed");
                *self.connection.lock().await = None;
                None
            }
        }
    }
}

async fn connect(address: &str) -> Result<MultiplexedConnection, RedisError> {
    redis::Client::open(address)?.get_multiplexed_async_connection().await
}
