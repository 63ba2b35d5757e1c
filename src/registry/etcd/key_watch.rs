//! One key and what becomes of it.

use etcd_client::EventType;

use super::{EtcdError, Kv, Member, Watch, WatchRequest};

/// What became of the key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyChange {
    /// As it is now; none once it is deleted.
    pub kv: Option<Kv>,
    /// When that came to be.
    pub revision: i64,
}

/// A watch on one key. Dropping it ends it.
#[derive(Debug)]
pub struct KeyWatch {
    member: Member,
    watch: Watch,
}

impl Member {
    /// Watches `key` from revision `from` on, which must not lie in the future of the cluster.
    pub fn watch_key(&self, key: &[u8], from: i64) -> KeyWatch {
        let watch = self.watch();
        watch.request(WatchRequest::CreateKey { key: key.to_vec(), from });
        KeyWatch { member: self.clone(), watch }
    }
}

impl KeyWatch {
    /// The next change; of several that come at once, the last. Dropping the future loses nothing.
    ///
    /// # Errors
    /// [`EtcdError`] when etcd has ended the watch: what became of the key since can only be read.
    pub async fn next(&mut self) -> Result<KeyChange, EtcdError> {
        loop {
            let response = match self.watch.next().await {
                Some(response) => response?,
                None => return Err(self.member.said("watch", "the stream has ended")),
            };
            if response.canceled() {
                let reason = match response.cancel_reason() {
                    "" => "the history it would tell is compacted away",
                    reason => reason,
                };
                return Err(self.member.said("watch", reason));
            }
            let last = response.events().last();
            if let Some((event, kv)) = last.and_then(|event| Some((event, event.kv()?))) {
                let deleted = event.event_type() == EventType::Delete;
                let revision = kv.mod_revision();
                return Ok(KeyChange { kv: (!deleted).then(|| Kv::from(kv)), revision });
            }
        }
    }
}
