//! One registration, and everything that may happen to it.

use super::{fake::Mode, *};
use crate::register::report::Loss;

async fn registered(members: usize) -> (Fake, One) {
    let fake = Fake::new(members);
    let one = One::start(&fake, &Set::default());
    one.until(State::Registered).await;
    (fake, one)
}

fn losses(one: &One, loss: Loss) -> u64 {
    one.report().losses[Loss::ALL.iter().position(|known| *known == loss).unwrap()]
}

#[tokio::test(start_paused = true)]
async fn it_is_there_while_it_is_healthy_under_one_lease_and_written_once() {
    let (fake, one) = registered(1).await;
    let (_, lease) = fake.get(KEY).unwrap();
    always(&fake, Duration::from_secs(3600), "it is there", || one.is_there()).await;
    assert_eq!((fake.get(KEY).unwrap().1, one.report().writes, fake.leases()), (lease, 1, 1));
    assert!(one.report().age.unwrap() <= TTL / 3 && one.report().problem.is_none());
    one.healthy(false);
    within(Duration::from_secs(1), "it is gone", || fake.keys().is_empty()).await;
    assert_eq!((one.state(), fake.leases()), (State::Unhealthy, 0));
    one.healthy(true);
    within(Duration::from_secs(1), "it is back", || one.is_there()).await;
    assert_eq!(one.report().losses, [0, 0, 0]);
}

#[tokio::test(start_paused = true)]
async fn it_is_not_there_before_it_is_healthy() {
    let fake = Fake::new(1);
    let one = One::start(&fake, &Set::default());
    one.healthy(false);
    sleep(Duration::from_secs(60)).await;
    assert_eq!((fake.keys().len(), fake.leases()), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn a_lease_that_is_revoked_is_replaced_at_once() {
    let (fake, one) = registered(1).await;
    for count in 1..=20 {
        fake.end(fake.get(KEY).unwrap().1);
        within(Duration::from_millis(500), "it is back", || one.is_there()).await;
        one.until(State::Registered).await;
        assert_eq!(losses(&one, Loss::Lease), count, "and nobody is suspected of deleting it");
    }
}

#[tokio::test(start_paused = true)]
async fn a_key_that_is_deleted_or_overwritten_is_put_back() {
    let (fake, one) = registered(1).await;
    fake.delete(KEY);
    within(BACK, "it is back", || one.is_there()).await;
    one.until(State::Registered).await;
    for round in 0..20 {
        fake.delete(KEY);
        within(Duration::from_secs(6), "it is back", || one.is_there()).await;
        let ours = fake.get(KEY).unwrap().1;
        for (value, lease) in [("", 0), ("garbage", 0), ("{\"Addr\":\"10.9.9.9:1\"}", ours)] {
            one.until(State::Registered).await;
            fake.put(KEY, value, lease);
            within(Duration::from_secs(6), "it is back", || one.is_there()).await;
        }
        one.until(State::Registered).await;
        let expected = (round + 2, 3 * (round + 1));
        assert_eq!((losses(&one, Loss::Deleted), losses(&one, Loss::Overwritten)), expected);
    }
}

#[tokio::test(start_paused = true)]
async fn what_the_watch_does_not_tell_is_found_within_a_ttl() {
    let (fake, one) = registered(1).await;
    fake.deafen(true);
    sleep(Duration::from_secs(60)).await;
    fake.delete(KEY);
    within(TTL + BACK, "it is back", || one.is_there()).await;
}

#[tokio::test(start_paused = true)]
async fn an_etcd_that_comes_back_empty_has_it_again() {
    let (fake, one) = registered(1).await;
    for _ in 0..5 {
        fake.replace();
        within(BACK, "it is back", || one.is_there()).await;
    }
    fake.set_all(Mode::Down);
    sleep(Duration::from_secs(600)).await;
    assert_eq!(one.state(), State::Registering);
    fake.replace();
    fake.set_all(Mode::Up);
    within(TTL, "it is back", || one.is_there()).await;
}

#[tokio::test(start_paused = true)]
async fn a_lease_that_outlives_a_crash_of_etcd_is_known_again_and_nothing_is_written() {
    for seconds in [1, 14, 31, 60, 7200] {
        let (fake, one) = registered(3).await;
        let before = fake.get(KEY);
        fake.crash(Duration::from_secs(seconds)).await;
        assert!(one.report().problem.is_some());
        within(TTL + BACK, "it is confirmed", || one.report().problem.is_none()).await;
        assert_eq!((one.state(), one.report().losses), (State::Registered, [0, 0, 0]));
        assert_eq!((fake.get(KEY), fake.leases()), (before, 1), "after {seconds} s");
    }
    let (fake, one) = registered(3).await;
    one.healthy(false);
    fake.crash(Duration::from_secs(60)).await;
    within(TTL / 2, "it is gone", || fake.keys().is_empty() && fake.leases() == 0).await;
}

#[tokio::test(start_paused = true)]
async fn it_is_back_after_any_absence_of_etcd() {
    for mode in [Mode::Down, Mode::Hung, Mode::Mute] {
        let (fake, one) = registered(3).await;
        for seconds in [1, 14, 16, 60, 7200] {
            fake.set_all(mode);
            sleep(Duration::from_secs(seconds)).await;
            if seconds > 20 {
                assert_eq!(one.state(), State::Registering);
                assert!(one.report().problem.is_some());
            }
            fake.set_all(Mode::Up);
            within(TTL + BACK, "it is back", || one.is_there()).await;
            one.until(State::Registered).await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn it_never_goes_while_a_member_is_well() {
    for (members, ill, ttl) in [(3, 1, 2), (3, 1, 15), (3, 2, 15), (5, 2, 10)] {
        let fake = Fake::new(members);
        let one = One::start(&fake, &Set { ttl: Duration::from_secs(ttl), ..Set::default() });
        one.until(State::Registered).await;
        for mode in [Mode::Down, Mode::Hung, Mode::Mute] {
            for first in 0..members {
                (0..ill).for_each(|at| fake.set((first + at) % members, mode));
                always(&fake, Duration::from_secs(3 * ttl), "it is there", || one.is_there()).await;
                fake.set_all(Mode::Up);
            }
        }
        assert_eq!(one.report().losses, [0, 0, 0], "{members} members, {ill} ill, {ttl} s");
    }
}

#[tokio::test(start_paused = true)]
async fn an_etcd_that_is_slow_is_given_its_time() {
    for (members, ttl, millis) in [(1, 2, 600), (3, 2, 600), (1, 6, 1600), (3, 15, 4500)] {
        let fake = Fake::new(members);
        let delay = Duration::from_millis(millis);
        fake.slow(delay);
        let one = One::start(&fake, &Set { ttl: Duration::from_secs(ttl), ..Set::default() });
        one.within(12 * delay, State::Registered).await;
        let fine = || one.is_there() && one.state() == State::Registered;
        always(&fake, Duration::from_secs(600), "it is there", fine).await;
        let Report { losses, failures, writes, .. } = one.report();
        assert_eq!(
            (losses, failures, writes),
            ([0, 0, 0], 0, 1),
            "{members} of {millis} ms, {ttl} s"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_permission_that_is_withdrawn_does_not_cost_the_lease() {
    let (fake, one) = registered(3).await;
    fake.refuse(true);
    always(&fake, Duration::from_secs(600), "it is there", || one.is_there()).await;
    assert_eq!(one.state(), State::Registered);
    assert!(one.report().problem.unwrap().contains("permission denied"));
    one.weigh(7);
    sleep(Duration::from_secs(60)).await;
    fake.refuse(false);
    let written = || fake.get(KEY).unwrap().0.contains("\"weight\":\"7\"");
    within(TTL, "the change is written", written).await;
    fake.refuse(true);
    one.healthy(false);
    within(TTL + BACK, "it runs out when it must", || fake.keys().is_empty()).await;
}

#[tokio::test(start_paused = true)]
async fn a_change_is_written_at_once_and_survives_every_loss() {
    let (fake, one) = registered(1).await;
    let weight = |weight| {
        let fake = fake.clone();
        move || fake.get(KEY).is_some_and(|(v, _)| v.contains(&format!("\"weight\":\"{weight}\"")))
    };
    one.weigh(7);
    within(Duration::from_millis(50), "it is written", weight(7)).await;
    fake.end(fake.get(KEY).unwrap().1);
    within(BACK, "it is back", weight(7)).await;
    fake.set_all(Mode::Mute);
    one.weigh(8);
    sleep(Duration::from_secs(60)).await;
    fake.set_all(Mode::Up);
    within(TTL, "it is written", weight(8)).await;
    one.until(State::Registered).await;
    assert_eq!(one.report().losses[1..], [0, 0], "what was written unheard is our own");
}

#[tokio::test(start_paused = true)]
async fn it_leaves_at_once_and_its_task_ends() {
    let (fake, one) = registered(1).await;
    one.leave();
    within(Duration::from_millis(50), "it is gone", || fake.keys().is_empty()).await;
    within(Duration::from_millis(50), "its task has ended", || one.task.is_finished()).await;
    assert_eq!((one.state(), fake.leases()), (State::Leaving, 0));
}

#[tokio::test(start_paused = true)]
async fn one_that_leaves_while_etcd_is_away_leaves_when_it_is_back_or_its_lease_has_ended() {
    let (fake, one) = registered(1).await;
    fake.set_all(Mode::Hung);
    one.leave();
    sleep(Duration::from_secs(5)).await;
    fake.set_all(Mode::Up);
    within(TTL, "it is gone", || fake.keys().is_empty() && one.task.is_finished()).await;
    let (fake, one) = registered(1).await;
    fake.set_all(Mode::Down);
    one.leave();
    within(3 * TTL, "its task has ended", || one.task.is_finished()).await;
}

#[tokio::test(start_paused = true)]
async fn a_key_made_of_the_lease_moves_with_it_and_leaves_nothing_behind() {
    let fake = Fake::new(1);
    let one = One::start(&fake, &Set { format: "go-zero", ..Set::default() });
    one.until(State::Registered).await;
    for _ in 0..3 {
        let before = fake.keys();
        assert_eq!(before, [format!("pay/{}", fake.get(&before[0]).unwrap().1)]);
        fake.end(fake.get(&before[0]).unwrap().1);
        within(BACK, "it is back", || one.is_there()).await;
        assert_ne!(fake.keys(), before);
        one.until(State::Registered).await;
    }
}
