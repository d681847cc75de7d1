//! The parts of the chart's objects that decide how pods live and die. A field that the rehearsal does not know is an
//! error, because the rehearsal would differ from the cluster.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use rtm_bridge::domain::Sha256;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

/// Files by name: the data of a `ConfigMap` or Secret.
pub(super) type Data = BTreeMap<String, String>;

/// A rendering of the chart.
pub(super) struct Release {
    pub(super) deployment: Deployment,
    /// The hook that runs first.
    pub(super) migrate: Job,
    pub(super) budget: Budget,
    /// `ConfigMap`s and Secrets, by kind and name.
    pub(super) objects: BTreeMap<(String, String), Data>,
    /// The hash that distinguishes pods of this release from others.
    pub(super) generation: String,
}

#[derive(Deserialize)]
pub(super) struct Deployment {
    pub(super) metadata: Metadata,
    pub(super) spec: DeploymentSpec,
}

#[derive(Deserialize)]
pub(super) struct Metadata {
    pub(super) name: String,
    #[serde(default)]
    annotations: BTreeMap<String, String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct DeploymentSpec {
    pub(super) replicas: usize,
    min_ready_seconds: u64,
    strategy: Strategy,
    pub(super) template: Template,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Strategy {
    r#type: String,
    rolling_update: RollingUpdate,
}

/// Whole pods. The rehearsal knows no percentages.
#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct RollingUpdate {
    pub(super) max_surge: usize,
    pub(super) max_unavailable: usize,
}

#[derive(Deserialize)]
pub(super) struct Job {
    pub(super) metadata: Metadata,
    pub(super) spec: JobSpec,
}

#[derive(Deserialize)]
pub(super) struct JobSpec {
    pub(super) template: Template,
}

#[derive(Deserialize)]
pub(super) struct Budget {
    pub(super) spec: BudgetSpec,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct BudgetSpec {
    pub(super) max_unavailable: usize,
}

#[derive(Clone, Deserialize)]
pub(super) struct Template {
    pub(super) spec: PodSpec,
}

#[derive(Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct PodSpec {
    pub(super) containers: [Container; 1],
    #[serde(default = "thirty")]
    termination_grace_period_seconds: u64,
    pub(super) volumes: Vec<Volume>,
}

/// Returns Kubernetes' default.
const fn thirty() -> u64 {
    30
}

#[derive(Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Container {
    pub(super) args: Vec<String>,
    pub(super) env: Vec<Variable>,
    #[serde(default)]
    ports: Vec<Port>,
    pub(super) startup_probe: Option<Probe>,
    pub(super) liveness_probe: Option<Probe>,
    pub(super) readiness_probe: Option<Probe>,
    #[serde(default)]
    lifecycle: Lifecycle,
    pub(super) volume_mounts: Vec<Mount>,
}

#[derive(Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Variable {
    pub(super) name: String,
    pub(super) value: Option<String>,
    pub(super) value_from: Option<ValueFrom>,
}

#[derive(Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct ValueFrom {
    pub(super) field_ref: FieldRef,
}

#[derive(Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct FieldRef {
    pub(super) field_path: String,
}

#[derive(Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Port {
    name: String,
    container_port: u16,
}

#[derive(Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Probe {
    pub(super) http_get: HttpGet,
    #[serde(default)]
    initial_delay_seconds: u64,
    period_seconds: u64,
    timeout_seconds: u64,
    pub(super) failure_threshold: u32,
}

#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct HttpGet {
    pub(super) path: String,
    pub(super) port: String,
}

#[derive(Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Lifecycle {
    pre_stop: Option<PreStop>,
}

#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct PreStop {
    sleep: Sleep,
}

#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct Sleep {
    seconds: u64,
}

#[derive(Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Mount {
    pub(super) name: String,
    #[serde(rename = "mountPath")]
    pub(super) path: String,
    #[serde(default, rename = "readOnly")]
    _read_only: bool,
}

#[derive(Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Volume {
    pub(super) name: String,
    config_map: Option<Source>,
    projected: Option<Projected>,
    empty_dir: Option<EmptyDir>,
}

impl Volume {
    /// Returns whether the volume is a folder without files.
    pub(super) const fn is_empty_dir(&self) -> bool {
        self.empty_dir.is_some()
    }
}

#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct EmptyDir {}

#[derive(Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Projected {
    sources: Vec<Projection>,
    #[serde(rename = "defaultMode")]
    _default_mode: u32,
}

#[derive(Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Projection {
    config_map: Option<Source>,
    secret: Option<Source>,
}

#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct Source {
    name: String,
    items: Option<Vec<Item>>,
}

#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct Item {
    key: String,
    path: String,
}

impl Release {
    /// Reads the rendered objects and adds existing Secrets.
    pub(super) fn read(rendered: &[Value], secrets: &BTreeMap<&str, Data>) -> Self {
        let mut objects = BTreeMap::new();
        for (name, data) in secrets {
            objects.insert(("Secret".to_owned(), (*name).to_owned()), data.clone());
        }
        for object in rendered {
            let (kind, name) = (&object["kind"], &object["metadata"]["name"]);
            for field in ["data", "stringData"] {
                if let (Some(kind @ ("ConfigMap" | "Secret")), Some(name), Some(data)) =
                    (kind.as_str(), name.as_str(), object.get(field))
                {
                    let data = serde_json::from_value(data.clone()).unwrap();
                    objects.insert((kind.to_owned(), name.to_owned()), data);
                }
            }
        }
        let deployment: Deployment = only(rendered, "Deployment");
        assert_eq!(deployment.spec.strategy.r#type, "RollingUpdate");
        let migrate: Job = only(rendered, "Job");
        let hooks = migrate.metadata.annotations.get("helm.sh/hook").map(String::as_str);
        assert_eq!(hooks, Some("pre-install,pre-upgrade"), "the migration runs first");
        let template = rendered.iter().find(|object| object["kind"] == "Deployment").unwrap();
        let mut generation = sha256(&template["spec"]["template"].to_string());
        generation.truncate(8);
        Self { deployment, migrate, budget: only(rendered, "PodDisruptionBudget"), objects, generation }
    }

    pub(super) const fn rolling_update(&self) -> RollingUpdate {
        self.deployment.spec.strategy.rolling_update
    }

    /// Returns the time that a pod must be ready before it is available.
    pub(super) const fn min_ready(&self) -> Duration {
        Duration::from_secs(self.deployment.spec.min_ready_seconds)
    }

    /// Returns the files of a volume.
    pub(super) fn files(&self, volume: &Volume) -> Data {
        let projections = volume.projected.iter().flat_map(|projected| &projected.sources);
        let projected = projections.flat_map(|projection| {
            let secret = projection.secret.iter().map(|source| ("Secret", source));
            secret.chain(projection.config_map.iter().map(|source| ("ConfigMap", source)))
        });
        let sources = volume.config_map.iter().map(|source| ("ConfigMap", source)).chain(projected);
        sources.flat_map(|(kind, source)| self.files_of(kind, source)).collect()
    }

    fn files_of(&self, kind: &str, source: &Source) -> Data {
        let name = (kind.to_owned(), source.name.clone());
        let data = self.objects.get(&name).unwrap_or_else(|| panic!("no {name:?}"));
        let Some(items) = &source.items else { return data.clone() };
        let value = |key| data.get(key).unwrap_or_else(|| panic!("no {key} in {name:?}")).clone();
        items.iter().map(|item| (item.path.clone(), value(&item.key))).collect()
    }
}

/// Returns the SHA-256 in hexadecimal.
pub(super) fn sha256(text: &str) -> String {
    let digest = Sha256::digest(text);
    digest.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").unwrap();
        text
    })
}

/// Returns the only object of this kind.
fn only<T: DeserializeOwned>(rendered: &[Value], kind: &str) -> T {
    let mut found = rendered.iter().filter(|object| object["kind"] == kind);
    let (first, more) = (found.next(), found.next());
    assert!(more.is_none(), "the chart has more than one {kind}");
    let object = first.unwrap_or_else(|| panic!("the chart has no {kind}"));
    serde_json::from_value(object.clone()).unwrap_or_else(|error| panic!("{kind}: {error}: {object}"))
}

impl PodSpec {
    /// Returns the time from the deletion to the kill.
    pub(super) const fn grace(&self) -> Duration {
        Duration::from_secs(self.termination_grace_period_seconds)
    }
}

impl Container {
    #[track_caller]
    pub(super) fn port(&self, name: &str) -> u16 {
        let port = self.ports.iter().find(|port| port.name == name);
        port.unwrap_or_else(|| panic!("no port is called {name}")).container_port
    }

    /// Returns the time from the deletion to SIGTERM.
    pub(super) fn pre_stop(&self) -> Duration {
        Duration::from_secs(self.lifecycle.pre_stop.as_ref().map_or(0, |pre_stop| pre_stop.sleep.seconds))
    }
}

impl Probe {
    pub(super) const fn initial_delay(&self) -> Duration {
        Duration::from_secs(self.initial_delay_seconds)
    }

    pub(super) const fn period(&self) -> Duration {
        Duration::from_secs(self.period_seconds)
    }

    pub(super) const fn timeout(&self) -> Duration {
        Duration::from_secs(self.timeout_seconds)
    }
}
