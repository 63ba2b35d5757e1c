//! Who is asked, who waits, and when a service is let go; sources are played by the tests.

use std::time::Duration;

use tokio::time::{advance, timeout};

use super::*;
use crate::discovery::board::{Board, Seat};
use crate::discovery::brake::Brake;
use crate::discovery::status::Status;
use crate::discovery::table::{Change, Item, Listing};
use crate::model::Record;

const LIMIT: Duration = Duration::from_secs(2);

/// A directory with a desk behind it, and the far ends of what the desk talks to.
struct Office {
    directory: Directory,
    shared: Arc<Shared>,
    reports: mpsc::UnboundedSender<Report>,
    commands: mpsc::UnboundedReceiver<Command>,
    whole: mpsc::UnboundedReceiver<Command>,
}

/// Slot 0 is lazy, slot 1 is not.
const LAZY: Slot = Slot(0);
const WHOLE: Slot = Slot(1);

fn office() -> Office {
    let directory = Directory::default();
    let shared = Arc::new(Shared::new(Board::new(directory.clone(), Duration::ZERO)));
    let seat = |slot, lazy| {
        let status = Arc::new(Status::new(format!("source{slot:?}").into()));
        Seat {
            slot,
            status,
            lazy,
            keep: false,
            brake: Brake::default(),
            networks: Arc::default(),
            successors: None,
            complete: false,
        }
    };
    shared.update(|board| board.seat(vec![seat(LAZY, true), seat(WHOLE, false)]));
    let (questions, mut asked) = mpsc::unbounded_channel();
    let (reports, mut reported) = mpsc::unbounded_channel();
    let (sender, commands) = mpsc::unbounded_channel();
    let (to_whole, whole) = mpsc::unbounded_channel();
    directory.connect(questions);
    directory.set_sources(Vec::new(), true);
    let mut desk = Desk::new(directory.clone(), Arc::clone(&shared), Timing::default());
    tokio::spawn(async move { desk.run(&mut asked, &mut reported).await });
    let peer = |slot, name: &str, lazy| {
        let name = name.into();
        Peer {
            slot,
            name,
            lazy,
            reach: Reach::Unknown,
            saved: None,
            restored: false,
            commands: None,
        }
    };
    let peers = vec![peer(LAZY, "main", true), peer(WHOLE, "static", false)];
    reports.send(Report::Peers(peers)).unwrap();
    reports.send(Report::Started(LAZY, sender)).unwrap();
    reports.send(Report::Started(WHOLE, to_whole)).unwrap();
    Office { directory, shared, reports, commands, whole }
}

impl Office {
    /// Both sources can be asked.
    fn open(self) -> Self {
        self.tell(Report::Up(LAZY));
        self.tell(Report::Up(WHOLE));
        self
    }

    fn tell(&self, report: Report) {
        self.reports.send(report).unwrap();
    }

    fn put(&self, slot: Slot, name: &str) {
        let record = Record::new("10.0.0.1:80".parse().unwrap(), "test");
        let item = Item { key: "k".into(), created: 1, modified: 1, value: Ok(record.into()) };
        let changes = vec![Change::Put(item)];
        self.shared.update(|board| board.apply(slot, &name.parse().unwrap(), changes, None));
    }

    fn ask(&self, name: &str) -> tokio::task::JoinHandle<Answer> {
        let (directory, name) = (self.directory.clone(), name.parse().unwrap());
        tokio::spawn(async move { directory.resolve(&name, LIMIT).await })
    }

    /// The lazy source answers the next command, which must be to want a service.
    async fn answer_want(&mut self) -> ServiceName {
        let Some(Command::Want(name)) = self.commands.recv().await else { panic!("not a want") };
        self.tell(Report::Listed(LAZY, name.clone()));
        name
    }

    /// What an earlier process has saved of the lazy source.
    fn saved(&self, name: &str) {
        let record = Record::new("10.0.0.9:80".parse().unwrap(), "test");
        let item = Item { key: "k".into(), created: 1, modified: 1, value: Ok(record.into()) };
        let listing = Listing { items: vec![item], revision: 1, ..Listing::default() };
        let services = vec![(name.parse().unwrap(), listing)];
        self.tell(Report::Saved(LAZY, Saved { age: Duration::from_secs(60), services }));
    }

    async fn settle(&self) {
        for _ in 0..10 {
            tokio::task::yield_now().await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn concurrent_questions_share_one_and_all_are_answered() {
    let mut office = office().open();
    let asks: Vec<_> = (0..50).map(|_| office.ask("orders")).collect();
    office.settle().await;
    assert_eq!(office.commands.recv().await, Some(Command::Want("orders".parse().unwrap())));
    office.put(LAZY, "orders");
    office.tell(Report::Listed(LAZY, "orders".parse().unwrap()));
    for ask in asks {
        assert_eq!(ask.await.unwrap().unwrap().name().as_str(), "orders");
    }
    assert!(office.commands.try_recv().is_err(), "one question");
    assert!(office.directory.get(&"orders".parse().unwrap()).is_some());
}

#[tokio::test(start_paused = true)]
async fn a_service_is_absent_once_every_source_has_spoken() {
    let mut office = office();
    office.tell(Report::Up(LAZY));
    let ask = office.ask("orders");
    office.answer_want().await;
    office.settle().await;
    assert!(!ask.is_finished(), "the other source has not been read yet");
    office.tell(Report::Up(WHOLE));
    assert_eq!(ask.await.unwrap().unwrap_err(), ResolveError::Absent("orders".parse().unwrap()));
}

#[tokio::test(start_paused = true)]
async fn a_source_that_cannot_be_asked_makes_the_unknown_unavailable_at_once() {
    let office = office().open();
    office.tell(Report::Down(LAZY, "connection refused".to_owned()));
    let error = office.ask("orders").await.unwrap().unwrap_err();
    assert_eq!(error.to_string(), "service orders: source main: connection refused");
    office.put(WHOLE, "orders");
    assert!(office.ask("orders").await.unwrap().is_ok(), "another source knows it");
}

#[tokio::test(start_paused = true)]
async fn a_silent_source_is_waited_for_no_longer_than_the_limit() {
    let office = office().open();
    let started = Instant::now();
    let error = office.ask("orders").await.unwrap().unwrap_err();
    assert!(matches!(error, ResolveError::Unavailable { .. }), "{error}");
    assert_eq!(started.elapsed(), LIMIT);
    office.put(WHOLE, "orders");
    assert!(office.ask("orders").await.unwrap().is_ok(), "what is known is used");
}

#[tokio::test(start_paused = true)]
async fn a_service_known_to_one_source_is_asked_of_the_lazy_ones_too() {
    let mut office = office().open();
    office.put(WHOLE, "orders");
    let name: ServiceName = "orders".parse().unwrap();
    assert!(office.directory.get(&name).is_none(), "the lazy source may know more endpoints");
    let ask = office.ask("orders");
    office.answer_want().await;
    assert!(ask.await.unwrap().is_ok());
    assert!(office.directory.get(&name).is_some());
}

#[tokio::test(start_paused = true)]
async fn a_refusal_is_told_with_its_reason() {
    let mut office = office().open();
    let ask = office.ask("orders");
    let Some(Command::Want(name)) = office.commands.recv().await else { panic!("not a want") };
    office.tell(Report::Refused(LAZY, name.clone(), "permission denied".to_owned()));
    let error = ask.await.unwrap().unwrap_err();
    assert_eq!(error.to_string(), "service orders: source main: permission denied");
    office.tell(Report::Listed(LAZY, name));
    let error = office.ask("orders").await.unwrap().unwrap_err();
    assert!(matches!(error, ResolveError::Absent(_)), "granted since");
}

#[tokio::test(start_paused = true)]
async fn an_absent_service_stays_wanted_for_a_while_and_is_known_once_it_appears() {
    let mut office = office().open();
    let ask = office.ask("orders");
    office.answer_want().await;
    ask.await.unwrap().unwrap_err();
    advance(Duration::from_secs(20)).await;
    office.ask("orders").await.unwrap().unwrap_err();
    advance(Duration::from_secs(20)).await;
    office.settle().await;
    assert!(office.commands.try_recv().is_err(), "asked for 20 s ago");
    office.put(LAZY, "orders");
    assert!(office.directory.get(&"orders".parse().unwrap()).is_some());
}

#[tokio::test(start_paused = true)]
async fn an_absent_service_that_nobody_asks_for_is_let_go() {
    let mut office = office().open();
    let ask = office.ask("orders");
    let name = office.answer_want().await;
    ask.await.unwrap().unwrap_err();
    let forgotten = timeout(Duration::from_secs(36), office.commands.recv()).await;
    assert_eq!(forgotten.unwrap(), Some(Command::Forget(name)));
}

#[tokio::test(start_paused = true)]
async fn too_many_absent_services_are_remembered_for_a_second_only() {
    let mut office = office().open();
    for n in 0..MAX_ABSENT {
        let ask = office.ask(&format!("absent{n}"));
        office.answer_want().await;
        ask.await.unwrap().unwrap_err();
    }
    let ask = office.ask("one-more");
    let name = office.answer_want().await;
    ask.await.unwrap().unwrap_err();
    assert_eq!(office.commands.recv().await, Some(Command::Forget(name.clone())));
    let error = office.ask("one-more").await.unwrap().unwrap_err();
    assert!(matches!(error, ResolveError::Absent(_)));
    assert!(office.commands.try_recv().is_err(), "remembered");
    advance(Duration::from_secs(1)).await;
    let ask = office.ask("one-more");
    assert_eq!(office.answer_want().await, name);
    ask.await.unwrap().unwrap_err();
}

#[tokio::test(start_paused = true)]
async fn a_service_without_calls_is_retired_and_one_with_calls_stays() {
    let mut office = office().open();
    for name in ["idle", "busy"] {
        let ask = office.ask(name);
        office.put(LAZY, name);
        office.answer_want().await;
        ask.await.unwrap().unwrap();
    }
    let service = |name: &str| office.directory.get(&name.parse().unwrap());
    let (idle, busy) = (service("idle").unwrap(), service("busy").unwrap());
    for _ in 0..61 {
        busy.touch();
        advance(Duration::from_secs(10)).await;
        office.settle().await;
    }
    assert!(idle.is_retired());
    assert!(service("idle").is_none());
    assert_eq!(office.commands.try_recv(), Ok(Command::Forget("idle".parse().unwrap())));
    assert!(!busy.is_retired());
    assert!(service("busy").is_some());
}

#[tokio::test(start_paused = true)]
async fn a_source_that_starts_again_is_told_what_is_wanted() {
    let mut office = office().open();
    let ask = office.ask("orders");
    office.put(LAZY, "orders");
    let name = office.answer_want().await;
    ask.await.unwrap().unwrap();
    let (sender, mut commands) = mpsc::unbounded_channel();
    office.tell(Report::Started(LAZY, sender));
    assert_eq!(commands.recv().await, Some(Command::Want(name)));
}

#[tokio::test(start_paused = true)]
async fn every_source_is_asked_about_endpoints_in_doubt_and_only_lazy_ones_what_they_are_called_for()
 {
    let mut office = office().open();
    let ask = office.ask("orders");
    office.put(LAZY, "orders");
    let name = office.answer_want().await;
    ask.await.unwrap().unwrap();
    for _ in 0..100 {
        office.directory.doubt(&name);
        office.directory.doubt(&"unknown".parse().unwrap());
    }
    office.settle().await;
    for commands in [&mut office.commands, &mut office.whole] {
        assert_eq!(commands.try_recv(), Ok(Command::Check(name.clone())));
        assert!(commands.try_recv().is_err(), "once is enough");
    }
}

#[tokio::test(start_paused = true)]
async fn what_was_saved_is_served_once_the_source_cannot_be_asked() {
    let mut office = office();
    office.tell(Report::Up(WHOLE));
    office.saved("orders");
    let name: ServiceName = "orders".parse().unwrap();
    assert_eq!(office.commands.recv().await, Some(Command::Want(name.clone())));
    let ask = office.ask("orders");
    office.settle().await;
    assert!(!ask.is_finished() && office.directory.find(&name).is_none(), "it may still answer");
    office.tell(Report::Down(LAZY, "connection refused".to_owned()));
    assert_eq!(ask.await.unwrap().unwrap().snapshot().endpoints.len(), 1);
    assert!(office.directory.get(&name).is_some());
    let error = office.ask("pay").await.unwrap().unwrap_err();
    assert!(matches!(error, ResolveError::Unavailable { .. }), "{error}");
}

#[tokio::test(start_paused = true)]
async fn what_was_saved_is_served_when_the_source_is_late() {
    let office = office();
    office.saved("orders");
    let ask = office.ask("orders");
    office.settle().await;
    assert!(!ask.is_finished());
    office.tell(Report::Late(LAZY));
    assert!(ask.await.unwrap().is_ok());
}

#[tokio::test(start_paused = true)]
async fn what_was_saved_is_not_used_where_the_source_has_spoken() {
    let mut office = office().open();
    office.saved("orders");
    office.settle().await;
    office.shared.update(|board| {
        board.list(LAZY, &"orders".parse().unwrap(), Listing { revision: 9, ..Listing::default() })
    });
    let ask = office.ask("orders");
    office.answer_want().await;
    office.tell(Report::Late(LAZY));
    office.tell(Report::Down(LAZY, "gone since".to_owned()));
    let error = ask.await.unwrap().unwrap_err();
    assert!(matches!(error, ResolveError::Unavailable { .. }), "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_question_is_not_kept_waiting_by_a_desk_that_is_gone() {
    let directory = Directory::default();
    let name: ServiceName = "orders".parse().unwrap();
    let error = directory.resolve(&name, LIMIT).await.unwrap_err();
    assert_eq!(error, ResolveError::Absent(name.clone()), "no discovery behind it");
    let (questions, asked) = mpsc::unbounded_channel();
    directory.connect(questions);
    drop(asked);
    let error = directory.resolve(&name, LIMIT).await.unwrap_err();
    assert_eq!(error.to_string(), "service orders: discovery has stopped");
}
