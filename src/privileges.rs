//! What the process may do, which is to become less as it starts.
//!
//! [`crate::app`] calls [`harden`] first, [`wanted`] before it binds a socket, and [`give_up`] right after,
//! before there is another thread. From there on root cannot be had again.

use std::{
    fs::{self, DirBuilder, File},
    io,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
};

use nix::unistd::{AccessFlags, Uid, access, getegid, geteuid, setgroups, setresgid, setresuid};
use rustix::{
    process::{DumpableBehavior, Resource, Rlimit, getrlimit, set_dumpable_behavior, setrlimit},
    thread::{capabilities, set_no_new_privs},
};

use crate::account::Account;

/// Why the process does not run as it is told to.
#[derive(Debug, thiserror::Error)]
pub enum PrivilegeError {
    /// Only root becomes somebody else.
    #[error(
        "`user` is {wanted:?}, and only root can become that: this is user {is}; start it as root, start it \
         as {wanted:?}, or leave `user` out"
    )]
    NotRoot {
        /// Who it is to be.
        wanted: String,
        /// Who it is.
        is: Uid,
    },
    /// The system does not let it.
    #[error("cannot become user {user:?}: {step}: {why}")]
    Refused {
        /// Who it is to be.
        user: String,
        /// What failed.
        step: &'static str,
        /// What the system says.
        why: io::Error,
    },
    /// It is not root any more, and could be again.
    #[error("user {user:?} could become root again: {how}")]
    Regained {
        /// Who it is.
        user: String,
        /// By what.
        how: &'static str,
    },
    /// It could not go on as it has begun.
    #[error("user {user:?} cannot use what is needed later, too: {}", .files.join("; "))]
    Files {
        /// Who it is.
        user: String,
        /// Each file, and why not.
        files: Vec<String>,
    },
}

/// Gives up what no program of this kind needs, whoever runs it: an image of its memory on disk, where calls
/// and keys are in it, and more rights by a file that it executes.
pub fn harden() {
    let none = Rlimit { current: Some(0), maximum: Some(0) };
    // Whoever forbids the call has done that already.
    if getrlimit(Resource::Core) != none
        && let Err(error) = setrlimit(Resource::Core, none)
    {
        tracing::warn!(%error, "cannot forbid images of the memory (cores)");
    }
    if let Err(error) = set_no_new_privs(true) {
        tracing::warn!(%error, "cannot forbid new privileges");
    }
}

/// Whom the process is to become: none where it is to stay who it is.
///
/// # Errors
/// [`PrivilegeError::NotRoot`]
pub fn wanted(account: Option<Account>) -> Result<Option<Account>, PrivilegeError> {
    let is = geteuid();
    match account {
        None if is.is_root() => {
            tracing::warn!(
                "runs as root, which it does not need: name a `user` in the configuration, or start it as one"
            );
            Ok(None)
        }
        None => Ok(None),
        // Whoever says so means it.
        Some(account) if account.uid.is_root() => Ok(None),
        Some(account) if is.is_root() => Ok(Some(account)),
        Some(account) if account.uid == is && account.groups.contains(&getegid()) => Ok(None),
        Some(account) => Err(PrivilegeError::NotRoot { wanted: account.name, is }),
    }
}

/// Becomes `account`, for good.
///
/// # Errors
/// [`PrivilegeError`]; the process must end then, for it may be half of one and half of the other.
pub fn give_up(account: &Account) -> Result<(), PrivilegeError> {
    let Account { name, uid, gid, groups } = account;
    let failed = |step| {
        move |errno: nix::Error| PrivilegeError::Refused {
            user: name.clone(),
            step,
            why: errno.into(),
        }
    };
    // In this order: who is not root any more may change neither.
    setgroups(groups).map_err(failed("setgroups"))?;
    setresgid(*gid, *gid, *gid).map_err(failed("setresgid"))?;
    setresuid(*uid, *uid, *uid).map_err(failed("setresuid"))?;
    is_for_good(name)?;
    // Keys that only root may read are in the memory; who runs as this user must not read them there.
    let not_dumpable = set_dumpable_behavior(DumpableBehavior::NotDumpable);
    not_dumpable.map_err(|why| PrivilegeError::Refused {
        user: name.clone(),
        step: "PR_SET_DUMPABLE",
        why: why.into(),
    })?;
    tracing::info!(user = name, %uid, %gid, "has given up root");
    Ok(())
}

fn is_for_good(user: &str) -> Result<(), PrivilegeError> {
    let regained = |how| Err(PrivilegeError::Regained { user: user.to_owned(), how });
    let root = Uid::from_raw(0);
    if setresuid(root, root, root).is_ok() || nix::unistd::seteuid(root).is_ok() {
        return regained("setuid succeeds");
    }
    match capabilities(None) {
        Ok(sets) if sets.permitted.is_empty() && sets.effective.is_empty() => Ok(()),
        Ok(_) => regained("capabilities are left"),
        Err(_) => regained("its capabilities are not known"),
    }
}

/// Looks whether the user that this has become may read `files`, each of which has a name, and write into
/// `folder`, which is made where it is missing.
///
/// # Errors
/// [`PrivilegeError::Files`] names all that it may not.
pub fn can_use<'a>(
    account: &Account,
    files: impl IntoIterator<Item = (&'a str, PathBuf)>,
    folder: Option<&Path>,
) -> Result<(), PrivilegeError> {
    let denied = |error: &io::Error| error.kind() == io::ErrorKind::PermissionDenied;
    let unreadable = files.into_iter().filter_map(|(name, path)| {
        // One that is missing or wrong is told of where it is read.
        let error = File::open(&path).err().filter(denied)?;
        Some(format!("{name} = {}: {error}", path.display()))
    });
    let mut files: Vec<_> = unreadable.collect();
    if let Some(folder) = folder
        && let Err(error) = is_writable(folder)
    {
        files.push(format!("state_dir = {}: cannot be written: {error}", folder.display()));
    }
    if files.is_empty() {
        return Ok(());
    }
    Err(PrivilegeError::Files { user: account.name.clone(), files })
}

fn is_writable(folder: &Path) -> io::Result<()> {
    if fs::symlink_metadata(folder).is_err_and(|error| error.kind() == io::ErrorKind::NotFound) {
        DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    }
    Ok(access(folder, AccessFlags::W_OK | AccessFlags::X_OK)?)
}
