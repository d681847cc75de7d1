//! `rtm-bridge sandbox` with a script.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::process::Stdio;

use serde_json::Value;

use super::{rtm_bridge, run};
use crate::support::{Caller, Program, Request};

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
fn dev_plays_the_bots_of_a_script() {
    crate::support::run(async {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("bot.yaml");
        let file = file.to_str().unwrap();
        let script = "apps: [{id: cs-a, publicKey: x}, {id: cs-b, secret: b, algorithms: [HS512], enforceJti: true}]\n\
                      bots: [{id: st-a, otherwise: 'A: ${text}'}, {id: st-b, otherwise: 'B: ${text}'}]\n";
        let key = include_str!("../../crates/sandbox/src/tests/rsa_public.pem").replace('\n', "\\n");
        std::fs::write(file, script.replace("publicKey: x", &format!("publicKey: \"{key}\""))).unwrap();
        let mut dev = Program::printing(&["dev", "--port", "0", "--admin-port", "0", "--script", file]);
        let curl = dev.line_with("curl").await;
        let address = curl.split('/').nth(2).unwrap().parse().unwrap();
        let say = async |query: &str| {
            let target = format!("/conversations/ann/messages{query}");
            let body = serde_json::json!({"text": "hi", "turn": {"expectReplies": 1}});
            let answer = Caller(address).send(Request::new("POST", target).json(&body)).await.message(200);
            answer["replies"][0]["text"].as_str().unwrap().to_owned()
        };
        assert_eq!((say("").await, say("?bot=st-b").await), ("A: hi".to_owned(), "B: hi".to_owned()));
    });
}

#[test]
fn dev_exits_with_the_mistakes_of_a_script() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("bot.yaml");
    let file = file.to_str().unwrap();
    let exit = |text: &str| {
        std::fs::write(file, text).unwrap();
        run(&["dev", "--port", "0", "--admin-port", "0", "--script", file])
    };
    let (code, _, err) = exit("bots: [{id: st-1, rulez: []}]");
    assert!(code == Some(78) && err.contains(&format!("{file}:1:")) && err.contains("rulez"), "{err}");
    let (code, _, err) = exit("apps: [{id: cs-1, secret: s, enforceJwe: true}]\nbots: [{id: st-1}]");
    assert!(code == Some(1) && err.contains("give one a secret"), "{err}");
    let (code, _, err) = exit("bots: [{id: st 1}]");
    assert!(code == Some(1) && err.contains("cannot name a bot \"st 1\""), "{err}");
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
