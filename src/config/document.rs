//! Policy outside of the file: one document for the keys of a `[service.NAME]` or a `[[route]]`.
//!
//! Live policy keeps them in etcd. They are read and checked by what reads and checks the file, so
//! that a key is the same in both.

use std::{collections::BTreeMap, fmt, str::FromStr};

use toml::Spanned;

use super::{
    check::check_route,
    policy_keys::PolicyKeys,
    problem::{Problem, Problems},
    raw::{RawPolicy, RawRoute},
    read::table,
    settings::{Route, Settings},
    value::{Scope, Value},
};
use crate::model::ServiceName;

/// What a document is about. Routes are in the order of their ids.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum DocumentKey {
    /// `service/NAME`: how calls of a service are made.
    Service(ServiceName),
    /// `route/ID`: a rule for calls. The id is 1 to 63 letters, digits and `-`, `_`, `.`.
    Route(String),
}

/// A text that is not the key of a document.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is not the key of a policy; allowed: service/NAME, or route/ID of 1 to 63 letters, digits and - _ ."
)]
pub struct DocumentKeyError(String);

impl FromStr for DocumentKey {
    type Err = DocumentKeyError;

    fn from_str(text: &str) -> Result<Self, DocumentKeyError> {
        let is_id = |id: &str| {
            (1..=63).contains(&id.len())
                && id.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
        };
        let key = match text.split_once('/') {
            Some(("service", name)) => name.parse().ok().map(Self::Service),
            Some(("route", id)) if is_id(id) => Some(Self::Route(id.to_owned())),
            _ => None,
        };
        key.ok_or_else(|| DocumentKeyError(text.to_owned()))
    }
}

impl fmt::Display for DocumentKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Service(name) => write!(f, "service/{name}"),
            Self::Route(id) => write!(f, "route/{id}"),
        }
    }
}

/// A document that can be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Document {
    /// Keys of a service, to be laid over those of the file.
    Service(Box<PolicyKeys>),
    /// A route.
    Route(Box<Route>),
}

/// Why a document cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DocumentError {
    /// It says something wrong, each with its place.
    #[error("{}", each(.0))]
    Toml(Vec<Problem>),
    /// It begins as JSON does, and is none; or it says something wrong.
    #[error("{}", .0.join("; "))]
    Json(Vec<String>),
}

fn each(problems: &[Problem]) -> String {
    let text = |p: &Problem| format!("{}:{}: {}", p.line, p.column, p.message);
    problems.iter().map(text).collect::<Vec<_>>().join("; ")
}

impl Document {
    /// Reads the keys of `key`: TOML, or JSON where the text begins with a brace.
    ///
    /// # Errors
    /// [`DocumentError`], with every mistake.
    pub fn read(key: &DocumentKey, text: &str) -> Result<Self, DocumentError> {
        if text.trim_start().starts_with('{') {
            let json = |wrong: String| DocumentError::Json(vec![wrong]);
            let value: serde_json::Value =
                serde_json::from_str(text).map_err(|error| json(error.to_string()))?;
            // Which is all that TOML has no form for.
            let nothing = "a value is null or too large a number; leave the key out";
            let value = toml::Value::try_from(&value).map_err(|_| json(nothing.to_owned()))?;
            // Places in this text would mislead: it is not the one that was written.
            let text = toml::to_string(&value).map_err(|error| json(error.to_string()))?;
            let messages = |problems: Vec<Problem>| problems.into_iter().map(|p| p.message);
            return read(key, &text)
                .map_err(|problems| DocumentError::Json(messages(problems).collect()));
        }
        read(key, text).map_err(DocumentError::Toml)
    }

    /// What it says, key by key, whatever it was written in: `retry.budget` and its value in TOML.
    pub fn lines(&self) -> BTreeMap<String, String> {
        let mut lines = BTreeMap::new();
        let written = match self {
            Self::Service(keys) => keys.0.write(),
            Self::Route(route) => RawRoute::from(&**route).write(),
        };
        add_lines("", &written, &mut lines);
        lines
    }
}

fn add_lines(path: &str, value: &toml::Value, lines: &mut BTreeMap<String, String>) {
    match value {
        toml::Value::Table(table) => {
            let dot = if path.is_empty() { "" } else { "." };
            for (key, value) in table {
                add_lines(&format!("{path}{dot}{key}"), value, lines);
            }
        }
        value => drop(lines.insert(path.to_owned(), value.to_string())),
    }
}

fn read(key: &DocumentKey, text: &str) -> Result<Document, Vec<Problem>> {
    let mut problems = Problems::default();
    let document = table(text, &mut problems).and_then(|value| match key {
        DocumentKey::Service(name) => {
            let scope = Scope::default().child("service").named(name.as_str());
            let raw = RawPolicy::read(&value, &scope, &mut problems)?;
            no_tls(&raw, &mut problems);
            Some(Document::Service(Box::new(PolicyKeys(raw))))
        }
        DocumentKey::Route(_) => {
            let scope = Scope::default().child("route").each();
            let raw = Spanned::<RawRoute>::read(&value, &scope, &mut problems)?;
            no_tls(&raw.get_ref().policy, &mut problems);
            let route = check_route(&raw, &key.to_string(), &mut problems)?;
            Some(Document::Route(Box::new(route)))
        }
    });
    document.filter(|_| problems.is_empty()).ok_or_else(|| problems.locate(text))
}

/// Who may write into etcd must not be able to turn TLS off, nor have files of this host read.
fn no_tls(raw: &RawPolicy, problems: &mut Problems) {
    if let Some(span) = raw.tls.span() {
        problems.note(
            span,
            "tls: is of the configuration file only, so that nobody turns it off from afar",
        );
    }
}

impl Settings {
    /// These settings with documents laid over them: keys of a service win over those of the file, and
    /// routes go before those of the file.
    #[must_use]
    pub fn with<'a>(
        &self,
        documents: impl IntoIterator<Item = (&'a DocumentKey, &'a Document)>,
    ) -> Self {
        let mut settings = self.clone();
        let mut routes = BTreeMap::new();
        for (key, document) in documents {
            match (key, document) {
                (DocumentKey::Service(name), Document::Service(keys)) => {
                    let policy = keys.over(self.policy(name));
                    settings.services.insert(name.clone(), policy);
                }
                (key, Document::Route(route)) => drop(routes.insert(key, route)),
                (DocumentKey::Route(_), Document::Service(_)) => {}
            }
        }
        let before = routes.into_values().map(|route| (**route).clone());
        settings.routes = before.chain(self.routes.iter().cloned()).collect();
        settings
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(key: &str, text: &str) -> Result<Document, String> {
        let read = Document::read(&key.parse().unwrap(), text);
        read.map_err(|error| error.to_string())
    }

    #[test]
    fn a_key_names_a_service_or_a_route() {
        for key in ["service/orders", "service/team~Orders.v1", "route/10-canary"] {
            assert_eq!(key.parse::<DocumentKey>().unwrap().to_string(), key);
        }
        for bad in ["", "orders", "service/", "service/a/b", "route/", "route/a b", "routes/a"] {
            assert!(bad.parse::<DocumentKey>().is_err(), "{bad}");
        }
    }

    #[test]
    fn toml_and_json_say_the_same() {
        let toml = read("service/orders", "attempts = 5\ntimeout = \"2s\"");
        let json = read("service/orders", " {\"timeout\": \"2s\", \"attempts\": 5}");
        assert_eq!(toml, json);
        let toml = read("route/a", "authority = \"a\"\nsplit = [{ service = \"b\", weight = 1 }]");
        let json = read("route/a", r#"{"authority":"a","split":[{"service":"b","weight":1}]}"#);
        assert!(toml.is_ok());
        assert_eq!(toml, json);
    }

    #[test]
    fn what_is_wrong_is_what_would_be_wrong_in_the_file() {
        for (key, text, expected) in [
            (
                "service/o",
                "atempts = 5",
                "1:1: unknown key \"atempts\" in [service.\"o\"], did you",
            ),
            ("service/o", "\n attempts = 0", "2:13: service.\"o\".attempts: found the number 0"),
            ("service/o", "attempts", "1:9: "),
            ("route/o", "service = \"o\"", "1:1: route: would take every call"),
            ("route/o", "authority = \"o\"", "1:1: route: `service` is missing"),
            ("route/o", "authorty = \"o\"", "1:1: unknown key \"authorty\" in [[route]], did you"),
            ("service/o", "{\"attempts\": 0}", "service.\"o\".attempts: found the number 0"),
            ("service/o", "{\"attempts\": }", "expected value at line 1 column 14"),
            ("service/o", "{\"attempts\": null}", "a value is null or too large"),
        ] {
            let wrong = read(key, text).unwrap_err();
            assert!(wrong.starts_with(expected), "{text}: {wrong}");
        }
        let all = read("service/o", "attempts = 0\ntimeout = 0").unwrap_err();
        assert!(all.contains("; 2:11: "), "{all}");
    }

    #[test]
    fn documents_win_over_the_file_key_by_key_and_their_routes_go_first() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("p.toml");
        let file = "[service.orders]\nattempts = 5\ntimeout = \"5s\"\n\
                    [[route]]\nauthority = \"a\"\nservice = \"of-file\"\nattempts = 9";
        std::fs::write(&path, file).unwrap();
        let settings = super::super::load(Some(&path), &Default::default()).unwrap().settings;
        let document = |key: &str, text| (key.parse().unwrap(), read(key, text).unwrap());
        let documents = BTreeMap::from([
            document("service/orders", "timeout = \"1s\""),
            document("service/pay", "attempts = 2"),
            document("route/20", "authority = \"a\"\nservice = \"second\""),
            document("route/10", "authority = \"a\"\nservice = \"first\""),
        ]);
        let with = settings.with(&documents);
        let orders = with.policy(&"orders".parse().unwrap());
        assert_eq!((orders.attempts, orders.timeout.unwrap().as_secs()), (5, 1));
        assert_eq!(with.policy(&"pay".parse().unwrap()).attempts, 2);
        let names: Vec<_> = with.routes.iter().map(|route| &*route.name).collect();
        assert_eq!(names, ["route/10", "route/20", "#1"]);
        assert_eq!(settings.with(&BTreeMap::new()), settings);
    }

    #[test]
    fn lines_tell_every_key_by_its_path() {
        let document =
            read("route/a", "authority = \"a\"\nservice = \"s\"\nfault.abort = \"ABORTED\"");
        let lines = document.unwrap().lines();
        assert_eq!(lines["fault.abort"], "\"ABORTED\"");
        assert_eq!(lines["service"], "\"s\"");
    }
}
