//! The output and the exit codes of `rtm-bridge doctor`.

use rtm_sandbox::Sandbox;
use serde_json::Value;

use super::{config, outcome, rtm_bridge};
use crate::support::{free_port, quiet_platform, run};

/// A configuration for a platform at this address.
fn text(platform: &str, secret: &str) -> String {
    format!(
        "[store]\nurl = \"memory://\"\n[[bots]]\nname = \"support\"\nplatform = \"{platform}\"\nchat_bot = \"Sandbox\"\n\
         task_bot_id = \"{}\"\nclient_id = \"{}\"\nclient_secret = \"{secret}\"\n",
        rtm_sandbox::BOT_ID,
        rtm_sandbox::CLIENT_ID
    )
}

/// Runs the program beside the tasks of the test.
async fn doctor(text: String, options: &[&str], env: &[(&str, &str)]) -> (Option<i32>, String, String) {
    let (dir, file) = config(&text);
    let mut command = rtm_bridge(&["doctor", "--config", &file]);
    command.args(options).envs(env.iter().copied());
    let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
    drop(dir);
    outcome(&output)
}

#[test]
fn doctor_exits_0_for_a_working_setup() {
    run(async {
        let sandbox = Sandbox::start(quiet_platform()).await.unwrap();
        let working = text(&sandbox.url(), rtm_sandbox::CLIENT_SECRET);
        let (code, out, err) = doctor(working.clone(), &[], &[]).await;
        assert_eq!((code, err.as_str()), (Some(0), ""), "{out}");
        let lines: Vec<&str> = out.lines().collect();
        assert!(lines[0].starts_with("ok       configuration: valid"), "{out}");
        assert!(lines.iter().any(|line| line.starts_with("ok       socket support: ")), "{out}");
        assert!(lines.last().unwrap().ends_with("0 failed, 0 warnings"), "{out}");
        // Proxies of the environment do not serve this machine.
        let env = [("HTTP_PROXY", "http://u:hush@127.0.0.1:1"), ("NO_PROXY", "?")];
        let (code, out, err) = doctor(working, &["--json"], &env).await;
        assert_eq!((code, err.as_str()), (Some(0), ""), "{out}");
        let report: Value = serde_json::from_str(&out).unwrap();
        assert_eq!((&report["level"], &report["warnings"]), (&"warning".into(), &1.into()), "{out}");
        assert!(!out.contains("hush"), "{out}");
    });
}

#[test]
fn doctor_exits_1_for_a_failed_check() {
    run(async {
        let dead = text(&format!("http://127.0.0.1:{}", free_port()), "hush");
        let (code, out, err) = doctor(dead.clone(), &[], &[]).await;
        assert_eq!(code, Some(1), "{out}");
        assert!(out.contains("\nfailed   dns 127.0.0.1: ") && out.contains(". Next: "), "{out}");
        assert!(err.contains("a check failed") && !out.contains("hush"), "{err}");
        let (code, out, _) = doctor(dead, &["--json"], &[]).await;
        let report: Value = serde_json::from_str(&out).unwrap();
        assert_eq!((code, &report["failed"]), (Some(1), &1.into()), "{out}");
        let failed =
            report["findings"].as_array().unwrap().iter().find(|finding| finding["level"] == "failed");
        assert!(
            failed.is_some_and(|finding| finding["check"] == "dns" && finding["next"].is_string()),
            "{out}"
        );
    });
}

#[test]
fn doctor_exits_78_for_an_invalid_configuration() {
    run(async {
        let invalid = text("https://h", "hush") + "quiet = \"never\"\n[proxy]\nurl = \"socks5://u:hush@h\"\n";
        let (code, out, err) = doctor(invalid.clone(), &[], &[]).await;
        assert_eq!(code, Some(78), "{out}{err}");
        assert!(out.starts_with("failed   configuration: proxy.url"), "{out}");
        assert!(out.contains("failed   configuration: bots.support.quiet"), "{out}");
        assert!(err.contains("configuration has errors") && !format!("{out}{err}").contains("hush"), "{err}");
        let (code, out, _) = doctor(invalid, &["--json"], &[]).await;
        let report: Value = serde_json::from_str(&out).unwrap();
        assert_eq!((code, &report["failed"]), (Some(78), &2.into()), "{out}");
        let (code, _, _) = doctor(text("https://h", "x"), &["--user", ""], &[]).await;
        assert_eq!(code, Some(2));
    });
}
