//! The languages of the receivers in docs/getting-started.md.

use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::{Arc, Mutex};

use crate::support::{free_port, until};

const PAGE: &str = include_str!("../../docs/getting-started.md");
/// The port of the receivers in docs/getting-started.md.
const PORT: &str = "9099";

/// A language with a documented receiver.
pub(super) struct ReceiverLanguage {
    pub(super) name: &'static str,
    /// The interpreter.
    program: &'static str,
    /// The start of its code block on that page.
    fence: &'static str,
    /// The extension of its files.
    extension: &'static str,
    /// A script that signs with the library. Its arguments are secret, id, seconds since 1970, and body.
    sign: &'static str,
}

pub(super) static PYTHON: ReceiverLanguage = ReceiverLanguage {
    name: "python",
    program: "python3",
    fence: "```python\n",
    extension: "py",
    sign: "\
import sys
from datetime import datetime, timezone
from standardwebhooks import Webhook
secret, id, at, body = sys.argv[1:]
print(Webhook(secret).sign(id, datetime.fromtimestamp(int(at), tz=timezone.utc), body))
",
};

pub(super) static NODE: ReceiverLanguage = ReceiverLanguage {
    name: "node",
    program: "node",
    fence: "```js\n",
    extension: "mjs",
    sign: "\
import { Webhook } from 'standardwebhooks';
const [secret, id, at, body] = process.argv.slice(2);
console.log(new Webhook(secret).sign(id, new Date(at * 1000), body));
",
};

/// A running receiver. It is killed when it is dropped.
pub(super) struct ReceiverProcess {
    child: Child,
    out: Arc<Mutex<BufReader<ChildStdout>>>,
    script: PathBuf,
    pub(super) address: SocketAddr,
}

impl ReceiverLanguage {
    /// Starts the documented receiver on a free port.
    pub(super) async fn receiver(&'static self, secret: &str) -> ReceiverProcess {
        let (_, rest) = PAGE.split_once(self.fence).expect("the page has a receiver in it");
        let (code, _) = rest.split_once("```").unwrap();
        assert!(code.contains(PORT), "{}: it listens where the page says", self.name);
        let port = free_port();
        let script = self.write(&format!("receiver-{port}"), &code.replace(PORT, &port.to_string()));
        let mut child =
            self.command(&script).env("WEBHOOK_SECRET", secret).stdout(Stdio::piped()).spawn().unwrap();
        let out = Arc::new(Mutex::new(BufReader::new(child.stdout.take().unwrap())));
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        let receiver = ReceiverProcess { child, out, script, address };
        until("the receiver listens", async || tokio::net::TcpStream::connect(address).await.is_ok()).await;
        receiver
    }

    /// Returns the signature by the library.
    pub(super) fn sign(&self, secret: &str, id: &str, at: u64, body: &str) -> String {
        let script = self.write("sign", self.sign);
        let output = self.command(&script).args([secret, id, &at.to_string(), body]).output().unwrap();
        assert!(output.status.success(), "{}: {}", self.name, String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }

    /// Returns the directory where `scripts/test receivers` installs the library. Node looks for it beside the script.
    fn home(&self) -> PathBuf {
        let home = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/receivers").join(self.name);
        assert!(home.is_dir(), "{} is not there: run scripts/test receivers", home.display());
        home
    }

    fn write(&self, name: &str, code: &str) -> PathBuf {
        let script = self.home().join(name).with_extension(self.extension);
        std::fs::write(&script, code).unwrap();
        script
    }

    fn command(&self, script: &Path) -> Command {
        let mut command = Command::new(self.program);
        command.arg(script).env("PYTHONPATH", self.home()).env("PYTHONUTF8", "1").stdin(Stdio::null());
        command
    }
}

impl ReceiverProcess {
    /// Waits for the next line of its output and returns it.
    pub(super) async fn line(&mut self) -> String {
        let out = Arc::clone(&self.out);
        let next = move || {
            let mut line = String::new();
            assert_ne!(out.lock().unwrap().read_line(&mut line).unwrap(), 0, "the receiver has ended");
            line.trim().to_owned()
        };
        tokio::task::spawn_blocking(next).await.unwrap()
    }
}

impl Drop for ReceiverProcess {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
        std::fs::remove_file(&self.script).ok();
    }
}
