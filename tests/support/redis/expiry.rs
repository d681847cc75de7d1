//! The expiry of keys in Redis, and a script that lets time pass, because a test cannot wait a day.

use std::time::Duration;

use super::RedisServer;

/// Reduces the remaining time of all keys with this prefix. Redis removes a key whose time has passed.
const SHIFT: &str = r"
local cursor = '0'
repeat
    local page = redis.call('SCAN', cursor, 'MATCH', ARGV[1], 'COUNT', 1000)
    cursor = page[1]
    for _, key in ipairs(page[2]) do
        local left = redis.call('PTTL', key)
        if left >= 0 then
            left = left - ARGV[2]
            if left > 0 then redis.call('PEXPIRE', key, left) else redis.call('DEL', key) end
        end
    end
until cursor == '0'
return redis.status_reply('OK')";

const LIST: &str = r"
local keys = redis.call('KEYS', ARGV[1])
local list = {}
for _, key in ipairs(keys) do
    list[#list + 1] = {key, redis.call('PTTL', key)}
end
return list";

/// Lets this time pass for all keys that expire.
pub(crate) async fn shift(masters: &[&RedisServer], prefix: &str, span: Duration) {
    for master in masters {
        let arguments = [&format!("{prefix}:*"), &span.as_millis().to_string()];
        let answer = master.command(&["EVAL", SHIFT, "0", arguments[0], arguments[1]]).await;
        assert_eq!(answer.text(), "OK");
    }
}

/// Returns the keys with this prefix, each with its remaining milliseconds, or `None` for a key without expiry.
pub(crate) async fn keys(masters: &[&RedisServer], prefix: &str) -> Vec<(String, Option<i64>)> {
    let mut keys = Vec::new();
    for master in masters {
        let list = master.command(&["EVAL", LIST, "0", &format!("{prefix}:*")]).await;
        keys.extend(list.list().iter().map(|pair| {
            let [key, left] = pair.list() else { panic!("{pair:?}") };
            (key.text().to_owned(), Some(left.integer()).filter(|&left| left >= 0))
        }));
    }
    keys.sort();
    keys
}

/// Returns whether a key is permanent: records of migrations, heartbeats, owners of partitions, states of endpoints.
fn stays(prefix: &str, key: &str) -> bool {
    let Some(rest) = key.strip_prefix(prefix).and_then(|rest| rest.strip_prefix(':')) else { return false };
    matches!(rest, "schema" | "{fleet}:replicas" | "{fleet}:bots" | "{fleet}:endpoints")
        || rest.ends_with(":lease")
}

/// Returns whether a key belongs to a bot instead of a message. One such key is kept for each bot, for longer than messages.
fn is_of_a_bot(prefix: &str, key: &str) -> bool {
    key.strip_prefix(prefix).is_some_and(|rest| rest.starts_with(":{fleet}:rhythm:"))
}

/// Fails if another key would stay in Redis forever. All messages must have ended.
pub(crate) async fn nothing_left(masters: &[&RedisServer], prefix: &str, message_ttl: Duration) {
    let keys_now = keys(masters, prefix).await;
    assert!(!keys_now.is_empty(), "nothing was ever there: another prefix than {prefix}?");
    let for_ever: Vec<_> =
        keys_now.iter().filter(|(key, left)| left.is_none() && !stays(prefix, key)).collect();
    assert!(for_ever.is_empty(), "these keys never expire: {for_ever:?}");
    shift(masters, prefix, message_ttl + Duration::from_hours(24)).await;
    let left = keys(masters, prefix).await;
    let left: Vec<_> =
        left.iter().filter(|(key, _)| !stays(prefix, key) && !is_of_a_bot(prefix, key)).collect();
    assert!(left.is_empty(), "these keys outlive messages and journals: {left:?}");
}
