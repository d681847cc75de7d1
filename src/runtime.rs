//! The only place that starts threads and runtimes.
//!
//! Sockets of actix and awc are `!Send`. So each thread has a name and a tokio runtime of its own, whose tasks never leave
//! it. A [`LocalRuntime`] has one queue of tasks. A `LocalSet` would be a second queue: a task that wakes one of the other
//! queue costs a look at the poller in between.

use std::future::Future;
use std::io;
use std::thread::JoinHandle;
use std::time::Duration;

use futures_util::future::{FutureExt as _, LocalBoxFuture};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::runtime::{Builder, LocalOptions, LocalRuntime};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, timeout_at};

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
pub fn local_thread(name: &str, main: impl AsyncFnOnce() + Send + 'static) -> io::Result<JoinHandle<()>> {
    // A local runtime cannot leave its thread.
    let (ready, started) = std::sync::mpsc::sync_channel(1);
    let thread = spawn_named(name, move || {
        let runtime = match current_thread() {
            Ok(runtime) => runtime,
            Err(error) => return ready.send(Err(error)).unwrap_or_default(),
        };
        ready.send(Ok(())).ok();
        runtime.block_on(main());
        // A DNS lookup may run on a thread of the runtime. Its result has no reader any more, and dropping the runtime
        // would wait for the resolver.
        runtime.shutdown_background();
    })?;
    started.recv().map_err(io::Error::other)??;
    Ok(thread)
}

/// Threads that run tasks of several layers side by side. Tasks of one thread talk without waking another.
#[derive(Debug)]
pub struct WorkerThreads(Vec<WorkerThread>);

#[derive(Debug)]
struct WorkerThread {
    tasks: mpsc::Sender<WorkerTask>,
    thread: JoinHandle<()>,
}

type WorkerTask = Box<dyn FnOnce() -> LocalBoxFuture<'static, ()> + Send>;

/// The poll interval for the end of a thread, which sends no notification.
const POLL: Duration = Duration::from_millis(5);

impl WorkerThreads {
    /// Starts this number of threads. Their names begin with this one.
    ///
    /// # Errors
    /// The system allows no more threads, or no more files for a runtime's poller.
    pub fn start(name: &str, count: usize) -> io::Result<Self> {
        let threads = (0..count).map(|index| {
            let (tasks, mut inbox) = mpsc::channel::<WorkerTask>(1);
            let thread = local_thread(&format!("{name}-{index}"), async move || {
                while let Some(task) = inbox.recv().await {
                    spawn_local(task());
                }
            })?;
            Ok(WorkerThread { tasks, thread })
        });
        threads.collect::<io::Result<_>>().map(Self)
    }

    /// Returns the number of threads.
    pub fn count(&self) -> usize {
        self.0.len()
    }

    /// Runs a task on the thread with this index. The thread creates the task's future, so that need not be `Send`. A panic
    /// ends the task only.
    pub async fn run_on(&self, index: usize, task: impl AsyncFnOnce() + Send + 'static) {
        if let Some(thread) = self.0.get(index) {
            let task = Box::new(move || async move { task().await }.boxed_local());
            thread.tasks.send(task).await.ok();
        }
    }

    /// Ends the threads and their tasks. Returns whether all had ended at `by`.
    pub async fn stop(self, by: Instant) -> bool {
        let (tasks, threads): (Vec<_>, Vec<_>) =
            self.0.into_iter().map(|worker| (worker.tasks, worker.thread)).unzip();
        drop(tasks);
        let ended = async {
            while !threads.iter().all(JoinHandle::is_finished) {
                sleep(POLL).await;
            }
        };
        timeout_at(by, ended).await.is_ok()
    }
}

/// Runs a future to its end on this thread, and lets it use `spawn_local`.
///
/// # Errors
/// The system allows no more files for the runtime's poller.
pub fn block_on<T>(future: impl Future<Output = T>) -> io::Result<T> {
    Ok(current_thread()?.block_on(future))
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

#[expect(clippy::disallowed_methods, reason = "tasks of worker threads end with their thread")]
fn spawn_local(task: impl Future<Output = ()> + 'static) {
    tokio::task::spawn_local(task);
}

fn current_thread() -> io::Result<LocalRuntime> {
    Builder::new_current_thread().enable_all().build_local(LocalOptions::default())
}

#[cfg(test)]
pub(crate) mod fixtures {
    use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};

    use socket2::{Domain, Socket, Type};
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

    /// An address of loopback that answers no SYN of one port: the queue of its listener is full.
    pub(crate) struct DeadAddress {
        pub(crate) address: SocketAddr,
        _listener: Socket,
        _queued: Vec<TcpStream>,
    }

    impl DeadAddress {
        /// Makes `127.0.0.{last}` dead for this port.
        pub(crate) fn new(last: u8, port: u16) -> Self {
            let address = SocketAddr::from((Ipv4Addr::new(127, 0, 0, last), port));
            let listener = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
            listener.bind(&address.into()).unwrap();
            listener.listen(0).unwrap();
            let address = TcpListener::from(listener.try_clone().unwrap()).local_addr().unwrap();
            let mut queued = Vec::new();
            // The kernel takes one or two connections into a queue of length 0.
            while let Some(stream) = Self::fill(address) {
                queued.push(stream);
            }
            Self { address, _listener: listener, _queued: queued }
        }

        fn fill(address: SocketAddr) -> Option<TcpStream> {
            match TcpStream::connect_timeout(&address, Duration::from_millis(100)) {
                Ok(stream) => Some(stream),
                Err(error) => {
                    assert_eq!(error.kind(), io::ErrorKind::TimedOut);
                    None
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::rc::Rc;

    use super::*;

    #[test]
    #[expect(clippy::disallowed_methods, reason = "the test looks at what a shard may do")]
    fn shard_runs_local_tasks_on_its_named_thread() {
        let (answer, answered) = std::sync::mpsc::sync_channel(1);
        let shard = local_thread("shard-7", async move || {
            let local = Rc::new(7);
            let task = tokio::task::spawn_local({
                let local = Rc::clone(&local);
                async move { *local }
            });
            let name = std::thread::current().name().map(str::to_owned);
            answer.send((task.await.unwrap(), name)).unwrap();
        });
        shard.unwrap().join().unwrap();
        assert_eq!(answered.recv(), Ok((7, Some("shard-7".to_owned()))));
    }

    #[test]
    fn worker_task_panics_and_other_tasks_of_its_thread_go_on() {
        block_on(async {
            let workers = WorkerThreads::start("worker", 2).unwrap();
            workers.run_on(1, async || panic!("on purpose")).await;
            let (answer, mut answers) = mpsc::channel(1);
            let held = answer.clone();
            workers.run_on(1, async move || held.closed().await).await;
            let name = async move || {
                let name = std::thread::current().name().map(str::to_owned);
                answer.send(name).await.unwrap();
            };
            workers.run_on(1, name).await;
            assert_eq!(answers.recv().await.unwrap().as_deref(), Some("worker-1"));
            assert!(workers.stop(Instant::now() + Duration::from_mins(1)).await, "the threads end");
            assert_eq!(answers.recv().await, None, "the tasks end with their thread");
        })
        .unwrap();
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
