//! Erasures that end halfway, and calls that cross them.

use super::*;
use crate::store::redis::scripts::SCRIPTS;

/// Returns an owner whose conversation has an ended message with a key, and an open one.
async fn filled(store: &RedisStore) -> (Fence, MessageId, MessageId) {
    let fence = own(store).await;
    let ended = post(store, 1).await;
    let at = Timestamp::from_millis(1);
    store.write(fence, &alice(), &numbered(1, vec![reply(1, at, Some(ended), "hello")])).await.unwrap();
    store.write(fence, &alice(), &numbered(2, vec![end(2, at, ended)])).await.unwrap();
    (fence, ended, post(store, 2).await)
}

#[tokio::test]
async fn failed_erasure_keeps_the_lane_and_is_repeated() {
    let server = Server::start();
    let store = server.store();
    let (fence, ended, open) = filled(&store).await;
    // Each of these fails at another step.
    for right in ["scan", "zscan", "del", "zrem"] {
        server.ask::<()>(&["ACL", "SETUSER", "default", &format!("-{right}")]).await;
        assert!(store.erase(fence, &alice()).await.is_err(), "{right}");
        server.ask::<()>(&["ACL", "SETUSER", "default", &format!("+{right}")]).await;
        let ready = store.ready(Partition::of(&alice()), fence, false).await.unwrap();
        assert_eq!(ready, [alice()], "{right}: the request is still in the lane");
    }
    assert_eq!(store.erase(fence, &alice()).await.unwrap(), [open]);
    for id in [ended, open] {
        assert!(store.message(&alice(), id, None).await.unwrap().is_none());
    }
    let keys: Vec<String> = server.ask(&["KEYS", "*"]).await;
    let left: Vec<_> =
        keys.iter().filter(|key| !key.ends_with(":lease") && !key.ends_with(":schema")).collect();
    assert!(left.is_empty(), "{left:?}");
}

#[tokio::test]
async fn rest_that_crosses_an_erasure_brings_no_name_back() {
    let server = Server::start();
    let store = server.store();
    let (fence, ..) = filled(&store).await;
    // The call for the rest is prepared before, and Redis carries it out afterwards.
    let partition = Partition::of(&alice());
    store.erase(fence, &alice()).await.unwrap();
    let keys = store.0.keys.partition(partition);
    let rest = SCRIPTS
        .rest
        .call(&[&keys.lease, &keys.activity])
        .fence(fence)
        .arg("86400000")
        .arg(alice().to_string())
        .arg("");
    store.run(rest).await.unwrap().expect("OK").unwrap();
    for index in ["activity", "names"] {
        let key = format!("t:{{{partition}}}:{index}");
        assert_eq!(server.ask::<u64>(&["EXISTS", &key]).await, 0, "{index}");
    }
}
