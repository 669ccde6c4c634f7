//! Users: constant load from before an operation until after it.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::Stage;
use crate::load::{Load, PATIENCE, Report, run};

/// What users look at.
const PATH: &str = "/orders/last";

/// Users at the shop's door.
pub struct Users {
    leave: oneshot::Sender<()>,
    report: JoinHandle<Report>,
}

// === impl Users ===

impl Users {
    /// Users of the shop behind this door, who come at `rate` requests a second and only look.
    pub fn at(target: SocketAddr, rate: u32) -> Users {
        Users::come(Load { target, path: PATH.to_owned(), rate, order_every: 0, patience: PATIENCE })
    }

    fn come(load: Load) -> Users {
        let (leave, left) = oneshot::channel();
        let report = tokio::spawn(async move { run(load, async { drop(left.await) }).await });
        Users { leave, report }
    }

    /// Sends the users away. What they saw.
    pub async fn leave(self) -> Report {
        let _ = self.leave.send(());
        self.report.await.expect("the load ends")
    }
}

// === impl Stage ===

impl Stage {
    /// Users who come at `rate` requests a second and place an order with one request of ten.
    pub fn users(&self, rate: u32) -> Users {
        self.patient_users(rate, PATIENCE)
    }

    /// As [`Stage::users`], who wait for an answer as long as this.
    pub fn patient_users(&self, rate: u32, patience: Duration) -> Users {
        let target = SocketAddr::new(self.sandbox.address(), self.port);
        Users::come(Load { target, path: PATH.to_owned(), rate, order_every: 10, patience })
    }
}

impl Report {
    /// Panics unless every request got the application's own answer or the page.
    pub fn assert_nothing_wrong(&self) {
        assert!(self.totals.all() > 0, "there were users");
        let bad: Vec<_> = self.seconds.iter().enumerate().filter(|(_, s)| s.totals.wrong > 0).collect();
        assert_eq!(self.totals.wrong, 0, "wrong answers {:?} in seconds {bad:?}", self.wrong);
    }
}
