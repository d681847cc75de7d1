//! A process under test: started, waited for, read from /proc, and ended with its value.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use tokio::net::TcpStream;

use crate::failure::Failure;
use crate::http;

/// Longer than any process here needs to start.
const PATIENCE: Duration = Duration::from_secs(20);
const GLANCE: Duration = Duration::from_millis(20);
/// Linux tells the time of processes in hundredths of a second on every architecture we build for.
const TICK: Duration = Duration::from_millis(10);

/// A running process; killed when dropped.
pub(crate) struct Child {
    name: &'static str,
    pub(crate) address: SocketAddr,
    pub(crate) process: std::process::Child,
    kept: Option<tempfile::NamedTempFile>,
}

/// An address that was free a moment ago.
pub(crate) fn free_address() -> Result<SocketAddr, Failure> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?)
}

impl Child {
    /// A service. What it says at start is of no use here; its complaints go to stderr.
    pub(crate) fn start(
        name: &'static str,
        binary: &Path,
        arguments: &[&str],
        address: SocketAddr,
    ) -> Result<Self, Failure> {
        Self::spawn(
            name,
            binary,
            address,
            Command::new(binary).args(arguments).stdin(Stdio::null()).stdout(Stdio::null()),
        )
    }

    /// A process that is told what to do on its input, and answers on its output.
    pub(crate) fn talking(
        name: &'static str,
        binary: &Path,
        arguments: &[&str],
        address: SocketAddr,
    ) -> Result<Self, Failure> {
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
    ) -> Result<Self, Failure> {
        let process =
            command.spawn().map_err(|source| Failure::Start { binary: binary.to_owned(), source })?;
        Ok(Self { name, address, process, kept: None })
    }

    /// Keeps a file for as long as the process runs.
    pub(crate) fn keep(&mut self, file: tempfile::NamedTempFile) {
        self.kept = Some(file);
    }

    /// Waits until it takes connections.
    pub(crate) async fn listening(&mut self) -> Result<(), Failure> {
        let address = self.address;
        self.until(|| async move { TcpStream::connect(address).await.is_ok() }).await
    }

    /// Waits until `/readyz` of this listener says 200.
    pub(crate) async fn ready(&mut self, admin: SocketAddr) -> Result<(), Failure> {
        self.until(|| async move {
            let Ok(mut connection) = http::Connection::open(admin).await else { return false };
            let request = format!("GET /readyz HTTP/1.1\r\nHost: {admin}\r\n\r\n");
            matches!(connection.exchange(request.as_bytes()).await, Ok(answer) if answer.status == 200)
        })
        .await
    }

    async fn until<F: Future<Output = bool>>(&mut self, mut fact: impl FnMut() -> F) -> Result<(), Failure> {
        let began = Instant::now();
        while !fact().await {
            if let Some(status) = self.process.try_wait()? {
                return Err(Failure::Exited { name: self.name, status });
            }
            if began.elapsed() > PATIENCE {
                return Err(Failure::NotReady { name: self.name, after: began.elapsed() });
            }
            tokio::time::sleep(GLANCE).await;
        }
        Ok(())
    }

    /// Asks it to go.
    pub(crate) fn terminate(&self) -> Result<(), Failure> {
        let status = Command::new("kill").args(["-TERM", &self.process.id().to_string()]).status()?;
        if status.success() { Ok(()) } else { Err(Failure::Exited { name: "kill", status }) }
    }

    /// CPU time it has used since its start, in user and kernel mode, over all threads.
    pub(crate) fn cpu(&self) -> Result<Duration, Failure> {
        cpu(&format!("/proc/{}/stat", self.process.id()))
    }

    /// Its resident memory, in KiB.
    pub(crate) fn resident(&self) -> Result<u64, Failure> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.process.id()))?;
        status
            .lines()
            .find_map(|line| line.strip_prefix("VmRSS:"))
            .and_then(|rest| rest.trim().trim_end_matches("kB").trim().parse().ok())
            .ok_or(Failure::Proc("status"))
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        // It may have ended by itself; then there is nothing to do.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// The CPU time that the process or thread of this `stat` file has used since its start, in user and kernel mode.
pub(crate) fn cpu(stat: &str) -> Result<Duration, Failure> {
    let stat = fs::read_to_string(stat)?;
    // The name in parentheses may hold anything; what follows its end are plain fields, utime the 12th of them.
    let (_, fields) = stat.rsplit_once(')').ok_or(Failure::Proc("stat"))?;
    let mut times = fields.split_ascii_whitespace().skip(11).map(str::parse::<u32>);
    let (Some(Ok(user)), Some(Ok(system))) = (times.next(), times.next()) else {
        return Err(Failure::Proc("stat"));
    };
    Ok(TICK * (user + system))
}
