//! `pillion completions` and `pillion man`: the definitions of the command line in other forms.

use clap::Args;
use clap_complete::Shell;

use super::{
    command,
    failure::{Failure, print},
};

/// Print completions for a shell
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  pillion completions bash > /etc/bash_completion.d/pillion
  pillion completions zsh > \"${fpath[1]}/_pillion\"")]
pub(super) struct Completions {
    /// The shell
    #[arg(value_enum)]
    shell: Shell,
}

impl Completions {
    pub(super) fn run(self) -> Result<(), Failure> {
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut command(), "pillion", &mut script);
        print(script)
    }
}

/// Print the man page of pillion, or of one of its commands
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  pillion man | man -l -
  pillion man run > /usr/local/share/man/man1/pillion-run.1")]
pub(super) struct Man {
    /// The command, such as run, or registry ls
    command: Vec<String>,
}

impl Man {
    pub(super) fn run(self) -> Result<(), Failure> {
        let mut all = command();
        all.build();
        let mut page = &all;
        for name in &self.command {
            page = page.find_subcommand(name).ok_or_else(|| {
                let names: Vec<&str> =
                    page.get_subcommands().map(clap::Command::get_name).collect();
                Failure::Usage(format!("no command {name:?}; there are {}", names.join(", ")))
            })?;
        }
        let mut text = Vec::new();
        clap_mangen::Man::new(page.clone()).render(&mut text).map_err(Failure::failed)?;
        print(text)
    }
}
