//! HTTP/2 frame by frame, for what no library would send or show.

use std::{io, iter, net::SocketAddr, sync::Arc, time::Duration};

use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    time::sleep,
};

use crate::wait::{SOON, soon};

/// Client connection preface, RFC 9113 section 3.4.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

pub(crate) const DATA: u8 = 0;
pub(crate) const HEADERS: u8 = 1;
pub(crate) const PRIORITY: u8 = 2;
pub(crate) const RST_STREAM: u8 = 3;
pub(crate) const SETTINGS: u8 = 4;
pub(crate) const PUSH_PROMISE: u8 = 5;
pub(crate) const PING: u8 = 6;
pub(crate) const GOAWAY: u8 = 7;
pub(crate) const WINDOW_UPDATE: u8 = 8;
pub(crate) const CONTINUATION: u8 = 9;

pub(crate) const END_STREAM: u8 = 1;
pub(crate) const ACK: u8 = 1;
pub(crate) const END_HEADERS: u8 = 4;
pub(crate) const PADDED: u8 = 8;

/// One frame, RFC 9113 section 4.1.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Frame {
    pub(crate) kind: u8,
    pub(crate) flags: u8,
    pub(crate) stream: u32,
    pub(crate) payload: Vec<u8>,
}

impl Frame {
    pub(crate) fn new(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Self {
        Self { kind, flags, stream, payload: payload.to_vec() }
    }

    /// The whole head of a request or answer; not compressed.
    pub(crate) fn headers(flags: u8, stream: u32, fields: &[(&str, &str)]) -> Self {
        Self::new(HEADERS, flags | END_HEADERS, stream, &header_block(fields))
    }

    pub(crate) fn data(flags: u8, stream: u32, payload: &[u8]) -> Self {
        Self::new(DATA, flags, stream, payload)
    }

    pub(crate) fn reset(stream: u32, code: u32) -> Self {
        Self::new(RST_STREAM, 0, stream, &code.to_be_bytes())
    }

    pub(crate) fn go_away(last_stream: u32, code: u32) -> Self {
        Self::new(GOAWAY, 0, 0, &[last_stream.to_be_bytes(), code.to_be_bytes()].concat())
    }

    pub(crate) fn window_update(stream: u32, bytes: u32) -> Self {
        Self::new(WINDOW_UPDATE, 0, stream, &bytes.to_be_bytes())
    }

    /// So many of it, in pieces of a thousand.
    pub(crate) fn times(&self, count: usize) -> Vec<Vec<u8>> {
        vec![self.bytes().repeat(1_000.min(count)); count.div_ceil(1_000)]
    }

    pub(crate) const fn ends_stream(&self) -> bool {
        self.flags & END_STREAM != 0
    }

    /// Error code of RST_STREAM and GOAWAY.
    pub(crate) fn code(&self) -> u32 {
        u32::from_be_bytes(*self.payload[self.payload.len().min(8) - 4..].first_chunk().unwrap())
    }

    /// As it goes over the wire.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        let length = u32::try_from(self.payload.len()).unwrap().to_be_bytes();
        let head = [self.kind, self.flags];
        [&length[1..], &head, &self.stream.to_be_bytes(), &self.payload].concat()
    }
}

/// Fields as HPACK literals that are not indexed, nor Huffman coded (RFC 7541 section 6.2.2).
pub(crate) fn header_block(fields: &[(&str, &str)]) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in fields {
        block.push(0);
        for text in [name, value] {
            block.extend(length(text.len()));
            block.extend_from_slice(text.as_bytes());
        }
    }
    block
}

/// Fields, and one that takes a byte each `times` it is named again: the `first` block of a connection puts it into
/// the table of the other side (RFC 7541 section 6.2.1), where it is the newest entry (section 6.1).
pub(crate) fn packed_block(
    fields: &[(&str, &str)],
    named: (&str, &str),
    first: bool,
    times: usize,
) -> Vec<u8> {
    let mut block = header_block(fields);
    if first {
        let mut literal = header_block(&[named]);
        literal[0] = 0x40;
        block.extend(literal);
    }
    block.extend(iter::repeat_n(0x80 | 62, times));
    block
}

/// A length as HPACK writes it before a string that is not Huffman coded (RFC 7541 section 5.1).
fn length(length: usize) -> Vec<u8> {
    if length < 127 {
        return vec![length as u8];
    }
    let mut rest = length - 127;
    let more = iter::from_fn(|| {
        let byte = (rest > 0).then_some((rest % 128) as u8 | if rest >= 128 { 128 } else { 0 })?;
        rest /= 128;
        Some(byte)
    });
    let more: Vec<_> = more.collect();
    iter::once(127).chain(if more.is_empty() { vec![0] } else { more }).collect()
}

/// Pseudo-headers and headers of a gRPC call to `authority`.
pub(crate) fn grpc_fields(authority: &str) -> [(&str, &str); 6] {
    [
        (":method", "POST"),
        (":scheme", "http"),
        (":authority", authority),
        (":path", "/pillion.test.Echo/Unary"),
        ("content-type", "application/grpc"),
        ("te", "trailers"),
    ]
}

/// How a flood ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Flooded {
    /// All of it was taken, and a PING behind it answered.
    Taken,
    /// It was cut off: with the code of a GOAWAY, or without.
    CutOff(Option<u32>),
}

/// One side of a connection.
#[derive(Debug)]
pub(crate) struct Wire(TcpStream);

impl Wire {
    /// A client that has sent preface and SETTINGS.
    pub(crate) async fn connect(address: SocketAddr) -> Self {
        let mut tcp = TcpStream::connect(address).await.unwrap();
        tcp.set_nodelay(true).unwrap();
        tcp.write_all(PREFACE).await.unwrap();
        let mut wire = Self(tcp);
        wire.send(&[Frame::new(SETTINGS, 0, 0, &[])]).await;
        wire
    }

    /// The same, where the proxy may not let it in.
    pub(crate) async fn try_connect(address: SocketAddr) -> Option<Self> {
        let mut tcp = TcpStream::connect(address).await.ok()?;
        tcp.set_nodelay(true).ok()?;
        let settings = Frame::new(SETTINGS, 0, 0, &[]).bytes();
        tcp.write_all(&[PREFACE, &settings].concat()).await.ok()?;
        Some(Self(tcp))
    }

    /// The server's side of a connection: reads the preface and sends SETTINGS.
    async fn accepted(mut tcp: TcpStream) -> io::Result<Self> {
        tcp.set_nodelay(true)?;
        let mut preface = [0; PREFACE.len()];
        tcp.read_exact(&mut preface).await?;
        assert_eq!(preface, PREFACE);
        tcp.write_all(&Frame::new(SETTINGS, 0, 0, &[]).bytes()).await?;
        Ok(Self(tcp))
    }

    /// Sends frames in one write.
    pub(crate) async fn send(&mut self, frames: &[Frame]) {
        let bytes: Vec<u8> = frames.iter().flat_map(Frame::bytes).collect();
        self.0.write_all(&bytes).await.unwrap();
    }

    /// Sends frames and waits until the other side has read them; the code of its GOAWAY if it has had
    /// enough, none if it closes without one.
    pub(crate) async fn pass(&mut self, frames: &[Frame]) -> Result<(), Option<u32>> {
        let ping = Frame::new(PING, 0, 0, b"read-it?");
        let bytes: Vec<u8> = frames.iter().chain([&ping]).flat_map(Frame::bytes).collect();
        // What went wrong, the next read tells.
        let _ = self.0.write_all(&bytes).await;
        loop {
            match self.receive().await {
                Some(frame) if frame.kind == GOAWAY => return Err(Some(frame.code())),
                Some(frame) if frame.kind == PING && frame.flags & ACK != 0 => return Ok(()),
                Some(_) => {}
                None => return Err(None),
            }
        }
    }

    /// The next frame; none at the end of the connection. SETTINGS and PING are answered.
    pub(crate) async fn receive(&mut self) -> Option<Frame> {
        let frame = soon("a frame", self.read()).await.ok()?;
        if matches!(frame.kind, SETTINGS | PING) && frame.flags & ACK == 0 {
            let payload = if frame.kind == PING { &*frame.payload } else { &[] };
            let ack = Frame::new(frame.kind, ACK, 0, payload);
            // The other side may have closed meanwhile, which the next read tells.
            let _ = self.0.write_all(&ack.bytes()).await;
        }
        Some(frame)
    }

    /// The next frame of one of these kinds.
    pub(crate) async fn until(&mut self, kinds: &[u8]) -> Option<Frame> {
        loop {
            let frame = self.receive().await?;
            if kinds.contains(&frame.kind) {
                return Some(frame);
            }
        }
    }

    /// Frames of a stream up to the one that ends it, without WINDOW_UPDATE.
    pub(crate) async fn answer(&mut self, stream: u32) -> Vec<Frame> {
        let mut frames = Vec::new();
        while let Some(frame) = self.until(&[DATA, HEADERS, RST_STREAM]).await {
            if frame.stream == stream {
                let ends = frame.ends_stream() || frame.kind == RST_STREAM;
                frames.push(frame);
                if ends {
                    break;
                }
            }
        }
        frames
    }

    /// Sends all of `pieces`, reading what comes meanwhile, until it is cut off.
    pub(crate) async fn flood(self, pieces: impl IntoIterator<Item = Vec<u8>>) -> Flooded {
        self.flood_slowly(pieces, Duration::ZERO).await
    }

    /// The same, with a pause behind each piece.
    pub(crate) async fn flood_slowly(
        self,
        pieces: impl IntoIterator<Item = Vec<u8>>,
        pause: Duration,
    ) -> Flooded {
        const MARK: &[u8] = b"the-last";
        let (mut reader, mut writer) = self.0.into_split();
        let writing = async {
            for piece in pieces.into_iter().chain([Frame::new(PING, 0, 0, MARK).bytes()]) {
                if writer.write_all(&piece).await.is_err() {
                    break;
                }
                if !pause.is_zero() {
                    sleep(pause).await;
                }
            }
            // Not closed before the other side has had its say.
            std::future::pending::<()>().await;
        };
        let reading = async {
            let mut code = None;
            while let Ok(frame) = read_frame(&mut reader).await {
                match frame.kind {
                    GOAWAY => code = Some(frame.code()),
                    PING if frame.payload == MARK => return Flooded::Taken,
                    _ => {}
                }
            }
            Flooded::CutOff(code)
        };
        let ended = async {
            tokio::select! {
                () = writing => unreachable!("it waits for ever"),
                ended = reading => ended,
            }
        };
        // Much is to be read, and others may use the machine.
        tokio::time::timeout(6 * SOON, ended).await.expect("the end of a flood")
    }

    /// Closes it as a killed process does, with a TCP reset.
    pub(crate) fn abort(self) {
        self.0.set_zero_linger().unwrap();
    }

    async fn read(&mut self) -> io::Result<Frame> {
        read_frame(&mut self.0).await
    }
}

async fn read_frame(from: &mut (impl AsyncRead + Unpin)) -> io::Result<Frame> {
    let mut head = [0; 9];
    from.read_exact(&mut head).await?;
    let [a, b, c, kind, flags, stream @ ..] = head;
    let mut payload = vec![0; u32::from_be_bytes([0, a, b, c]) as usize];
    from.read_exact(&mut payload).await?;
    Ok(Frame { kind, flags, stream: u32::from_be_bytes(stream), payload })
}

/// A server on a free port, until the end of the test. `each` is given every connection once preface
/// and SETTINGS are exchanged.
pub(crate) async fn serve<F>(each: impl Fn(Wire) -> F + Send + Sync + 'static) -> SocketAddr
where
    F: Future<Output = ()> + Send + 'static,
{
    let each = Arc::new(each);
    serve_tcp(move |tcp| {
        let each = Arc::clone(&each);
        async move {
            // The proxy may close a connection before it has used it.
            if let Ok(wire) = Wire::accepted(tcp).await {
                each(wire).await;
            }
        }
    })
    .await
}

/// An endpoint that answers one call of each connection with the frames made for its stream.
pub(crate) async fn answering(
    frames: impl Fn(u32) -> Vec<Frame> + Send + Sync + 'static,
) -> SocketAddr {
    let frames = Arc::new(frames);
    serve(move |mut wire| {
        let frames = Arc::clone(&frames);
        async move {
            if let Some(head) = wire.until(&[HEADERS]).await {
                let _ = wire.pass(&frames(head.stream)).await;
                // Until the proxy closes the connection.
                while wire.receive().await.is_some() {}
            }
        }
    })
    .await
}

/// The same, before HTTP/2.
pub(crate) async fn serve_tcp<F>(each: impl Fn(TcpStream) -> F + Send + 'static) -> SocketAddr
where
    F: Future<Output = ()> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (tcp, _) = listener.accept().await.unwrap();
            tokio::spawn(each(tcp));
        }
    });
    address
}
