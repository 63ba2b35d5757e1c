//! How a value of the file becomes a value of the program, and back.
//!
//! Two traits: [`Text`] for what is written as a string (most of it), [`Value`] for anything.

use std::{collections::BTreeMap, fmt, str::FromStr};

use toml::{Spanned, de::DeValue};

use super::{problem::Problems, settings::Percent, table::Shape};

/// Something that can stand behind a key.
pub(super) trait Value: Sized {
    /// What may be written, for documentation.
    fn shape() -> Shape;

    /// Reads it. None once what is wrong has been noted.
    fn read(value: &Spanned<DeValue<'_>>, scope: &Scope, problems: &mut Problems) -> Option<Self>;

    /// Writes it so that reading gives it back.
    fn write(&self) -> toml::Value;
}

/// Something that is written as a string.
pub(super) trait Text: Sized {
    /// What may be written, such as `a path`.
    fn allowed() -> String;

    /// Reads it.
    ///
    /// # Errors
    /// What is wrong and what is allowed, most often by [`Text::refuse`].
    fn from_text(text: &str) -> Result<Self, String>;

    /// Writes it so that reading gives it back.
    fn to_text(&self) -> String;

    /// The error of [`Text::from_text`] that says `wrong` and what is allowed.
    fn refuse<T>(wrong: &str) -> Result<T, String> {
        Err(format!("{wrong}; allowed: {}", Self::allowed()))
    }
}

/// The place in the file that is being read, as a person would name it.
#[derive(Clone, Debug, Default)]
pub(super) struct Scope {
    path: String,
    repeated: bool,
    /// The last part of the path is a name that the user chose.
    named: Option<String>,
}

impl Scope {
    /// The place of `key` in this one.
    pub(super) fn child(&self, key: &str) -> Self {
        let dot = if self.path.is_empty() { "" } else { "." };
        Self { path: format!("{}{dot}{key}", self.path), ..Self::default() }
    }

    /// The same place, holding several tables.
    pub(super) fn each(&self) -> Self {
        Self { path: self.path.clone(), repeated: true, ..Self::default() }
    }

    /// The place of the table that the user calls `name` in this one.
    pub(super) fn named(&self, name: &str) -> Self {
        let path = format!("{}.{name:?}", self.path);
        Self { path, named: Some(format!("{}.\"{name}", self.path)), ..Self::default() }
    }

    /// The header that was meant, where a name with a dot lacks its quotes: in
    /// `[service.orders.v1]`, `v1` looks like a table in the one that is called `orders`.
    pub(super) fn with_quotes(&self, key: &str) -> Option<String> {
        self.named.as_ref().map(|named| format!("[{named}.{key}\"]"))
    }

    /// `in [path]`, or that it is above all tables.
    pub(super) fn header(&self) -> String {
        match (&*self.path, self.repeated) {
            ("", _) => "at the top".to_owned(),
            (path, false) => format!("in [{path}]"),
            (path, true) => format!("in [[{path}]]"),
        }
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.path)
    }
}

/// Notes that `value` is none of what is allowed.
pub(super) fn unexpected(
    value: &Spanned<DeValue<'_>>,
    scope: &Scope,
    allowed: &str,
    problems: &mut Problems,
) {
    let message = format!("{scope}: found {}; allowed: {allowed}", describe(value));
    problems.note(value.span(), message);
}

fn describe(value: &Spanned<DeValue<'_>>) -> String {
    match value.get_ref() {
        DeValue::String(text) => format!("the string {text:?}"),
        DeValue::Integer(number) => format!("the number {number}"),
        DeValue::Float(number) => format!("the number {}", number.as_str()),
        DeValue::Boolean(flag) => flag.to_string(),
        DeValue::Datetime(_) => "a date".to_owned(),
        DeValue::Array(_) => "an array".to_owned(),
        DeValue::Table(_) => "a table".to_owned(),
    }
}

impl<T: Text> Value for T {
    fn shape() -> Shape {
        Shape::Value(T::allowed())
    }

    fn read(value: &Spanned<DeValue<'_>>, scope: &Scope, problems: &mut Problems) -> Option<Self> {
        let read = match value.get_ref() {
            DeValue::String(text) => T::from_text(text),
            _ => T::refuse(&format!("found {}", describe(value))),
        };
        read.map_err(|wrong| problems.note(value.span(), format!("{scope}: {wrong}"))).ok()
    }

    fn write(&self) -> toml::Value {
        self.to_text().into()
    }
}

/// A whole number from `MIN` to `MAX`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Count<const MIN: u32, const MAX: u32>(pub(super) u32);

impl<const MIN: u32, const MAX: u32> Count<MIN, MAX> {
    fn allowed() -> String {
        format!("a whole number from {MIN} to {MAX}")
    }
}

impl<const MIN: u32, const MAX: u32> Value for Count<MIN, MAX> {
    fn shape() -> Shape {
        Shape::Value(Self::allowed())
    }

    fn read(value: &Spanned<DeValue<'_>>, scope: &Scope, problems: &mut Problems) -> Option<Self> {
        if let DeValue::Integer(number) = value.get_ref()
            && let Ok(number) = u32::from_str_radix(number.as_str(), number.radix())
            && (MIN..=MAX).contains(&number)
        {
            return Some(Self(number));
        }
        unexpected(value, scope, &Self::allowed(), problems);
        None
    }

    fn write(&self) -> toml::Value {
        i64::from(self.0).into()
    }
}

/// A share in percent, from 0 to 100, with or without a fraction.
#[derive(Clone, Copy, Debug)]
pub(super) struct PercentValue(pub(super) Percent);

impl Value for PercentValue {
    fn shape() -> Shape {
        Shape::Value(PERCENT.to_owned())
    }

    fn read(value: &Spanned<DeValue<'_>>, scope: &Scope, problems: &mut Problems) -> Option<Self> {
        let number = match value.get_ref() {
            DeValue::Integer(number) => number.as_str().parse().ok(),
            DeValue::Float(number) => number.as_str().parse().ok(),
            _ => None,
        };
        let percent = number.and_then(Percent::new);
        if percent.is_none() {
            unexpected(value, scope, PERCENT, problems);
        }
        percent.map(Self)
    }

    fn write(&self) -> toml::Value {
        self.0.get().into()
    }
}

const PERCENT: &str = "a number from 0.0 to 100.0";

/// A share of a whole, from 0 to 1.
#[derive(Clone, Copy, Debug)]
pub(super) struct Share(pub(super) Percent);

impl Value for Share {
    fn shape() -> Shape {
        Shape::Value(SHARE.to_owned())
    }

    fn read(value: &Spanned<DeValue<'_>>, scope: &Scope, problems: &mut Problems) -> Option<Self> {
        let number: Option<f64> = match value.get_ref() {
            DeValue::Integer(number) => number.as_str().parse().ok(),
            DeValue::Float(number) => number.as_str().parse().ok(),
            _ => None,
        };
        let share = number.and_then(|number| Percent::new(number * 100.0));
        if share.is_none() {
            unexpected(value, scope, SHARE, problems);
        }
        share.map(Self)
    }

    fn write(&self) -> toml::Value {
        self.0.share().into()
    }
}

const SHARE: &str = "a number from 0.0 to 1.0";

/// Text by key; numbers and booleans may be written as such.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Metadata(pub(super) BTreeMap<String, String>);

impl Metadata {
    const ALLOWED: &str = "a table of strings, numbers and booleans, such as { gpu = true }";
}

impl Value for Metadata {
    fn shape() -> Shape {
        Shape::Value(Self::ALLOWED.to_owned())
    }

    fn read(value: &Spanned<DeValue<'_>>, scope: &Scope, problems: &mut Problems) -> Option<Self> {
        let DeValue::Table(table) = value.get_ref() else {
            unexpected(value, scope, Self::ALLOWED, problems);
            return None;
        };
        let mut read = BTreeMap::new();
        for (key, value) in table {
            let text = match value.get_ref() {
                DeValue::String(text) => text.to_string(),
                DeValue::Integer(number) => number.to_string(),
                DeValue::Float(number) => number.to_string(),
                DeValue::Boolean(flag) => flag.to_string(),
                _ => {
                    let allowed = "a string, a number or a boolean";
                    unexpected(value, &scope.child(key.get_ref()), allowed, problems);
                    continue;
                }
            };
            read.insert(key.get_ref().to_string(), text);
        }
        Some(Self(read))
    }

    fn write(&self) -> toml::Value {
        let entries = self.0.iter().map(|(key, text)| (key.clone(), text.clone().into()));
        entries.collect::<toml::Table>().into()
    }
}

impl Value for bool {
    fn shape() -> Shape {
        Shape::Value("true or false".to_owned())
    }

    fn read(value: &Spanned<DeValue<'_>>, scope: &Scope, problems: &mut Problems) -> Option<Self> {
        if let DeValue::Boolean(flag) = value.get_ref() {
            return Some(*flag);
        }
        unexpected(value, scope, "true or false", problems);
        None
    }

    fn write(&self) -> toml::Value {
        (*self).into()
    }
}

/// A value that keeps its place, so that what is missing in it can be noted there.
impl<T: Value> Value for Spanned<T> {
    fn shape() -> Shape {
        T::shape()
    }

    fn read(value: &Spanned<DeValue<'_>>, scope: &Scope, problems: &mut Problems) -> Option<Self> {
        T::read(value, scope, problems).map(|read| Self::new(value.span(), read))
    }

    fn write(&self) -> toml::Value {
        self.get_ref().write()
    }
}

/// An array of values, or several tables of one name.
impl<T: Value> Value for Vec<T> {
    fn shape() -> Shape {
        match T::shape() {
            Shape::Table(table) => Shape::Tables(table),
            Shape::Value(allowed) => Shape::Value(format!("an array, each element {allowed}")),
            // Arrays of arrays have no place in the file.
            nested => nested,
        }
    }

    fn read(value: &Spanned<DeValue<'_>>, scope: &Scope, problems: &mut Problems) -> Option<Self> {
        let DeValue::Array(array) = value.get_ref() else {
            let allowed = match T::shape() {
                Shape::Value(allowed) => format!("an array, each element {allowed}"),
                _ => format!("[[{scope}]]"),
            };
            unexpected(value, scope, &allowed, problems);
            return None;
        };
        // Not `collect::<Option<_>>` over a lazy iterator: every element is read, to note all that
        // is wrong.
        let read: Vec<_> =
            array.iter().map(|element| T::read(element, &scope.each(), problems)).collect();
        read.into_iter().collect()
    }

    fn write(&self) -> toml::Value {
        self.iter().map(Value::write).collect::<Vec<_>>().into()
    }
}

/// Tables by a name of the user's choice.
impl<K: FromStr<Err: fmt::Display> + fmt::Display + Ord, T: Value> Value for BTreeMap<K, T> {
    fn shape() -> Shape {
        match T::shape() {
            Shape::Table(table) => Shape::Named(table),
            Shape::Value(allowed) => Shape::Value(format!("a table of names, each with {allowed}")),
            other => other,
        }
    }

    fn read(value: &Spanned<DeValue<'_>>, scope: &Scope, problems: &mut Problems) -> Option<Self> {
        let DeValue::Table(table) = value.get_ref() else {
            unexpected(value, scope, "a table", problems);
            return None;
        };
        let mut read = Self::new();
        for (key, value) in table {
            let entry = T::read(value, &scope.named(key.get_ref()), problems);
            match key.get_ref().parse() {
                Ok(name) => drop(entry.map(|entry| read.insert(name, entry))),
                Err(wrong) => problems.note(key.span(), format!("{scope}: {wrong}")),
            }
        }
        Some(read)
    }

    fn write(&self) -> toml::Value {
        let entries = self.iter().map(|(name, entry)| (name.to_string(), entry.write()));
        entries.collect::<toml::Table>().into()
    }
}
