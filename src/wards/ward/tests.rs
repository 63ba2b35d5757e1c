use super::*;
use crate::{
    config::Percent,
    model::{Record, Rows, Trial},
};

const SECOND: Duration = Duration::from_secs(1);

/// A service whose endpoints are called as a test says.
struct Scene {
    ward: Ward,
    eject: Eject,
    now: Instant,
}

impl Scene {
    fn new(endpoints: usize) -> Self {
        let mut snapshot = Snapshot::empty("orders".parse().unwrap());
        let endpoint = |at: usize| Endpoint {
            record: Arc::new(Record::new(format!("10.0.0.{at}:80").parse().unwrap(), "test")),
            source: "main".into(),
            key: "".into(),
            load: Arc::default(),
            networks: Arc::default(),
        };
        snapshot.endpoints.extend((0..endpoints).map(|at| Arc::new(endpoint(at))));
        let now = Instant::now();
        let ward = Ward::new(Arc::new(Service::new(snapshot)), now);
        Self { ward, eject: Eject::default(), now }
    }

    fn endpoint(&self, at: usize) -> Arc<Endpoint> {
        Arc::clone(&self.ward.service.snapshot().endpoints[at])
    }

    /// An attempt of this endpoint ends: what comes of a row that it completes.
    fn ends(&mut self, at: usize, told: Told) -> Option<Event> {
        self.now += Duration::from_millis(25);
        let (endpoint, now) = (self.endpoint(at), self.now);
        let Eject { consecutive_local: broke, consecutive_errors: errs, .. } = self.eject;
        let rows = Rows { broke, errs, foreign: FOREIGN };
        let row = endpoint.load.history().note(told, rows, || now)?;
        self.ward.row(&endpoint, row, &self.eject, now)
    }

    /// So many calls end at each endpoint, of which this part fails at the first.
    fn calls(&mut self, calls: usize, every: usize) {
        let endpoints = self.ward.service.snapshot().endpoints.clone();
        for call in 0..calls {
            for (at, endpoint) in endpoints.iter().enumerate() {
                let fails = at == 0 && call % every == 0;
                let told = if fails { errs() } else { works() };
                let rows = Rows { broke: 0, errs: 0, foreign: 0 };
                endpoint.load.history().note(told, rows, || self.now);
            }
        }
    }

    fn after(&mut self, time: Duration) -> Vec<Event> {
        self.now += time;
        self.ward.look(&self.eject, self.now)
    }

    /// The one call that may try it.
    fn trial(&mut self, at: usize, told: Told) -> Option<Event> {
        let endpoint = self.endpoint(at);
        Trial::take(&endpoint.load).expect("a call may try it").is_over();
        assert!(Trial::take(&endpoint.load).is_none());
        self.ward.tried(&endpoint, told, &self.eject, self.now)
    }

    fn states(&self) -> Vec<State> {
        self.ward.service.snapshot().endpoints.iter().map(|endpoint| endpoint.state()).collect()
    }

    /// Ejects it by errors in a row, for how long.
    fn err(&mut self, at: usize) -> Option<Duration> {
        let ended = (0..5).find_map(|_| self.ends(at, errs()))?;
        let Event::Ejected(_, EjectReason::ConsecutiveErrors, _, length) = ended else {
            panic!("{ended:?}");
        };
        Some(length)
    }
}

fn orders() -> Served {
    Served::of_path("/shop.Orders/Get")
}

fn works() -> Told {
    Told::Works(orders())
}

fn errs() -> Told {
    Told::Errs(orders())
}

const READY: State = State::Ready;
const OUT: State = State::Ejected;

#[test]
fn errors_in_a_row_eject_and_one_call_that_works_readmits() {
    let mut scene = Scene::new(3);
    assert_eq!(scene.err(0), Some(30 * SECOND));
    assert_eq!(scene.states(), [OUT, READY, READY]);
    assert!(scene.after(29 * SECOND).is_empty());
    assert!(Trial::take(&scene.endpoint(0).load).is_none());
    assert!(scene.after(2 * SECOND).is_empty());
    assert_eq!(scene.states(), [OUT, READY, READY], "until a call has tried it");
    assert!(matches!(scene.trial(0, works()), Some(Event::Readmitted(_))));
    assert_eq!(scene.states(), [READY; 3]);
}

#[test]
fn each_ejection_is_longer_up_to_the_longest_and_shorter_again_after_good_times() {
    let mut scene = Scene::new(3);
    let mut length = scene.err(0).unwrap();
    for times in 2..=12 {
        scene.after(length);
        let Some(Event::Ejected(.., longer)) = scene.trial(0, errs()) else { panic!("{times}") };
        assert_eq!(longer, (30 * SECOND * times).min(300 * SECOND));
        length = longer;
    }
    scene.after(length);
    scene.trial(0, works());
    // Each `interval` one less counts: of twelve, after four, eight and this one.
    scene.after(40 * SECOND);
    assert_eq!(scene.err(0), Some(270 * SECOND));
    scene.after(270 * SECOND);
    scene.trial(0, works());
    scene.after(1000 * SECOND);
    assert_eq!(scene.err(0), Some(30 * SECOND));
}

#[test]
fn a_trial_that_nobody_finished_is_given_to_the_next_call() {
    let mut scene = Scene::new(2);
    scene.err(0);
    scene.after(31 * SECOND);
    let endpoint = scene.endpoint(0);
    drop(Trial::take(&endpoint.load));
    assert!(matches!(scene.trial(0, works()), Some(Event::Readmitted(_))));
}

#[test]
fn not_more_than_max_share_are_ejected_and_never_the_last_one() {
    let mut scene = Scene::new(5);
    assert!(scene.err(0).is_some() && scene.err(1).is_some());
    assert!(scene.err(2).is_none(), "half of five is two");
    scene.after(31 * SECOND);
    scene.trial(0, works());
    let events = scene.after(SECOND);
    assert!(matches!(&events[..], [Event::Ejected(..)]), "it still fails, and its turn has come");
    assert_eq!(scene.states(), [READY, OUT, OUT, READY, READY]);

    let mut scene = Scene::new(2);
    scene.eject.max_share = Percent::ALL;
    assert!(scene.err(0).is_some() && scene.err(1).is_none());
    let mut scene = Scene::new(3);
    scene.eject.max_share = Percent::of(1);
    assert!(scene.err(0).is_some(), "one may always go");
    assert!(Scene::new(1).err(0).is_none());
}

#[test]
fn one_that_could_not_be_connected_is_dialled_before_a_call_tries_it() {
    let mut scene = Scene::new(2);
    let ejected = (0..5).find_map(|_| scene.ends(0, Told::Broke));
    assert!(matches!(ejected, Some(Event::Ejected(_, EjectReason::ConsecutiveLocal, ..))));
    let events = scene.after(31 * SECOND);
    let [Event::Dial(endpoint)] = &events[..] else { panic!("{events:?}") };
    assert!(Trial::take(&endpoint.load).is_none());
    let (eject, now) = (scene.eject.clone(), scene.now);
    let again = scene.ward.dialled(endpoint, false, &eject, now);
    assert!(matches!(again, Some(Event::Ejected(.., length)) if length == 60 * SECOND));
    let events = scene.after(61 * SECOND);
    let [Event::Dial(endpoint)] = &events[..] else { panic!("{events:?}") };
    assert!(scene.ward.dialled(endpoint, true, &eject, scene.now).is_none());
    assert!(matches!(scene.trial(0, works()), Some(Event::Readmitted(_))));
}

#[test]
fn a_tenth_of_failures_ejects_where_the_others_have_none() {
    let mut scene = Scene::new(3);
    let mut looks = 0;
    let ejected = loop {
        looks += 1;
        scene.calls(25, 10);
        let mut events = scene.after(SECOND / 4);
        if let Some(event) = events.pop() {
            break event;
        }
    };
    let Event::Ejected(endpoint, EjectReason::FailureRate, what, _) = ejected else {
        panic!("{ejected:?}");
    };
    assert!(what.contains("% of its calls failed, of the others' 0.0 %"), "{what}");
    assert!(Arc::ptr_eq(&endpoint, &scene.endpoint(0)));
    assert!(looks <= 8, "{looks} looks of a quarter of a second");
    // Calls that were on their way when it came back are nobody's evidence.
    scene.after(31 * SECOND);
    scene.trial(0, works());
    scene.calls(1000, usize::MAX);
    assert!(scene.after(SECOND).is_empty());
}

#[test]
fn one_that_does_not_know_what_its_siblings_answer_for_is_ejected() {
    let mut scene = Scene::new(3);
    let foreign = |path| Told::Foreign(Served::of_path(path));
    for _ in 0..10 {
        assert!(scene.ends(0, foreign("/grpc.reflection.v1.ServerReflection/Info")).is_none());
        assert!(scene.ends(1, works()).is_none() && scene.ends(2, works()).is_none());
    }
    assert!(scene.after(SECOND).is_empty(), "nobody knows reflection");
    assert!(scene.ends(0, works()).is_none());
    let ejected = (0..3).find_map(|_| scene.ends(0, foreign("/shop.Orders/List")));
    let Some(Event::Ejected(_, EjectReason::WrongService, what, _)) = ejected else {
        panic!("{ejected:?}");
    };
    assert!(what.contains("that 10.0.0.1:80 answers for"), "{what}");
    scene.after(31 * SECOND);
    let again = scene.trial(0, foreign("/shop.Orders/List"));
    assert!(matches!(again, Some(Event::Ejected(_, EjectReason::WrongService, ..))));
}

#[test]
fn an_answer_that_a_sibling_gives_later_ejects_too() {
    let mut scene = Scene::new(2);
    let foreign = Told::Foreign(orders());
    assert!((0..5).find_map(|_| scene.ends(0, foreign)).is_none());
    assert!(scene.after(SECOND).is_empty());
    scene.ends(1, works());
    assert_eq!(scene.after(SECOND).len(), 1);
    assert_eq!(scene.states(), [OUT, READY]);
}

#[test]
fn rules_that_are_off_eject_nobody_and_turned_off_they_let_all_back() {
    let mut scene = Scene::new(3);
    scene.err(0);
    scene.eject = Eject { consecutive_errors: 0, failure_rate: Percent::of(0), ..Eject::default() };
    scene.calls(1000, 1);
    assert!(scene.err(1).is_none() && scene.after(SECOND).is_empty());
    scene.eject.max_share = Percent::of(0);
    assert!(scene.eject.is_off());
    assert!(matches!(&scene.after(SECOND)[..], [Event::Readmitted(_)]));
    assert_eq!(scene.states(), [READY; 3]);
}

#[test]
fn one_that_is_unhealthy_is_not_tried_before_it_is_well() {
    let mut scene = Scene::new(2);
    scene.err(0);
    let endpoint = scene.endpoint(0);
    scene.ward.service.set_unhealthy(&endpoint, Some("says so".to_owned()), scene.now);
    scene.after(100 * SECOND);
    assert!(Trial::take(&endpoint.load).is_none());
    scene.ward.service.set_unhealthy(&endpoint, None, scene.now);
    scene.after(SECOND);
    assert!(matches!(scene.trial(0, works()), Some(Event::Readmitted(_))));
}

#[test]
fn what_is_known_outlives_a_new_snapshot_for_as_long_as_the_address_stays() {
    let mut scene = Scene::new(3);
    scene.err(0);
    let snapshot = |endpoints: Vec<Arc<Endpoint>>| {
        Arc::new(Snapshot { endpoints, ..Snapshot::empty("orders".parse().unwrap()) })
    };
    let (first, second) = (scene.endpoint(0), scene.endpoint(1));
    let renewed = Arc::new(Endpoint { key: "other".into(), ..(*first).clone() });
    scene.ward.service.publish(snapshot(vec![renewed, Arc::clone(&second)]));
    scene.after(31 * SECOND);
    assert!(matches!(scene.trial(0, works()), Some(Event::Readmitted(_))));
    scene.err(0);
    scene.ward.service.publish(snapshot(vec![second]));
    assert!(scene.after(SECOND).is_empty() && !scene.ward.has_ejected());
}
