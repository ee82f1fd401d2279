//! `completions` and `man`: what a shell and `man` know about the commands, generated from the command line's description.

use clap_complete::Shell;

use super::args::{ManArgs, ShellArg};
use super::command;
use crate::console;
use crate::error::AtPath;

/// Name of the program in a shell.
const PROGRAM: &str = "terrabench";

/// Prints the completions of a shell.
///
/// # Errors
/// If standard output cannot be written.
pub fn completions(shell: ShellArg) -> anyhow::Result<()> {
    let shell = match shell {
        ShellArg::Bash => Shell::Bash,
        ShellArg::Zsh => Shell::Zsh,
        ShellArg::Fish => Shell::Fish,
    };
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut command(), PROGRAM, &mut script);
    Ok(console::print(String::from_utf8(script)?)?)
}

/// Prints the program's manual page, or writes it and one page per command.
///
/// # Errors
/// If standard output or the folder cannot be written.
pub fn man(args: &ManArgs) -> anyhow::Result<()> {
    let Some(folder) = &args.out else {
        let mut page = Vec::new();
        clap_mangen::Man::new(command()).render(&mut page)?;
        return Ok(console::print(String::from_utf8(page)?)?);
    };
    std::fs::create_dir_all(folder).at(folder)?;
    clap_mangen::generate_to(command(), folder).at(folder)?;
    console::note(format_args!("{}", folder.join(format!("{PROGRAM}.1")).display()));
    Ok(())
}
