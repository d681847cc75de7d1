//! Sentences about the rhythms of bots.

use rtm_bridge::domain::BotName;
use rtm_bridge::store::{RHYTHM_MAX_BYTES, RHYTHM_TTL, Store, StoreError, StoreRefusal, StoredRhythm};

use super::store_fixture::StoreFixture;

fn bot(name: &str) -> BotName {
    BotName::new(name).unwrap()
}

async fn state(store: &Store, name: &str) -> Option<Vec<u8>> {
    store.rhythm(&bot(name)).await.unwrap().map(|stored| stored.state.to_vec())
}

async fn version(store: &Store, name: &str) -> Option<u64> {
    store.rhythm(&bot(name)).await.unwrap().map(|stored| stored.version)
}

pub(super) async fn rhythm_is_shared_by_all_replicas(fixture: StoreFixture) {
    let (store, other) = (&fixture.store, fixture.second());
    assert_eq!(store.rhythm(&bot("a")).await.unwrap(), None);
    let bytes: Vec<u8> = (0..RHYTHM_MAX_BYTES).map(|at| u8::try_from(at % 256).unwrap()).collect();
    assert!(store.put_rhythm(&bot("a"), None, &bytes).await.unwrap());
    assert_eq!(state(&other, "a").await, Some(bytes), "any bytes");
    assert_eq!(state(&other, "b").await, None, "each bot has its own");
    let before = version(&other, "a").await;
    assert!(other.put_rhythm(&bot("a"), before, b"").await.unwrap());
    let Some(StoredRhythm { version, state }) = store.rhythm(&bot("a")).await.unwrap() else { panic!() };
    assert!(state.is_empty() && Some(version) > before, "versions rise");
}

pub(super) async fn rhythm_of_another_writer_is_kept(fixture: StoreFixture) {
    let (store, other) = (&fixture.store, fixture.second());
    let a = bot("a");
    assert!(store.put_rhythm(&a, None, b"one").await.unwrap());
    let first = version(store, "a").await;
    assert!(!other.put_rhythm(&a, None, b"two").await.unwrap(), "one is stored");
    assert!(!other.put_rhythm(&a, first.map(|version| version - 1), b"two").await.unwrap());
    assert!(other.put_rhythm(&a, first, b"two").await.unwrap());
    assert!(!store.put_rhythm(&a, first, b"three").await.unwrap(), "the other one wrote since");
    assert_eq!(state(store, "a").await.as_deref(), Some(&b"two"[..]));
    assert!(!store.put_rhythm(&bot("b"), first, b"three").await.unwrap(), "nothing is stored");
    assert_eq!(state(store, "b").await, None);
}

pub(super) async fn repeated_write_of_a_rhythm_changes_nothing(fixture: StoreFixture) {
    let store = &fixture.store;
    for state in [&b"one"[..], b"two"] {
        let expected = version(store, "a").await;
        assert!(store.put_rhythm(&bot("a"), expected, state).await.unwrap());
        let stored = store.rhythm(&bot("a")).await.unwrap();
        assert!(store.put_rhythm(&bot("a"), expected, state).await.unwrap());
        assert_eq!(store.rhythm(&bot("a")).await.unwrap(), stored);
    }
}

pub(super) async fn forgotten_rhythm_is_learned_anew(fixture: StoreFixture) {
    let store = &fixture.store;
    let a = bot("a");
    store.forget_rhythm(&a).await.unwrap();
    assert!(store.put_rhythm(&a, None, b"old").await.unwrap());
    let old = version(store, "a").await;
    store.forget_rhythm(&a).await.unwrap();
    assert_eq!(state(store, "a").await, None);
    assert!(!store.put_rhythm(&a, old, b"late").await.unwrap(), "its writer did not know");
    fixture.pass(std::time::Duration::from_millis(1)).await;
    assert!(store.put_rhythm(&a, None, b"new").await.unwrap());
    assert!(version(store, "a").await > old);
    assert!(!store.put_rhythm(&a, old, b"late").await.unwrap());
}

pub(super) async fn rhythm_expires_90_days_after_its_last_write(fixture: StoreFixture) {
    let store = &fixture.store;
    assert!(store.put_rhythm(&bot("a"), None, b"one").await.unwrap());
    fixture.pass_almost(RHYTHM_TTL).await;
    let first = version(store, "a").await;
    assert!(store.put_rhythm(&bot("a"), first, b"two").await.unwrap());
    fixture.pass_almost(RHYTHM_TTL).await;
    assert_eq!(state(store, "a").await.as_deref(), Some(&b"two"[..]));
    fixture.pass_the_rest().await;
    assert_eq!(state(store, "a").await, None);
}

pub(super) async fn too_large_rhythm_is_refused(fixture: StoreFixture) {
    let large = vec![0; RHYTHM_MAX_BYTES + 1];
    let refused = fixture.store.put_rhythm(&bot("a"), None, &large).await.unwrap_err();
    assert_eq!(refused, StoreError::Unavailable(StoreRefusal::TooLarge));
    assert_eq!(state(&fixture.store, "a").await, None);
}
