//! The only place that starts threads and runtimes.
//!
//! A shard's sockets are `!Send` (awc), so each shard is a plain thread with a name, a tokio runtime of its
//! own and a [`LocalSet`]; what runs there stays there. A panic ends its thread only; whoever joins it learns
//! of it.

use std::future::Future;
use std::io;
use std::thread::JoinHandle;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::runtime::{Builder, Runtime};
use tokio::task::LocalSet;

/// Starts a thread. Its name shows in debuggers and `top -H`, which cut it to 15 bytes.
///
/// # Errors
/// The system has no more threads to give.
pub fn spawn_named<T: Send + 'static>(
    name: &str,
    run: impl FnOnce() -> T + Send + 'static,
) -> io::Result<JoinHandle<T>> {
    #[expect(clippy::disallowed_methods, reason = "this is the place that starts threads")]
    std::thread::Builder::new().name(name.to_owned()).spawn(run)
}

/// Starts a thread that runs `main` to its end, with `spawn_local` for whatever it starts. The future is made
/// on the thread, so it need not be `Send`; tasks that are left when it ends are dropped there.
///
/// # Errors
/// The system has no more threads, or no more files for the runtime's poller.
pub fn shard_thread<T: Send + 'static>(
    name: &str,
    main: impl AsyncFnOnce() -> T + Send + 'static,
) -> io::Result<JoinHandle<T>> {
    let runtime = current_thread()?;
    spawn_named(name, move || {
        let end = LocalSet::new().block_on(&runtime, main());
        // A look-up of a name may be under way on a thread of the runtime's own. Nobody waits for it any more, and
        // dropping the runtime would, for as long as the resolver does.
        runtime.shutdown_background();
        end
    })
}

/// Runs a future to its end on this thread, with a [`LocalSet`] around it.
///
/// # Errors
/// The system has no more files for the runtime's poller.
pub fn block_on<T>(future: impl Future<Output = T>) -> io::Result<T> {
    let runtime = current_thread()?;
    Ok(LocalSet::new().block_on(&runtime, future))
}

/// Lets this process open as many files as the system allows it to (a socket is a file), and returns how
/// many. Where the system refuses, the limit stays.
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
mod tests {
    use std::rc::Rc;

    use super::*;

    #[test]
    #[expect(clippy::disallowed_methods, reason = "the test looks at what a shard may do")]
    fn a_shard_runs_local_tasks_on_a_thread_of_its_name() {
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
    fn a_panic_reaches_who_joins() {
        assert!(spawn_named("falls", || panic!("on purpose")).unwrap().join().is_err());
    }

    #[test]
    fn the_limit_of_files_rises_to_what_is_allowed() {
        let hard = getrlimit(Resource::Nofile).maximum;
        assert_eq!(raise_open_files().unwrap(), hard.unwrap_or(u64::MAX));
        assert_eq!(getrlimit(Resource::Nofile).current, hard);
    }
}
