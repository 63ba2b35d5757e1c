//! The file that holds the token of the admin address.

use std::{
    fmt, fs, io,
    ops::RangeInclusive,
    path::{Path, PathBuf},
};

/// The least that makes a token hard to guess, and the most that fits a header with room to spare.
const BYTES: RangeInclusive<usize> = 16..=4096;

/// The token in `file`, without the spaces and line ends around it.
///
/// # Errors
/// [`TokenError`], which says nothing of what is in the file.
pub fn read_token(file: &Path) -> Result<String, TokenError> {
    let wrong = |why| TokenError { file: file.to_owned(), why };
    let text = fs::read_to_string(file).map_err(|error| wrong(Why::Unreadable(error)))?;
    let token = text.trim_ascii();
    let is_printable = token.bytes().all(|byte| byte.is_ascii_graphic());
    match BYTES.contains(&token.len()) && is_printable {
        true => Ok(token.to_owned()),
        false => Err(wrong(Why::NoToken)),
    }
}

/// Why a file gives no token.
#[derive(Debug, thiserror::Error)]
#[error("token_file {}: {why}", file.display())]
pub struct TokenError {
    file: PathBuf,
    why: Why,
}

#[derive(Debug)]
enum Why {
    Unreadable(io::Error),
    NoToken,
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (least, most) = (BYTES.start(), BYTES.end());
        match self {
            Self::Unreadable(error) => error.fmt(f),
            Self::NoToken => write!(
                f,
                "holds no token; allowed: {least} to {most} printable ASCII characters without spaces"
            ),
        }
    }
}
