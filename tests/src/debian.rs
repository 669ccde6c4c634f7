//! Programs for tests from Debian's packages, unpacked and not installed: nothing is configured and no service starts.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;

static UNPACKING: Mutex<()> = Mutex::new(());

/// The path of a program: the machine's own if it is installed, else that of the Debian package, unpacked once under
/// the build directory.
///
/// # Panics
/// When the package can neither be found nor downloaded: a test that needs the program must not pass without it.
pub fn program(package: &str, path: &str) -> PathBuf {
    let installed = Path::new("/").join(path);
    if installed.is_file() {
        return installed;
    }
    let _one_at_a_time = UNPACKING.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/debian");
    let program = root.join(package).join(path);
    if !program.is_file() {
        let fresh = root.join(format!("{package}.{}", std::process::id()));
        std::fs::create_dir_all(&fresh).expect("the build directory can be written to");
        let download = || run(Command::new("apt-get").args(["download", "-qq", package]).current_dir(&fresh));
        if !download() {
            run(Command::new("apt-get").args(["update", "-qq"]));
            assert!(download(), "the Debian package `{package}` cannot be downloaded");
        }
        let unpack = format!("dpkg -x {package}_*.deb . && rm {package}_*.deb");
        assert!(
            run(Command::new("sh").args(["-c", &unpack]).current_dir(&fresh)),
            "{package} cannot be unpacked"
        );
        if std::fs::rename(&fresh, root.join(package)).is_err() {
            // Another test was first.
            std::fs::remove_dir_all(&fresh).expect("it was made above");
        }
    }
    assert!(program.is_file(), "the Debian package `{package}` holds no {path}");
    program
}

fn run(command: &mut Command) -> bool {
    command.status().is_ok_and(|status| status.success())
}
