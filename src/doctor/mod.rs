//! Examines a configuration from this machine: every step of the service once, in the order in which it can fail.
//!
//! The checks use the service's own code: its configuration, resolver, proxies, TLS settings, connector, store and
//! sender. They change nothing at the platform and in the store, except what the options ask for.
//!
//! `finding` and `advice` are pure: they turn results into lines and next steps.

mod advice;
mod certificate;
mod finding;
mod network;
mod platform;
mod store;
mod webhooks;

use crate::config::Config;
use crate::domain::UserId;

pub use self::finding::{CheckReport, CheckStage, DoctorReport, FindingLevel};

/// The options of an examination.
#[derive(Debug, Clone)]
pub struct DoctorOptions {
    /// The user in whose name the platform is asked.
    pub user: UserId,
    /// A message that each bot gets.
    pub say: Option<String>,
    /// Whether the bots' webhooks get a test event.
    pub post: bool,
}

/// Examines a valid configuration. Takes some minutes at most, if everything is silent.
pub async fn examine(config: &Config, options: &DoctorOptions) -> DoctorReport {
    let mut report = DoctorReport::default();
    for bot in &config.bots {
        platform::examine(bot, options, &mut report).await;
    }
    store::examine(&config.store, &mut report).await;
    webhooks::examine(config, options, &mut report).await;
    report
}
