//! A child process: its start, its figures in /proc, and its end with a drop.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use tokio::net::TcpStream;

use crate::bench_error::BenchError;
use crate::http;

/// Longer than the start of any process here.
const PATIENCE: Duration = Duration::from_secs(20);
const GLANCE: Duration = Duration::from_millis(20);
/// Linux counts the CPU time of processes in hundredths of a second on every supported architecture.
const TICK: Duration = Duration::from_millis(10);

/// A running process. A drop kills it.
pub(crate) struct ChildProcess {
    name: &'static str,
    pub(crate) address: SocketAddr,
    pub(crate) process: std::process::Child,
    kept: Option<tempfile::NamedTempFile>,
}

/// Returns an address that was free a moment ago.
pub(crate) fn free_address() -> Result<SocketAddr, BenchError> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?)
}

impl ChildProcess {
    /// Starts a service. Its output is dropped, and its errors go to stderr.
    pub(crate) fn start(
        name: &'static str,
        binary: &Path,
        arguments: &[&str],
        address: SocketAddr,
    ) -> Result<Self, BenchError> {
        Self::spawn(
            name,
            binary,
            address,
            Command::new(binary).args(arguments).stdin(Stdio::null()).stdout(Stdio::null()),
        )
    }

    /// Starts a process with input and output pipes.
    pub(crate) fn talking(
        name: &'static str,
        binary: &Path,
        arguments: &[&str],
        address: SocketAddr,
    ) -> Result<Self, BenchError> {
        Self::spawn(
            name,
            binary,
            address,
            Command::new(binary).args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()),
        )
    }

    fn spawn(
        name: &'static str,
        binary: &Path,
        address: SocketAddr,
        command: &mut Command,
    ) -> Result<Self, BenchError> {
        let process =
            command.spawn().map_err(|source| BenchError::Start { binary: binary.to_owned(), source })?;
        Ok(Self { name, address, process, kept: None })
    }

    /// Keeps a file as long as the process runs.
    pub(crate) fn keep(&mut self, file: tempfile::NamedTempFile) {
        self.kept = Some(file);
    }

    /// Waits until the process accepts connections.
    pub(crate) async fn listening(&mut self) -> Result<(), BenchError> {
        let address = self.address;
        self.until(|| async move { TcpStream::connect(address).await.is_ok() }).await
    }

    /// Waits until `/readyz` of this listener answers 200.
    pub(crate) async fn ready(&mut self, admin: SocketAddr) -> Result<(), BenchError> {
        self.until(|| async move {
            let Ok(mut connection) = http::HttpConnection::open(admin).await else { return false };
            let request = format!("GET /readyz HTTP/1.1\r\nHost: {admin}\r\n\r\n");
            matches!(connection.exchange(request.as_bytes()).await, Ok(answer) if answer.status == 200)
        })
        .await
    }

    async fn until<F: Future<Output = bool>>(
        &mut self,
        mut fact: impl FnMut() -> F,
    ) -> Result<(), BenchError> {
        let began = Instant::now();
        while !fact().await {
            if let Some(status) = self.process.try_wait()? {
                return Err(BenchError::Exited { name: self.name, status });
            }
            if began.elapsed() > PATIENCE {
                return Err(BenchError::NotReady { name: self.name, after: began.elapsed() });
            }
            tokio::time::sleep(GLANCE).await;
        }
        Ok(())
    }

    /// Asks the process to end.
    pub(crate) fn terminate(&self) -> Result<(), BenchError> {
        let status = Command::new("kill").args(["-TERM", &self.process.id().to_string()]).status()?;
        if status.success() { Ok(()) } else { Err(BenchError::Exited { name: "kill", status }) }
    }

    /// Returns the CPU time since its start, in user and kernel mode, over all threads.
    pub(crate) fn cpu(&self) -> Result<Duration, BenchError> {
        cpu(&format!("/proc/{}/stat", self.process.id()))
    }

    /// Returns the resident memory in KiB.
    pub(crate) fn resident(&self) -> Result<u64, BenchError> {
        self.memory("VmRSS:")
    }

    /// Returns the greatest resident memory since its start, in KiB.
    pub(crate) fn peak(&self) -> Result<u64, BenchError> {
        self.memory("VmHWM:")
    }

    fn memory(&self, field: &str) -> Result<u64, BenchError> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.process.id()))?;
        status
            .lines()
            .find_map(|line| line.strip_prefix(field))
            .and_then(|rest| rest.trim().trim_end_matches("kB").trim().parse().ok())
            .ok_or(BenchError::Proc("status"))
    }
}

impl Drop for ChildProcess {
    fn drop(&mut self) {
        // The kill fails harmlessly if the process has ended already.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Returns the CPU time in this `stat` file of a process or thread, in user and kernel mode.
pub(crate) fn cpu(stat: &str) -> Result<Duration, BenchError> {
    let stat = fs::read_to_string(stat)?;
    // The name in parentheses may hold any characters. Plain fields follow its end, with utime as the 12th.
    let (_, fields) = stat.rsplit_once(')').ok_or(BenchError::Proc("stat"))?;
    let mut times = fields.split_ascii_whitespace().skip(11).map(str::parse::<u32>);
    let (Some(Ok(user)), Some(Ok(system))) = (times.next(), times.next()) else {
        return Err(BenchError::Proc("stat"));
    };
    Ok(TICK * (user + system))
}
