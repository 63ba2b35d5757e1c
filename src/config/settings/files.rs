//! The files that a configuration names.

use std::path::PathBuf;

use super::{EtcdSource, FileSource, Policy, Settings, SourceKind};

impl Settings {
    /// Files that are read again while the program runs, each with the key that names it.
    pub fn files(&self) -> Vec<(&'static str, PathBuf)> {
        let mut files = Files::default();
        files.add("admin.token_file", &self.admin.token_file);
        let listeners = self.listeners.iter().filter_map(|listener| listener.tls.as_ref());
        for tls in listeners.chain(&self.admin.tls) {
            files.add("tls.cert", [&tls.cert]);
            files.add("tls.key", [&tls.key]);
            files.add("tls.client_ca", &tls.client_ca);
        }
        for source in &self.sources {
            match &source.kind {
                SourceKind::Etcd(etcd) => files.of_etcd(etcd),
                SourceKind::File(FileSource { path }) => files.add("source.path", [path]),
            }
        }
        let policies = [&self.defaults].into_iter().chain(self.services.values());
        policies.for_each(|policy| files.of_policy(policy));
        for route in &self.routes {
            files.of_policy(&route.policy.over(&self.defaults));
        }
        files.0
    }
}

#[derive(Default)]
struct Files(Vec<(&'static str, PathBuf)>);

impl Files {
    fn add<'a>(&mut self, key: &'static str, named: impl IntoIterator<Item = &'a PathBuf>) {
        for path in named {
            // A policy has what it inherits.
            if !self.0.iter().any(|(_, known)| known == path) {
                self.0.push((key, path.clone()));
            }
        }
    }

    fn of_etcd(&mut self, etcd: &EtcdSource) {
        self.add("source.password_file", &etcd.password_file);
        self.add("source.ca_file", &etcd.ca_file);
        self.add("source.cert_file", &etcd.cert_file);
        self.add("source.key_file", &etcd.key_file);
    }

    fn of_policy(&mut self, policy: &Policy) {
        self.add("tls.ca", &policy.tls.ca);
        if let Some((cert, key)) = &policy.tls.identity {
            self.add("tls.cert", [cert]);
            self.add("tls.key", [key]);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use crate::config::read::parse;

    #[test]
    fn every_file_that_is_read_again_is_named_once() {
        let text = r#"
            [admin]
            token_file = "token"
            [[listener]]
            address = "127.0.0.1:1"
            tls = { cert = "l.pem", key = "l.key", client_ca = "l.ca" }
            [[source]]
            endpoints = ["https://a:1"]
            username = "u"
            password_file = "password"
            ca_file = "e.ca"
            cert_file = "e.pem"
            key_file = "e.key"
            [[source]]
            kind = "file"
            path = "services.toml"
            [defaults.tls]
            ca = "d.ca"
            cert = "d.pem"
            key = "d.key"
            [service.a.tls]
            ca = "s.ca"
            [[route]]
            authority = "a"
            service = "a"
            tls = { ca = "r.ca" }
        "#;
        let settings = parse(text, Path::new("/etc")).unwrap();
        let mut files: Vec<_> = settings.files().into_iter().map(|(_, path)| path).collect();
        files.sort();
        let names = "d.ca d.key d.pem e.ca e.key e.pem l.ca l.key l.pem password r.ca s.ca services.toml token";
        let expected: Vec<_> = names.split(' ').map(|name| Path::new("/etc").join(name)).collect();
        assert_eq!(files, expected);
    }
}
