//! What a table of the file is: documented keys that are read, written and shown from one definition.
//!
//! [`table!`] declares a table once, as a struct whose doc comments are the documentation. From it
//! come the reader (which refuses unknown keys), the writer of the effective configuration, the
//! commented default file and the reference in `docs/configuration.md`.

use std::ops::Range;

use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use super::{
    nearest::nearest,
    problem::Problems,
    raw::RawFile,
    value::{Scope, Value, unexpected},
};

/// One table of the file, for documentation.
#[derive(Clone, Debug)]
pub struct TableDef {
    /// Unique among the tables; two places that hold the same keys share it.
    pub name: &'static str,
    /// What the table is for.
    pub about: String,
    /// Its keys, in the order they are shown.
    pub keys: Vec<KeyDef>,
    /// Tables whose keys may all stand in this one, too; they are documented there.
    pub includes: Vec<Self>,
}

/// One key of a table, for documentation.
#[derive(Clone, Debug)]
pub struct KeyDef {
    /// The key as it is written.
    pub name: &'static str,
    /// What it does, with its unit and, where it is not plain, its default.
    pub about: String,
    /// What may stand behind it.
    pub shape: Shape,
}

/// What may stand behind a key.
#[derive(Clone, Debug)]
pub enum Shape {
    /// A value; the text says which ones are allowed.
    Value(String),
    /// A table, written `[key]`.
    Table(TableDef),
    /// Any number of tables, each written `[[key]]`.
    Tables(TableDef),
    /// Tables by a name of the user's choice, each written `[key."name"]`.
    Named(TableDef),
}

impl Shape {
    /// The table behind the key, unless it is a plain value.
    pub const fn table(&self) -> Option<&TableDef> {
        match self {
            Self::Value(_) => None,
            Self::Table(table) | Self::Tables(table) | Self::Named(table) => Some(table),
        }
    }
}

impl TableDef {
    /// Every key that may stand in the table, those of [`Self::includes`] last.
    pub fn all_keys(&self) -> impl Iterator<Item = &KeyDef> {
        self.keys.iter().chain(self.includes.iter().flat_map(|table| &table.keys))
    }

    /// Calls `visit` with every table in this one, itself first, and the header it is written
    /// under, such as `[node]`, `[[source]]` and `[service.NAME]`; for this one itself it is empty.
    pub fn walk(&self, visit: &mut impl FnMut(&str, &Self)) {
        visit("", self);
        self.walk_below("", visit);
    }

    fn walk_below(&self, path: &str, visit: &mut impl FnMut(&str, &Self)) {
        for key in self.all_keys() {
            let Some(table) = key.shape.table() else { continue };
            let (name, last) =
                (key.name, if matches!(key.shape, Shape::Named(_)) { ".NAME" } else { "" });
            let path = format!("{path}{name}{last}");
            let repeated = matches!(key.shape, Shape::Tables(_));
            let header = if repeated { format!("[[{path}]]") } else { format!("[{path}]") };
            visit(&header, table);
            table.walk_below(&format!("{path}."), visit);
        }
    }

    fn has(&self, key: &str) -> bool {
        self.all_keys().any(|known| known.name == key)
    }
}

/// A key in one file.
#[derive(Clone, Debug, Default)]
pub(super) enum Key<T> {
    /// Not written.
    #[default]
    Absent,
    /// Written, but what stands there is wrong, which has been noted.
    Wrong,
    /// Written.
    Given(Spanned<T>),
}

impl<T> Key<T> {
    /// What is written, if it can be used.
    pub(super) fn get(&self) -> Option<&T> {
        match self {
            Self::Given(value) => Some(value.get_ref()),
            Self::Absent | Self::Wrong => None,
        }
    }

    /// The same, to be changed.
    pub(super) fn get_mut(&mut self) -> Option<&mut T> {
        match self {
            Self::Given(value) => Some(value.get_mut()),
            Self::Absent | Self::Wrong => None,
        }
    }

    /// Where it is written, if it can be used.
    pub(super) fn span(&self) -> Option<Range<usize>> {
        match self {
            Self::Given(value) => Some(value.span()),
            Self::Absent | Self::Wrong => None,
        }
    }

    /// What is written, or the empty text.
    pub(super) fn text(&self) -> String
    where
        T: AsRef<str>,
    {
        self.get().map(|text| text.as_ref().to_owned()).unwrap_or_default()
    }

    /// Whether nothing is written.
    pub(super) const fn is_absent(&self) -> bool {
        matches!(self, Self::Absent)
    }
}

/// A value that no file was read for: what the effective configuration is written from.
impl<T> From<T> for Key<T> {
    fn from(value: T) -> Self {
        Self::Given(Spanned::new(0..0, value))
    }
}

/// One table being read.
pub(super) struct TableReader<'a, 'i> {
    table: &'a DeTable<'i>,
    scope: &'a Scope,
    problems: &'a mut Problems,
}

impl<'a, 'i> TableReader<'a, 'i> {
    /// Starts reading `value`, noting keys that `definition` does not have. None, and noted, when it
    /// is not a table.
    pub(super) fn new(
        value: &'a Spanned<DeValue<'i>>,
        definition: &TableDef,
        scope: &'a Scope,
        problems: &'a mut Problems,
    ) -> Option<Self> {
        let DeValue::Table(table) = value.get_ref() else {
            unexpected(value, scope, "a table", problems);
            return None;
        };
        for (key, value) in table.iter().filter(|(key, _)| !definition.has(key.get_ref())) {
            let quotes = scope.with_quotes(key.get_ref()).filter(|_| value.get_ref().is_table());
            problems.note(key.span(), unknown_key(key.get_ref(), definition, scope, quotes));
        }
        Some(Self { table, scope, problems })
    }

    /// Reads one key.
    pub(super) fn key<T: Value>(&mut self, name: &str) -> Key<T> {
        let Some(value) = self.table.get(name) else { return Key::Absent };
        match T::read(value, &self.scope.child(name), self.problems) {
            Some(read) => Key::Given(Spanned::new(value.span(), read)),
            None => Key::Wrong,
        }
    }
}

fn unknown_key(key: &str, def: &TableDef, scope: &Scope, quotes: Option<String>) -> String {
    let known = || def.all_keys().map(|key| key.name);
    let near = nearest(key, known()).map(|near| format!(", did you mean {near:?}?"));
    let quotes = || quotes.map(|header| format!(", a name with dots needs quotes: {header};"));
    let hint = near.or_else(quotes).or_else(|| elsewhere(key)).unwrap_or_else(|| ";".to_owned());
    let (place, known) = (scope.header(), known().collect::<Vec<_>>().join(", "));
    format!("unknown key {key:?} {place}{hint} allowed: {known}")
}

/// A hint at the key of another table that `key`, in this one, may be meant for.
fn elsewhere(key: &str) -> Option<String> {
    let mut keys = Vec::new();
    RawFile::definition().walk(&mut |header, table| {
        let place =
            if header.is_empty() { "at the top".to_owned() } else { format!("in {header}") };
        keys.extend(table.keys.iter().map(|key| (key.name, place.clone())));
    });
    let near = nearest(key, keys.iter().map(|(name, _)| *name))?;
    let homes = keys.iter().filter(|(name, _)| *name == near).map(|(_, place)| &**place);
    let homes = homes.collect::<Vec<_>>().join(" or ");
    Some(match near == key {
        true => format!(", it belongs {homes};"),
        false => format!(", did you mean {near:?} {homes}?"),
    })
}

/// Declares a table of the file. Doc comments become documentation; each key's type says what may
/// stand there. A last field `..name: Table` lets every key of another table stand here, too.
macro_rules! table {
    (
        $(#[doc = $about:literal])*
        struct $name:ident {
            $( $(#[doc = $doc:literal])* $key:ident: $type:ty, )*
            $( ..$rest:ident: $included:ty, )?
        }
    ) => {
        $(#[doc = $about])*
        // Users read this text too, to whom [defaults] is a table of the file.
        #[allow(rustdoc::broken_intra_doc_links)]
        #[derive(Clone, Debug, Default)]
        pub(in crate::config) struct $name {
            $( $(#[doc = $doc])* pub(in crate::config) $key: $crate::config::table::Key<$type>, )*
            $( pub(in crate::config) $rest: $included, )?
        }

        impl $name {
            /// The table, for documentation.
            pub(in crate::config) fn definition() -> $crate::config::table::TableDef {
                $crate::config::table::TableDef {
                    name: stringify!($name),
                    about: $crate::config::table::prose(&[$($about),*]),
                    keys: vec![$( $crate::config::table::KeyDef {
                        name: stringify!($key),
                        about: $crate::config::table::prose(&[$($doc),*]),
                        shape: <$type as $crate::config::value::Value>::shape(),
                    } ),*],
                    includes: vec![$( <$included>::definition() )?],
                }
            }

            /// Takes the keys out of a table that is being read.
            pub(in crate::config) fn take(table: &mut $crate::config::table::TableReader<'_, '_>) -> Self {
                Self {
                    $( $key: table.key(stringify!($key)), )*
                    $( $rest: <$included>::take(table), )?
                }
            }

            /// Puts the keys into a table that is being written.
            pub(in crate::config) fn put(&self, table: &mut toml::Table) {
                $( if let Some(value) = self.$key.get() {
                    let value = $crate::config::value::Value::write(value);
                    table.insert(stringify!($key).to_owned(), value);
                } )*
                $( self.$rest.put(table); )?
            }
        }

        impl $crate::config::value::Value for $name {
            fn shape() -> $crate::config::table::Shape {
                $crate::config::table::Shape::Table(Self::definition())
            }

            fn read(
                value: &toml::Spanned<toml::de::DeValue<'_>>,
                scope: &$crate::config::value::Scope,
                problems: &mut $crate::config::problem::Problems,
            ) -> Option<Self> {
                let mut table = $crate::config::table::TableReader::new(
                    value, &Self::definition(), scope, problems,
                )?;
                Some(Self::take(&mut table))
            }

            fn write(&self) -> toml::Value {
                let mut table = toml::Table::new();
                self.put(&mut table);
                table.into()
            }
        }
    };
}
pub(super) use table;

/// The text of a doc comment, given line by line.
pub(super) fn prose(lines: &[&str]) -> String {
    lines.iter().map(|line| line.trim()).collect::<Vec<_>>().join("\n")
}
