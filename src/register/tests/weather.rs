//! Hours of trouble at random, from seeds: whatever has happened, it is back in time.

use fastrand::Rng;

use super::{fake::Mode, *};

/// One stroke of bad luck.
async fn strike(fake: &Fake, random: &mut Rng) {
    let member = random.usize(..3);
    match random.u8(..12) {
        0 => fake.set(member, Mode::Down),
        1 => fake.set(member, Mode::Hung),
        2 => fake.set(member, Mode::Mute),
        3 => fake.set_all(Mode::Down),
        4 => fake.set_all([Mode::Hung, Mode::Mute][random.usize(..2)]),
        5 => fake.replace(),
        6 => fake.keys().iter().for_each(|key| fake.delete(key)),
        7 => {
            fake.keys().iter().for_each(|key| fake.end(fake.get(key).map_or(0, |(_, lease)| lease)))
        }
        8 => fake.refuse(true),
        9 => fake.slow(Duration::from_millis(random.u64(1..3000))),
        10 => fake.crash(Duration::from_millis(random.u64(1..90_000))).await,
        _ => fake.deafen(true),
    }
}

#[tokio::test(start_paused = true)]
async fn whatever_happens_it_is_back_within_a_ttl_and_two_seconds() {
    for seed in 0..15 {
        let mut random = Rng::with_seed(seed);
        let ttl = Duration::from_secs(random.u64(2..=20));
        let fake = Fake::new(3);
        let format = ["etcd-naming", "go-zero", "kratos"][random.usize(..3)];
        let one = One::start(&fake, &Set { ttl, format, ..Set::default() });
        one.until(State::Registered).await;
        for _ in 0..20 {
            for _ in 0..random.usize(1..6) {
                strike(&fake, &mut random).await;
                if random.bool() {
                    one.healthy(random.bool());
                }
                // Not the default, which a record need not name.
                one.weigh(random.u32(101..1000));
                sleep(Duration::from_millis(random.u64(1..30_000))).await;
            }
            one.healthy(true);
            fake.set_all(Mode::Up);
            fake.refuse(false);
            fake.deafen(false);
            fake.slow(Duration::from_millis(1));
            let what = format!("it is back (seed {seed})");
            let weight = format!("\"{}\"", one.wish.borrow().details.weight);
            let is_right = |(value, lease): (String, i64)| {
                lease != 0 && (format == "go-zero" || value.contains(&weight))
            };
            within(ttl + BACK, &what, || {
                let keys = fake.keys();
                let there = keys.first().and_then(|key| fake.get(key)).is_some_and(is_right);
                there && one.is_there() && one.state() == State::Registered
            })
            .await;
            assert_eq!(fake.keys().len(), 1, "and nothing else (seed {seed})");
            // Forgiven, as after five minutes of calm.
            sleep(Duration::from_secs(310)).await;
        }
    }
}
