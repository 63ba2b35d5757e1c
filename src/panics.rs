//! A panic ends what it happened in, and nothing else.
//!
//! Whoever runs a task has it polled by [`caught`], [`Caught`] or [`again`], which say which kind of task it
//! is. [`watch`] has every panic of the process logged with its place and counted, once, whoever catches it;
//! [`counts`] is what Prometheus scrapes. What a task holds is given back as it unwinds, by the `Drop` of
//! what holds it: a count that goes up and down needs a guard.

mod rehearsal;

use std::{
    backtrace::{Backtrace, BacktraceStatus},
    cell::Cell,
    future::Future,
    mem,
    panic::{self, AssertUnwindSafe, PanicHookInfo, catch_unwind},
    pin::Pin,
    sync::{
        Once,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    task::{Context, Poll},
    time::Duration,
};

pub use rehearsal::rehearse;

/// Wait before a task that panicked begins again: one that always does must not be all that the thread does.
const PAUSE: Duration = Duration::from_millis(500);

macro_rules! tasks {
    ($($(#[$doc:meta])* $name:ident = $text:literal,)*) => {
        /// What was going on when something panicked.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Task {
            $($(#[$doc])* $name,)*
        }

        impl Task {
            const ALL: &[Self] = &[$(Self::$name),*];

            /// Value of the metric label `task`.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }
        }
    };
}

tasks! {
    /// A call: it ends with `internal`.
    Call = "call",
    /// A connection of an application: it is closed.
    Connection = "connection",
    /// A connection to an endpoint, or the way to one: it is closed.
    Upstream = "upstream",
    /// What a worker does for all its connections: it goes on.
    Worker = "worker",
    /// Accepting connections of applications: it goes on.
    Accept = "accept",
    /// A connection of an operator: it is closed; or accepting them, which goes on.
    Admin = "admin",
    /// Learning of endpoints: it begins again.
    Discovery = "discovery",
    /// Keeping a registration: it begins again.
    Registration = "registration",
    /// Following live policy: it begins again.
    Policy = "policy",
    /// Finding out which endpoints are well: it goes on.
    Health = "health",
    /// Reading the configuration again: what was in force stays, the next time is as good as any.
    Reload = "reload",
    /// Reading certificates again: those that are in use stay.
    Tls = "tls",
    /// Looking at the memory: it goes on.
    Memory = "memory",
    /// Anything else.
    Other = "other",
}

/// Something panicked. It has been logged and counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Panicked;

static COUNTS: [AtomicU64; Task::ALL.len()] = [const { AtomicU64::new(0) }; Task::ALL.len()];

thread_local! {
    static TASK: Cell<Task> = const { Cell::new(Task::Other) };
}

/// Has every panic of this process logged and counted, from now on.
pub fn watch() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let before = panic::take_hook();
        panic::set_hook(Box::new(move |panic| {
            let task = TASK.get();
            COUNTS[task as usize].fetch_add(1, Relaxed);
            match tracing::enabled!(tracing::Level::ERROR) {
                true => tell(task, panic),
                // Who does not want to hear of errors, or a fuzzer, which takes it from here.
                false => before(panic),
            }
        }));
    });
}

/// Panics since the start of the process, by kind of task.
pub fn counts() -> impl Iterator<Item = (Task, u64)> {
    Task::ALL.iter().zip(&COUNTS).map(|(task, count)| (*task, count.load(Relaxed)))
}

fn tell(task: Task, panic: &PanicHookInfo<'_>) {
    let at = panic.location().map(ToString::to_string).unwrap_or_default();
    let thread = std::thread::current();
    let (thread, task) = (thread.name().unwrap_or_default(), task.as_str());
    let payload = panic.payload();
    let text = payload.downcast_ref::<String>().map(String::as_str);
    let message = text.or_else(|| payload.downcast_ref::<&str>().copied()).unwrap_or("no message");
    // With RUST_BACKTRACE only.
    let trace = Backtrace::capture();
    let trace = (trace.status() == BacktraceStatus::Captured).then(|| trace.to_string());
    tracing::error!(task, at, thread, trace, "a mistake in pillion, please report it: {message}");
}

/// Does a piece of `task`. What it had borrowed may be left half done: a caller that goes on with it has to
/// be able to.
///
/// # Errors
/// [`Panicked`].
#[inline]
pub fn caught<T>(task: Task, work: impl FnOnce() -> T) -> Result<T, Panicked> {
    let before = TASK.replace(task);
    // Put in its place from within: what `catch_unwind` gives back is moved about, and a call is large.
    let mut done = Err(Panicked);
    let thrown = catch_unwind(AssertUnwindSafe(|| done = Ok(work())));
    TASK.set(before);
    if let Err(payload) = thrown {
        // To drop what was thrown could panic, too.
        mem::forget(payload);
    }
    done
}

pin_project_lite::pin_project! {
    /// A future whose panic ends it.
    #[derive(Debug)]
    #[must_use = "futures do nothing unless polled"]
    pub struct Caught<F> {
        task: Task,
        #[pin]
        future: F,
    }
}

impl<F> Caught<F> {
    /// `future`, as a piece of `task`.
    pub const fn new(task: Task, future: F) -> Self {
        Self { task, future }
    }
}

impl<F: Future> Future for Caught<F> {
    type Output = Result<F::Output, Panicked>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        match caught(*this.task, || this.future.poll(cx)) {
            Ok(polled) => polled.map(Ok),
            Err(panicked) => Poll::Ready(Err(panicked)),
        }
    }
}

/// Does what `begin` makes, and begins again, after a moment, when it panics.
pub async fn again<F: Future>(task: Task, mut begin: impl FnMut() -> F) -> F::Output {
    loop {
        match Caught::new(task, begin()).await {
            Ok(done) => return done,
            Err(Panicked) => pause(task).await,
        }
    }
}

/// The same for what goes on with the state that the panic has left.
pub async fn go_on<T>(task: Task, mut work: impl AsyncFnMut() -> T) -> T {
    loop {
        match Caught::new(task, work()).await {
            Ok(done) => return done,
            Err(Panicked) => pause(task).await,
        }
    }
}

/// What to wait before `task` goes on after a panic.
pub async fn pause(task: Task) {
    tokio::time::sleep(PAUSE).await;
    tracing::warn!(task = task.as_str(), "goes on after a panic");
}

#[cfg(test)]
mod tests {
    use std::rc::Rc;

    use super::*;

    fn count(task: Task) -> u64 {
        counts().find(|(of, _)| *of == task).unwrap().1
    }

    #[test]
    fn a_panic_is_caught_and_what_was_held_is_given_back() {
        let held = Rc::new(());
        let inner = Rc::clone(&held);
        let done = caught(Task::Call, || {
            let _held = inner;
            panic!("on purpose");
        });
        assert_eq!(done, Err::<(), _>(Panicked));
        assert_eq!(Rc::strong_count(&held), 1);
        assert_eq!(caught(Task::Call, || 3), Ok(3));
        assert_eq!(TASK.get(), Task::Other);
    }

    #[tokio::test(start_paused = true)]
    async fn what_panics_begins_again_after_a_moment() {
        let mut times = 0;
        let began = tokio::time::Instant::now();
        let last = go_on(Task::Policy, async || {
            times += 1;
            assert!(times > 3, "on purpose");
            times
        });
        assert_eq!(last.await, 4);
        assert_eq!(began.elapsed(), 3 * PAUSE);
        let mut times = 0;
        let last = again(Task::Policy, || {
            times += 1;
            async move { if times == 1 { panic!("on purpose") } else { times } }
        });
        assert_eq!(last.await, 2);
    }

    #[test]
    fn a_panic_while_another_unwinds_is_caught_too() {
        struct Reports;
        impl Drop for Reports {
            fn drop(&mut self) {
                assert_eq!(caught(Task::Other, || panic!("within")), Err::<(), _>(Panicked));
            }
        }
        let done = caught(Task::Other, || {
            let _reports = Reports;
            panic!("without");
        });
        assert_eq!(done, Err::<(), _>(Panicked));
    }

    #[test]
    fn each_kind_is_counted_by_itself() {
        watch();
        let (memory, reload) = (count(Task::Memory), count(Task::Reload));
        let _ = caught(Task::Memory, || panic!("on purpose"));
        assert_eq!((count(Task::Memory), count(Task::Reload)), (memory + 1, reload));
    }
}
