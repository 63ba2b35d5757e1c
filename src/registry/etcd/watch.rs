//! One watch stream that carries any number of watches.
//!
//! Writing and reading are two tasks' worth of work in one task: a caller that waits until etcd takes
//! its request while etcd waits until the caller reads would stand still for ever.

use std::sync::Arc;

use etcd_client::{Client, Error, WatchOptions, WatchResponse, WatchStream};
use tokio::{sync::mpsc, task::JoinHandle};

use super::{
    EtcdError, MAX_MESSAGE, Member,
    error::is_token_problem,
    list::{end_of, start_of},
};

/// Something to tell etcd on the stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WatchRequest {
    /// Watch the keys under `prefix` from a revision on. Answered, in the order of these requests, by
    /// a response that is `created` and carries the id.
    Create {
        /// Empty for the whole key space.
        prefix: Vec<u8>,
        /// First revision of interest; must not lie in the future of the cluster.
        from: i64,
    },
    /// The same for one key alone.
    CreateKey {
        /// Which.
        key: Vec<u8>,
        /// As in [`Self::Create`].
        from: i64,
    },
    /// End the watch with this id.
    Cancel(i64),
    /// Say how far the stream has come. etcd 3.4 always answers; newer ones not while nothing has
    /// been written since a watch was created.
    Progress,
}

/// An open watch stream. Dropping it closes it.
#[derive(Debug)]
pub struct Watch {
    requests: mpsc::UnboundedSender<WatchRequest>,
    responses: mpsc::Receiver<Result<WatchResponse, EtcdError>>,
    task: JoinHandle<()>,
}

impl Member {
    /// A watch stream on this connection; it is opened by the first [`WatchRequest::Create`].
    pub fn watch(&self) -> Watch {
        let (requests, queue) = mpsc::unbounded_channel();
        let (sender, responses) = mpsc::channel(16);
        let (client, endpoint) = (self.client.clone(), Arc::clone(&self.endpoint));
        let task = tokio::spawn(async move {
            let end = match run(client, queue, &sender).await {
                Ok(()) => Error::WatchError("etcd ended the stream".to_owned()),
                Err(error) => error,
            };
            // Nobody may be left to read it, which is fine.
            let _ = sender.send(Err(EtcdError::call(&endpoint, "watch", &end))).await;
        });
        Watch { requests, responses, task }
    }
}

impl Watch {
    /// Queues a request; one to a stream that has ended is lost, and [`Self::next`] says that it has.
    pub fn request(&self, request: WatchRequest) {
        let _ = self.requests.send(request);
    }

    /// The next response; none once an error has been returned. Dropping the future loses nothing.
    ///
    /// # Errors
    /// [`EtcdError`] when the stream has ended, for whatever reason. It is always the last.
    pub async fn next(&mut self) -> Option<Result<WatchResponse, EtcdError>> {
        self.responses.recv().await
    }

    /// Whether a response says that the login has run out: then nothing was created.
    pub fn is_token_problem(response: &WatchResponse) -> bool {
        is_token_problem(response.cancel_reason())
    }

    /// Whether a response says that this user may not read these keys.
    pub fn is_permission_problem(response: &WatchResponse) -> bool {
        response.cancel_reason().contains("permission denied")
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn run(
    client: Client,
    mut requests: mpsc::UnboundedReceiver<WatchRequest>,
    responses: &mpsc::Sender<Result<WatchResponse, EtcdError>>,
) -> Result<(), Error> {
    let Some((start, options)) = first_create(&mut requests).await else { return Ok(()) };
    let mut watch = client.watch_client().max_decoding_message_size(MAX_MESSAGE);
    let stream: WatchStream = watch.watch(start, Some(options)).await?;
    let (mut sender, mut stream) = stream.split();
    let write = async {
        while let Some(request) = requests.recv().await {
            match request {
                WatchRequest::Create { prefix, from } => {
                    sender.watch(start_of(&prefix), Some(options_of(&prefix, from))).await?;
                }
                WatchRequest::CreateKey { key, from } => {
                    sender.watch(key, Some(options_from(from))).await?;
                }
                WatchRequest::Cancel(id) => sender.cancel(id).await?,
                WatchRequest::Progress => sender.request_progress().await?,
            }
        }
        Ok(())
    };
    let read = async {
        while let Some(response) = stream.message().await? {
            if responses.send(Ok(response)).await.is_err() {
                break;
            }
        }
        Ok(())
    };
    tokio::select! {
        ended = write => ended,
        ended = read => ended,
    }
}

/// The first watch opens the stream; what comes before it would mean nothing.
async fn first_create(
    requests: &mut mpsc::UnboundedReceiver<WatchRequest>,
) -> Option<(Vec<u8>, WatchOptions)> {
    loop {
        match requests.recv().await? {
            WatchRequest::Create { prefix, from } => {
                return Some((start_of(&prefix), options_of(&prefix, from)));
            }
            WatchRequest::CreateKey { key, from } => return Some((key, options_from(from))),
            WatchRequest::Cancel(_) | WatchRequest::Progress => {}
        }
    }
}

fn options_of(prefix: &[u8], from: i64) -> WatchOptions {
    options_from(from).with_range(end_of(prefix))
}

fn options_from(from: i64) -> WatchOptions {
    WatchOptions::new().with_start_revision(from).with_progress_notify().with_fragment()
}
