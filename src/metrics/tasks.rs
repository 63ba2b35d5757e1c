//! How many tasks each thread has: one that only grows is a leak, of connections, say.
//!
//! Threads enter themselves by [`Tasks::add`] as they start; the numbers are read at each scrape.

use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
};

use prometheus::{
    IntGaugeVec, Opts,
    core::{Collector, Desc},
    proto::MetricFamily,
};
use tokio::runtime::Handle;

/// The threads that run tasks; cloning shares them.
#[derive(Clone)]
pub struct Tasks {
    gauges: IntGaugeVec,
    threads: Arc<Mutex<Vec<(String, Handle)>>>,
}

impl Tasks {
    pub(super) fn new() -> prometheus::Result<Self> {
        let help = "Tasks that have not ended, of each thread that runs some.";
        let gauges = IntGaugeVec::new(Opts::new(super::full("tasks"), help), &["thread"])?;
        Ok(Self { gauges, threads: Arc::default() })
    }

    /// Counts those of the runtime that this is called on, as those of `thread`.
    pub fn add(&self, thread: &str) {
        let mut threads = self.threads.lock().unwrap_or_else(PoisonError::into_inner);
        threads.push((thread.to_owned(), Handle::current()));
    }
}

impl Collector for Tasks {
    fn desc(&self) -> Vec<&Desc> {
        self.gauges.desc()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        for (thread, runtime) in &*self.threads.lock().unwrap_or_else(PoisonError::into_inner) {
            let alive = runtime.metrics().num_alive_tasks();
            let gauge = self.gauges.with_label_values(&[thread]);
            gauge.set(i64::try_from(alive).unwrap_or(i64::MAX));
        }
        self.gauges.collect()
    }
}

impl fmt::Debug for Tasks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tasks").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_task_counts_until_it_has_ended() {
        let tasks = Tasks::new().unwrap();
        tasks.add("control");
        let alive = || tasks.collect()[0].get_metric()[0].get_gauge().get_value();
        assert_eq!(alive(), 0.0);
        let (end, ended) = tokio::sync::oneshot::channel::<()>();
        let task = tokio::spawn(ended);
        assert_eq!(alive(), 1.0);
        drop(end);
        assert!(task.await.unwrap().is_err());
        assert_eq!(alive(), 0.0);
    }
}
