use std::time::Duration;

use super::NOW;
use crate::rtm::error::{ConnectError, ConnectPhase, RetryAdvice};
use crate::rtm::refusal::PlatformRefusal;

fn refuse(phase: ConnectPhase, status: u16, retry_after: Option<&str>, body: &str) -> ConnectError {
    PlatformRefusal { phase, status, retry_after, date: None, location: None, body: body.as_bytes() }
        .into_error(NOW)
}

#[test]
fn expired_token_in_any_spelling_is_recognised() {
    for (status, body) in [
        (401, "<html>"),
        (401, ""),
        (400, r#"{"errors":[{"msg":"x","code":"TOKEN_EXPIRED"}]}"#),
        (500, r#"{"errors":[{"msg":"x","code":401}]}"#),
        (403, r#"{"errors":[{"msg":"x","code":"401"}]}"#),
        (400, r#"{"errors":[{"msg":"Token Expired"}]}"#),
        (200, r#"{"errors":[{"msg":"token expired","code":4001}]}"#),
    ] {
        for phase in [ConnectPhase::Start, ConnectPhase::History] {
            let error = refuse(phase, status, None, body);
            assert!(matches!(error, ConnectError::TokenExpired { .. }), "{status} {body}: {error:?}");
            assert_eq!(error.retry(), RetryAdvice::Backoff(None));
        }
    }
}

#[test]
fn status_401_of_the_grant_is_final() {
    let error = refuse(
        ConnectPhase::Grant,
        401,
        None,
        r#"{"errors":[{"msg":"error verifying the jwt: bad signature","code":401}]}"#,
    );
    assert_eq!(error.retry(), RetryAdvice::Never);
    assert_eq!(error.public_message(), "the platform answered 401: error verifying the jwt: bad signature");
    assert_eq!(error.phase(), "grant");
}

#[test]
fn status_decides_the_retry_advice() {
    let refused = r#"{"errors":[{"msg":"no such bot","code":404}]}"#;
    for status in [400, 403, 404, 422] {
        assert_eq!(
            refuse(ConnectPhase::Start, status, None, refused).retry(),
            RetryAdvice::Never,
            "{status}"
        );
    }
    for status in [200, 204, 301, 307, 400, 403, 404, 408, 422, 425, 500, 502, 503, 504, 600] {
        assert_eq!(
            refuse(ConnectPhase::Start, status, None, "<html>no</html>").retry(),
            RetryAdvice::Backoff(None),
            "{status}"
        );
    }
    assert!(!refuse(ConnectPhase::Start, 502, None, "<html>secret</html>").public_message().contains("html"));
}

#[test]
fn refusal_of_a_gateway_is_retried() {
    for body in [
        "",
        "<html>404 Not Found</html>",
        r#"{"message":"no Route matched with those values"}"#,
        r#"{"errors":[]}"#,
        r#"{"errors":[{}]}"#,
        r#"{"errors":[{"msg":"","code":null}]}"#,
        r#"{"errors":["not found"]}"#,
        r#"{"errors":"not found"}"#,
        r#"[{"errors":[{"msg":"no"}]}]"#,
    ] {
        for phase in [ConnectPhase::Grant, ConnectPhase::Start, ConnectPhase::History] {
            for status in [400, 403, 404, 405, 410] {
                let error = refuse(phase, status, None, body);
                assert_eq!(error.retry(), RetryAdvice::Backoff(None), "{phase} {status} {body}");
            }
        }
        assert_eq!(
            refuse(ConnectPhase::Grant, 401, None, body).retry(),
            RetryAdvice::Backoff(None),
            "{body}"
        );
    }
    for body in [
        r#"{"errors":[{"msg":"no"}]}"#,
        r#"{"errors":[{"code":4002}]}"#,
        r#"{"errors":[{"code":"X"}],"_v":1}"#,
    ] {
        assert_eq!(refuse(ConnectPhase::Grant, 404, None, body).retry(), RetryAdvice::Never, "{body}");
    }
}

#[test]
fn retry_after_as_seconds_or_date_is_parsed() {
    let wait = |value: Option<&str>| match refuse(ConnectPhase::Start, 429, value, "").retry() {
        RetryAdvice::Backoff(wait) => wait,
        other => panic!("{other:?}"),
    };
    assert_eq!(wait(None), None);
    assert_eq!(wait(Some("7")), Some(Duration::from_secs(7)));
    assert_eq!(wait(Some("soon")), None);
    assert_eq!(wait(Some("-1")), None);
    assert_eq!(wait(Some("99999999999")), Some(Duration::from_hours(1)));
    assert_eq!(wait(Some("999999999999999999999999999999")), Some(Duration::from_hours(1)));
    let at = |ahead: u64| {
        let at = std::time::UNIX_EPOCH + Duration::from_secs(NOW.as_millis() / 1000 + ahead);
        wait(Some(&httpdate::fmt_http_date(at)))
    };
    assert_eq!(at(30), Some(Duration::from_millis(30_000 - NOW.as_millis() % 1000)));
    assert_eq!(at(0), Some(Duration::ZERO));
}

#[test]
fn lost_chunks_are_read_in_any_notation() {
    let body = |msg: &str| format!(r#"{{"errors":[{{"msg":{msg},"code":404,"httpStatus":"404"}}]}}"#);
    for msg in
        [r#""[1,10]""#, r#""Missing chunks [ 10, 1 ]""#, "[1,10]", r#"["10","1","1"]"#, r#""[\"1\",\"10\"]""#]
    {
        match refuse(ConnectPhase::Complete, 404, None, &body(msg)) {
            ConnectError::ChunksLost { numbers } => assert_eq!(numbers, [1, 10], "{msg}"),
            error => panic!("{msg}: {error:?}"),
        }
    }
    for msg in [r#""no such file""#, r#""[]""#, "null", r#""[1""#, r#""[99999999999999999999999]""#] {
        let error = refuse(ConnectPhase::Complete, 404, None, &body(msg));
        assert!(matches!(error, ConnectError::Rejected { .. }), "{msg}: {error:?}");
    }
    let elsewhere = refuse(ConnectPhase::Chunk, 404, None, &body(r#""[1]""#));
    assert!(matches!(elsewhere, ConnectError::Rejected { .. }), "{elsewhere:?}");
}

#[test]
fn refusal_of_a_file_depends_on_the_call() {
    for body in ["<html>Too Large</html>", r#"{"errors":[{"msg":"too large","code":413}]}"#] {
        for phase in [ConnectPhase::File, ConnectPhase::Chunk, ConnectPhase::Complete] {
            assert!(matches!(refuse(phase, 413, None, body), ConnectError::TooLarge { .. }), "{phase}");
        }
    }
    // A platform without the endpoint is not asked again.
    assert_eq!(refuse(ConnectPhase::FileUrl, 404, None, "<html>").retry(), RetryAdvice::Never);
    assert_eq!(refuse(ConnectPhase::File, 404, None, "<html>").retry(), RetryAdvice::Backoff(None));
    assert_eq!(refuse(ConnectPhase::FileUrl, 503, None, "<html>").retry(), RetryAdvice::Backoff(None));
}
