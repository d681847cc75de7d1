//! `rtm-bridge migrate`

use clap::Args;

use super::{CommandError, ConfigArgs, print};
use crate::config::StoreUrl;
use crate::store::{KindMismatch, MigrateError, MigrationReport, RedisSetupError, RedisStore};
use crate::{runtime, telemetry};

/// Bring the store to this version's schema while replicas of the previous version run.
///
/// Run it before each upgrade. It is safe to repeat, also after an interruption, and changes nothing if the schema is
/// current. An empty store needs no migration, because `serve` creates the schema; neither does `memory://`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    rtm-bridge migrate --check --config /etc/rtm-bridge.toml\n  \
    rtm-bridge migrate --config /etc/rtm-bridge.toml")]
pub(super) struct MigrateCommand {
    #[command(flatten)]
    config: ConfigArgs,
    /// Change nothing: print the missing migrations, and exit with 1 if there are any.
    #[arg(long)]
    check: bool,
}

/// Why the store does not have this version's schema.
#[derive(Debug, thiserror::Error)]
pub(super) enum MigrateCommandError {
    #[error(transparent)]
    Setup(#[from] RedisSetupError),
    #[error(transparent)]
    Kind(#[from] KindMismatch),
    #[error(transparent)]
    Migrate(#[from] MigrateError),
    #[error("the store lacks migrations; run `rtm-bridge migrate` without --check")]
    Missing,
}

impl MigrateCommand {
    pub(super) fn run(self) -> Result<(), CommandError> {
        let (config, _) = self.config.load()?;
        if config.store.url == StoreUrl::Memory {
            return Ok(print("store.url is memory://, which needs no migrations.\n")?);
        }
        telemetry::start(&config.log)?;
        let store = RedisStore::new(&config.store).map_err(MigrateCommandError::from)?;
        let report = runtime::block_on(async {
            match store.migrate(self.check).await {
                Ok(report) => Ok(report),
                Err(error) => match RedisStore::kind_mismatch(&config.store).await {
                    Some(mismatch) => Err(MigrateCommandError::from(mismatch)),
                    None => Err(error.into()),
                },
            }
        });
        match report.map_err(CommandError::Runtime)?? {
            MigrationReport::Current => {
                print("The store has this version's schema; there is nothing to migrate.\n")?;
            }
            MigrationReport::Applied(applied) => {
                print(&format!("Applied: {applied}. The store has this version's schema now.\n"))?;
            }
            MigrationReport::Missing(missing) => {
                print(&format!("Missing: {missing}.\n"))?;
                return Err(MigrateCommandError::Missing.into());
            }
        }
        Ok(())
    }
}
