//! Who is told of calls as they end.

use std::{
    rc::Rc,
    task::{Context, Poll},
};

use tokio::sync::mpsc::{Receiver, Sender, channel};

use super::{Entry, Filter};

/// Who may follow at a time.
const MOST_FOLLOWERS: usize = 16;
/// Lines that wait for one that reads slowly.
const WAITING: usize = 256;

/// All that follow.
#[derive(Debug, Default)]
pub(super) struct Followed {
    all: Vec<Following>,
    /// Held by each follower for as long as it is there.
    open: Option<(Sender<()>, Receiver<()>)>,
}

#[derive(Debug)]
struct Following {
    filter: Filter,
    to: Sender<Line>,
    /// Calls that there was no room for since the last one.
    missed: u64,
}

/// What one that follows is told.
#[derive(Clone, Debug)]
pub enum Line {
    /// A call.
    Call(Rc<Entry>),
    /// So many calls were lost here, because the lines before were not read.
    Missed(u64),
}

/// Follows until it is dropped, or the process ends.
#[derive(Debug)]
pub struct Follower {
    before: std::vec::IntoIter<Rc<Entry>>,
    lines: Receiver<Line>,
    _open: Sender<()>,
}

impl Followed {
    /// One more, which is told of the calls `before` first. The number allowed is the error.
    pub(super) fn add(
        &mut self,
        filter: Filter,
        before: Vec<Rc<Entry>>,
    ) -> Result<Follower, usize> {
        self.all.retain(|following| !following.to.is_closed());
        if self.all.len() >= MOST_FOLLOWERS {
            return Err(MOST_FOLLOWERS);
        }
        let (to, lines) = channel(WAITING);
        self.all.push(Following { filter, to, missed: 0 });
        let (open, _) = self.open.get_or_insert_with(|| channel(1));
        Ok(Follower { before: before.into_iter(), lines, _open: open.clone() })
    }

    /// Tells those that want to know of this call. Nobody is waited for.
    pub(super) fn tell(&mut self, entry: &Rc<Entry>) {
        for following in self.all.iter_mut().filter(|following| following.filter.matches(entry)) {
            let Following { to, missed, .. } = following;
            // Two places: one for the number that was missed.
            if to.capacity() < 2 {
                *missed += 1;
                continue;
            }
            let lost = (*missed > 0).then(|| Line::Missed(std::mem::take(missed)));
            for line in lost.into_iter().chain([Line::Call(Rc::clone(entry))]) {
                // Gone, which the next one to come notices.
                let _ = to.try_send(line);
            }
        }
    }

    /// No more lines will come. What it returns ends when the last follower has gone.
    pub(super) fn end(&mut self) -> Receiver<()> {
        self.all.clear();
        self.open.take().map_or_else(|| channel(1).1, |(_, gone)| gone)
    }
}

impl Follower {
    /// The next line; none when the process ends.
    pub fn poll_line(&mut self, cx: &mut Context<'_>) -> Poll<Option<Line>> {
        match self.before.next() {
            Some(entry) => Poll::Ready(Some(Line::Call(entry))),
            None => self.lines.poll_recv(cx),
        }
    }
}

impl Line {
    /// As a line of JSON, with its end.
    pub fn to_json(&self) -> String {
        match self {
            Self::Call(entry) => format!("{}\n", entry.json()),
            Self::Missed(number) => format!("{{\"missed\":{number}}}\n"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn next(follower: &mut Follower) -> Option<String> {
        let mut cx = Context::from_waker(std::task::Waker::noop());
        match follower.poll_line(&mut cx) {
            Poll::Ready(line) => line.map(|line| line.to_json()),
            Poll::Pending => None,
        }
    }

    #[test]
    fn one_that_does_not_read_is_told_how_many_calls_it_missed() {
        let mut followed = Followed::default();
        let mut slow = followed.add(Filter::default(), Vec::new()).unwrap();
        let entry = Rc::new(Entry::of("orders", "UNAVAILABLE", 1));
        for _ in 0..WAITING + 40 {
            followed.tell(&entry);
        }
        let told: Vec<_> = std::iter::from_fn(|| next(&mut slow)).collect();
        assert_eq!((told.len(), &*told[0]), (WAITING - 1, "x\n"));
        followed.tell(&entry);
        let told: Vec<_> = std::iter::from_fn(|| next(&mut slow)).collect();
        assert_eq!(told, ["{\"missed\":41}\n", "x\n"]);
    }

    #[tokio::test]
    async fn the_end_waits_until_all_that_follow_have_gone() {
        let mut followed = Followed::default();
        let follower = followed.add(Filter::default(), Vec::new()).unwrap();
        let mut gone = followed.end();
        assert!(gone.try_recv() == Err(tokio::sync::mpsc::error::TryRecvError::Empty));
        drop(follower);
        assert_eq!(gone.recv().await, None);
        assert_eq!(Followed::default().end().recv().await, None);
    }
}
