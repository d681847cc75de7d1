//! The controllers of the Deployment and of evictions, and Helm's part.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::rc::Rc;

use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

use super::manifest::Release;
use super::pod::{self, Pod, State};
use super::service::Service;
use crate::support::until;

/// Pods of a Deployment. Its controller acts at each change of a pod.
pub(super) struct Cluster {
    release: Rc<Release>,
    pods: Vec<Rc<Pod>>,
    pub(super) service: Service,
    /// The first two bytes of the pods' loopback addresses.
    subnet: [u8; 2],
    started: u8,
    /// The logs of ended pods.
    pub(super) logs: BTreeMap<String, String>,
}

impl Cluster {
    /// Runs `helm install` and waits until the pods are available.
    pub(super) async fn install(release: Release) -> Self {
        // Other programs do not listen on these addresses.
        let subnet = [fastrand::u8(1..255), fastrand::u8(..)];
        let service = Service::start().await;
        let release = Rc::new(release);
        let mut cluster =
            Self { release, pods: Vec::new(), service, subnet, started: 0, logs: BTreeMap::new() };
        cluster.migrate().await;
        cluster.settle().await;
        let all = cluster.release.deployment.spec.replicas;
        until("every pod gets connections", async || cluster.service.endpoints() == all).await;
        cluster
    }

    /// Runs `helm upgrade` or `helm rollback` and waits until all pods of other releases are gone.
    pub(super) async fn upgrade(&mut self, release: Release) {
        self.release = Rc::new(release);
        self.migrate().await;
        self.settle().await;
    }

    /// Runs `kubectl drain` for the node of so many pods. Each leaves when the budget allows it, and gets a replacement.
    pub(super) async fn drain(&mut self, pods: usize) {
        let evicted: Vec<_> = self.pods.iter().take(pods).cloned().collect();
        for pod in evicted {
            let (replicas, budget) =
                (self.release.deployment.spec.replicas, self.release.budget.spec.max_unavailable);
            self.reconcile_until(|cluster| {
                cluster.living().filter(|pod| pod.is().ready.is_some()).count() > replicas - budget
            })
            .await;
            pod.delete();
        }
        self.settle().await;
    }

    /// Kills the program of one pod, as the system does when memory is short. Its kubelet starts it again.
    pub(super) async fn kill_one(&mut self) {
        let pod = Rc::clone(&self.pods[0]);
        pod.kill();
        let mut state = pod.state.clone();
        state.wait_for(|state| state.ready.is_none()).await.expect("its kubelet does not fail");
        self.settle().await;
    }

    /// Ends all pods at once.
    pub(super) async fn uninstall(mut self) -> BTreeMap<String, String> {
        for pod in &self.pods {
            pod.delete();
        }
        for pod in std::mem::take(&mut self.pods) {
            self.logs.insert(pod.name.clone(), pod.ended().await.log);
        }
        self.logs
    }

    /// Returns the number of partitions that each living pod took over, by the reason.
    pub(super) async fn takeovers(&self, reason: &str) -> BTreeMap<String, u64> {
        let series = format!("rtm_bridge_partition_claims_total{{reason=\"{reason}\"}} ");
        let mut takeovers = BTreeMap::new();
        for pod in self.living() {
            let metrics = pod.admin.get("/metrics").await;
            let value = metrics.text().lines().find_map(|line| line.strip_prefix(&series));
            takeovers.insert(pod.name.clone(), value.map_or(0, |value| value.parse().unwrap()));
        }
        takeovers
    }

    async fn migrate(&self) {
        let job = &self.release.migrate;
        let (code, log) = pod::run_to_end(&self.release, &job.spec.template.spec, &job.metadata.name).await;
        assert_eq!(code, 0, "{}: {log}", job.metadata.name);
    }

    /// Returns the pods that do not terminate.
    fn living(&self) -> impl Iterator<Item = &Rc<Pod>> {
        self.pods.iter().filter(|pod| !pod.is().terminating)
    }

    fn is_available(&self, pod: &Pod) -> bool {
        let since = pod.is().ready;
        since.is_some_and(|since| since.elapsed() >= self.release.min_ready())
    }

    /// Waits until all pods are of the release and available, and the others are gone.
    async fn settle(&mut self) {
        self.reconcile_until(|cluster| {
            let generation = &cluster.release.generation;
            cluster.pods.len() == cluster.release.deployment.spec.replicas
                && cluster.pods.iter().all(|pod| {
                    pod.generation == *generation && !pod.is().terminating && cluster.is_available(pod)
                })
        })
        .await;
    }

    async fn reconcile_until(&mut self, is_so: impl Fn(&Self) -> bool) {
        loop {
            // The states are read before the actions, so the next round sees a change in between.
            self.bury().await;
            let mut states: Vec<_> = self.pods.iter().map(|pod| seen(pod)).collect();
            self.reconcile();
            // The pods that this round created.
            states.extend(self.pods[states.len()..].iter().map(|pod| pod.state.clone()));
            if is_so(self) {
                return;
            }
            self.changed(states).await;
        }
    }

    /// Removes the ended pods.
    async fn bury(&mut self) {
        // A kubelet that failed reports its panic here.
        let is_over = |pod: &mut Rc<Pod>| pod.is().ended || pod.state.has_changed().is_err();
        for pod in self.pods.extract_if(.., is_over).collect::<Vec<_>>() {
            self.logs.insert(pod.name.clone(), pod.ended().await.log);
        }
    }

    /// Performs one round of the controllers of a Deployment and its replica sets.
    fn reconcile(&mut self) {
        let (replicas, update) = (self.release.deployment.spec.replicas, self.release.rolling_update());
        let of_release = |pod: &&Rc<Pod>| pod.generation == self.release.generation;
        let missing = replicas.saturating_sub(self.living().filter(of_release).count());
        let room = (replicas + update.max_surge).saturating_sub(self.living().count());
        let old: Vec<_> = self.living().filter(|pod| !of_release(pod)).cloned().collect();
        let available = self.living().filter(|pod| self.is_available(pod)).count();
        let spare = available.saturating_sub(replicas - update.max_unavailable);
        for pod in old.iter().take(spare) {
            pod.delete();
        }
        // Terminating pods do not count as surge.
        for _ in 0..missing.min(room) {
            self.create();
        }
    }

    fn create(&mut self) {
        self.started += 1;
        let [second, third] = self.subnet;
        let ip = IpAddr::from([127, second, third, self.started]);
        let deployment = &self.release.deployment.metadata.name;
        let name = format!("{deployment}-{}-{}", self.release.generation, self.started);
        let pod = Pod::start(&self.release, name, ip);
        self.service.follow(&pod);
        self.pods.push(pod);
    }

    /// Waits until a pod changes, or becomes available.
    async fn changed(&self, mut states: Vec<watch::Receiver<State>>) {
        let min_ready = self.release.min_ready();
        let due = states.iter().filter_map(|state| state.borrow().ready.map(|since| since + min_ready));
        let due = due.filter(|due| *due > Instant::now()).min();
        let change =
            futures_util::future::select_all(states.iter_mut().map(|state| Box::pin(state.changed())));
        let available = async {
            match due {
                Some(due) => sleep_until(due).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            _ = change => {}
            () = available => {}
        }
    }
}

/// Returns the pod's state, with later changes only.
fn seen(pod: &Pod) -> watch::Receiver<State> {
    let mut state = pod.state.clone();
    state.mark_unchanged();
    state
}
