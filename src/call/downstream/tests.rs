//! Who takes turns, and who never waits.

use std::{future::poll_fn, task::Poll};

use futures_util::FutureExt;
use tokio::{
    task::{LocalSet, spawn_local, yield_now},
    time::advance,
};

use super::*;

/// What a poll of a call takes.
const POLL: Duration = Duration::from_micros(20);
/// Polls in one turn, of which the last two are woken before it ends; and what a connection may do at once before.
const IN_TURN: u32 = 4;
const MOST: u32 = AT_ONCE / Way::Own.weight() + IN_TURN;

/// Calls of one connection; how often each was polled.
struct Calls {
    downstream: Downstream,
    polled: Vec<Rc<Cell<u32>>>,
}

impl Calls {
    /// So many, on a connection that shares `turns`, each of which is over once it has been polled five times and
    /// always wants to be.
    fn new(count: u32, turns: &Rc<Turns>) -> Self {
        Self::on(true, count, turns)
    }

    /// The same on connections to endpoints of their own, or shared ones.
    fn on(own: bool, count: u32, turns: &Rc<Turns>) -> Self {
        let downstream = Downstream::new(turns);
        (0..count).for_each(|_| downstream.call_began());
        let polled: Vec<_> = (0..count).map(|_| Rc::<Cell<u32>>::default()).collect();
        for polled in &polled {
            spawn_local(call(downstream.clone(), own, Rc::clone(polled)));
        }
        Self { downstream, polled }
    }

    fn sum(&self) -> u32 {
        self.polled.iter().map(|polled| polled.get()).sum()
    }

    /// No call is ahead of another by more than two polls.
    fn go_together(&self) {
        let (least, most) = (self.polled.iter().min().unwrap(), self.polled.iter().max().unwrap());
        assert!(most.get() - least.get() <= 2, "{most:?} times, and {least:?} times");
    }
}

async fn call(downstream: Downstream, own: bool, polled: Rc<Cell<u32>>) {
    if own {
        downstream.dials();
    }
    let mut turn = Turn::new(&downstream);
    poll_fn(|cx| {
        let went = turn.take(&downstream, cx, |cx| {
            polled.update(|polled| polled + 1);
            let _ = advance(POLL).now_or_never();
            cx.waker().wake_by_ref();
        });
        if polled.get().is_multiple_of(5) && went.is_some() {
            Poll::Ready(())
        } else {
            Poll::Pending
        }
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn many_calls_with_connections_of_their_own_take_turns_and_nobody_is_overtaken() {
    let test = async {
        let calls = Calls::new(100, &Rc::default());
        while calls.sum() < 500 {
            let before = calls.sum();
            yield_now().await;
            assert!(calls.sum() - before <= MOST, "others had no turn");
            calls.go_together();
        }
        yield_now().await;
        assert_eq!(Rc::strong_count(&calls.downstream.0), 1, "nobody is left who gives turns");
    };
    LocalSet::new().run_until(test).await;
}

#[tokio::test(start_paused = true)]
async fn connections_all_of_whose_calls_get_on_in_one_turn_have_their_turns_alike() {
    let test = async {
        let turns = Rc::default();
        let few = Downstream::new(&turns);
        let count = Way::Shared.together();
        let all = [0, 1].map(|_| Calls::on(false, count, &turns));
        for _ in 0..200 {
            few.call_began();
            few.call_ended();
            yield_now().await;
            if turns.wires().calls() == 0 {
                continue;
            }
            let sums: Vec<_> = all.iter().map(Calls::sum).collect();
            let (least, most) = (sums.iter().min().unwrap(), sums.iter().max().unwrap());
            assert!(most - least <= 2 * count, "polls of each: {sums:?}");
        }
        assert!(all.iter().all(|calls| calls.sum() == 5 * count), "all have ended");
    };
    LocalSet::new().run_until(test).await;
}

#[tokio::test(start_paused = true)]
async fn connections_with_many_calls_share_the_turns() {
    let test = async {
        let turns = Rc::default();
        let all: Vec<_> = (0..5).map(|_| Calls::new(100, &turns)).collect();
        let sum = || all.iter().map(Calls::sum).sum::<u32>();
        // What they may do before anybody notices that they are many.
        while sum() < 5 * MOST {
            yield_now().await;
        }
        while sum() < 2_000 {
            let before = sum();
            yield_now().await;
            assert!(sum() - before <= IN_TURN, "others had no turn");
            let (least, most) = all
                .iter()
                .map(Calls::sum)
                .fold((u32::MAX, 0), |(least, most), sum| (least.min(sum), most.max(sum)));
            assert!(most - least <= 2 * MOST, "{least} polls of one, {most} of another");
        }
    };
    LocalSet::new().run_until(test).await;
}

#[tokio::test(start_paused = true)]
async fn more_than_few_calls_take_turns_for_a_while_after_somebody_with_few_had_an_answer() {
    let test = async {
        let turns = Rc::default();
        let few = Downstream::new(&turns);
        for is_protected in [false, true, false] {
            if is_protected {
                few.call_began();
                few.call_ended();
            }
            let calls = Calls::new(FEW * 4, &turns);
            yield_now().await;
            assert_eq!(calls.sum() <= MOST, is_protected);
            while calls.sum() < FEW * 4 * 5 {
                yield_now().await;
            }
            advance(WHILE).await;
        }
    };
    LocalSet::new().run_until(test).await;
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_had_many_calls_a_moment_ago_is_not_one_with_few() {
    let (turns, cx) = (Rc::<Turns>::default(), Context::from_waker(Waker::noop()));
    let (former, other) = (Downstream::new(&turns), Downstream::new(&turns));
    let is_protected = || {
        (0..=FEW).for_each(|_| other.call_began());
        (0..=LONG).for_each(|_| turns.wires.call_waits());
        let waits = other.has_to_wait(&cx);
        (0..=FEW).for_each(|_| other.call_ended());
        waits
    };
    (0..=FEW).for_each(|_| former.call_began());
    (0..=FEW).for_each(|_| former.call_ended());
    assert!(!is_protected());
    advance(BEFORE).await;
    former.call_began();
    former.call_ended();
    assert!(is_protected());
}

#[tokio::test(start_paused = true)]
async fn connections_with_many_calls_are_not_read_from_while_many_wait() {
    let test = async {
        let turns = Rc::default();
        let (calls, few) = (Calls::new(200, &turns), Downstream::new(&turns));
        let cx = &Context::from_waker(Waker::noop());
        while !calls.downstream.has_to_wait(cx) {
            yield_now().await;
        }
        assert!(!few.has_to_wait(cx));
        // It is woken.
        poll_fn(|cx| match calls.downstream.has_to_wait(cx) {
            true => Poll::Pending,
            false => Poll::Ready(()),
        })
        .await;
    };
    LocalSet::new().run_until(test).await;
}

#[test]
fn a_long_line_keeps_a_connection_from_being_read_for_a_while_and_not_for_ever() {
    let (turns, cx) = (Rc::<Turns>::default(), Context::from_waker(Waker::noop()));
    let downstream = Downstream::new(&turns);
    (0..=MANY).for_each(|_| downstream.call_began());
    (0..=LONG).for_each(|_| turns.wires.call_waits());
    for at in 1..5 {
        assert!(downstream.has_to_wait(&cx));
        turns.number.set(at * PATIENCE);
        assert!(!downstream.has_to_wait(&cx), "it is read once");
    }
}

#[tokio::test(start_paused = true)]
async fn calls_on_shared_connections_take_turns_only_while_somebody_has_few_and_then_more_at_a_time()
 {
    let test = async {
        let turns = Rc::default();
        let few = Downstream::new(&turns);
        let mut at_once = Vec::new();
        for (own, is_protected) in [(true, true), (false, true), (false, false)] {
            if is_protected {
                few.call_began();
                few.call_ended();
            }
            let (calls, mut most) = (Calls::on(own, 100, &turns), 0);
            while calls.sum() < 500 {
                let before = calls.sum();
                yield_now().await;
                most = most.max(calls.sum() - before);
            }
            at_once.push(most);
            advance(WHILE).await;
        }
        let [own, shared, unprotected] = at_once[..] else { unreachable!() };
        assert!(own < shared && shared < unprotected, "polls at once: {at_once:?}");
        let in_turn = 2 * Way::Shared.together();
        assert!(shared <= AT_ONCE + in_turn, "polls at once: {at_once:?}");
    };
    LocalSet::new().run_until(test).await;
}

#[tokio::test(start_paused = true)]
async fn a_few_calls_never_wait() {
    let (downstream, polled) = (Downstream::default(), Rc::<Cell<u32>>::default());
    for _ in 0..MANY {
        downstream.call_began();
        call(downstream.clone(), true, Rc::clone(&polled)).now_or_never();
    }
    assert_eq!(polled.get(), MANY);
}
