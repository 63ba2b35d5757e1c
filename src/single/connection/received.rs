//! What comes on a connection, frame by frame, and what it changes.

use bytes::BytesMut;
use h2::Reason;

use super::Connection;
use crate::single::{
    Error,
    frame::{Head, LOW_31, flag, kind, setting},
};

impl<T> Connection<T> {
    /// Takes a frame.
    ///
    /// # Errors
    /// What it may not be: the connection is over.
    pub(super) fn take(&mut self, frame: Head, payload: BytesMut) -> Result<(), Error> {
        if self.streams.is_none() && (frame.kind != kind::SETTINGS || frame.has(flag::ACK)) {
            return Err(Error::protocol("something before its SETTINGS"));
        }
        if self.incoming.is_within_block() && (frame.kind, frame.stream) != (kind::CONTINUATION, 1)
        {
            return Err(Error::protocol("something within a head"));
        }
        match frame.kind {
            kind::DATA | kind::HEADERS | kind::CONTINUATION | kind::RST_STREAM => {
                self.of_stream(frame, payload)
            }
            kind::SETTINGS => self.settings(frame, &payload),
            kind::PING => self.ping(frame, &payload),
            kind::GOAWAY => self.goaway(frame, &payload),
            kind::WINDOW_UPDATE => self.window_update(frame, &payload),
            kind::PUSH_PROMISE => Err(Error::protocol("a PUSH_PROMISE")),
            kind::PRIORITY if payload.len() != 5 => Err(Error::size("a PRIORITY of another size")),
            // RFC 9113 section 5.5: what is unknown is ignored.
            _ => Ok(()),
        }
    }

    fn of_stream(&mut self, frame: Head, payload: BytesMut) -> Result<(), Error> {
        if frame.stream != 1 || !self.outgoing.has_begun() {
            return Err(Error::protocol("a stream that was not opened"));
        }
        if self.incoming.is_over() {
            return Ok(());
        }
        match frame.kind {
            kind::HEADERS => self.incoming.headers(frame, payload),
            kind::CONTINUATION => self.incoming.continuation(frame, &payload),
            kind::DATA => {
                let bytes = payload.len() as u32;
                if let Some(more) = self.incoming.data(frame, payload)? {
                    self.output.window_update(1, more);
                }
                // The stream's window, which is the smaller one, says what may come.
                if self.window.receive(bytes)
                    && let Some(more) = self.window.release(bytes)
                {
                    self.output.window_update(0, more);
                }
                Ok(())
            }
            _ => {
                let code = word(&payload).ok_or(Error::size("a RST_STREAM of another size"))?;
                Err(Error::Reset(code.into()))
            }
        }
    }

    fn settings(&mut self, frame: Head, payload: &[u8]) -> Result<(), Error> {
        if frame.stream != 0 {
            return Err(Error::protocol("SETTINGS of a stream"));
        }
        if frame.has(flag::ACK) {
            return match payload.is_empty() {
                true => Ok(()),
                false => Err(Error::size("an acknowledgement of another size")),
            };
        }
        if !payload.len().is_multiple_of(6) {
            return Err(Error::size("SETTINGS of another size"));
        }
        // Without a word of it, there is no limit.
        self.streams.get_or_insert(u32::MAX);
        for setting in payload.chunks_exact(6) {
            let (id, value) = setting.split_at(2);
            let value = word(value).unwrap_or_default();
            match u16::from_be_bytes([id[0], id[1]]) {
                setting::HEADER_TABLE_SIZE => self.outgoing.resize_table(value),
                setting::MAX_CONCURRENT_STREAMS => self.streams = Some(value),
                setting::INITIAL_WINDOW_SIZE => self.outgoing.resize(value, &mut self.output)?,
                setting::MAX_FRAME_SIZE if !(1 << 14..1 << 24).contains(&value) => {
                    return Err(Error::protocol("a frame size that is not allowed"));
                }
                setting::ENABLE_PUSH if value > 0 => {
                    return Err(Error::protocol("pushes by a server"));
                }
                // What is sent is never larger than all have to take.
                _ => {}
            }
        }
        self.output.frame(kind::SETTINGS, flag::ACK, 0, &[]);
        Ok(())
    }

    fn ping(&mut self, frame: Head, payload: &[u8]) -> Result<(), Error> {
        if frame.stream != 0 {
            return Err(Error::protocol("a PING of a stream"));
        }
        if payload.len() != 8 {
            return Err(Error::size("a PING of another size"));
        }
        if !frame.has(flag::ACK) {
            self.output.frame(kind::PING, flag::ACK, 0, payload);
        }
        Ok(())
    }

    fn goaway(&mut self, frame: Head, payload: &[u8]) -> Result<(), Error> {
        if frame.stream != 0 {
            return Err(Error::protocol("GOAWAY of a stream"));
        }
        let (last, code) = (payload.get(..4).and_then(word), payload.get(4..8).and_then(word));
        let (Some(last), Some(code)) = (last, code) else {
            return Err(Error::size("a GOAWAY that is too short"));
        };
        // A stream that the last one covers is answered, or ends with the connection.
        match self.outgoing.has_begun() && last & LOW_31 >= 1 {
            true => Ok(()),
            false => Err(Error::GoAway(Reason::from(code))),
        }
    }

    fn window_update(&mut self, frame: Head, payload: &[u8]) -> Result<(), Error> {
        let more = word(payload).ok_or(Error::size("a WINDOW_UPDATE of another size"))?;
        let more = more & LOW_31;
        match frame.stream {
            0 => self.outgoing.widen(more, false, &mut self.output),
            1 if self.outgoing.has_begun() => self.outgoing.widen(more, true, &mut self.output),
            _ => Err(Error::protocol("a WINDOW_UPDATE of a stream that was not opened")),
        }
    }
}

/// A payload, or part, of four bytes.
fn word(payload: &[u8]) -> Option<u32> {
    payload.try_into().map(u32::from_be_bytes).ok()
}
