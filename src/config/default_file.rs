//! The commented default file: `config/pillion.toml`, as `pillion config --default` prints it.

use super::{
    problem::Problems, raw::RawFile, read::read, render::render_documented, settings::Settings,
};

/// Tables that the default configuration has none of.
const EXAMPLES: &str = r#"
[[listener]]
address = "0.0.0.0:8443"

[listener.tls]
cert = "server.pem"
key = "server.key"
client_ca = "ca.pem"
allow = ["spiffe://prod/ns/shop/*"]
min_version = "1.3"
[[source]]
name = "static"
kind = "file"
path = "services.toml"

[[register]]
service = "pay"
address = "10.0.0.5:9000"
source = "main"
format = "kratos"
id = "pay-1"
name = "pay"
weight = 100
version = "v1"
zone = "a"
metadata = { gpu = true }
ttl = "15s"

[register.health]
kind = "grpc"
target = "127.0.0.1:9000"
interval = "5s"
timeout = "1s"
healthy_after = 1
unhealthy_after = 3

[service."orders"]
connection = "pooled"
timeout = "2s"

[[route]]
authority = "orders.internal:8443"
path_prefix = "/orders.v1."
service = "orders"
split_on = "header:x-user"
split = [{ filter = "version=v2", weight = 10 }, { service = "orders-next", weight = 90 }]

[[route]]
authority = "*.internal"
method = "/orders.v1.Orders/List"
headers = { x-user = "test", x-tag = "canary-*" }
service = "orders"
filter = "version=v2"
timeout = "500ms"
request_headers = { remove = ["x-debug"], set = { x-env = "canary" }, add = { x-tag = "route" } }
fault = { delay = "100ms", delay_percent = 10.0, abort = "UNAVAILABLE", abort_percent = 1.0 }

[[route]]
authority = "closed.internal"
respond = { grpc_status = "UNAVAILABLE", http_status = 503, message = "closed until Monday" }

[policy]
source = "main"
prefix = "/pillion/policy"
"#;

/// Every key with its documentation and its default, and examples of the tables that there may be
/// more of, commented out. Loading it gives the default settings.
pub fn default_file() -> String {
    let examples = read(EXAMPLES, &mut Problems::default()).unwrap_or_default();
    render_documented(&RawFile::from(&Settings::default()), &examples)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::{Shape, read::parse};

    #[test]
    fn the_default_file_loads_to_the_default_settings() {
        assert_eq!(parse(&default_file(), Path::new("/")), Ok(Settings::default()));
    }

    #[test]
    fn the_empty_file_loads_to_the_default_settings() {
        assert_eq!(parse("", Path::new("/")), Ok(Settings::default()));
    }

    #[test]
    fn the_examples_of_the_default_file_can_be_written_as_they_are() {
        let uncomment = |line: &str| match line.strip_prefix('#') {
            Some(code) if !code.is_empty() && !code.starts_with(' ') => format!("{code}\n"),
            _ => format!("{line}\n"),
        };
        let text: String = default_file().lines().map(uncomment).collect();
        let settings = parse(&text, Path::new("/")).unwrap();
        assert_eq!((settings.sources.len(), settings.services.len()), (2, 1));
        assert_eq!(settings.listeners.len(), 2);
        assert_eq!((settings.routes.len(), settings.registers.len()), (3, 1));
    }

    #[test]
    fn the_default_file_has_every_key_with_its_documentation() {
        let text = default_file();
        RawFile::definition().walk(&mut |header, table| {
            for key in table.keys.iter().filter(|key| matches!(key.shape, Shape::Value(_))) {
                let about: String = key.about.lines().map(|line| format!("# {line}\n")).collect();
                let written = |mark| text.matches(&format!("{about}{mark}{} = ", key.name)).count();
                assert!(written("") + written("#") > 0, "{header} {}", key.name);
            }
        });
    }
}
