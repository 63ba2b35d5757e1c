//! Which endpoints count as usable: those that can take a call, or more, where too few can.

use std::{collections::HashSet, sync::Arc};

use super::members::Members;
use crate::{
    config::Percent,
    model::{Endpoint, Load},
};

/// What an endpoint must be to be usable by a rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standard {
    /// Able to take calls.
    Well,
    /// Registered, be it ejected or unhealthy: the few that are well could not carry all calls.
    Known,
    /// Anything: there is nothing but endpoints that vanished from the registry and were not dialled.
    Any,
}

impl Standard {
    pub(super) fn admits(self, load: &Load) -> bool {
        match self {
            Self::Well => load.is_usable(),
            Self::Known => !load.is_doubtful(),
            Self::Any => true,
        }
    }
}

/// The standard of each rule's members.
///
/// The first rule that leaves an endpoint that is well takes the calls. Only if fewer than `threshold`
/// of all the endpoints that the rules leave are well, are the others of that rule used, too: while
/// there is somewhere to fall back to, a sick rule is passed over. Suspects that were not dialled have
/// not been found sick, and count neither way.
pub(super) fn standards<'a, R>(rules: R, threshold: Percent) -> Vec<Standard>
where
    R: IntoIterator<Item = &'a Members> + Clone,
{
    let count = rules.clone().into_iter().count();
    let counts = match rules.clone().into_iter().next() {
        Some(only) if count == 1 => counts(only.endpoints().iter()),
        _ => {
            // An endpoint may match several rules.
            let all = rules.clone().into_iter().flat_map(Members::endpoints);
            let mut seen = HashSet::new();
            counts(all.filter(|endpoint| seen.insert(Arc::as_ptr(endpoint))))
        }
    };
    let (well, known) = counts;
    if known == 0 {
        return vec![Standard::Any; count];
    }
    if well as f64 >= threshold.share() * known as f64 && well > 0 {
        return vec![Standard::Well; count];
    }
    let is_well = |members: &Members| members.endpoints().iter().any(|e| e.load.is_usable());
    let first = rules.into_iter().position(is_well).unwrap_or(0);
    let standard = |at| if at < first { Standard::Well } else { Standard::Known };
    (0..count).map(standard).collect()
}

/// How many are well, and how many there are that could be.
fn counts<'a>(endpoints: impl Iterator<Item = &'a Arc<Endpoint>>) -> (usize, usize) {
    endpoints.fold((0, 0), |(well, known), endpoint| {
        let load = &endpoint.load;
        (well + usize::from(load.is_usable()), known + usize::from(!load.is_doubtful()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        balance::testing::{Fixture, set_usable},
        model::{Service, Snapshot},
    };

    /// Standards of these selectors where the endpoints at these places are ejected.
    fn of(size: usize, selectors: &str, sick: &[usize], threshold: u8) -> Vec<Standard> {
        let snapshot = Fixture::new(size).snapshot();
        let service = Service::new(snapshot.clone());
        sick.iter().for_each(|&at| set_usable(&service, &snapshot.endpoints[at], false));
        standards(&members(&snapshot, selectors), Percent::of(threshold))
    }

    fn members(snapshot: &Snapshot, selectors: &str) -> Vec<Members> {
        let selectors: crate::model::Selectors = selectors.parse().unwrap();
        selectors.rules().iter().map(|selector| Members::new(snapshot, selector)).collect()
    }

    #[test]
    fn where_too_few_are_well_all_are_used() {
        use Standard::{Known, Well};
        assert_eq!(of(4, "", &[0, 1], 50), [Well]);
        assert_eq!(of(4, "", &[0, 1, 2], 50), [Known]);
        assert_eq!(of(4, "", &[0, 1, 2], 25), [Well]);
        assert_eq!(of(4, "", &[0, 1, 2], 0), [Well]);
        assert_eq!(of(4, "", &[0, 1, 2, 3], 0), [Known], "nobody is well");
    }

    #[test]
    fn a_sick_rule_is_passed_over_while_a_later_one_is_well() {
        use Standard::{Known, Well};
        // Places 0, 2 and 4 have version v1; with v2 there are six.
        let rules = "version=v1;version=v2";
        assert_eq!(of(6, rules, &[0, 2, 4], 50), [Well, Well]);
        assert_eq!(of(6, rules, &[0, 2, 4, 1], 50), [Well, Known]);
        assert_eq!(of(6, rules, &[0, 2, 1, 3], 50), [Known, Known]);
        assert_eq!(of(6, rules, &[0, 2, 1], 50), [Well, Well]);
        assert_eq!(of(6, rules, &[0, 1, 2, 3, 4, 5], 50), [Known, Known]);
        assert_eq!(of(6, "version=v1;", &[0, 2, 4], 50), [Well, Well], "each counts once");
    }

    #[test]
    fn suspects_that_were_not_dialled_are_used_when_nothing_else_is_left() {
        let snapshot = Fixture::new(3).snapshot();
        snapshot.endpoints[..2].iter().for_each(|endpoint| endpoint.load.suspect());
        let all = || standards(&members(&snapshot, ""), Percent::of(50));
        assert_eq!(all(), [Standard::Well]);
        set_usable(&Service::new(snapshot.clone()), &snapshot.endpoints[2], false);
        assert_eq!(all(), [Standard::Known]);
        snapshot.endpoints[2].load.suspect();
        assert_eq!(all(), [Standard::Any]);
    }
}
