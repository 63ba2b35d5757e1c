//! How much of the machine a process may have: a control group (version 1) of its own.

use std::{
    fs,
    path::{Path, PathBuf},
};

/// A group, removed with the value. What is in it has to have ended by then.
#[derive(Debug)]
pub(crate) struct Group(PathBuf);

impl Group {
    /// With these files of the controller written.
    ///
    /// # Errors
    /// Why it is not allowed here, for a test that is skipped then.
    pub(crate) fn new(controller: &str, limits: &[(&str, &str)]) -> Result<Self, String> {
        let name = format!("pillion-{}-{}", std::process::id(), fastrand::u32(..));
        let group = Self(Path::new("/sys/fs/cgroup").join(controller).join(name));
        fs::create_dir(&group.0).map_err(|error| format!("{}: {error}", group.0.display()))?;
        for (file, limit) in limits {
            fs::write(group.0.join(file), limit).map_err(|error| format!("{file}: {error}"))?;
        }
        Ok(group)
    }

    /// A file of it.
    pub(crate) fn path(&self, file: &str) -> PathBuf {
        self.0.join(file)
    }

    /// Puts a running process in.
    pub(crate) fn take(&self, process: u32) {
        fs::write(self.0.join("cgroup.procs"), process.to_string()).unwrap();
    }

    /// What a command line is put behind to run in it.
    pub(crate) fn by(&self) -> [String; 3] {
        let enter = format!("echo $$ > {}/cgroup.procs && exec \"$0\" \"$@\"", self.0.display());
        ["sh".to_owned(), "-c".to_owned(), enter]
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        let _ = fs::remove_dir(&self.0);
    }
}
