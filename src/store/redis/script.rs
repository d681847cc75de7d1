//! A script, and a call of it.
//!
//! Each script is one step of the store's contract. They are embedded, so that old and new binaries run side by
//! side in a rollout, each with its own; Redis knows them by their SHA-1 and is sent the text where it does not.

use deadpool_redis::redis::{Arg, Cmd, Script as Hashed, ToRedisArgs};

use crate::store::Fence;

/// What fits into a call before it has to grow: a turn's do.
const ARGUMENTS: usize = 32;
const BYTES: usize = 2048;

/// One script.
#[derive(Debug)]
pub(super) struct Script {
    /// For logs and metrics.
    pub(super) name: &'static str,
    text: String,
    sha: String,
}

impl Script {
    /// The script of this text.
    pub(super) fn new(name: &'static str, text: String) -> Self {
        let sha = Hashed::new(&text).get_hash().to_owned();
        Self { name, text, sha }
    }

    /// A call with these keys, all of one hash tag.
    pub(super) fn call(&self, keys: &[&str]) -> Call<'_> {
        let mut cmd = Cmd::with_capacity(ARGUMENTS, BYTES);
        cmd.arg("EVALSHA").arg(&self.sha).arg(keys.len());
        for key in keys {
            cmd.arg(*key);
        }
        Call { script: self, cmd, durable: false, aside: false }
    }
}

/// A call of a script, with its keys and arguments.
pub(super) struct Call<'a> {
    pub(super) script: &'a Script,
    cmd: Cmd,
    durable: bool,
    aside: bool,
}

impl Call<'_> {
    /// Adds an argument.
    pub(super) fn arg(mut self, arg: impl ToRedisArgs) -> Self {
        self.cmd.arg(arg);
        self
    }

    /// Adds what an owner proves itself with.
    pub(super) fn fence(self, fence: Fence) -> Self {
        self.arg(fence.incarnation.to_string()).arg(fence.epoch)
    }

    /// What it writes is to be confirmed by as many replicas of the store as are configured.
    pub(super) const fn durable(mut self) -> Self {
        self.durable = true;
        self
    }

    /// Whether [`Call::durable`] was said.
    pub(super) const fn is_durable(&self) -> bool {
        self.durable
    }

    /// It is one of many that are sent at once and that no caller waits for. In a cluster they have a connection of
    /// their own: where a node dies, many failures at once hold up all that goes over the same one.
    pub(super) const fn aside(mut self) -> Self {
        self.aside = true;
        self
    }

    /// Whether [`Call::aside`] was said.
    pub(super) const fn is_aside(&self) -> bool {
        self.aside
    }

    /// By the script's hash.
    pub(super) const fn by_hash(&self) -> &Cmd {
        &self.cmd
    }

    /// With the script's text, for a server that does not know it yet.
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
