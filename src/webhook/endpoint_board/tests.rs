use super::*;
use crate::webhook::target_table::tests::config;
use crate::webhook::tests::{NOW, claimed};

const DAY: Duration = Duration::from_hours(24);

fn id(name: &str) -> EndpointId {
    EndpointId { bot: BotName::new("support").unwrap(), name: name.into() }
}

/// Returns a board with the endpoints `main`, `audit` and `thin`. The last two get reports of dead letters.
fn board() -> EndpointBoard {
    let mut config = config(|_, _| ());
    let mut bot = (*config.bots[0]).clone();
    for (name, payload) in [("audit", PayloadExtent::Full), ("thin", PayloadExtent::Thin)] {
        let url = Some("https://audit.example.com/in".parse().unwrap());
        let types = vec![DeliveryKind::DeliveryDead];
        bot.webhooks.push(BotWebhookConfig {
            name: name.into(),
            url,
            types,
            payload,
            disable_after: None,
            ..BotWebhookConfig::default()
        });
    }
    config.bots = vec![Arc::new(bot)];
    EndpointBoard::new(&config, &BTreeMap::new())
}

fn delivery(name: &str) -> NewDelivery {
    let delivery = claimed("https://hooks.example.com/in", DeliveryKind::MessageAnswered, "{}").delivery;
    NewDelivery { origin: DeliveryOrigin::Endpoint(name.into()), ..delivery }
}

fn attempt(at: Timestamp, error: Option<&str>) -> DeliveryAttempt {
    let error = error.map(Into::into);
    DeliveryAttempt { at, status: None, error, duration: Duration::ZERO, response: None }
}

/// Applies the changes of the board as the store does.
fn store(states: &mut BTreeMap<EndpointId, EndpointState>, changes: &BoardChanges) {
    for (id, report) in &changes.reports {
        states.entry(id.clone()).or_default().record(report);
    }
    for (id, reason) in &changes.switches {
        states.entry(id.clone()).or_default().off =
            Some(crate::domain::EndpointOutage { since: NOW, reason: reason.clone() });
    }
}

#[test]
fn endpoint_that_answers_410_is_off_until_it_is_switched_on() {
    let (mut board, mut states) = (board(), BTreeMap::new());
    assert!(board.record(&delivery("main"), &attempt(NOW, Some("410")), &AttemptOutcome::Gone));
    assert!(board.is_off(&id("main")) && !board.is_off(&id("audit")));
    assert!(!board.record(&delivery("main"), &attempt(NOW, Some("410")), &AttemptOutcome::Gone), "once");
    let changes = board.take_changes();
    store(&mut states, &changes);
    let news = board.update(&states, &changes);
    assert!(news.off[0].1.contains("410") && news.on.is_empty(), "{news:?}");
    assert!(!board.is_switching() && board.is_off(&id("main")));
    states.get_mut(&id("main")).unwrap().off = None;
    let news = board.update(&states, &BoardChanges::default());
    assert_eq!(news, BoardNews { off: Vec::new(), on: vec![id("main")] });
    assert!(!board.is_off(&id("main")));
}

#[test]
fn endpoint_that_fails_for_five_days_is_switched_off() {
    let (mut board, mut states) = (board(), BTreeMap::new());
    let mut fail = |board: &mut EndpointBoard, at: Timestamp, outcome: &AttemptOutcome| {
        let error = (*outcome != AttemptOutcome::Delivered).then_some("away");
        for name in ["main", "audit"] {
            assert!(!board.record(&delivery(name), &attempt(at, error), outcome));
        }
        let changes = board.take_changes();
        store(&mut states, &changes);
        board.update(&states, &changes);
        board.is_off(&id("main"))
    };
    assert!(!fail(&mut board, NOW, &AttemptOutcome::Unreached));
    assert!(!fail(&mut board, NOW + DAY * 4, &AttemptOutcome::Unreached));
    assert!(!fail(&mut board, NOW + DAY * 5, &AttemptOutcome::Delivered), "a success ends it");
    assert!(!fail(&mut board, NOW + DAY * 6, &AttemptOutcome::Unreached));
    assert!(!fail(&mut board, NOW + DAY * 11, &AttemptOutcome::Forbidden), "the fault is ours");
    assert!(!board.update(&BTreeMap::new(), &BoardChanges::default()).off.iter().any(|_| true));
    assert!(fail(&mut board, NOW + DAY * 11, &AttemptOutcome::Unreached));
    assert!(!board.is_off(&id("audit")), "its limit is `never`");
    assert!(board.is_switching());
}

#[test]
fn unconfirmed_changes_are_carried_again() {
    let mut board = board();
    board.record(&delivery("main"), &attempt(NOW, Some("410")), &AttemptOutcome::Gone);
    let changes = board.take_changes();
    board.put_back(changes);
    let changes = board.take_changes();
    assert_eq!((changes.reports.len(), changes.switches.len()), (1, 1));
    assert_eq!(changes.reports[0].1.first_failure_at, Some(NOW));
}

#[test]
fn dead_letter_is_reported_to_other_endpoints_only() {
    let board = board();
    let names = |dead: &NewDelivery| -> Vec<_> {
        let reports = board.dead_letter_reports(dead, "too late", NOW);
        reports.iter().map(|report| report.endpoint().unwrap().to_owned()).collect()
    };
    assert_eq!(names(&delivery("main")), ["audit", "thin"]);
    assert_eq!(names(&delivery("audit")), ["thin"], "never to itself");
    let callback = NewDelivery { origin: DeliveryOrigin::Callback { signer: None }, ..delivery("main") };
    assert_eq!(names(&callback), ["audit", "thin"]);
    let report = NewDelivery { kind: DeliveryKind::DeliveryDead, ..delivery("main") };
    assert!(names(&report).is_empty(), "no report of a report");

    let dead = delivery("main");
    let reports = board.dead_letter_reports(&dead, "too late", NOW);
    let data: serde_json::Value = serde_json::from_str(reports[0].data.get()).unwrap();
    let (bot, user) = (dead.conversation.bot().to_string(), dead.conversation.user().to_string());
    assert_eq!(
        data,
        serde_json::json!({
            "bot": bot, "user": user, "deliveryId": dead.id, "type": "message.answered", "webhook": "main",
            "messageId": dead.message, "reason": "too late", "createdAt": dead.created_at,
        })
    );
    let data: serde_json::Value = serde_json::from_str(reports[1].data.get()).unwrap();
    assert_eq!(
        data,
        serde_json::json!({
            "bot": bot, "user": user, "deliveryId": dead.id, "messageId": dead.message,
            "links": {"delivery": format!("/deliveries/{}", dead.id)},
        })
    );
    assert_eq!(reports[0].id.partition(), dead.id.partition());
    assert_eq!(
        reports[0].id,
        board.dead_letter_reports(&dead, "too late", NOW)[0].id,
        "a repeat has the same id"
    );
    assert_ne!(reports[0].id, reports[1].id);
}
