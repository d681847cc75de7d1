//! A script and its calls.
//!
//! Each script is one step of the store's contract. The program embeds its scripts, so old and new versions run side
//! by side in a rollout. Redis knows a script by its SHA-1. It gets the text if it does not.

use deadpool_redis::redis::{Arg, Cmd, Script as Hashed, ToRedisArgs};

use crate::store::Fence;

/// The initial capacity of a call, enough for those of a turn.
const ARGUMENTS: usize = 32;
const BYTES: usize = 2048;

/// One script.
#[derive(Debug)]
pub(super) struct RedisScript {
    /// The name for logs.
    pub(super) name: &'static str,
    text: String,
    sha: String,
}

impl RedisScript {
    /// Creates a script with this text.
    pub(super) fn new(name: &'static str, text: String) -> Self {
        let sha = Hashed::new(&text).get_hash().to_owned();
        Self { name, text, sha }
    }

    /// Creates a call with these keys, all of one hash tag.
    pub(super) fn call(&self, keys: &[&str]) -> ScriptCall<'_> {
        let mut cmd = Cmd::with_capacity(ARGUMENTS, BYTES);
        cmd.arg("EVALSHA").arg(&self.sha).arg(keys.len());
        for key in keys {
            cmd.arg(*key);
        }
        ScriptCall { script: self, cmd, durable: false, background: false }
    }
}

/// A call of a script, with its keys and arguments.
pub(super) struct ScriptCall<'a> {
    pub(super) script: &'a RedisScript,
    cmd: Cmd,
    durable: bool,
    background: bool,
}

impl ScriptCall<'_> {
    /// Adds an argument.
    pub(super) fn arg(mut self, arg: impl ToRedisArgs) -> Self {
        self.cmd.arg(arg);
        self
    }

    /// Begins a command for `guard.lua` with this number of words.
    pub(super) fn command(self, words: usize, name: &'static str, key: &str) -> Self {
        self.arg(words).arg(name).arg(key)
    }

    /// Adds the fencing token of an owner.
    pub(super) fn fence(self, fence: Fence) -> Self {
        self.arg(fence.incarnation.to_string()).arg(fence.epoch)
    }

    /// Requires that the configured number of replicas of the store confirm the write.
    pub(super) const fn durable(mut self) -> Self {
        self.durable = true;
        self
    }

    /// Returns whether replicas of the store must confirm the write.
    pub(super) const fn is_durable(&self) -> bool {
        self.durable
    }

    /// Marks one of many calls that go out at once and that no caller waits for. In a cluster they have a connection
    /// of their own. If a node dies, many failures at once would hold up everything on the same connection.
    pub(super) const fn background(mut self) -> Self {
        self.background = true;
        self
    }

    /// Returns whether the call was marked with [`ScriptCall::background`].
    pub(super) const fn is_background(&self) -> bool {
        self.background
    }

    /// Returns the command with the script's hash.
    pub(super) const fn by_hash(&self) -> &Cmd {
        &self.cmd
    }

    /// Returns the command with the script's text, for a server that does not know it.
    pub(super) fn by_text(&self) -> Cmd {
        let mut cmd = Cmd::new();
        cmd.arg("EVAL").arg(&self.script.text);
        for arg in self.cmd.args_iter().skip(2) {
            if let Arg::Simple(bytes) = arg {
                cmd.arg(bytes);
            }
        }
        cmd
    }
}
