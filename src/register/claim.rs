//! The rule of two owners: whether to write a key that somebody else has to do with. Pure; the time is
//! passed in.
//!
//! Whoever writes last owns. A registration writes when it has a reason of its own: it starts, what it
//! says has changed, or the key is not there. When somebody else writes the key after that, then
//!
//! - under a living lease and with the same address, it is as good as ours: we leave it, and take over
//!   when it goes. Neither of two such writers answers the other, so they cannot fight;
//! - under a living lease and with another address, it is taken back, at first at once, and then after
//!   waits that double up to a minute, until it has been ours for five minutes. Two hosts under one id
//!   write so rarely that nobody is kept busy, and each says what is wrong;
//! - without a lease, or when it is deleted, it is taken back in the same way after waits of a few
//!   seconds at most: there is nobody to fight with, or nobody who says so.

use std::time::Duration;

use tokio::time::Instant;

use crate::registry::etcd::LeaseId;

/// What is under the key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// What we would write.
    Ours,
    /// Something else, under our lease: what we wrote before, unless somebody knows our lease.
    Former,
    /// Nothing.
    Nothing,
    /// Something without a lease, which nobody keeps alive.
    Loose,
    /// Our address under another lease.
    Twin(LeaseId),
    /// Something else under another lease. The text says what.
    Rival(String),
}

/// What to do about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ruling {
    /// It is in order.
    Held,
    /// Leave it to the other one.
    Yield,
    /// Write now.
    Write,
    /// Write then.
    WriteAt(Instant),
}

/// How the key was lost that is to be taken back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Taken {
    Deleted,
    Overwritten,
}

/// First wait before a key is taken back: up to this, at random.
const FIRST: Duration = Duration::from_millis(500);
/// Longest wait for another owner.
const LONGEST: Duration = Duration::from_secs(60);
/// Longest wait where there is none, unless half of the lease's time is less.
const LONGEST_ALONE: Duration = Duration::from_secs(5);
/// Held for this long, the key counts as never taken. Far more than [`LONGEST`], or two rivals would
/// forgive each other between two blows.
const CALM: Duration = Duration::from_secs(300);

/// Our claim to one key.
#[derive(Debug)]
pub(super) struct Claim {
    /// Longest wait where there is no other owner.
    longest_alone: Duration,
    /// Whether we have a reason of our own to write.
    turn: bool,
    /// Since when it is ours without a break.
    held: Option<Instant>,
    /// How often it was taken from us since it was last calm.
    strikes: u32,
    /// How it was taken the last time, and when we may take it back.
    waiting: Option<(Taken, Instant)>,
}

impl Claim {
    /// A claim that has yet to be made, by a registration with this time to live.
    pub(super) fn new(ttl: Duration) -> Self {
        let longest_alone = LONGEST_ALONE.min(ttl / 2);
        Self { longest_alone, turn: true, held: None, strikes: 0, waiting: None }
    }

    /// We have a reason of our own to write.
    pub(super) const fn turn(&mut self) {
        self.turn = true;
    }

    /// The key went with our lease, or by our own hand: nobody took it.
    pub(super) const fn release(&mut self) {
        self.held = None;
    }

    /// What to do about `found`, and how the key was taken if this is the first that we see of it.
    pub(super) fn judge(&mut self, found: &Found, now: Instant) -> (Ruling, Option<Taken>) {
        let taken = match found {
            Found::Ours => {
                let since = *self.held.get_or_insert(now);
                (self.turn, self.waiting) = (false, None);
                if now.duration_since(since) >= CALM {
                    self.strikes = 0;
                }
                return (Ruling::Held, None);
            }
            Found::Twin(_) if !self.turn => {
                let taken = self.held.take().map(|_| Taken::Overwritten);
                self.waiting = None;
                return (Ruling::Yield, taken);
            }
            Found::Nothing => Taken::Deleted,
            Found::Former | Found::Loose | Found::Twin(_) | Found::Rival(_) => Taken::Overwritten,
        };
        if self.turn && matches!(found, Found::Former) {
            return (Ruling::Write, None);
        }
        let first = self.held.take().map(|_| taken);
        if first.is_some() {
            self.strikes += 1;
            let longest = match found {
                Found::Rival(_) => LONGEST,
                _ => self.longest_alone,
            };
            self.waiting = Some((taken, now + wait(self.strikes, longest)));
        }
        let ruling = match self.waiting {
            // Who took it has let it go.
            Some((Taken::Overwritten, _)) if taken == Taken::Deleted => Ruling::Write,
            Some((_, at)) if at > now => Ruling::WriteAt(at),
            _ => Ruling::Write,
        };
        (ruling, first)
    }
}

fn wait(strikes: u32, longest: Duration) -> Duration {
    match strikes {
        0 | 1 => FIRST.mul_f64(fastrand::f64()),
        strikes => {
            let doubled = Duration::from_secs(1 << (strikes - 2).min(6)).min(longest);
            doubled.mul_f64(1.0 - fastrand::f64() / 2.0)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TTL: Duration = Duration::from_secs(15);

    fn rival() -> Found {
        Found::Rival("10.0.0.9:80".to_owned())
    }

    fn twin() -> Found {
        Found::Twin(LeaseId::of(7).unwrap())
    }

    /// A claim that was made, and the time.
    fn held() -> (Claim, Instant) {
        let (mut claim, now) = (Claim::new(TTL), Instant::now());
        assert_eq!(claim.judge(&Found::Nothing, now).0, Ruling::Write);
        assert_eq!(claim.judge(&Found::Ours, now).0, Ruling::Held);
        (claim, now)
    }

    #[test]
    fn at_its_start_it_writes_whatever_is_there() {
        for found in [Found::Nothing, Found::Loose, Found::Former, twin(), rival()] {
            let ruling = Claim::new(TTL).judge(&found, Instant::now());
            assert_eq!(ruling, (Ruling::Write, None), "{found:?}");
        }
    }

    #[test]
    fn a_twin_that_writes_after_us_is_left_alone_until_it_goes() {
        let (mut claim, now) = held();
        assert_eq!(claim.judge(&twin(), now), (Ruling::Yield, Some(Taken::Overwritten)));
        assert_eq!(claim.judge(&twin(), now), (Ruling::Yield, None));
        assert_eq!(claim.judge(&Found::Nothing, now), (Ruling::Write, None));
    }

    #[test]
    fn a_change_of_our_own_is_written_over_a_twin_and_over_what_we_wrote_before() {
        let (mut claim, now) = held();
        claim.judge(&twin(), now);
        claim.turn();
        assert_eq!(claim.judge(&twin(), now).0, Ruling::Write);
        let (mut claim, now) = held();
        claim.turn();
        assert_eq!(claim.judge(&Found::Former, now), (Ruling::Write, None));
    }

    #[test]
    fn what_a_rival_takes_is_taken_back_after_waits_that_grow_to_a_minute() {
        let waits = waits_for(&rival());
        assert!(waits[0] <= 0.5 && waits[1] <= 1.0 && waits[2] <= 2.0, "{waits:?}");
        assert!(waits[8..].iter().all(|wait| (30.0..=60.0).contains(wait)), "{waits:?}");
    }

    #[test]
    fn what_nobody_else_owns_is_taken_back_within_seconds_however_often() {
        for found in [Found::Nothing, Found::Loose, Found::Former] {
            let waits = waits_for(&found);
            assert!(waits[0] <= 0.5 && waits[1] <= 1.0 && waits[2] <= 2.0, "{waits:?}");
            assert!(waits[5..].iter().all(|wait| (2.5..=5.0).contains(wait)), "{waits:?}");
        }
    }

    /// The waits when this takes the key again and again.
    fn waits_for(found: &Found) -> Vec<f64> {
        let (mut claim, mut now) = held();
        let mut waits = Vec::new();
        for _ in 0..12 {
            let (ruling, taken) = claim.judge(found, now);
            assert!(taken.is_some());
            let Ruling::WriteAt(at) = ruling else { panic!("{ruling:?}") };
            waits.push((at - now).as_secs_f64());
            assert_eq!(claim.judge(found, now), (ruling, None), "decided once");
            now = at;
            assert_eq!(claim.judge(found, now), (Ruling::Write, None));
            assert_eq!(claim.judge(&Found::Ours, now).0, Ruling::Held);
        }
        now += CALM;
        assert_eq!(claim.judge(&Found::Ours, now).0, Ruling::Held);
        let (Ruling::WriteAt(at), _) = claim.judge(found, now) else { panic!("taken") };
        assert!(at - now <= FIRST, "forgotten");
        waits
    }

    #[test]
    fn a_reason_of_our_own_does_not_cut_the_wait_for_a_rival_short() {
        let (mut claim, now) = held();
        for _ in 0..8 {
            claim.judge(&rival(), now);
            claim.judge(&Found::Ours, now);
        }
        let (ruling, _) = claim.judge(&rival(), now);
        claim.turn();
        assert_eq!(claim.judge(&rival(), now), (ruling, None));
    }

    #[test]
    fn a_rival_that_goes_is_not_waited_for() {
        let (mut claim, now) = held();
        for _ in 0..8 {
            claim.judge(&rival(), now);
            claim.judge(&Found::Ours, now);
        }
        assert!(matches!(claim.judge(&rival(), now).0, Ruling::WriteAt(_)));
        assert_eq!(claim.judge(&Found::Nothing, now).0, Ruling::Write);
    }

    #[test]
    fn a_key_that_went_with_our_lease_was_taken_by_nobody() {
        let (mut claim, now) = held();
        claim.release();
        assert_eq!(claim.judge(&Found::Nothing, now), (Ruling::Write, None));
    }
}
