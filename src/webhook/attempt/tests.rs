use super::*;
use crate::domain::DeliveryKind;
use crate::webhook::signature::{SigningSecret, verify};
use crate::webhook::target_table::tests::config;
use crate::webhook::tests::{Does, NOW, Receiver, SECRET, answer, run, sender, taken};

fn targets() -> TargetTable {
    TargetTable::new(&config(|_, _| ())).unwrap()
}

async fn attempted(receiver: &Receiver) -> AttemptResult {
    attempt(&sender(), &targets(), &taken(&receiver.url(), DeliveryKind::MessageAnswered, "{}")).await
}

#[test]
fn an_answer_is_what_it_says() {
    run(async {
        let ask = |after: &str| format!("retry-after: {after}\r\n");
        let refused = |after: Option<u64>, ailing| AttemptOutcome::Refused {
            retry_after: after.map(Duration::from_secs),
            ailing,
        };
        // `Retry-After` is on the store's clock, which the attempt takes along.
        let in_a_minute = httpdate::fmt_http_date(UNIX_EPOCH + Duration::from_secs(1_795_000_062));
        for (status, headers, fate, error) in [
            ("200 OK", String::new(), AttemptOutcome::Delivered, None),
            ("202 Accepted", String::new(), AttemptOutcome::Delivered, None),
            (
                "301 Moved",
                String::new(),
                refused(None, false),
                Some("it answered 301; redirects are not followed"),
            ),
            ("400 Bad", String::new(), refused(None, false), Some("it answered 400")),
            ("404 Not Found", ask("7"), refused(Some(7), false), Some("it answered 404")),
            ("410 Gone", ask("7"), AttemptOutcome::Gone, Some("it answered 410: it wants no more")),
            ("429 Slow", ask("120"), refused(Some(120), true), Some("it answered 429")),
            ("429 Slow", ask(&in_a_minute), refused(Some(61), true), Some("it answered 429")),
            ("500 Oh", ask("soon"), refused(None, true), Some("it answered 500")),
            ("503 Busy", ask("0"), refused(Some(0), true), Some("it answered 503")),
        ] {
            let receiver = Receiver::start([Does::Says(answer(status, &headers, "words"))]).await;
            let made = attempted(&receiver).await;
            let rounded = |fate: &AttemptOutcome| match fate {
                // The date is a second's, and the attempt took some milliseconds.
                AttemptOutcome::Refused { retry_after: Some(after), ailing } => AttemptOutcome::Refused {
                    retry_after: Some(Duration::from_secs(
                        after.saturating_add(Duration::from_millis(500)).as_secs(),
                    )),
                    ailing: *ailing,
                },
                fate => fate.clone(),
            };
            assert_eq!(rounded(&made.fate), fate, "{status}");
            assert_eq!(made.attempt.error.as_deref(), error, "{status}");
            assert_eq!(made.attempt.status.map(|code| code.to_string()).as_deref(), Some(&status[..3]));
            assert_eq!(made.attempt.response.as_deref(), Some("words"));
            assert_eq!(made.attempt.at, NOW);
        }
        let receiver = Receiver::start([]).await;
        let made = attempted(&receiver).await;
        assert_eq!(
            (made.fate, made.attempt.status, made.attempt.response),
            (AttemptOutcome::Delivered, Some(204), None)
        );
    });
}

#[test]
fn what_arrives_can_be_verified() {
    run(async {
        let receiver = Receiver::start([]).await;
        assert_eq!(attempted(&receiver).await.fate, AttemptOutcome::Delivered);
        let seen = receiver.seen.borrow()[0].clone();
        let told = |name| seen.header(name).unwrap();
        let secret = SigningSecret::parse(&SECRET.into()).unwrap();
        let body = seen.body.as_bytes();
        verify(
            &[secret],
            told("webhook-id"),
            told("webhook-timestamp"),
            told("webhook-signature"),
            body,
            NOW,
        )
        .unwrap();
        assert_eq!(told("user-agent"), concat!("rtm-bridge/", env!("CARGO_PKG_VERSION")));
        let trace = told("traceparent");
        assert!(
            trace.starts_with("00-4bf92f3577b34da6a3ce929d0e0e4736-") && trace.ends_with("-01"),
            "{trace}"
        );
        attempted(&receiver).await;
        assert_ne!(receiver.seen.borrow()[1].header("traceparent"), Some(trace), "each attempt is a span");
    });
}

#[test]
fn no_answer_is_told_apart_from_none_that_was_asked_for() {
    run(async {
        let receiver = Receiver::start([Does::Closes("HTTP/1.1 200".to_owned())]).await;
        let made = attempted(&receiver).await;
        assert_eq!((made.fate, made.attempt.status), (AttemptOutcome::Unreached, None));
        assert_eq!(
            made.attempt.error.as_deref(),
            Some("the connection was closed in the middle of the answer")
        );

        let made = async |target: &str| {
            let taken = taken(target, DeliveryKind::MessageAnswered, "{}");
            let made = attempt(&sender(), &targets(), &taken).await;
            (made.fate, made.attempt.error.unwrap())
        };
        let (fate, error) = made("http://10.0.0.1/").await;
        assert_eq!(fate, AttemptOutcome::Forbidden);
        assert!(
            error.contains("10.0.0.1 is not public") && error.contains("webhooks.allow_private"),
            "{error}"
        );
        for odd in ["", "hooks", "mailto:a@b.example", "http://user@127.0.0.1/"] {
            assert_eq!(made(odd).await.0, AttemptOutcome::Forbidden, "{odd}");
        }
    });
}

#[test]
fn without_a_secret_nothing_is_sent() {
    run(async {
        let receiver = Receiver::start([]).await;
        let mut taken = taken(&receiver.url(), DeliveryKind::MessageAnswered, "{}");
        taken.delivery.origin = crate::domain::DeliveryOrigin::Callback { signer: Some("gone".into()) };
        let made = attempt(&sender(), &targets(), &taken).await;
        assert_eq!(made.fate, AttemptOutcome::Forbidden);
        assert!(made.attempt.error.unwrap().contains("the caller gone"));
        assert_eq!(receiver.connections.get(), 0);
    });
}

#[test]
fn waits_are_read_as_seconds_or_dates() {
    let read = |value: &str| retry_after(value, NOW);
    for (value, seconds) in [
        ("0", Some(0)),
        (" 120 ", Some(120)),
        ("99999999999999999999999", Some(u64::MAX)),
        ("-1", None),
        ("+1", None),
        ("1.5", None),
        ("", None),
        ("soon", None),
        ("Mon, 01 Jan 1990 00:00:00 GMT", Some(0)),
    ] {
        assert_eq!(read(value), seconds.map(Duration::from_secs), "{value:?}");
    }
}
