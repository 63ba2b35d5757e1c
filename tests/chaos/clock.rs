//! The time of day, as one process sees it: a library that is loaded before the system's, and adds as
//! many seconds as a file says. The clock of the machine is left alone.

use std::{fs, process::Command, time::SystemTime};

use tempfile::TempDir;

const LIBRARY: &str = r#"
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

static volatile long long *seconds;

__attribute__((constructor)) static void begin(void) {
    int file = open(getenv("PILLION_TEST_CLOCK"), O_RDONLY);
    seconds = mmap(0, sizeof *seconds, PROT_READ, MAP_SHARED, file, 0);
}

int clock_gettime(clockid_t clock, struct timespec *now) {
    if (syscall(SYS_clock_gettime, clock, now) != 0) return -1;
    if (clock == CLOCK_REALTIME && seconds) now->tv_sec += *seconds;
    return 0;
}
"#;

/// The clock of a process that is started by [`Self::by`].
#[derive(Debug)]
pub(crate) struct Clock(TempDir);

impl Clock {
    /// Right, as yet.
    pub(crate) fn new() -> Self {
        let clock = Self(tempfile::tempdir().unwrap());
        clock.set(0);
        fs::write(clock.at("clock.c"), LIBRARY).unwrap();
        let mut compiler = Command::new("cc");
        compiler.args(["-shared", "-fPIC", "-o", &clock.at("clock.so"), &clock.at("clock.c")]);
        assert!(compiler.status().unwrap().success(), "a C compiler, as the build needs one");
        clock
    }

    /// What a command line is put behind.
    pub(crate) fn by(&self) -> [String; 3] {
        let library = format!("LD_PRELOAD={}", self.at("clock.so"));
        ["env".to_owned(), library, format!("PILLION_TEST_CLOCK={}", self.at("seconds"))]
    }

    /// Lets it be so many seconds off.
    pub(crate) fn set(&self, seconds: i64) {
        use std::os::unix::fs::FileExt;
        let options = fs::OpenOptions::new().write(true).create(true).truncate(false).clone();
        let file = options.open(self.at("seconds")).unwrap();
        file.write_all_at(&seconds.to_ne_bytes(), 0).unwrap();
    }

    fn at(&self, name: &str) -> String {
        self.0.path().join(name).display().to_string()
    }
}

/// How many seconds the time in a line of JSON is before or after this process's.
pub(crate) fn off(line: &str) -> Option<f64> {
    let line: serde_json::Value = serde_json::from_str(line).ok()?;
    let time = humantime::parse_rfc3339(line["time"].as_str()?).ok()?;
    let now = SystemTime::now();
    Some(match time.duration_since(now) {
        Ok(ahead) => ahead.as_secs_f64(),
        Err(behind) => -behind.duration().as_secs_f64(),
    })
}
