//! Holds the table of layers in `docs/architecture.md`: what the modules of `src/` import.
//!
//! The table is compared both ways. An import that its row does not name fails, and so does a name
//! that nothing imports any more: whoever reads the table can believe it.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

use proc_macro2::{Delimiter, TokenStream, TokenTree};

/// Where the table is: lines `module: what it imports` between these two.
const TABLE: (&str, &str) = ("<!-- layers: held by tests/layers.rs -->", "<!-- end of layers -->");

#[test]
fn each_module_imports_what_its_row_names_and_rows_name_only_rows_above_them() {
    let text = fs::read_to_string(root().join("docs/architecture.md")).expect("readable");
    let rows = rows(&text);
    let modules = read(&root().join("src/lib.rs"), 0).children;
    let mut wrong = Vec::new();
    for (at, (module, may)) in rows.iter().enumerate() {
        if !modules.contains(module) {
            wrong.push(format!("the table names {module}, which is no module of src/lib.rs"));
        }
        let lower: BTreeSet<_> = rows[..at].iter().map(|(module, _)| module).collect();
        let upper = may.iter().filter(|name| !lower.contains(name));
        wrong.extend(upper.map(|name| format!("row {module} names {name}, not a row above it")));
    }
    for module in &modules {
        let row = rows.iter().find(|(row, _)| row == module);
        if row.is_none() {
            wrong.push(format!("module {module} has no row in docs/architecture.md"));
        }
        let may = row.map(|(_, may)| may.clone()).unwrap_or_default();
        let mut unused = may.clone();
        let mut seen = BTreeMap::new();
        gather(&root().join(format!("src/{module}.rs")), 1, &mut seen);
        for (file, imports) in seen {
            let file = file.display();
            for name in imports.iter().filter(|name| *name != module) {
                unused.remove(name);
                if name == "super" {
                    wrong.push(format!("{file} reaches the crate by super::, write crate::"));
                } else if modules.contains(name) && !may.contains(name) {
                    wrong.push(format!("{file} imports {name}, which row {module} does not name"));
                }
            }
        }
        wrong.extend(unused.iter().map(|name| format!("row {module} names {name} for nothing")));
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn rows(text: &str) -> Vec<(String, BTreeSet<String>)> {
    let (_, after) = text.split_once(TABLE.0).expect("the table's beginning");
    let (table, _) = after.split_once(TABLE.1).expect("the table's end");
    let cells = table.lines().filter_map(|line| line.split_once(':'));
    cells
        .map(|(module, may)| {
            (module.trim().to_owned(), may.split_whitespace().map(str::to_owned).collect())
        })
        .collect()
}

/// What one file says of others, tests left out.
#[derive(Debug, Default, PartialEq, Eq)]
struct Source {
    /// Modules with a file of their own.
    children: Vec<String>,
    /// First names after `crate::`; `super` where a chain of `super::` comes out at the crate.
    imports: BTreeSet<String>,
}

/// Imports of `file`, which is `depth` modules below the crate, and of all files below it.
fn gather(file: &Path, depth: usize, seen: &mut BTreeMap<PathBuf, BTreeSet<String>>) {
    let source = read(file, depth);
    for child in &source.children {
        gather(&file.with_extension("").join(format!("{child}.rs")), depth + 1, seen);
    }
    let name = file.strip_prefix(root()).unwrap_or(file);
    seen.insert(name.to_owned(), source.imports);
}

fn read(file: &Path, depth: usize) -> Source {
    let text = fs::read_to_string(file).unwrap_or_else(|error| panic!("{file:?}: {error}"));
    parse(&text, depth)
}

fn parse(text: &str, depth: usize) -> Source {
    let mut source = Source::default();
    walk(text.parse().expect("Rust"), depth, &mut source);
    source
}

/// Reads tokens, in which comments are gone and text is one literal.
fn walk(tokens: TokenStream, depth: usize, source: &mut Source) {
    let trees: Vec<TokenTree> = tokens.into_iter().collect();
    let mut at = 0;
    while at < trees.len() {
        let here = &trees[at..];
        at += 1;
        if is_test_only(here) {
            at += here.iter().skip(1).take_while(|tree| !ends_item(tree)).count() + 1;
        } else if let [TokenTree::Ident(word), TokenTree::Ident(name), next, ..] = here
            && word == "mod"
        {
            at += 2;
            match next {
                TokenTree::Group(body) => walk(body.stream(), depth + 1, source),
                _ => source.children.push(name.to_string()),
            }
        } else if let TokenTree::Group(group) = &here[0] {
            walk(group.stream(), depth, source);
        } else if is_word(here, "crate") && is_path(&here[1..]) {
            names(&here[3..], source);
        } else if is_word(here, "super") && is_path(&here[1..]) {
            let supers =
                here.chunks(3).take_while(|part| is_word(part, "super") && is_path(&part[1..]));
            let supers = supers.count();
            if depth > 0 && supers >= depth {
                source.imports.insert("super".to_owned());
            }
            at += supers * 3 - 1;
        }
    }
}

/// The names that begin the paths after `crate::`: one, or those of a group.
fn names(after: &[TokenTree], source: &mut Source) {
    match after.first() {
        Some(TokenTree::Ident(name)) => drop(source.imports.insert(name.to_string())),
        Some(TokenTree::Group(group)) => {
            let trees: Vec<TokenTree> = group.stream().into_iter().collect();
            for path in trees.split(|tree| is_punct(tree, ',')) {
                names(path, source);
            }
        }
        _ => {}
    }
}

/// `#[cfg(test)]`, whose item may import what it likes.
fn is_test_only(here: &[TokenTree]) -> bool {
    match here {
        [hash, TokenTree::Group(attribute), ..] if is_punct(hash, '#') => {
            attribute.stream().to_string().replace(' ', "") == "cfg(test)"
        }
        _ => false,
    }
}

fn ends_item(tree: &TokenTree) -> bool {
    let body = matches!(tree, TokenTree::Group(group) if group.delimiter() == Delimiter::Brace);
    body || is_punct(tree, ';')
}

fn is_word(here: &[TokenTree], word: &str) -> bool {
    matches!(here.first(), Some(TokenTree::Ident(name)) if name == word)
}

fn is_path(here: &[TokenTree]) -> bool {
    matches!(here, [one, two, ..] if is_punct(one, ':') && is_punct(two, ':'))
}

fn is_punct(tree: &TokenTree, wanted: char) -> bool {
    matches!(tree, TokenTree::Punct(punct) if punct.as_char() == wanted)
}

#[test]
fn imports_are_found_in_groups_in_code_and_in_macros_but_not_in_comments_text_or_tests() {
    let text = r#"
        //! crate::comment, [`crate::doc`]
        mod child;
        #[cfg(test)]
        mod tests;
        use crate::{one::{A, b::C}, two, three::*};
        pub(crate) fn call<T: crate::four::Bound>() -> [u8; 2] {
            println!("crate::text", crate::five::VALUE)
        }
        #[cfg(test)]
        #[derive(Debug)]
        struct OnlyInTests { field: crate::test_only::Type }
        #[cfg(test)]
        use crate::test_import;
        use crate::six;
    "#;
    let source = parse(text, 1);
    assert_eq!(source.children, ["child"]);
    let imports: Vec<_> = source.imports.iter().map(String::as_str).collect();
    assert_eq!(imports, ["five", "four", "one", "six", "three", "two"]);
}

#[test]
fn a_chain_of_super_counts_only_where_it_comes_out_at_the_crate() {
    let reaches = |text: &str, depth| parse(text, depth).imports.contains("super");
    assert!(reaches("use super::other;", 1));
    assert!(!reaches("use super::sibling;", 2));
    assert!(reaches("use super::super::other;", 2));
    assert!(!reaches("mod inner { use super::Outer; }", 1));
    assert!(reaches("mod inner { use super::super::other; }", 1));
}
