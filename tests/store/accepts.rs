//! Sentences about accepts.

use std::time::Duration;

use futures_util::future::join_all;
use rtm_bridge::domain::{
    JsonObject, MessageContent, MessageEvent, MessageStatus, UserDetails, UserId, UserProfile,
};
use rtm_bridge::store::{
    AcceptError, AcceptRequest, AcceptResult, ConversationChange, IdempotencyKey, IdempotencyRequest,
};

use super::store_fixture::{MESSAGE_TTL, StoreFixture, accept, conversation, id, neighbours, new, with_key};

pub(super) async fn accepted_message_is_queued_and_readable(fixture: StoreFixture) {
    let alice = conversation("alice");
    let accepted = new(fixture.store.accept(accept(&alice, 1)).await);
    for _ in 0..2 {
        let message = fixture.store.message(&alice, id(1), None).await.unwrap().unwrap();
        assert_eq!(message.progress.status(), MessageStatus::Queued);
        assert_eq!(message.accepted.new.content.text(), "message 1");
        assert_eq!(message.accepted.accepted_at, accepted.accepted_at);
    }
    assert!(fixture.store.message(&alice, id(2), None).await.unwrap().is_none());
    assert!(fixture.store.message(&conversation("bob"), id(1), None).await.unwrap().is_none());
}

pub(super) async fn accepted_connect_keeps_its_context_and_details(fixture: StoreFixture) {
    let alice = conversation("alice");
    let owner = fixture.own(&alice).await;
    let mut posted = accept(&alice, 1);
    let mut content = MessageContent::without_text();
    content.custom_data = Some(serde_json::from_str(r#"{"page": 1.50}"#).unwrap());
    content.meta_tags = Some(serde_json::from_str(r#"{"tags":[]}"#).unwrap());
    let profile = UserProfile { first_name: Some("Zoë".into()), last_name: Some("Ruiz".into()) };
    let details = UserDetails { profile, merge_with: UserId::new("visitor/7").ok() };
    posted.message.content = content;
    posted.message.event = Some(MessageEvent::Connect);
    posted.message.user_details = Some(Box::new(details.clone()));
    new(fixture.store.accept(posted).await);
    let (open, _) = fixture.store.open(owner.fence, &alice).await.unwrap();
    let read = fixture.store.message(&alice, id(1), None).await.unwrap().unwrap();
    for accepted in [&open.lane[0].accepted, &read.accepted] {
        let stored = &accepted.new;
        assert!(stored.is_connect() && stored.content.text().is_empty());
        let text = |object: &Option<JsonObject>| object.as_ref().unwrap().raw().get().to_owned();
        assert_eq!(text(&stored.content.custom_data), r#"{"page": 1.50}"#);
        assert_eq!(text(&stored.content.meta_tags), r#"{"tags":[]}"#);
        assert_eq!(stored.user_details.as_deref(), Some(&details));
    }
}

pub(super) async fn client_message_ids_and_positions_rise(fixture: StoreFixture) {
    let alice = conversation("alice");
    let owner = fixture.own(&alice).await;
    let first = new(fixture.store.accept(accept(&alice, 1)).await);
    assert!(first.client_message_id >= first.accepted_at.as_millis());
    let mut last = first;
    for number in 2..6 {
        let (open, _) = fixture.store.open(owner.fence, &alice).await.unwrap();
        let next = new(fixture.store.accept(accept(&alice, number)).await);
        assert_eq!(next.position, open.next_position);
        assert_eq!(next.position, last.position + 1);
        assert!(next.client_message_id > last.client_message_id);
        last = next;
    }
}

pub(super) async fn repeated_accept_returns_the_first_answer(fixture: StoreFixture) {
    let alice = conversation("alice");
    let mut owner = fixture.own(&alice).await;
    let mut only = with_key(accept(&alice, 1), "shop", "k", 1);
    only.max_open = 1;
    let first = new(fixture.store.accept(only.clone()).await);
    // A repeat succeeds despite its own key, the full lane, and its progress since.
    for ended in [false, true] {
        if ended {
            owner.settle(id(1)).await;
        }
        fixture.pass(Duration::from_millis(5)).await;
        let again = new(fixture.store.accept(only.clone()).await);
        assert_eq!(again.client_message_id, first.client_message_id);
        assert_eq!(again.accepted_at, first.accepted_at);
    }
    let (open, _) = fixture.store.open(owner.fence, &alice).await.unwrap();
    assert!(open.lane.is_empty());
}

pub(super) async fn message_id_belongs_to_one_conversation(fixture: StoreFixture) {
    // These two live in one partition.
    let (one, two) = neighbours();
    fixture.post(&one, 1).await;
    let refused = fixture.store.accept(accept(&two, 1)).await.unwrap_err();
    assert_eq!(refused, AcceptError::IdempotencyMismatch);
    assert!(fixture.store.message(&two, id(1), None).await.unwrap().is_none());
}

pub(super) async fn repeated_key_replays_the_current_message(fixture: StoreFixture) {
    let alice = conversation("alice");
    let mut owner = fixture.own(&alice).await;
    new(fixture.store.accept(with_key(accept(&alice, 1), "shop", "k", 1)).await);
    for status in [MessageStatus::Queued, MessageStatus::Answered] {
        if status == MessageStatus::Answered {
            owner.settle(id(1)).await;
        }
        let again = with_key(accept(&alice, 2), "shop", "k", 1);
        let AcceptResult::Replayed(message) = fixture.store.accept(again).await.unwrap() else {
            panic!("accepted twice")
        };
        assert_eq!((message.accepted.id, message.progress.status()), (id(1), status));
    }
    assert!(fixture.store.message(&alice, id(2), None).await.unwrap().is_none());
}

pub(super) async fn call_shares_no_key_with_a_caller(fixture: StoreFixture) {
    let alice = conversation("alice");
    fixture.own(&alice).await;
    let digest = [b'k'; 32];
    let text: String = digest.iter().map(|byte| char::from(*byte)).collect();
    let post = |number, key| {
        let idempotency = Some(IdempotencyRequest { key, body: [1; 32] });
        fixture.store.accept(AcceptRequest { idempotency, ..accept(&alice, number) })
    };
    let client = "support/cs-shop";
    new(post(1, IdempotencyKey::Call { client: client.into(), digest }).await);
    for (number, caller) in [(2, client), (3, "support"), (4, "call")] {
        new(post(number, IdempotencyKey::Chosen { caller: caller.into(), key: text.as_str().into() }).await);
    }
}

pub(super) async fn key_of_open_messages_is_free_after_the_end(fixture: StoreFixture) {
    let alice = conversation("alice");
    let mut owner = fixture.own(&alice).await;
    let posted = |number| {
        let mut accept = accept(&alice, number);
        let key = IdempotencyKey::Call { client: "shop".into(), digest: [1; 32] };
        accept.idempotency = Some(IdempotencyRequest { key, body: [1; 32] });
        accept
    };
    let replayed = async |number| match fixture.store.accept(posted(number)).await.unwrap() {
        AcceptResult::Replayed(message) => message.accepted.id,
        other => panic!("accepted twice: {other:?}"),
    };
    new(fixture.store.accept(posted(1)).await);
    assert_eq!(replayed(2).await, id(1));
    owner.settle(id(1)).await;
    new(fixture.store.accept(posted(3)).await);
    assert_eq!(replayed(4).await, id(3));
    owner.settle(id(3)).await;
    // The first message expires with its time, and the key of the second one stays.
    new(fixture.store.accept(posted(5)).await);
    fixture.pass(MESSAGE_TTL).await;
    assert_eq!(replayed(6).await, id(5));
}

pub(super) async fn key_with_another_body_is_refused(fixture: StoreFixture) {
    let alice = conversation("alice");
    new(fixture.store.accept(with_key(accept(&alice, 1), "shop", "k", 1)).await);
    let refused = fixture.store.accept(with_key(accept(&alice, 2), "shop", "k", 2)).await.unwrap_err();
    assert_eq!(refused, AcceptError::IdempotencyMismatch);
}

pub(super) async fn key_of_another_caller_or_conversation_is_independent(fixture: StoreFixture) {
    let (one, two) = neighbours();
    new(fixture.store.accept(with_key(accept(&one, 1), "shop", "k", 1)).await);
    new(fixture.store.accept(with_key(accept(&one, 2), "sho", "pk", 2)).await);
    new(fixture.store.accept(with_key(accept(&one, 3), "web", "k", 2)).await);
    new(fixture.store.accept(with_key(accept(&two, 4), "shop", "k", 2)).await);
}

pub(super) async fn key_lives_as_long_as_its_message(fixture: StoreFixture) {
    let alice = conversation("alice");
    let mut owner = fixture.own(&alice).await;
    new(fixture.store.accept(with_key(accept(&alice, 1), "shop", "k", 1)).await);
    fixture.pass(MESSAGE_TTL * 10).await;
    let refused = fixture.store.accept(with_key(accept(&alice, 2), "shop", "k", 2)).await.unwrap_err();
    assert_eq!(refused, AcceptError::IdempotencyMismatch, "it is open");
    // Other messages end before it, so it is not the first one to be swept.
    for number in 11..14 {
        fixture.post(&alice, number).await;
        owner.settle(id(number)).await;
    }
    owner.settle(id(1)).await;
    fixture.pass(MESSAGE_TTL).await;
    new(fixture.store.accept(with_key(accept(&alice, 3), "shop", "k", 2)).await);
    // The first message's expiry must not remove the key of the second.
    fixture.post(&alice, 4).await;
    let refused = fixture.store.accept(with_key(accept(&alice, 5), "shop", "k", 1)).await.unwrap_err();
    assert_eq!(refused, AcceptError::IdempotencyMismatch);
}

pub(super) async fn full_lane_refuses_accepts_until_an_end(fixture: StoreFixture) {
    let alice = conversation("alice");
    let mut owner = fixture.own(&alice).await;
    let two = |number| {
        let mut accept = accept(&alice, number);
        accept.max_open = 2;
        fixture.store.accept(accept)
    };
    new(two(1).await);
    new(two(2).await);
    assert_eq!(two(3).await.unwrap_err(), AcceptError::LaneFull(2));
    owner.settle(id(2)).await;
    new(two(3).await);
    assert_eq!(two(4).await.unwrap_err(), AcceptError::LaneFull(2));
}

pub(super) async fn eight_accepts_with_one_key_make_one_message(fixture: StoreFixture) {
    let alice = conversation("alice");
    let stores = [fixture.store.clone(), fixture.second()];
    for round in 0..10_u128 {
        let key = round.to_string();
        let posts = (0..8).map(|number| {
            let wish = with_key(accept(&alice, round * 8 + number), "shop", &key, 1);
            stores[number as usize % 2].accept(AcceptRequest { max_open: 1000, ..wish })
        });
        let mut new = 0;
        let mut ids = Vec::new();
        for accepted in join_all(posts).await {
            match accepted.unwrap() {
                AcceptResult::New(accepted) | AcceptResult::SentAtAccept(accepted) => {
                    new += 1;
                    ids.push(accepted.id);
                }
                AcceptResult::Replayed(message) => ids.push(message.accepted.id),
            }
        }
        assert_eq!(new, 1);
        assert!(ids.iter().all(|id| *id == ids[0]), "all were told of the same message");
    }
}

pub(super) async fn owners_accept_in_an_idle_lane_counts_as_sent(fixture: StoreFixture) {
    let alice = conversation("alice");
    let mut owner = fixture.own(&alice).await;
    let wish =
        |number| AcceptRequest { owner: Some(owner.fence), send_at_accept: true, ..accept(&alice, number) };
    let (first, second) = (wish(1), wish(2));
    // A repeat returns the first answer.
    for _ in 0..2 {
        let AcceptResult::SentAtAccept(message) = fixture.store.accept(first.clone()).await.unwrap() else {
            panic!("it is not sent")
        };
        let stored = fixture.store.message(&alice, id(1), None).await.unwrap().unwrap();
        assert_eq!(stored.progress.status(), MessageStatus::Sent);
        assert_eq!(stored.progress.sent_at, Some(message.accepted_at));
    }
    let AcceptResult::New(_) = fixture.store.accept(second).await.unwrap() else {
        panic!("one is open already")
    };
    let (open, _) = fixture.store.open(owner.fence, &alice).await.unwrap();
    let sent: Vec<_> = open.lane.iter().map(|open| open.progress.sent_at.is_some()).collect();
    assert_eq!(sent, [true, false]);
    // The first time counts.
    let at = owner.now().await;
    owner.write(vec![ConversationChange::Sent { message: id(1), at }]).await.unwrap();
    let stored = fixture.store.message(&alice, id(1), None).await.unwrap().unwrap();
    assert_eq!(stored.progress.sent_at, open.lane[0].progress.sent_at);
    for number in [1, 2] {
        owner.settle(id(number)).await;
    }
    let third = AcceptRequest { owner: Some(owner.fence), send_at_accept: true, ..accept(&alice, 3) };
    assert!(matches!(fixture.store.accept(third).await.unwrap(), AcceptResult::SentAtAccept(_)));
}

pub(super) async fn other_replicas_accept_does_not_count_as_sent(fixture: StoreFixture) {
    let alice = conversation("alice");
    let old = fixture.own(&alice).await.fence;
    let first = AcceptRequest { owner: Some(old), send_at_accept: true, ..accept(&alice, 1) };
    assert!(matches!(fixture.store.accept(first.clone()).await.unwrap(), AcceptResult::SentAtAccept(_)));
    let mut owner = fixture.own(&alice).await;
    // A repeat under an old fence must not send the message, because the new owner continues with it.
    assert!(matches!(fixture.store.accept(first).await.unwrap(), AcceptResult::New(_)));
    owner.settle(id(1)).await;
    let second = AcceptRequest { owner: Some(old), send_at_accept: true, ..accept(&alice, 2) };
    assert!(matches!(fixture.store.accept(second).await.unwrap(), AcceptResult::New(_)));
    let stored = fixture.store.message(&alice, id(2), None).await.unwrap().unwrap();
    assert_eq!(stored.progress.status(), MessageStatus::Queued);
}
