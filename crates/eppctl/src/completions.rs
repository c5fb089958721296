//! `eppctl completions`: shell completions.

use clap::{Args, CommandFactory};
use clap_complete::Shell;

use crate::output::{Error, ExitStatus};

/// Print shell completions.
#[derive(Args)]
#[command(after_help = "Examples:
  eppctl completions bash > /etc/bash_completion.d/eppctl
  eppctl completions zsh > \"${fpath[1]}/_eppctl\"
  eppctl completions fish > ~/.config/fish/completions/eppctl.fish")]
pub struct Completions {
    /// The shell.
    #[arg(value_enum)]
    shell: Shell,
}

impl Completions {
    /// Prints the completions.
    pub fn run(&self) -> Result<ExitStatus, Error> {
        let mut command = crate::Args::command();
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut command, "eppctl", &mut script);
        std::io::Write::write_all(&mut std::io::stdout(), &script)?;
        Ok(ExitStatus::Ok)
    }
}
