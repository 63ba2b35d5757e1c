//! Calls by a schedule (open loop) or as fast as they are answered (closed loop).
//!
//! In an open loop a call begins when it is due, whatever has become of those before it, and its
//! time counts from when it was due. So an answer that takes long is seen by all calls that would
//! have met it, and not by the one alone that did (no coordinated omission).

use std::{
    cell::Cell,
    error::Error,
    rc::Rc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use clap::Args;
use h2::client::SendRequest;
use tokio::{
    sync::mpsc::{UnboundedSender, unbounded_channel},
    task,
};

use crate::{
    alarm::Alarm,
    client::{Script, Work},
    summary::{Done, Summary},
};

/// Makes calls and sums up their times.
#[derive(Debug, Args)]
pub(crate) struct Calls {
    #[command(flatten)]
    work: Work,
    /// Calls that begin each second. Without it: as fast as they are answered.
    #[arg(long)]
    rate: Option<f64>,
    /// Calls in flight on each connection, when there is no rate.
    #[arg(long, default_value_t = 1)]
    streams: usize,
    /// For how long calls begin.
    #[arg(long, default_value_t = f64::INFINITY)]
    seconds: f64,
    /// How many begin at most.
    #[arg(long, default_value_t = usize::MAX)]
    calls: usize,
    /// The first calls, which count for no time.
    #[arg(long, default_value_t = 0)]
    skip: usize,
    /// Seconds after which a call is given up.
    #[arg(long, default_value_t = 30.0)]
    limit: f64,
}

/// What every call needs.
#[derive(Debug)]
struct Caller {
    script: Script,
    limit: Duration,
    done: UnboundedSender<Done>,
}

impl Calls {
    /// Makes the calls; returns when all have ended.
    pub(crate) async fn run(&self) -> Result<Summary, Box<dyn Error>> {
        let senders = self.work.connect().await?;
        let (done, mut all) = unbounded_channel();
        let limit = Duration::from_secs_f64(self.limit);
        let caller = Rc::new(Caller { script: self.work.script()?, limit, done });
        let began = Instant::now();
        match self.rate {
            Some(rate) => self.by_schedule(caller, &senders, began, rate).await?,
            None => self.as_answered(caller, &senders, began),
        }
        let mut calls = Vec::new();
        // All have ended when nobody is left who could send one.
        while let Some(call) = all.recv().await {
            calls.push(call);
        }
        Ok(Summary::of(calls, self.skip, began.elapsed()))
    }

    async fn by_schedule(
        &self,
        caller: Rc<Caller>,
        senders: &[SendRequest<Bytes>],
        began: Instant,
        rate: f64,
    ) -> Result<(), Box<dyn Error>> {
        let calls = self.calls.min((rate * self.seconds) as usize);
        let mut alarm = Alarm::new()?;
        for number in 0..calls {
            let due = began + Duration::from_secs_f64(number as f64 / rate);
            alarm.until(due).await?;
            let (caller, sender) = (caller.clone(), senders[number % senders.len()].clone());
            task::spawn_local(async move { caller.call(sender, number, due).await });
            if number % 32 == 0 {
                // Behind its schedule, too, this must leave room for the connections.
                task::yield_now().await;
            }
        }
        Ok(())
    }

    fn as_answered(&self, caller: Rc<Caller>, senders: &[SendRequest<Bytes>], began: Instant) {
        let (most, seconds) = (self.calls, self.seconds);
        let next = Rc::new(Cell::new(0));
        for sender in senders.iter().flat_map(|sender| vec![sender; self.streams]) {
            let (caller, sender, next) = (caller.clone(), sender.clone(), next.clone());
            task::spawn_local(async move {
                while next.get() < most && began.elapsed().as_secs_f64() < seconds {
                    let number = next.replace(next.get() + 1);
                    caller.call(sender.clone(), number, Instant::now()).await;
                }
            });
        }
    }
}

impl Caller {
    async fn call(&self, sender: SendRequest<Bytes>, number: usize, due: Instant) {
        let late = due.elapsed();
        let answered = tokio::time::timeout(self.limit, self.script.call(sender, number)).await;
        let result = answered.unwrap_or_else(|_| Err("no answer in time".to_owned()));
        // The receiver lives until all senders are gone.
        let _ = self.done.send(Done { number, late, time: due.elapsed(), wrong: result.err() });
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use http::{HeaderMap, Response};
    use tokio::{net::TcpListener, task::LocalSet};

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        calls: Calls,
    }

    /// Runs the calls against a server that takes one stream at a time and answers each after
    /// `pause`, with a body of 7 bytes; the authorities that it saw come with the summary.
    async fn run(pause: Duration, line: &str) -> (Summary, Vec<String>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let target = listener.local_addr().unwrap();
        let (seen, mut authorities) = unbounded_channel();
        let local = LocalSet::new();
        local.spawn_local(async move {
            let (socket, _) = listener.accept().await.unwrap();
            let mut builder = h2::server::Builder::new();
            builder.max_concurrent_streams(1);
            let mut connection = builder.handshake(socket).await.unwrap();
            while let Some(Ok((request, mut respond))) = connection.accept().await {
                seen.send(request.uri().authority().unwrap().to_string()).unwrap();
                task::spawn_local(async move {
                    tokio::time::sleep(pause).await;
                    let mut body = respond.send_response(Response::new(()), false).unwrap();
                    body.send_data(Bytes::from_static(b"message"), false).unwrap();
                    let mut trailers = HeaderMap::new();
                    trailers.insert("grpc-status", http::HeaderValue::from_static("0"));
                    body.send_trailers(trailers).unwrap();
                });
            }
        });
        let given = format!("calls --target {target} --path /Echo --request-bytes 9 {line}");
        let line = Line::parse_from(given.split(' '));
        let summary = local.run_until(line.calls.run()).await.unwrap();
        drop(local);
        let mut all = Vec::new();
        while let Ok(authority) = authorities.try_recv() {
            all.push(authority);
        }
        (summary, all)
    }

    #[tokio::test]
    async fn a_call_that_waits_for_one_before_it_has_waited_since_it_was_due() {
        // One after the other, 20 ms each, but due at once: the last of 5 takes 100 ms.
        let pause = Duration::from_millis(20);
        let (summary, _) = run(pause, "--response-bytes 7 --rate 1000000 --calls 5").await;
        assert_eq!((summary.calls, summary.ok), (5, 5));
        assert!(summary.max_us >= 100e3, "{summary:?}");
        assert!(summary.p50_us >= 60e3, "{summary:?}");
    }

    #[tokio::test]
    async fn a_call_that_waits_for_none_begins_when_the_one_before_it_has_ended() {
        let pause = Duration::from_millis(20);
        let (summary, _) = run(pause, "--response-bytes 7 --calls 5").await;
        assert_eq!((summary.calls, summary.ok), (5, 5));
        assert!(summary.seconds >= 0.1 && summary.mean_us <= summary.seconds * 1e6 / 5.0);
    }

    #[tokio::test]
    async fn an_answer_of_another_length_is_wrong() {
        let (summary, _) = run(Duration::ZERO, "--response-bytes 8 --calls 3").await;
        assert_eq!((summary.calls, summary.ok), (3, 0));
        assert_eq!(summary.wrong["status 200, grpc-status 0, 7 bytes"], 3);
    }

    #[tokio::test]
    async fn a_call_without_an_answer_is_given_up() {
        let pause = Duration::from_secs(3600);
        let (summary, _) = run(pause, "--response-bytes 7 --calls 1 --limit 0.05").await;
        assert_eq!(summary.wrong["no answer in time"], 1);
    }

    #[tokio::test]
    async fn services_are_called_in_turn() {
        let (summary, seen) =
            run(Duration::ZERO, "--response-bytes 7 --calls 5 --services 2").await;
        assert_eq!(summary.ok, 5);
        assert_eq!(seen, ["svc-0000", "svc-0001", "svc-0000", "svc-0001", "svc-0000"]);
    }
}
