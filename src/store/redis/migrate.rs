//! Sets up and migrates the schema of a store on Redis.
//!
//! `PREFIX:schema` is a hash: number → checksum for each migration that was carried out, and the facts that the
//! first one fixed. One process at a time migrates, under a lock that a dead one loses by time; each step compares
//! the lock where it can, and every migration is safe to run twice, so that a migrator which is cut off at any point
//! is simply run again.
//!
//! A migration of the schema key is carried out and recorded by one script. One of the partitions cannot be, because
//! in a cluster they are on other nodes: it runs on one partition after the other, some keys at a time, and is
//! recorded when it has gone through all of them. Its script gets the partition's lease key, for the way to its node,
//! and as arguments the beginning of the partition's keys and a cursor, `0` at first; it returns the cursor to go on
//! with, and `0` or nothing at the end.

use std::collections::BTreeMap;
use std::sync::LazyLock;
use std::time::Duration;

use deadpool_redis::redis::{FromRedisValue, Value};
use tokio::time::{Instant, sleep};

use super::RedisStore;
use super::script::Script;
use super::wire::Wire;
use crate::domain::Partition;
use crate::store::schema::{ForeignSchema, MIGRATIONS, Migration, MigrationList, Schema};
use crate::store::{StoreError, StoreRefusal};

/// How long the lock lives without renewal: longer than any script may run.
const LOCK: Duration = Duration::from_secs(30);
/// How long to wait for the lock: a dead holder has lost it by then.
const PATIENCE: Duration = Duration::from_secs(40);
/// Between two looks at the lock.
const PAUSE: Duration = Duration::from_millis(200);

static READ: LazyLock<Script> =
    LazyLock::new(|| Script::new("schema_read", include_str!("scripts/schema_read.lua").to_owned()));
static TAKE: LazyLock<Script> =
    LazyLock::new(|| Script::new("schema_lock", include_str!("scripts/schema_lock.lua").to_owned()));
static GIVE_BACK: LazyLock<Script> =
    LazyLock::new(|| Script::new("schema_unlock", include_str!("scripts/schema_unlock.lua").to_owned()));

/// Why the schema could not be brought to this version's. Whatever it was: doing it again is safe.
#[derive(Debug, thiserror::Error)]
pub enum MigrateError {
    /// Redis did not do what it was asked for.
    #[error("the store's schema cannot be read or changed; look at store.url and at Redis, then try again")]
    Store(#[from] StoreError),
    /// The store is not one that this version may touch.
    #[error(transparent)]
    Foreign(#[from] ForeignSchema),
    /// Another process holds the lock, and is alive.
    #[error("another process is migrating the store; wait until it has ended, then try again")]
    Busy,
    /// The lock went to another process meanwhile, or the store lost it.
    #[error(
        "the lock was lost before the end: this process was too slow, or the store was emptied; try again"
    )]
    LockLost,
}

/// Why a replica must not serve from this store yet.
#[derive(Debug, thiserror::Error)]
pub enum PrepareError {
    /// Migrations are to come, which are not run without being asked for.
    #[error(
        "the store lacks migrations of this version ({0}); run `rtm-bridge migrate --config FILE` with the same configuration"
    )]
    Behind(MigrationList),
    /// It cannot be read or set up, or is none of ours.
    #[error(transparent)]
    Migrate(#[from] MigrateError),
}

/// What `migrate` did, or would do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MigrationReport {
    /// There was nothing to do.
    Current,
    /// These are to be carried out; nothing was done.
    Missing(MigrationList),
    /// These were carried out.
    Applied(MigrationList),
}

impl RedisStore {
    pub(in crate::store) async fn prepare(&self) -> Result<(), PrepareError> {
        self.migrator().prepare().await
    }

    /// Carries out the migrations that the store lacks; with `check` only says which these are.
    ///
    /// # Errors
    /// [`MigrateError`]. Migrations that were carried out before it stay.
    pub async fn migrate(&self, check: bool) -> Result<MigrationReport, MigrateError> {
        let migrator = self.migrator();
        if check { migrator.check().await } else { migrator.migrate().await }
    }

    fn migrator(&self) -> Migrator<'_> {
        Migrator {
            wire: &self.0.wire,
            keys: Keys::new(self.0.keys.prefix()),
            known: MIGRATIONS,
            patience: PATIENCE,
        }
    }
}

/// The keys of the schema. The lock has the schema's slot, and like every key of ours begins with the prefix.
struct Keys<'a> {
    prefix: &'a str,
    schema: String,
    lock: String,
}

impl<'a> Keys<'a> {
    fn new(prefix: &'a str) -> Self {
        let schema = format!("{prefix}:schema");
        Self { prefix, lock: format!("{prefix}:{{{schema}}}:lock"), schema }
    }

    /// What the keys of a partition begin with.
    fn of(&self, partition: Partition) -> String {
        format!("{}:{{{partition}}}:", self.prefix)
    }
}

/// Brings one store to the schema of these migrations.
struct Migrator<'a> {
    wire: &'a Wire,
    keys: Keys<'a>,
    known: &'a [Migration],
    patience: Duration,
}

impl Migrator<'_> {
    async fn schema(&self) -> Result<Schema, StoreError> {
        match self.wire.run(READ.call(&[&self.keys.schema])).await? {
            fields @ (Value::Array(_) | Value::Map(_)) => {
                Ok(Schema::of(self.known, &read::<BTreeMap<String, String>>(fields)?))
            }
            kind => Ok(ForeignSchema::NotASchema { key: self.keys.schema.clone(), kind: read(kind)? }.into()),
        }
    }

    async fn prepare(&self) -> Result<(), PrepareError> {
        match self.schema().await.map_err(MigrateError::from)? {
            Schema::Current => Ok(()),
            Schema::Behind(missing) => Err(PrepareError::Behind(missing)),
            Schema::Foreign(foreign) => Err(MigrateError::from(foreign).into()),
            Schema::Empty => {
                // Where another replica was faster there is nothing to tell.
                if let MigrationReport::Applied(applied) = self.migrate().await? {
                    tracing::info!(migrations = %applied, "the store was empty and is set up");
                }
                Ok(())
            }
        }
    }

    async fn check(&self) -> Result<MigrationReport, MigrateError> {
        match self.schema().await? {
            Schema::Current => Ok(MigrationReport::Current),
            Schema::Empty => Ok(MigrationReport::Missing(MigrationList(self.known.to_vec()))),
            Schema::Behind(missing) => Ok(MigrationReport::Missing(missing)),
            Schema::Foreign(foreign) => Err(foreign.into()),
        }
    }

    async fn migrate(&self) -> Result<MigrationReport, MigrateError> {
        // What needs nothing, or cannot be helped, needs no lock either.
        let MigrationReport::Missing(_) = self.check().await? else { return Ok(MigrationReport::Current) };
        let token = format!("{:032x}", fastrand::u128(..));
        let patience = Instant::now() + self.patience;
        while !self.lock(&token).await? {
            if Instant::now() > patience {
                return Err(MigrateError::Busy);
            }
            sleep(PAUSE).await;
        }
        let result = self.carry_out(&token).await;
        let given_back = self.wire.run(GIVE_BACK.call(&[&self.keys.lock]).arg(&token)).await;
        if let Err(error) = given_back {
            tracing::debug!(%error, "the lock could not be given back; it expires by itself");
        }
        result
    }

    /// Carries out what is missing, now that nobody else does.
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
        // The last word has what the store says now, facts included.
        match self.schema().await? {
            Schema::Current => Ok(MigrationReport::Applied(missing)),
            Schema::Foreign(foreign) => Err(foreign.into()),
            Schema::Empty | Schema::Behind(_) => Err(MigrateError::LockLost),
        }
    }

    async fn change_partitions(&self, migration: &Migration, token: &str) -> Result<(), MigrateError> {
        let script = Script::new("schema_partition", format!("#!lua\n{}", migration.text));
        for partition in Partition::all() {
            let prefix = self.keys.of(partition);
            let mut cursor = "0".to_owned();
            loop {
                self.keep_lock(token).await?;
                let call = script.call(&[&format!("{prefix}lease")]).arg(&prefix).arg(&cursor);
                match read::<Option<String>>(self.wire.run(call).await?)? {
                    Some(next) if next != "0" => cursor = next,
                    _ => break,
                }
            }
        }
        Ok(())
    }

    /// Records a migration, in one step with carrying it out where it is one of the schema key.
    async fn record(&self, migration: &Migration, token: &str) -> Result<(), MigrateError> {
        let script = Script::new("schema_apply", applying(migration));
        let call = script.call(&[&self.keys.schema, &self.keys.lock]);
        let call = call.arg(token).arg(migration.number).arg(migration.checksum());
        if read::<bool>(self.wire.run(call).await?)? { Ok(()) } else { Err(MigrateError::LockLost) }
    }

    async fn keep_lock(&self, token: &str) -> Result<(), MigrateError> {
        if self.lock(token).await? { Ok(()) } else { Err(MigrateError::LockLost) }
    }

    /// Takes the lock or keeps it for longer; false where it is another's.
    async fn lock(&self, token: &str) -> Result<bool, StoreError> {
        let millis = u64::try_from(LOCK.as_millis()).unwrap_or(u64::MAX);
        read(self.wire.run(TAKE.call(&[&self.keys.lock]).arg(token).arg(millis)).await?)
    }
}

/// The script that records a migration, with what it does there.
fn applying(migration: &Migration) -> String {
    let body = if migration.is_on_partitions() { "" } else { migration.text };
    include_str!("scripts/schema_apply.lua").replace("--[[migration]]", body)
}

/// What a script answered.
fn read<T: FromRedisValue>(value: Value) -> Result<T, StoreError> {
    T::from_redis_value(value).map_err(|error| {
        tracing::warn!(%error, "the schema's script answered something unexpected");
        StoreError::Unavailable(StoreRefusal::Unexpected)
    })
}

#[cfg(test)]
mod tests;
