//! A search through everything that servers hold.

use super::RedisServer;

/// Looks at the name and the whole content of each key.
const SEARCH: &str = "
local reads = {
  string = function(key) return {redis.call('GET', key)} end,
  hash = function(key) return redis.call('HGETALL', key) end,
  list = function(key) return redis.call('LRANGE', key, 0, -1) end,
  zset = function(key) return redis.call('ZRANGE', key, 0, -1) end,
}
local found = {}
for _, key in ipairs(redis.call('KEYS', '*')) do
  local values = reads[redis.call('TYPE', key).ok](key)
  values[#values + 1] = key
  for _, value in ipairs(values) do
    if string.find(value, ARGV[1], 1, true) then
      found[#found + 1] = key .. ': ' .. value
    end
  end
end
return found";

/// Returns the places of a text on these servers, in names and contents of keys.
pub(crate) async fn find_text(masters: &[&RedisServer], text: &str) -> Vec<String> {
    let mut found = Vec::new();
    for master in masters {
        found.extend(master.command(&["EVAL", SEARCH, "0", text]).await.texts());
    }
    found
}
