//! Sentences about the state of callers that all replicas share.

use std::time::Duration;

use rtm_bridge::store::{READ_TOKEN_SECRET_TTL, RequestGrant, RequestWish, Store};

use super::store_fixture::StoreFixture;

async fn take(store: &Store, per_minute: u32, wanted: u32, returned: u32) -> RequestGrant {
    store.take_requests(RequestWish { caller: "crm", per_minute, wanted, returned }).await.unwrap()
}

pub(super) async fn first_secret_of_a_day_serves_all_replicas(fixture: StoreFixture) {
    let (store, other) = (&fixture.store, fixture.second());
    assert_eq!(store.read_token_secret(7, None).await.unwrap(), None);
    assert_eq!(store.read_token_secret(7, Some([0xff; 32])).await.unwrap(), Some([0xff; 32]), "any bytes");
    assert_eq!(other.read_token_secret(7, Some([2; 32])).await.unwrap(), Some([0xff; 32]));
    assert_eq!(other.read_token_secret(8, Some([3; 32])).await.unwrap(), Some([3; 32]));
    assert_eq!(store.read_token_secret(7, None).await.unwrap(), Some([0xff; 32]));
    fixture.pass(READ_TOKEN_SECRET_TTL + Duration::from_mins(1)).await;
    assert_eq!(store.read_token_secret(7, None).await.unwrap(), None);
}

pub(super) async fn replicas_take_from_one_bucket(fixture: StoreFixture) {
    let (store, other) = (&fixture.store, fixture.second());
    // So few that none comes back while the sentence is read.
    let first = take(store, 20, 15, 0).await;
    assert_eq!(first, RequestGrant { granted: 15, left: 5, next_in: Duration::ZERO });
    assert_eq!(take(&other, 20, 15, 0).await.granted, 5);
    let none = take(store, 20, 10, 0).await;
    assert_eq!((none.granted, none.left), (0, 0));
    assert!(!none.next_in.is_zero() && none.next_in <= Duration::from_secs(3), "{none:?}");
    assert_eq!(take(&other, 20, 0, 4).await.left, 4, "what comes back is there for others");
    assert_eq!(take(store, 20, 10, 0).await.granted, 4);
    fixture.pass(Duration::from_secs(30)).await;
    let later = take(store, 20, 20, 0).await.granted;
    assert!((10..=11).contains(&later), "half of a minute: {later}");
    fixture.pass(Duration::from_mins(10)).await;
    assert_eq!(take(store, 20, 100, 100).await.granted, 20, "never more than a bucket");
}
