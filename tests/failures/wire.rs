//! What the table and its servers say to each other over their pipes: a line is a sentence.
//!
//! A server tells of every call as it arrives. So what a killed server has done is known, too.

use std::fmt;
use std::net::SocketAddr;
use std::str::FromStr;
use std::time::Duration;

use mesh_api::registry::v1::ServicePresence;
use tonic::Code;

/// How a server behaves from now on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Manners {
    /// How long a call takes it.
    pub(crate) delay: Duration,
    /// What it answers.
    pub(crate) answer: Answer,
    /// Asks a connection to go with the first call after so long, which is open then.
    pub(crate) goaway_after: Option<Duration>,
    /// Streams that it allows at a time on a connection.
    pub(crate) streams_max: Option<u32>,
}

/// What becomes of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Answer {
    /// What was sent comes back.
    Echo,
    /// A status and nothing else.
    Status(Code),
    /// The stream is reset.
    Reset,
    /// The connection was accepted, and that is all that ever happens.
    Silence,
}

/// What a registry is to say to everybody who watches: this snapshot of the service, and no more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Push {
    /// Id of the store that it claims to have.
    pub(crate) store: String,
    /// Which generation of that store.
    pub(crate) generation: u64,
    /// Revision of the snapshot.
    pub(crate) revision: u64,
    /// What is wrong with what is listed.
    pub(crate) spoil: Spoil,
    /// What it says about the service as a whole.
    pub(crate) presence: ServicePresence,
    /// Who is listed.
    pub(crate) listed: Vec<SocketAddr>,
}

/// What is wrong with a list of instances.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Spoil {
    /// Nothing.
    Whole,
    /// There is none: the message says what it is about, and then nothing.
    Null,
    /// Its entries are empty messages.
    Blank,
    /// Each id stands there twice, the second time at an address where nobody is.
    Twice,
    /// The first instance has a megabyte of metadata.
    Megabyte,
    /// No port is one: 0 and 99 999 by turns.
    BadPorts,
}

impl Spoil {
    const ALL: [Spoil; 6] = [Spoil::Whole, Spoil::Null, Spoil::Blank, Spoil::Twice, Spoil::Megabyte, Spoil::BadPorts];
}

/// What a server tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum News {
    /// It listens.
    Listening(SocketAddr),
    /// It behaves as it was last told to.
    Behaves,
    /// A connection was accepted, so long after the server began to listen.
    Connected(Duration),
    /// A call arrived.
    Called,
    /// A call was answered, by whatever the manners say.
    Answered,
    /// A call was taken back before it was answered.
    Dropped,
    /// A connection was asked to go, with a stream open.
    SentAway,
}

/// A line that neither side would write.
#[derive(Debug, thiserror::Error)]
#[error("not understood: {0:?}")]
pub(crate) struct Garbled(String);

impl Manners {
    /// Answers after `delay`, and nothing else is special.
    pub(crate) fn echo(delay: Duration) -> Manners {
        Manners { delay, answer: Answer::Echo, goaway_after: None, streams_max: None }
    }

    /// Answers like this after a millisecond.
    pub(crate) fn quick(answer: Answer) -> Manners {
        Manners { answer, ..Manners::echo(Duration::from_millis(1)) }
    }
}

impl fmt::Display for Manners {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Manners { delay, answer, goaway_after, streams_max } = self;
        write!(f, "{} ", delay.as_micros())?;
        match answer {
            Answer::Echo => f.write_str("echo")?,
            Answer::Status(code) => write!(f, "{}", i32::from(*code))?,
            Answer::Reset => f.write_str("reset")?,
            Answer::Silence => f.write_str("silence")?,
        }
        write!(f, " {} {}", goaway_after.unwrap_or_default().as_micros(), streams_max.unwrap_or(0))
    }
}

impl FromStr for Manners {
    type Err = Garbled;

    fn from_str(line: &str) -> Result<Self, Garbled> {
        let garbled = || Garbled(line.to_owned());
        let words: Vec<&str> = line.split_whitespace().collect();
        let [delay, answer, goaway_after, streams_max] = words[..] else { return Err(garbled()) };
        let number = |word: &str| word.parse::<u32>().map_err(|_| garbled());
        let micros = |word: &str| number(word).map(|micros| Duration::from_micros(micros.into()));
        Ok(Manners {
            delay: micros(delay)?,
            answer: match answer {
                "echo" => Answer::Echo,
                "reset" => Answer::Reset,
                "silence" => Answer::Silence,
                code => Answer::Status(Code::from_i32(code.parse().map_err(|_| garbled())?)),
            },
            goaway_after: Some(micros(goaway_after)?).filter(|after| !after.is_zero()),
            streams_max: Some(number(streams_max)?).filter(|most| *most > 0),
        })
    }
}

impl fmt::Display for Push {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Push { store, generation, revision, presence, spoil, .. } = self;
        write!(f, "{store} {generation} {revision} {} {spoil:?}", i32::from(*presence))?;
        self.listed.iter().try_for_each(|address| write!(f, " {address}"))
    }
}

impl FromStr for Push {
    type Err = Garbled;

    fn from_str(line: &str) -> Result<Self, Garbled> {
        let garbled = || Garbled(line.to_owned());
        let words: Vec<&str> = line.split_whitespace().collect();
        let [store, generation, revision, presence, spoil, listed @ ..] = &words[..] else { return Err(garbled()) };
        let spoilt = |known: &Spoil| format!("{known:?}") == **spoil;
        let presence: i32 = presence.parse().map_err(|_| garbled())?;
        let listed: Result<_, _> = listed.iter().map(|address| address.parse()).collect();
        Ok(Push {
            store: (*store).to_owned(),
            generation: generation.parse().map_err(|_| garbled())?,
            spoil: Spoil::ALL.into_iter().find(spoilt).ok_or_else(garbled)?,
            revision: revision.parse().map_err(|_| garbled())?,
            presence: presence.try_into().map_err(|_| garbled())?,
            listed: listed.map_err(|_| garbled())?,
        })
    }
}

impl fmt::Display for News {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            News::Listening(address) => write!(f, "listening {address}"),
            News::Behaves => f.write_str("behaves"),
            News::Connected(after) => write!(f, "connected {}", after.as_micros()),
            News::Called => f.write_str("called"),
            News::Answered => f.write_str("answered"),
            News::Dropped => f.write_str("dropped"),
            News::SentAway => f.write_str("sent-away"),
        }
    }
}

impl FromStr for News {
    type Err = Garbled;

    fn from_str(line: &str) -> Result<Self, Garbled> {
        let garbled = || Garbled(line.to_owned());
        Ok(match line.split_once(' ').unwrap_or((line, "")) {
            ("listening", address) => News::Listening(address.parse().map_err(|_| garbled())?),
            ("connected", micros) => News::Connected(Duration::from_micros(micros.parse().map_err(|_| garbled())?)),
            ("behaves", "") => News::Behaves,
            ("called", "") => News::Called,
            ("answered", "") => News::Answered,
            ("dropped", "") => News::Dropped,
            ("sent-away", "") => News::SentAway,
            _ => return Err(garbled()),
        })
    }
}
