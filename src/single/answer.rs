//! The endpoint's answer, as far as it has come.

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, Method, Response, StatusCode};

use super::{
    Error, MAX_HEADER_LIST, STREAM_WINDOW,
    block::{declared_length, head, trailers},
    frame::{Head, flag},
    hpack::Decoder,
    window::Window,
};

/// Parts of a body up to this are put together with the one before them; and how long that may become.
const SMALL: usize = 1 << 10;
const GATHERED: usize = 16 << 10;
/// Parts from this on stay where they were read, with all that was read with them.
const LARGE: usize = 4 << 10;
/// Frames that say nothing, DATA without any and heads that are no answer, of one call.
const MOST_EMPTY: u32 = 10_000;
/// Frames of one head.
const MOST_FRAMES: u32 = 100;

/// What has come, and has not been taken.
#[derive(Debug)]
pub(super) struct Incoming {
    decoder: Decoder,
    /// A block of fields of which there is more to come.
    block: Option<Box<Block>>,
    state: State,
    head: Option<Response<()>>,
    parts: VecDeque<BytesMut>,
    trailers: Option<Box<HeaderMap>>,
    window: Window,
    /// Bytes that have come and have not been released.
    held: usize,
    /// Bytes of the body that are still to come, where the head says so.
    declared: Option<u64>,
    is_head: bool,
    empty: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Head,
    Body,
    Over,
}

#[derive(Debug)]
struct Block {
    octets: BytesMut,
    ends: bool,
    frames: u32,
}

impl Incoming {
    pub(super) const fn new() -> Self {
        Self {
            decoder: Decoder::new(),
            block: None,
            state: State::Head,
            head: None,
            parts: VecDeque::new(),
            trailers: None,
            window: Window::new(STREAM_WINDOW),
            held: 0,
            declared: None,
            is_head: false,
            empty: 0,
        }
    }

    /// The call's method says how its answer is to be read.
    pub(super) fn asked_by(&mut self, method: &Method) {
        self.is_head = *method == Method::HEAD;
    }

    /// Whether all of it has come.
    pub(super) fn is_over(&self) -> bool {
        self.state == State::Over
    }

    /// Whether all of it has come, and nothing but the head is left to be taken.
    pub(super) fn is_all_taken(&self) -> bool {
        self.is_over() && self.parts.is_empty() && self.trailers.is_none()
    }

    /// Whether a block of fields has begun, which other frames must not interrupt.
    pub(super) const fn is_within_block(&self) -> bool {
        self.block.is_some()
    }

    /// Bytes of the body that have come and have not been released.
    pub(super) const fn held(&self) -> usize {
        self.held
    }

    pub(super) const fn take_head(&mut self) -> Option<Response<()>> {
        self.head.take()
    }

    pub(super) fn take_part(&mut self) -> Option<Bytes> {
        self.parts.pop_front().map(BytesMut::freeze)
    }

    pub(super) fn take_trailers(&mut self) -> Option<HeaderMap> {
        self.trailers.take().map(|trailers| *trailers)
    }

    /// So many bytes have been taken. What the endpoint is to be told, if anything.
    pub(super) fn release(&mut self, bytes: usize) -> Option<u32> {
        let bytes = bytes.min(self.held);
        self.held -= bytes;
        self.window.release(bytes as u32)
    }

    /// HEADERS.
    pub(super) fn headers(&mut self, frame: Head, mut payload: BytesMut) -> Result<(), Error> {
        frame.unpad(&mut payload)?;
        if frame.has(flag::PRIORITY) {
            if payload.len() < 5 {
                return Err(Error::size("a priority that is too short"));
            }
            let _ = payload.split_to(5);
        }
        let ends = frame.has(flag::END_STREAM);
        if frame.has(flag::END_HEADERS) {
            return self.fields(&payload, ends);
        }
        self.block =
            Some(Box::new(Block { octets: BytesMut::from(&payload[..]), ends, frames: 1 }));
        Ok(())
    }

    /// CONTINUATION.
    pub(super) fn continuation(&mut self, frame: Head, payload: &[u8]) -> Result<(), Error> {
        let Some(block) = &mut self.block else {
            return Err(Error::protocol("CONTINUATION of nothing"));
        };
        block.frames += 1;
        block.octets.extend_from_slice(payload);
        if block.frames > MOST_FRAMES || block.octets.len() > MAX_HEADER_LIST {
            return Err(Error::too_much("a head that does not end"));
        }
        match frame.has(flag::END_HEADERS).then(|| self.block.take()).flatten() {
            Some(block) => self.fields(&block.octets, block.ends),
            None => Ok(()),
        }
    }

    fn fields(&mut self, block: &[u8], ends: bool) -> Result<(), Error> {
        match self.state {
            State::Head => {
                let head = head(&mut self.decoder, block)?;
                if head.status().is_informational() {
                    if ends || head.status() == StatusCode::SWITCHING_PROTOCOLS {
                        return Err(Error::protocol("an informational head that ends the answer"));
                    }
                    return self.said_nothing();
                }
                let declared = declared_length(head.headers())?;
                self.declared = declared.filter(|_| !self.is_head);
                let has_none =
                    matches!(head.status(), StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
                if ends && has_none {
                    self.declared = None;
                }
                self.head = Some(head);
                self.state = State::Body;
            }
            State::Body if !ends => {
                return Err(Error::protocol("trailers that do not end the answer"));
            }
            State::Body => {
                let trailers = trailers(&mut self.decoder, block)?;
                self.check_length()?;
                self.trailers = Some(Box::new(trailers));
                self.state = State::Over;
                return Ok(());
            }
            State::Over => return Ok(()),
        }
        if ends { self.end() } else { Ok(()) }
    }

    /// DATA. What is to be told the endpoint of its window, if anything.
    pub(super) fn data(
        &mut self,
        frame: Head,
        mut payload: BytesMut,
    ) -> Result<Option<u32>, Error> {
        if self.state == State::Head {
            return Err(Error::protocol("DATA before a head"));
        }
        let all = payload.len();
        if !self.window.receive(all as u32) {
            return Err(Error::flow("more than the window allows"));
        }
        frame.unpad(&mut payload)?;
        let ends = frame.has(flag::END_STREAM);
        let length = payload.len();
        if let Some(declared) = &mut self.declared {
            let left = declared.checked_sub(length as u64);
            *declared = left.ok_or(Error::protocol("more than content-length"))?;
        }
        if length > 0 {
            self.held += length;
            self.add(payload);
        } else if !ends {
            self.said_nothing()?;
        }
        if ends {
            self.end()?;
        }
        // Padding is nobody's to release.
        Ok(self.window.release((all - length) as u32))
    }

    /// Keeps a part of the body, without what came with it where that is much more.
    fn add(&mut self, part: BytesMut) {
        match self.parts.back_mut() {
            Some(last) if part.len() <= SMALL && last.len() + part.len() <= GATHERED => {
                last.extend_from_slice(&part);
            }
            _ if part.len() < LARGE => self.parts.push_back(BytesMut::from(&part[..])),
            _ => self.parts.push_back(part),
        }
    }

    fn said_nothing(&mut self) -> Result<(), Error> {
        self.empty += 1;
        match self.empty > MOST_EMPTY {
            true => Err(Error::too_much("frames that say nothing")),
            false => Ok(()),
        }
    }

    fn end(&mut self) -> Result<(), Error> {
        self.check_length()?;
        self.state = State::Over;
        Ok(())
    }

    fn check_length(&self) -> Result<(), Error> {
        match self.declared {
            Some(1..) => Err(Error::protocol("less than content-length")),
            _ => Ok(()),
        }
    }
}
