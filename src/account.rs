//! Users and groups of this machine, as a configuration or a flag names them.

use std::{ffi::CString, io};

use nix::unistd::{Gid, Group, Uid, User, getgrouplist};

/// A user to run as, with the groups that come with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Account {
    /// As it was named.
    pub name: String,
    /// The user.
    pub uid: Uid,
    /// Its group.
    pub gid: Gid,
    /// All its groups.
    pub groups: Vec<Gid>,
}

/// Why there is no such account.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AccountError {
    /// No user is called so.
    #[error("{0:?} is no user of this machine; allowed: a name from `getent passwd`, or a number")]
    NoUser(String),
    /// No group is called so.
    #[error("{0:?} is no group of this machine; allowed: a name from `getent group`, or a number")]
    NoGroup(String),
    /// It is a number only, which comes with no group.
    #[error("user {0} is in no list of users, so that its group is not known: `group` is needed")]
    GroupMissing(Uid),
    /// A group without a user would leave all of root's rights.
    #[error("`group` needs `user` beside it")]
    UserMissing,
    /// The system's lists cannot be read.
    #[error("{name:?} cannot be looked up: {why}")]
    System {
        /// Of whom.
        name: String,
        /// What the system says.
        why: String,
    },
}

impl Account {
    /// The account of `user`, with `group` in the place of its own unless that is empty. Both are names or
    /// numbers. None where both are empty.
    ///
    /// # Errors
    /// [`AccountError`]
    pub fn find(user: &str, group: &str) -> Result<Option<Self>, AccountError> {
        if user.is_empty() {
            return if group.is_empty() { Ok(None) } else { Err(AccountError::UserMissing) };
        }
        let failed = |name: &str| {
            let name = name.to_owned();
            |errno: nix::Error| AccountError::System {
                name,
                why: io::Error::from(errno).to_string(),
            }
        };
        let number = user.parse().ok().map(Uid::from_raw);
        let known = match (User::from_name(user).map_err(failed(user))?, number) {
            (None, Some(uid)) => User::from_uid(uid).map_err(failed(user))?,
            (known, _) => known,
        };
        let uid = known.as_ref().map(|known| known.uid).or(number);
        let uid = uid.ok_or_else(|| AccountError::NoUser(user.to_owned()))?;
        let gid = match (group, &known) {
            ("", Some(known)) => known.gid,
            ("", None) => return Err(AccountError::GroupMissing(uid)),
            (group, _) => match Group::from_name(group).map_err(failed(group))? {
                Some(known) => known.gid,
                None => group
                    .parse()
                    .map(Gid::from_raw)
                    .map_err(|_| AccountError::NoGroup(group.to_owned()))?,
            },
        };
        let name = known.and_then(|known| CString::new(known.name).ok());
        let groups = name.map(|name| getgrouplist(&name, gid)).transpose();
        let groups = groups.map_err(failed(user))?.unwrap_or_else(|| vec![gid]);
        Ok(Some(Self { name: user.to_owned(), uid, gid, groups }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn find(user: &str, group: &str) -> Result<(u32, u32), String> {
        let found = Account::find(user, group).map_err(|error| error.to_string())?.unwrap();
        assert!(found.groups.contains(&found.gid), "{found:?}");
        Ok((found.uid.as_raw(), found.gid.as_raw()))
    }

    #[test]
    fn users_and_groups_are_found_by_name_and_by_number() {
        assert_eq!(find("root", ""), Ok((0, 0)));
        assert_eq!(find("0", ""), Ok((0, 0)));
        assert_eq!(find("root", "4294967000"), Ok((0, 4_294_967_000)));
        assert_eq!(find("4294967001", "4294967000"), Ok((4_294_967_001, 4_294_967_000)));
        assert_eq!(Account::find("", ""), Ok(None));
    }

    #[test]
    fn who_is_not_there_is_told_by_name() {
        assert!(find("no such user", "").unwrap_err().starts_with("\"no such user\" is no user"));
        assert!(find("root", "no such group").unwrap_err().contains("is no group"));
        assert!(find("4294967001", "").unwrap_err().contains("`group` is needed"));
        assert_eq!(Account::find("", "root"), Err(AccountError::UserMissing));
    }
}
