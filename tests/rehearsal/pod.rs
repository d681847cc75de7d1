//! A pod, with the kubelet that starts, probes and ends it.

use std::cell::RefCell;
use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tempfile::TempDir;
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};

use super::manifest::{Container, PodSpec, Probe, Release};
use super::spawn;
use crate::support::{Caller, Process, Request};

/// The longest time from the end of a program until its kubelet sees it.
const RELIST: Duration = Duration::from_secs(1);

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
    /// Kills the program.
    kill: Arc<Notify>,
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
        let kill = Arc::new(Notify::new());
        let pod = Self {
            generation: release.generation.clone(),
            api: port("http"),
            admin: Caller(port("admin")),
            state,
            delete,
            kill: Arc::clone(&kill),
            kubelet: RefCell::default(),
            name: name.clone(),
        };
        let program = Program::of(release, &spec, &Identity { name: name.clone(), ip });
        println!("{name} starts");
        let kubelet = Kubelet { name, ip, spec, process: program.start(), program, kill, state: telling };
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

    /// Kills the program of the pod.
    pub(super) fn kill(&self) {
        self.kill.notify_one();
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
    program: Program,
    kill: Arc<Notify>,
    state: watch::Sender<State>,
}

impl Kubelet {
    async fn run(mut self, mut deleted: watch::Receiver<bool>) -> Ended {
        let kill = Arc::clone(&self.kill);
        loop {
            tokio::select! {
                deleted = deleted.wait_for(|deleted| *deleted) => {
                    deleted.expect("the pod is kept");
                    break;
                }
                () = kill.notified() => {}
                never = self.watch() => match never {},
            }
            self.restart().await;
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

    /// Kills the program and starts it again.
    async fn restart(&mut self) {
        assert!(self.process.signal("KILL"), "{} had ended already", self.name);
        println!("{} is killed", self.name);
        sleep(RELIST).await;
        self.state.send_modify(|state| state.ready = None);
        self.process = self.program.start();
        println!("{} starts again", self.name);
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
    let program = Program::of(release, spec, &identity);
    let mut process = program.start();
    let wait = move || (process.wait(), process.log());
    tokio::task::spawn_blocking(wait).await.unwrap()
}

/// The program of a container. Mounted files are below a directory of the pod, and the environment and the files refer to
/// them there.
struct Program {
    root: TempDir,
    arguments: Vec<String>,
}

impl Program {
    fn of(release: &Release, spec: &PodSpec, identity: &Identity) -> Self {
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
        Self { root, arguments }
    }

    fn start(&self) -> Process {
        Process::start("env", &self.arguments, &self.root.path().join("log"))
    }
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
