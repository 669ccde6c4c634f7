//! Stopping in good order.
//!
//! ```text
//! process 1 (init) ── SIGTERM passed on ──▶ worker ── SIGTERM ──▶ psql, pg_restore, …
//!     │ reaps orphans                          │ STOPPING = true: the work fails, undoes its fence, exits 1
//!     └ exits as the worker did                └ after GRACE it exits 1 whatever it is doing
//! ```
//!
//! In a container the runner is process 1, where a signal without a handler is ignored and orphans are its
//! children: there it only starts itself once more and waits. Its end kills everything that is left.

use std::collections::BTreeSet;
use std::io::{self, Read as _};
use std::os::unix::net::UnixStream;
use std::process::{Child, Command};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, WaitOptions};

use crate::error::{Error, Result};

/// How long the work may take to undo what must be undone; Docker kills after 10 s.
const GRACE: Duration = Duration::from_secs(8);

static STOPPING: AtomicBool = AtomicBool::new(false);
static CHILDREN: Mutex<BTreeSet<u32>> = Mutex::new(BTreeSet::new());

/// Whether this is process 1 and the work has to be done by a child.
pub(crate) fn is_init() -> bool {
    std::process::id() == 1
}

/// Starts this program with the same arguments, reaps whatever ends, and returns the worker's exit code.
pub(crate) fn run_as_init() -> io::Result<u8> {
    let mut command = Command::new("/proc/self/exe");
    let worker = spawn(command.args(std::env::args_os().skip(1)))?;
    on_signal(stop_all)?;
    loop {
        match rustix::process::wait(WaitOptions::empty()) {
            Ok(Some((pid, status))) if pid.as_raw_nonzero().get() as u32 == worker.id() => {
                return Ok(status.exit_status().map_or(1, |code| code as u8));
            }
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// Makes a worker stop on SIGTERM and SIGINT.
pub(crate) fn install() -> io::Result<()> {
    on_signal(|| {
        stop_all();
        thread::sleep(GRACE);
        std::process::exit(1);
    })
}

/// Whether the job was told to stop.
pub(crate) fn is_stopping() -> bool {
    STOPPING.load(Ordering::SeqCst)
}

/// Starts a child that SIGTERM will reach.
pub(crate) fn spawn(command: &mut Command) -> io::Result<Child> {
    let mut children = children();
    let child = command.spawn()?;
    children.insert(child.id());
    Ok(child)
}

/// Forgets a child that was waited for.
pub(crate) fn forget(child: &Child) {
    children().remove(&child.id());
}

/// Asks a child to end.
pub(crate) fn terminate(child: &Child) {
    send(child.id(), Signal::TERM);
}

/// Kills a process family by its leader, which may be gone.
pub(crate) fn kill_family(leader: &Child) {
    if let Some(pid) = Pid::from_raw(leader.id() as i32) {
        let _gone = rustix::process::kill_process_group(pid, Signal::KILL);
    }
}

/// A short rest of something that is looked at again and again.
pub(crate) fn pause() -> Result<()> {
    thread::sleep(Duration::from_millis(5));
    if is_stopping() { Err(Error::Stopped) } else { Ok(()) }
}

/// Looks until `is_so`, at first every 5 ms, later every 200 ms.
pub(crate) fn until(
    within: Duration,
    late: impl FnOnce() -> Error,
    mut is_so: impl FnMut() -> Result<bool>,
) -> Result<()> {
    let began = Instant::now();
    let mut pause = Duration::from_millis(5);
    while !is_so()? {
        if began.elapsed() > within {
            return Err(late());
        }
        if is_stopping() {
            return Err(Error::Stopped);
        }
        thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(200));
    }
    Ok(())
}

fn on_signal(act: impl FnOnce() + Send + 'static) -> io::Result<()> {
    let (mut woken, waker) = UnixStream::pair()?;
    for signal in [signal_hook::consts::SIGTERM, signal_hook::consts::SIGINT] {
        signal_hook::low_level::pipe::register(signal, waker.try_clone()?)?;
    }
    thread::spawn(move || {
        let _one_byte = woken.read(&mut [0]);
        act();
    });
    Ok(())
}

fn stop_all() {
    STOPPING.store(true, Ordering::SeqCst);
    for id in children().iter() {
        send(*id, Signal::TERM);
    }
}

fn send(id: u32, signal: Signal) {
    if let Some(pid) = Pid::from_raw(id as i32) {
        let _gone = rustix::process::kill_process(pid, signal);
    }
}

fn children() -> MutexGuard<'static, BTreeSet<u32>> {
    CHILDREN.lock().unwrap_or_else(PoisonError::into_inner)
}
