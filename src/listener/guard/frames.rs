//! What kinds of frames go by: their heads are looked at, never what is in them.

/// Length of the client's preface (RFC 9113 section 3.4), and of a frame's head (section 4.1).
const PREFACE: u32 = 24;
const HEAD: usize = 9;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const CONTINUATION: u8 = 9;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

/// Trailers may be as long as this for nothing: a byte can name an entry of the HPACK table, which takes
/// a hundred in memory for as long as the call waits for what comes before them.
const TRAILERS: u32 = 256;
/// So many bytes of them beyond that count as an odd frame.
const ODD_PIECE: u32 = 16;

/// Follows the frames that a client sends, from its preface on. What is not HTTP/2 misleads it, until
/// h2 ends the connection for that.
#[derive(Debug)]
pub(super) struct Frames {
    /// Bytes of the preface, or behind the current frame's head, that have not come.
    rest: u32,
    /// The beginning of the next frame's head.
    head: [u8; HEAD],
    have: u8,
    /// Whether a header block has begun and not ended, and whether this frame is its last.
    in_block: bool,
    ends_block: bool,
    /// Whether the block opens a stream, and the newest stream.
    opens: bool,
    newest: u32,
}

/// What went by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Tally {
    /// Frames that say something of a call: HEADERS, and DATA that holds bytes or ends a stream.
    pub(super) carrying: u32,
    /// Any others; and trailers that are long, piece by piece.
    pub(super) odd: u32,
    /// Streams whose head is complete.
    pub(super) opened: u32,
}

impl Frames {
    pub(super) const fn new() -> Self {
        Self {
            rest: PREFACE,
            head: [0; HEAD],
            have: 0,
            in_block: false,
            ends_block: false,
            opens: false,
            newest: 0,
        }
    }

    /// Whether the head of a frame, or of a call, has begun and not ended.
    pub(super) const fn is_within_head(&self) -> bool {
        self.in_block || self.have > 0
    }

    /// Looks at the next bytes.
    pub(super) fn follow(&mut self, mut bytes: &[u8]) -> Tally {
        let mut tally = Tally::default();
        loop {
            if self.rest > 0 {
                let passed = bytes.len().min(self.rest as usize);
                bytes = &bytes[passed..];
                self.rest -= passed as u32;
                if self.rest > 0 {
                    return tally;
                }
            }
            if self.ends_block {
                (self.ends_block, self.in_block) = (false, false);
                tally.opened += u32::from(self.opens);
            }
            if self.have == 0
                && let Some((head, more)) = bytes.split_first_chunk()
            {
                self.begin(*head, &mut tally);
                bytes = more;
                continue;
            }
            let have = usize::from(self.have);
            let taken = bytes.len().min(HEAD - have);
            self.head[have..have + taken].copy_from_slice(&bytes[..taken]);
            bytes = &bytes[taken..];
            self.have += taken as u8;
            if usize::from(self.have) < HEAD {
                return tally;
            }
            self.have = 0;
            self.begin(self.head, &mut tally);
        }
    }

    fn begin(&mut self, [a, b, c, kind, flags, stream @ ..]: [u8; HEAD], tally: &mut Tally) {
        self.rest = u32::from_be_bytes([0, a, b, c]);
        match kind {
            DATA if self.rest > 0 || flags & END_STREAM != 0 => tally.carrying += 1,
            HEADERS => {
                tally.carrying += 1;
                let stream = u32::from_be_bytes(stream) & (u32::MAX >> 1);
                self.opens = stream > self.newest;
                self.newest = self.newest.max(stream);
                self.in_block = true;
                if !self.opens {
                    tally.odd += self.rest.saturating_sub(TRAILERS) / ODD_PIECE;
                }
            }
            CONTINUATION if !self.opens => tally.odd += 1 + self.rest / ODD_PIECE,
            _ => tally.odd += 1,
        }
        self.ends_block = matches!(kind, HEADERS | CONTINUATION) && flags & END_HEADERS != 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: u8, flags: u8, stream: u8, length: usize) -> Vec<u8> {
        let head = [0, (length >> 8) as u8, length as u8, kind, flags, 0, 0, 0, stream];
        [&head[..], &vec![b'x'; length]].concat()
    }

    fn sum(one: Tally, other: Tally) -> Tally {
        Tally {
            carrying: one.carrying + other.carrying,
            odd: one.odd + other.odd,
            opened: one.opened + other.opened,
        }
    }

    #[test]
    fn frames_are_told_apart_however_the_bytes_are_cut() {
        let sent = [
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(),
            frame(4, 0, 0, 0),
            frame(HEADERS, END_HEADERS, 1, 40),
            frame(DATA, 0, 1, 300),
            frame(DATA, 0, 1, 0),
            frame(HEADERS, 0, 3, 7),
            frame(CONTINUATION, 0, 3, 0),
            frame(CONTINUATION, END_HEADERS, 3, 9),
            frame(6, 0, 0, 8),
            frame(DATA, END_STREAM, 3, 0),
            frame(HEADERS, END_HEADERS | END_STREAM, 1, 10),
            frame(0xbe, 0xff, 0, 5),
        ]
        .concat();
        let expected = Tally { carrying: 5, odd: 6, opened: 2 };
        for piece in [1, 2, 3, 8, 9, 10, 23, 64, sent.len()] {
            let mut frames = Frames::new();
            let tallies = sent.chunks(piece).map(|bytes| frames.follow(bytes));
            assert_eq!(tallies.fold(Tally::default(), sum), expected, "in pieces of {piece}");
            assert!(!frames.is_within_head());
        }
    }

    #[test]
    fn long_trailers_are_odd_and_long_heads_are_not() {
        let mut frames = Frames::new();
        frames.follow(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
        let mut odd = |kind, flags, length| frames.follow(&frame(kind, flags, 1, length)).odd;
        assert_eq!(odd(HEADERS, 0, 9_000), 0);
        assert_eq!(odd(CONTINUATION, END_HEADERS, 9_000), 1);
        assert_eq!(odd(HEADERS, 0, TRAILERS as usize), 0);
        assert_eq!(odd(CONTINUATION, END_HEADERS | END_STREAM, 1_600), 101);
        assert_eq!(odd(HEADERS, END_HEADERS, TRAILERS as usize + 1_600), 100);
    }

    #[test]
    fn a_head_is_open_from_its_first_byte_to_its_last() {
        let mut frames = Frames::new();
        frames.follow(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
        assert!(!frames.is_within_head());
        let head = frame(HEADERS, 0, 1, 4);
        frames.follow(&head[..3]);
        assert!(frames.is_within_head());
        frames.follow(&head[3..]);
        assert!(frames.is_within_head(), "END_HEADERS has not come");
        let last = frame(CONTINUATION, END_HEADERS, 1, 4);
        assert_eq!(frames.follow(&last[..10]).opened, 0);
        assert!(frames.is_within_head());
        assert_eq!(frames.follow(&last[10..]).opened, 1);
        assert!(!frames.is_within_head());
    }
}
