//! How long the runner takes for what plain tools do as well, on the same data in the same run, and how much memory it
//! needs: PostgreSQL against `pg_dump` and `pg_restore`, a volume against `tar` alone, into `zstd` and into `gzip`.
//!
//! Into a mount, the runner writes a volume's archive as it is, with its checksum and without compressing it: like for like is
//! `tar` alone, and the others do more work for less room. The sizes of all are told.
//!
//! The two take turns, and medians are compared. Of `pg_restore` the fastest number of jobs counts. What the runner does
//! more is in its time: reading the artefact back against its checksum before it is loaded, and `ANALYZE` after.

// A measurement that cannot go on ends.
#![allow(clippy::unwrap_used)]

#[path = "../tests/support/mod.rs"]
mod support;

use std::fs::{self, File};
use std::io::Write as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use skep_runner::task::{DataEngine, DirDump, PgDump, PgRestore, Task, VolumeRoot};
use support::{Bench, Cluster, Outcome, Runner};

/// `pgbench` scale: 750 MB.
const SCALE: u32 = 50;
/// So often each is timed.
const ROUNDS: usize = 5;
/// Parallel jobs that plain `pg_restore` is tried with.
const JOBS: [u32; 3] = [1, 2, 4];
/// Bytes of the volume, half of which are text.
const VOLUME: u64 = 2 << 30;
/// Bytes of a small one, which shows that memory does not grow with the data.
const SMALL: u64 = VOLUME / 16;

/// What a plain archive is packed with.
const PACKERS: [&str; 3] = ["cat", "zstd -q -T2", "gzip"];

/// Seconds of each round, the most memory that any took, and the size of the last one's artefact where that is told.
#[derive(Default)]
struct Times {
    seconds: Vec<f64>,
    peak_kib: u64,
    bytes: u64,
}

fn main() {
    let mut peak_kib = 0;
    let (dump, restore) = database(&mut peak_kib);
    let [plain, zstd, gzip] = volume(&mut peak_kib);
    say(&format!(
        "volume, not compressed, against tar alone: {plain:.2}; against what compresses: tar | zstd {zstd:.2}, tar | gzip {gzip:.2}"
    ));
    say(&format!(
        "dump_ratio={dump:.2} restore_ratio={restore:.2} volume_ratio={zstd:.2} volume_plain_ratio={plain:.2} peak_mib={:.1}",
        mib(peak_kib)
    ));
}

/// The ratios of dump and restore.
fn database(peak_kib: &mut u64) -> (f64, f64) {
    let cluster = Cluster::start_with("fsync = on\nshared_buffers = 128MB\nmax_wal_size = 4GB\n");
    cluster.sql("postgres", "CREATE DATABASE app");
    let fill =
        cluster.client("pgbench", "post gres", "app").args(["-i", "-q", "-s", &SCALE.to_string()]).output();
    assert!(fill.unwrap().status.success(), "pgbench cannot fill the database");
    cluster.sql("app", "CHECKPOINT");
    let size = cluster.sql("app", "SELECT pg_size_pretty(pg_database_size('app'))");
    say(&format!("a database of {size}"));

    let (mut plain, mut ours) = (Times::default(), Times::default());
    let file = cluster.dir.join("plain.dump");
    for round in 0..ROUNDS {
        let mut command = cluster.client("pg_dump", "post gres", "app");
        plain.add(command.args(["-Fc", "-Z1", "-f"]).arg(&file));
        let task = PgDump { connect: cluster.connect(), database: "app".into(), dir: format!("d{round}") };
        ours.add_task(Runner::new(&cluster, Task::PgDump(task)));
    }
    let dump = compared("dump", &ours, "pg_dump -Fc -Z1", &plain);
    *peak_kib = ours.peak_kib.max(*peak_kib);

    let stored = cluster.back_up("app", "backup");
    let mut plain = JOBS.map(|_| Times::default());
    let mut ours = Times::default();
    for _ in 0..ROUNDS {
        for (jobs, times) in JOBS.iter().zip(&mut plain) {
            cluster.sql("postgres", "CREATE DATABASE plain");
            let mut command = cluster.client("pg_restore", "post gres", "plain");
            times.add(command.args(["-j", &jobs.to_string()]).arg(&file));
            cluster.sql("postgres", "DROP DATABASE plain");
            cluster.sql("postgres", "CHECKPOINT");
        }
        let (connect, stored) = (cluster.connect(), stored.clone());
        let task = PgRestore { connect, stored, live: "app".into(), side: "skep_side".into() };
        ours.add_task(Runner::new(&cluster, Task::PgRestore(task)));
        cluster.sql("postgres", "DROP DATABASE skep_side");
        cluster.sql("postgres", "CHECKPOINT");
    }
    let best = plain.iter().min_by(|a, b| a.median().total_cmp(&b.median())).unwrap();
    let shown: Vec<String> =
        JOBS.iter().zip(&plain).map(|(jobs, times)| format!("-j{jobs} {:.2} s", times.median())).collect();
    say(&format!("pg_restore {}", shown.join(", ")));
    let restore = compared("restore", &ours, "the best pg_restore", best);
    *peak_kib = ours.peak_kib.max(*peak_kib);
    (dump, restore)
}

/// The ratios against `tar`, `tar | zstd -T2` and `tar | gzip`.
fn volume(peak_kib: &mut u64) -> [f64; 3] {
    let small = Bench::new(DataEngine::Volume);
    fill(&small.data(), SMALL);
    let mut little = Times::default();
    little.add_task(small.runner(dump_of(&small, "small")));
    let bench = Bench::new(DataEngine::Volume);
    fill(&bench.data(), VOLUME);
    let mut ours = Times::default();
    let mut others = PACKERS.map(|_| Times::default());
    for round in 0..ROUNDS {
        for (packer, times) in PACKERS.iter().zip(&mut others) {
            let to = bench.dir.join("plain.tar.packed");
            let script =
                format!("set -o pipefail; tar -C \"$0\" -cf - . | {packer} >\"$1\" && sync -f \"$1\"");
            times.add(Command::new("bash").args(["-c", &script]).arg(bench.data()).arg(&to));
            times.bytes = fs::metadata(&to).unwrap().len();
            fs::remove_file(to).unwrap();
        }
        let dir = format!("v{round}");
        ours.add_task(bench.runner(dump_of(&bench, &dir)));
        ours.bytes = fs::metadata(bench.dir.join("store").join(&dir).join("data.tar")).unwrap().len();
        fs::remove_dir_all(bench.dir.join("store").join(dir)).unwrap();
    }
    *peak_kib = ours.peak_kib.max(*peak_kib);
    say(&format!(
        "memory of a volume's backup: {:.1} MiB at most for {} MiB of data, {:.1} for {}",
        mib(little.peak_kib),
        SMALL >> 20,
        mib(ours.peak_kib),
        VOLUME >> 20
    ));
    let sizes: Vec<String> = PACKERS
        .iter()
        .zip(&others)
        .map(|(packer, times)| format!("tar | {packer} {} MiB", times.bytes >> 20))
        .collect();
    say(&format!("sizes: the runner's archive {} MiB, {}", ours.bytes >> 20, sizes.join(", ")));
    let mut ratios = PACKERS.iter().zip(&others);
    std::array::from_fn(|_| {
        let (packer, times) = ratios.next().unwrap();
        compared("volume, not compressed", &ours, &format!("tar | {packer}"), times)
    })
}

fn dump_of(bench: &Bench, dir: &str) -> Task {
    let volumes = vec![VolumeRoot { name: "data".into(), root: bench.root() }];
    Task::DirDump(DirDump { engine: DataEngine::Volume, connect: None, volumes, dir: dir.to_owned() })
}

/// Files of a few sizes; every second one is text, the others cannot be compressed.
fn fill(data: &Path, volume: u64) {
    let (mut state, mut written) = (0x9e37_79b9_7f4a_7c15_u64, 0);
    let mut next = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    for number in 0u64.. {
        if written >= volume {
            break;
        }
        let size = [4 << 10, 64 << 10, 1 << 20, 16 << 20][usize::try_from(number % 4).unwrap()];
        let dir = data.join(format!("{}", number % 64));
        fs::create_dir_all(&dir).unwrap();
        let mut file = File::create(dir.join(format!("{number}"))).unwrap();
        let mut block = Vec::with_capacity(size);
        while block.len() < size {
            match (number / 4) % 2 {
                0 => block.extend_from_slice(&next().to_ne_bytes()),
                _ => writeln!(block, "line {} of file {number} is much like all the others", next() % 1000)
                    .unwrap(),
            }
        }
        block.truncate(size);
        file.write_all(&block).unwrap();
        written += size as u64;
    }
    assert!(Command::new("sync").status().unwrap().success());
}

/// Says and answers how many times as long ours takes.
fn compared(what: &str, ours: &Times, other: &str, plain: &Times) -> f64 {
    let ratio = ours.median() / plain.median();
    say(&format!(
        "{what}: {:.2} s ({:.1} MiB at most), {other}: {:.2} s; ratio {ratio:.2}",
        ours.median(),
        mib(ours.peak_kib),
        plain.median()
    ));
    ratio
}

fn mib(kib: u64) -> f64 {
    f64::from(u32::try_from(kib).unwrap()) / 1024.0
}

fn say(line: &str) {
    println!("{line}");
}

impl Times {
    fn add(&mut self, command: &mut Command) {
        let began = Instant::now();
        let output = command.stdin(Stdio::null()).output().unwrap();
        self.seconds.push(began.elapsed().as_secs_f64());
        assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    }

    fn add_task(&mut self, runner: Runner) {
        let began = Instant::now();
        let child = runner.spawn();
        let watch = watch(&child);
        let outcome = Outcome::of(child);
        self.seconds.push(began.elapsed().as_secs_f64());
        outcome.done();
        self.peak_kib = self.peak_kib.max(watch.join().unwrap());
    }

    fn median(&self) -> f64 {
        let mut sorted = self.seconds.clone();
        sorted.sort_by(f64::total_cmp);
        sorted[sorted.len() / 2]
    }
}

/// The most memory that a process itself has had resident, in KiB, by what the kernel keeps until it ends.
fn watch(child: &Child) -> thread::JoinHandle<u64> {
    let status = format!("/proc/{}/status", child.id());
    thread::spawn(move || {
        let mut peak = 0;
        while let Ok(text) = fs::read_to_string(&status) {
            let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:"));
            // A process that has ended has no memory.
            let Some(line) = line else { break };
            peak = line.trim().trim_end_matches(" kB").parse().unwrap();
            thread::sleep(Duration::from_millis(10));
        }
        peak
    })
}
