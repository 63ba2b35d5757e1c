//! What must hold of any key and value, whoever wrote them, and of any answer. Each target in `src/bin/` is one
//! format of records, but for `answer`.

mod answer;

/// The formats and what they need of pillion; all of it would take ten times as long to build.
#[path = "../../../src"]
mod sources {
    pub mod formats;
    pub mod model;
    pub mod networks;
    pub mod single;
}

pub use answer::answer;
pub use sources::{formats, model, networks, single};

use formats::{Layout, Reading};

/// Reads `key \n value` as a record of `format`, and looks at what comes out.
///
/// # Panics
/// When something does not hold.
pub fn read(format: &str, data: &[u8]) {
    let layout = Layout::new(format, "").expect("the name of a format");
    let end = data.iter().position(|byte| *byte == b'\n').unwrap_or(data.len());
    let key = [layout.root().as_bytes(), &data[..end]].concat();
    let value = data.get(end + 1..).unwrap_or_default();
    for (service, reading) in layout.read(&key, value) {
        let prefix = layout.prefix(&service).expect("a service that a key has can be asked for");
        assert!(key.starts_with(prefix.as_bytes()), "{service} is looked for where it is");
        assert_eq!(
            layout.read_for(&service, &key, value),
            Some(reading.clone()),
            "alone as among all"
        );
        let Ok(Reading { records, .. }) = reading else { continue };
        for record in records {
            assert!(record.weight <= 1_000_000, "sums of weights cannot overflow");
            assert_eq!(
                record.address.as_str().parse(),
                Ok(record.address.clone()),
                "it can be dialled"
            );
            // What cannot be written is refused; what is written is found where it was put.
            let Ok(written) = layout.encode(&service, &record, 7) else { continue };
            let again = layout.read_for(&service, written.key.as_bytes(), written.value.as_bytes());
            let again = again.expect("it is an instance").expect("it is understood");
            assert_eq!(again.records[0].address, record.address);
        }
    }
}
