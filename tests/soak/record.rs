//! What the program holds, as time goes by, and whether that grows.

use std::{fmt, fs, sync::atomic::Ordering::Relaxed, time::Duration};

use crate::load::Load;
use crate::program::Pillion;

/// Memory that an end may have more than the beginning, in MiB: what an allocator keeps of the busiest
/// moment so far.
const MEMORY: f64 = 8.0;
/// Files that an end may have more: connections to etcd and the watch of it.
const FILES: usize = 4;

/// Tasks that an end may have more: as files.
const TASKS: usize = 8;
/// Looks on the way.
const LOOKS: u32 = 40;

/// At one time.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sample {
    at: Duration,
    /// MiB.
    memory: f64,
    files: usize,
    threads: usize,
    /// Of all threads.
    tasks: usize,
    answered: usize,
    failed: usize,
}

impl Sample {
    pub(crate) async fn of(pillion: &Pillion, load: &Load, at: Duration) -> Self {
        let threads = fs::read_dir(format!("/proc/{}/task", pillion.id())).unwrap();
        Self {
            at,
            memory: pillion.memory().0 as f64 / f64::from(1 << 20),
            files: pillion.open_files(),
            threads: threads.count(),
            tasks: pillion.metrics().await.sum("tasks", &[]) as usize,
            answered: load.answered.load(Relaxed),
            failed: load.failed.load(Relaxed),
        }
    }
}

impl fmt::Display for Sample {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { at, memory, files, threads, tasks, answered, failed } = self;
        let at = at.as_secs();
        write!(f, "{at:>6} s {memory:>8.1} MiB {files:>6} files {threads:>4} threads ")?;
        write!(f, "{tasks:>5} tasks {answered:>9} answered {failed:>6} failed")
    }
}

/// Samples under load.
#[derive(Debug, Default)]
pub(crate) struct Record(Vec<Sample>);

impl Record {
    pub(crate) fn push(&mut self, sample: Sample) {
        self.0.push(sample);
    }

    /// Whether it is time for another look.
    pub(crate) fn is_due(&self, at: Duration, length: Duration) -> bool {
        length / LOOKS * u32::try_from(self.0.len()).unwrap() <= at
    }

    /// MiB by which memory grows over the whole time, by the line that fits the samples best.
    fn growth(&self) -> f64 {
        let count = self.0.len() as f64;
        let mean = |of: &dyn Fn(&Sample) -> f64| self.0.iter().map(of).sum::<f64>() / count;
        let (time, memory) = (mean(&|s| s.at.as_secs_f64()), mean(&|s| s.memory));
        let both = mean(&|s| (s.at.as_secs_f64() - time) * (s.memory - memory));
        let spread = mean(&|s| (s.at.as_secs_f64() - time).powi(2));
        let length = self.0.last().map_or(0.0, |last| last.at.as_secs_f64());
        if spread > 0.0 { both / spread * length } else { 0.0 }
    }

    /// # Panics
    /// When something grows.
    pub(crate) fn judge(&self, before: &Sample, after: &Sample) {
        let growth = self.growth();
        println!("memory under load grew by {growth:.1} MiB, by the line that fits best");
        assert!(growth < MEMORY, "memory under load grew by {growth:.1} MiB");
        let more = after.memory - before.memory;
        assert!(more < MEMORY, "memory at rest grew by {more:.1} MiB");
        assert!(after.files <= before.files + FILES, "files: {} to {}", before.files, after.files);
        assert!(after.threads <= before.threads, "threads: {before} to {after}");
        assert!(after.tasks <= before.tasks + TASKS, "tasks: {before} to {after}");
        assert!(after.answered > before.answered + 1000, "hardly anything was called");
    }
}

impl fmt::Display for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|sample| writeln!(f, "{sample}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(at: u64, memory: f64) -> Sample {
        let at = Duration::from_secs(at);
        let answered = at.as_secs() as usize * 100;
        Sample { at, memory, files: 30, threads: 5, tasks: 40, answered, failed: 0 }
    }

    /// Half an hour with `growth` MiB more at its end, and noise.
    fn half_an_hour(growth: f64) -> Record {
        let at = |n: u32| {
            let noise = f64::from(n * 7 % 5) - 2.0;
            sample(u64::from(n) * 45, 50.0 + noise + growth * f64::from(n) / 40.0)
        };
        Record((0..=40).map(at).collect())
    }

    #[test]
    fn what_goes_up_and_down_does_not_grow() {
        assert!(half_an_hour(0.0).growth().abs() < 1.0);
        half_an_hour(0.0).judge(&sample(0, 48.0), &sample(1800, 49.0));
    }

    #[test]
    #[should_panic(expected = "memory under load grew by 20")]
    fn what_grows_a_little_all_the_time_is_found() {
        half_an_hour(20.0).judge(&sample(0, 48.0), &sample(1800, 49.0));
    }

    #[test]
    #[should_panic(expected = "files")]
    fn files_that_stay_open_are_found() {
        let after = Sample { files: 40, ..sample(1800, 48.0) };
        half_an_hour(0.0).judge(&sample(0, 48.0), &after);
    }

    #[test]
    #[should_panic(expected = "tasks")]
    fn tasks_that_do_not_end_are_found() {
        let after = Sample { tasks: 50, ..sample(1800, 48.0) };
        half_an_hour(0.0).judge(&sample(0, 48.0), &after);
    }
}
