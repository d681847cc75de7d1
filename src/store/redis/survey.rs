//! A survey of Redis for `rtm-bridge doctor`: its version, and the rights of our user.
//!
//! The rights are tried, because the documented user may not ask for them.

use std::sync::LazyLock;

use deadpool_redis::redis::{Value, cmd, from_redis_value};
use tokio::time::timeout;

use super::RedisStore;
use super::script::RedisScript;
use crate::domain::Timestamp;
use crate::store::{StoreError, StoreRefusal};

static RIGHTS: LazyLock<RedisScript> =
    LazyLock::new(|| RedisScript::new("rights", include_str!("scripts/rights.lua").to_owned()));

/// The facts of a Redis that do not change while it runs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RedisSurvey {
    /// The version; `None` if `INFO` is not allowed.
    pub version: Option<String>,
    /// The rights that our user lacks, in the words of `ACL SETUSER`.
    pub missing_rights: Vec<String>,
}

impl RedisStore {
    /// Returns the time of the server, by one round trip.
    ///
    /// # Errors
    /// Redis does not answer.
    pub async fn server_time(&self) -> Result<Timestamp, StoreError> {
        self.now().await
    }

    /// Looks at the version of Redis and tries the rights of our user, on a key that is deleted again.
    ///
    /// # Errors
    /// Redis cannot be reached, or refuses scripts on our keys.
    pub async fn survey(&self) -> Result<RedisSurvey, StoreError> {
        let runner = &self.0.runner;
        let prefix = self.0.keys.prefix();
        let key = format!("{prefix}:{{doctor}}");
        let channel = format!("{prefix}:doctor");
        let denied = runner.run(RIGHTS.call(&[&key]).arg(&channel)).await?;
        let denied: Vec<String> =
            from_redis_value(denied).map_err(|_| StoreError::Unavailable(StoreRefusal::Unexpected))?;
        let mut missing_rights: Vec<String> =
            denied.iter().map(|name| format!("+{}", name.to_lowercase())).collect();
        let connector = runner.connector();
        let subscribing = async {
            // Subscriptions need a connection that takes pushes.
            let options =
                connector.connection_options().set_push_sender(|_| Ok::<_, std::convert::Infallible>(()));
            connector.open_one(0, options).await?.subscribe(&channel).await
        };
        if matches!(timeout(runner.timeout(), subscribing).await, Ok(Err(_))) {
            missing_rights.push(format!("+subscribe &{prefix}:*"));
        }
        let info = runner.on_masters(cmd("INFO").arg("server")).await.unwrap_or_default();
        let version = info.into_iter().find_map(|answer| match answer {
            Value::Nil => None,
            answer => {
                let text: String = from_redis_value(answer).ok()?;
                text.lines().find_map(|line| line.trim().strip_prefix("redis_version:").map(str::to_owned))
            }
        });
        Ok(RedisSurvey { version, missing_rights })
    }
}
