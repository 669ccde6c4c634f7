//! The program in the image of the conformance suite. Compiled by itself, it needs nothing but the standard library.
//!
//! `serve` and `stubborn` run until they are killed, `exit CODE TEXT…` says something and ends, `cat PATH` shows a
//! file, `check CODE` is a health check.

use std::process::ExitCode;
use std::time::Duration;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    match args.as_slice() {
        ["exit", code, lines @ ..] => {
            lines.iter().for_each(|line| println!("{line}"));
            ExitCode::from(code.parse().unwrap_or(1))
        }
        ["cat", path] => match std::fs::read_to_string(path) {
            Ok(text) => {
                println!("{text}");
                ExitCode::SUCCESS
            }
            Err(error) => {
                eprintln!("{path}: {error}");
                ExitCode::FAILURE
            }
        },
        ["check", code] => ExitCode::from(code.parse().unwrap_or(1)),
        _ => loop {
            std::thread::sleep(Duration::from_secs(3_600));
        },
    }
}
