//! All results, as Markdown.

use std::fmt;
use std::fs;

use crate::attacks::AttackFigures;
use crate::comparison::ComparisonFigures;
use crate::doors::DoorFigures;
use crate::failover::{FailoverFigures, FailoverTables};
use crate::growth::GrowthFigures;
use crate::readers::ReaderFigures;
use crate::rhythm::RhythmFigures;
use crate::round_trips::RoundTripFigures;
use crate::speed::SpeedFigures;
use crate::webhooks::WebhookFigures;

/// All results.
#[derive(Default)]
pub(crate) struct BenchReport {
    pub(crate) speed: Option<SpeedFigures>,
    pub(crate) round_trips: Option<RoundTripFigures>,
    pub(crate) failovers: Vec<FailoverFigures>,
    pub(crate) growth: Vec<GrowthFigures>,
    pub(crate) readers: Option<ReaderFigures>,
    pub(crate) webhooks: Option<WebhookFigures>,
    pub(crate) attacks: Option<AttackFigures>,
    pub(crate) rhythm: Option<RhythmFigures>,
    pub(crate) doors: Option<DoorFigures>,
    pub(crate) comparison: Option<ComparisonFigures>,
}

impl fmt::Display for BenchReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}\n", machine())?;
        if let Some(speed) = &self.speed {
            write!(f, "{speed}")?;
        }
        if let Some(round_trips) = &self.round_trips {
            write!(f, "{round_trips}")?;
        }
        if !self.failovers.is_empty() {
            write!(f, "{}", FailoverTables(&self.failovers))?;
        }
        for growth in &self.growth {
            write!(f, "{growth}")?;
        }
        if let Some(readers) = &self.readers {
            write!(f, "{readers}")?;
        }
        if let Some(webhooks) = &self.webhooks {
            write!(f, "{webhooks}")?;
        }
        if let Some(attacks) = &self.attacks {
            write!(f, "{attacks}")?;
        }
        if let Some(rhythm) = &self.rhythm {
            write!(f, "{rhythm}")?;
        }
        if let Some(doors) = &self.doors {
            write!(f, "{doors}")?;
        }
        if let Some(comparison) = &self.comparison {
            write!(f, "{comparison}")?;
        }
        Ok(())
    }
}

/// Describes the machine in one line.
fn machine() -> String {
    let cores = std::thread::available_parallelism().map_or(0, std::num::NonZero::get);
    let field = |file: &str, name: &str| {
        let text = fs::read_to_string(file).unwrap_or_default();
        let line = text.lines().find(|line| line.starts_with(name)).unwrap_or_default().to_owned();
        line.split_once(':').map(|(_, value)| value.trim().to_owned()).unwrap_or_default()
    };
    let gib = field("/proc/meminfo", "MemTotal").trim_end_matches("kB").trim().parse::<f64>().unwrap_or(0.0)
        / 1_048_576.0;
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    format!(
        "rtm-bridge {}; {cores} cores of {}, {gib:.0} GiB, Linux {}; sandbox, bridge, Redis and load share them.",
        env!("CARGO_PKG_VERSION"),
        field("/proc/cpuinfo", "model name"),
        kernel.trim()
    )
}
