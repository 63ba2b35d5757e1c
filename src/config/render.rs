//! Prints the file: its tables in the order of their definitions, with or without documentation.

use std::collections::BTreeSet;

use super::{
    raw::RawFile,
    table::{KeyDef, Shape, TableDef},
    value::Value,
};

/// `file` as TOML, without comments.
pub(super) fn render(file: &RawFile) -> String {
    let mut printer = Printer::default();
    printer.file(file, &RawFile::default());
    printer.text
}

/// `file` as TOML with the documentation of every table and key, each once. After the tables behind
/// a key come those that `examples` has there, commented out: what is behind `# ` is prose, what is
/// behind `#` alone could be written.
pub(super) fn render_documented(file: &RawFile, examples: &RawFile) -> String {
    let mut printer = Printer { documented: Some(BTreeSet::new()), ..Printer::default() };
    printer.file(file, examples);
    printer.text
}

#[derive(Default)]
struct Printer {
    text: String,
    /// Tables, and keys of tables, whose documentation is printed already; none: never print it.
    documented: Option<BTreeSet<(&'static str, &'static str)>>,
}

impl Printer {
    fn file(&mut self, file: &RawFile, examples: &RawFile) {
        let (definition, file, examples) = (RawFile::definition(), file.write(), examples.write());
        self.prose((definition.name, ""), &definition.about);
        self.keys(&definition, &file);
        for key in &definition.keys {
            self.tables(key, "", &file);
            let live = self.text.len();
            self.tables(key, "", &examples);
            let example = self.text.split_off(live);
            self.text.extend(example.split_inclusive('\n').flat_map(commented_out));
        }
    }

    /// One table with its header, and the tables in it.
    fn table(&mut self, definition: &TableDef, path: &str, header: &str, table: &toml::Value) {
        self.text.push('\n');
        self.prose((definition.name, ""), &definition.about);
        self.line(header);
        self.keys(definition, table);
        for key in definition.all_keys() {
            self.tables(key, &format!("{path}."), table);
        }
    }

    /// The plain values of a table.
    fn keys(&mut self, definition: &TableDef, table: &toml::Value) {
        for KeyDef { name, about, shape } in &definition.keys {
            if let (Shape::Value(_), Some(value)) = (shape, table.get(name)) {
                self.prose((definition.name, name), about);
                self.line(&format!("{name} = {value}"));
            }
        }
        for included in &definition.includes {
            self.keys(included, table);
        }
    }

    /// The tables behind one key of a table.
    fn tables(&mut self, key: &KeyDef, prefix: &str, table: &toml::Value) {
        let path = format!("{prefix}{}", key.name);
        let (Some(definition), Some(value)) = (key.shape.table(), table.get(key.name)) else {
            return;
        };
        match (&key.shape, value) {
            (Shape::Tables(_), toml::Value::Array(tables)) => {
                for table in tables {
                    self.table(definition, &path, &format!("[[{path}]]"), table);
                }
            }
            (Shape::Named(_), toml::Value::Table(tables)) => {
                for (name, table) in tables {
                    let path = format!("{path}.{}", toml::Value::from(&**name));
                    self.table(definition, &path, &format!("[{path}]"), table);
                }
            }
            _ => self.table(definition, &path, &format!("[{path}]"), value),
        }
    }

    /// Documentation, the first time.
    fn prose(&mut self, of: (&'static str, &'static str), about: &str) {
        if self.documented.as_mut().is_some_and(|documented| documented.insert(of)) {
            // Below a header the first key needs no distance.
            if ![None, Some(true)].contains(&self.text.lines().last().map(is_header_or_empty)) {
                self.text.push('\n');
            }
            for line in about.lines() {
                self.line(format!("# {line}").trim_end());
            }
        }
    }

    fn line(&mut self, line: &str) {
        self.text.push_str(line);
        self.text.push('\n');
    }
}

fn is_header_or_empty(line: &str) -> bool {
    line.is_empty() || line.starts_with('[')
}

fn commented_out(line: &str) -> [&str; 2] {
    let prose = line.starts_with('#') || line.trim().is_empty();
    [if prose { "" } else { "#" }, line]
}
