//! What waking costs: how long whoever asks for a service that sleeps waits, on a real Swarm (`sleepers`), and what a proxy
//! in the path costs: the waker against nginx, on the loopback interface (`proxies`, `load`).
//!
//! The application, each proxy and the load are processes of their own on the same machine. Every proxy has two threads
//! (nginx: worker processes) and keeps its connections to the application; rounds take turns, so that all meet the same
//! machine.

mod load;
mod proxies;
mod sleepers;

pub use load::{Load, Measured};
pub use proxies::{Proxies, application, waker};
pub use sleepers::{Needs, Sleepers};
