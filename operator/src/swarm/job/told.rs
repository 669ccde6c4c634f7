//! What a job has told through its log.

use std::collections::BTreeMap;

use skep_runner::{Fault, Line, Progress, Report};

/// What is in a job's log.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Told {
    /// The last progress line.
    pub progress: Option<Progress>,
    /// The report, if all of its parts are there and make one.
    pub report: Option<Box<Report>>,
    /// The fault.
    pub fault: Option<Fault>,
}

/// Reads a job's log. Lines that are none of the runner's are passed over.
pub fn read_log(log: &str) -> Told {
    let mut told = Told::default();
    let mut parts: BTreeMap<u32, String> = BTreeMap::new();
    let mut wanted = 0;
    for line in log.lines().filter_map(|text| serde_json::from_str(text).ok()) {
        match line {
            Line::Progress(progress) => told.progress = Some(progress),
            Line::Fault(fault) => told.fault = Some(fault),
            Line::Report { part, of, text } => {
                if of != wanted {
                    parts.clear();
                    wanted = of;
                }
                parts.insert(part, text);
            }
        }
    }
    let whole = wanted > 0 && parts.keys().copied().eq(0..wanted);
    if whole {
        let text: String = parts.into_values().collect();
        told.report = serde_json::from_str(&text).ok();
    }
    told
}

#[cfg(test)]
mod tests {
    use skep_runner::line::FaultKind;

    use super::*;

    fn line(line: &Line) -> String {
        serde_json::to_string(line).unwrap() + "\n"
    }

    fn parts(report: &Report, size: usize) -> Vec<String> {
        let text = serde_json::to_string(report).unwrap();
        let slices: Vec<String> =
            text.chars().collect::<Vec<_>>().chunks(size).map(|c| c.iter().collect()).collect();
        let of = u32::try_from(slices.len()).unwrap();
        (0..of).zip(slices).map(|(part, text)| line(&Line::Report { part, of, text })).collect()
    }

    fn report() -> Report {
        Report::Probe { version: "skep-runner 0.1.0 with a text that is cut into parts".to_owned() }
    }

    #[test]
    fn a_report_in_parts_is_joined() {
        let log: String = parts(&report(), 10).concat();
        assert_eq!(read_log(&log).report.as_deref(), Some(&report()));
    }

    #[test]
    fn parts_may_come_in_any_order() {
        let mut parts = parts(&report(), 10);
        parts.reverse();
        assert_eq!(read_log(&parts.concat()).report.as_deref(), Some(&report()));
    }

    #[test]
    fn a_report_that_lacks_a_part_is_none() {
        let mut parts = parts(&report(), 10);
        parts.remove(1);
        assert_eq!(read_log(&parts.concat()).report, None);
    }

    #[test]
    fn the_last_progress_counts_and_foreign_lines_do_not() {
        let progress = |done| Progress { phase: "dump".to_owned(), done, total: Some(10) };
        let log = format!(
            "hello\n{}{{\"line\":\"other\"}}\n{}pg_dump: noise\n",
            line(&Line::Progress(progress(1))),
            line(&Line::Progress(progress(7)))
        );
        assert_eq!(read_log(&log), Told { progress: Some(progress(7)), ..Told::default() });
    }

    #[test]
    fn a_fault_is_read() {
        let fault = Fault { kind: FaultKind::Final, message: "no room".to_owned() };
        assert_eq!(read_log(&line(&Line::Fault(fault.clone()))).fault, Some(fault));
    }
}
