use std::cell::Cell;

use tokio::{
    task::{LocalSet, yield_now},
    time::{advance, timeout},
};

use super::*;

const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// Runs on a thread of its own, so that each test has its own clock.
fn local<F: Future<Output = ()> + 'static>(test: impl FnOnce() -> F + Send + 'static) {
    let thread = std::thread::spawn(|| {
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        let runtime = runtime.enable_time().start_paused(true).build().unwrap();
        LocalSet::new().block_on(&runtime, test());
    });
    thread.join().unwrap();
}

#[test]
fn an_alarm_rings_at_its_time_and_not_before() {
    local(|| async {
        for delay in [ms(1), ms(7), ms(1_023), ms(1_024), ms(1_025), ms(100_000)] {
            let began = Instant::now();
            Alarm::at(began + delay).await;
            let took = began.elapsed();
            assert!(took >= delay && took <= delay + ms(2), "{delay:?}: {took:?}");
        }
    });
}

#[test]
fn a_time_that_has_passed_rings_at_once() {
    local(|| async {
        let now = Instant::now();
        Alarm::at(now).await;
        assert_eq!(Instant::now(), now);
    });
}

#[test]
fn an_earlier_alarm_does_not_wait_for_the_one_set_before_it() {
    local(|| async {
        let late = tokio::task::spawn_local(Alarm::after(ms(30_000)));
        yield_now().await;
        let began = Instant::now();
        Alarm::after(ms(20)).await;
        assert!(began.elapsed() <= ms(22));
        late.await.unwrap();
        assert!(began.elapsed() >= ms(29_000));
    });
}

#[test]
fn alarms_that_were_taken_back_do_not_ring_and_leave_nothing() {
    local(|| async {
        for _ in 0..1_000 {
            let mut alarm = Box::pin(Alarm::after(ms(500)));
            assert!(timeout(ms(1), &mut alarm).await.is_err());
        }
        advance(ms(5_000)).await;
        yield_now().await;
        CLOCK.with_borrow(|clock| {
            assert_eq!(clock.wheel.next(), None);
            assert_eq!(clock.armed, None, "nothing wakes for them any more");
        });
        let began = Instant::now();
        Alarm::after(ms(20)).await;
        assert!(began.elapsed() >= ms(20), "and the next one rings");
    });
}

#[test]
fn many_alarms_ring_each_at_its_own_time() {
    local(|| async {
        let (began, rung) = (Instant::now(), Rc::new(Cell::new(0)));
        let tasks: Vec<_> = (0..2_000_u64)
            .map(|number| {
                let (delay, rung) = (ms(1 + number * 7 % 3_000), Rc::clone(&rung));
                tokio::task::spawn_local(async move {
                    Alarm::at(began + delay).await;
                    let took = began.elapsed();
                    assert!(took >= delay && took <= delay + ms(2), "{delay:?}: {took:?}");
                    rung.set(rung.get() + 1);
                })
            })
            .collect();
        for task in tasks {
            task.await.unwrap();
        }
        assert_eq!(rung.get(), 2_000);
    });
}

#[test]
fn alarms_of_a_call_share_a_bell_that_rings_for_the_earliest_that_is_left() {
    // In a task of its own: whoever blocks on a set of tasks is polled with each of them.
    local(|| async {
        tokio::task::spawn_local(async {
            let began = Instant::now();
            let (mut bell, mut near) = (Bell::default(), Box::pin(Alarm::after(ms(80))));
            let mut far = Some(Box::pin(Alarm::after(ms(2_000))));
            let mut polls = 0;
            poll_fn(|cx| {
                polls += 1;
                bell.poll(cx, |cx| {
                    if let Some(alarm) = &mut far {
                        assert!(alarm.as_mut().poll(cx).is_pending());
                    }
                    let polled = near.as_mut().poll(cx);
                    assert_eq!(
                        CLOCK.with_borrow(|clock| clock.wheel.len()),
                        usize::from(polls > 1)
                    );
                    polled
                })
            })
            .await;
            assert!(began.elapsed() >= ms(80) && began.elapsed() <= ms(82));
            assert_eq!(polls, 2);

            // Now for the other one, for which the bell is set anew; and one that is dropped wakes in vain.
            let mut dropped = Some(Box::pin(Alarm::after(ms(300))));
            polls = 0;
            poll_fn(|cx| {
                polls += 1;
                bell.poll(cx, |cx| {
                    if let Some(mut alarm) = dropped.take() {
                        assert!(alarm.as_mut().poll(cx).is_pending());
                    }
                    far.as_mut().map_or(Poll::Ready(()), |alarm| alarm.as_mut().poll(cx))
                })
            })
            .await;
            assert!(began.elapsed() >= ms(2_000) && began.elapsed() <= ms(2_002));
            assert_eq!(polls, 3);
            drop(bell);
            CLOCK.with_borrow(|clock| assert_eq!(clock.wheel.len(), 0));
        })
        .await
        .unwrap();
    });
}

#[test]
fn an_alarm_wakes_the_task_that_polled_it_last() {
    local(|| async {
        let mut alarm = Box::pin(Alarm::after(ms(50)));
        assert!(timeout(ms(1), &mut alarm).await.is_err());
        let began = Instant::now();
        tokio::task::spawn_local(alarm).await.unwrap();
        assert!(began.elapsed() <= ms(52));
    });
}
