use std::{
    net::{Ipv4Addr, UdpSocket},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU32, Ordering::Relaxed},
    },
    thread,
};

use hickory_resolver::{
    Resolver,
    config::{ConnectionConfig, NameServerConfig, ResolverConfig},
    net::runtime::TokioRuntimeProvider,
};

use super::*;

/// A DNS server that gives every name one IPv4 address with a TTL of 2 s, or nothing at all.
struct Dns {
    port: u16,
    address: Arc<Mutex<Option<Ipv4Addr>>>,
    asked: Arc<AtomicU32>,
}

impl Dns {
    fn start(first: Ipv4Addr) -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
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

    fn names(&self) -> Names {
        let mut connection = ConnectionConfig::udp();
        connection.port = self.port;
        let server = NameServerConfig::new([127, 0, 0, 1].into(), true, vec![connection]);
        let config = ResolverConfig::from_name_servers(vec![server]);
        let mut builder = Resolver::builder_with_config(config, TokioRuntimeProvider::default());
        tune(builder.options_mut());
        builder.options_mut().attempts = 0;
        Names::new(Some(builder.build().unwrap()))
    }
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
    let names = dns.names();
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
    let names = dns.names();
    let before = find(&names).await;
    *dns.address.lock().unwrap() = None;
    end_of_ttl(&names);
    assert_eq!(find(&names).await, before);
    assert!(names.find("never.seen.").await.is_err());
}

#[tokio::test]
async fn a_name_that_is_over_is_asked_for_by_one_call_at_a_time() {
    let dns = Dns::start(Ipv4Addr::new(10, 0, 0, 1));
    let names = dns.names();
    find(&names).await;
    end_of_ttl(&names);
    let calls: Vec<_> = (0..50).map(|_| find(&names)).collect();
    futures_util::future::join_all(calls).await;
    assert_eq!(dns.asked.load(Relaxed), 2);
}

/// As if the time of all answers were over, at once.
fn end_of_ttl(names: &Names) {
    for known in names.known.borrow_mut().values_mut() {
        assert!(known.until <= Instant::now() + Duration::from_secs(2));
        known.until = Instant::now();
    }
}
