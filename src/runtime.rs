//! The only place that starts threads and runtimes.
//!
//! A shard's sockets are `!Send` (awc). So each shard is a named thread with a tokio runtime of its own and a
//! [`LocalSet`]. Its tasks never leave it. A panic ends only its thread, and joining the thread returns it.

use std::future::Future;
use std::io;
use std::thread::JoinHandle;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::runtime::{Builder, Runtime};
use tokio::task::LocalSet;

/// Starts a thread. Debuggers and `top -H` show the first 15 bytes of its name.
///
/// # Errors
/// The system allows no more threads.
pub fn spawn_named<T: Send + 'static>(
    name: &str,
    run: impl FnOnce() -> T + Send + 'static,
) -> io::Result<JoinHandle<T>> {
    #[expect(clippy::disallowed_methods, reason = "this is the place that starts threads")]
    std::thread::Builder::new().name(name.to_owned()).spawn(run)
}

/// Starts a thread that runs `main` to its end, and lets it use `spawn_local`. The thread creates the future, so it
/// need not be `Send`. Tasks that remain at the end are dropped there.
///
/// # Errors
/// The system allows no more threads, or no more files for the runtime's poller.
pub fn shard_thread<T: Send + 'static>(
    name: &str,
    main: impl AsyncFnOnce() -> T + Send + 'static,
) -> io::Result<JoinHandle<T>> {
    let runtime = current_thread()?;
    spawn_named(name, move || {
        let end = LocalSet::new().block_on(&runtime, main());
        // A DNS lookup may run on a thread of the runtime. Its result has no reader any more, and dropping the runtime
        // would wait for the resolver.
        runtime.shutdown_background();
        end
    })
}

/// Runs a future to its end on this thread, inside a [`LocalSet`].
///
/// # Errors
/// The system allows no more files for the runtime's poller.
pub fn block_on<T>(future: impl Future<Output = T>) -> io::Result<T> {
    let runtime = current_thread()?;
    Ok(LocalSet::new().block_on(&runtime, future))
}

/// Raises the limit of open files (sockets included) to the maximum of the system, and returns it. A refusal leaves the
/// limit as it was.
///
/// # Errors
/// The system refuses to change the limit.
pub fn raise_open_files() -> io::Result<u64> {
    let limit = getrlimit(Resource::Nofile);
    if limit.current != limit.maximum {
        setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit })?;
    }
    Ok(limit.maximum.unwrap_or(u64::MAX))
}

fn current_thread() -> io::Result<Runtime> {
    Builder::new_current_thread().enable_all().build()
}

#[cfg(test)]
pub(crate) mod fixtures {
    use std::time::Duration;

    use tokio::time::timeout;

    use super::*;

    /// Runs a test on a runtime like that of a shard, with a timeout.
    pub(crate) fn run<T>(test: impl Future<Output = T>) -> T {
        block_on(async { timeout(Duration::from_mins(1), test).await.expect("the test hangs") }).unwrap()
    }

    /// Starts a task that runs beside the test.
    #[expect(clippy::disallowed_methods, reason = "the peer of the test needs no owner")]
    pub(crate) fn spawn(task: impl Future<Output = ()> + 'static) {
        tokio::task::spawn_local(task);
    }
}

#[cfg(test)]
mod tests {
    use std::rc::Rc;

    use super::*;

    #[test]
    #[expect(clippy::disallowed_methods, reason = "the test looks at what a shard may do")]
    fn shard_runs_local_tasks_on_its_named_thread() {
        let shard = shard_thread("shard-7", async || {
            let local = Rc::new(7);
            let task = tokio::task::spawn_local({
                let local = Rc::clone(&local);
                async move { *local }
            });
            let name = std::thread::current().name().map(str::to_owned);
            (task.await.unwrap(), name)
        });
        assert_eq!(shard.unwrap().join().unwrap(), (7, Some("shard-7".to_owned())));
    }

    #[test]
    fn panic_reaches_the_joining_thread() {
        assert!(spawn_named("falls", || panic!("on purpose")).unwrap().join().is_err());
    }

    #[test]
    fn file_limit_rises_to_the_maximum() {
        let hard = getrlimit(Resource::Nofile).maximum;
        assert_eq!(raise_open_files().unwrap(), hard.unwrap_or(u64::MAX));
        assert_eq!(getrlimit(Resource::Nofile).current, hard);
    }
}
