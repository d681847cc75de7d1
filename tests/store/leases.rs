//! Sentences about leases and fences.

use rtm_bridge::domain::{MessageStatus, Partition, Timestamp};
use rtm_bridge::store::{ClaimMode, ClaimResult, StoreError};

use super::store_fixture::{LEASE, ME, OTHER, Owner, StoreFixture, conversation, id};

pub(super) async fn partition_has_one_owner(fixture: StoreFixture) {
    let partition = Partition::of(&conversation("alice"));
    let first = fixture.store.claim(partition, ME, LEASE, ClaimMode::Expired).await.unwrap().fence().unwrap();
    fixture.pass_almost(LEASE).await;
    assert_eq!(fixture.store.claim(partition, OTHER, LEASE, ClaimMode::Expired).await.unwrap().fence(), None);
    fixture.store.renew(partition, first, LEASE).await.unwrap();
    fixture.pass_almost(LEASE).await;
    assert_eq!(fixture.store.claim(partition, OTHER, LEASE, ClaimMode::Expired).await.unwrap().fence(), None);
    let other = Partition::all().find(|&other| other != partition).unwrap();
    assert!(fixture.store.claim(other, OTHER, LEASE, ClaimMode::Expired).await.unwrap().fence().is_some());
}

pub(super) async fn expired_lease_is_free_and_its_owner_fenced(fixture: StoreFixture) {
    let partition = Partition::of(&conversation("alice"));
    let old = fixture.store.claim(partition, ME, LEASE, ClaimMode::Expired).await.unwrap().fence().unwrap();
    fixture.pass(LEASE).await;
    let now = fixture.store.now().await.unwrap();
    let young =
        fixture.store.claim(partition, OTHER, LEASE, ClaimMode::Expired).await.unwrap().fence().unwrap();
    assert!(young.epoch > old.epoch && young.epoch >= now.as_millis());
    assert_eq!(fixture.store.renew(partition, old, LEASE).await, Err(StoreError::Fenced));
    assert_eq!(fixture.store.release(partition, old).await, Err(StoreError::Fenced));
    assert!(fixture.store.renew(partition, young, LEASE).await.is_ok());
}

pub(super) async fn released_partition_is_free_at_once(fixture: StoreFixture) {
    let partition = Partition::of(&conversation("alice"));
    let old = fixture.store.claim(partition, ME, LEASE, ClaimMode::Expired).await.unwrap().fence().unwrap();
    fixture.store.release(partition, old).await.unwrap();
    assert_eq!(fixture.store.renew(partition, old, LEASE).await, Err(StoreError::Fenced));
    let young =
        fixture.store.claim(partition, OTHER, LEASE, ClaimMode::Expired).await.unwrap().fence().unwrap();
    assert!(young.epoch > old.epoch, "also within one millisecond");
}

pub(super) async fn second_claim_fences_off_earlier_operations(fixture: StoreFixture) {
    let partition = Partition::of(&conversation("alice"));
    let old = fixture.store.claim(partition, ME, LEASE, ClaimMode::Expired).await.unwrap().fence().unwrap();
    let young = fixture.store.claim(partition, ME, LEASE, ClaimMode::Expired).await.unwrap().fence().unwrap();
    assert!(young.epoch > old.epoch);
    assert_eq!(fixture.store.ready(partition, old, false).await, Err(StoreError::Fenced));
    assert_eq!(fixture.store.ready(partition, young, false).await, Ok(Vec::new()));
}

pub(super) async fn expired_lease_without_a_claim_is_renewed(fixture: StoreFixture) {
    let alice = conversation("alice");
    let mut owner = fixture.own(&alice).await;
    fixture.post(&alice, 1).await;
    fixture.pass(LEASE * 5).await;
    owner.settle(id(1)).await;
    let partition = Partition::of(&alice);
    fixture.store.renew(partition, owner.fence, LEASE).await.unwrap();
    assert_eq!(fixture.store.claim(partition, OTHER, LEASE, ClaimMode::Expired).await.unwrap().fence(), None);
}

pub(super) async fn every_owner_operation_is_fenced(fixture: StoreFixture) {
    let alice = conversation("alice");
    let mut owner = fixture.own(&alice).await;
    fixture.post(&alice, 1).await;
    fixture.pass(LEASE).await;
    fixture
        .store
        .claim(Partition::of(&alice), OTHER, LEASE, ClaimMode::Expired)
        .await
        .unwrap()
        .fence()
        .unwrap();
    let end = owner.end(Timestamp::default(), id(1));
    assert_eq!(owner.write(vec![end]).await, Err(StoreError::Fenced));
    assert_eq!(fixture.store.open(owner.fence, &alice).await.unwrap_err(), StoreError::Fenced);
    assert_eq!(fixture.store.ready(Partition::of(&alice), owner.fence, false).await, Err(StoreError::Fenced));
    assert_eq!(
        fixture.store.message(&alice, id(1), None).await.unwrap().unwrap().progress.status(),
        MessageStatus::Queued
    );
    assert!(fixture.entries(&alice).await.is_empty());
}

pub(super) async fn claim_of_free_partitions_skips_expired_ones(fixture: StoreFixture) {
    let partition = Partition::of(&conversation("alice"));
    let free = async |who| fixture.store.claim(partition, who, LEASE, ClaimMode::Free).await.unwrap();
    let first = free(ME).await.fence().unwrap();
    for ran_out in [false, true] {
        if ran_out {
            fixture.pass(LEASE).await;
        }
        let ClaimResult::Held { by, until } = free(OTHER).await else { panic!("taken") };
        assert_eq!((by, until <= fixture.store.now().await.unwrap()), (ME, ran_out));
    }
    let again = free(ME).await.fence().expect("it is the claimer's own");
    assert!(again.epoch > first.epoch);
    fixture.store.release(partition, again).await.unwrap();
    assert!(free(OTHER).await.fence().is_some(), "it was given back");
}

/// Returns the answers of all operations of an owner.
async fn all_say(fixture: &StoreFixture, owner: &mut Owner<'_>, error: StoreError) {
    let partition = Partition::of(&owner.conversation);
    let before = owner.record.clone();
    assert_eq!(owner.write(Vec::new()).await, Err(error.clone()));
    owner.record = before;
    assert_eq!(fixture.store.open(owner.fence, &owner.conversation).await.unwrap_err(), error);
    assert_eq!(fixture.store.ready(partition, owner.fence, true).await, Err(error.clone()));
    assert_eq!(fixture.store.renew(partition, owner.fence, LEASE).await, Err(error.clone()));
    assert_eq!(fixture.store.release(partition, owner.fence).await, Err(error));
}

pub(super) async fn lost_lease_is_reported_as_lost(fixture: StoreFixture) {
    let alice = conversation("alice");
    let partition = Partition::of(&alice);
    let lease = format!("{{{partition}}}:lease");
    let mut owner = fixture.own(&alice).await;
    let older = (owner.fence.epoch - 1).to_string();
    if !fixture.tamper("HSET", &lease, &["e", &older]).await {
        return;
    }
    all_say(&fixture, &mut owner, StoreError::Lost).await;
    fixture.tamper("HSET", &lease, &["o", &OTHER.to_string()]).await;
    all_say(&fixture, &mut owner, StoreError::Lost).await;
    fixture.tamper("DEL", &lease, &[]).await;
    all_say(&fixture, &mut owner, StoreError::Lost).await;
    let claim = fixture.store.claim(partition, OTHER, LEASE, ClaimMode::Free).await.unwrap();
    assert!(claim.fence().unwrap().epoch > owner.fence.epoch, "epochs rise over losses too");
    all_say(&fixture, &mut owner, StoreError::Fenced).await;
}
