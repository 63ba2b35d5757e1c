//! A stop: first nobody finds what is registered, then nobody is served any more.

use std::time::{Duration, Instant};

use bytes::Bytes;
use rustix::process::Signal;
use tokio::{net::TcpStream, sync::oneshot};

use crate::backend::{Backend, Incoming, trailers};
use crate::client::{Answer, Client, grpc};
use crate::etcd::Etcd;
use crate::program::{Pillion, Program};
use crate::site::{KEY, record, register, registered, source, until_state};
use crate::wait::{soon, until};

async fn listens(pillion: &Pillion) -> bool {
    TcpStream::connect(pillion.address()).await.is_ok()
}

#[tokio::test]
async fn the_registration_goes_first_and_calls_go_on_meanwhile() {
    let etcd = Etcd::start().await;
    let (go_on, told) = oneshot::channel::<()>();
    let told = std::sync::Mutex::new(Some(told));
    let backend = Backend::start(move |mut call: Incoming| {
        let told = told.lock().unwrap().take();
        async move {
            let mut down = call.begin();
            // Only the first call waits.
            if let Some(told) = told {
                let _ = told.await;
            }
            down.send_data(Bytes::from_static(b"late"), false).unwrap();
            down.send_trailers(trailers(0)).unwrap();
        }
    })
    .await;
    let config = source(&[etcd.url()], "") + &register("");
    let config = format!("drain_propagation = \"4s\"\n{config}");
    let mut pillion = Program::new(&config).endpoints([backend.as_endpoint("echo")]).start().await;
    until_state(&pillion, "registered").await;
    let client = Client::connect(pillion.address()).await;
    let call = client.begin(grpc("echo")).await;
    backend.until("the call has come", |counts| counts.calls == 1).await;

    let asked = Instant::now();
    pillion.signal(Signal::TERM);
    until("the registration is gone", async || record(&etcd).await.is_none()).await;
    let gone = Instant::now();
    assert_eq!(pillion.get("/ready").await.text, "draining\n");
    while gone.elapsed() < Duration::from_millis(900) {
        assert!(client.call("echo").await.is_ok(), "calls go on over open connections");
        assert!(
            Client::connect(pillion.address()).await.call("echo").await.is_ok(),
            "and new ones"
        );
    }
    until("nobody is let in any more", async || !listens(&pillion).await).await;
    assert!(asked.elapsed() >= Duration::from_secs(4), "{:?}", asked.elapsed());
    assert!(!pillion.has_ended(), "a call is in flight");
    go_on.send(()).unwrap();
    let answer = soon("an answer", Answer::read(call.answer)).await.unwrap();
    assert_eq!((&*answer.body, answer.grpc_status()), (&b"late"[..], Some(0)));
    assert!(pillion.ended().await.success());
}

#[tokio::test]
async fn a_drain_by_the_admin_address_takes_it_out_too_and_deletes_nobody_elses_key() {
    let etcd = Etcd::start().await;
    let mut pillion = registered(&etcd).await;
    etcd.put_leased(KEY, r#"{"Addr":"10.0.0.5:9000","Metadata":"library"}"#, 60).await;
    until_state(&pillion, "shared").await;
    assert_eq!(pillion.ask("POST", "/drain").await.status, 202);
    assert!(pillion.ended().await.success());
    assert!(record(&etcd).await.unwrap().value.contains("library"));
    assert_eq!(etcd.client().await.leases().await.unwrap().leases().len(), 1);
}

#[tokio::test]
async fn a_stop_does_not_wait_for_an_etcd_that_is_away_for_long() {
    let etcd = Etcd::start().await;
    let mut pillion = registered(&etcd).await;
    etcd.freeze();
    let began = Instant::now();
    pillion.signal(Signal::TERM);
    assert!(pillion.ended().await.success());
    assert!(began.elapsed() < Duration::from_secs(7), "{:?}", began.elapsed());
    assert!(pillion.log().contains("their leases will run out"), "{}", pillion.log());
    etcd.thaw();
    until("its lease runs out", async || record(&etcd).await.is_none()).await;
}

#[tokio::test]
async fn a_second_signal_ends_it_at_once() {
    let etcd = Etcd::start().await;
    let config = "drain_propagation = \"1h\"\n".to_owned() + &source(&[etcd.url()], "");
    let mut pillion = Program::new(&(config + &register(""))).start().await;
    until_state(&pillion, "registered").await;
    pillion.signal(Signal::TERM);
    until("it is gone", async || record(&etcd).await.is_none()).await;
    assert!(listens(&pillion).await);
    pillion.signal(Signal::TERM);
    assert!(pillion.ended().await.success());
}

#[tokio::test]
async fn there_is_nothing_to_wait_for_when_nothing_is_registered() {
    let etcd = Etcd::start().await;
    let config = "drain_propagation = \"1h\"\n".to_owned() + &source(&[etcd.url()], "");
    let unhealthy = register("").replace("\"none\"", "\"tcp\", target = \"127.0.0.1:1\"");
    for register in ["", &unhealthy] {
        let mut pillion = Program::new(&(config.clone() + register)).start().await;
        pillion.signal(Signal::TERM);
        assert!(pillion.ended().await.success());
    }
}
