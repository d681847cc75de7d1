//! `rtm-bridge sandbox` with a script.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::process::Stdio;

use serde_json::Value;

use super::{rtm_bridge, run};
use crate::support::{Caller, Request};

#[test]
fn script_mistakes_exit_78_with_their_places() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("bot.yaml");
    let file = file.to_str().unwrap();
    std::fs::write(file, "bots:\n  - {id: st-1, rules: [{goto: a}]}\n  - {id: st-1}\n").unwrap();
    let (code, out, err) = run(&["sandbox", "--script", file]);
    assert_eq!((code, out.as_str()), (Some(78), ""));
    assert!(err.contains(&format!("\n{file}:2:")) && err.contains("no dialog a"), "{err}");
    assert!(err.contains(&format!("\n{file}:3:")) && err.contains("given twice"), "{err}");
    let (code, _, err) = run(&["sandbox", "--script", "/nowhere/bot.yaml"]);
    assert!(code == Some(1) && err.contains("/nowhere/bot.yaml"), "{err}");
}

#[test]
fn schema_of_scripts_is_printed() {
    let (code, out, err) = run(&["sandbox", "--schema"]);
    assert_eq!((code, err.as_str()), (Some(0), ""));
    let schema: Value = serde_json::from_str(&out).unwrap();
    assert!(schema["properties"]["bots"].is_object(), "{out}");
}

#[test]
fn reachable_sandbox_prints_its_control_key() {
    crate::support::run(async {
        let mut sandbox = rtm_bridge(&["sandbox", "--listen", "0.0.0.0:0"])
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(sandbox.stdout.take().unwrap()).lines().map(Result::unwrap);
        let port = lines.next().unwrap().rsplit_once(':').unwrap().1.parse::<u16>().unwrap();
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        let key = lines.next().unwrap().rsplit_once(' ').unwrap().1.to_owned();
        let heard = |key: &str| {
            let request = Request::new("GET", "/sandbox/heard?wait=0");
            Caller(address).send(request.header("Authorization", &format!("Bearer {key}")))
        };
        assert_eq!((heard("wrong").await.status, heard(&key).await.status), (401, 200));
        sandbox.kill().unwrap();
        let output = sandbox.wait_with_output().unwrap();
        let warning = String::from_utf8(output.stderr).unwrap();
        assert!(warning.contains("reachable from other hosts") && !warning.contains(&key), "{warning}");
    });
}
