//! What a user of a stack's front would see at every moment.
//!
//! The front is a proxy that resolves its upstream's name anew (within Swarm's two seconds between leaving the DNS
//! and SIGTERM) and asks another address when a connect fails, as nginx does.

use std::collections::BTreeSet;
use std::time::Duration;

use super::workload::{Container, View};

/// One kind of answer to a user.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Answer {
    /// The application's own answer, with what tells its data apart.
    App(String),
    /// The application answers that it cannot serve.
    Error(String),
    /// The maintenance page.
    Page,
    /// The proxy found nobody to ask.
    BadGateway,
    /// Nothing listens.
    Refused,
    /// What must never be seen: data that is half restored, or not the application's.
    Wrong(String),
}

/// Where users come in.
#[derive(Clone, Debug)]
pub struct Front {
    /// Service of the proxy.
    pub proxy: String,
    /// Name that the proxy asks: the application's service or an alias.
    pub upstream: String,
    /// Whether the proxy shows its own page when it finds nobody (mode `proxy`).
    pub own_page: bool,
}

/// The front and what was seen there: all answers that were possible since a moment.
#[derive(Debug, Default)]
pub(super) struct Users {
    pub(super) front: Option<Front>,
    pub(super) timeline: Vec<(Duration, BTreeSet<Answer>)>,
}

// === impl Users ===

impl Users {
    /// Looks, and notes what changed.
    pub(super) fn look(&mut self, view: &View<'_>) {
        let Some(front) = &self.front else { return };
        let seen = front.answers(view);
        if self.timeline.last().is_none_or(|(_, last)| *last != seen) {
            self.timeline.push((view.at, seen));
        }
    }
}

// === impl Front ===

impl Front {
    /// What a user may get now.
    pub(super) fn answers(&self, view: &View<'_>) -> BTreeSet<Answer> {
        let proxies: Vec<&Container> =
            view.containers(&self.proxy).into_iter().filter(|c| !c.stopping).collect();
        if proxies.is_empty() {
            return BTreeSet::from([Answer::Refused]);
        }
        proxies.iter().flat_map(|proxy| self.through(proxy, view)).collect()
    }

    fn through(&self, proxy: &Container, view: &View<'_>) -> BTreeSet<Answer> {
        let peers = view.resolve(proxy, &self.upstream);
        let asked = peers.iter().map(|peer| view.answer(peer));
        let answers: BTreeSet<Answer> = asked.filter(|a| *a != Answer::Refused).collect();
        if answers.is_empty() {
            let own = if self.own_page { Answer::Page } else { Answer::BadGateway };
            return BTreeSet::from([own]);
        }
        answers
    }
}
