//! `pillion policy check`: whether files would be taken.

use std::{
    fs,
    path::{Path, PathBuf},
};

use clap::Args;

use crate::cli::failure::{Failure, print};
use crate::config::{ConfigErrors, Document, DocumentError, DocumentKey};

/// Check files of live policy; needs no etcd
///
/// What a file is for is told by its path: service/orders.toml is the document service/orders. Exits
/// with 2 and each mistake as FILE:LINE:COLUMN: what is wrong; what is allowed
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Check {
    /// Files to check, in TOML or JSON
    #[arg(required = true)]
    files: Vec<PathBuf>,

    /// What the files are for, where their paths do not tell: service/NAME or route/ID
    #[arg(long)]
    key: Option<DocumentKey>,
}

const EXAMPLES: &str = "\
Examples:
  pillion policy check policy/service/* policy/route/*
  pillion policy check --key route/10-canary canary.toml";

impl Check {
    pub(super) fn run(&self) -> Result<(), Failure> {
        let mut wrong = Vec::new();
        for file in &self.files {
            let key = match &self.key {
                Some(key) => key.clone(),
                None => key_of(file)?,
            };
            match document(&key, file) {
                Ok(_) => print(format!("{}: ok ({key})\n", file.display()))?,
                Err(failure) => wrong.push(failure.to_string()),
            }
        }
        match wrong.is_empty() {
            true => Ok(()),
            false => Err(Failure::Mistakes(wrong.join("\n"))),
        }
    }
}

/// The key that a path ends in, less what follows a dot at the end.
fn key_of(file: &Path) -> Result<DocumentKey, Failure> {
    let kind = file.parent().and_then(Path::file_name).and_then(|name| name.to_str());
    let name = file.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let name = [".toml", ".json"].iter().find_map(|end| name.strip_suffix(end)).unwrap_or(name);
    let key = format!("{}/{name}", kind.unwrap_or_default()).parse();
    key.map_err(|_| {
        let path = file.display();
        Failure::Usage(format!(
            "{path}: the path does not tell what the file is for; give --key service/NAME or \
             route/ID, or call it so"
        ))
    })
}

/// The document in a file, with its text.
pub(super) fn document(key: &DocumentKey, file: &Path) -> Result<(Document, String), Failure> {
    let unreadable = |source| ConfigErrors::Unreadable { path: file.to_owned(), source };
    let text = fs::read_to_string(file).map_err(unreadable)?;
    read(key, file, text)
}

/// The document in a text that came from `file`.
pub(super) fn read(
    key: &DocumentKey,
    file: &Path,
    text: String,
) -> Result<(Document, String), Failure> {
    match Document::read(key, &text) {
        Ok(document) => Ok((document, text)),
        Err(DocumentError::Toml(problems)) => {
            Err(ConfigErrors::Wrong { path: file.to_owned(), problems }.into())
        }
        Err(DocumentError::Json(wrong)) => {
            let line = |wrong: &String| format!("{}: {wrong}", file.display());
            Err(Failure::Mistakes(wrong.iter().map(line).collect::<Vec<_>>().join("\n")))
        }
    }
}
