//! Times and limits. Those of a task are in the task; these have one good value each, and tests have others.

use std::time::Duration;

/// See the fields.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// How long the operator may take to answer.
    pub ask_timeout: Duration,
    /// How soon the operator is asked again when it did not agree; doubled each time.
    pub ask_first: Duration,
    /// How late at most.
    pub ask_latest: Duration,
    /// How soon the operator is asked again when it did agree, and the application is still not there.
    pub ask_again: Duration,
    /// How soon a door asks again that holds somebody back from an application that is still there.
    pub ask_held: Duration,
    /// How long a door holds everybody back, where the operator cannot be asked whether the application is to sleep. Longer
    /// than an operator that was asked for a sleep takes at most until it begins to stop the service.
    pub held: Duration,
    /// How often a door looks whether nobody uses the application.
    pub idle_look: Duration,
    /// How soon it asks for the sleep again after it was asked for.
    pub idle_again: Duration,
    /// How long somebody who was answered by a page counts as waiting.
    pub page_counts: Duration,
    /// How often the application is looked for at first, while somebody waits; less often the longer it takes.
    pub look_first: Duration,
    /// How seldom at most.
    pub look_latest: Duration,
    /// How often is looked whether the application is still there.
    pub look_up: Duration,
    /// How long one attempt to connect may take.
    pub connect: Duration,
    /// How long a connection may be open with no request on it, or with the head of one unfinished.
    pub idle: Duration,
    /// How long nothing new must have come before the waker leaves.
    pub quiet: Duration,
    /// How many connections are served; one more in eight is told that there are too many.
    pub connections: usize,
    /// Where the health check is answered if no port of the task speaks HTTP; [`Task::health_port`] where absent.
    ///
    /// [`Task::health_port`]: crate::Task::health_port
    pub health_port: Option<u16>,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            ask_timeout: Duration::from_secs(5),
            ask_first: Duration::from_millis(100),
            ask_latest: Duration::from_secs(5),
            ask_again: Duration::from_secs(10),
            ask_held: Duration::from_millis(500),
            held: Duration::from_secs(60),
            idle_look: Duration::from_secs(1),
            idle_again: Duration::from_secs(60),
            page_counts: Duration::from_secs(60),
            look_first: Duration::from_millis(20),
            look_latest: Duration::from_millis(500),
            look_up: Duration::from_secs(1),
            connect: Duration::from_secs(1),
            idle: Duration::from_secs(75),
            quiet: Duration::from_secs(3),
            connections: 4_096,
            health_port: None,
        }
    }
}

impl Settings {
    /// How long to wait before looking again, when it has taken so long: a fortieth of it, so that nobody waits longer for
    /// having been unlucky by more than that.
    pub(crate) fn look(&self, so_far: Duration) -> Duration {
        (so_far / 40).clamp(self.look_first, self.look_latest)
    }
}
