//! The rules of merging, and a model that the board must agree with whatever happens.

use std::collections::{BTreeMap, HashMap};

use proptest::prelude::*;

use super::*;
use crate::discovery::brake::Brake;
use crate::discovery::table::Item;
use crate::formats::{Reading, RejectReason};
use crate::model::{Endpoint, Record};

mod brake;

const A: Slot = Slot(0);
const B: Slot = Slot(1);

fn seat(slot: Slot) -> Seat {
    let name = format!("source{}", slot.0);
    let status = Arc::new(Status::new(name.into()));
    let brake = Brake::default();
    Seat {
        slot,
        status,
        lazy: true,
        keep: false,
        brake,
        networks: Arc::default(),
        successors: None,
        complete: false,
    }
}

fn board(seats: &[Seat]) -> (Directory, Board) {
    let directory = Directory::default();
    let mut board = Board::new(directory.clone(), Duration::ZERO);
    board.seat(seats.to_vec());
    (directory, board)
}

fn orders() -> ServiceName {
    "orders".parse().unwrap()
}

fn record(port: u16, weight: u32) -> Record {
    let address = format!("10.0.0.1:{port}").parse().unwrap();
    Record { weight, ..Record::new(address, "test") }
}

fn item(key: &str, at: i64, records: Vec<Record>) -> Item {
    Item { key: key.into(), created: 1, modified: at, value: Ok(records.into()) }
}

fn bad(key: &str, at: i64) -> Item {
    Item { key: key.into(), created: 1, modified: at, value: Err(RejectReason::Unknown) }
}

fn put(key: &str, at: i64, port: u16) -> Change {
    Change::Put(item(key, at, vec![record(port, 100)]))
}

fn delete(key: &str, at: i64) -> Change {
    Change::Delete { key: key.into(), revision: at }
}

fn apply(board: &mut Board, slot: Slot, changes: Vec<Change>) {
    board.apply(slot, &orders(), changes, None);
    board.flush(Instant::now());
}

/// Ports and weights of the service's endpoints.
fn seen(directory: &Directory) -> Vec<String> {
    let Some(service) = directory.find(&orders()) else { return vec!["unknown".to_owned()] };
    let endpoints = service.snapshot().endpoints.clone();
    let text = |endpoint: &Arc<Endpoint>| {
        let port = endpoint.record.address.as_str().rsplit(':').next().unwrap().to_owned();
        format!("{port} {} {}", endpoint.source, endpoint.key)
    };
    endpoints.iter().map(text).collect()
}

#[test]
fn the_first_source_wins_and_the_next_one_steps_in() {
    let (directory, mut board) = board(&[seat(A), seat(B)]);
    apply(&mut board, B, vec![put("b1", 1, 80), put("b2", 1, 81)]);
    let load = Arc::clone(&directory.find(&orders()).unwrap().snapshot().endpoints[0].load);
    apply(&mut board, A, vec![put("a1", 1, 80)]);
    assert_eq!(seen(&directory), ["80 source0 a1", "81 source1 b2"]);
    apply(&mut board, A, vec![delete("a1", 2)]);
    assert_eq!(seen(&directory), ["80 source1 b1", "81 source1 b2"]);
    let service = directory.find(&orders()).unwrap();
    assert!(Arc::ptr_eq(&service.snapshot().endpoints[0].load, &load), "one load for one address");
    assert!(!load.is_gone());
    apply(&mut board, B, vec![delete("b1", 3)]);
    assert!(load.is_gone());
}

#[test]
fn an_address_under_two_keys_is_one_endpoint_until_the_last_key_goes() {
    let (directory, mut board) = board(&[seat(A)]);
    apply(&mut board, A, vec![put("k1", 1, 80), put("k2", 2, 80)]);
    assert_eq!(seen(&directory), ["80 source0 k2"], "the key written last counts");
    apply(&mut board, A, vec![delete("k2", 3)]);
    assert_eq!(seen(&directory), ["80 source0 k1"]);
    apply(&mut board, A, vec![delete("k1", 4)]);
    assert!(seen(&directory).is_empty());
}

#[test]
fn a_bad_value_leaves_the_last_good_one_in_force_and_is_shown() {
    let seats = [seat(A)];
    let (directory, mut board) = board(&seats);
    apply(&mut board, A, vec![put("k1", 1, 80), Change::Put(bad("k2", 2))]);
    apply(&mut board, A, vec![Change::Put(bad("k1", 3))]);
    assert_eq!(seen(&directory), ["80 source0 k1"]);
    let snapshot = directory.find(&orders()).unwrap().snapshot().clone();
    let reasons: Vec<_> =
        snapshot.rejected.iter().map(|r| format!("{} {}", r.key, r.reason)).collect();
    let unknown = "the value is of no known format";
    let expected = [format!("k1 {unknown}; its last good value is used"), format!("k2 {unknown}")];
    assert_eq!(reasons, expected);
    assert_eq!(seats[0].status.read().rejected, 2);

    apply(&mut board, A, vec![put("k1", 4, 81), delete("k2", 5)]);
    assert_eq!(seen(&directory), ["81 source0 k1"]);
    assert!(directory.find(&orders()).unwrap().snapshot().rejected.is_empty());
    assert_eq!(seats[0].status.read().rejected, 0);
}

#[test]
fn a_key_deleted_and_made_again_while_nobody_watched_has_no_last_good_value() {
    let (directory, mut board) = board(&[seat(A)]);
    apply(&mut board, A, vec![put("k1", 5, 80), put("k2", 5, 81)]);
    let again = Item { created: 8, ..bad("k1", 8) };
    let items = vec![again, item("k2", 5, vec![record(81, 100)])];
    board.list(A, &orders(), Listing { items, revision: 9, ..Listing::default() });
    assert_eq!(seen(&directory), ["81 source0 k2"]);
}

#[test]
fn an_update_that_changes_nothing_publishes_nothing() {
    let (directory, mut board) = board(&[seat(A)]);
    apply(&mut board, A, vec![put("k1", 1, 80)]);
    let before = directory.find(&orders()).unwrap().snapshot().clone();
    apply(&mut board, A, vec![put("k1", 2, 80)]);
    let items = vec![item("k1", 2, vec![record(80, 100)])];
    board.list(A, &orders(), Listing { items, revision: 3, ..Listing::default() });
    assert!(Arc::ptr_eq(&before, &directory.find(&orders()).unwrap().snapshot()));
}

#[test]
fn a_list_is_a_difference_and_what_came_in_meanwhile_counts_after_it() {
    let (directory, mut board) = board(&[seat(A)]);
    apply(&mut board, A, vec![put("k1", 1, 80), put("k2", 2, 81)]);
    let service = directory.find(&orders()).unwrap();
    let load = Arc::clone(&service.snapshot().endpoints[1].load);
    // The list is of revision 10; k2 was put again at 11 while it was read, k3 before it.
    apply(&mut board, A, vec![put("k3", 9, 83), put("k2", 11, 81)]);
    let replay = vec![put("k3", 9, 83), put("k2", 11, 81), delete("k4", 12)];
    let items = vec![item("k4", 8, vec![record(84, 100)]), item("k5", 8, vec![record(85, 100)])];
    board.list(A, &orders(), Listing { items, replay, revision: 10, ..Listing::default() });
    assert_eq!(seen(&directory), ["81 source0 k2", "85 source0 k5"]);
    assert!(Arc::ptr_eq(&service.snapshot().endpoints[0].load, &load));
    assert!(!load.is_gone(), "an endpoint that stays never leaves in between");
    assert_eq!(service.snapshot().revision, 12);
}

#[test]
fn a_source_may_keep_its_last_non_empty_set() {
    let keeping = Seat { keep: true, ..seat(A) };
    let (directory, mut board) = board(&[keeping]);
    apply(&mut board, A, vec![put("k1", 1, 80), put("k2", 1, 81), put("k3", 1, 82)]);
    apply(&mut board, A, vec![delete("k3", 2)]);
    apply(&mut board, A, vec![delete("k1", 3), delete("k2", 3)]);
    assert_eq!(seen(&directory), ["80 source0 k1", "81 source0 k2"]);
    board.list(A, &orders(), Listing { revision: 4, ..Listing::default() });
    assert_eq!(seen(&directory), ["80 source0 k1", "81 source0 k2"]);
    apply(&mut board, A, vec![Change::Put(bad("k1", 5))]);
    assert_eq!(seen(&directory), ["80 source0 k1", "81 source0 k2"], "a bad record is no endpoint");
    apply(&mut board, A, vec![put("k9", 6, 89)]);
    assert_eq!(seen(&directory), ["89 source0 k9"]);
}

#[test]
fn a_new_history_knows_no_last_good_value() {
    let (directory, mut board) = board(&[seat(A)]);
    apply(&mut board, A, vec![put("k1", 90, 80), put("k2", 91, 81)]);
    let items = vec![bad("k1", 2), item("k2", 3, vec![record(82, 100)])];
    board.list(A, &orders(), Listing { items, revision: 3, fresh: true, ..Listing::default() });
    assert_eq!(seen(&directory), ["82 source0 k2"]);
    assert_eq!(directory.find(&orders()).unwrap().snapshot().revision, 3);
}

#[test]
fn ten_thousand_endpoints_are_the_limit_of_a_service() {
    let (directory, mut board) = board(&[seat(A)]);
    let put = |n: u32| {
        let address = format!("10.{}.{}.1:80", n / 256, n % 256).parse().unwrap();
        item(&format!("k{n:05}"), 1, vec![Record::new(address, "test")])
    };
    let items = (0..10_001).map(put).collect();
    board.list(A, &orders(), Listing { items, revision: 1, ..Listing::default() });
    let snapshot = directory.find(&orders()).unwrap().snapshot().clone();
    assert_eq!(snapshot.endpoints.len(), 10_000);
    assert!(snapshot.endpoints.is_sorted_by_key(|endpoint| endpoint.record.address.as_str()));
    assert!(snapshot.rejected[0].reason.starts_with("more than 10000"));
}

#[tokio::test(start_paused = true)]
async fn a_burst_is_published_once_and_its_first_change_at_once() {
    let directory = Directory::default();
    let mut board = Board::new(directory.clone(), Duration::from_millis(10));
    board.seat(vec![seat(A)]);
    board.apply(A, &orders(), vec![put("k1", 1, 80)], None);
    assert_eq!(board.flush(Instant::now()), None);
    assert_eq!(seen(&directory).len(), 1);
    for n in 2..50 {
        board.apply(A, &orders(), vec![put(&format!("k{n}"), n, 80 + n as u16)], None);
        assert_eq!(seen(&directory).len(), 1);
        assert!(board.flush(Instant::now()).is_some());
    }
    tokio::time::advance(Duration::from_millis(10)).await;
    assert_eq!(board.flush(Instant::now()), None);
    assert_eq!(seen(&directory).len(), 49);
}

#[tokio::test(start_paused = true)]
async fn a_part_of_a_revision_waits_for_the_rest() {
    let (directory, mut board) = board(&[seat(A)]);
    apply(&mut board, A, vec![put("k1", 1, 80)]);
    let hold = Instant::now() + Duration::from_millis(20);
    board.apply(A, &orders(), vec![delete("k1", 2)], Some(hold));
    assert_eq!(board.flush(Instant::now()), Some(hold));
    assert_eq!(seen(&directory), ["80 source0 k1"]);
    board.apply(A, &orders(), vec![put("k2", 2, 81)], None);
    assert_eq!(board.flush(Instant::now()), None);
    assert_eq!(seen(&directory), ["81 source0 k2"]);
}

#[test]
fn a_source_that_was_replaced_stays_until_its_successor_has_listed() {
    let (directory, mut board) = board(&[seat(A)]);
    directory.set_sources(Vec::new(), true);
    directory.mark_asked(&orders());
    let items = vec![item("k1", 1, vec![record(80, 100)])];
    board.list(A, &orders(), Listing { items: items.clone(), revision: 1, ..Listing::default() });
    let load = Arc::clone(&directory.get(&orders()).unwrap().snapshot().endpoints[0].load);
    board.seat(vec![seat(B)]);
    assert_eq!(seen(&directory), ["80 source0 k1"]);
    board.list(B, &orders(), Listing { items, revision: 1, ..Listing::default() });
    assert_eq!(seen(&directory), ["80 source1 k1"]);
    assert!(!load.is_gone());
    board.seat(Vec::new());
    board.flush(Instant::now());
    assert!(seen(&directory).is_empty(), "nothing came in its place");
}

#[test]
fn a_dropped_service_is_retired_and_keeps_what_eager_sources_say() {
    let eager = Seat { lazy: false, ..seat(B) };
    let (directory, mut board) = board(&[seat(A), eager]);
    apply(&mut board, A, vec![put("a1", 1, 80)]);
    apply(&mut board, B, vec![put("b1", 1, 81)]);
    let service = directory.find(&orders()).unwrap();
    board.drop_service(&orders());
    assert!(service.is_retired());
    assert_eq!(seen(&directory), ["81 source1 b1"]);
    apply(&mut board, B, vec![delete("b1", 2)]);
    board.drop_service(&orders());
    assert_eq!(seen(&directory), ["unknown"]);
}

#[tokio::test(start_paused = true)]
async fn a_service_that_no_source_knows_any_more_goes_after_its_idle_time() {
    let idle = Duration::from_secs(600);
    let (directory, mut board) = board(&[seat(A)]);
    apply(&mut board, A, vec![put("k1", 1, 80)]);
    apply(&mut board, A, vec![delete("k1", 2)]);
    tokio::time::advance(Duration::from_secs(599)).await;
    board.sweep(Instant::now(), idle);
    assert!(seen(&directory).is_empty());
    tokio::time::advance(Duration::from_secs(1)).await;
    board.sweep(Instant::now(), idle);
    assert_eq!(seen(&directory), ["unknown"]);
}

#[test]
fn a_weight_under_a_key_of_its_own_counts_whenever_it_comes_and_while_it_stays() {
    let (directory, mut board) = board(&[seat(A)]);
    let weight = |at, value: Result<u32, RejectReason>| {
        let weight_of = |weight| Reading {
            weight_of: Some(("10.0.0.1:80".to_owned(), weight)),
            ..Reading::default()
        };
        Change::Put(Item { key: "w".into(), created: 1, modified: at, value: value.map(weight_of) })
    };
    let weights = || -> Vec<u32> {
        let service = directory.find(&orders()).unwrap();
        service.snapshot().endpoints.iter().map(|endpoint| endpoint.record.weight).collect()
    };
    apply(&mut board, A, vec![weight(1, Ok(3)), put("u", 2, 80), put("v", 2, 81)]);
    assert_eq!(weights(), [3, 100]);
    apply(&mut board, A, vec![weight(3, Ok(5))]);
    assert_eq!(weights(), [5, 100]);
    apply(&mut board, A, vec![weight(4, Err(RejectReason::Unknown))]);
    assert_eq!(weights(), [5, 100], "the last good one");
    apply(&mut board, A, vec![put("u", 5, 80)]);
    assert_eq!(weights(), [5, 100]);
    apply(&mut board, A, vec![delete("w", 6)]);
    assert_eq!(weights(), [100, 100]);
}

#[test]
fn what_is_left_out_of_a_value_is_shown_beside_what_is_used() {
    let (directory, mut board) = board(&[seat(A)]);
    let left_out = Some(RejectReason::NotGrpc("x".to_owned()));
    let some = Reading { records: vec![record(80, 1)], left_out, ..Reading::default() };
    let value = |at, value| Change::Put(Item { key: "k".into(), created: 1, modified: at, value });
    apply(&mut board, A, vec![value(1, Ok(some.clone()))]);
    assert_eq!(seen(&directory), ["80 source0 k"]);
    let rejected = || directory.find(&orders()).unwrap().snapshot().rejected.clone();
    assert_eq!(rejected()[0].reason, "not an endpoint for gRPC: x");
    // It is understood, so what the key said before is over.
    apply(&mut board, A, vec![value(2, Ok(Reading { records: Vec::new(), ..some }))]);
    assert!(seen(&directory).is_empty());
    assert_eq!(rejected()[0].reason, "not an endpoint for gRPC: x");
    apply(&mut board, A, vec![put("k", 3, 80)]);
    assert!(rejected().is_empty());
}

/// One thing that a registry may do to a service.
#[derive(Clone, Debug)]
enum Step {
    Put {
        slot: u64,
        key: u8,
        ports: Vec<u16>,
        weight: u32,
    },
    Garbage {
        slot: u64,
        key: u8,
    },
    Delete {
        slot: u64,
        key: u8,
    },
    /// The source lists again what its registry holds.
    List {
        slot: u64,
    },
    /// Changes that the source never hears of, until it lists.
    Missed {
        slot: u64,
        key: u8,
        port: Option<u16>,
    },
}

fn step() -> impl Strategy<Value = Step> {
    let (slot, key) = (0..2_u64, 0..5_u8);
    let ports = prop::collection::vec(80..86_u16, 0..3);
    prop_oneof![
        4 => (slot.clone(), key.clone(), ports, 0..3_u32)
            .prop_map(|(slot, key, ports, weight)| Step::Put { slot, key, ports, weight }),
        1 => (slot.clone(), key.clone()).prop_map(|(slot, key)| Step::Garbage { slot, key }),
        2 => (slot.clone(), key.clone()).prop_map(|(slot, key)| Step::Delete { slot, key }),
        1 => slot.clone().prop_map(|slot| Step::List { slot }),
        1 => (slot, key, prop::option::of(80..86_u16))
            .prop_map(|(slot, key, port)| Step::Missed { slot, key, port }),
    ]
}

/// A registry as simple as can be: what each key holds now, and what the source made of it last.
#[derive(Default)]
struct Registry {
    stored: BTreeMap<String, Item>,
    read: BTreeMap<String, (i64, Vec<Record>)>,
}

impl Registry {
    fn store(&mut self, key: &str, at: i64, value: Result<Vec<Record>, RejectReason>) -> Item {
        let value = value.map(Reading::from);
        let created = self.stored.get(key).map_or(at, |old| old.created);
        let item = Item { key: key.into(), created, modified: at, value };
        self.stored.insert(key.to_owned(), item.clone());
        item
    }

    /// The reader's rule: a bad value leaves the last good one of the same life of the key.
    fn read(&mut self, item: &Item) {
        let key = item.key.to_string();
        let records = match (&item.value, self.read.get(&key)) {
            (Ok(reading), _) => reading.records.clone(),
            (Err(_), Some((at, records))) if item.created <= *at => records.clone(),
            (Err(_), _) => Vec::new(),
        };
        self.read.insert(key, (item.modified, records));
    }
}

/// What the merged service must look like: by address, the first source that has it; within a source
/// the key written last, and of two written at once the smaller.
fn expected(registries: &[Registry; 2]) -> Vec<(String, u32, String)> {
    let mut merged = BTreeMap::new();
    for (slot, registry) in registries.iter().enumerate() {
        let mut mine: HashMap<String, (i64, u32)> = HashMap::new();
        for (at, records) in registry.read.values() {
            for record in records {
                let held = mine.entry(record.address.to_string()).or_insert((*at, record.weight));
                if held.0 < *at {
                    *held = (*at, record.weight);
                }
            }
        }
        for (address, (_, weight)) in mine {
            merged.entry(address).or_insert_with(|| (weight, format!("source{slot}")));
        }
    }
    merged.into_iter().map(|(address, (weight, source))| (address, weight, source)).collect()
}

proptest! {
    #[test]
    fn whatever_happens_the_snapshot_equals_the_model(steps in prop::collection::vec(step(), 1..60)) {
        let seats = [seat(A), seat(B)];
        let (directory, mut board) = board(&seats);
        let mut registries = [Registry::default(), Registry::default()];
        for (at, step) in (1..).zip(steps) {
            let missed = matches!(step, Step::Missed { .. });
            let (slot, change) = match step {
                Step::Put { slot, key, ports, weight } => {
                    let mut records: Vec<_> = ports.iter().map(|port| record(*port, weight)).collect();
                    records.dedup_by(|a, b| a.address == b.address);
                    let item = registries[slot as usize].store(&key.to_string(), at, Ok(records));
                    (slot, Some(Change::Put(item)))
                }
                Step::Garbage { slot, key } => {
                    let value = Err(RejectReason::Unknown);
                    let item = registries[slot as usize].store(&key.to_string(), at, value);
                    (slot, Some(Change::Put(item)))
                }
                Step::Missed { slot, key, port: Some(port) } => {
                    let value = Ok(vec![record(port, 7)]);
                    let item = registries[slot as usize].store(&key.to_string(), at, value);
                    (slot, Some(Change::Put(item)))
                }
                Step::Delete { slot, key } | Step::Missed { slot, key, port: None } => {
                    registries[slot as usize].stored.remove(&key.to_string());
                    (slot, Some(delete(&key.to_string(), at)))
                }
                Step::List { slot } => (slot, None),
            };
            let registry = &mut registries[slot as usize];
            match change {
                _ if missed => {}
                Some(change) => {
                    match &change {
                        Change::Put(item) => registry.read(item),
                        Change::Delete { key, .. } => drop(registry.read.remove(&**key)),
                    }
                    board.apply(Slot(slot), &orders(), vec![change], None);
                }
                None => {
                    let items: Vec<_> = registry.stored.values().cloned().collect();
                    registry.read.retain(|key, _| registry.stored.contains_key(key));
                    for item in &items {
                        registry.read(item);
                    }
                    board.list(Slot(slot), &orders(), Listing { items, revision: at, ..Listing::default() });
                }
            }
            board.flush(Instant::now());
            let endpoints = directory
                .find(&orders())
                .map(|service| service.snapshot().endpoints.clone())
                .unwrap_or_default();
            let found: Vec<_> = endpoints
                .iter()
                .map(|e| (e.record.address.to_string(), e.record.weight, e.source.to_string()))
                .collect();
            prop_assert_eq!(found, expected(&registries));
            prop_assert!(endpoints.iter().all(|endpoint| !endpoint.load.is_gone()));
        }
    }
}
