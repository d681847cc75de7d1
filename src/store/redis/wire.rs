//! The connections to Redis: one for each thread that asks.

use std::cell::RefCell;
use std::collections::HashMap;
use std::time::Duration;

use deadpool_redis::redis::aio::{ConnectionLike as _, MultiplexedConnection};
use deadpool_redis::redis::{AsyncConnectionConfig, ErrorKind, RedisError, ServerErrorKind, Value};
use deadpool_redis::{Manager, Pool};
use tokio::time::timeout;

use super::SetupError;
use super::script::Call;
use crate::config::{self, RedisServers, StoreUrl, Topology};
use crate::store::{Refusal, StoreError};

thread_local! {
    static HELD: RefCell<HashMap<u64, MultiplexedConnection>> = RefCell::default();
}

/// How to reach Redis; the connections themselves stay on their threads.
#[derive(Debug)]
pub(super) struct Wire {
    number: u64,
    url: String,
    timeout: Duration,
}

impl Wire {
    pub(super) fn new(options: &config::Store) -> Result<Self, SetupError> {
        let StoreUrl::Redis(RedisServers { topology: Topology::Alone(address), database, .. }) = &options.url
        else {
            return Err(SetupError::Url((ErrorKind::InvalidClientConfig, "only redis:// yet").into()));
        };
        let url = format!("redis://{}:{}/{database}", address.host, address.port);
        Ok(Self { number: fastrand::u64(..), url, timeout: options.command_timeout })
    }

    /// Runs a script.
    pub(super) async fn run(&self, call: Call<'_>) -> Result<Value, StoreError> {
        match timeout(self.timeout, self.eval(&call)).await {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(error)) => {
                tracing::debug!(script = call.script.name, %error, "Redis refused");
                Err(StoreError::Unavailable(Refusal::Unexpected))
            }
            Err(_) => Err(StoreError::Unknown(self.timeout)),
        }
    }

    async fn eval(&self, call: &Call<'_>) -> Result<Value, RedisError> {
        let mut connection = self.connection().await?;
        // What the server refuses is a value at first.
        let answer = connection.req_packed_command(call.by_hash()).await.and_then(Value::extract_error);
        match answer {
            Err(error) if error.kind() == ErrorKind::Server(ServerErrorKind::NoScript) => {
                connection.req_packed_command(&call.by_text()).await.and_then(Value::extract_error)
            }
            result => result,
        }
    }

    async fn connection(&self) -> Result<MultiplexedConnection, RedisError> {
        if let Some(held) = HELD.with_borrow(|held| held.get(&self.number).cloned()) {
            return Ok(held);
        }
        Box::pin(self.connect()).await
    }

    async fn connect(&self) -> Result<MultiplexedConnection, RedisError> {
        let config = AsyncConnectionConfig::new().set_response_timeout(None);
        let manager = Manager::new_with_config(self.url.as_str(), config)?;
        let pool = Pool::builder(manager).max_size(1).build().map_err(|_| unexpected())?;
        let connection = pool.get().await.map_err(|_| unexpected())?;
        let connection = deadpool_redis::Connection::take(connection);
        HELD.with_borrow_mut(|held| held.insert(self.number, connection.clone()));
        Ok(connection)
    }
}

fn unexpected() -> RedisError {
    (ErrorKind::Io, "no connection").into()
}
