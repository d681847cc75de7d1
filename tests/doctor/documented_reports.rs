//! The reports of docs/doctor.md: what the program prints for a working set-up and for broken ones.
//!
//! `UPDATE_REPORTS=1` writes them into the page. Ports, times and versions of Redis are replaced, because they differ from
//! run to run.

use std::process::Command;
use std::time::Duration;

use rtm_sandbox::{Endpoint, Fault, Sandbox, SandboxScript};

use super::server::{PlainServer, TlsFront};
use crate::support::{Receiver, RedisOptions, RedisServer, SECRET, quiet_platform, run_for};

const PAGE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/doctor.md");
/// The start of a block of the page. Its name follows.
const FENCE: &str = "```text report=";

/// The parts of a configuration that a mistake is in.
struct Setup {
    platform: String,
    bot_id: &'static str,
    client_id: &'static str,
    secret: &'static str,
    store: String,
    /// More tables.
    more: String,
}

impl Setup {
    fn new(platform: String) -> Self {
        Self {
            platform,
            bot_id: rtm_sandbox::BOT_ID,
            client_id: rtm_sandbox::CLIENT_ID,
            secret: rtm_sandbox::CLIENT_SECRET,
            store: "memory://".to_owned(),
            more: String::new(),
        }
    }

    /// Runs the program, and returns its report.
    async fn report(&self) -> String {
        let Self { platform, bot_id, client_id, secret, store, more } = self;
        let text = format!(
            "[store]\nurl = \"{store}\"\n[[bots]]\nname = \"support\"\nplatform = \"{platform}\"\nchat_bot = \"Support\"\n\
             task_bot_id = \"{bot_id}\"\nclient_id = \"{client_id}\"\nclient_secret = \"{secret}\"\n{more}"
        );
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_rtm-bridge"));
        command.env_clear().args(["doctor", "--config"]).arg(file.path());
        let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
        let report = String::from_utf8(output.stdout).unwrap();
        let failed = report.contains("\nfailed ");
        assert_eq!(output.status.code(), Some(i32::from(failed)), "{report}");
        report
    }

    /// Runs the program, and returns the lines that tell the mistake.
    async fn mistake(&self) -> String {
        let report = self.report().await;
        // `localhost` may have an address without a listener.
        let tells =
            |line: &&str| !line.starts_with("ok ") && !line.contains(" checks, ") && !line.contains("[::1]");
        report.lines().filter(tells).flat_map(|line| [line, "\n"]).collect()
    }
}

/// Replaces what differs from run to run.
fn steady(report: &str, ports: &[(u16, u16)]) -> String {
    let mut report = report.to_owned();
    for (port, shown) in ports {
        for before in [":", "port "] {
            report = report.replace(&format!("{before}{port}"), &format!("{before}{shown}"));
        }
    }
    let report = masked_before(&report, " ms", "1");
    let report = masked_before(&report, " MiB of ", "1");
    let report = masked_before(&report, " s ahead", "600");
    let (known, rest) = report.split_once(", version ").unwrap_or((&report, ""));
    let version = rest.trim_start_matches(|c: char| c.is_ascii_digit() || c == '.');
    let report = if rest.is_empty() { known.to_owned() } else { format!("{known}, version 7{version}") };
    // The words of the resolver are the system's.
    let lines = report.lines().map(|line| match line.split_once("the name has no address: ") {
        Some((before, after)) => {
            let next = after.find(". Next").map_or("", |at| &after[at..]);
            format!("{before}the name has no address{next}\n")
        }
        None => format!("{line}\n"),
    });
    lines.collect()
}

/// Replaces each number in front of these words.
fn masked_before(text: &str, words: &str, shown: &str) -> String {
    let parts: Vec<&str> = text.split(words).collect();
    let (last, before) = parts.split_last().unwrap();
    let is_number = |c: char| c.is_ascii_digit() || c == '.';
    let masked = before.iter().map(|part| format!("{}{shown}{words}", part.trim_end_matches(is_number)));
    masked.chain([(*last).to_owned()]).collect()
}

fn port_of(url: &str) -> u16 {
    url.rsplit_once(':').unwrap().1.trim_end_matches('/').parse().unwrap()
}

/// Returns the report of a set-up with Redis and a receiver that works in each step.
async fn working(platform: &str) -> String {
    let redis = RedisServer::start(RedisOptions {
        appendonly: true,
        maxmemory: 100 << 20,
        ..RedisOptions::default()
    });
    let (redis, receiver) = (redis.await, Receiver::start());
    let url = format!("http://{}/in", receiver.address());
    let more = format!(
        "[[bots.webhooks]]\nname = \"main\"\nurl = \"{url}\"\nsecrets = [\"{SECRET}\"]\n[webhooks]\nallow_private = [\"127.0.0.0/8\"]\n"
    );
    let setup = Setup { store: redis.url(), more, ..Setup::new(platform.to_owned()) };
    let ports = [(port_of(platform), 4000), (redis.port, 6379), (receiver.address().port(), 8443)];
    steady(&setup.report().await, &ports)
}

/// Returns the reports of mistakes in the configuration of a bot.
async fn wrong_bots(platform: &str, script: &SandboxScript) -> Vec<(&'static str, String)> {
    let right = || Setup::new(platform.to_owned());
    let mut reports = vec![
        ("wrong-secret", Setup { secret: "another-secret", ..right() }.mistake().await),
        ("wrong-client-id", Setup { client_id: "cs-another", ..right() }.mistake().await),
        ("wrong-bot-id", Setup { bot_id: "st-another", ..right() }.mistake().await),
    ];
    let refusal =
        Fault::Error { status: 403, code: "403".into(), msg: "the RTM channel is not enabled".into() };
    script.fault(Endpoint::Start, refusal);
    reports.push(("no-channel", right().mistake().await));
    script.clear_all_faults();
    reports
}

/// Returns the reports of platforms that are out of reach, or another server.
async fn wrong_servers(platform: &str) -> Vec<(&'static str, String)> {
    let upstream = ([127, 0, 0, 1], port_of(platform)).into();
    let expired = r#"{"errors":[{"msg":"error verifying the jwt: jwt expired","code":401}]}"#;
    let early = PlainServer::start(600, 401, "application/json", expired).await;
    let console = PlainServer::start(0, 200, "text/html", "<html>Sign in</html>").await;
    let front = TlsFront::start(upstream, "server").await;
    let mut reports = Vec::new();
    for (name, url) in [
        ("clock-off", early.url().to_string()),
        ("proxy-needed", "https://platform.invalid/".to_owned()),
        ("private-authority", front.url("https").to_string()),
        ("console", console.url().to_string()),
        ("http-for-https", front.url("http").to_string()),
    ] {
        let setup = Setup::new(url.trim_end_matches('/').to_owned());
        let port = url.rsplit(':').next().and_then(|port| port.trim_end_matches('/').parse().ok());
        let ports: Vec<_> = port.into_iter().map(|port| (port, 4000)).collect();
        reports.push((name, steady(&setup.mistake().await, &ports)));
    }
    reports
}

/// Returns the reports of a Redis without rights, and of a receiver with an expired certificate.
async fn wrong_neighbours(platform: &str) -> Vec<(&'static str, String)> {
    let options = RedisOptions {
        appendonly: true,
        maxmemory: 100 << 20,
        user: Some(("bridge", "hush")),
        ..RedisOptions::default()
    };
    let redis = RedisServer::start(options).await;
    redis.command(&["ACL", "SETUSER", "bridge", "-hset", "-publish"]).await;
    let store = redis.url().replace("redis://", "redis://bridge:hush@");
    let rights = Setup { store, ..Setup::new(platform.to_owned()) }.mistake().await;
    let receiver = Receiver::start();
    let front = TlsFront::start(receiver.address(), "expired").await;
    let url = front.url("https");
    let more = format!(
        "[[bots.webhooks]]\nname = \"main\"\nurl = \"{url}\"\nsecrets = [\"{SECRET}\"]\n[webhooks]\nallow_private = [\"127.0.0.0/8\", \"::1/128\"]\n"
    );
    let certificate = Setup { more, ..Setup::new(platform.to_owned()) }.mistake().await;
    let port = port_of(url.as_str());
    vec![("redis-rights", rights), ("expired-certificate", steady(&certificate, &[(port, 8443)]))]
}

#[test]
fn reports_of_the_page_are_the_programs() {
    run_for(Duration::from_mins(2), async {
        let sandbox = Sandbox::start(quiet_platform()).await.unwrap();
        let (platform, script) = (sandbox.url(), sandbox.script());
        let mut reports = vec![("working", working(&platform).await)];
        reports.extend(wrong_bots(&platform, &script).await);
        reports.extend(wrong_servers(&platform).await);
        reports.extend(wrong_neighbours(&platform).await);
        let page = std::fs::read_to_string(PAGE).unwrap();
        let mut written = String::new();
        let mut blocks = page.split(FENCE);
        written.push_str(blocks.next().unwrap());
        let mut shown = Vec::new();
        for block in blocks {
            let (name, rest) = block.split_once('\n').unwrap();
            let behind = &rest[rest.find("```").unwrap()..];
            let (_, report) =
                reports.iter().find(|(known, _)| *known == name).unwrap_or_else(|| panic!("{name}"));
            for part in [FENCE, name, "\n", report, behind] {
                written.push_str(part);
            }
            shown.push(name.to_owned());
        }
        let all: Vec<_> = reports.iter().map(|(name, _)| (*name).to_owned()).collect();
        assert_eq!(shown, all, "the page shows each report once");
        if std::env::var_os("UPDATE_REPORTS").is_some() {
            return std::fs::write(PAGE, written).unwrap();
        }
        assert!(page == written, "UPDATE_REPORTS=1 writes these reports into docs/doctor.md:\n{written}");
    });
}
