//! The connection of an application, as its calls see it.

use std::{
    cell::{Cell, RefCell},
    collections::VecDeque,
    rc::Rc,
    task::{Context, Waker},
};

use tokio::task::{spawn_local, yield_now};

use crate::panics::{Task, again};

/// Beginnings and polls of calls that have a connection to an endpoint for themselves, each some 20 us, before
/// everybody else has had a turn, on a connection with many calls: a thousand that come, are answered or end at once would hold a worker
/// up for 20 ms each time.
const TURN: u32 = 8;
/// More calls than this are many.
const MANY: u32 = 64;

/// What the calls of one connection have in common. The listener has one for each; cloning it gives another hold
/// on the same.
#[derive(Clone, Debug, Default)]
pub struct Downstream(Rc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    /// Calls that have not ended.
    calls: Cell<u32>,
    pressed: Cell<bool>,
    /// Whether the call that begins, or is polled, has got a connection for itself.
    dials: Cell<bool>,
    /// What was done in this turn, where there are turns.
    work: Cell<u32>,
    /// Calls that wait for another turn, and how many have been woken for theirs.
    waiting: RefCell<VecDeque<Waker>>,
    woken: Cell<u64>,
    /// Whether there is somebody who wakes them.
    is_kept: Cell<bool>,
}

/// The part of one call in the turns of its connection.
#[derive(Debug)]
pub struct Turn {
    /// Whether it has a connection for itself.
    costs: bool,
    /// How many will have been woken when it is; none while it does not wait.
    place: Option<u64>,
}

impl Downstream {
    /// Calls of it that have not ended.
    pub fn calls(&self) -> u32 {
        self.0.calls.get()
    }

    /// One more has begun.
    pub fn call_began(&self) {
        self.0.calls.update(|calls| calls + 1);
    }

    /// One of them has ended.
    pub fn call_ended(&self) {
        self.0.calls.update(|calls| calls - 1);
    }

    /// Whether so much waits for the application that further answers are to wait with their endpoints.
    pub fn is_under_pressure(&self) -> bool {
        self.0.pressed.get()
    }

    /// Says so, or that it does not.
    pub fn press(&self, on: bool) {
        self.0.pressed.set(on);
    }

    /// Whether others are to have a turn before more of its calls begin.
    pub fn has_had_its_turn(&self) -> bool {
        self.0.has_had_its_turn()
    }

    /// The call that begins, or is polled, gets a connection to an endpoint for itself.
    pub fn dials(&self) {
        self.0.dials.set(true);
    }
}

impl Turn {
    /// For a call of `downstream` that has just been put on the chain.
    pub fn new(downstream: &Downstream) -> Self {
        let costs = downstream.0.dials.take();
        downstream.0.work.update(|work| work.saturating_add(costs.into()));
        Self { costs, place: None }
    }

    /// Polls a call of `downstream`, unless its connection has had its turn: then the call is woken when the
    /// runtime has looked what has come for others.
    pub fn take<T>(
        &mut self,
        downstream: &Downstream,
        cx: &mut Context<'_>,
        poll: impl FnOnce(&mut Context<'_>) -> T,
    ) -> Option<T> {
        let shared = &downstream.0;
        if shared.are_there_turns() && !self.has_come(shared, cx) {
            return None;
        }
        let polled = poll(cx);
        self.costs |= shared.dials.take();
        shared.work.update(|work| work.saturating_add(self.costs.into()));
        Some(polled)
    }

    /// Whether it is the call's turn; if not, it waits for it, behind those that wait already.
    #[cold]
    fn has_come(&mut self, shared: &Rc<Shared>, cx: &Context<'_>) -> bool {
        match self.place {
            Some(place) if place <= shared.woken.get() => {
                self.place = None;
                return true;
            }
            // Something else has woken it.
            Some(_) => return false,
            None => {}
        }
        let mut waiting = shared.waiting.borrow_mut();
        waiting.push_back(cx.waker().clone());
        self.place = Some(shared.woken.get() + waiting.len() as u64);
        if !shared.is_kept.replace(true) {
            let shared = Rc::clone(shared);
            spawn_local(again(Task::Worker, move || Rc::clone(&shared).keep()));
        }
        false
    }
}

impl Shared {
    /// Whether others are to have a turn before there is more of it.
    fn has_had_its_turn(&self) -> bool {
        self.work.get() >= TURN && self.calls.get() > MANY
    }

    /// Whether calls have to wait for each other.
    fn are_there_turns(&self) -> bool {
        self.is_kept.get() || self.has_had_its_turn()
    }

    /// Gives turns for as long as there is anybody who waits for one.
    async fn keep(self: Rc<Self>) {
        while self.is_kept.get() {
            // Until the runtime has looked what has come for others.
            yield_now().await;
            self.work.set(0);
            for _ in 0..TURN {
                let Some(call) = self.waiting.borrow_mut().pop_front() else { break };
                self.woken.update(|woken| woken + 1);
                call.wake();
            }
            self.is_kept.set(!self.waiting.borrow().is_empty());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{future::poll_fn, task::Poll};

    use tokio::task::LocalSet;

    use super::*;

    /// A call that is over once it has been polled five times, each time noted, and always wants to be polled.
    async fn call(downstream: Downstream, costs: bool, polled: Rc<Cell<u32>>) {
        if costs {
            downstream.dials();
        }
        let (mut turn, mut left) = (Turn::new(&downstream), 5);
        poll_fn(|cx| {
            let went = turn.take(&downstream, cx, |cx| {
                polled.update(|polled| polled + 1);
                left -= 1;
                cx.waker().wake_by_ref();
            });
            if left == 0 && went.is_some() { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
    }

    #[tokio::test]
    async fn many_calls_with_connections_of_their_own_take_turns_and_nobody_is_overtaken() {
        let downstream = Downstream::default();
        let test = async {
            (0..100).for_each(|_| downstream.call_began());
            let polled: Vec<_> = (0..100).map(|_| Rc::<Cell<u32>>::default()).collect();
            let calls: Vec<_> = polled
                .iter()
                .map(|polled| spawn_local(call(downstream.clone(), true, Rc::clone(polled))))
                .collect();
            let sum = || polled.iter().map(|polled| polled.get()).sum::<u32>();
            while !calls.iter().all(|call| call.is_finished()) {
                let before = sum();
                yield_now().await;
                assert!(sum() - before <= 2 * TURN, "others had no turn");
                let (least, most) = (polled.iter().min().unwrap(), polled.iter().max().unwrap());
                assert!(most.get() - least.get() <= 2, "{most:?} times, and {least:?} times");
            }
            assert_eq!(sum(), 500);
        };
        LocalSet::new().run_until(test).await;
        assert_eq!(Rc::strong_count(&downstream.0), 1, "nobody is left who gives turns");
    }

    #[tokio::test]
    async fn calls_on_shared_connections_never_wait() {
        let (downstream, polled) = (Downstream::default(), Rc::<Cell<u32>>::default());
        let test = async {
            for _ in 0..100 {
                downstream.call_began();
                call(downstream.clone(), false, Rc::clone(&polled)).await;
            }
        };
        LocalSet::new().run_until(test).await;
        assert_eq!((polled.get(), downstream.0.work.get()), (500, 0));
    }

    #[tokio::test]
    async fn a_few_calls_never_wait() {
        let (downstream, polled) = (Downstream::default(), Rc::<Cell<u32>>::default());
        let all = (0..MANY).map(|_| {
            downstream.call_began();
            call(downstream.clone(), true, Rc::clone(&polled))
        });
        futures_util::future::join_all(all).await;
        assert_eq!(polled.get(), 5 * MANY);
    }
}
