//! Two registrations with one key.

use super::{fake::Mode, *};

const MINUTE: Duration = Duration::from_secs(60);

#[tokio::test(start_paused = true)]
async fn of_two_with_one_address_the_last_that_started_owns_and_the_other_takes_over() {
    let fake = Fake::new(1);
    let first = One::start(&fake, &Set::default());
    first.until(State::Registered).await;
    let second = One::start(&fake, &Set::default());
    second.until(State::Registered).await;
    first.until(State::Shared).await;
    let since = Instant::now();
    always(&fake, 60 * MINUTE, "both are found", || {
        first.state() == State::Shared && second.state() == State::Registered && first.is_there()
    })
    .await;
    assert_eq!(fake.writes_since(since), 0, "they do not answer each other");
    // A rolling restart ends: the old process leaves, and deletes nothing.
    first.leave();
    always(&fake, MINUTE, "it is there", || second.is_there()).await;
    assert!(first.task.is_finished());
}

#[tokio::test(start_paused = true)]
async fn one_takes_over_when_the_other_leaves_and_without_a_gap_when_it_dies() {
    let fake = Fake::new(1);
    let first = One::start(&fake, &Set::default());
    first.until(State::Registered).await;
    let second = One::start(&fake, &Set::default());
    first.until(State::Shared).await;
    second.leave();
    within(Duration::from_millis(100), "it is there", || first.is_there()).await;
    first.until(State::Registered).await;
    for _ in 0..10 {
        let second = One::start(&fake, &Set::default());
        first.until(State::Shared).await;
        sleep(Duration::from_secs(20)).await;
        second.task.abort();
        always(&fake, 2 * TTL, "it is there", || first.is_there()).await;
        assert_eq!(first.state(), State::Registered);
    }
}

#[tokio::test(start_paused = true)]
async fn the_same_library_that_wrote_before_and_after_us_is_left_alone() {
    let fake = Fake::new(1);
    let value = "{\"Op\":0,\"Addr\":\"10.0.0.5:9000\",\"Metadata\":null}";
    let library = fake.lend(60 * MINUTE);
    fake.put(KEY, value, library);
    let one = One::start(&fake, &Set::default());
    one.until(State::Registered).await;
    assert_ne!(fake.get(KEY).unwrap().1, library, "whoever writes last owns");
    // It renews by writing, as some do.
    let since = Instant::now();
    for _ in 0..60 {
        fake.put(KEY, value, fake.lend(Duration::from_secs(90)));
        sleep(Duration::from_secs(30)).await;
        assert_eq!(one.state(), State::Shared);
    }
    assert_eq!(fake.writes_since(since), 0);
    one.weigh(3);
    one.until(State::Registered).await;
    assert!(fake.get(KEY).unwrap().0.contains("\"weight\":\"3\""), "what an operator asks is done");
}

#[tokio::test(start_paused = true)]
async fn two_hosts_with_one_id_write_ever_more_rarely_and_say_what_is_wrong() {
    let fake = Fake::new(1);
    let began = Instant::now();
    let one = One::start(&fake, &Set::default());
    let other = One::start(&fake, &Set { address: "10.0.0.6:9000", ..Set::default() });
    sleep(MINUTE).await;
    assert!(fake.writes_since(began) <= 20, "{}", fake.writes_since(began));
    sleep(9 * MINUTE).await;
    let mut contested = 0;
    for _ in 0..60 {
        let since = Instant::now();
        sleep(MINUTE).await;
        let writes = fake.writes_since(since);
        assert!(writes <= 3, "{writes} writes in a minute");
        for (one, rival) in [(&one, "10.0.0.6:9000"), (&other, "10.0.0.5:9000")] {
            if one.state() == State::Contested {
                contested += 1;
                let problem = one.report().problem.unwrap();
                let expected = format!("pay/node-1 is held by {rival}, not by");
                assert!(problem.starts_with(&expected) && problem.contains("one id"), "{problem}");
            }
        }
    }
    assert!(contested >= 50, "one of them knows at any time: {contested}");
    other.leave();
    within(Duration::from_secs(1), "the key is ours", || one.is_there()).await;
    one.until(State::Registered).await;
}

#[tokio::test(start_paused = true)]
async fn two_with_one_key_write_rarely_through_every_trouble() {
    for address in [ADDRESS, "10.0.0.6:9000"] {
        let fake = Fake::new(3);
        let _both = [
            One::start(&fake, &Set::default()),
            One::start(&fake, &Set { address, ..Set::default() }),
        ];
        for round in 0..120 {
            let since = Instant::now();
            match round % 6 {
                0 => fake.set(round % 3, Mode::Hung),
                1 => fake.set_all(Mode::Up),
                2 => fake.set(round % 3, Mode::Down),
                3 => fake.set_all(Mode::Mute),
                4 => fake.set_all(Mode::Up),
                _ => {
                    if let Some((_, lease)) = fake.get(KEY) {
                        fake.end(lease);
                    }
                }
            }
            sleep(MINUTE).await;
            let writes = fake.writes_since(since);
            assert!(writes <= 24, "round {round}: {writes} writes in a minute");
        }
    }
}
