//! What many probes come to.

use crate::config::HealthCheck;

/// Healthy, unhealthy, or not known yet; changed only by several equal answers in a row.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    healthy: Option<bool>,
    /// The last answer, and how many in a row were like it.
    streak: (bool, u32),
}

impl Verdict {
    /// A verdict to start with.
    pub const fn new(healthy: Option<bool>) -> Self {
        Self { healthy, streak: (false, 0) }
    }

    /// None until enough answers in a row have been equal.
    pub const fn healthy(self) -> Option<bool> {
        self.healthy
    }

    /// Takes in one answer.
    pub fn note(&mut self, well: bool, check: &HealthCheck) {
        let count = if self.streak.0 == well { self.streak.1.saturating_add(1) } else { 1 };
        self.streak = (well, count);
        let enough = if well { check.healthy_after } else { check.unhealthy_after };
        if count >= enough {
            self.healthy = Some(well);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Probe;

    #[test]
    fn only_enough_equal_answers_in_a_row_change_the_verdict() {
        let check =
            HealthCheck { healthy_after: 2, unhealthy_after: 3, ..HealthCheck::new(Probe::None) };
        let mut verdict = Verdict::default();
        let mut after = |answers: &str| {
            answers.chars().for_each(|answer| verdict.note(answer == '+', &check));
            verdict.healthy()
        };
        assert_eq!(after("+-+-"), None);
        assert_eq!(after("++"), Some(true));
        assert_eq!(after("--+--"), Some(true));
        assert_eq!(after("-"), Some(false));
        assert_eq!(after("+-+-+-"), Some(false));
        assert_eq!(after("++"), Some(true));
    }
}
