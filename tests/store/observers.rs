//! Sentences about observers: hints at new entries, and hints between replicas about live links.

use std::sync::Arc;
use std::time::Duration;

use rtm_bridge::domain::{
    ConnectionStatus, ConversationId, LinkState, MessageStatus, ReadStart, ReplyChunk, Timestamp,
};
use rtm_bridge::store::{
    ConversationChange, Hint, Incarnation, MemoryStats, OBSERVED, Store, StoreError, StoreRefusal,
};

use super::store_fixture::{ME, OTHER, Owner, StoreFixture, THIRD, conversation, neighbours};
use crate::support::nothing_left;

/// Returns the conversations whose new entries a replica got hints at.
fn appended(told: &[Hint]) -> Vec<ConversationId> {
    let appended = |hint: &Hint| match hint {
        Hint::Appended(conversation) => Some(conversation.clone()),
        _ => None,
    };
    told.iter().filter_map(appended).collect()
}

/// Returns the observers that a replica got hints at.
fn observed(told: &[Hint]) -> Vec<(ConversationId, Incarnation)> {
    let observed = |hint: &Hint| match hint {
        Hint::Observed(conversation, observer) => Some((conversation.clone(), *observer)),
        _ => None,
    };
    told.iter().filter_map(observed).collect()
}

async fn observe(fixture: &StoreFixture, of: &ConversationId, observer: Incarnation) {
    fixture.store.page(of, ReadStart::Latest, 1, Some(observer)).await.unwrap();
}

async fn say(owner: &mut Owner<'_>, replies: usize) {
    let at = owner.now().await;
    let replies = (0..replies).map(|_| owner.reply(at, None, "hello")).collect();
    owner.write(replies).await.unwrap();
}

pub(super) async fn observer_gets_a_hint_at_each_appending_write(fixture: StoreFixture) {
    let (alice, bob) = neighbours();
    let mut owner = fixture.own(&alice).await;
    let who = [ME, OTHER, THIRD];
    let mut ears = [fixture.listen(ME).await, fixture.listen(OTHER).await, fixture.listen(THIRD).await];
    let message = fixture.post(&alice, 1).await;
    for observer in who {
        // A repeat changes nothing.
        observe(&fixture, &alice, observer).await;
        observe(&fixture, &alice, observer).await;
    }
    say(&mut owner, 3).await;
    let at = owner.now().await;
    owner
        .write(vec![ConversationChange::Sent { message, at }, ConversationChange::Acked { message, at }])
        .await
        .unwrap();
    let end = owner.end(at, message);
    owner.write(vec![end.clone()]).await.unwrap();
    let again = owner.last(vec![end.clone()]);
    fixture.store.write(owner.fence, &alice, &again).await.unwrap();
    // The end is reported once, also in the journal.
    assert!(owner.write(vec![end]).await.unwrap().lost);
    let mut other = fixture.own(&bob).await;
    owner.fence = other.fence;
    say(&mut other, 1).await;
    say(&mut owner, 1).await;
    for (number, times) in [0, 3, 3].into_iter().enumerate() {
        let told = ears[number].all(&fixture.store, who[number], times).await;
        assert_eq!(appended(&told), vec![alice.clone(); times], "{:?}", who[number]);
    }
}

pub(super) async fn expired_observer_gets_no_hint(fixture: StoreFixture) {
    let alice = conversation("alice");
    let mut owner = fixture.own(&alice).await;
    let mut ear = fixture.listen(OTHER).await;
    observe(&fixture, &alice, OTHER).await;
    fixture.pass(OBSERVED * 2).await;
    say(&mut owner, 1).await;
    // Another observer's note removes the expired one.
    observe(&fixture, &alice, THIRD).await;
    say(&mut owner, 1).await;
    observe(&fixture, &alice, OTHER).await;
    say(&mut owner, 1).await;
    assert_eq!(appended(&ear.all(&fixture.store, OTHER, 1).await), [alice]);
}

pub(super) async fn renewed_observer_keeps_getting_hints(fixture: StoreFixture) {
    let users: Vec<_> = (0..20).map(|number| conversation(&format!("user-{number}"))).collect();
    let mut ear = fixture.listen(OTHER).await;
    fixture.store.observe(&[], OTHER).await.unwrap();
    for _ in 0..3 {
        fixture.store.observe(&users, OTHER).await.unwrap();
        fixture.pass(OBSERVED * 2 / 3).await;
    }
    for user in &users {
        say(&mut fixture.own(user).await, 1).await;
    }
    let mut told = appended(&ear.all(&fixture.store, OTHER, users.len()).await);
    told.sort();
    let mut expected = users.clone();
    expected.sort();
    assert_eq!(told, expected);
}

pub(super) async fn unknown_conversation_can_be_observed(fixture: StoreFixture) {
    let alice = conversation("alice");
    let mut ear = fixture.listen(OTHER).await;
    observe(&fixture, &alice, OTHER).await;
    let mut owner = fixture.own(&alice).await;
    let (open, _) = fixture.store.open(owner.fence, &alice).await.unwrap();
    assert_eq!((open.record, open.lane.len(), open.next_position), (owner.record.clone(), 0, 0));
    assert_eq!(fixture.store.state(&alice, ME, 1).await.unwrap().0.last_activity_at, None);
    let message = fixture.post(&alice, 1).await;
    // The message stays for any time, and the note with it.
    for _ in 0..3 {
        fixture.pass(OBSERVED * 2).await;
        observe(&fixture, &alice, OTHER).await;
    }
    let (open, _) = fixture.store.open(owner.fence, &alice).await.unwrap();
    assert_eq!((open.lane.len(), open.next_position), (1, 1));
    owner.settle(message).await;
    assert_eq!(appended(&ear.all(&fixture.store, OTHER, 1).await), [alice]);
}

pub(super) async fn open_returns_the_observers(fixture: StoreFixture) {
    let (alice, bob) = neighbours();
    // The partition has no owner yet, so no replica gets a hint.
    observe(&fixture, &alice, OTHER).await;
    observe(&fixture, &alice, THIRD).await;
    let owner = fixture.own(&alice).await;
    let observers = async |of: &ConversationId| {
        let (open, _) = fixture.store.open(owner.fence, of).await.unwrap();
        let mut observers = open.observers;
        observers.sort_unstable();
        observers
    };
    let mut both = vec![OTHER, THIRD];
    both.sort_unstable();
    assert_eq!(observers(&alice).await, both);
    assert_eq!(observers(&bob).await, []);
    // This also holds for a conversation with messages, and for an expired observer.
    let message = fixture.post(&alice, 1).await;
    fixture.pass(OBSERVED * 2).await;
    observe(&fixture, &alice, ME).await;
    assert_eq!(observers(&alice).await, [ME]);
    let mut owner = owner;
    owner.settle(message).await;
}

pub(super) async fn observer_note_leaves_nothing_behind(fixture: StoreFixture) {
    let (alice, bob) = neighbours();
    // The observer observes an unknown conversation, once and again.
    observe(&fixture, &alice, OTHER).await;
    fixture.store.observe(&[alice.clone(), bob.clone()], THIRD).await.unwrap();
    fixture.pass(OBSERVED).await;
    observe(&fixture, &alice, OTHER).await;
    fixture.pass(OBSERVED * 2).await;
    match (&fixture.store, fixture.redis()) {
        (Store::Memory(memory), _) => {
            while memory.sweep(1) > 0 {}
            assert_eq!(memory.stats(), MemoryStats::default());
        }
        (_, Some((servers, prefix))) => {
            let keys = crate::support::keys(&servers.masters().await, prefix).await;
            assert_eq!(keys, Vec::new());
            // Nor does a known conversation live longer because of it.
            let mut owner = fixture.own(&alice).await;
            let message = fixture.post(&alice, 1).await;
            observe(&fixture, &alice, OTHER).await;
            owner.settle(message).await;
            observe(&fixture, &alice, THIRD).await;
            fixture.rest().await;
            nothing_left(&servers.masters().await, prefix, Duration::ZERO).await;
        }
        _ => panic!("neither memory nor Redis"),
    }
}

pub(super) async fn observer_note_shortens_no_lifetime(fixture: StoreFixture) {
    let alice = conversation("alice");
    let mut owner = fixture.own(&alice).await;
    let message = fixture.post(&alice, 1).await;
    observe(&fixture, &alice, OTHER).await;
    fixture.pass(OBSERVED * 3).await;
    owner.settle(message).await;
    observe(&fixture, &alice, OTHER).await;
    fixture.pass(OBSERVED * 3).await;
    let (open, _) = fixture.store.open(owner.fence, &alice).await.unwrap();
    assert_eq!((open.record, open.next_position), (owner.record.clone(), 1));
    assert_eq!(fixture.entries(&alice).await.len(), 1);
    let read = fixture.store.message(&alice, message, None).await.unwrap().unwrap();
    assert_eq!(read.progress.status(), MessageStatus::Answered);
}

pub(super) async fn owner_gets_a_hint_at_an_observer(fixture: StoreFixture) {
    let (alice, bob) = neighbours();
    let mut ear = fixture.listen(ME).await;
    observe(&fixture, &alice, THIRD).await;
    let _owner = fixture.own(&alice).await;
    observe(&fixture, &alice, ME).await;
    observe(&fixture, &alice, OTHER).await;
    fixture.store.observe(&[bob.clone(), alice.clone()], THIRD).await.unwrap();
    fixture.pass(OBSERVED).await;
    // The hint is repeated, but not with each page.
    for _ in 0..3 {
        observe(&fixture, &alice, OTHER).await;
    }
    let told = ear.all(&fixture.store, ME, 3).await;
    assert_eq!(observed(&told), [(alice.clone(), OTHER), (bob, THIRD), (alice, OTHER)]);
}

pub(super) async fn chunks_and_answers_are_passed_on(fixture: StoreFixture) {
    let alice = conversation("alice");
    let mut ear = fixture.listen(OTHER).await;
    let chunk = ReplyChunk {
        message_id: Some("ms-1".into()),
        index: 3,
        text: "Zoë \"\u{1F600}\"\n".into(),
        last: true,
    };
    let connection = ConnectionStatus {
        state: LinkState::BackingOff,
        since: Some(Timestamp::from_millis(5)),
        reason: Some("it is away: 3:4".into()),
        retry_at: None,
    };
    let piece = Hint::Chunk(alice.clone(), Arc::new(chunk.clone()));
    let answer = Hint::Answered(u64::MAX, Box::new(connection.clone()));
    for hint in [&piece, &answer] {
        fixture.store.hint(OTHER, hint).await.unwrap();
    }
    let (mut pieces, mut answers) = (Vec::new(), Vec::new());
    while pieces.is_empty() || answers.is_empty() {
        match ear.next().await {
            Hint::Chunk(of, chunk) => pieces.push((of, ReplyChunk::clone(&chunk))),
            Hint::Answered(number, connection) => answers.push((number, *connection)),
            _ => {}
        }
    }
    assert_eq!((pieces, answers), (vec![(alice.clone(), chunk)], vec![(u64::MAX, connection)]));
    let refused = Err(StoreError::Unavailable(StoreRefusal::Unexpected));
    for hint in [Hint::Fleet, Hint::Appended(alice.clone()), Hint::Woken(alice), Hint::Subscribed] {
        assert_eq!(fixture.store.hint(OTHER, &hint).await, refused, "{hint:?}");
    }
}
