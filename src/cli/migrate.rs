//! `rtm-bridge migrate`

use clap::Args;

use super::{ConfigFile, Failure, print};
use crate::config::StoreUrl;
use crate::store::{MigrateError, MigrationReport, RedisSetupError, RedisStore};
use crate::{runtime, telemetry};

/// Bring the store to this version's schema, while replicas of the version before it serve.
///
/// Run it before each upgrade. Where nothing is to be done it does nothing, and it may be run again after whatever
/// interrupted it. An empty store is set up by `serve` too; `memory://` needs none of this.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    rtm-bridge migrate --check --config /etc/rtm-bridge.toml\n  \
    rtm-bridge migrate --config /etc/rtm-bridge.toml")]
pub(super) struct Migrate {
    #[command(flatten)]
    config: ConfigFile,
    /// Change nothing: say what is missing, and exit with 1 if anything is.
    #[arg(long)]
    check: bool,
}

/// Why the store does not have this version's schema.
#[derive(Debug, thiserror::Error)]
pub(super) enum NotMigrated {
    #[error(transparent)]
    Setup(#[from] RedisSetupError),
    #[error(transparent)]
    Migrate(#[from] MigrateError),
    #[error("the store lacks migrations; run `rtm-bridge migrate` without --check")]
    Missing,
}

impl Migrate {
    pub(super) fn run(self) -> Result<(), Failure> {
        let (config, _) = self.config.load()?;
        if config.store.url == StoreUrl::Memory {
            return Ok(print("store.url is memory://, which needs no migrations.\n")?);
        }
        telemetry::start(&config.log)?;
        let store = RedisStore::new(&config.store).map_err(NotMigrated::from)?;
        let report = runtime::block_on(store.migrate(self.check)).map_err(Failure::Runtime)?;
        match report.map_err(NotMigrated::from)? {
            MigrationReport::Current => {
                print("The store has this version's schema; nothing is to be done.\n")?
            }
            MigrationReport::Applied(applied) => {
                print(&format!("Carried out: {applied}. The store has this version's schema now.\n"))?;
            }
            MigrationReport::Missing(missing) => {
                print(&format!("Not carried out yet: {missing}.\n"))?;
                return Err(NotMigrated::Missing.into());
            }
        }
        Ok(())
    }
}
