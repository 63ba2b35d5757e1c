//! Who is let in at a listener, and what is said of whoever goes beyond a limit.

use std::{
    cell::{Cell, RefCell},
    collections::HashMap,
    fmt,
    io::Write,
    net::{IpAddr, Shutdown},
    os::fd::{AsRawFd, RawFd},
    rc::Rc,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use prometheus::{IntCounter, IntGauge};
use tokio::time::Instant;

use super::{Accepted, Incoming};
use crate::{
    config::ListenerLimits,
    descriptors::{self, Descriptors},
    memory::{Memory, Stage},
    metrics::Metrics,
};

/// Between two lines in the log of one thread: who floods must not flood the log.
const LOG_PAUSE: Duration = Duration::from_secs(1);

/// SETTINGS without any, and GOAWAY with ENHANCE_YOUR_CALM (RFC 9113 sections 6.5, 6.8 and 7).
const GO_AWAY: &[u8] =
    b"\0\0\0\x04\0\0\0\0\0\0\0\x1c\x07\0\0\0\0\0\0\0\0\0\0\0\0\x0btoo many connections";

/// A limit that was exceeded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Breach {
    /// `max_connections`.
    Connections,
    /// `max_connections_per_peer`.
    ConnectionsPerPeer,
    /// `max_header_size`.
    HeaderSize,
    /// `max_headers`.
    Headers,
    /// `header_timeout`.
    HeaderTimeout,
    /// `stall_timeout`.
    Stalled,
    /// `max_buffered`.
    Buffered,
    /// `max_resets`.
    Resets,
    /// `max_odd_frames`.
    OddFrames,
    /// `max_memory`.
    Memory,
    /// None: applications have as many open files as they may (`ulimit -n`).
    OpenFiles,
    /// None: a call was malformed, or beyond `max_streams`, so that h2 has reset it.
    Malformed,
    /// One that h2 has: CONTINUATION frames of a head, resets before a call is looked at, small DATA
    /// frames, a head of more than 4 MiB.
    Http2,
}

impl Breach {
    const ALL: [Self; 13] = [
        Self::Connections,
        Self::ConnectionsPerPeer,
        Self::HeaderSize,
        Self::Headers,
        Self::HeaderTimeout,
        Self::Stalled,
        Self::Buffered,
        Self::Resets,
        Self::OddFrames,
        Self::Memory,
        Self::OpenFiles,
        Self::Malformed,
        Self::Http2,
    ];

    /// The key of the limit; the label of the metric.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Connections => "max_connections",
            Self::ConnectionsPerPeer => "max_connections_per_peer",
            Self::HeaderSize => "max_header_size",
            Self::Headers => "max_headers",
            Self::HeaderTimeout => "header_timeout",
            Self::Stalled => "stall_timeout",
            Self::Buffered => "max_buffered",
            Self::Resets => "max_resets",
            Self::OddFrames => "max_odd_frames",
            Self::Memory => "max_memory",
            Self::OpenFiles => "open_files",
            Self::Malformed => "malformed",
            Self::Http2 => "http2",
        }
    }
}

/// Counts and logs for one thread.
#[derive(Debug)]
pub struct Breaches {
    counters: [IntCounter; Breach::ALL.len()],
    logged: Cell<Option<Instant>>,
}

impl Breaches {
    /// Counts in `metrics`.
    pub fn new(metrics: &Metrics) -> Self {
        let counter = |breach: Breach| metrics.downstream_limited(breach.as_str());
        Self { counters: Breach::ALL.map(counter), logged: Cell::new(None) }
    }

    /// Says that `source` went beyond a limit.
    pub fn note(&self, breach: Breach, source: Option<IpAddr>) {
        self.note_many(breach, source, 1);
    }

    /// The same, so many times.
    pub fn note_many(&self, breach: Breach, source: Option<IpAddr>, times: u32) {
        self.counters[breach as usize].inc_by(times.into());
        let (reason, peer) = (breach.as_str(), Peer(source));
        let now = Instant::now();
        if self.logged.get().is_some_and(|logged| now < logged + LOG_PAUSE) {
            return tracing::debug!(reason, %peer, "an application did what it may not");
        }
        self.logged.set(Some(now));
        tracing::warn!(reason, %peer, "an application did what it may not, see [listener.limits]");
    }
}

struct Peer(Option<IpAddr>);

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(address) => address.fmt(f),
            None => f.write_str("unix"),
        }
    }
}

/// Connections of each address that has any.
type Peers = Arc<Mutex<HashMap<IpAddr, u32>>>;

/// The limits of a listener for the connections that come from now on. Cloning shares them.
#[derive(Clone, Debug)]
pub struct NewestLimits(Rc<RefCell<Arc<ListenerLimits>>>);

impl NewestLimits {
    /// Begins with these.
    pub fn new(limits: Arc<ListenerLimits>) -> Self {
        Self(Rc::new(RefCell::new(limits)))
    }

    /// From now on these.
    pub fn set(&self, limits: Arc<ListenerLimits>) {
        *self.0.borrow_mut() = limits;
    }

    fn get(&self) -> Arc<ListenerLimits> {
        Arc::clone(&self.0.borrow())
    }
}

/// Lets connections in at one listener.
#[derive(Debug)]
pub struct Door {
    limits: NewestLimits,
    gauge: IntGauge,
    peers: Peers,
    breaches: Breaches,
    memory: Memory,
    descriptors: Descriptors,
}

/// A connection that was let in.
#[derive(Debug)]
pub struct Admitted {
    /// The connection.
    pub incoming: Incoming,
    /// What it may do.
    pub limits: Arc<ListenerLimits>,
    /// Its place.
    pub place: Place,
}

/// The place of a connection, which is free again when this is dropped.
#[derive(Debug)]
pub struct Place {
    gauge: IntGauge,
    peer: Option<(IpAddr, Peers)>,
    _descriptor: descriptors::Place,
}

impl Door {
    /// Counts the connections of a listener in `gauge`.
    pub fn new(
        limits: NewestLimits,
        gauge: IntGauge,
        metrics: &Metrics,
        memory: Memory,
        descriptors: Descriptors,
    ) -> Self {
        let (peers, breaches) = (Arc::default(), Breaches::new(metrics));
        Self { limits, gauge, peers, breaches, memory, descriptors }
    }

    /// Lets a connection in, or tells it to go away.
    pub fn admit(&self, incoming: Incoming) -> Option<Admitted> {
        let (source, limits) = (incoming.accepted.source(), self.limits.get());
        match self.place(source, incoming.accepted.as_raw_fd(), &limits) {
            Ok(place) => Some(Admitted { incoming, limits, place }),
            Err(breach) => {
                self.breaches.note(breach, source);
                incoming.turn_away();
                None
            }
        }
    }

    fn place(
        &self,
        source: Option<IpAddr>,
        socket: RawFd,
        limits: &ListenerLimits,
    ) -> Result<Place, Breach> {
        let ListenerLimits { max_connections, max_connections_per_peer, .. } = *limits;
        if self.memory.stage() >= Stage::Connections {
            return Err(Breach::Memory);
        }
        if max_connections > 0 && self.gauge.get() >= max_connections.into() {
            return Err(Breach::Connections);
        }
        let descriptor = self.descriptors.place(socket).ok_or(Breach::OpenFiles)?;
        let peer = source.filter(|_| max_connections_per_peer > 0);
        if let Some(peer) = peer {
            let mut peers = self.peers.lock().unwrap_or_else(PoisonError::into_inner);
            let count = peers.entry(peer).or_default();
            if *count >= max_connections_per_peer {
                return Err(Breach::ConnectionsPerPeer);
            }
            *count += 1;
        }
        self.gauge.inc();
        let peer = peer.map(|peer| (peer, Arc::clone(&self.peers)));
        Ok(Place { gauge: self.gauge.clone(), peer, _descriptor: descriptor })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.gauge.dec();
        if let Some((peer, peers)) = &self.peer {
            let mut peers = peers.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(count) = peers.get_mut(peer) {
                *count -= 1;
                if *count == 0 {
                    peers.remove(peer);
                }
            }
        }
    }
}

impl Accepted {
    /// Address of the application; none on a Unix socket.
    pub(super) fn source(&self) -> Option<IpAddr> {
        match self {
            Self::Tcp(stream) => stream.peer_addr().ok().map(|peer| peer.ip()),
            Self::Unix(_) => None,
        }
    }
}

impl AsRawFd for Accepted {
    fn as_raw_fd(&self) -> RawFd {
        match self {
            Self::Tcp(stream) => stream.as_raw_fd(),
            Self::Unix(stream) => stream.as_raw_fd(),
        }
    }
}

impl Incoming {
    /// Closes it: with a word, which a socket that is new has room for, unless that would have to be
    /// encrypted.
    fn turn_away(self) {
        let told = match &self.accepted {
            _ if self.tls.is_some() => return,
            Accepted::Tcp(stream) => {
                let mut stream: &std::net::TcpStream = stream;
                stream.write_all(GO_AWAY).and_then(|()| stream.shutdown(Shutdown::Write))
            }
            Accepted::Unix(stream) => {
                let mut stream: &std::os::unix::net::UnixStream = stream;
                stream.write_all(GO_AWAY).and_then(|()| stream.shutdown(Shutdown::Write))
            }
        };
        if let Err(error) = told {
            tracing::debug!(%error, "closed without a word");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn door(max_connections: u32, max_connections_per_peer: u32) -> Door {
        let limits =
            ListenerLimits { max_connections, max_connections_per_peer, ..Default::default() };
        let metrics = Metrics::new();
        Door::new(
            NewestLimits::new(Arc::new(limits)),
            metrics.downstream_connections("test"),
            &metrics,
            Memory::default(),
            Descriptors::default(),
        )
    }

    fn enter(door: &Door, source: Option<IpAddr>) -> Result<Place, Breach> {
        door.place(source, 9, &door.limits.get())
    }

    #[test]
    fn as_many_as_are_allowed_come_in_and_one_more_once_one_has_left() {
        let door = door(2, 0);
        let mut places = vec![enter(&door, None).unwrap(), enter(&door, None).unwrap()];
        assert_eq!(enter(&door, None).unwrap_err(), Breach::Connections);
        places.pop();
        assert!(enter(&door, None).is_ok());
    }

    #[test]
    fn limits_that_are_changed_are_those_of_who_comes_next() {
        let door = door(1, 0);
        let places = [enter(&door, None).unwrap()];
        assert_eq!(enter(&door, None).unwrap_err(), Breach::Connections);
        let limits = ListenerLimits { max_connections: 2, ..ListenerLimits::default() };
        door.limits.set(Arc::new(limits));
        let more = enter(&door, None).unwrap();
        assert_eq!(enter(&door, None).unwrap_err(), Breach::Connections);
        drop((places, more));
    }

    #[test]
    fn a_peer_that_has_all_its_places_leaves_those_of_others() {
        let door = door(0, 2);
        let peer = |last| Some(IpAddr::from([192, 0, 2, last]));
        let places = [enter(&door, peer(1)), enter(&door, peer(1))].map(Result::unwrap);
        assert_eq!(enter(&door, peer(1)).unwrap_err(), Breach::ConnectionsPerPeer);
        assert!(enter(&door, peer(2)).is_ok());
        assert!((0..10).all(|_| enter(&door, None).is_ok()), "no address, no such limit");
        drop(places);
        assert!(door.peers.lock().unwrap().is_empty(), "nothing is kept of a peer that has left");
    }

    #[test]
    fn what_is_turned_away_is_told_why_in_frames() {
        let text = b"too many connections";
        assert_eq!(GO_AWAY.len(), 9 + 9 + 8 + text.len());
        assert_eq!(usize::from(GO_AWAY[11]), 8 + text.len());
        assert!(GO_AWAY.ends_with(text));
    }
}
