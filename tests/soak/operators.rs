//! Those who look: a scrape five times a second, each page of the admin address, and one that reads slowly or
//! goes away in the middle.

use std::{
    sync::atomic::{AtomicUsize, Ordering::Relaxed},
    time::Duration,
};

use fastrand::Rng;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::watch,
    time::{sleep, timeout},
};

use crate::admin::ask;

const PAGES: [&str; 8] = [
    "/metrics",
    "/ready",
    "/services",
    "/services/pooled",
    "/config",
    "/calls?limit=100",
    "/registrations",
    "/why?authority=fresh&path=/a.B/C",
];

/// Asks until told to stop; `asked` counts.
pub(crate) async fn look(admin: String, mut stopped: watch::Receiver<bool>, asked: &AtomicUsize) {
    let mut random = Rng::with_seed(5);
    while !*stopped.borrow_and_update() {
        let page = *random.choice(&PAGES).unwrap();
        if random.u8(..10) == 0 {
            go_away(&admin, page).await;
        } else {
            let answer = ask(&admin, "GET", page).await;
            assert_eq!(answer.status, 200, "{page}: {}", answer.text);
        }
        asked.fetch_add(1, Relaxed);
        let _ = timeout(Duration::from_millis(200), stopped.changed()).await;
    }
}

/// Reads a little, slowly, and closes.
async fn go_away(admin: &str, page: &str) {
    let mut operator = TcpStream::connect(admin).await.unwrap();
    let request = format!("GET {page} HTTP/1.1\r\nhost: localhost\r\n\r\n");
    operator.write_all(request.as_bytes()).await.unwrap();
    let mut some = [0; 64];
    for _ in 0..4 {
        operator.read_exact(&mut some).await.unwrap();
        sleep(Duration::from_millis(20)).await;
    }
}
