//! What is written about the configuration and the command line says what the program does.
//!
//! `config/pillion.toml` and `docs/configuration.md` are made from the definitions in
//! `src/config/raw.rs` and `src/cli.rs`. After a change there, write them again with
//! `UPDATE_DOCS=1 cargo test --test documentation`.

#![allow(clippy::unwrap_used, reason = "the exception for tests does not cover their helpers")]

use std::{env, fs, path::Path};

use pillion::{
    cli,
    config::{self, KeyDef, Overrides, Shape, TableDef},
};

#[test]
fn the_committed_default_file_is_the_one_that_the_program_prints() {
    same_as_committed("config/pillion.toml", &config::default_file());
}

#[test]
fn the_committed_reference_has_every_key_flag_and_variable() {
    same_as_committed("docs/configuration.md", &reference());
}

#[test]
fn every_example_in_the_reference_is_a_configuration() {
    let reference = reference();
    let examples: Vec<&str> = reference
        .split("```toml\n")
        .skip(1)
        .map(|rest| rest.split("```").next().unwrap_or_default())
        .collect();
    assert!(examples.len() > 2);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("example.toml");
    for example in examples {
        fs::write(&path, example).unwrap();
        let loaded = config::load(Some(&path), &Overrides::default());
        assert!(loaded.is_ok(), "{}\n{example}", loaded.unwrap_err());
    }
}

/// Compares with, or writes, a file of the repository.
fn same_as_committed(path: &str, expected: &str) {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    if env::var_os("UPDATE_DOCS").is_some() {
        fs::write(&file, expected).unwrap();
    }
    let committed = fs::read_to_string(&file).unwrap_or_default();
    assert!(
        committed == expected,
        "{path} is out of date; run: UPDATE_DOCS=1 cargo test --test documentation"
    );
}

fn reference() -> String {
    let text = include_str!("configuration.md");
    let marked = "<!-- Written by `UPDATE_DOCS=1 cargo test --test documentation` from \
                  tests/documentation/configuration.md, src/config/raw.rs and src/cli.rs: change \
                  those. -->\n\n";
    let text = text.replace("{{KEYS}}\n", &keys()).replace("{{FLAGS}}\n", &flags());
    format!("{marked}{text}")
}

/// One section for each table of the file.
fn keys() -> String {
    let defaults: toml::Table = config::default_file().parse().unwrap();
    let mut sections: Vec<(Vec<String>, TableDef)> = Vec::new();
    config::definition().walk(&mut |header, table| {
        // Two places that hold the same keys share a section.
        match sections.iter_mut().find(|(_, known)| known.name == table.name) {
            Some((headers, _)) => headers.push(header.to_owned()),
            None => sections.push((vec![header.to_owned()], table.clone())),
        }
    });
    let mut text = String::new();
    for (headers, table) in sections {
        let titles = headers.iter().map(|header| format!("`{header}`")).collect::<Vec<_>>();
        match &*headers[0] {
            "" => text.push_str("### At the top\n\n"),
            _ => text.push_str(&format!("### {}\n\n{}\n\n", titles.join(", "), line(&table.about))),
        }
        text.push_str("| key | default | allowed | what it does |\n|---|---|---|---|\n");
        for key in &table.keys {
            text.push_str(&row(key, &headers[0], default_of(&defaults, &headers[0], key.name)));
        }
        text.push('\n');
    }
    text
}

/// `header` is the one of the table that the key is in.
fn row(key: &KeyDef, header: &str, default: Option<&toml::Value>) -> String {
    let KeyDef { name, about, shape } = key;
    let path = format!("{}.{name}", header.trim_matches(['[', ']']));
    let path = path.trim_start_matches('.');
    let (default, allowed) = match shape {
        Shape::Value(allowed) => (default.map(|value| format!("`{value}`")), allowed.clone()),
        Shape::Table(_) => (None, format!("`[{path}]`, below")),
        Shape::Tables(_) => (None, format!("any number of `[[{path}]]`, below")),
        Shape::Named(_) => (None, format!("any number of `[{path}.NAME]`, below")),
    };
    cells(&[&format!("`{name}`"), &default.unwrap_or_default(), &allowed, about])
}

/// Default of a key of the table under `header`, as the default file has it.
fn default_of<'a>(file: &'a toml::Table, header: &str, key: &str) -> Option<&'a toml::Value> {
    let path = header.trim_matches(['[', ']']);
    let mut table = file;
    for name in path.split('.').filter(|name| !name.is_empty()) {
        table = match table.get(name)? {
            toml::Value::Array(tables) => tables.first()?.as_table()?,
            table => table.as_table()?,
        };
    }
    table.get(key)
}

/// One section for each command, those of groups included.
fn flags() -> String {
    let mut text = String::new();
    for command in cli::command().get_subcommands() {
        section(&mut text, "pillion", command);
    }
    text
}

fn section(text: &mut String, before: &str, command: &clap::Command) {
    let name = format!("{before} {}", command.get_name());
    let about = command.get_about().map(ToString::to_string).unwrap_or_default();
    text.push_str(&format!("### `{name}`\n\n{about}.\n\n"));
    let mut rows = String::new();
    for arg in command.get_arguments() {
        let name = match (arg.get_short(), arg.get_long()) {
            (Some(short), Some(long)) => format!("`-{short}`, `--{long}`"),
            (None, Some(long)) => format!("`--{long}`"),
            _ => format!("`{}`", arg.get_id().as_str().to_uppercase()),
        };
        let variable = arg.get_env().map(|name| format!("`{}`", name.to_string_lossy()));
        let default = arg.get_default_values().iter().map(|value| value.to_string_lossy());
        let default = default.map(|value| format!("`{value}`")).collect::<Vec<_>>().join(", ");
        let about = arg.get_help().map(ToString::to_string).unwrap_or_default();
        rows.push_str(&cells(&[&name, &variable.unwrap_or_default(), &default, &about]));
    }
    if !rows.is_empty() {
        if command.has_subcommands() {
            text.push_str("Flags of all its commands:\n\n");
        }
        text.push_str("| flag | variable | default | what it does |\n|---|---|---|---|\n");
        text.push_str(&rows);
        text.push('\n');
    }
    for command in command.get_subcommands() {
        section(text, &name, command);
    }
}

fn cells(cells: &[&str]) -> String {
    let cells = cells.iter().map(|cell| line(cell).replace('|', "\\|"));
    format!("| {} |\n", cells.collect::<Vec<_>>().join(" | "))
}

/// Prose on one line; what HTML would take for a tag is kept.
fn line(text: &str) -> String {
    text.lines().collect::<Vec<_>>().join(" ").replace('<', "&lt;")
}
