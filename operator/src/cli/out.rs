//! Where answers go: tables and sentences for people, JSON for programs; colours only for people at a terminal.

use std::io::{self, IsTerminal, Write};
use std::sync::{Mutex, PoisonError};

use jiff::tz::TimeZone;
use serde::Serialize;

/// How answers are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// For people.
    #[default]
    Human,
    /// JSON; while following, one object a line.
    Json,
}

/// Options about answers.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct OutArgs {
    /// How answers are written.
    #[arg(short = 'o', long, global = true, value_enum, default_value_t, hide_short_help = true)]
    pub output: Format,
}

/// Where texts go; none once nobody reads any more.
type Sink = Mutex<Option<Box<dyn Write + Send>>>;

/// Writes answers.
pub struct Out {
    format: Format,
    answers: Sink,
    asides: Sink,
    /// Whether stdout is a terminal.
    pub terminal: bool,
    /// Characters a line.
    pub width: usize,
    /// Colours.
    pub paint: Paint,
    zone: TimeZone,
}

/// Colours, or none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Paint {
    on: bool,
}

/// What a text means.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Tone {
    /// Nothing special.
    #[default]
    Plain,
    /// A heading.
    Strong,
    /// In the background.
    Faint,
    /// Good.
    Good,
    /// To be minded.
    Mind,
    /// Bad.
    Bad,
    /// Under way.
    Live,
}

// === impl Out ===

impl Out {
    /// Writes to stdout. `env` gives variables of the environment.
    pub fn new(args: &OutArgs, env: &dyn Fn(&str) -> Option<String>) -> Out {
        let terminal = io::stdout().is_terminal();
        let set = |name: &str| env(name).is_some_and(|v| !v.is_empty());
        let colours = terminal && !set("NO_COLOR") && env("TERM").as_deref() != Some("dumb");
        let columns = rustix::termios::tcgetwinsize(io::stdout()).ok().map(|s| usize::from(s.ws_col));
        let width = columns.filter(|c| terminal && *c > 0).unwrap_or(if terminal { 80 } else { 120 });
        Out {
            format: args.output,
            answers: sink(io::stdout()),
            asides: sink(io::stderr()),
            terminal,
            width: width.clamp(40, 200),
            paint: Paint { on: colours },
            zone: TimeZone::system(),
        }
    }

    /// Writes elsewhere: no terminal, no colours, times in UTC.
    pub fn to(
        format: Format,
        answers: impl Write + Send + 'static,
        asides: impl Write + Send + 'static,
    ) -> Out {
        Out {
            format,
            answers: sink(answers),
            asides: sink(asides),
            terminal: false,
            width: 120,
            paint: Paint::NONE,
            zone: TimeZone::UTC,
        }
    }

    /// Whether programs read the answers.
    pub fn is_json(&self) -> bool {
        self.format == Format::Json
    }

    /// One line for people, or several.
    pub fn say(&self, text: impl AsRef<str>) {
        self.write(&format!("{}\n", text.as_ref()));
    }

    /// One JSON value on one line.
    pub fn json(&self, value: &impl Serialize) {
        let text = serde_json::to_string(value).expect("what is shown is JSON-able");
        self.write(&format!("{text}\n"));
    }

    /// One JSON value, indented.
    pub fn json_whole(&self, value: &impl Serialize) {
        let text = serde_json::to_string_pretty(value).expect("what is shown is JSON-able");
        self.write(&format!("{text}\n"));
    }

    /// Raw text.
    pub fn write(&self, text: &str) {
        put(&self.answers, text);
    }

    /// Something beside the answer, on stderr.
    pub fn aside(&self, text: impl AsRef<str>) {
        put(&self.asides, &format!("{}\n", text.as_ref()));
    }

    /// The zone in which times are shown.
    pub fn zone(&self) -> &TimeZone {
        &self.zone
    }
}

fn sink(write: impl Write + Send + 'static) -> Sink {
    Mutex::new(Some(Box::new(write)))
}

/// Nobody reading any more is no reason to stop what was begun.
fn put(sink: &Sink, text: &str) {
    let mut sink = sink.lock().unwrap_or_else(PoisonError::into_inner);
    let written = sink.as_mut().map(|w| w.write_all(text.as_bytes()).and_then(|()| w.flush()));
    if matches!(written, Some(Err(_))) {
        *sink = None;
    }
}

// === impl Paint ===

impl Paint {
    /// No colours.
    pub const NONE: Paint = Paint { on: false };
    /// Colours.
    pub const COLOURS: Paint = Paint { on: true };

    /// The text in the colour of its meaning.
    pub fn tone(self, tone: Tone, text: &str) -> String {
        let code = match tone {
            Tone::Plain => return text.to_owned(),
            Tone::Strong => "1",
            Tone::Faint => "2",
            Tone::Good => "32",
            Tone::Mind => "33",
            Tone::Bad => "31",
            Tone::Live => "36",
        };
        if self.on && !text.is_empty() { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }
}
