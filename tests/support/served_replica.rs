//! A replica as operators run it: the program with a configuration file, as a process that a test can kill.

use std::cell::Cell;
use std::net::SocketAddr;
use std::os::unix::fs::symlink;

use serde_json::Value;
use tempfile::TempDir;

use super::{Caller, Process, until};

/// Files that are replaced together, as Kubernetes mounts a Secret: a link to the folder of their version.
pub(crate) struct MountedFiles {
    dir: TempDir,
    version: Cell<u32>,
}

impl MountedFiles {
    /// Mounts files of these names and contents.
    pub(crate) fn new(files: &[(&str, &[u8])]) -> Self {
        let mounted = Self { dir: tempfile::tempdir().unwrap(), version: Cell::new(0) };
        mounted.swap(files);
        for (name, _) in files {
            symlink(format!("..data/{name}"), mounted.dir.path().join(name)).unwrap();
        }
        mounted
    }

    /// Replaces all files at once.
    pub(crate) fn swap(&self, files: &[(&str, &[u8])]) {
        let version = format!("..{}", self.version.replace(self.version.get() + 1));
        let path = |name: &str| self.dir.path().join(name);
        std::fs::create_dir(path(&version)).unwrap();
        for (name, content) in files {
            std::fs::write(path(&version).join(name), content).unwrap();
        }
        symlink(&version, path("..data_tmp")).unwrap();
        std::fs::rename(path("..data_tmp"), path("..data")).unwrap();
    }

    /// Returns the path of a file.
    pub(crate) fn path(&self, name: &str) -> String {
        self.dir.path().join(name).to_str().unwrap().to_owned()
    }
}

/// A running `rtm-bridge serve`. A drop kills it.
pub(crate) struct ServedReplica {
    /// Empty after the end of the process.
    process: Option<Process>,
    dir: TempDir,
    pub(crate) api: Caller,
    pub(crate) admin: Caller,
}

impl ServedReplica {
    /// Starts a replica of this name and waits until it is ready. `more` follows the tables of the configuration, such as
    /// a table `[reply]`.
    pub(crate) async fn start(name: &str, platform: &str, store: &str, more: &str) -> Self {
        Self::start_with(name, platform, store, more, &[]).await
    }

    /// Starts a replica with additional environment variables such as `SERVER__GRACE`.
    pub(crate) async fn start_with(
        name: &str,
        platform: &str,
        store: &str,
        more: &str,
        settings: &[(&str, &str)],
    ) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
        std::fs::write(path("secret"), rtm_sandbox::CLIENT_SECRET).unwrap();
        let (client, bot, secret) = (rtm_sandbox::CLIENT_ID, rtm_sandbox::BOT_ID, path("secret"));
        // The shortest times that the configuration allows.
        let text = format!(
            r#"
[server]
listen = "127.0.0.1:0"
admin_listen = "127.0.0.1:0"
grace = "0ms"
drain_timeout = "5s"
ready_without_store = "0s"
threads = 1
[store]
url = "{store}"
message_ttl = "1m"
command_timeout = "500ms"
[cluster]
replica_id = "{name}"
lease_ttl = "3s"
[[bots]]
name = "sandbox"
platform = "{platform}"
chat_bot = "Sandbox"
task_bot_id = "{bot}"
client_id = "{client}"
client_secret_file = "{secret}"
quiet = "400ms"
welcome = "0ms"
history_settle = "200ms"
user_rate_per_minute = 0
connects_per_minute = 0
[log]
format = "json"
filter = "info,rtm_bridge=debug"
{more}
"#
        );
        std::fs::write(path("bridge.toml"), text).unwrap();
        let settings = settings.iter().map(|(key, value)| format!("RTM_BRIDGE__{key}={value}"));
        let program = [env!("CARGO_BIN_EXE_rtm-bridge"), "serve", "--config", &path("bridge.toml")];
        let arguments: Vec<_> = settings.chain(program.map(str::to_owned)).collect();
        let process = Process::start("env", &arguments, &dir.path().join(name));
        let mut addresses = None;
        until("the replica listens", async || {
            addresses = listening(&process.log());
            addresses.is_some()
        })
        .await;
        let (api, admin) = addresses.unwrap();
        let replica = Self { process: Some(process), dir, api: Caller(api), admin: Caller(admin) };
        until("the replica is ready", async || replica.admin.get("/readyz").await.status == 200).await;
        replica
    }

    /// Replaces a text of the configuration file, which must have it.
    pub(crate) fn reconfigure(&self, before: &str, after: &str) {
        let path = self.dir.path().join("bridge.toml");
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(text.contains(before), "{text}");
        std::fs::write(path, text.replace(before, after)).unwrap();
    }

    /// Sends SIGHUP. Returns whether the process runs.
    pub(crate) fn hang_up(&mut self) -> bool {
        self.process.as_mut().is_some_and(|process| process.signal("HUP"))
    }

    /// Kills the process.
    pub(crate) fn kill(&mut self) {
        self.signal("KILL");
        self.process.as_mut().unwrap().wait();
    }

    /// Pauses the process.
    pub(crate) fn pause(&mut self) {
        self.signal("STOP");
    }

    /// Resumes the process.
    pub(crate) fn resume(&mut self) {
        self.signal("CONT");
    }

    fn signal(&mut self, name: &str) {
        assert!(self.process.as_mut().expect("it has ended").signal(name), "it has ended by itself");
    }

    /// Asks the process to end and waits for its exit code.
    pub(crate) async fn terminate(&mut self) -> i32 {
        let mut process = self.process.take().expect("it has ended");
        assert!(process.signal("TERM"), "it has ended by itself");
        let wait = move || (process.wait(), process);
        let (code, process) = tokio::task::spawn_blocking(wait).await.unwrap();
        self.process = Some(process);
        code
    }

    /// Returns the log so far.
    pub(crate) fn log(&self) -> String {
        self.process.as_ref().map(Process::log).unwrap_or_default()
    }
}

/// Returns the addresses for callers and for probes from the log.
fn listening(log: &str) -> Option<(SocketAddr, SocketAddr)> {
    let line = log.lines().find(|line| line.contains("the bridge is ready") && line.ends_with('}'))?;
    let line: Value = serde_json::from_str(line).ok()?;
    let address = |name: &str| line[name].as_str()?.parse().ok();
    Some((address("api")?, address("admin")?))
}
