//! Files of this process's own that outlive it, without ever being half of one.
//!
//! ```text
//! {"pillion_state":1,"check":"85944171f73967e8"}
//! {...}
//! ```
//!
//! What they say decides where calls go, so one is believed only if nobody else can have written it, and
//! if it is whole.

use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, Read, Write},
    os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt},
    path::Path,
};

use rustix::process::geteuid;
use serde::{Deserialize, Serialize, de::DeserializeOwned};

/// Version of the form.
const VERSION: u32 = 1;
/// Larger files are neither read nor written.
const MAX_FILE: u64 = 256 * 1024 * 1024;

#[derive(Serialize, Deserialize)]
struct Head {
    pillion_state: u32,
    check: String,
}

/// Reads a file; none where there is none.
///
/// # Errors
/// Why it cannot be used.
pub fn read<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, String> {
    let text = match read_own(path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error.to_string()),
    };
    let (head, body) = text.split_once('\n').ok_or("it is cut off")?;
    let Head { pillion_state, check } =
        serde_json::from_str(head).map_err(|_| "it is no state file of pillion")?;
    if pillion_state != VERSION {
        return Err(format!("its version is {pillion_state}, not {VERSION}"));
    }
    if check != checksum(body.as_bytes()) {
        return Err("it is damaged".to_owned());
    }
    serde_json::from_str(body).map(Some).map_err(|error| error.to_string())
}

/// Writes a file in the place of the one that is there: another process sees either. Its folder is made
/// where it is missing.
///
/// # Errors
/// What failed; the old file is as it was.
pub fn write<T: Serialize>(path: &Path, body: &T) -> io::Result<()> {
    let body = serde_json::to_string(body)?;
    if body.len() as u64 > MAX_FILE {
        return Err(io::Error::other(format!("larger than {MAX_FILE} bytes")));
    }
    let head = Head { pillion_state: VERSION, check: checksum(body.as_bytes()) };
    let head = serde_json::to_string(&head)?;

    DirBuilder::new().recursive(true).mode(0o700).create(folder(path))?;
    let new = path.with_extension("new");
    let written = replace(path, &new, &[head.as_bytes(), b"\n", body.as_bytes()]);
    if written.is_err() {
        // It may be what fills the disk.
        let _ = fs::remove_file(&new);
    }
    written
}

fn replace(path: &Path, new: &Path, parts: &[&[u8]]) -> io::Result<()> {
    // One that was left behind may be somebody else's, or have other rights.
    match fs::remove_file(new) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(new)?;
    parts.iter().try_for_each(|part| file.write_all(part))?;
    file.sync_all()?;
    fs::rename(new, path)?;
    // The name is on disk when the folder is.
    File::open(folder(path))?.sync_all()
}

fn folder(path: &Path) -> &Path {
    path.parent().unwrap_or(path)
}

/// The text of a file that nobody else can have written.
fn read_own(path: &Path) -> io::Result<String> {
    let file = File::open(path)?;
    let about = file.metadata()?;
    let (mine, roots) = (geteuid().as_raw(), 0);
    if ![mine, roots].contains(&about.uid()) || about.mode() & 0o022 != 0 {
        return Err(io::Error::other(
            "others may have written it: owner and mode must be ours, 0600",
        ));
    }
    if about.len() > MAX_FILE {
        return Err(io::Error::other(format!("larger than {MAX_FILE} bytes")));
    }
    let mut text = String::new();
    file.take(MAX_FILE).read_to_string(&mut text)?;
    Ok(text)
}

/// FNV-1a, 64 bits: tells a file that a disk has damaged.
fn checksum(bytes: &[u8]) -> String {
    let step = |sum: u64, byte: &u8| (sum ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
    format!("{:016x}", bytes.iter().fold(0xcbf2_9ce4_8422_2325, step))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn what_is_written_is_read_and_nobody_else_can_read_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state/main.json");
        assert_eq!(read::<String>(&path), Ok(None));
        for text in ["first", "second \u{e9}\n"] {
            write(&path, &text).unwrap();
            assert_eq!(read(&path), Ok(Some(text.to_owned())));
        }
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&path), mode(path.parent().unwrap())), (0o600, 0o700));
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1);
    }

    #[test]
    fn what_is_damaged_foreign_or_open_to_others_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("main.json");
        write(&path, &"10.0.0.1:3").unwrap();
        let good = fs::read_to_string(&path).unwrap();
        for (text, problem) in [
            (good.replacen("10.0.0.1:3", "10.0.0.1:4", 1), "damaged"),
            (good[..good.len() - 2].to_owned(), "damaged"),
            (good[..10].to_owned(), "cut off"),
            (String::new(), "cut off"),
            (good.replacen(":1,", ":2,", 1), "version is 2"),
            (format!("[]\n{good}"), "no state file"),
        ] {
            fs::write(&path, text).unwrap();
            let error = read::<String>(&path).unwrap_err();
            assert!(error.contains(problem), "{error}");
        }
        fs::write(&path, good).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o622)).unwrap();
        assert!(read::<String>(&path).unwrap_err().contains("others may have written it"));
    }

    #[test]
    fn a_write_that_fails_leaves_the_old_file_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("main.json");
        write(&path, &"old").unwrap();
        // In the way of the new file.
        fs::create_dir(path.with_extension("new")).unwrap();
        write(&path, &"new").unwrap_err();
        assert_eq!(read(&path), Ok(Some("old".to_owned())));
    }
}
