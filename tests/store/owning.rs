//! Sentences on leases and fences.

use rtm_bridge::domain::{Partition, Status, Timestamp};
use rtm_bridge::store::{Claiming, StoreError};

use super::shape::{LEASE, ME, OTHER, Shape, conversation, id};

pub(super) async fn a_partition_has_one_owner(shape: Shape) {
    let partition = Partition::of(&conversation("alice"));
    let first = shape.store.claim(partition, ME, LEASE, Claiming::Expired).await.unwrap().fence().unwrap();
    shape.pass_almost(LEASE);
    assert_eq!(shape.store.claim(partition, OTHER, LEASE, Claiming::Expired).await.unwrap().fence(), None);
    shape.store.renew(partition, first, LEASE).await.unwrap();
    shape.pass_almost(LEASE);
    assert_eq!(shape.store.claim(partition, OTHER, LEASE, Claiming::Expired).await.unwrap().fence(), None);
    let other = Partition::all().find(|&other| other != partition).unwrap();
    assert!(shape.store.claim(other, OTHER, LEASE, Claiming::Expired).await.unwrap().fence().is_some());
}

pub(super) async fn a_lease_that_ran_out_is_free_and_the_old_owner_is_fenced(shape: Shape) {
    let partition = Partition::of(&conversation("alice"));
    let old = shape.store.claim(partition, ME, LEASE, Claiming::Expired).await.unwrap().fence().unwrap();
    shape.pass(LEASE);
    let now = shape.store.now().await.unwrap();
    let young = shape.store.claim(partition, OTHER, LEASE, Claiming::Expired).await.unwrap().fence().unwrap();
    assert!(young.epoch > old.epoch && young.epoch >= now.as_millis());
    assert_eq!(shape.store.renew(partition, old, LEASE).await, Err(StoreError::Fenced));
    assert_eq!(shape.store.release(partition, old).await, Err(StoreError::Fenced));
    assert!(shape.store.renew(partition, young, LEASE).await.is_ok());
}

pub(super) async fn a_released_partition_is_free_at_once(shape: Shape) {
    let partition = Partition::of(&conversation("alice"));
    let old = shape.store.claim(partition, ME, LEASE, Claiming::Expired).await.unwrap().fence().unwrap();
    shape.store.release(partition, old).await.unwrap();
    assert_eq!(shape.store.renew(partition, old, LEASE).await, Err(StoreError::Fenced));
    let young = shape.store.claim(partition, OTHER, LEASE, Claiming::Expired).await.unwrap().fence().unwrap();
    assert!(young.epoch > old.epoch, "also within one millisecond");
}

pub(super) async fn claiming_again_fences_off_what_was_on_its_way(shape: Shape) {
    let partition = Partition::of(&conversation("alice"));
    let old = shape.store.claim(partition, ME, LEASE, Claiming::Expired).await.unwrap().fence().unwrap();
    let young = shape.store.claim(partition, ME, LEASE, Claiming::Expired).await.unwrap().fence().unwrap();
    assert!(young.epoch > old.epoch);
    assert_eq!(shape.store.ready(partition, old, false).await, Err(StoreError::Fenced));
    assert_eq!(shape.store.ready(partition, young, false).await, Ok(Vec::new()));
}

pub(super) async fn a_lease_nobody_took_can_be_renewed_late(shape: Shape) {
    let alice = conversation("alice");
    let mut owner = shape.own(&alice).await;
    shape.post(&alice, 1).await;
    shape.pass(LEASE * 5);
    owner.settle(id(1)).await;
    let partition = Partition::of(&alice);
    shape.store.renew(partition, owner.fence, LEASE).await.unwrap();
    assert_eq!(shape.store.claim(partition, OTHER, LEASE, Claiming::Expired).await.unwrap().fence(), None);
}

pub(super) async fn every_operation_of_an_owner_is_fenced(shape: Shape) {
    let alice = conversation("alice");
    let mut owner = shape.own(&alice).await;
    shape.post(&alice, 1).await;
    shape.pass(LEASE);
    shape.store.claim(Partition::of(&alice), OTHER, LEASE, Claiming::Expired).await.unwrap().fence().unwrap();
    let end = owner.end(Timestamp::default(), id(1));
    assert_eq!(owner.write(vec![end]).await, Err(StoreError::Fenced));
    assert_eq!(shape.store.open(owner.fence, &alice).await.unwrap_err(), StoreError::Fenced);
    assert_eq!(shape.store.ready(Partition::of(&alice), owner.fence, false).await, Err(StoreError::Fenced));
    assert_eq!(
        shape.store.message(&alice, id(1), None).await.unwrap().unwrap().progress.status(),
        Status::Queued
    );
    assert!(shape.store.journal(&alice, 0, 10).await.unwrap().is_empty());
}
