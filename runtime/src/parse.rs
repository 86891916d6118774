//! From an argument list to typed flags, with every fault reported at once.

use std::ffi::OsString;

use clap::builder::OsStringValueParser;
use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{ArgMatches, Args, Command, Id};

use crate::args::LogFormat;
use crate::program::Program;

/// What came of the argument list.
pub(crate) enum Parsed<A> {
    /// Every flag is fine.
    Flags { flags: A, log_format: Option<LogFormat> },
    /// `--help` or `--version`: a text for stdout, then exit 0.
    Shown(clap::Error),
    /// What is wrong, one sentence each.
    Faults(Vec<String>),
}

/// The command line of a program: its flags, with the default ports that are its own.
pub(crate) fn command<A: Args>(program: &Program) -> Command {
    let command = A::augment_args(Command::new(program.name).bin_name(program.name).version(program.version));
    let mut command = command
        // The flags' own documentation is about the flags.
        .about(program.about)
        .long_about(None)
        .max_term_width(120)
        // What stands in the environment may be secret.
        .mut_args(|argument| argument.hide_env_values(true))
        .mut_args(|argument| match argument.get_help().map(|help| program.speaks.told(&help.to_string())) {
            Some(help) => argument.help(help),
            None => argument,
        });
    for (flag, port) in [("listen", program.main_port), ("admin_listen", program.admin_port)] {
        if command.get_arguments().any(|argument| argument.get_id() == flag) {
            command = command.mut_arg(flag, |argument| argument.default_value(format!("127.0.0.1:{port}")));
        }
    }
    command
}

/// Parses `args`, whose first item is the program's name.
pub(crate) fn parse<A: Args>(program: &Program, args: impl IntoIterator<Item = OsString>) -> Parsed<A> {
    let args: Vec<OsString> = args.into_iter().collect();
    let mut faults = Vec::new();
    let mut taken_as_text: Vec<Id> = Vec::new();
    // clap stops at the first bad value. Each round takes one more of them as text, to see whether there is another; so
    // there are at most as many rounds as flags.
    loop {
        let mut command = command::<A>(program);
        for flag in &taken_as_text {
            command = command.mut_arg(flag, |argument| argument.value_parser(OsStringValueParser::new()));
        }
        match command.try_get_matches_from_mut(&args) {
            Ok(matches) if faults.is_empty() => return typed(&matches),
            Ok(_) => return Parsed::Faults(faults),
            Err(error) if matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) => {
                return Parsed::Shown(error);
            }
            Err(error) => {
                let flag = flag_with_bad_value(&error, &command);
                // A value that is not there at all is no better as text.
                let again = flag.as_ref().is_some_and(|flag| taken_as_text.contains(flag));
                if !again {
                    faults.push(sentence(&error));
                }
                match flag {
                    Some(flag) if !again => taken_as_text.push(flag),
                    _ => return Parsed::Faults(faults),
                }
            }
        }
    }
}

fn typed<A: Args>(matches: &ArgMatches) -> Parsed<A> {
    let log_format = matches.try_get_one::<LogFormat>("log_format").ok().flatten().copied();
    match A::from_arg_matches(matches) {
        Ok(flags) => Parsed::Flags { flags, log_format },
        Err(error) => Parsed::Faults(vec![sentence(&error)]),
    }
}

/// The flag whose value was refused, if that is what is wrong.
fn flag_with_bad_value(error: &clap::Error, command: &Command) -> Option<Id> {
    if !matches!(error.kind(), ErrorKind::ValueValidation | ErrorKind::InvalidValue) {
        return None;
    }
    let Some(ContextValue::String(shown)) = error.get(ContextKind::InvalidArg) else { return None };
    command.get_arguments().find(|argument| argument.to_string() == *shown).map(|argument| argument.get_id().clone())
}

/// clap's first paragraph as one line, without its `error: `; the hints after it are `--help`'s business.
fn sentence(error: &clap::Error) -> String {
    let text = error.render().to_string();
    let paragraph = text.split("\n\n").next().unwrap_or_default();
    one_line(paragraph.strip_prefix("error: ").unwrap_or(paragraph))
}

/// `text` on one line, whatever it came from.
pub(crate) fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}
