//! What frameworks leave in etcd, seen through the running program: every sample under the key where
//! it was found, by the format that is declared for it and by its shape.

use std::collections::BTreeSet;

use serde_json::{Map, Value};

use crate::etcd::Etcd;
use crate::program::{Pillion, Program};

/// Line by line: a record, and `then`, what must become of it.
const SAMPLES: &str = include_str!("../fixtures/registry.jsonl");

#[tokio::test]
async fn every_sample_is_seen_as_its_declared_format_says() {
    let samples = samples();
    let etcd = filled(&samples).await;
    for mode in ["lazy", "eager"] {
        // One program for all, but for sources of the whole key space, which see each other's keys.
        for alone in ["", "etcd-naming", "grpc-wrapper", "go-zero", "jupiter"] {
            let is_mine = |sample: &&Value| {
                let (format, prefix) = place(sample);
                if prefix.is_empty() { format == alone } else { alone.is_empty() }
            };
            let sources: BTreeSet<_> = samples.iter().filter(is_mine).map(place).collect();
            let config = sources.iter().enumerate().map(|(at, (format, prefix))| {
                source(&etcd, &format!("s{at}"), format, prefix, mode)
            });
            let pillion = Program::new(&config.collect::<String>()).start().await;
            for sample in samples.iter().filter(is_mine) {
                let then = &sample["then"];
                if let Some(service) = then["service"].as_str() {
                    let found = Found::until(&pillion, service, sample).await;
                    found.check(then, text(sample, "format"));
                }
            }
        }
    }
}

#[tokio::test]
async fn every_sample_that_can_be_told_by_its_shape_is() {
    let samples = samples();
    let etcd = filled(&samples).await;
    for prefix in samples.iter().map(|sample| place(sample).1).collect::<BTreeSet<_>>() {
        let config = source(&etcd, "main", "auto", &prefix, "lazy");
        let pillion = Program::new(&config).start().await;
        let mine = samples.iter().filter(|sample| place(sample).1 == prefix);
        for sample in mine.filter(|sample| sample["then"].get("auto").is_none()) {
            let key = text(sample, "key");
            let (_, path) = key.split_at(prefix.len());
            let path = if prefix.is_empty() { path } else { &path[1..] };
            let service = path.rsplit_once('/').unwrap().0.replace('/', "~");
            let format = match text(sample, "format") {
                "grpc-wrapper" => "etcd-naming",
                other => other,
            };
            Found::until(&pillion, &service, sample).await.check(&sample["then"], format);
        }
    }
}

#[tokio::test]
async fn a_record_put_again_with_other_measurements_is_no_new_set() {
    let etcd = Etcd::start().await;
    let rpcx = |calls| format!("calls={calls}&weight=7");
    let kratos = |time| {
        format!(
            r#"{{"appid":"a","hostname":"h","addrs":["grpc://10.0.0.1:90"],"latest_timestamp":{time}}}"#
        )
    };
    let put = async |n: u32| {
        etcd.put("/rpcx_test/Arith/tcp@10.0.0.2:90", &rpcx(n)).await;
        etcd.put("/kratos_etcd/a/h", &kratos(n)).await;
    };
    put(1).await;
    let config =
        ["rpcx", "kratos-v1"].map(|format| source(&etcd, format, format, "", "eager")).concat();
    let pillion = Program::new(&config).start().await;
    let revision = async |service: &str| {
        pillion.get(&format!("/services/{service}")).await.json()["revision"].clone()
    };
    let before = (revision("Arith").await, revision("a").await);
    put(2).await;
    // Once the last of it is there, the noise before it has been taken in.
    etcd.put("/kratos_etcd/b/h", &kratos(3).replace("\"a\"", "\"b\"")).await;
    etcd.put("/rpcx_test/Other/tcp@10.0.0.3:90", "").await;
    crate::wait::until("both sources have seen the end", async || {
        pillion.get("/services/b").await.status == 200
            && pillion.get("/services/Other").await.status == 200
    })
    .await;
    assert_eq!((revision("Arith").await, revision("a").await), before);
}

#[tokio::test]
async fn a_traefik_server_gets_its_weight_from_another_key_whichever_comes_first() {
    let etcd = Etcd::start().await;
    let server = |n, field| format!("traefik/http/services/pay/loadbalancer/servers/{n}/{field}");
    etcd.put(&server(0, "url"), "h2c://10.0.0.1:90").await;
    etcd.put(&server(0, "weight"), "3").await;
    etcd.put(&server(1, "weight"), "5").await;
    etcd.put(&server(1, "url"), "h2c://10.0.0.2:90").await;
    etcd.put(&server(2, "url"), "h2c://10.0.0.3:90").await;
    let config = source(&etcd, "main", "traefik", "", "lazy");
    let pillion = Program::new(&config).start().await;
    let weights = async || {
        let page = pillion.get("/services/pay").await.json();
        let endpoints = page["endpoints"].as_array().unwrap().iter();
        endpoints.map(|endpoint| endpoint["weight"].as_u64().unwrap()).collect::<Vec<_>>()
    };
    assert_eq!(weights().await, [3, 5, 1]);
    etcd.put(&server(2, "weight"), "4").await;
    etcd.delete(&server(0, "weight")).await;
    crate::wait::until("the weights change", async || weights().await == [1, 5, 4]).await;
}

#[tokio::test]
async fn go_micro_names_that_keys_spell_alike_are_told_apart_and_leave_apart() {
    let etcd = Etcd::start().await;
    let node = |name: &str, address: &str| {
        format!(
            r#"{{"name":"{name}","nodes":[{{"id":"{address}","address":"{address}","metadata":{{"protocol":"grpc"}}}}]}}"#
        )
    };
    let key = |id: &str| format!("/micro/registry/com-acme-user/{id}");
    etcd.put(&key("1"), &node("com/acme/user", "10.0.0.1:90")).await;
    etcd.put(&key("2"), &node("com-acme-user", "10.0.0.2:90")).await;
    let pillion = Program::new(&source(&etcd, "main", "go-micro", "", "lazy")).start().await;
    let addresses = async |service: &str| {
        let page = pillion.get(&format!("/services/{service}")).await.json();
        let endpoints = page["endpoints"].as_array().cloned().unwrap_or_default();
        endpoints.iter().map(|e| e["address"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(addresses("com~acme~user").await, ["10.0.0.1:90"]);
    assert_eq!(addresses("com-acme-user").await, ["10.0.0.2:90"]);
    // A key that changes sides, and one that goes.
    etcd.put(&key("2"), &node("com/acme/user", "10.0.0.2:90")).await;
    etcd.delete(&key("1")).await;
    crate::wait::until("both are seen", async || {
        addresses("com~acme~user").await == ["10.0.0.2:90"]
            && addresses("com-acme-user").await.is_empty()
    })
    .await;
}

/// What the program says of one key.
#[derive(Debug)]
struct Found {
    endpoints: Vec<Value>,
    rejected: Vec<String>,
}

impl Found {
    /// Once there is as much of it as a sample says: on a busy machine a list takes longer than a page waits for it.
    async fn until(pillion: &Pillion, service: &str, sample: &Value) -> Self {
        let then = &sample["then"];
        let endpoints = then["endpoints"].as_array().unwrap().len();
        let rejected = usize::from(then["rejected"].is_string());
        let mut found = Self { endpoints: Vec::new(), rejected: Vec::new() };
        crate::wait::until(&format!("{sample} is seen"), async || {
            found = Self::of(pillion, service, text(sample, "key")).await;
            (found.endpoints.len(), found.rejected.len()) == (endpoints, rejected)
        })
        .await;
        found
    }

    async fn of(pillion: &Pillion, service: &str, key: &str) -> Self {
        let page = pillion.get(&format!("/services/{service}")).await;
        // 404 for a service of which no source has anything to say.
        let page = if page.status == 404 { Value::Null } else { page.json() };
        let of_key = |list: &str| {
            let entries = page[list].as_array().into_iter().flatten();
            entries.filter(|entry| entry["key"] == key).cloned().collect::<Vec<_>>()
        };
        let reason = |rejected: &Value| rejected["reason"].as_str().unwrap().to_owned();
        let rejected = of_key("rejected").iter().map(reason).collect();
        Self { endpoints: of_key("endpoints"), rejected }
    }

    fn check(&self, then: &Value, format: &str) {
        match then["rejected"].as_str() {
            Some(reason) => assert!(self.rejected[0].contains(reason), "{self:?}, not {reason}"),
            None => assert!(self.rejected.is_empty(), "{self:?}"),
        }
        let expected = then["endpoints"].as_array().unwrap();
        assert_eq!(self.endpoints.len(), expected.len(), "{self:?}, not {expected:?}");
        for expected in expected {
            let same = |endpoint: &&Value| endpoint["address"] == expected["address"];
            let endpoint = self.endpoints.iter().find(same).expect("its address");
            assert_eq!(endpoint["format"], format);
            for (name, expected) in expected.as_object().unwrap() {
                match &**name {
                    // Not on the page.
                    "tls" => {}
                    "metadata_has" => {
                        let has =
                            |(key, value): (&String, &Value)| endpoint["metadata"][key] == *value;
                        assert!(expected.as_object().unwrap().iter().all(has), "{endpoint}");
                    }
                    name => assert_eq!(endpoint[name], *expected, "{name} of {endpoint}"),
                }
            }
        }
    }
}

fn samples() -> Vec<Value> {
    SAMPLES.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// An etcd that holds them all at once.
async fn filled(samples: &[Value]) -> Etcd {
    let etcd = Etcd::start().await;
    let mut client = etcd.client().await;
    let mut keys = BTreeSet::new();
    for sample in samples {
        assert!(keys.insert(text(sample, "key")), "one value a key");
        client.put(text(sample, "key"), text(sample, "value"), None).await.unwrap();
    }
    etcd
}

/// Format and prefix of the source that a sample is for.
fn place(sample: &Value) -> (String, String) {
    let then: &Map<String, Value> = sample["then"].as_object().unwrap();
    (text(sample, "format").to_owned(), then["prefix"].as_str().unwrap().to_owned())
}

fn text<'a>(sample: &'a Value, name: &str) -> &'a str {
    sample[name].as_str().unwrap()
}

fn source(etcd: &Etcd, name: &str, format: &str, prefix: &str, mode: &str) -> String {
    let url = etcd.url();
    format!(
        "[[source]]\nname = \"{name}\"\nendpoints = [\"{url}\"]\nformat = \"{format}\"\nprefix = \
         \"{prefix}\"\nmode = \"{mode}\"\n"
    )
}
