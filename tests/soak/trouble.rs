//! What does not last: endpoints, their records, live policy, and the etcd that has them.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use fastrand::Rng;
use tokio::{
    sync::{Mutex, watch},
    task::JoinHandle,
    time::{Instant, sleep, timeout},
};

use crate::backend::Backend;
use crate::etcd::Etcd;
use crate::secret::{self, Secret};

/// One for each way to connect.
pub(crate) const SERVICES: [&str; 3] = ["fresh", "warm", "pooled"];
/// Endpoints of each.
const ENDPOINTS: usize = 4;

/// An etcd and the endpoints in it.
#[derive(Debug)]
pub(crate) struct Site {
    state: Mutex<State>,
    url: String,
    folder: PathBuf,
    pub(crate) changes: AtomicUsize,
    pub(crate) deaths: AtomicUsize,
    pub(crate) outages: AtomicUsize,
    pub(crate) policies: AtomicUsize,
}

#[derive(Debug)]
struct State {
    etcd: Etcd,
    /// With its service.
    endpoints: Vec<(&'static str, Backend)>,
}

impl Site {
    pub(crate) async fn start(etcd: Etcd, folder: &Path, secret: &Secret) -> Self {
        let mut endpoints = Vec::new();
        for service in SERVICES {
            for _ in 0..ENDPOINTS {
                let backend = Backend::echo().await;
                etcd.put(&key(service, backend.address()), &value(backend.address(), 100)).await;
                endpoints.push((service, backend));
            }
        }
        for address in secret.addresses() {
            etcd.put(&key(secret::SERVICE, address), &value(address, 100)).await;
        }
        let [changes, deaths, outages, policies] = Default::default();
        let (url, folder) = (etcd.url(), folder.to_owned());
        let state = Mutex::new(State { etcd, endpoints });
        Self { state, url, folder, changes, deaths, outages, policies }
    }

    /// A configuration; the one after it says something else.
    pub(crate) fn config(&self, number: usize) -> String {
        let services =
            SERVICES.map(|name| format!("[service.{name}]\nconnection = \"{name}\"\n")).concat();
        let balance = ["p2c", "peak_ewma", "round_robin", "ring_hash"][number % 4];
        let registration = format!(
            "[[register]]\nservice = \"pay\"\nid = \"soak\"\naddress = \"10.0.0.5:9000\"\nsource = \"main\"\n\
             weight = {}\nttl = \"5s\"\nhealth = {{ kind = \"none\" }}\n",
            number + 1
        );
        // Now and then there is none.
        let registration = if number % 4 == 3 { "" } else { &registration };
        format!(
            "state_dir = {:?}\n[policy]\n[defaults]\nbalance = \"{balance}\"\n{services}\n[[source]]\n\
             name = \"main\"\nformat = \"etcd-naming\"\nendpoints = [\"{}\"]\n{registration}",
            self.folder, self.url
        )
    }

    /// Makes trouble until told to stop.
    pub(crate) fn trouble(site: &Arc<Self>, stopped: &watch::Receiver<bool>) -> JoinHandle<()> {
        let (site, mut stopped) = (Arc::clone(site), stopped.clone());
        tokio::spawn(async move {
            let mut random = Rng::with_seed(11);
            let mut outage = Instant::now() + Duration::from_secs(10);
            while !*stopped.borrow_and_update() {
                let mut state = site.state.lock().await;
                if Instant::now() > outage {
                    state.outage(random.bool()).await;
                    site.outages.fetch_add(1, Relaxed);
                    outage = Instant::now() + Duration::from_secs(random.u64(15..45));
                } else if random.u8(..8) == 0 {
                    state.policy(&mut random).await;
                    site.policies.fetch_add(1, Relaxed);
                } else {
                    let died = state.change(&mut random).await;
                    site.deaths.fetch_add(usize::from(died), Relaxed);
                    site.changes.fetch_add(1, Relaxed);
                }
                drop(state);
                let pause = Duration::from_millis(random.u64(20..400));
                let _ = timeout(pause, stopped.changed()).await;
            }
        })
    }

    /// Waits until etcd says again what there is.
    pub(crate) async fn mend(&self) {
        let state = self.state.lock().await;
        for (service, backend) in &state.endpoints {
            let (key, value) = (key(service, backend.address()), value(backend.address(), 100));
            state.etcd.put(&key, &value).await;
        }
        for service in SERVICES {
            state.etcd.delete(&policy_key(service)).await;
        }
    }
}

impl State {
    /// Long enough to be noticed.
    async fn outage(&mut self, kill: bool) {
        if kill {
            self.etcd.kill();
            sleep(Duration::from_secs(2)).await;
            self.etcd.restart().await;
        } else {
            self.etcd.freeze();
            sleep(Duration::from_secs(12)).await;
            self.etcd.thaw();
        }
    }

    /// A service gets a live policy, one that nobody can read, or none.
    async fn policy(&self, random: &mut Rng) {
        let key = policy_key(random.choice(&SERVICES).unwrap());
        let value = match random.u8(..4) {
            0 => return self.etcd.delete(&key).await,
            1 => "attempts = \"many\"".to_owned(),
            _ => format!("attempts = {}\nslow_start = \"{}s\"", random.u8(2..5), random.u8(..9)),
        };
        self.etcd.put(&key, &value).await;
    }

    /// One endpoint gets another weight, goes away, or dies and has a successor; whether it died.
    async fn change(&mut self, random: &mut Rng) -> bool {
        let at = random.usize(..self.endpoints.len());
        let (service, backend) = &mut self.endpoints[at];
        let (service, address) = (*service, backend.address());
        match random.u8(..6) {
            0 => {
                // Its record stays for a while, as a lease does.
                backend.kill().await;
                sleep(Duration::from_millis(random.u64(..500))).await;
                drop(self.replace(at).await);
                return true;
            }
            1 => {
                self.etcd.delete(&key(service, address)).await;
                let mut old = self.replace(at).await;
                // As a process that is told to stop, which takes its time.
                tokio::spawn(async move {
                    sleep(Duration::from_millis(300)).await;
                    let _ = timeout(Duration::from_secs(5), old.close()).await;
                });
            }
            2 => backend.go_away(),
            _ => {
                let value = value(address, random.u32(1..200));
                self.etcd.put(&key(service, address), &value).await;
            }
        }
        false
    }

    /// Puts a new one in its place, in etcd too; the old one.
    async fn replace(&mut self, at: usize) -> Backend {
        let (service, old) = &mut self.endpoints[at];
        let new = Backend::echo().await;
        self.etcd.put(&key(service, new.address()), &value(new.address(), 100)).await;
        self.etcd.delete(&key(service, old.address())).await;
        std::mem::replace(old, new)
    }
}

fn key(service: &str, address: SocketAddr) -> String {
    format!("{service}/{address}")
}

fn policy_key(service: &str) -> String {
    format!("/pillion/policy/service/{service}")
}

fn value(address: SocketAddr, weight: u32) -> String {
    format!(r#"{{"Op":0,"Addr":"{address}","Metadata":{{"weight":"{weight}"}}}}"#)
}
