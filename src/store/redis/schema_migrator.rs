//! Sets up and migrates the schema of a store on Redis.
//!
//! `PREFIX:schema` is a hash. It maps the number of each migration that ran to its checksum, and holds the facts that
//! the first one fixed. One process at a time migrates, under a lock that expires if its holder dies. Each step
//! compares the lock where it can. Every migration is safe to run twice, so an aborted run is simply repeated.
//!
//! One script carries out and records a migration of the schema key. A migration of the partitions spans the nodes of
//! a cluster. It runs on one partition after the other, some keys at a time, and is recorded at the end. Its script
//! gets the partition's lease key, which leads to the node. Its arguments are the prefix of the partition's keys and
//! a cursor, `0` at first. It returns the next cursor, and `0` or nothing at the end.

use std::collections::BTreeMap;
use std::sync::LazyLock;
use std::time::Duration;

use deadpool_redis::redis::{FromRedisValue, Value};
use tokio::time::{Instant, sleep};

use super::RedisStore;
use super::command_runner::CommandRunner;
use super::script::RedisScript;
use crate::domain::Partition;
use crate::store::schema::{ForeignSchema, MIGRATIONS, Migration, MigrationList, SchemaVerdict};
use crate::store::{StoreError, StoreRefusal};

/// The lifetime of the lock without renewal: longer than any script may run.
const LOCK: Duration = Duration::from_secs(30);
/// The longest wait for the lock. A dead holder has lost it by then.
const LOCK_TIMEOUT: Duration = Duration::from_secs(40);
/// The interval of the attempts to lock.
const PAUSE: Duration = Duration::from_millis(200);

static READ: LazyLock<RedisScript> =
    LazyLock::new(|| RedisScript::new("schema_read", include_str!("scripts/schema_read.lua").to_owned()));
static TAKE: LazyLock<RedisScript> =
    LazyLock::new(|| RedisScript::new("schema_lock", include_str!("scripts/schema_lock.lua").to_owned()));
static GIVE_BACK: LazyLock<RedisScript> =
    LazyLock::new(|| RedisScript::new("schema_unlock", include_str!("scripts/schema_unlock.lua").to_owned()));

/// The reason why the schema could not be migrated. A repeat is always safe.
#[derive(Debug, thiserror::Error)]
pub enum MigrateError {
    /// Redis did not carry out a command.
    #[error("the store's schema cannot be read or changed; look at store.url and at Redis, then try again")]
    Store(#[from] StoreError),
    /// This version must not touch the store.
    #[error(transparent)]
    Foreign(#[from] ForeignSchema),
    /// Another live process holds the lock.
    #[error("another process is migrating the store; wait until it has ended, then try again")]
    Busy,
    /// Another process took the lock, or the store lost it.
    #[error(
        "the lock was lost before the end: this process was too slow, or the store was emptied; try again"
    )]
    LockLost,
}

/// The reason why a replica must not use this store yet.
#[derive(Debug, thiserror::Error)]
pub enum PrepareError {
    /// The store lacks migrations, which run on request only.
    #[error(
        "the store lacks migrations of this version ({0}); run `rtm-bridge migrate --config FILE` with the same configuration"
    )]
    Behind(MigrationList),
    /// The store cannot be read or set up, or is foreign.
    #[error(transparent)]
    Migrate(#[from] MigrateError),
}

/// The result of `migrate`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MigrationReport {
    /// The store lacked no migration.
    Current,
    /// The store lacks these migrations. It was not changed.
    Missing(MigrationList),
    /// These migrations ran.
    Applied(MigrationList),
}

impl RedisStore {
    pub(in crate::store) async fn prepare(&self) -> Result<(), PrepareError> {
        self.migrator().prepare().await
    }

    /// Runs the migrations that the store lacks. With `check` it only lists them.
    ///
    /// # Errors
    /// [`MigrateError`]. Earlier migrations of the run stay.
    pub async fn migrate(&self, check: bool) -> Result<MigrationReport, MigrateError> {
        let migrator = self.migrator();
        if check { migrator.check().await } else { migrator.migrate().await }
    }

    fn migrator(&self) -> SchemaMigrator<'_> {
        SchemaMigrator {
            runner: &self.0.runner,
            keys: SchemaKeys::new(self.0.keys.prefix()),
            known: MIGRATIONS,
            lock_timeout: LOCK_TIMEOUT,
        }
    }
}

/// The keys of the schema. The lock is in the schema's slot and begins with the prefix like every key.
struct SchemaKeys<'a> {
    prefix: &'a str,
    schema: String,
    lock: String,
}

impl<'a> SchemaKeys<'a> {
    fn new(prefix: &'a str) -> Self {
        let schema = format!("{prefix}:schema");
        Self { prefix, lock: format!("{prefix}:{{{schema}}}:lock"), schema }
    }

    /// Returns the prefix of a partition's keys.
    fn of(&self, partition: Partition) -> String {
        format!("{}:{{{partition}}}:", self.prefix)
    }
}

/// The migrator of one store to these migrations.
struct SchemaMigrator<'a> {
    runner: &'a CommandRunner,
    keys: SchemaKeys<'a>,
    known: &'a [Migration],
    lock_timeout: Duration,
}

impl SchemaMigrator<'_> {
    async fn schema(&self) -> Result<SchemaVerdict, StoreError> {
        match self.runner.run(READ.call(&[&self.keys.schema])).await? {
            fields @ (Value::Array(_) | Value::Map(_)) => {
                Ok(SchemaVerdict::of(self.known, &read::<BTreeMap<String, String>>(fields)?))
            }
            kind => Ok(ForeignSchema::NotASchema { key: self.keys.schema.clone(), kind: read(kind)? }.into()),
        }
    }

    async fn prepare(&self) -> Result<(), PrepareError> {
        match self.schema().await.map_err(MigrateError::from)? {
            SchemaVerdict::Current => Ok(()),
            SchemaVerdict::Behind(missing) => Err(PrepareError::Behind(missing)),
            SchemaVerdict::Foreign(foreign) => Err(MigrateError::from(foreign).into()),
            SchemaVerdict::Empty => {
                // If another replica was faster, there is nothing to log.
                if let MigrationReport::Applied(applied) = self.migrate().await? {
                    tracing::info!(migrations = %applied, "the store was empty and is set up");
                }
                Ok(())
            }
        }
    }

    async fn check(&self) -> Result<MigrationReport, MigrateError> {
        match self.schema().await? {
            SchemaVerdict::Current => Ok(MigrationReport::Current),
            SchemaVerdict::Empty => Ok(MigrationReport::Missing(MigrationList(self.known.to_vec()))),
            SchemaVerdict::Behind(missing) => Ok(MigrationReport::Missing(missing)),
            SchemaVerdict::Foreign(foreign) => Err(foreign.into()),
        }
    }

    async fn migrate(&self) -> Result<MigrationReport, MigrateError> {
        // A store that needs nothing or is foreign needs no lock either.
        let MigrationReport::Missing(_) = self.check().await? else { return Ok(MigrationReport::Current) };
        let token = format!("{:032x}", fastrand::u128(..));
        let lock_timeout = Instant::now() + self.lock_timeout;
        while !self.lock(&token).await? {
            if Instant::now() > lock_timeout {
                return Err(MigrateError::Busy);
            }
            sleep(PAUSE).await;
        }
        let result = self.carry_out(&token).await;
        let given_back = self.runner.run(GIVE_BACK.call(&[&self.keys.lock]).arg(&token)).await;
        if let Err(error) = given_back {
            tracing::debug!(%error, "the lock could not be released; it expires by itself");
        }
        result
    }

    /// Runs the missing migrations under the lock.
    async fn carry_out(&self, token: &str) -> Result<MigrationReport, MigrateError> {
        let MigrationReport::Missing(missing) = self.check().await? else {
            return Ok(MigrationReport::Current);
        };
        for migration in &missing.0 {
            tracing::info!(%migration, "migrating the store");
            if migration.is_on_partitions() {
                self.change_partitions(migration, token).await?;
            } else {
                self.keep_lock(token).await?;
            }
            self.record(migration, token).await?;
        }
        // The store itself confirms the result, facts included.
        match self.schema().await? {
            SchemaVerdict::Current => Ok(MigrationReport::Applied(missing)),
            SchemaVerdict::Foreign(foreign) => Err(foreign.into()),
            SchemaVerdict::Empty | SchemaVerdict::Behind(_) => Err(MigrateError::LockLost),
        }
    }

    async fn change_partitions(&self, migration: &Migration, token: &str) -> Result<(), MigrateError> {
        let script = RedisScript::new("schema_partition", format!("#!lua\n{}", migration.text));
        for partition in Partition::all() {
            let prefix = self.keys.of(partition);
            let mut cursor = "0".to_owned();
            loop {
                self.keep_lock(token).await?;
                let call = script.call(&[&format!("{prefix}lease")]).arg(&prefix).arg(&cursor);
                match read::<Option<String>>(self.runner.run(call).await?)? {
                    Some(next) if next != "0" => cursor = next,
                    _ => break,
                }
            }
        }
        Ok(())
    }

    /// Records a migration. One of the schema key is carried out in the same step.
    async fn record(&self, migration: &Migration, token: &str) -> Result<(), MigrateError> {
        let script = RedisScript::new("schema_apply", applying(migration));
        let call = script.call(&[&self.keys.schema, &self.keys.lock]);
        let call = call.arg(token).arg(migration.number).arg(migration.checksum());
        if read::<bool>(self.runner.run(call).await?)? { Ok(()) } else { Err(MigrateError::LockLost) }
    }

    async fn keep_lock(&self, token: &str) -> Result<(), MigrateError> {
        if self.lock(token).await? { Ok(()) } else { Err(MigrateError::LockLost) }
    }

    /// Takes the lock or renews it. Returns false if another process holds it.
    async fn lock(&self, token: &str) -> Result<bool, StoreError> {
        let millis = u64::try_from(LOCK.as_millis()).unwrap_or(u64::MAX);
        read(self.runner.run(TAKE.call(&[&self.keys.lock]).arg(token).arg(millis)).await?)
    }
}

/// Returns the script that records a migration, and carries out one of the schema key.
fn applying(migration: &Migration) -> String {
    let body = if migration.is_on_partitions() { "" } else { migration.text };
    include_str!("scripts/schema_apply.lua").replace("--[[migration]]", body)
}

/// Converts the answer of a script.
fn read<T: FromRedisValue>(value: Value) -> Result<T, StoreError> {
    T::from_redis_value(value).map_err(|error| {
        tracing::warn!(%error, "unexpected answer of a schema script");
        StoreError::Unavailable(StoreRefusal::Unexpected)
    })
}

#[cfg(test)]
mod tests;
