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
fn an_alarm_wakes_the_task_that_polled_it_last() {
    local(|| async {
        let mut alarm = Box::pin(Alarm::after(ms(50)));
        assert!(timeout(ms(1), &mut alarm).await.is_err());
        let began = Instant::now();
        tokio::task::spawn_local(alarm).await.unwrap();
        assert!(began.elapsed() <= ms(52));
    });
}
