//! Colour: `NO_COLOR` and `CLICOLOR_FORCE` decide for everything that the program prints.

use std::io::{BufRead as _, BufReader, Read, Write as _};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};

use super::chat::{STREAM, respond, serve_scripted};
use super::{outcome, rtm_bridge};

const ESCAPE: &str = "\x1b[";
/// Variables of the environment, and whether output into a pipe is coloured.
const CASES: [(&[&str], bool); 3] =
    [(&[], false), (&["CLICOLOR_FORCE"], true), (&["CLICOLOR_FORCE", "NO_COLOR"], false)];

fn with_variables(arguments: &[&str], variables: &[&str]) -> Command {
    let mut program = rtm_bridge(arguments);
    program.envs(variables.iter().map(|name| (name, "1")));
    program
}

/// A running program, killed when it is dropped.
struct RunningChild(Child);

impl Drop for RunningChild {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

fn start(arguments: &[&str], variables: &[&str]) -> RunningChild {
    let mut program = with_variables(arguments, variables);
    RunningChild(program.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap())
}

fn next_line(output: &mut BufReader<impl Read>) -> String {
    let mut line = String::new();
    output.read_line(&mut line).unwrap();
    line
}

#[test]
fn help_and_errors_are_coloured_if_forced() {
    for (variables, coloured) in CASES {
        for arguments in
            [&["--help"][..], &["nonsense"], &["check-config", "--config", "/nowhere/bridge.toml"]]
        {
            let (_, out, err) = outcome(&with_variables(arguments, variables).output().unwrap());
            assert_eq!((out + &err).contains(ESCAPE), coloured, "{arguments:?} {variables:?}");
        }
    }
}

#[test]
fn chat_notes_are_coloured_if_forced() {
    for (variables, coloured) in CASES {
        let mut streams = Vec::new();
        let bridge = |head: &str, stream: TcpStream| {
            if head.starts_with("post") {
                respond(&stream, "400 Bad Request", "");
            } else {
                respond(&stream, STREAM, "");
                streams.push(stream);
            }
        };
        serve_scripted(bridge, |url| {
            let arguments = ["chat", "--user", "me", "--url", url, "hi"];
            let (_, _, err) = outcome(&with_variables(&arguments, variables).output().unwrap());
            let note = err.lines().find(|line| line.contains("(not sent: ")).unwrap();
            assert_eq!(note.contains(ESCAPE), coloured, "{variables:?}: {err}");
        });
    }
}

#[test]
fn listen_reports_are_coloured_if_forced() {
    for (variables, coloured) in CASES {
        let mut program = start(&["webhook", "listen", "--addr", "127.0.0.1:0"], variables);
        let mut output = BufReader::new(program.0.stdout.take().unwrap());
        let line = next_line(&mut output);
        let address = line.split_once("http://").unwrap().1.split_once(". ").unwrap().0;
        let mut request = TcpStream::connect(address).unwrap();
        request.write_all(b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\n\r\n{}").unwrap();
        let report = next_line(&mut output);
        assert!(report.contains("not checked"), "{report}");
        assert_eq!(report.contains(ESCAPE), coloured, "{variables:?}: {report}");
    }
}

#[test]
fn logs_are_coloured_if_forced() {
    for (variables, coloured) in CASES {
        let mut program = start(&["dev", "--port", "0", "--admin-port", "0"], variables);
        let log = next_line(&mut BufReader::new(program.0.stderr.take().unwrap()));
        assert!(log.contains("INFO"), "{log}");
        assert_eq!(log.contains(ESCAPE), coloured, "{variables:?}: {log}");
    }
}
