//! What a simulation starts from.

use std::time::Duration;

use jiff::Timestamp;

/// What a simulation starts from.
#[derive(Clone, Debug)]
pub struct SimOptions {
    /// The wall clock at the start.
    pub start: Timestamp,
    /// Number of nodes, `n1`, `n2`, …
    pub nodes: usize,
    /// How many of them are managers.
    pub managers: usize,
    /// Makes ids differ between simulations; two runs with one seed are the same.
    pub seed: u64,
    /// How long things take.
    pub timing: Timing,
}

/// How long things take in the simulated Swarm. The defaults are those measured on a small machine.
#[derive(Clone, Debug)]
pub struct Timing {
    /// From a write of a service to the allocation of its ports and virtual addresses.
    pub allocate: Duration,
    /// From a task's making to its placement.
    pub schedule: Duration,
    /// Until a node hears of a change.
    pub dispatch: Duration,
    /// To fetch image, configs and secrets.
    pub prepare: Duration,
    /// To start a container.
    pub start: Duration,
    /// From the order to stop until the task leaves the DNS.
    pub withdraw: Duration,
    /// From there to SIGTERM, for a task on a network.
    pub gossip: Duration,
    /// From the container's end until the node has reported it.
    pub report: Duration,
    /// From a removable task to its removal from the store.
    pub reap: Duration,
    /// Silence after which a node is down.
    pub heartbeat: Duration,
    /// Interval of health checks that name none.
    pub health: Duration,
}

impl Default for SimOptions {
    fn default() -> SimOptions {
        SimOptions {
            start: Timestamp::from_second(1_795_000_000).expect("a time of this age"),
            nodes: 1,
            managers: 1,
            seed: 0,
            timing: Timing::default(),
        }
    }
}

impl Default for Timing {
    fn default() -> Timing {
        let ms = Duration::from_millis;
        Timing {
            allocate: ms(3),
            schedule: ms(50),
            dispatch: ms(100),
            prepare: ms(70),
            start: ms(200),
            withdraw: ms(1_000),
            gossip: ms(2_000),
            report: ms(300),
            reap: ms(250),
            heartbeat: ms(15_600),
            health: ms(30_000),
        }
    }
}
