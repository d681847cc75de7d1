use std::time::UNIX_EPOCH;

use super::*;
use crate::config::PayloadFormat;
use crate::domain::DeliveryKind;
use crate::runtime::fixtures::run;
use crate::store::RetryDecision;
use crate::webhook::retry_schedule::decide;
use crate::webhook::signature::{SignatureKey, verify};
use crate::webhook::target_table::tests::config;
use crate::webhook::tests::{NOW, Receiver, ReceiverAction, SECRET, answer, claimed, sender};

fn targets() -> TargetTable {
    TargetTable::new(&config(|_, _| ())).unwrap()
}

async fn attempted(receiver: &Receiver) -> AttemptResult {
    attempt(&sender(), &targets(), &claimed(&receiver.url(), DeliveryKind::MessageAnswered, "{}")).await
}

#[test]
fn outcome_of_a_response_follows_its_status() {
    run(async {
        let ask = |after: &str| format!("retry-after: {after}\r\n");
        let refused = |after: Option<u64>, host_failing| AttemptOutcome::Refused {
            retry_after: after.map(Duration::from_secs),
            host_failing,
        };
        // The store's clock, which the claimed delivery carries, is not the receiver's.
        let now = Duration::from_millis(wall_clock::now().as_millis() + 500);
        let in_a_minute = httpdate::fmt_http_date(UNIX_EPOCH + now + Duration::from_secs(61));
        let dated = "date: Wed, 18 Nov 2026 11:06:40 GMT\r\nretry-after: Wed, 18 Nov 2026 11:07:41 GMT\r\n";
        for (status, headers, outcome, error) in [
            ("200 OK", String::new(), AttemptOutcome::Delivered, None),
            ("202 Accepted", String::new(), AttemptOutcome::Delivered, None),
            (
                "301 Moved",
                String::new(),
                refused(None, false),
                Some("the receiver answered 301; redirects are not followed"),
            ),
            ("400 Bad", String::new(), refused(None, false), Some("the receiver answered 400")),
            ("404 Not Found", ask("7"), refused(Some(7), false), Some("the receiver answered 404")),
            (
                "410 Gone",
                ask("7"),
                AttemptOutcome::Gone,
                Some("the receiver answered 410: it wants no more deliveries"),
            ),
            ("429 Slow", ask("120"), refused(Some(120), true), Some("the receiver answered 429")),
            ("429 Slow", ask(&in_a_minute), refused(Some(61), true), Some("the receiver answered 429")),
            ("429 Slow", dated.to_owned(), refused(Some(61), true), Some("the receiver answered 429")),
            (
                "429 Slow",
                ask("999999999999999999999999999999"),
                refused(Some(u64::MAX), true),
                Some("the receiver answered 429"),
            ),
            ("500 Oh", ask("soon"), refused(None, true), Some("the receiver answered 500")),
            ("503 Busy", ask("0"), refused(Some(0), true), Some("the receiver answered 503")),
        ] {
            let receiver = Receiver::start([ReceiverAction::Says(answer(status, &headers, "words"))]).await;
            let result = attempted(&receiver).await;
            let rounded = |outcome: &AttemptOutcome| match outcome {
                // The date has a resolution of a second, and the attempt took some milliseconds.
                AttemptOutcome::Refused { retry_after: Some(after), host_failing } => {
                    AttemptOutcome::Refused {
                        retry_after: Some(Duration::from_secs(
                            after.saturating_add(Duration::from_millis(500)).as_secs(),
                        )),
                        host_failing: *host_failing,
                    }
                }
                outcome => outcome.clone(),
            };
            assert_eq!(rounded(&result.outcome), outcome, "{status}");
            assert_eq!(result.attempt.error.as_deref(), error, "{status}");
            assert_eq!(result.attempt.status.map(|code| code.to_string()).as_deref(), Some(&status[..3]));
            assert_eq!(result.attempt.response.as_deref(), Some("words"));
            assert_eq!(result.attempt.at, NOW);
        }
        let receiver = Receiver::start([]).await;
        let result = attempted(&receiver).await;
        assert_eq!(
            (result.outcome, result.attempt.status, result.attempt.response),
            (AttemptOutcome::Delivered, Some(204), None)
        );
    });
}

#[test]
fn request_of_an_attempt_can_be_verified() {
    run(async {
        let receiver = Receiver::start([]).await;
        assert_eq!(attempted(&receiver).await.outcome, AttemptOutcome::Delivered);
        let seen = receiver.seen.borrow()[0].clone();
        let header = |name| seen.header(name).unwrap();
        let secret = SignatureKey::parse(&SECRET.into()).unwrap();
        let body = seen.body.as_bytes();
        verify(
            &[secret],
            header("webhook-id"),
            header("webhook-timestamp"),
            header("webhook-signature"),
            body,
            // The store's clock is far off.
            wall_clock::now(),
        )
        .unwrap();
        assert_eq!(header("user-agent"), concat!("rtm-bridge/", env!("CARGO_PKG_VERSION")));
        let trace = header("traceparent");
        assert!(
            trace.starts_with("00-4bf92f3577b34da6a3ce929d0e0e4736-") && trace.ends_with("-01"),
            "{trace}"
        );
        attempted(&receiver).await;
        assert_ne!(receiver.seen.borrow()[1].header("traceparent"), Some(trace), "each attempt is a span");
    });
}

#[test]
fn missing_response_differs_from_an_unsent_request() {
    run(async {
        let receiver = Receiver::start([ReceiverAction::Closes("HTTP/1.1 200".to_owned())]).await;
        let result = attempted(&receiver).await;
        assert_eq!((result.outcome, result.attempt.status), (AttemptOutcome::Unreached, None));
        assert_eq!(
            result.attempt.error.as_deref(),
            Some("the connection was closed in the middle of the answer")
        );

        let result = async |target: &str| {
            let claimed = claimed(target, DeliveryKind::MessageAnswered, "{}");
            let result = attempt(&sender(), &targets(), &claimed).await;
            (result.outcome, result.attempt.error.unwrap())
        };
        let (outcome, error) = result("http://10.0.0.1/").await;
        assert_eq!(outcome, AttemptOutcome::Forbidden);
        assert!(
            error.contains("10.0.0.1 is not public") && error.contains("webhooks.allow_private"),
            "{error}"
        );
        for odd in ["", "hooks", "mailto:a@b.example", "http://user@127.0.0.1/"] {
            assert_eq!(result(odd).await.0, AttemptOutcome::Forbidden, "{odd}");
        }
    });
}

#[test]
fn delivery_without_a_body_is_dead_lettered_at_once() {
    run(async {
        let receiver = Receiver::start([]).await;
        let mut config = config(|webhook, _| webhook.form = PayloadFormat::KoreV2);
        config.webhooks.allowed.clear();
        let claimed = claimed(&receiver.url(), DeliveryKind::MessageAnswered, r#"{"replies":[{}]}"#);
        let result = attempt(&sender(), &TargetTable::new(&config).unwrap(), &claimed).await;
        assert_eq!(result.outcome, AttemptOutcome::Unreadable);
        let decision = decide(&result.outcome, 0, claimed.since, claimed.now, 0.5);
        assert!(matches!(decision, RetryDecision::DeadLetter(_)), "{decision:?}");
        assert_eq!(receiver.connections.get(), 0);
    });
}

#[test]
fn delivery_without_a_secret_or_pattern_is_not_sent() {
    run(async {
        let receiver = Receiver::start([]).await;
        let mut claimed = claimed(&receiver.url(), DeliveryKind::MessageAnswered, "{}");
        claimed.delivery.origin = crate::domain::DeliveryOrigin::Callback { signer: Some("gone".into()) };
        let mut config = config(|_, _| ());
        config.webhooks.allowed = vec![receiver.url().parse().unwrap()];
        let result = attempt(&sender(), &TargetTable::new(&config).unwrap(), &claimed).await;
        assert_eq!(result.outcome, AttemptOutcome::Forbidden);
        assert!(result.attempt.error.unwrap().contains("the caller gone"));
        config.webhooks.allowed.clear();
        let result = attempt(&sender(), &TargetTable::new(&config).unwrap(), &claimed).await;
        assert_eq!(result.outcome, AttemptOutcome::NotAllowed);
        assert!(result.attempt.error.unwrap().contains("webhooks.allowed"));
        assert_eq!(receiver.connections.get(), 0);
    });
}
