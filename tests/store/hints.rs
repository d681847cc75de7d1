//! Sentences about hints, heartbeats and the connects of the fleet.

use std::time::Duration;

use rtm_bridge::domain::{BotName, MessageContent, MessageId, Partition};
use rtm_bridge::store::{
    AcceptRequest, AcceptResult, ClaimMode, ConnectPermit, FleetStatus, Heartbeat, Hint, Incarnation,
    ReplicaIdentity, Store,
};

use super::store_fixture::{
    LEASE, ME, OTHER, StoreFixture, THIRD, accept, conversation, heartbeat, id, name_of, with_key,
};

/// Returns the accepted messages that a replica got hints at.
fn accepted(told: &[Hint]) -> Vec<MessageId> {
    let accepted = |hint: &Hint| match hint {
        Hint::Accepted(accepted) => Some(accepted.id),
        _ => None,
    };
    told.iter().filter_map(accepted).collect()
}

/// Returns the ended messages that a replica got hints at.
fn ended(told: &[Hint]) -> Vec<MessageId> {
    let ended = |hint: &Hint| match hint {
        Hint::Ended(message) => {
            assert!(message.progress.has_ended(), "{message:?}");
            Some(message.accepted.id)
        }
        _ => None,
    };
    told.iter().filter_map(ended).collect()
}

pub(super) async fn owner_gets_a_hint_at_an_accept_elsewhere(fixture: StoreFixture) {
    let alice = conversation("alice");
    let mut ears = [fixture.listen(ME).await, fixture.listen(OTHER).await];
    let by = |number, by| fixture.store.accept(AcceptRequest { by, ..accept(&alice, number) });
    by(1, OTHER).await.unwrap();
    let owner = fixture.own(&alice).await;
    by(2, OTHER).await.unwrap();
    by(3, ME).await.unwrap();
    by(4, THIRD).await.unwrap();
    let told = ears[0].all(&fixture.store, ME, 2).await;
    assert_eq!(accepted(&told), [id(2), id(4)], "those of others since it owns the partition");
    let carried = told.iter().find_map(|hint| match hint {
        Hint::Accepted(accepted) => Some(accepted),
        _ => None,
    });
    let read = fixture.store.message(&alice, id(2), None).await.unwrap().unwrap();
    assert_eq!(format!("{:?}", carried.unwrap()), format!("{:?}", read.accepted), "it is all there");
    fixture.store.release(Partition::of(&alice), owner.fence).await.unwrap();
    by(5, OTHER).await.unwrap();
    assert!(accepted(&ears[0].all(&fixture.store, ME, 0).await).is_empty(), "nobody owns it");
    assert!(accepted(&ears[1].all(&fixture.store, OTHER, 0).await).is_empty());
}

pub(super) async fn large_message_is_hinted_too(fixture: StoreFixture) {
    let alice = conversation("alice");
    let mut ear = fixture.listen(ME).await;
    let _owner = fixture.own(&alice).await;
    let mut large = AcceptRequest { by: OTHER, ..accept(&alice, 1) };
    large.message.content = MessageContent::new("x".repeat(64 * 1024)).unwrap();
    fixture.store.accept(large).await.unwrap();
    let whose = ear
        .until("it is told", |hint| match hint {
            Hint::Accepted(accepted) => Some(accepted.new.conversation.clone()),
            Hint::Woken(conversation) => Some(conversation.clone()),
            _ => None,
        })
        .await;
    assert_eq!(whose, alice);
}

pub(super) async fn watcher_gets_a_hint_at_the_end_but_not_the_owner(fixture: StoreFixture) {
    let alice = conversation("alice");
    let mut owner = fixture.own(&alice).await;
    let who = [ME, OTHER, THIRD];
    let mut ears = [fixture.listen(ME).await, fixture.listen(OTHER).await, fixture.listen(THIRD).await];
    fixture.store.accept(AcceptRequest { by: OTHER, watched: true, ..accept(&alice, 1) }).await.unwrap();
    fixture.store.accept(AcceptRequest { by: OTHER, watched: false, ..accept(&alice, 2) }).await.unwrap();
    // A repeat changes nothing.
    for watcher in [THIRD, ME, THIRD, OTHER] {
        let read = fixture.store.message(&alice, id(1), Some(watcher)).await.unwrap().unwrap();
        assert!(!read.progress.has_ended());
    }
    fixture.store.message(&alice, id(2), None).await.unwrap().unwrap();
    owner.settle(id(1)).await;
    owner.settle(id(2)).await;
    for (number, expected) in [vec![], vec![id(1)], vec![id(1)]].into_iter().enumerate() {
        let told = ears[number].all(&fixture.store, who[number], expected.len()).await;
        assert_eq!(ended(&told), expected, "{:?}", who[number]);
    }
    // A watcher that comes after the end reads it and does not wait.
    let read = fixture.store.message(&alice, id(1), Some(THIRD)).await.unwrap().unwrap();
    assert!(read.progress.has_ended());
    let late = owner.reply(owner.now().await, Some(id(1)), "late");
    owner.write(vec![late]).await.unwrap();
    assert!(ended(&ears[2].all(&fixture.store, THIRD, 0).await).is_empty());
}

pub(super) async fn repeated_accept_notes_a_watcher_too(fixture: StoreFixture) {
    let alice = conversation("alice");
    let mut owner = fixture.own(&alice).await;
    let mut ear = fixture.listen(OTHER).await;
    fixture.store.accept(with_key(accept(&alice, 1), "shop", "k", 1)).await.unwrap();
    let again = AcceptRequest { by: OTHER, watched: true, ..with_key(accept(&alice, 2), "shop", "k", 1) };
    assert!(matches!(fixture.store.accept(again).await.unwrap(), AcceptResult::Replayed(_)));
    owner.settle(id(1)).await;
    assert_eq!(ended(&ear.all(&fixture.store, OTHER, 1).await), [id(1)]);
}

pub(super) async fn large_end_is_hinted_too(fixture: StoreFixture) {
    let alice = conversation("alice");
    let mut owner = fixture.own(&alice).await;
    let mut ear = fixture.listen(OTHER).await;
    fixture.store.accept(AcceptRequest { by: OTHER, watched: true, ..accept(&alice, 1) }).await.unwrap();
    let reply = owner.reply(owner.now().await, Some(id(1)), &"x".repeat(100_000));
    let end = owner.end(owner.now().await, id(1));
    owner.write(vec![reply, end]).await.unwrap();
    let whose = ear
        .until("it is told", |hint| match hint {
            Hint::Ended(message) => Some((message.accepted.new.conversation.clone(), message.accepted.id)),
            Hint::EndedLarge { conversation, id } => Some((conversation.clone(), *id)),
            _ => None,
        })
        .await;
    assert_eq!(whose, (alice, id(1)));
}

/// Returns the live replicas with their names.
fn live(fleet: &FleetStatus) -> Vec<Incarnation> {
    let mut live = Vec::new();
    for ReplicaIdentity { name, incarnation } in &fleet.live {
        assert_eq!(*name, name_of(*incarnation));
        live.push(*incarnation);
    }
    live.sort_unstable();
    live
}

pub(super) async fn heartbeat_returns_the_live_replicas(fixture: StoreFixture) {
    let second = fixture.second();
    let mut ear = fixture.listen(ME).await;
    let is_fleet = |hint: &Hint| matches!(hint, Hint::Fleet).then_some(());
    let fleet = fixture.store.heartbeat(&heartbeat(ME, 1)).await.unwrap();
    assert_eq!(live(&fleet), [ME]);
    ear.until("its own coming is told", is_fleet).await;
    let fleet = second.heartbeat(&heartbeat(OTHER, 2)).await.unwrap();
    assert_eq!(live(&fleet), [ME, OTHER]);
    ear.until("a coming is told", is_fleet).await;
    fixture.pass_almost(LEASE).await;
    let fleet = fixture.store.heartbeat(&heartbeat(ME, 3)).await.unwrap();
    assert_eq!(fleet.live.len(), 2);
    assert!(fleet.now <= fixture.store.now().await.unwrap());
    fixture.pass_the_rest().await;
    let fleet = fixture.store.heartbeat(&heartbeat(ME, 4)).await.unwrap();
    assert_eq!(live(&fleet), [ME], "the other is late");
    let fleet = second.heartbeat(&heartbeat(OTHER, 5)).await.unwrap();
    assert_eq!(fleet.live.len(), 2, "and back");
    ear.until("that is told", is_fleet).await;
}

pub(super) async fn heartbeat_ttl_is_each_replicas_own(fixture: StoreFixture) {
    let long = Heartbeat { ttl: LEASE * 3, ..heartbeat(OTHER, 0) };
    for beat in [heartbeat(ME, 0), long] {
        fixture.store.heartbeat(&beat).await.unwrap();
    }
    fixture.pass(LEASE * 2).await;
    let fleet = fixture.store.heartbeat(&heartbeat(THIRD, 0)).await.unwrap();
    assert_eq!(live(&fleet), [OTHER, THIRD]);
    fixture.pass(LEASE).await;
    let long = Heartbeat { ttl: LEASE * 9, ..heartbeat(THIRD, 0) };
    assert_eq!(live(&fixture.store.heartbeat(&long).await.unwrap()), [THIRD]);
}

pub(super) async fn leaving_replica_is_gone_at_once(fixture: StoreFixture) {
    let mut ear = fixture.listen(ME).await;
    for who in [ME, OTHER] {
        fixture.store.heartbeat(&heartbeat(who, 0)).await.unwrap();
    }
    ear.all(&fixture.store, ME, 0).await;
    // The call is repeated as after a lost answer.
    for _ in 0..2 {
        fixture.store.leave(OTHER).await.unwrap();
    }
    ear.until("a going is told", |hint| matches!(hint, Hint::Fleet).then_some(())).await;
    let fleet = fixture.store.heartbeat(&heartbeat(ME, 0)).await.unwrap();
    assert_eq!(live(&fleet), [ME]);
}

pub(super) async fn release_is_hinted_to_all_replicas(fixture: StoreFixture) {
    let partition = Partition::of(&conversation("alice"));
    let fence = fixture.store.claim(partition, ME, LEASE, ClaimMode::Free).await.unwrap().fence().unwrap();
    let mut ear = fixture.listen(OTHER).await;
    fixture.store.release(partition, fence).await.unwrap();
    ear.until("it is told", |hint| matches!(hint, Hint::Fleet).then_some(())).await;
}

pub(super) async fn reserved_connect_is_granted_once(fixture: StoreFixture) {
    let stores = [fixture.store.clone(), fixture.second()];
    let bot = BotName::new("support").unwrap();
    let minute = Duration::from_mins(1);
    let ask = async |store: &Store, token, reserved| {
        store.permit(&bot, 2, token, reserved).await.unwrap() == ConnectPermit::Granted
    };
    // One replica reserves the connect of another.
    assert!(ask(&stores[0], 100, None).await);
    assert!(ask(&stores[0], 1, None).await);
    assert!(!ask(&stores[1], 2, None).await, "the reservation counts");
    assert!(ask(&stores[1], 2, Some(100)).await);
    assert!(ask(&stores[1], 2, Some(100)).await, "a repeat of the same connect");
    assert!(!ask(&stores[1], 3, Some(100)).await, "the reservation is used up");
    fixture.pass(minute).await;
    assert!(ask(&stores[1], 4, Some(100)).await, "an ordinary connect");
    assert!(ask(&stores[0], 100, None).await);
    fixture.pass(minute).await;
    for token in [5, 6] {
        assert!(ask(&stores[1], token, Some(100)).await, "an expired reservation is no obstacle");
    }
    assert!(!ask(&stores[1], 7, Some(100)).await);
}

pub(super) async fn connects_are_counted_over_the_fleet(fixture: StoreFixture) {
    let stores = [fixture.store.clone(), fixture.second()];
    let [bot, other, free] = ["support", "sales", "free"].map(|name| BotName::new(name).unwrap());
    let minute = Duration::from_mins(1);
    let before = fixture.store.now().await.unwrap();
    for (store, token) in stores.iter().zip([1, 2]) {
        let granted = store.permit(&bot, 2, token, None).await.unwrap();
        assert_eq!(granted, ConnectPermit::Granted);
    }
    let after = fixture.store.now().await.unwrap();
    for store in &stores {
        let ConnectPermit::At(at) = store.permit(&bot, 2, 3, None).await.unwrap() else {
            panic!("one too many")
        };
        assert!(before + minute <= at && at <= after + minute, "{at:?}");
        for token in [1, 2] {
            let again = store.permit(&bot, 2, token, None).await.unwrap();
            assert_eq!(again, ConnectPermit::Granted, "a repeat is counted once");
        }
        assert_eq!(store.permit(&other, 1, 4, None).await.unwrap(), ConnectPermit::Granted, "another bot");
        assert_eq!(store.permit(&free, 0, 5, None).await.unwrap(), ConnectPermit::Granted, "no limit");
    }
    fixture.pass(minute).await;
    for token in [6, 7] {
        assert_eq!(stores[0].permit(&bot, 2, token, None).await.unwrap(), ConnectPermit::Granted);
    }
    assert!(matches!(stores[1].permit(&bot, 2, 8, None).await.unwrap(), ConnectPermit::At(_)));
}
