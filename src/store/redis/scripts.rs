//! The scripts, composed of their parts.
//!
//! Each has a shebang and with it the rules of Redis 7: it is refused as a whole, or runs to its end. No script has
//! `no-writes`, not even one that only reads. A server that became a replica would answer it with old data, and the
//! owner must not continue from that. All but the accept and the write of a rhythm run while Redis is over its memory, so
//! that open messages can end.

use std::sync::LazyLock;

use super::script::RedisScript;

macro_rules! text {
    ($($part:literal)*) => { concat!($(include_str!(concat!("scripts/", $part, ".lua")), "\n",)*) };
}

macro_rules! scripts {
    ($($name:ident = $flags:literal $($part:literal)*;)*) => {
        /// The scripts by name. Their files document arguments and answers.
        #[derive(Debug)]
        pub(super) struct ScriptSet { $(pub(super) $name: RedisScript,)* }

        /// All scripts.
        pub(super) static SCRIPTS: LazyLock<ScriptSet> = LazyLock::new(|| ScriptSet {
            $($name: RedisScript::new(stringify!($name), text(concat!("#!lua", $flags, "\n", text!($($part)*)))),)*
        });
    };
}

scripts! {
    guarded_accept = "" "guard";
    guarded_write = " flags=allow-oom" "guard";
    claim_delivery = " flags=allow-oom" "claim_delivery";
    settle_delivery = " flags=allow-oom" "settle_delivery";
    accept = "" "begin" "limits" "version" "channel" "hint" "partition" "journal" "conversation" "message_value" "activity" "accept";
    message = " flags=allow-oom" "begin" "version" "partition" "journal" "conversation" "message_value" "message";
    page = " flags=allow-oom" "begin" "limits" "version" "channel" "hint" "partition" "journal" "conversation" "message_value" "observe" "page";
    noted = " flags=allow-oom" "begin" "version" "channel" "hint" "observe" "noted";
    state = " flags=allow-oom" "begin" "channel" "hint" "conversation" "state";
    signal = " flags=allow-oom" "begin" "channel" "signal";
    tell = " flags=allow-oom" "begin" "tell";
    claim = " flags=allow-oom" "begin" "claim";
    renew = " flags=allow-oom" "begin" "renew";
    release = " flags=allow-oom" "begin" "fence" "hint" "release";
    ready = " flags=allow-oom" "begin" "fence" "limits" "version" "partition" "conversation" "activity" "ready";
    rest = " flags=allow-oom" "begin" "fence" "limits" "version" "partition" "conversation" "activity" "rest";
    open = " flags=allow-oom" "begin" "fence" "limits" "version" "partition" "journal" "conversation" "message_value" "activity" "cached" "open";
    write = " flags=allow-oom" "begin" "fence" "limits" "version" "channel" "hint" "partition" "journal" "conversation" "message_value" "activity" "cached" "write";
    erase_keys = " flags=allow-oom" "begin" "fence" "partition" "message_owner" "erase_keys";
    erase_members = " flags=allow-oom" "begin" "fence" "partition" "erase_members";
    erase_messages = " flags=allow-oom" "begin" "fence" "partition" "message_owner" "erase_messages";
    erase = " flags=allow-oom" "begin" "fence" "channel" "hint" "partition" "conversation" "erase";
    outbox = " flags=allow-oom" "begin" "fence" "outbox_first" "outbox_queues";
    begin = " flags=allow-oom" "begin" "fence" "outbox_first" "outbox_begin";
    finish = " flags=allow-oom" "begin" "fence" "outbox_first" "outbox_finish";
    redeliver = " flags=allow-oom" "begin" "channel" "hint" "outbox_first" "outbox_redeliver";
    deliveries = " flags=allow-oom" "begin" "outbox_first" "outbox_read";
    backlog = " flags=allow-oom" "begin" "outbox_first" "outbox_backlog";
    endpoints_read = " flags=allow-oom" "begin" "endpoints_read";
    endpoint_report = " flags=allow-oom" "begin" "endpoint_report";
    endpoint_switch = " flags=allow-oom" "begin" "endpoint_switch";
    list = " flags=allow-oom" "begin" "outbox_first" "conversation_filter" "outbox_list";
    index_by_activity = " flags=allow-oom" "begin" "limits" "partition" "conversation" "conversation_filter" "conversation_index" "index_by_activity";
    index_by_name = " flags=allow-oom" "begin" "limits" "partition" "conversation" "conversation_filter" "conversation_index" "index_by_name";
    heartbeat = " flags=allow-oom" "begin" "hint" "heartbeat";
    leave = " flags=allow-oom" "begin" "hint" "leave";
    permit = " flags=allow-oom" "begin" "permit";
    rhythm_read = " flags=allow-oom" "begin" "rhythm_read";
    rhythm_write = "" "begin" "rhythm_write";
    rhythm_forget = " flags=allow-oom" "begin" "rhythm_forget";
    read_token_secret = " flags=allow-oom" "begin" "read_token_secret";
    take_requests = " flags=allow-oom" "begin" "take_requests";
    exists = " flags=allow-oom" "begin" "exists";
    now = " flags=allow-oom" "begin" "now";
}

#[cfg(not(feature = "test-support"))]
fn text(text: &str) -> String {
    text.to_owned()
}

/// Changes the one place where a script reads the time. Its clock is then ahead by the last argument, which is
/// removed from the others.
#[cfg(feature = "test-support")]
fn text(text: &str) -> String {
    let (time, skewed) = ("math.floor(time[2] / 1000)", "math.floor(time[2] / 1000) + table.remove(ARGV)");
    debug_assert!(text.matches(time).count() <= 1, "a script reads the time once");
    text.replace(time, skewed)
}
