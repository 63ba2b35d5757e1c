//! The samples of `tests/fixtures/registry.jsonl`: what frameworks were seen to write, and what a
//! reader must conclude. `then` says it for machines, `expect` for people.

use serde_json::{Map, Value};

use super::super::*;

const SAMPLES: &str = include_str!("../../../tests/fixtures/registry.jsonl");

#[test]
fn each_sample_is_read_as_it_must_be_by_its_format() {
    for_each_sample(|sample, key, value, then| {
        let layout = Layout::new(text(sample, "format"), text(then, "prefix")).unwrap();
        let Some(service) = then["service"].as_str() else {
            assert!(layout.read(key, value).is_empty(), "{then:?}: nobody's key");
            return;
        };
        let reading = layout.read_for(&service.parse().unwrap(), key, value);
        check(reading.expect("an instance"), then);
    });
}

#[test]
fn each_sample_is_read_or_refused_by_its_shape() {
    for_each_sample(|_, key, value, then| {
        let mut readings = Layout::new("auto", text(then, "prefix")).unwrap().read(key, value);
        let reading = readings.pop().map_or_else(|| Ok(Reading::default()), |(_, reading)| reading);
        match then.get("auto").and_then(Value::as_str) {
            None => check(reading, then),
            Some("nothing") => assert_eq!(reading, Ok(Reading::default())),
            Some(other) => {
                let said = match reading {
                    Ok(reading) => reading.records[0].address.to_string(),
                    Err(reason) => reason.to_string(),
                };
                assert!(said.contains(other), "{said}, not {other}");
            }
        }
    });
}

fn for_each_sample(test: impl Fn(&Map<String, Value>, &[u8], &[u8], &Map<String, Value>)) {
    let mut count = 0;
    for line in SAMPLES.lines() {
        eprintln!("{line}");
        let sample: Map<String, Value> = serde_json::from_str(line).unwrap();
        let (key, value) = (text(&sample, "key"), text(&sample, "value"));
        test(&sample, key.as_bytes(), value.as_bytes(), sample["then"].as_object().unwrap());
        count += 1;
    }
    assert_eq!(count, 95);
}

fn text<'a>(object: &'a Map<String, Value>, name: &str) -> &'a str {
    object[name].as_str().unwrap()
}

fn check(reading: Result<Reading, RejectReason>, then: &Map<String, Value>) {
    let (records, problem) = match reading {
        Ok(Reading { records, left_out, .. }) => (records, left_out),
        Err(reason) => (Vec::new(), Some(reason)),
    };
    match then.get("rejected").and_then(Value::as_str) {
        Some(reason) => {
            let problem = problem.expect("a reason").to_string();
            assert!(problem.contains(reason), "{problem}");
        }
        None => assert_eq!(problem, None),
    }
    let expected = then["endpoints"].as_array().unwrap();
    assert_eq!(records.len(), expected.len(), "{records:?}");
    for (record, expected) in records.into_iter().zip(expected) {
        for (name, expected) in expected.as_object().unwrap() {
            let metadata = || Value::from_iter(record.metadata.clone());
            match &**name {
                "address" => assert_eq!(record.address.as_str(), expected),
                "id" => assert_eq!(record.id, *expected),
                "weight" => assert_eq!(record.weight, *expected),
                "version" => assert_eq!(record.version, *expected),
                "zone" => assert_eq!(record.zone, *expected),
                "tls" => assert_eq!(record.tls, *expected),
                "metadata" => assert_eq!(metadata(), *expected),
                "metadata_has" => {
                    let expected = expected.as_object().unwrap();
                    assert!(expected.iter().all(|(key, value)| metadata()[key] == *value));
                }
                "state" => {
                    let forbidden = record.metadata.get("state").is_some_and(|s| s == "forbidden");
                    assert_eq!(if forbidden { "forbidden" } else { "ready" }, expected);
                }
                other => panic!("{other} is not checked"),
            }
        }
    }
}
