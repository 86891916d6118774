//! What can be asked of the table.

use clap::{Parser, ValueEnum};

/// How long outages last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Length {
    /// Long enough to tell the story.
    Short,
    /// As long as the promise says.
    Full,
}

/// The arguments, libtest's among them: `cargo test` hands the same ones to every test program.
#[derive(Debug, Parser)]
pub(crate) struct Args {
    /// Rows whose names contain one of these; all without any
    pub(crate) rows: Vec<String>,

    /// How long outages last
    #[arg(long, env = "MESH_STORY", value_enum, default_value_t = Length::Short)]
    pub(crate) length: Length,

    /// What payloads, picks and jitter are drawn from; without it each row draws a seed and prints it
    #[arg(long, env = "MESH_STORY_SEED")]
    pub(crate) seed: Option<u64>,

    /// Calls per second during the rolling restart: 400 where all is optimised and 100 where not, unless said here
    #[arg(long)]
    pub(crate) rate: Option<u32>,

    /// Names the rows and runs none
    #[arg(long)]
    pub(crate) list: bool,

    /// A name is a whole name, not part of one
    #[arg(long)]
    exact: bool,

    /// Leaves out rows whose names contain this
    #[arg(long, value_name = "NAME")]
    skip: Vec<String>,

    #[arg(long, hide = true)]
    nocapture: bool,
    #[arg(long, hide = true)]
    show_output: bool,
    #[arg(long, short, hide = true)]
    quiet: bool,
    #[arg(long, hide = true)]
    include_ignored: bool,
    #[arg(long, hide = true)]
    ignored: bool,
    #[arg(long, hide = true)]
    test_threads: Option<usize>,
}

impl Args {
    /// Whether a row is to be run.
    pub(crate) fn wants(&self, name: &str) -> bool {
        let named = |word: &String| if self.exact { name == word } else { name.contains(word.as_str()) };
        !self.ignored && (self.rows.is_empty() || self.rows.iter().any(named)) && !self.skip.iter().any(named)
    }
}
