//! The command line: what a user types, and which part of the program answers.

use std::process::ExitCode;

/// Runs the command line of this process and returns its exit status.
pub fn main() -> ExitCode {
    ExitCode::SUCCESS
}
