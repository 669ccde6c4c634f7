//! What goes wrong on purpose: between a client and the API, in the managers, and in jobs.

use std::collections::BTreeMap;
use std::time::Duration;

use skep_runner::Ticket;
use tokio::sync::watch;

use super::agenda::Moment;
use super::engine::Raft;
use super::workload::Container;

/// On which call a fault strikes. Counting begins with the client's first call and goes from 1.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trigger {
    /// The n-th write (any method but GET and HEAD).
    Write(usize),
    /// The n-th call of any kind.
    Call(usize),
    /// The n-th call of a method and endpoint template, such as `POST /configs/{id}/update`.
    Endpoint(String, usize),
}

/// Before or after the call took effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cut {
    /// It did not take effect.
    Before,
    /// It took effect, and nobody was told.
    After,
}

/// What goes wrong with a call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It is answered with this status and message, and has no effect.
    Fail(u16, String),
    /// It takes longer, before it takes effect and after.
    Delay(Duration, Duration),
    /// The connection is cut.
    Cut(Cut),
    /// The client dies: this call is cut, and all later ones are.
    Kill(Cut),
}

/// One call as it was made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    /// Simulated time.
    pub at: Duration,
    /// Method and endpoint template: `GET /services/{id}`.
    pub endpoint: String,
    /// Path and query as sent, without the version.
    pub path: String,
    /// The answer's status; none where the client got no answer.
    pub status: Option<u16>,
}

/// A rule about jobs: which, and after how many of their steps they are killed.
pub(super) type JobKill = (Box<dyn Fn(&Ticket) -> bool + Send>, usize);

/// Faults and calls by client.
#[derive(Default)]
pub(super) struct Book {
    clients: BTreeMap<String, Client>,
    pub(super) frozen_until: Moment,
    pub(super) job_kills: Vec<JobKill>,
}

struct Client {
    writes: usize,
    calls: Vec<Call>,
    rules: Vec<(Trigger, Fault)>,
    cut_off: Option<(Moment, Box<Raft>)>,
    dead: watch::Sender<bool>,
}

// === impl Call ===

impl Call {
    /// Whether it was meant to change something.
    pub fn is_write(&self) -> bool {
        is_write(&self.endpoint)
    }
}

// === impl Client ===

impl Default for Client {
    fn default() -> Client {
        Client {
            writes: 0,
            calls: Vec::new(),
            rules: Vec::new(),
            cut_off: None,
            dead: watch::Sender::new(false),
        }
    }
}

// === impl Book ===

impl Book {
    fn client(&mut self, name: &str) -> &mut Client {
        self.clients.entry(name.to_owned()).or_default()
    }

    /// Notes a call; its number, and what shall go wrong with it.
    pub(super) fn arrive(&mut self, client: &str, call: Call) -> (usize, Option<Fault>) {
        let client = self.client(client);
        client.writes += usize::from(call.is_write());
        let endpoint = call.endpoint.clone();
        let is_write = call.is_write();
        client.calls.push(call);
        let nth = client.calls.iter().filter(|c| c.endpoint == endpoint).count();
        let (calls, writes) = (client.calls.len(), client.writes);
        let strikes = |trigger: &Trigger| match trigger {
            Trigger::Write(n) => is_write && *n == writes,
            Trigger::Call(n) => *n == calls,
            Trigger::Endpoint(template, n) => *template == endpoint && *n == nth,
        };
        let found = client.rules.iter().position(|(trigger, _)| strikes(trigger));
        (calls - 1, found.map(|i| client.rules.remove(i).1))
    }

    /// Notes the answer of a call.
    pub(super) fn answered(&mut self, client: &str, number: usize, status: u16) {
        self.client(client).calls[number].status = Some(status);
    }

    pub(super) fn add_rule(&mut self, client: &str, trigger: Trigger, fault: Fault) {
        self.client(client).rules.push((trigger, fault));
    }

    pub(super) fn set_dead(&mut self, client: &str, dead: bool) {
        self.client(client).dead.send_replace(dead);
    }

    /// Tells when a client is dead.
    pub(super) fn watch_death(&mut self, client: &str) -> watch::Receiver<bool> {
        self.client(client).dead.subscribe()
    }

    pub(super) fn is_dead(&mut self, client: &str) -> bool {
        *self.client(client).dead.borrow()
    }

    pub(super) fn cut_off(&mut self, client: &str, state: Option<(Moment, Box<Raft>)>) {
        self.client(client).cut_off = state;
    }

    /// Since when a client's manager is cut off, and what it still knows.
    pub(super) fn is_cut_off(&mut self, client: &str) -> Option<(Moment, &Raft)> {
        self.client(client).cut_off.as_ref().map(|(at, raft)| (*at, raft.as_ref()))
    }

    pub(super) fn calls(&self, client: &str) -> Vec<Call> {
        self.clients.get(client).map(|c| c.calls.clone()).unwrap_or_default()
    }

    pub(super) fn writes(&self, client: &str) -> usize {
        self.clients.get(client).map_or(0, |c| c.writes)
    }

    /// Whether a job is to be killed now, after this many steps.
    pub(super) fn kills_job(&mut self, container: Option<&Container>, steps: usize) -> bool {
        let Some(ticket) = container.and_then(Container::ticket) else { return false };
        let found = self.job_kills.iter().position(|(which, after)| *after == steps && which(&ticket));
        found.map(|i| self.job_kills.remove(i)).is_some()
    }
}

/// Whether an endpoint changes something.
pub(super) fn is_write(endpoint: &str) -> bool {
    !endpoint.starts_with("GET ") && !endpoint.starts_with("HEAD ")
}
