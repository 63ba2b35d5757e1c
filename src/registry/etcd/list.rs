//! Reads a whole prefix at one revision, page by page.

use std::time::Duration;

use etcd_client::{GetOptions, KeyValue};
use tokio::time::Instant;

use super::{EtcdError, MAX_MESSAGE, Member, Position};

/// Keys of the first page: few enough to cross a slow link (64 kbit/s) before the connection is taken
/// for dead.
const FIRST_PAGE: i64 = 250;
/// Keys of the largest page: a few MiB.
const LARGEST_PAGE: i64 = 8000;
/// A page that came within this time may be followed by one of twice the size. etcd walks the index of
/// the whole range for each page, so that many small ones cost it, and the wait, a multiple.
const QUICK: Duration = Duration::from_millis(250);

/// One key with its value, as etcd holds it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kv {
    /// The key.
    pub key: Vec<u8>,
    /// The value.
    pub value: Vec<u8>,
    /// Revision at which the key came into being, after its last deletion.
    pub created: i64,
    /// Revision of its last change.
    pub modified: i64,
    /// Lease that it lives under; 0 for none.
    pub lease: i64,
}

impl From<&KeyValue> for Kv {
    fn from(kv: &KeyValue) -> Self {
        Self {
            key: kv.key().to_vec(),
            value: kv.value().to_vec(),
            created: kv.create_revision(),
            modified: kv.mod_revision(),
            lease: kv.lease(),
        }
    }
}

/// A list that has come to its end.
#[derive(Clone, Copy, Debug)]
pub struct List {
    /// Where the cluster stood: every page shows this revision.
    pub position: Position,
    /// Whether there were more keys than [`ListLimits::keys`]; those were left out.
    pub cut: bool,
}

/// Bounds of one list.
#[derive(Clone, Copy, Debug)]
pub struct ListLimits {
    /// Keys read at most.
    pub keys: usize,
    /// Wait before a list starts over because its revision was compacted away meanwhile.
    pub pause: Duration,
}

impl Member {
    /// Reads all keys under `prefix` as of one revision, and hands each page to `page`; a list that
    /// starts over says so with `None`. The empty prefix reads the whole key space.
    ///
    /// The first page is a linearizable read: it is not older than any answer of any member.
    ///
    /// # Errors
    /// [`EtcdError`] of the first page that could not be read.
    pub async fn list(
        &self,
        prefix: &[u8],
        limits: ListLimits,
        mut page: impl FnMut(Option<Vec<Kv>>),
    ) -> Result<List, EtcdError> {
        let mut kv = self.client.kv_client().max_decoding_message_size(MAX_MESSAGE);
        let end = end_of(prefix);
        let mut at: Option<Position> = None;
        let mut from = start_of(prefix);
        let (mut size, mut largest) = (FIRST_PAGE, LARGEST_PAGE);
        let mut count = 0;
        loop {
            let mut options = GetOptions::new().with_range(end.clone()).with_limit(size);
            if let Some(position) = at {
                options = options.with_revision(position.revision);
            }
            let asked = Instant::now();
            let answer = match kv.get(from.clone(), Some(options)).await {
                Ok(answer) => answer,
                Err(error) => {
                    let error = self.error("list", &error);
                    if error.is_too_large() && size > 1 {
                        size /= 2;
                        largest = size;
                    } else if error.is_compacted() && at.is_some() {
                        tokio::time::sleep(limits.pause).await;
                        (at, from, count) = (None, start_of(prefix), 0);
                        page(None);
                    } else {
                        return Err(error);
                    }
                    continue;
                }
            };
            let position =
                *at.get_or_insert_with(|| answer.header().map(Position::from).unwrap_or_default());
            count += answer.kvs().len();
            if let Some(last) = answer.kvs().last() {
                // The key right after the last one.
                from = [last.key(), b"\0"].concat();
            }
            let more = answer.more() && !answer.kvs().is_empty();
            if asked.elapsed() < QUICK {
                size = (size * 2).min(largest);
            }
            page(Some(answer.kvs().iter().map(Kv::from).collect()));
            if !more || count >= limits.keys {
                return Ok(List { position, cut: more });
            }
        }
    }
}

/// Where a range over `prefix` starts: etcd has no empty key.
pub(super) fn start_of(prefix: &[u8]) -> Vec<u8> {
    if prefix.is_empty() { vec![0] } else { prefix.to_vec() }
}

/// Where a range over `prefix` ends: at the first key that does not start with it; `\0` stands for the
/// end of the key space.
pub(super) fn end_of(prefix: &[u8]) -> Vec<u8> {
    match prefix.iter().rposition(|byte| *byte < 0xff) {
        Some(last) => {
            let mut end = prefix[..=last].to_vec();
            end[last] += 1;
            end
        }
        None => vec![0],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_holds_the_keys_of_its_prefix_and_no_other() {
        assert_eq!(
            (start_of(b"orders/"), end_of(b"orders/")),
            (b"orders/".into(), b"orders0".into())
        );
        assert_eq!(end_of(b"a\xff\xff"), b"b");
        assert_eq!((start_of(b""), end_of(b"")), (b"\0".into(), b"\0".into()));
        assert_eq!(end_of(b"\xff"), b"\0");
    }
}
