//! Metrics of this process on Linux, under the names that all Prometheus clients use.

use std::fs;

use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{Counter, Error, IntGauge};
use rustix::param::{clock_ticks_per_second, page_size};
use rustix::process::{Resource, getrlimit};

/// Reads `/proc` at each scrape.
#[derive(Debug)]
pub(super) struct ProcessCollector {
    cpu: Counter,
    open_files: IntGauge,
    max_files: IntGauge,
    virtual_memory: IntGauge,
    resident_memory: IntGauge,
    start_time: IntGauge,
    threads: IntGauge,
}

impl ProcessCollector {
    pub(super) fn new() -> Result<Self, Error> {
        Ok(Self {
            cpu: Counter::new(
                "process_cpu_seconds_total",
                "Total user and system CPU time spent in seconds.",
            )?,
            open_files: IntGauge::new("process_open_fds", "Number of open file descriptors.")?,
            max_files: IntGauge::new("process_max_fds", "Maximum number of open file descriptors.")?,
            virtual_memory: IntGauge::new("process_virtual_memory_bytes", "Virtual memory size in bytes.")?,
            resident_memory: IntGauge::new(
                "process_resident_memory_bytes",
                "Resident memory size in bytes.",
            )?,
            start_time: IntGauge::new(
                "process_start_time_seconds",
                "Start time of the process since unix epoch in seconds.",
            )?,
            threads: IntGauge::new("process_threads", "Number of OS threads in the process.")?,
        })
    }

    fn metrics(&self) -> [&dyn Collector; 7] {
        [
            &self.cpu,
            &self.open_files,
            &self.max_files,
            &self.virtual_memory,
            &self.resident_memory,
            &self.start_time,
            &self.threads,
        ]
    }

    fn update(&self) {
        let ticks = clock_ticks_per_second();
        if let Some(stat) = fs::read_to_string("/proc/self/stat").ok().as_deref().and_then(ProcessStat::parse)
        {
            #[expect(clippy::cast_precision_loss, reason = "a float holds more ticks than there ever are")]
            let cpu = stat.cpu_ticks as f64 / ticks as f64;
            // Two readers at once may come in the wrong order, and a counter cannot fall.
            self.cpu.inc_by((cpu - self.cpu.get()).max(0.0));
            set(&self.virtual_memory, stat.virtual_bytes);
            set(&self.resident_memory, stat.resident_pages.saturating_mul(page_size() as u64));
            set(&self.threads, stat.threads);
            if self.start_time.get() == 0
                && let Some(boot) = fs::read_to_string("/proc/stat").ok().as_deref().and_then(boot_time)
            {
                set(&self.start_time, boot.saturating_add(stat.start_ticks / ticks));
            }
        }
        if let Ok(files) = fs::read_dir("/proc/self/fd") {
            // One of them reads this folder.
            set(&self.open_files, (files.count() as u64).saturating_sub(1));
        }
        if let Some(most) = getrlimit(Resource::Nofile).current {
            set(&self.max_files, most);
        }
    }
}

impl Collector for ProcessCollector {
    fn desc(&self) -> Vec<&Desc> {
        self.metrics().into_iter().flat_map(Collector::desc).collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        self.update();
        self.metrics().into_iter().flat_map(Collector::collect).collect()
    }
}

fn set(gauge: &IntGauge, value: u64) {
    gauge.set(i64::try_from(value).unwrap_or(i64::MAX));
}

/// The fields of `/proc/self/stat` that become metrics (`proc_pid_stat(5)`).
#[derive(Debug, PartialEq, Eq)]
struct ProcessStat {
    cpu_ticks: u64,
    threads: u64,
    /// Since the system started.
    start_ticks: u64,
    virtual_bytes: u64,
    resident_pages: u64,
}

impl ProcessStat {
    fn parse(text: &str) -> Option<Self> {
        // The program's name is in parentheses and may hold any. The third field follows it.
        let (_, rest) = text.rsplit_once(')')?;
        let fields: Vec<_> = rest.split_ascii_whitespace().collect();
        let field = |number: usize| fields.get(number - 3)?.parse::<u64>().ok();
        Some(Self {
            cpu_ticks: field(14)?.saturating_add(field(15)?),
            threads: field(20)?,
            start_ticks: field(22)?,
            virtual_bytes: field(23)?,
            resident_pages: field(24)?,
        })
    }
}

/// When the system started, in seconds since 1970, of `/proc/stat`.
fn boot_time(text: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix("btime ")?.trim().parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stat_of_a_program_with_an_odd_name_is_read() {
        let text =
            "4711 (a) (b c) S 1 4711 4711 0 -1 4194560 1 2 3 4 250 50 7 8 20 0 9 0 100 1048576 256 1 2\n";
        let stat = ProcessStat {
            cpu_ticks: 300,
            threads: 9,
            start_ticks: 100,
            virtual_bytes: 1_048_576,
            resident_pages: 256,
        };
        assert_eq!(ProcessStat::parse(text), Some(stat));
        assert_eq!(ProcessStat::parse("4711 (a) S 1"), None);
    }

    #[test]
    fn boot_time_has_a_line_of_its_own() {
        assert_eq!(boot_time("cpu  1 2\nbtime 1795000000\nprocesses 3\n"), Some(1_795_000_000));
        assert_eq!(boot_time("cpu  1 2\n"), None);
    }

    #[test]
    fn this_process_has_a_value_for_each_metric() {
        let collector = ProcessCollector::new().unwrap();
        let families = collector.collect();
        assert_eq!(families.len(), 7);
        for gauge in [
            &collector.open_files,
            &collector.max_files,
            &collector.virtual_memory,
            &collector.resident_memory,
            &collector.start_time,
            &collector.threads,
        ] {
            assert!(gauge.get() > 0, "{gauge:?}");
        }
    }
}
