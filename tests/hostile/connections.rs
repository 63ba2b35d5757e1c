//! Connections: too many, half-open, silent, idle and old ones.

use std::time::Duration;

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpSocket, TcpStream},
};

use crate::client::Client;
use crate::raw::{
    CONTINUATION, Flooded, Frame, GOAWAY, HEADERS, SETTINGS, Wire, grpc_fields, header_block,
};
use crate::scene::{ENHANCE_YOUR_CALM, Scene};
use crate::wait::soon;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// What has come on a connection when the other side closes it.
async fn closed(mut tcp: TcpStream) -> Vec<u8> {
    let mut came = Vec::new();
    // A reset is as good as a close.
    let _ = soon("a close", tcp.read_to_end(&mut came)).await;
    came
}

#[tokio::test]
async fn connections_beyond_the_limit_are_told_to_go_away_and_the_others_go_on() {
    let mut scene = Scene::new("max_connections = 5").await;
    let clients = [(); 3].map(|()| Client::connect(scene.address()));
    let clients = futures_util::future::join_all(clients).await;
    for client in &clients {
        assert!(client.call("echo").await.is_ok());
    }
    let fourth = Client::connect(scene.address()).await;
    assert!(fourth.call("echo").await.is_ok());
    let address = scene.address();
    let turned_away = scene.endures(async move {
        for _ in 0..200 {
            let tcp = TcpStream::connect(address).await.unwrap();
            let came = closed(tcp).await;
            assert_eq!(came.get(12..13), Some(&[GOAWAY][..]), "{came:?}");
        }
    });
    turned_away.await;
    scene.until_limited("max_connections", 200.0).await;
    for client in &clients {
        assert!(client.call("echo").await.is_ok());
    }
    drop(fourth);
    let so = |m: &crate::metrics::Metrics| m.sum("downstream_connections", &[]) == 3.0;
    scene.pillion.until_metrics("a place is free", so).await;
    assert!(Client::connect(scene.address()).await.call("echo").await.is_ok());
}

#[tokio::test]
async fn a_peer_that_has_all_its_connections_leaves_room_for_another() {
    let scene = Scene::new("max_connections_per_peer = 3").await;
    let clients = [(); 3].map(|()| Client::connect(scene.address()));
    let clients = futures_util::future::join_all(clients).await;
    for client in &clients {
        assert!(client.call("echo").await.is_ok());
    }
    let refused = closed(TcpStream::connect(scene.address()).await.unwrap()).await;
    assert!(!refused.is_empty());
    scene.until_limited("max_connections_per_peer", 1.0).await;
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.2:0".parse().unwrap()).unwrap();
    let mut other = socket.connect(scene.address()).await.unwrap();
    other.write_all(PREFACE).await.unwrap();
    other.write_all(&Frame::new(SETTINGS, 0, 0, &[]).bytes()).await.unwrap();
    let mut first = [0; 9];
    soon("SETTINGS", other.read_exact(&mut first)).await.unwrap();
    assert_eq!(first[3], SETTINGS);
}

#[tokio::test]
async fn who_does_not_come_to_the_end_of_what_it_has_begun_is_cut_off() {
    // Long enough for a bystander's preface on a busy machine.
    let mut scene = Scene::new("header_timeout = \"2s\"").await;
    let settings = Frame::new(SETTINGS, 0, 0, &[]).bytes();
    let head = Frame::headers(0, 1, &grpc_fields("echo")).bytes();
    let open = Frame::new(HEADERS, 0, 1, &header_block(&grpc_fields("echo"))).bytes();
    let more = Frame::new(CONTINUATION, 0, 1, &[]).bytes();
    let beginnings: [Vec<u8>; 7] = [
        vec![],
        PREFACE[..10].to_vec(),
        PREFACE.to_vec(),
        [PREFACE, &settings[..5]].concat(),
        [PREFACE, &settings, &head[..20]].concat(),
        [PREFACE, &settings, &open].concat(),
        [PREFACE, &settings, &open, &more].concat(),
    ];
    let address = scene.address();
    let cut_off = scene.endures(async {
        let each = beginnings.iter().map(async |beginning| {
            let mut tcp = TcpStream::connect(address).await.unwrap();
            tcp.write_all(beginning).await.unwrap();
            closed(tcp).await;
        });
        futures_util::future::join_all(each).await;
    });
    cut_off.await;
    scene.until_limited("header_timeout", beginnings.len() as f64).await;
}

#[tokio::test]
async fn a_head_that_comes_byte_by_byte_is_cut_off_with_a_reason() {
    let scene = Scene::new("header_timeout = \"1s\"").await;
    let wire = scene.wire().await;
    let head = Frame::new(HEADERS, 0, 1, &header_block(&grpc_fields("echo"))).bytes();
    let slowly =
        std::iter::once(head).chain((0..).map(|_| Frame::new(CONTINUATION, 0, 1, b"").bytes()));
    let bytes = slowly.flatten().map(|byte| vec![byte]);
    let ended = wire.flood_slowly(bytes, Duration::from_millis(5)).await;
    assert_eq!(ended, Flooded::CutOff(Some(ENHANCE_YOUR_CALM)));
}

#[tokio::test]
async fn five_hundred_silent_connections_harm_nobody() {
    let mut scene = Scene::new("header_timeout = \"2s\"").await;
    let address = scene.address();
    let silent = async move {
        let each = (0..500).map(|_| async move {
            closed(TcpStream::connect(address).await.unwrap()).await;
        });
        futures_util::future::join_all(each).await;
    };
    scene.endures(silent).await;
    scene.until_limited("header_timeout", 500.0).await;
}

#[tokio::test]
async fn a_connection_without_calls_ends_in_time_and_one_with_a_call_stays() {
    let scene = Scene::new("idle_timeout = \"1s\"").await;
    let busy = Client::connect(scene.address()).await;
    let call = busy.begin(crate::client::grpc("echo")).await;
    let mut idle = scene.wire().await;
    assert_eq!(idle.until(&[GOAWAY]).await.unwrap().code(), 0);
    while idle.receive().await.is_some() {}
    // A connection that answers no PING ends, too.
    let mut deaf = TcpStream::connect(scene.address()).await.unwrap();
    deaf.write_all(PREFACE).await.unwrap();
    deaf.write_all(&Frame::new(SETTINGS, 0, 0, &[]).bytes()).await.unwrap();
    closed(deaf).await;
    let mut call = call;
    call.body.send_data("late".into(), true).unwrap();
    let answer = soon("an answer", crate::client::Answer::read(call.answer)).await.unwrap();
    assert_eq!(answer.body, "late");
}

#[tokio::test]
async fn an_old_connection_is_told_to_go_away_and_its_calls_end_in_their_own_time() {
    let scene = Scene::new("max_age = \"1s\"").await;
    let mut wire = Wire::connect(scene.address()).await;
    wire.send(&[Frame::headers(0, 1, &grpc_fields("echo")), Frame::data(0, 1, b"one")]).await;
    assert_eq!(wire.until(&[GOAWAY]).await.unwrap().code(), 0);
    tokio::time::sleep(Duration::from_millis(50)).await;
    wire.send(&[Frame::data(1, 1, b"two")]).await;
    let answer = wire.answer(1).await;
    let body: Vec<u8> =
        answer.iter().filter(|f| f.kind == 0).flat_map(|f| f.payload.clone()).collect();
    assert_eq!(body, b"onetwo", "{answer:?}");
}
