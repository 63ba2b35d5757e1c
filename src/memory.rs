//! How full the memory of the process is, and what is refused for that.
//!
//! The control thread looks ([`Memory::watch`]); workers and listeners ask for the [`Stage`], which costs
//! one load. Each stage comes earlier than the kernel would, which ends the process with all its calls.

mod bounds;

use std::{
    fs::File,
    hint::black_box,
    os::unix::fs::FileExt,
    sync::{
        Arc,
        atomic::{AtomicU8, AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use nix::unistd::{SysconfVar, sysconf};
use tokio::{
    sync::watch,
    time::{Instant, sleep},
};

use crate::{metrics::Metrics, panics::rehearse};

/// Between two looks, and where more than half of the memory is in use.
const LOOK: Duration = Duration::from_millis(250);
const CLOSE_LOOK: Duration = Duration::from_millis(50);
/// Looks of the last stage between two times that connections are ended: what they held has to be given
/// back first.
const PATIENCE: u32 = 4;
/// Looks after which it is known what applications hold.
const KNOWN: u32 = 8;
/// Between two times that the allocator is made to give back what is free: it keeps what it has for a second.
const GIVE_BACK: Duration = Duration::from_secs(1);
/// A block so large that the allocator has no place for it among others. Not larger: where it lies when the allocator
/// looks, nothing is given back.
const LARGE: usize = 640 << 10;
/// They hold so little, as a part of the memory, that to refuse them would not help.
const LITTLE: u64 = 8;

/// What is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// Nothing.
    Calm,
    /// New calls.
    Calls,
    /// New connections, too.
    Connections,
    /// The connections that hold most are ended.
    Heaviest,
}

impl Stage {
    const ALL: [Self; 4] = [Self::Calm, Self::Calls, Self::Connections, Self::Heaviest];

    /// Share of the memory, in percent, from which on the stage is reached. It is left below five less.
    const fn begins(self) -> u64 {
        match self {
            Self::Calm => 0,
            Self::Calls => 80,
            Self::Connections => 88,
            Self::Heaviest => 94,
        }
    }

    /// The stage after this one, once `used` of `most` bytes are in use.
    fn next(self, used: u64, most: u64) -> Self {
        let percent = used.saturating_mul(100) / most.max(1);
        let is_in = |stage: &&Self| {
            let held = if **stage <= self { 5 } else { 0 };
            percent + held >= stage.begins()
        };
        Self::ALL.iter().rev().find(is_in).copied().unwrap_or(Self::Calm)
    }
}

/// The memory of the process, shared by all its threads.
#[derive(Clone, Debug)]
pub struct Memory(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    stage: AtomicU8,
    /// What the workers say that applications hold, in bytes.
    held: AtomicU64,
    relief: watch::Sender<Relief>,
}

/// What the workers are asked for while the memory is full.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Relief {
    /// Whether the heaviest connections are to be ended, too.
    pub heaviest: bool,
}

impl Default for Memory {
    fn default() -> Self {
        Self(Arc::new(Shared {
            stage: AtomicU8::new(0),
            held: AtomicU64::new(0),
            relief: watch::Sender::new(Relief::default()),
        }))
    }
}

impl Memory {
    /// What is refused now.
    pub fn stage(&self) -> Stage {
        Stage::ALL[usize::from(self.0.stage.load(Relaxed)) % Stage::ALL.len()]
    }

    /// Changes each time that a worker is to say what its connections hold.
    pub fn relief(&self) -> watch::Receiver<Relief> {
        self.0.relief.subscribe()
    }

    /// Says what the connections of a worker hold, in bytes.
    pub fn is_held(&self, bytes: u64) {
        self.0.held.fetch_add(bytes, Relaxed);
    }

    /// Looks for as long as the process runs. `most` is what it may use, in bytes; it gets less where its
    /// control group has less.
    pub async fn watch(&self, most: impl Fn() -> u64, metrics: &Metrics) {
        let Ok(statm) = File::open("/proc/self/statm") else {
            return tracing::warn!("/proc/self/statm cannot be read: max_memory is without effect");
        };
        let (page, group) = (page_size(), bounds::of_control_group());
        let (mut full, mut last) = (0u32, Stage::Calm);
        let mut given_back = Instant::now();
        loop {
            rehearse("memory");
            let most = group.map_or_else(&most, |group| most().min(group));
            let used = resident(&statm).unwrap_or(0) * page;
            last = last.next(used, most);
            full = if last == Stage::Calm { 0 } else { full.saturating_add(1) };
            // An allocator may keep what was given back to it, and a registry may be large. To refuse calls
            // and connections would then help nobody.
            let is_little = self.0.held.swap(0, Relaxed) < most / LITTLE;
            let stage = if full > KNOWN && is_little { Stage::Calm } else { last };
            if given_back.elapsed() >= GIVE_BACK {
                given_back = Instant::now();
                give_back();
            }
            self.enter(stage, used, most);
            metrics.set_memory(most, stage as u8);
            if full > 0 {
                let heaviest = stage == Stage::Heaviest && full % PATIENCE == 1;
                self.0.relief.send_replace(Relief { heaviest });
            }
            sleep(if used > most / 2 { CLOSE_LOOK } else { LOOK }).await;
        }
    }

    fn enter(&self, stage: Stage, used: u64, most: u64) {
        if self.0.stage.swap(stage as u8, Relaxed) != stage as u8 {
            let (used, most) = (used >> 20, most >> 20);
            tracing::warn!(
                ?stage,
                "{used} MiB of memory are in use, of {most} MiB; see max_memory"
            );
        }
    }
}

/// Has the allocator give back what has been free for a second. mimalloc only looks where something large comes
/// or goes: after a flood nothing does.
fn give_back() {
    // Never touched, so that it takes no memory itself.
    drop(black_box(Vec::<u8>::with_capacity(LARGE)));
}

/// Bytes of a page.
fn page_size() -> u64 {
    // 4 KiB, where the system does not say: that is what nearly all have.
    let said = sysconf(SysconfVar::PAGE_SIZE).ok().flatten();
    said.and_then(|bytes| u64::try_from(bytes).ok()).unwrap_or(4 << 10)
}

/// Pages in memory: the second number of statm, proc(5).
fn resident(statm: &File) -> Option<u64> {
    let mut text = [0; 128];
    let length = statm.read_at(&mut text, 0).ok()?;
    str::from_utf8(&text[..length]).ok()?.split(' ').nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stage_is_reached_at_its_share_and_left_five_percent_below() {
        let mut stage = Stage::Calm;
        let seen = [79, 80, 76, 75, 74, 93, 94, 90, 88, 84, 83, 82, 74, 200, 0].map(|used| {
            stage = stage.next(used, 100);
            stage
        });
        use Stage::{Calls, Calm, Connections, Heaviest};
        assert_eq!(
            seen,
            [
                Calm,
                Calls,
                Calls,
                Calls,
                Calm,
                Connections,
                Heaviest,
                Heaviest,
                Connections,
                Connections,
                Connections,
                Calls,
                Calm,
                Heaviest,
                Calm
            ]
        );
    }

    #[test]
    fn the_memory_of_a_process_is_known() {
        let statm = File::open("/proc/self/statm").unwrap();
        assert!(resident(&statm).unwrap() * page_size() > 1 << 20);
    }
}
