//! What is held when most of a service vanishes at once, and for how long.

use super::*;
use crate::model::State;

const BRAKE: Brake = Brake { share: Some(50), hold: Duration::from_secs(300) };

/// Ten endpoints of a source with a brake, at ports 80 to 89 under keys 0 to 9.
fn braked() -> (Directory, Board) {
    let (directory, mut board) = board(&[Seat { brake: BRAKE, ..seat(A) }]);
    apply(&mut board, A, (0..10).map(|n| put(&n.to_string(), 1, 80 + n)).collect());
    (directory, board)
}

/// Ports by state.
fn ports(directory: &Directory, state: State) -> Vec<u16> {
    let endpoints = directory.find(&orders()).unwrap().snapshot().endpoints.clone();
    let of_state = endpoints.iter().filter(|endpoint| endpoint.state() == state);
    of_state.map(|endpoint| endpoint.record.address.port()).collect()
}

fn delete_all(board: &mut Board, keys: std::ops::Range<u16>, at: i64) {
    apply(board, A, keys.map(|n| delete(&n.to_string(), at)).collect());
}

/// Dials every suspect; those of these ports answer.
fn dial(board: &mut Board, answering: &[u16]) -> usize {
    let suspects = board.take_undialled();
    for (service, endpoint) in &suspects {
        let answers = answering.contains(&endpoint.record.address.port());
        board.dialled(service, endpoint, answers);
    }
    board.flush(Instant::now());
    suspects.len()
}

#[tokio::test(start_paused = true)]
async fn half_of_a_service_may_go_and_more_than_that_is_held() {
    let (directory, mut board) = braked();
    delete_all(&mut board, 0..5, 2);
    assert_eq!(ports(&directory, State::Ready), [85, 86, 87, 88, 89]);
    let loads: Vec<_> = {
        let snapshot = directory.find(&orders()).unwrap().snapshot().clone();
        snapshot.endpoints.iter().map(|endpoint| Arc::clone(&endpoint.load)).collect()
    };
    tokio::time::advance(Duration::from_secs(9)).await;
    delete_all(&mut board, 5..6, 3);
    assert_eq!(ports(&directory, State::Ready), [86, 87, 88, 89]);
    assert_eq!(ports(&directory, State::Suspect), [80, 81, 82, 83, 84, 85], "those before, too");
    assert!(!loads[0].is_gone() && loads[0].is_doubtful());
    delete_all(&mut board, 6..10, 4);
    assert_eq!(ports(&directory, State::Suspect).len(), 10);
    assert_eq!(board.seats[0].status.read().brakes, 1, "one alarm");
}

#[tokio::test(start_paused = true)]
async fn slow_losses_and_small_services_are_not_held() {
    let (directory, mut board) = braked();
    for n in 0..10 {
        delete_all(&mut board, n..n + 1, 2 + i64::from(n));
        tokio::time::advance(Duration::from_secs(5)).await;
    }
    assert!(seen(&directory).is_empty());
    tokio::time::advance(Duration::from_secs(5)).await;
    apply(&mut board, A, vec![put("a", 20, 80), put("b", 20, 81)]);
    apply(&mut board, A, vec![delete("a", 21), delete("b", 21)]);
    assert!(seen(&directory).is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_service_whose_endpoints_are_all_replaced_is_not_held() {
    let (directory, mut board) = braked();
    for n in 0..10 {
        apply(&mut board, A, vec![put(&format!("new{n}"), 2, 180 + n), delete(&n.to_string(), 3)]);
    }
    assert_eq!(ports(&directory, State::Ready), (180..190).collect::<Vec<_>>());
}

#[tokio::test(start_paused = true)]
async fn suspects_that_do_not_answer_go_at_once_and_the_others_when_they_were_held_long_enough() {
    let (directory, mut board) = braked();
    delete_all(&mut board, 0..8, 2);
    assert_eq!(dial(&mut board, &[80, 81]), 8);
    assert_eq!(ports(&directory, State::Suspect), [80, 81]);
    let of_80 = Arc::clone(&directory.find(&orders()).unwrap().snapshot().endpoints[0].load);
    assert!(!of_80.is_doubtful(), "it takes calls");
    assert_eq!(dial(&mut board, &[]), 0, "once is enough");
    board.doubt(&orders());
    assert_eq!(dial(&mut board, &[]), 0, "calls reach them");
    let of_81 = Arc::clone(&directory.find(&orders()).unwrap().snapshot().endpoints[1].load);
    assert!(of_81.doubt() && !of_81.doubt());
    board.doubt(&orders());
    assert_eq!(dial(&mut board, &[]), 1);
    assert_eq!(ports(&directory, State::Suspect), [80]);
    tokio::time::advance(Duration::from_secs(299)).await;
    assert!(board.flush(Instant::now()).is_some());
    assert_eq!(ports(&directory, State::Suspect), [80]);
    tokio::time::advance(Duration::from_secs(1)).await;
    assert_eq!(board.flush(Instant::now()), None);
    assert_eq!(ports(&directory, State::Suspect), [0; 0]);
    assert_eq!(ports(&directory, State::Ready), [88, 89]);
    assert!(of_80.is_gone());
}

#[tokio::test(start_paused = true)]
async fn a_suspect_that_comes_back_is_as_it_was() {
    let (directory, mut board) = braked();
    let load = Arc::clone(&directory.find(&orders()).unwrap().snapshot().endpoints[0].load);
    drop(load.pick());
    delete_all(&mut board, 0..10, 2);
    assert!(load.is_suspect());
    let suspects = board.take_undialled();
    apply(&mut board, A, vec![put("0", 3, 80)]);
    assert_eq!(ports(&directory, State::Ready), [80]);
    for (service, endpoint) in suspects {
        board.dialled(&service, &endpoint, false);
    }
    board.flush(Instant::now());
    let snapshot = directory.find(&orders()).unwrap().snapshot().clone();
    assert_eq!(snapshot.endpoints.len(), 1, "what the dial found does not matter any more");
    assert!(Arc::ptr_eq(&snapshot.endpoints[0].load, &load));
    assert_eq!((load.picks(), load.is_gone()), (1, false));
}

#[tokio::test(start_paused = true)]
async fn a_list_is_braked_as_events_are() {
    let (directory, mut board) = braked();
    let items = vec![item("9", 1, vec![record(89, 100)])];
    board.list(A, &orders(), Listing { items, revision: 5, ..Listing::default() });
    assert_eq!(ports(&directory, State::Suspect).len(), 9);
    board.drop_service(&orders());
    assert_eq!(seen(&directory), ["unknown"], "nobody calls it");
}

#[tokio::test(start_paused = true)]
async fn suspects_outlive_a_change_of_their_source_and_take_its_new_brake() {
    let (directory, mut board) = braked();
    let status = Arc::clone(&board.seats[0].status);
    delete_all(&mut board, 0..10, 2);
    dial(&mut board, &(80..90).collect::<Vec<_>>());
    tokio::time::advance(Duration::from_secs(200)).await;
    let brake = Brake { hold: Duration::from_secs(600), ..BRAKE };
    board.seat(vec![Seat { slot: B, status, brake, ..seat(B) }]);
    board.list(B, &orders(), Listing { revision: 3, ..Listing::default() });
    tokio::time::advance(Duration::from_secs(399)).await;
    board.flush(Instant::now());
    assert_eq!(ports(&directory, State::Suspect).len(), 10);
    tokio::time::advance(Duration::from_secs(1)).await;
    board.flush(Instant::now());
    assert!(seen(&directory).is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_source_that_was_removed_takes_its_suspects_along() {
    let (directory, mut board) = braked();
    delete_all(&mut board, 0..10, 2);
    board.seat(vec![seat(B)]);
    board.flush(Instant::now());
    assert!(seen(&directory).is_empty());
}
