//! Follows an operation until it comes to rest: redrawn in place at a terminal, a line a change elsewhere, an object a
//! change as JSON. Ctrl-C leaves it to itself.

use std::time::Duration;

use tokio::time::{Instant, MissedTickBehavior, interval};

use super::drive::Driver;
use super::failure::{Exit, Failure};
use super::out::Out;
use super::progress::{Look, changes, lines, summary};
use super::session::Session;
use crate::http::view::OperationView;
use crate::operation::desk::{self, Refusal};
use crate::operation::record::{OpId, Operation, State};
use crate::plan::step_names;
use crate::swarm::engine::Engine;
use crate::swarm::lease;

/// Time between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// An operator renews its lease every 5 s; one that did not for this long is not there, or has other troubles.
const SILENCE: Duration = Duration::from_secs(12);
/// Time between two looks at the lease.
const PULSE: Duration = Duration::from_secs(2);

/// When following ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Until {
    /// When the operation has come to rest.
    Rest,
    /// When this step has begun, too.
    Begun(&'static str),
}

/// What has been shown so far.
struct Screen<'a> {
    session: &'a Session,
    out: &'a Out,
    shown: Option<OperationView>,
    /// Lines that stand on the terminal and are to be overwritten.
    standing: usize,
    told_trouble: bool,
}

/// Watches whether anybody renews the lease.
struct Pulse {
    version: Option<u64>,
    moved: Instant,
    looked: Option<Instant>,
    told: bool,
}

/// Follows an operation, with a driver of our own where there is one.
///
/// # Errors
/// When it cannot be found.
pub(super) async fn follow(
    session: &Session,
    id: &OpId,
    until: Until,
    driver: Option<Driver>,
) -> Result<Exit, Failure> {
    let mut screen = Screen::new(session);
    let result = watch(session, id, until, driver.is_some(), &mut screen).await;
    let driven = driver.is_some();
    if let Some(driver) = driver {
        driver.stop().await;
    }
    let (op, exit) = result?;
    if exit == Exit::Detached && !session.out.is_json() {
        session.out.say(if driven {
            "no longer driven from here, nor followed"
        } else {
            "no longer followed"
        });
    }
    if let Some(op) = op {
        screen.end(&view(&op), until, exit);
    }
    Ok(exit)
}

/// What is shown of an operation.
pub(super) fn view(op: &Operation) -> OperationView {
    OperationView::of(op, &step_names(op), None)
}

async fn watch(
    session: &Session,
    id: &OpId,
    until: Until,
    driven: bool,
    screen: &mut Screen<'_>,
) -> Result<(Option<Operation>, Exit), Failure> {
    let mut ticks = interval(LOOK_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut pulse = Pulse::new();
    let mut last = None;
    let interrupted = tokio::signal::ctrl_c();
    tokio::pin!(interrupted);
    loop {
        tokio::select! {
            _ = &mut interrupted => return Ok((last, Exit::Detached)),
            _ = ticks.tick() => {}
        }
        match desk::find(&session.engine, id).await {
            Ok(op) => {
                screen.show(&view(&op));
                if let Some(exit) = ended(&op, until) {
                    return Ok((Some(op), exit));
                }
                if op.journal.state == State::Pending && !driven {
                    pulse.look(&session.engine, screen, &session.command).await;
                }
                last = Some(op);
            }
            Err(Refusal::Swarm(error)) if error.is_retryable() => screen.trouble(&error.to_string()),
            Err(other) => return Err(other.into()),
        }
    }
}

fn ended(op: &Operation, until: Until) -> Option<Exit> {
    let state = op.journal.state;
    // Approved already, and not yet picked up.
    let moves =
        state == State::AwaitingApproval && (op.journal.approved.is_some() || op.journal.cancel.is_some());
    if !state.is_live() && !moves {
        return Some(Exit::of(state));
    }
    match until {
        Until::Begun(step) if op.journal.step(step).is_some() => Some(Exit::Fine),
        Until::Begun(_) | Until::Rest => None,
    }
}

// === impl Screen ===

impl<'a> Screen<'a> {
    fn new(session: &'a Session) -> Screen<'a> {
        Screen { session, out: &session.out, shown: None, standing: 0, told_trouble: false }
    }

    fn look(&self) -> Look {
        Look { paint: self.out.paint, width: self.out.width }
    }

    fn show(&mut self, op: &OperationView) {
        self.told_trouble = false;
        let changed = self.shown.as_ref() != Some(op);
        if self.out.is_json() {
            if changed {
                self.out.json(op);
            }
        } else if self.out.terminal {
            self.redraw(&lines(op, self.look(), self.session.now()));
        } else if changed {
            for line in changes(self.shown.as_ref(), op, self.out.zone(), self.session.now()) {
                self.out.say(line);
            }
        }
        self.shown = Some(op.clone());
    }

    /// One write, so that nothing flickers: up to the first line, each line with what stood there erased.
    fn redraw(&mut self, lines: &[String]) {
        let up = if self.standing > 0 { format!("\x1b[{}A", self.standing) } else { String::new() };
        let text: String = lines.iter().map(|l| format!("\r\x1b[2K{l}\n")).collect();
        self.out.write(&format!("{up}{text}\x1b[0J"));
        self.standing = lines.len();
    }

    fn trouble(&mut self, what: &str) {
        if !self.told_trouble {
            self.told_trouble = true;
            self.aside(&format!("the operation cannot be read just now, trying on: {what}"));
        }
    }

    fn aside(&mut self, text: &str) {
        self.out.aside(text);
        // What was drawn stays where it is; the next drawing begins below.
        self.standing = 0;
    }

    fn end(&mut self, op: &OperationView, until: Until, exit: Exit) {
        let session = self.session;
        if self.out.is_json() {
            return;
        }
        if matches!(until, Until::Begun(_)) && exit == Exit::Fine {
            let off = format!("{} maintenance off {}", session.command, op.service);
            self.out.say(format!("{} is in maintenance; `{off}` ends it", op.service));
            return;
        }
        for line in summary(op, self.look(), &session.command, session.now()) {
            self.out.say(line);
        }
    }
}

// === impl Pulse ===

impl Pulse {
    fn new() -> Pulse {
        Pulse { version: None, moved: Instant::now(), looked: None, told: false }
    }

    async fn look(&mut self, engine: &Engine, screen: &mut Screen<'_>, command: &str) {
        if self.told || self.looked.is_some_and(|at| at.elapsed() < PULSE) {
            return;
        }
        self.looked = Some(Instant::now());
        let version = engine.config(lease::NAME).await.ok().map(|c| c.version);
        if version.is_some() && version != self.version {
            self.version = version;
            self.moved = Instant::now();
        }
        if self.moved.elapsed() >= SILENCE {
            self.told = true;
            screen.aside(&format!(
                "no operator seems to be running: the operation waits until one does. Ctrl-C, then \
                 `{command} ops show --follow --drive` drives it from here"
            ));
        }
    }
}
