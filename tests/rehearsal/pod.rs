//! A pod, with the kubelet that starts, probes and ends it.

use std::cell::RefCell;
use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::rc::Rc;

use tempfile::TempDir;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};

use super::manifest::{Container, PodSpec, Probe, Release};
use super::spawn;
use crate::support::{Caller, Process, Request};

/// The state of a pod as the cluster knows it.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct State {
    /// The time since which the pod is ready.
    pub(super) ready: Option<Instant>,
    pub(super) terminating: bool,
    pub(super) ended: bool,
}

/// A pod of the Deployment.
pub(super) struct Pod {
    pub(super) name: String,
    pub(super) generation: String,
    pub(super) api: SocketAddr,
    pub(super) admin: Caller,
    pub(super) state: watch::Receiver<State>,
    delete: watch::Sender<bool>,
    kubelet: RefCell<Option<JoinHandle<Ended>>>,
}

/// The result of a pod's life.
pub(super) struct Ended {
    /// Its whole log.
    pub(super) log: String,
}

/// The identity of a pod.
struct Identity {
    name: String,
    ip: IpAddr,
}

impl Identity {
    /// Returns a field of the downward API.
    fn field(&self, path: &str) -> String {
        match path {
            "metadata.name" => self.name.clone(),
            "status.podIP" => self.ip.to_string(),
            other => panic!("the rehearsal does not know the field {other}"),
        }
    }
}

impl Pod {
    /// Lets a kubelet start a pod of this release.
    pub(super) fn start(release: &Rc<Release>, name: String, ip: IpAddr) -> Rc<Self> {
        let spec = release.deployment.spec.template.spec.clone();
        let port = |name| SocketAddr::new(ip, spec.containers[0].port(name));
        let (telling, state) = watch::channel(State::default());
        let (delete, deleted) = watch::channel(false);
        let pod = Self {
            generation: release.generation.clone(),
            api: port("http"),
            admin: Caller(port("admin")),
            state,
            delete,
            kubelet: RefCell::default(),
            name: name.clone(),
        };
        let (dir, process) = start(release, &spec, &Identity { name: name.clone(), ip });
        println!("{name} starts");
        let kubelet = Kubelet { name, ip, spec, process, _dir: dir, state: telling };
        pod.kubelet.replace(Some(spawn(kubelet.run(deleted))));
        Rc::new(pod)
    }

    pub(super) fn is(&self) -> State {
        // The pod terminates from the deletion on, even before its kubelet knows.
        State { terminating: *self.delete.borrow(), ..*self.state.borrow() }
    }

    /// Deletes the pod.
    pub(super) fn delete(&self) {
        self.delete.send_replace(true);
    }

    /// Waits for the pod's end and returns the result.
    pub(super) async fn ended(&self) -> Ended {
        let kubelet = self.kubelet.take().expect("it is asked once");
        kubelet.await.expect("its kubelet does not fail")
    }
}

struct Kubelet {
    name: String,
    ip: IpAddr,
    spec: PodSpec,
    process: Process,
    _dir: TempDir,
    state: watch::Sender<State>,
}

impl Kubelet {
    async fn run(mut self, mut deleted: watch::Receiver<bool>) -> Ended {
        tokio::select! {
            deleted = deleted.wait_for(|deleted| *deleted) => { deleted.expect("the pod is kept"); }
            never = self.watch() => match never {},
        }
        let began = Instant::now();
        println!("{} is to go", self.name);
        // The endpoints' controller learns of it now and acts later. The pod does not wait for it.
        self.state.send_modify(|state| state.terminating = true);
        sleep(self.spec.containers[0].pre_stop()).await;
        println!("{} gets SIGTERM", self.name);
        let left = self.spec.grace().saturating_sub(began.elapsed());
        let end = move || (self.process.end_within(left), self);
        let (code, kubelet) = tokio::task::spawn_blocking(end).await.unwrap();
        let (took, log) = (began.elapsed(), kubelet.process.log());
        println!("{} ended with {code}, {} ms after it was to go", kubelet.name, took.as_millis());
        assert_eq!(code, 0, "{} was killed, or failed, after {took:?}: {log}", kubelet.name);
        kubelet.state.send_modify(|state| state.ended = true);
        Ended { log }
    }

    /// Probes the pod for the rest of its life.
    async fn watch(&self) -> Infallible {
        let container = &self.spec.containers[0];
        if let Some(probe) = &container.startup_probe {
            self.started(container, probe).await;
        }
        tokio::join!(self.lives(container), self.ready(container)).0
    }

    async fn started(&self, container: &Container, probe: &Probe) {
        let mut failures = 0;
        sleep(probe.initial_delay()).await;
        while !self.passes(container, probe).await {
            failures += 1;
            assert!(
                failures < probe.failure_threshold,
                "{} does not start: {}",
                self.name,
                self.process.log()
            );
            sleep(probe.period()).await;
        }
    }

    /// Fails if the liveness probe fails. A kubelet would restart the pod, but the rehearsal contains no cause for that.
    async fn lives(&self, container: &Container) -> Infallible {
        let Some(probe) = &container.liveness_probe else { return std::future::pending().await };
        let mut failures = 0;
        sleep(probe.initial_delay()).await;
        loop {
            failures = if self.passes(container, probe).await { 0 } else { failures + 1 };
            assert!(failures < probe.failure_threshold, "{} is not alive: {}", self.name, self.process.log());
            sleep(probe.period()).await;
        }
    }

    async fn ready(&self, container: &Container) -> Infallible {
        let Some(probe) = &container.readiness_probe else { panic!("a pod without a readiness probe") };
        let mut failures = 0;
        sleep(probe.initial_delay()).await;
        loop {
            if self.passes(container, probe).await {
                failures = 0;
                if self.state.borrow().ready.is_none() {
                    println!("{} is ready", self.name);
                    self.state.send_modify(|state| state.ready = Some(Instant::now()));
                }
            } else {
                failures += 1;
                if failures >= probe.failure_threshold && self.state.borrow().ready.is_some() {
                    println!("{} is not ready any more", self.name);
                    self.state.send_modify(|state| state.ready = None);
                }
            }
            sleep(probe.period()).await;
        }
    }

    async fn passes(&self, container: &Container, probe: &Probe) -> bool {
        let at = Caller(SocketAddr::new(self.ip, container.port(&probe.http_get.port)));
        let answer = timeout(probe.timeout(), at.try_send(Request::get(&*probe.http_get.path))).await;
        answer.is_ok_and(|answer| answer.is_ok_and(|answer| (200..400).contains(&answer.status)))
    }
}

/// Runs a pod that ends by itself, as a Job does. Returns its code and its output.
pub(super) async fn run_to_end(release: &Rc<Release>, spec: &PodSpec, name: &str) -> (i32, String) {
    let identity = Identity { name: name.to_owned(), ip: [127, 0, 0, 1].into() };
    let (dir, mut process) = start(release, spec, &identity);
    let wait = move || (process.wait(), process.log());
    let ended = tokio::task::spawn_blocking(wait).await.unwrap();
    drop(dir);
    ended
}

/// Starts the program of a container. Mounted files are below a directory of the pod, and the environment and the files
/// refer to them there.
fn start(release: &Release, spec: &PodSpec, identity: &Identity) -> (TempDir, Process) {
    let container = &spec.containers[0];
    let root = tempfile::tempdir().unwrap();
    let at = |path: &str| format!("{}{path}", root.path().display());
    let volume_of = |name: &str| spec.volumes.iter().find(|volume| volume.name == name).unwrap();
    // A folder without files stays that of the machine.
    let mounts: Vec<_> =
        container.volume_mounts.iter().filter(|mount| !volume_of(&mount.name).is_empty_dir()).collect();
    let moved = |text: &str| {
        let mut text = text.to_owned();
        for mount in &mounts {
            text = text.replace(&mount.path, &at(&mount.path));
        }
        text
    };
    for mount in &mounts {
        let volume = volume_of(&mount.name);
        std::fs::create_dir_all(at(&mount.path)).unwrap();
        for (name, text) in release.files(volume) {
            std::fs::write(Path::new(&at(&mount.path)).join(name), moved(&text)).unwrap();
        }
    }
    let mut arguments: Vec<_> = environment(container, identity)
        .into_iter()
        .map(|(name, value)| format!("{name}={}", moved(&value)))
        .collect();
    arguments.push(env!("CARGO_BIN_EXE_rtm-bridge").to_owned());
    arguments.extend(container.args.iter().cloned());
    let process = Process::start("env", &arguments, &root.path().join("log"));
    (root, process)
}

/// Returns the variables in their order. A variable may refer to earlier ones: `$(NAME)`.
fn environment(container: &Container, identity: &Identity) -> Vec<(String, String)> {
    let mut known: Vec<(String, String)> = Vec::new();
    for variable in &container.env {
        let value = match (&variable.value, &variable.value_from) {
            (Some(value), None) => known
                .iter()
                .fold(value.clone(), |value, (name, known)| value.replace(&format!("$({name})"), known)),
            (None, Some(from)) => identity.field(&from.field_ref.field_path),
            _ => panic!("{} has no value, or two", variable.name),
        };
        known.push((variable.name.clone(), value));
    }
    known
}
