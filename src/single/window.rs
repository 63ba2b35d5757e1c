//! Flow control towards this proxy (RFC 9113 section 5.2).

/// Any window, before anything is said of it (section 6.9.2).
pub(super) const FIRST_WINDOW: u32 = 65_535;

/// What an endpoint may send, on the stream or on the connection.
#[derive(Debug)]
pub(super) struct Window {
    /// What it may send when nothing is on its way or held.
    size: u32,
    /// What it may send now.
    open: u32,
    /// What was taken, and has not been announced.
    released: u32,
}

impl Window {
    pub(super) const fn new(size: u32) -> Self {
        Self { size, open: size, released: 0 }
    }

    /// So much has come. Whether it was allowed to.
    pub(super) const fn receive(&mut self, bytes: u32) -> bool {
        match self.open.checked_sub(bytes) {
            Some(open) => {
                self.open = open;
                true
            }
            None => false,
        }
    }

    /// So much was taken. What is to be announced, if that is worth a frame.
    pub(super) const fn release(&mut self, bytes: u32) -> Option<u32> {
        self.released += bytes;
        if self.released < self.size / 2 {
            return None;
        }
        let announced = self.released;
        self.open += announced;
        self.released = 0;
        Some(announced)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_taken_may_be_sent_again_once_it_is_half_of_the_window() {
        let mut window = Window::new(100);
        assert!(window.receive(100));
        assert!(!window.receive(1));
        assert_eq!(window.release(49), None);
        assert_eq!(window.release(1), Some(50));
        assert!(window.receive(50));
        assert!(!window.receive(1));
    }
}
