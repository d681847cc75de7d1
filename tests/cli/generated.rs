//! The generated completions and manual pages.

use std::io::Write as _;
use std::process::{Command, Stdio};

use super::{COMMANDS, run};

#[test]
fn bash_completions_are_valid_and_name_each_command() {
    let (code, script, err) = run(&["completions", "bash"]);
    assert_eq!((code, err.as_str()), (Some(0), ""));
    let mut bash = Command::new("bash").arg("-n").stdin(Stdio::piped()).spawn().unwrap();
    bash.stdin.take().unwrap().write_all(script.as_bytes()).unwrap();
    assert!(bash.wait().unwrap().success(), "{script}");
    for command in COMMANDS {
        assert!(script.contains(&format!("rtm__bridge,{command})")), "{command}");
    }
}

#[test]
fn other_shells_have_completions_for_each_command() {
    for shell in ["zsh", "fish", "elvish", "powershell"] {
        let (code, script, _) = run(&["completions", shell]);
        assert_eq!(code, Some(0), "{shell}");
        for command in COMMANDS {
            assert!(script.contains(command), "{shell}: {command}");
        }
    }
    assert_eq!(run(&["completions", "tcsh"]).0, Some(2));
}

#[test]
fn manual_has_a_page_for_each_command() {
    let (code, page, err) = run(&["man"]);
    assert_eq!((code, err.as_str()), (Some(0), ""));
    assert!(page.contains(".TH rtm-bridge 1"), "{page}");
    let dir = tempfile::tempdir().unwrap();
    let (code, out, err) = run(&["man", "--out-dir", dir.path().to_str().unwrap()]);
    assert_eq!((code, out.as_str(), err.as_str()), (Some(0), "", ""));
    assert_eq!(std::fs::read_to_string(dir.path().join("rtm-bridge.1")).unwrap(), page);
    for command in COMMANDS.iter().chain(&["key-new", "webhook-listen"]) {
        let page = std::fs::read_to_string(dir.path().join(format!("rtm-bridge-{command}.1"))).unwrap();
        assert!(page.contains("Example"), "{command}: {page}");
    }
    let (code, _, err) = run(&["man", "--out-dir", "/nowhere/man1"]);
    assert!(code == Some(1) && err.contains("/nowhere/man1") && err.contains("--out-dir"), "{err}");
}
