//! How far receivers are, as they tell it themselves.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::Serialize;
use skep_runner::Line;

use super::{MADE, PREFIX, of_service};
use crate::swarm::engine::Engine;
use crate::swarm::error::Error;
use crate::swarm::object::Service;

/// What a receiver says of how far it is.
const RECEIVED: &str = "received";
/// So many lines of its log are looked at: what a start that failed says does not hide how far the one before was.
const LINES: u32 = 100;

/// How the receiver of a service stands.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Standing {
    /// The service whose log it is.
    pub service: String,
    /// What was committed until then was received; none where it has not told.
    pub until: Option<Timestamp>,
    /// Why it does not receive now, as far as it has told.
    pub fault: Option<String>,
}

// === impl Standing ===

impl Standing {
    /// Of a receiver that is still to come.
    pub(super) fn nothing(service: &str) -> Standing {
        Standing { service: service.to_owned(), ..Standing::default() }
    }

    /// What its log says, oldest line first.
    fn read(service: &str, log: &str) -> Standing {
        let mut standing = Standing::nothing(service);
        for line in log.lines().filter_map(|text| serde_json::from_str(text).ok()) {
            match line {
                Line::Progress(progress) if progress.phase == RECEIVED => {
                    let at = i64::try_from(progress.done).ok().and_then(|s| Timestamp::from_second(s).ok());
                    standing.until = standing.until.max(at);
                    standing.fault = None;
                }
                Line::Fault(fault) => standing.fault = Some(fault.message),
                Line::Progress(_) | Line::Report { .. } => {}
            }
        }
        standing
    }
}

/// How one receiver stands. A log that cannot be read now only means that nothing is told.
pub(super) async fn of(engine: &Engine, service: &str, receiver: &Service) -> Standing {
    let log = engine.last_logs(&receiver.id, Some(LINES)).await.unwrap_or_default();
    Standing::read(service, &log)
}

/// How all receivers stand, by the names of their services.
///
/// # Errors
/// What the engine says.
pub async fn standings(engine: &Engine) -> Result<BTreeMap<String, Standing>, Error> {
    let mut all = BTreeMap::new();
    for receiver in engine.services(&[(MADE, None)]).await?.iter().filter(|s| s.name().starts_with(PREFIX)) {
        let service = of_service(receiver);
        all.insert(service.to_owned(), of(engine, service, receiver).await);
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use skep_runner::line::FaultKind;
    use skep_runner::{Fault, Progress};

    use super::*;

    fn received(done: u64) -> Line {
        Line::Progress(Progress { phase: RECEIVED.to_owned(), done, total: None })
    }

    fn fault(message: &str) -> Line {
        Line::Fault(Fault { kind: FaultKind::Circumstance, message: message.to_owned() })
    }

    fn standing(lines: &[Line]) -> Standing {
        let text: Vec<String> = lines.iter().map(|l| serde_json::to_string(l).unwrap()).collect();
        Standing::read("shop_db", &text.join("\n"))
    }

    #[test]
    fn what_was_received_stays_known_when_a_later_start_fails() {
        let at = |s| Some(Timestamp::from_second(s).unwrap());
        assert_eq!(standing(&[]), Standing::nothing("shop_db"));
        let failed = standing(&[received(7), received(9), fault("no route"), fault("no slots")]);
        assert_eq!((failed.until, failed.fault.as_deref()), (at(9), Some("no slots")));
        let again = standing(&[received(9), fault("no route"), received(8)]);
        assert_eq!((again.until, again.fault), (at(9), None), "lines of several tasks may be mixed");
        let other = Line::Progress(Progress { phase: "receive".to_owned(), done: 70, total: None });
        assert_eq!(standing(&[other]).until, None);
    }
}
