//! The command line: what a user types, and which part of the program answers.
//!
//! Help, completions, man pages and `docs/configuration.md` come from these definitions. The
//! process starts in [`main`], which turns every outcome into an exit status: 0 done, 1 failed while
//! running, 2 usage or configuration.

mod admin_client;
mod admin_proof;
mod calls;
mod check;
mod columns;
mod config_flags;
mod doctor;
mod etcd_flags;
mod failure;
mod generate;
mod output;
mod policy;
mod registry;
mod run;
mod services;
mod show_config;
mod why;

use std::process::ExitCode;

use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};

use failure::Failure;

/// A proxy that runs beside each application of a host: it finds the service that a gRPC call names
/// in etcd, chooses an endpoint and forwards the call
#[derive(Debug, Parser)]
#[command(name = "pillion", version, after_help = EXAMPLES)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

const EXAMPLES: &str = "\
Examples:
  pillion demo                                     see it work; needs nothing else
  pillion run --etcd http://127.0.0.1:2379         run the proxy with that etcd and the defaults
  grpcurl -plaintext -authority orders 127.0.0.1:4140 orders.v1.Orders/List
                                                   call the service `orders` through it
  pillion services                                 which services it knows
  pillion why orders                               where a call to `orders` goes, and why
  pillion calls                                    which calls failed or were slow, and why
  pillion doctor orders                            where such a call breaks, if it does
  pillion registry ls orders                       what etcd itself holds of it; needs no proxy

Exit status: 0 done, 1 failed while running, 2 usage or configuration.";

#[derive(Debug, Subcommand)]
enum Command {
    Run(run::Run),
    Check(check::Check),
    Config(show_config::ShowConfig),
    Demo(run::Demo),
    Services(services::Services),
    Why(why::Why),
    Calls(calls::Calls),
    Doctor(Box<doctor::Doctor>),
    Registry(Box<registry::Registry>),
    Policy(Box<policy::Policy>),
    Completions(generate::Completions),
    Man(generate::Man),
}

/// Runs the command line of this process and returns its exit status.
pub fn main() -> ExitCode {
    let matches = without_empty_variables(command()).try_get_matches();
    let cli = match matches.and_then(|matches| Cli::from_arg_matches(&matches)) {
        Ok(cli) => cli,
        Err(error) => {
            // Where not even this can be printed, the status still tells.
            let _ = error.print();
            return ExitCode::from(if error.use_stderr() { 2 } else { 0 });
        }
    };
    match cli.command.run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(),
    }
}

/// The definition of the command line, for documentation.
pub fn command() -> clap::Command {
    Cli::command()
}

impl Command {
    fn run(self) -> Result<(), Failure> {
        match self {
            Self::Run(run) => run.run(),
            Self::Check(check) => check.run(),
            Self::Config(config) => config.run(),
            Self::Demo(demo) => demo.run(),
            Self::Services(services) => services.run(),
            Self::Why(why) => why.run(),
            Self::Calls(calls) => calls.run(),
            Self::Doctor(doctor) => doctor.run(),
            Self::Registry(registry) => registry.run(),
            Self::Policy(policy) => policy.run(),
            Self::Completions(completions) => completions.run(),
            Self::Man(man) => man.run(),
        }
    }
}

/// An environment variable that is set to nothing, as compose files do it, says nothing.
fn without_empty_variables(command: clap::Command) -> clap::Command {
    let command = command.mut_args(|arg| {
        let set_to_nothing = |name| std::env::var_os(name).is_some_and(|value| value.is_empty());
        match arg.get_env().is_some_and(set_to_nothing) {
            true => arg.env(None),
            false => arg,
        }
    });
    command.mut_subcommands(without_empty_variables)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_definitions_do_not_contradict_each_other() {
        command().debug_assert();
    }

    #[test]
    fn every_flag_of_run_but_the_repeated_help_has_a_variable() {
        let command = command();
        let run = command.find_subcommand("run").unwrap();
        for arg in run.get_arguments().filter(|arg| arg.get_id() != "help") {
            let name = arg.get_long().unwrap().to_uppercase().replace('-', "_");
            assert_eq!(arg.get_env().unwrap().to_str(), Some(&*format!("PILLION_{name}")));
        }
    }

    #[test]
    fn every_command_has_an_example_in_its_help() {
        fn check(command: &clap::Command) {
            for command in command.get_subcommands() {
                assert!(command.get_after_help().is_some(), "{}", command.get_name());
                check(command);
            }
        }
        check(&command());
    }
}
