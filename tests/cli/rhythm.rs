//! `rtm-bridge rhythm` as a process, against a scripted bridge.

use std::net::TcpStream;

use super::chat::{respond, serve_scripted};
use super::{outcome, rtm_bridge};

const BODY: &str = r#"{"bot": "support", "auto": true, "turns": 512, "earlyCuts": 1, "longestFirstReplyMs": 900,
    "kinds": [{"kind": "00000000000000f1", "observations": 12.5, "followed": 0.25, "quiet": {"ms": 140, "by": "learned"}}]}"#;

fn rhythm(url: &str, more: &[&str]) -> (Option<i32>, String, String) {
    let mut command = rtm_bridge(&[&["rhythm", "--bot", "support", "--url", url], more].concat());
    outcome(&command.env("RTM_BRIDGE_KEY", "rtmb_hush").output().unwrap())
}

/// Serves this answer, and checks that the requests are those of the command.
fn served(
    method: &'static str,
    head: &'static str,
    body: &'static str,
) -> impl FnMut(&str, TcpStream) + Send {
    move |request, stream| {
        assert!(request.starts_with(&format!("{method} /bots/support/rhythm http/1.1")), "{request}");
        assert!(request.contains("authorization: bearer rtmb_hush\r\n"), "{request}");
        respond(&stream, head, body);
    }
}

#[test]
fn rhythm_is_printed_as_a_table_and_as_json() {
    serve_scripted(served("get", "200 OK\r\ncontent-type: application/json", BODY), |url| {
        let (code, out, err) = rhythm(url, &[]);
        assert_eq!((code, err.as_str()), (Some(0), ""));
        assert!(
            out.starts_with("support: 512 turns, 1 early cuts, a first reply after 900 ms at the latest\n"),
            "{out}"
        );
        assert!(out.contains("00000000000000f1          12.5    25.0 %     140 ms  learned\n"), "{out}");
        let (code, out, _) = rhythm(url, &["--json"]);
        let printed: serde_json::Value = serde_json::from_str(&out).unwrap();
        assert_eq!((code, printed), (Some(0), serde_json::from_str(BODY).unwrap()));
    });
}

#[test]
fn forget_option_deletes_the_rhythm() {
    serve_scripted(served("delete", "204 No Content", ""), |url| {
        let forgotten = "the bridge has forgotten the rhythm of support\n".to_owned();
        assert_eq!(rhythm(url, &["--forget"]), (Some(0), forgotten, String::new()));
        assert_eq!(rhythm(url, &["--forget", "--json"]).0, Some(2), "the options exclude each other");
    });
}

#[test]
fn refused_rhythm_exits_1_with_the_next_step() {
    let problem =
        r#"{"title": "The key does not allow this", "detail": "This key lacks the scope `admin`."}"#;
    serve_scripted(
        served("get", "403 Forbidden\r\ncontent-type: application/problem+json", problem),
        |url| {
            let (code, out, err) = rhythm(url, &[]);
            assert_eq!((code, out.as_str()), (Some(1), ""));
            assert!(
                err.contains("lacks the scope") && err.contains("use a key with the scope `admin`"),
                "{err}"
            );
            assert!(!err.contains("hush"), "{err}");
        },
    );
    serve_scripted(served("get", "200 OK\r\ncontent-type: text/html", "<html>"), |url| {
        let (code, _, err) = rhythm(url, &[]);
        assert!(code == Some(1) && err.contains("server.listen"), "{err}");
    });
    assert_eq!(outcome(&rtm_bridge(&["rhythm"]).output().unwrap()).0, Some(2), "--bot is needed");
}
