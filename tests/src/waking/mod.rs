//! What a proxy in the path costs: the waker against nginx, on the loopback interface, in one run.
//!
//! The application, each proxy and the load are processes of their own on the same machine. Every proxy has two threads
//! (nginx: worker processes) and keeps its connections to the application; rounds take turns, so that all meet the same
//! machine.

mod load;
mod proxies;

pub use load::{Load, Measured};
pub use proxies::{Proxies, application, waker};
