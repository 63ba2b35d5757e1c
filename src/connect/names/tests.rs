use std::{
    fs,
    net::{Ipv4Addr, UdpSocket},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU32, Ordering::Relaxed},
    },
    thread,
};

use tempfile::TempDir;
use tokio::time;

use super::*;

/// A DNS server that gives every name one IPv4 address with a TTL of 2 s, or nothing at all.
struct Dns {
    port: u16,
    address: Arc<Mutex<Option<Ipv4Addr>>>,
    asked: Arc<AtomicU32>,
}

impl Dns {
    fn start(first: Ipv4Addr) -> Self {
        Self::start_at("127.0.0.1:0", first)
    }

    fn start_at(listen: &str, first: Ipv4Addr) -> Self {
        let socket = UdpSocket::bind(listen).unwrap();
        let port = socket.local_addr().unwrap().port();
        let address = Arc::new(Mutex::new(Some(first)));
        let asked = Arc::new(AtomicU32::new(0));
        let (shared, count) = (Arc::clone(&address), Arc::clone(&asked));
        thread::spawn(move || {
            let mut packet = [0; 1024];
            while let Ok((_, client)) = socket.recv_from(&mut packet) {
                if let Some(address) = *shared.lock().unwrap() {
                    let (answer, is_ipv4) = answer(&packet, address);
                    count.fetch_add(u32::from(is_ipv4), Relaxed);
                    let _ = socket.send_to(&answer, client);
                }
            }
        });
        Self { port, address, asked }
    }

    /// Names of a system that asks this server.
    fn names(&self) -> (Names, TempDir) {
        let folder = tempfile::tempdir().unwrap();
        let (resolv_conf, hosts) = (folder.path().join("resolv.conf"), folder.path().join("hosts"));
        fs::write(&resolv_conf, resolv("127.0.0.1")).unwrap();
        (Names::new(System::new(resolv_conf, hosts, self.port)), folder)
    }
}

fn resolv(server: &str) -> String {
    format!("nameserver {server}\noptions attempts:0\n")
}

/// The answer to a query (RFC 1035 section 4.1), and whether that was for an IPv4 address.
fn answer(query: &[u8], address: Ipv4Addr) -> (Vec<u8>, bool) {
    let name = query[12..].iter().position(|b| *b == 0).unwrap();
    let question = &query[12..12 + name + 5];
    let is_ipv4 = question[name + 2] == 1;
    let mut answer = query[..2].to_vec();
    answer.extend([0x81, 0x80, 0, 1, 0, u8::from(is_ipv4), 0, 0, 0, 0]);
    answer.extend(question);
    if is_ipv4 {
        answer.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 2, 0, 4]);
        answer.extend(address.octets());
    }
    (answer, is_ipv4)
}

async fn find(names: &Names) -> IpAddr {
    names.find("orders.internal.").await.unwrap()[0]
}

#[tokio::test]
async fn an_answer_is_used_for_its_ttl_and_then_asked_for_again() {
    let (one, two) = (Ipv4Addr::new(10, 0, 0, 1), Ipv4Addr::new(10, 0, 0, 2));
    let dns = Dns::start(one);
    let (names, _folder) = dns.names();
    for _ in 0..100 {
        assert_eq!(find(&names).await, one);
    }
    assert_eq!(dns.asked.load(Relaxed), 1);
    *dns.address.lock().unwrap() = Some(two);
    assert_eq!(find(&names).await, one);
    end_of_ttl(&names);
    assert_eq!(find(&names).await, two);
    assert_eq!(dns.asked.load(Relaxed), 2);
}

#[tokio::test]
async fn the_last_answer_outlives_a_dns_that_does_not_answer() {
    let dns = Dns::start(Ipv4Addr::new(10, 0, 0, 1));
    let (names, _folder) = dns.names();
    let before = find(&names).await;
    *dns.address.lock().unwrap() = None;
    end_of_ttl(&names);
    assert_eq!(find(&names).await, before);
    assert!(names.find("never.seen.").await.is_err());
}

#[tokio::test]
async fn a_name_that_is_over_is_asked_for_by_one_call_at_a_time() {
    let dns = Dns::start(Ipv4Addr::new(10, 0, 0, 1));
    let (names, _folder) = dns.names();
    find(&names).await;
    end_of_ttl(&names);
    let calls: Vec<_> = (0..50).map(|_| find(&names)).collect();
    futures_util::future::join_all(calls).await;
    assert_eq!(dns.asked.load(Relaxed), 2);
}

#[tokio::test]
async fn another_server_in_resolv_conf_is_asked_and_the_last_answers_outlive_its_absence() {
    let (one, two) = (Ipv4Addr::new(10, 0, 0, 1), Ipv4Addr::new(10, 0, 0, 2));
    let dns = Dns::start(one);
    let (names, folder) = dns.names();
    let path = folder.path().join("resolv.conf");
    assert_eq!(find(&names).await, one);
    // Nobody listens there; the next two are no files that can be used.
    for text in [&resolv("127.0.0.33"), "", "nameserver nobody\n"] {
        fs::write(&path, text).unwrap();
        look_now(&names);
        assert_eq!(find(&names).await, one);
    }
    fs::remove_file(&path).unwrap();
    look_now(&names);
    assert_eq!(find(&names).await, one);
    assert_eq!(dns.asked.load(Relaxed), 1);
    let other = Dns::start_at(&format!("127.0.0.2:{}", dns.port), two);
    fs::write(&path, resolv("127.0.0.2")).unwrap();
    look_now(&names);
    assert_eq!(find(&names).await, two);
    assert_eq!((dns.asked.load(Relaxed), other.asked.load(Relaxed)), (1, 1));
}

#[tokio::test]
async fn hosts_are_read_again_when_they_change_and_not_otherwise() {
    let dns = Dns::start(Ipv4Addr::new(10, 0, 0, 1));
    let (names, folder) = dns.names();
    let path = folder.path().join("hosts");
    for address in ["10.0.0.7", "10.0.0.80"] {
        fs::write(&path, format!("{address} orders.internal # the one\n")).unwrap();
        look_now(&names);
        assert_eq!(find(&names).await.to_string(), address);
        let until = names.known.borrow()["orders.internal."].until;
        look_now(&names);
        assert_eq!(find(&names).await.to_string(), address);
        assert_eq!(names.known.borrow()["orders.internal."].until, until, "asked once");
    }
    fs::remove_file(&path).unwrap();
    look_now(&names);
    assert_eq!(find(&names).await.to_string(), "10.0.0.1");
    assert_eq!(dns.asked.load(Relaxed), 1);
}

#[tokio::test(start_paused = true)]
async fn files_are_looked_at_once_a_second_at_most() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("resolv.conf");
    let mut system = System::new(path.clone(), folder.path().join("hosts"), 53);
    assert!(system.has_changed(Instant::now()), "never read");
    fs::write(&path, "nameserver 10.0.0.1").unwrap();
    assert!(!system.has_changed(Instant::now()));
    time::advance(Duration::from_secs(1)).await;
    assert!(system.has_changed(Instant::now()));
    time::advance(Duration::from_secs(1)).await;
    assert!(!system.has_changed(Instant::now()), "nothing new");
}

/// As if a second had gone by.
fn look_now(names: &Names) {
    names.system.borrow_mut().look_at = Instant::now();
}

/// As if the time of all answers were over, at once.
fn end_of_ttl(names: &Names) {
    for known in names.known.borrow_mut().values_mut() {
        assert!(known.until <= Instant::now() + Duration::from_secs(2));
        known.until = Instant::now();
    }
}
