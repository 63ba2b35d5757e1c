//! What holds whatever threads do at the same time. A test ends when all that can happen has happened.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use loom::{
    model,
    sync::atomic::{AtomicUsize, Ordering::Relaxed},
    thread,
};
use pillion_loom::{
    Bucket, Counter,
    model::{
        EjectReason, Ejection, Endpoint, InFlight, LastSeconds, Latency, Load, Record, Row, Rows,
        Served, Service, Sick, Snapshot, Told, Trial,
    },
};

const ROWS: Rows = Rows { broke: 2, errs: 2, foreign: 2 };

fn service() -> (Arc<Service>, Arc<Endpoint>) {
    let service = Service::new(Snapshot::empty("orders".parse().unwrap()));
    let record = Arc::new(Record::new("127.0.0.1:80".parse().unwrap(), "file"));
    let (source, key) = ("main".into(), "key".into());
    let endpoint = Endpoint { record, source, key, load: Arc::default() };
    (Arc::new(service), Arc::new(endpoint))
}

fn ejection() -> Ejection {
    Ejection { reason: EjectReason::FailureRate, until: Instant::now(), times: 1 }
}

/// Two threads at once, and this one.
fn both(first: impl FnOnce() + 'static, second: impl FnOnce() + 'static) {
    let (first, second) = (thread::spawn(first), thread::spawn(second));
    first.join().unwrap();
    second.join().unwrap();
}

/// Runs `each` in two threads; how often it was true.
fn times(each: impl Fn() -> bool + 'static) -> usize {
    let (each, count) = (Arc::new(each), Arc::new(AtomicUsize::new(0)));
    let run = || {
        let (each, count) = (Arc::clone(&each), Arc::clone(&count));
        move || {
            count.fetch_add(usize::from(each()), Relaxed);
        }
    };
    both(run(), run());
    count.load(Relaxed)
}

#[test]
fn a_worker_that_sees_that_something_changed_sees_what() {
    model(|| {
        let (service, endpoint) = service();
        let (writer, of_writer) = (Arc::clone(&service), Arc::clone(&endpoint));
        let control = thread::spawn(move || writer.eject(&of_writer, ejection()));
        let before = service.changes();
        if before > 0 {
            assert!(
                endpoint.load.is_sick(),
                "it was told of a change, and picks by what was before"
            );
        }
        control.join().unwrap();
        assert_eq!(service.changes(), 1);
    });
}

#[test]
fn an_ejected_endpoint_is_tried_by_one_call() {
    model(|| {
        let (service, endpoint) = service();
        service.eject(&endpoint, ejection());
        service.offer_trial(&endpoint);
        let load = Arc::clone(&endpoint.load);
        let taken = Arc::new(AtomicUsize::new(0));
        let call = || {
            let (load, taken) = (Arc::clone(&load), Arc::clone(&taken));
            move || {
                if let Some(trial) = Trial::take(&load) {
                    assert_eq!(taken.fetch_add(1, Relaxed), 0, "one at a time");
                    taken.fetch_sub(1, Relaxed);
                    // Given up: the next call may.
                    drop(trial);
                }
            }
        };
        both(call(), call());
        assert!(Trial::take(&load).is_some(), "it is offered again");
    });
}

#[test]
fn a_trial_that_is_over_is_over_for_all() {
    model(|| {
        let (service, endpoint) = service();
        service.eject(&endpoint, ejection());
        service.offer_trial(&endpoint);
        let load = Arc::clone(&endpoint.load);
        let tried = times(move || Trial::take(&load).map(Trial::is_over).is_some());
        assert_eq!(tried, 1);
        assert!(!endpoint.load.has_trial());
    });
}

#[test]
fn reasons_against_an_endpoint_do_not_undo_each_other() {
    model(|| {
        let (service, endpoint) = service();
        service.accuse(&endpoint);
        let (one, of_one) = (Arc::clone(&service), Arc::clone(&endpoint));
        let (two, of_two) = (Arc::clone(&service), Arc::clone(&endpoint));
        both(
            move || one.acquit(&of_one),
            move || two.set_unhealthy(&of_two, Some("says so".to_owned()), Instant::now()),
        );
        assert!(endpoint.load.is(Sick::Unhealthy) && !endpoint.load.is(Sick::Accused));
        assert_eq!(service.changes(), 3);
    });
}

#[test]
fn a_row_of_failures_is_told_of_once() {
    for told in [Told::Errs(Served::of_path("/a.B/C")), Told::Foreign(Served::of_path("/a.B/C"))] {
        model(move || {
            let load = Arc::new(Load::default());
            let now = Instant::now();
            let row = Arc::clone(&load);
            assert_eq!(times(move || row.history().note(told, ROWS, || now).is_some()), 1);
            assert_eq!(load.history().counts().0, 2);
        });
    }
}

#[test]
fn what_breaks_at_two_times_is_a_row_whichever_is_told_first() {
    model(|| {
        let load = Arc::new(Load::default());
        let (start, told) = (Instant::now(), Arc::new(AtomicUsize::new(0)));
        let at = |ms| {
            let (load, told) = (Arc::clone(&load), Arc::clone(&told));
            move || {
                let now = start + Duration::from_millis(ms);
                if load.history().note(Told::Broke, ROWS, || now) == Some(Row::Broke) {
                    told.fetch_add(1, Relaxed);
                }
            }
        };
        both(at(100), at(200));
        assert_eq!(told.load(Relaxed), 1);
    });
}

#[test]
fn five_failures_to_connect_cast_doubt_once() {
    model(|| {
        let load = Arc::new(Load::default());
        let now = Instant::now();
        for _ in 0..3 {
            assert!(!load.connect_failed(now));
        }
        let failing = Arc::clone(&load);
        assert_eq!(times(move || failing.connect_failed(now)), 1);
    });
}

#[test]
fn calls_in_flight_come_to_nothing() {
    model(|| {
        let load = Arc::new(Load::default());
        let picked = Arc::clone(&load);
        times(move || {
            let _call: InFlight = picked.pick();
            picked.in_flight() > 0
        });
        assert_eq!((load.in_flight(), load.picks()), (0, 2));
    });
}

#[test]
fn the_slowest_of_two_answers_at_once_is_not_forgotten() {
    model(|| {
        let (latency, now) = (Arc::new(Latency::default()), Instant::now());
        let decay = Duration::from_secs(10);
        let answered = |ms| {
            let latency = Arc::clone(&latency);
            move || latency.answered(Duration::from_millis(ms), now, decay)
        };
        both(answered(10), answered(100));
        assert!(latency.read(now, decay).unwrap() > 0.099);
    });
}

#[test]
fn events_of_one_second_are_all_counted() {
    model(|| {
        let (events, now) = (Arc::new(LastSeconds::default()), Instant::now());
        let adding = Arc::clone(&events);
        times(move || {
            adding.add(now);
            true
        });
        assert_eq!(events.this_second(now), 2);
    });
}

#[test]
fn no_more_calls_are_let_through_than_may_be() {
    model(|| {
        let counter = Counter::default();
        let entering = counter.clone();
        let held = Arc::new(AtomicUsize::new(0));
        times(move || {
            let permit = entering.enter(1);
            if permit.is_some() {
                assert_eq!(held.fetch_add(1, Relaxed), 0, "there is place for one");
                held.fetch_sub(1, Relaxed);
            }
            permit.is_some()
        });
        assert_eq!(counter.now(), 0);
    });
}

#[test]
fn the_last_token_of_a_bucket_is_taken_once() {
    model(|| {
        let bucket = Arc::new(Bucket::default());
        assert!(bucket.take(3) && bucket.take(3));
        let last = Arc::clone(&bucket);
        assert_eq!(times(move || last.take(3)), 1);
    });
}
