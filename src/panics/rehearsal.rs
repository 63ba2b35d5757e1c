//! Panics on purpose, so that the tests of the program see what comes of one.
//!
//! Only in a build with `debug_assertions`, which no profile that is installed from has: elsewhere
//! [`rehearse`] is nothing at all.

/// Panics if a test has asked for that: the file that `PILLION_REHEARSE` names says `place`. Once; the file is
/// gone then.
#[cfg(debug_assertions)]
#[track_caller]
pub fn rehearse(place: &str) {
    use std::{env, fs, path::PathBuf, sync::OnceLock};

    static FILE: OnceLock<Option<PathBuf>> = OnceLock::new();
    let file = FILE.get_or_init(|| env::var_os("PILLION_REHEARSE").map(PathBuf::from));
    if let Some(file) = file
        && fs::read_to_string(file).is_ok_and(|asked| asked == place)
        && fs::remove_file(file).is_ok()
    {
        panic!("rehearsed: {place}");
    }
}

/// Nothing: this is no build for tests.
#[cfg(not(debug_assertions))]
#[inline(always)]
pub const fn rehearse(_: &str) {}
