//! Everything that was measured, as Markdown.

use std::fmt;
use std::fs;

use crate::growth::Growth;
use crate::readers::Reading;
use crate::speed::Speed;
use crate::takeover::{Tables, Takeover};
use crate::trips::Trips;
use crate::webhooks::Hooked;

/// Everything that was measured.
#[derive(Default)]
pub(crate) struct Report {
    pub(crate) speed: Option<Speed>,
    pub(crate) trips: Option<Trips>,
    pub(crate) takeover: Vec<Takeover>,
    pub(crate) growth: Vec<Growth>,
    pub(crate) reading: Option<Reading>,
    pub(crate) hooked: Option<Hooked>,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}\n", machine())?;
        if let Some(speed) = &self.speed {
            write!(f, "{speed}")?;
        }
        if let Some(trips) = &self.trips {
            write!(f, "{trips}")?;
        }
        if !self.takeover.is_empty() {
            write!(f, "{}", Tables(&self.takeover))?;
        }
        for growth in &self.growth {
            write!(f, "{growth}")?;
        }
        if let Some(reading) = &self.reading {
            write!(f, "{reading}")?;
        }
        if let Some(hooked) = &self.hooked {
            write!(f, "{hooked}")?;
        }
        Ok(())
    }
}

/// The machine, in one line.
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
