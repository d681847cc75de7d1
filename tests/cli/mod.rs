//! The program as a process: exit codes and output.

mod chat;
mod colour;
mod doctor;
mod generated;
mod migrate;
mod redis;
mod rhythm;
mod sandbox;
mod webhook;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Command, Output, Stdio};

use rtm_bridge::domain::Sha256;

const COMMANDS: &[&str] = &[
    "dev",
    "chat",
    "serve",
    "sandbox",
    "check-config",
    "doctor",
    "migrate",
    "rhythm",
    "key",
    "webhook",
    "healthcheck",
    "completions",
    "man",
];

const CONFIG: &str = concat!(
    "\n[store]\nurl = \"memory://\"\n",
    include_str!("../fixtures/bot.toml"),
    "client_secret_file = \"SECRET\"\n"
);

/// Returns the program with an empty environment.
fn rtm_bridge(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_rtm-bridge"));
    command.args(arguments).env_clear();
    command
}

fn run(arguments: &[&str]) -> (Option<i32>, String, String) {
    outcome(&rtm_bridge(arguments).output().unwrap())
}

fn outcome(output: &Output) -> (Option<i32>, String, String) {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

/// Writes a configuration into a directory that exists until the guard is dropped.
fn config(text: &str) -> (tempfile::TempDir, String) {
    let dir = tempfile::tempdir().unwrap();
    let secret = dir.path().join("secret");
    std::fs::write(&secret, "hush-hush\n").unwrap();
    let file = dir.path().join("bridge.toml");
    std::fs::write(&file, text.replace("SECRET", secret.to_str().unwrap())).unwrap();
    let file = file.to_str().unwrap().to_owned();
    (dir, file)
}

#[test]
fn help_and_version_exit_0() {
    let (code, out, _) = run(&["--help"]);
    assert_eq!(code, Some(0));
    for word in COMMANDS.iter().chain(&["Examples:"]) {
        assert!(out.contains(word), "{word}: {out}");
    }
    assert_eq!(run(&["--version"]).1.trim(), format!("rtm-bridge {}", env!("CARGO_PKG_VERSION")));
    for command in COMMANDS {
        let (code, out, _) = run(&[command, "--help"]);
        assert!(code == Some(0) && out.contains("Example"), "{command}: {out}");
    }
}

#[test]
fn wrong_usage_exits_2() {
    for arguments in
        [&["nonsense"][..], &[], &["serve", "--port", "1"], &["key"], &["key", "new", "--name", "a b"]]
    {
        let (code, out, err) = run(arguments);
        assert_eq!(code, Some(2), "{arguments:?}");
        assert!(out.is_empty() && !err.is_empty(), "{arguments:?}");
    }
    let (code, _, err) = run(&["serv"]);
    assert!(code == Some(2) && err.contains("'serve'"), "a similar command is suggested: {err}");
}

#[test]
fn valid_configuration_exits_0() {
    let (_dir, file) = config(CONFIG);
    let (code, out, err) = run(&["check-config", "--config", &file]);
    assert_eq!(code, Some(0), "{err}");
    assert!(out.contains("is valid"), "{out}");
    let named = rtm_bridge(&["check-config"]).env("RTM_BRIDGE_CONFIG", &file).output().unwrap();
    assert_eq!(outcome(&named).0, Some(0));
}

#[test]
fn keys_option_lists_keys_without_a_configuration() {
    let (code, out, err) = run(&["check-config", "--keys"]);
    assert_eq!((code, err.as_str()), (Some(0), ""));
    for key in ["server.listen", "bots.NAME.client_secret_file", "webhooks.allowed"] {
        assert!(out.lines().any(|line| line == key), "{key} is missing: {out}");
    }
    assert_eq!(
        run(&["check-config", "--keys", "--config", "bridge.toml"]).0,
        Some(2),
        "the options exclude each other"
    );
}

/// The configuration as a reader of the page copies it.
#[test]
fn getting_started_configuration_has_no_warning() {
    let page = include_str!("../../docs/getting-started.md");
    let (_, rest) = page.split_once("```toml\n").unwrap();
    let (toml, _) = rest.split_once("```").unwrap();
    let (_dir, file) = config(toml);
    for url in ["memory://", "redis://127.0.0.1:6379"] {
        let checked = rtm_bridge(&["check-config", "--config", &file])
            .env("RTM_BRIDGE__STORE__URL", url)
            .env("RTM_BRIDGE__CLUSTER__REPLICA_ID", "one")
            .output()
            .unwrap();
        let (code, out, err) = outcome(&checked);
        assert_eq!((code, err.as_str()), (Some(0), ""), "{out}");
    }
}

#[test]
fn getting_started_webhooks_extend_its_configuration() {
    let page = include_str!("../../docs/getting-started.md");
    let blocks: Vec<&str> =
        page.split("```toml\n").skip(1).filter_map(|rest| rest.split("```").next()).collect();
    let [bridge, webhooks] = blocks[..] else { panic!("{blocks:?}") };
    let (dir, file) = config(&format!("{bridge}{webhooks}"));
    std::fs::write(dir.path().join("webhook.secret"), run(&["webhook", "secret"]).1).unwrap();
    let checked = rtm_bridge(&["check-config", "--config", &file]).current_dir(dir.path()).output().unwrap();
    let (code, out, err) = outcome(&checked);
    assert_eq!(code, Some(0), "{out}{err}");
}

#[test]
fn invalid_configuration_exits_78_with_all_errors() {
    let (_dir, file) = config(&CONFIG.replace("memory://", "redis://:hush@h/none").replace("cs-1", "st-1"));
    for command in ["check-config", "serve", "migrate", "healthcheck"] {
        let output = rtm_bridge(&[command, "--config", &file])
            .env("RTM_BRIDGE__BOTS__SUPPORT__QUIET", "never")
            .output()
            .unwrap();
        let (code, out, err) = outcome(&output);
        assert_eq!(code, Some(78), "{command}: {err}");
        assert!(out.is_empty(), "{out}");
        for part in ["3 errors", "store.url", "bots.support.client_id", "(RTM_BRIDGE__BOTS__SUPPORT__QUIET)"]
        {
            assert!(err.contains(part), "{part}: {err}");
        }
        assert!(!err.contains("hush"), "{err}");
    }
}

#[test]
fn missing_file_exits_78_with_the_next_step() {
    let (code, _, err) = run(&["check-config", "--config", "/nowhere/bridge.toml"]);
    assert_eq!(code, Some(78));
    assert!(err.contains("/nowhere/bridge.toml") && err.contains("RTM_BRIDGE_CONFIG"), "{err}");
}

#[test]
fn new_key_is_printed_with_its_hash() {
    let (code, out, err) = run(&["key", "new", "--name", "crm"]);
    assert_eq!((code, err.as_str()), (Some(0), ""));
    let key = out.lines().map(str::trim).find(|line| line.starts_with("rtmb_")).unwrap();
    let printed =
        out.lines().find_map(|line| line.strip_prefix("key_sha256 = \"")?.strip_suffix('"')).unwrap();
    let digits: Vec<u8> =
        (0..64).step_by(2).map(|at| u8::from_str_radix(&printed[at..at + 2], 16).unwrap()).collect();
    assert_eq!(digits, Sha256::digest(key).to_vec());
    assert_ne!(run(&["key", "new"]).1, run(&["key", "new"]).1);
    // The printed section is valid in a configuration.
    let section = &out[out.find("[[callers]]").unwrap()..];
    let (_dir, file) = config(&format!("{CONFIG}{section}"));
    assert_eq!(run(&["check-config", "--config", &file]).0, Some(0));
}

#[test]
fn healthcheck_exit_code_follows_the_answer() {
    for (answer, code) in [
        ("HTTP/1.1 200 OK\r\n\r\n", 0),
        ("HTTP/1.1 503 Service Unavailable\r\n\r\n", 1),
        ("SSH-2.0-x\r\n\r\n", 1),
    ] {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/readyz", listener.local_addr().unwrap());
        let check = std::thread::scope(|scope| {
            scope.spawn(|| {
                let (mut stream, _) = listener.accept().unwrap();
                let mut request = [0; 19];
                stream.read_exact(&mut request).unwrap();
                assert_eq!(&request, b"GET /readyz HTTP/1.");
                stream.write_all(answer.as_bytes()).unwrap();
                // Closing would reset the connection if bytes were unread.
                stream.shutdown(std::net::Shutdown::Write).unwrap();
                let _rest = stream.read_to_end(&mut Vec::new());
            });
            let check = run(&["healthcheck", "--timeout", "30", "--url", &url]);
            // The thread above must not wait for a program that never connected.
            let _unblock = TcpStream::connect(listener.local_addr().unwrap());
            check
        });
        assert_eq!(check.0, Some(code), "{answer}: {}", check.2);
    }
}

#[test]
fn healthcheck_without_a_bridge_exits_1() {
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let (code, _, err) = run(&["healthcheck", "--url", &format!("http://127.0.0.1:{port}/readyz")]);
    assert_eq!(code, Some(1));
    assert!(err.contains("start the bridge"), "{err}");
}

#[test]
fn taken_port_exits_1_and_names_the_option() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let (code, _, err) = run(&["sandbox", "--listen", &address.to_string()]);
    assert_eq!(code, Some(1), "{err}");
    assert!(err.contains("--listen"), "{err}");
    let (code, _, err) = run(&["dev", "--admin-port", "0", "--port", &address.port().to_string()]);
    assert_eq!(code, Some(1), "{err}");
    assert!(err.contains("--port"), "{err}");
    let (_dir, file) = config(CONFIG);
    let output = rtm_bridge(&["serve", "--config", &file])
        .env("RTM_BRIDGE__SERVER__LISTEN", address.to_string())
        .env("RTM_BRIDGE__SERVER__ADMIN_LISTEN", "127.0.0.1:0")
        .output()
        .unwrap();
    let (code, _, err) = outcome(&output);
    assert_eq!(code, Some(1), "{err}");
    assert!(err.contains("server.listen"), "{err}");
}

#[test]
fn malformed_requests_write_no_error_line() {
    let mut dev = rtm_bridge(&["dev", "--port", "0", "--admin-port", "0"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let banner = BufReader::new(dev.stdout.take().unwrap()).lines();
    let line = banner.map(Result::unwrap).find(|line| line.contains("/openapi.json")).unwrap_or_default();
    let address = line.split_once("http://").and_then(|(_, rest)| rest.split('/').next()).unwrap_or_default();
    let mut answers = Vec::new();
    for bytes in ["NONSENSE\r\n\r\n".to_owned(), format!("GET / HTTP/1.1\r\nX: {}", "y".repeat(200_000))] {
        let mut stream = TcpStream::connect(address).unwrap();
        // The server does not read the rest of what it refuses.
        let _written = stream.write_all(bytes.as_bytes());
        let mut answer = String::new();
        // The connection closes after the line would have been written.
        stream.read_to_string(&mut answer).unwrap();
        answers.push(answer);
    }
    dev.kill().unwrap();
    let (_, _, log) = outcome(&dev.wait_with_output().unwrap());
    assert!(
        answers[0].starts_with("HTTP/1.1 400 ") && answers[1].starts_with("HTTP/1.1 431 "),
        "{answers:?}"
    );
    assert!(log.contains("the bridge is ready") && !log.contains("ERROR"), "{log}");
}
