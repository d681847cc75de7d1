//! The chart of helm/rtm-bridge, rendered by Helm.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;
use tempfile::TempDir;

/// A template that turns manifests into JSON lines. Helm parses YAML as a cluster does, so no second parser is needed.
const AS_JSON: &str = r#"{{- range regexSplit "(?m)^---$" (.Files.Get "manifests.yaml") -1 }}{{ with fromYaml . }}
---
{{ toJson . }}
{{ end }}{{ end }}"#;

/// Returns the objects that `helm install` or `helm upgrade` would apply, hooks included.
pub(super) fn render(release: &str, values: &Value) -> Vec<Value> {
    let dir = tempfile::tempdir().unwrap();
    // JSON is YAML.
    let file = write(&dir, "values.yaml", &values.to_string());
    let chart = Path::new(env!("CARGO_MANIFEST_DIR")).join("helm/rtm-bridge");
    let manifests = template(release, &chart, &["--values", file.to_str().unwrap()]);
    write(&dir, "Chart.yaml", "{apiVersion: v2, name: json, version: 0.0.0}");
    write(&dir, "templates/all.yaml", AS_JSON);
    write(&dir, "manifests.yaml", &manifests);
    let lines = template(release, dir.path(), &[]);
    let objects: Vec<_> = lines.lines().filter(|line| line.starts_with('{')).collect();
    objects.into_iter().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn template(release: &str, chart: &Path, arguments: &[&str]) -> String {
    let helm = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/tools/helm");
    assert!(helm.is_file(), "{} is not there: run scripts/test rehearsal", helm.display());
    let output = Command::new(helm).args(["template", release]).arg(chart).args(arguments).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn write(dir: &TempDir, name: &str, text: &str) -> PathBuf {
    let path = dir.path().join(name);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(&path, text).unwrap();
    path
}
