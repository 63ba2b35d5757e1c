//! Which endpoints a call may use: the language of `kubectl -l`.

use std::{fmt, str::FromStr, sync::Arc};

use super::Endpoint;

/// Requirements that an endpoint must all meet, such as `version=1.0.0,zone in (a,b),gpu,!spot`.
///
/// As in Kubernetes, `key!=value` and `key notin (..)` also hold where the key is absent. The empty
/// selector matches every endpoint.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selector(Vec<Requirement>);

/// Selectors joined by `;`, tried in order: `version=v2;version=v1;` falls back to v1, then to any.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Selectors {
    text: Arc<str>,
    rules: Vec<Selector>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Requirement {
    key: String,
    test: Test,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Test {
    Present,
    Absent,
    In(Vec<String>),
    NotIn(Vec<String>),
}

/// Why a text is not a selector.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SelectorError {
    /// A requirement without a key, such as in `a=1,,b=2`.
    #[error(
        "selector {0:?}: a requirement is empty; write key=value, key!=value, key in (a,b), key notin (a,b), key or !key, joined by commas"
    )]
    Empty(String),
    /// A key or value with a byte that cannot be one.
    #[error(
        "selector {selector:?}: {part:?} is not a key or value; allowed are letters, digits and - _ . / : + ~"
    )]
    Part {
        /// The whole selector.
        selector: String,
        /// What is wrong in it.
        part: String,
    },
    /// More rules than anyone needs, each of which costs a look at every endpoint.
    #[error("a filter has at most {most} rules, this one has {0}", most = Selectors::MOST_RULES)]
    Many(usize),
    /// `in` or `notin` without a closed list of values.
    #[error("selector {0:?}: write `key in (a,b)` with both parentheses")]
    List(String),
}

impl Selector {
    /// Whether `endpoint` meets every requirement.
    pub fn matches(&self, endpoint: &Endpoint) -> bool {
        self.0.iter().all(|requirement| requirement.holds(endpoint))
    }

    /// Whether it asks for nothing.
    pub const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The first requirement that `endpoint` does not meet. Reports use it; picks do not.
    pub fn first_failed(&self, endpoint: &Endpoint) -> Option<String> {
        self.0.iter().find(|requirement| !requirement.holds(endpoint)).map(ToString::to_string)
    }
}

impl Selectors {
    /// Rules that a filter has at most.
    pub const MOST_RULES: usize = 32;

    /// The rules in the order they are tried; at least one.
    pub fn rules(&self) -> &[Selector] {
        &self.rules
    }

    /// The text it was read from: the key under which results are remembered.
    pub const fn text(&self) -> &Arc<str> {
        &self.text
    }

    /// Whether the first rule already takes every endpoint.
    pub fn is_any(&self) -> bool {
        self.rules.first().is_none_or(Selector::is_empty)
    }
}

impl Default for Selectors {
    fn default() -> Self {
        Self { text: "".into(), rules: vec![Selector::default()] }
    }
}

impl FromStr for Selectors {
    type Err = SelectorError;

    fn from_str(text: &str) -> Result<Self, SelectorError> {
        let number = text.split(';').count();
        if number > Self::MOST_RULES {
            return Err(SelectorError::Many(number));
        }
        let rules = text.split(';').map(str::parse).collect::<Result<_, _>>()?;
        Ok(Self { text: text.into(), rules })
    }
}

impl FromStr for Selector {
    type Err = SelectorError;

    fn from_str(text: &str) -> Result<Self, SelectorError> {
        if text.trim().is_empty() {
            return Ok(Self::default());
        }
        split_outside_lists(text)
            .map(|part| requirement(part, text))
            .collect::<Result<_, _>>()
            .map(Self)
    }
}

impl Requirement {
    fn holds(&self, endpoint: &Endpoint) -> bool {
        let value = endpoint.label(&self.key);
        match &self.test {
            Test::Present => value.is_some(),
            Test::Absent => value.is_none(),
            Test::In(values) => value.is_some_and(|value| values.iter().any(|v| v == value)),
            Test::NotIn(values) => value.is_none_or(|value| values.iter().all(|v| v != value)),
        }
    }
}

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, requirement) in self.0.iter().enumerate() {
            write!(f, "{}{requirement}", if at == 0 { "" } else { "," })?;
        }
        Ok(())
    }
}

impl fmt::Display for Requirement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let key = &self.key;
        match &self.test {
            Test::Present => write!(f, "{key}"),
            Test::Absent => write!(f, "!{key}"),
            Test::In(values) if values.len() == 1 => write!(f, "{key}={}", values[0]),
            Test::NotIn(values) if values.len() == 1 => write!(f, "{key}!={}", values[0]),
            Test::In(values) => write!(f, "{key} in ({})", values.join(",")),
            Test::NotIn(values) => write!(f, "{key} notin ({})", values.join(",")),
        }
    }
}

/// Splits at commas that are not between parentheses.
fn split_outside_lists(text: &str) -> impl Iterator<Item = &str> {
    let mut depth = 0_i32;
    text.split(move |c| {
        depth += i32::from(c == '(') - i32::from(c == ')');
        c == ',' && depth == 0
    })
}

fn requirement(part: &str, selector: &str) -> Result<Requirement, SelectorError> {
    let part = part.trim();
    if part.is_empty() {
        return Err(SelectorError::Empty(selector.to_owned()));
    }
    let (key, test) = if let Some((key, value)) = part.split_once("!=") {
        (key, Test::NotIn(vec![value.to_owned()]))
    } else if let Some((key, value)) = part.split_once("==").or_else(|| part.split_once('=')) {
        (key, Test::In(vec![value.to_owned()]))
    } else if let Some(key) = part.strip_prefix('!') {
        (key, Test::Absent)
    } else if let Some((key, rest)) = part.split_once(char::is_whitespace) {
        let rest = rest.trim();
        // `notin` first: it does not start with `in`, but reads better in this order.
        let (negated, list) = match (rest.strip_prefix("notin"), rest.strip_prefix("in")) {
            (Some(list), _) => (true, list),
            (None, Some(list)) => (false, list),
            (None, None) => return Err(part_error(part, selector)),
        };
        let values = values(list, selector)?;
        (key, if negated { Test::NotIn(values) } else { Test::In(values) })
    } else {
        (part, Test::Present)
    };
    let key = key.trim().to_owned();
    let test = trimmed(test);
    if key.is_empty() || !is_word(&key) {
        return Err(part_error(&key, selector));
    }
    if let Test::In(values) | Test::NotIn(values) = &test
        && let Some(bad) = values.iter().find(|value| !is_word(value))
    {
        return Err(part_error(bad, selector));
    }
    Ok(Requirement { key, test })
}

fn values(list: &str, selector: &str) -> Result<Vec<String>, SelectorError> {
    let inner = list.trim().strip_prefix('(').and_then(|list| list.strip_suffix(')'));
    let inner = inner.ok_or_else(|| SelectorError::List(selector.to_owned()))?;
    Ok(inner.split(',').map(str::to_owned).collect())
}

fn trimmed(test: Test) -> Test {
    let trim = |values: Vec<String>| values.iter().map(|value| value.trim().to_owned()).collect();
    match test {
        Test::In(values) => Test::In(trim(values)),
        Test::NotIn(values) => Test::NotIn(trim(values)),
        other => other,
    }
}

fn part_error(part: &str, selector: &str) -> SelectorError {
    SelectorError::Part { selector: selector.to_owned(), part: part.to_owned() }
}

fn is_word(text: &str) -> bool {
    text.chars().all(|c| c.is_alphanumeric() || "-_./:+~".contains(c))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Record;

    fn endpoint(labels: &[(&str, &str)]) -> Endpoint {
        let mut record = Record::new("10.0.0.1:80".parse().unwrap(), "test");
        for (key, value) in labels {
            match *key {
                "version" => record.version = (*value).to_owned(),
                "zone" => record.zone = (*value).to_owned(),
                key => drop(record.metadata.insert(key.to_owned(), (*value).to_owned())),
            }
        }
        Endpoint {
            record: record.into(),
            source: "main".into(),
            key: "k".into(),
            load: Arc::default(),
            networks: Arc::default(),
        }
    }

    fn matches(selector: &str, labels: &[(&str, &str)]) -> bool {
        selector.parse::<Selector>().unwrap().matches(&endpoint(labels))
    }

    #[test]
    fn every_requirement_must_hold() {
        let labels = [("version", "1.0.0"), ("zone", "a"), ("gpu", "yes")];
        assert!(matches("version=1.0.0,state!=forbidden,zone in (a,b),gpu,!spot", &labels));
        assert!(matches(" version == 1.0.0 , zone notin (c, d) ", &labels));
        assert!(!matches("version=1.0.0,zone=b", &labels));
        assert!(!matches("!gpu", &labels));
        assert!(!matches("zone notin (a)", &labels));
    }

    #[test]
    fn what_is_absent_is_unequal_to_everything() {
        assert!(matches("tier!=gold,tier notin (gold,silver)", &[]));
        assert!(!matches("tier=gold", &[]));
        assert!(!matches("version", &[]));
    }

    #[test]
    fn selectors_fall_back_in_order_and_a_trailing_empty_one_takes_any() {
        let selectors: Selectors = "version=v2;version=v1;".parse().unwrap();
        assert_eq!(selectors.rules().len(), 3);
        assert!(selectors.rules()[2].is_empty());
        assert!(!selectors.is_any());
        assert!(Selectors::default().is_any());
    }

    #[test]
    fn a_filter_has_a_bound() {
        let rules = |number: usize| vec!["version=v1"; number].join(";");
        assert_eq!(rules(32).parse::<Selectors>().unwrap().rules().len(), 32);
        assert_eq!(rules(33).parse::<Selectors>(), Err(SelectorError::Many(33)));
    }

    #[test]
    fn a_text_that_is_no_selector_says_what_is_wrong() {
        for bad in ["a=1,,b", "=1", "a in (b", "a in b)", "a like b", "a=b c", "a=\"x\"", "!", ","]
        {
            assert!(bad.parse::<Selectors>().is_err(), "{bad:?}");
        }
    }
}
