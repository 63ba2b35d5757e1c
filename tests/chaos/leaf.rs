//! An endpoint that is a process, for what can only be done to processes: another pillion, whose routes
//! answer the calls of `orders` by themselves.

use std::net::SocketAddr;

use tempfile::TempDir;

use crate::program::{Pillion, Program, endpoint};

/// With the header `held` a call is not answered.
const ROUTES: &str = "
[[route]]
authority = \"orders\"
headers = { held = \"*\" }
service = \"nobody\"
fault = { delay = \"10m\" }
[[route]]
authority = \"orders\"
respond = { grpc_status = \"OK\" }
";

/// The process, ended with the value.
#[derive(Debug)]
pub(crate) struct Leaf {
    pub(crate) pillion: Pillion,
    _folder: TempDir,
}

impl Leaf {
    /// On a free port of the loopback address.
    pub(crate) async fn start() -> Self {
        Self::at("127.0.0.1:0", &[]).await
    }

    /// Listens at `address`, started by this command.
    pub(crate) async fn at(address: &str, by: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        // Which reaches into every network namespace.
        let admin = format!("unix:{}", folder.path().join("admin").display());
        let nobody = endpoint("nobody", ([127, 0, 0, 1], 1).into(), "");
        let program = Program::new(ROUTES).endpoints([nobody]).listen(address).admin(&admin);
        Self { pillion: program.by(by).start().await, _folder: folder }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.pillion.address()
    }

    /// Its line in the file of endpoints.
    pub(crate) fn as_endpoint(&self, keys: &str) -> String {
        endpoint("orders", self.address(), keys)
    }

    /// Waits until so many calls are open on it.
    pub(crate) async fn until_holds(&self, calls: f64) {
        let so =
            |metrics: &crate::metrics::Metrics| metrics.sum("requests_in_flight", &[]) == calls;
        self.pillion.until_metrics(&format!("{calls} calls have come"), so).await;
    }
}
