//! Where a key is: the services that it belongs to, and what it calls the instance.

use smallvec::SmallVec;

use crate::model::ServiceName;

/// A key as a format sees it.
#[derive(Clone, Copy, Debug)]
pub struct RecordKey<'a> {
    /// The key below the root.
    pub path: &'a str,
    /// The service that it is read for.
    pub service: &'a ServiceName,
    /// What the key calls the instance.
    pub instance: &'a str,
}

impl RecordKey<'_> {
    /// Whether a value that calls its service `name` is where it belongs. A source may be rooted above
    /// the registry's own root, so that the name is only the end of what the key says.
    pub(super) fn is_of(&self, name: &str) -> bool {
        let key = self.service.key();
        let above = key.strip_suffix(name);
        !name.is_empty() && above.is_some_and(|above| above.is_empty() || above.ends_with('/'))
    }
}

/// A service that a key belongs to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place<'a> {
    /// The service.
    pub service: ServiceName,
    /// What the key calls the instance.
    pub instance: &'a str,
}

/// The services that a key belongs to; nearly always one.
pub type Places<'a> = SmallVec<[Place<'a>; 1]>;

impl<'a> Place<'a> {
    /// The place of `service/instance`, where `service` may have any number of segments.
    pub(super) fn of_last_segment(path: &'a str) -> Places<'a> {
        path.rsplit_once('/').and_then(|(service, id)| Self::new(service, id)).into_iter().collect()
    }

    /// The place of `service/instance`, where neither has a `/`.
    pub(super) fn of_two_segments(path: &'a str) -> Places<'a> {
        match segments(path)[..] {
            [service, id] => Self::new(service, id).into_iter().collect(),
            _ => Places::new(),
        }
    }

    /// The instance of a service that keys spell as `service`; none for one that no caller could name,
    /// or without an instance.
    pub(super) fn new(service: &str, instance: &'a str) -> Option<Self> {
        let service = ServiceName::from_key(service).ok().filter(|_| !instance.is_empty())?;
        Some(Self { service, instance })
    }
}

/// The segments of a path.
pub(super) fn segments(path: &str) -> SmallVec<[&str; 8]> {
    path.split('/').collect()
}

/// The prefix of a service in a format whose names are one segment.
pub(super) fn one_segment(root: &str, service: &ServiceName) -> Option<String> {
    (!service.as_str().contains('~')).then(|| format!("{root}{service}/"))
}
