//! What stands against a restore, judged from what preflight saw; pure (S2, S5, S17).

use std::collections::{BTreeMap, BTreeSet};

use skep_runner::task::{KeptDatabase, PgInspection};

/// Verdict of preflight.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Judgement {
    /// Reasons to refuse.
    pub refuse: Vec<String>,
    /// Reasons for which nobody but a person may let it go on.
    pub approve: Vec<String>,
    /// The same of sessions from addresses that no task has: most are of tasks that have just ended.
    pub passing: Vec<String>,
    /// Things to know.
    pub remarks: Vec<String>,
}

/// What is known about the services that reach the database.
#[derive(Clone, Debug, Default)]
pub struct Known<'a> {
    /// Address → full name of the service that owns it.
    pub addresses: BTreeMap<String, String>,
    /// Services that will be stopped.
    pub clients: Vec<&'a str>,
    /// Services that are known and not stopped.
    pub ignore: Vec<&'a str>,
}

/// Judges. `needed` is the size in bytes of what will be built.
pub fn judge(seen: &PgInspection, known: &Known<'_>, needed: u64) -> Judgement {
    let mut judgement = Judgement::default();
    room(seen, needed, &mut judgement);
    strangers(seen, known, &mut judgement);
    casualties(seen, &mut judgement);
    judgement
}

/// Counts as free what is dropped before anything is built.
pub fn reckon_with(seen: &mut PgInspection, goes: impl Fn(&KeptDatabase) -> bool) {
    let freed: u64 = seen.kept.iter().filter(|kept| goes(kept)).map(|kept| kept.size).sum();
    seen.free = seen.free.saturating_add(freed);
}

/// S17: room for 1.2 × the size, and the write-ahead log that loading makes; and so that loading never comes near to the
/// floor at which the job would stop itself.
pub fn room(seen: &PgInspection, needed: u64, judgement: &mut Judgement) {
    let floor = (seen.capacity / 10).max(2 * seen.max_wal_size);
    let want = needed + needed / 5 + seen.max_wal_size.max(floor);
    if seen.capacity == 0 {
        judgement
            .remarks
            .push("the room where the data is could not be measured: it is on no volume".to_owned());
    } else if seen.free < want {
        let mib = |bytes: u64| bytes / (1 << 20);
        judgement.refuse.push(format!(
            "no room: {} MiB are free where the data is, {} MiB are needed",
            mib(seen.free),
            mib(want)
        ));
    }
}

/// S2: sessions of services that are neither stopped nor declared as known.
fn strangers(seen: &PgInspection, known: &Known<'_>, judgement: &mut Judgement) {
    let (mut found, mut passing) = (BTreeSet::new(), BTreeSet::new());
    for s in &seen.sessions {
        match known.addresses.get(&s.address) {
            Some(name) if known.clients.contains(&name.as_str()) || known.ignore.contains(&name.as_str()) => {
            }
            Some(name) => drop(found.insert(name.clone())),
            None if s.address.is_empty() => {
                found.insert(format!("a local session of {} ({})", s.user, s.application));
            }
            None => drop(passing.insert(format!("{} ({}, {})", s.address, s.user, s.application))),
        }
    }
    let undeclared = |name: String| {
        format!(
            "{name} uses the database and is neither in skep.restore.clients nor in skep.restore.ignore-clients"
        )
    };
    judgement.approve.extend(found.into_iter().map(undeclared));
    judgement.passing.extend(passing.into_iter().map(undeclared));
}

/// S5: what a new database silently leaves behind.
fn casualties(seen: &PgInspection, judgement: &mut Judgement) {
    for (what, names) in [
        ("replication slot", &seen.slots),
        ("subscription", &seen.subscriptions),
        ("scheduled job", &seen.jobs),
    ] {
        for name in names {
            judgement
                .approve
                .push(format!("{what} `{name}` of the live database would not follow to the new one"));
        }
    }
}

#[cfg(test)]
mod tests {
    use skep_runner::task::PgSession;

    use super::*;

    fn seen() -> PgInspection {
        PgInspection { free: 10 << 30, capacity: 20 << 30, max_wal_size: 1 << 30, ..PgInspection::default() }
    }

    fn session(address: &str) -> PgSession {
        PgSession { address: address.to_owned(), user: "u".to_owned(), application: "a".to_owned() }
    }

    #[test]
    fn nothing_stands_against_a_quiet_database_with_room() {
        assert_eq!(judge(&seen(), &Known::default(), 1 << 30), Judgement::default());
    }

    #[test]
    fn too_little_room_refuses_and_unmeasured_room_is_said() {
        let tight = PgInspection { free: 2 << 30, ..seen() };
        assert_eq!(judge(&tight, &Known::default(), 1 << 30).refuse.len(), 1);
        let unmeasured = PgInspection { free: 0, capacity: 0, ..seen() };
        let judged = judge(&unmeasured, &Known::default(), 1 << 30);
        assert!(judged.refuse.is_empty() && judged.remarks.len() == 1);
    }

    #[test]
    fn a_disk_that_loading_would_fill_to_the_floor_is_refused_beforehand() {
        let nearly_full = PgInspection { free: 25 << 30, capacity: 252 << 30, ..seen() };
        assert_eq!(judge(&nearly_full, &Known::default(), 8 << 20).refuse.len(), 1);
        let roomier = PgInspection { free: 26 << 30, ..nearly_full };
        assert!(judge(&roomier, &Known::default(), 8 << 20).refuse.is_empty());
    }

    #[test]
    fn sessions_of_undeclared_services_need_a_person() {
        let mut inspection = seen();
        inspection.sessions =
            vec![session("10.0.0.2"), session("10.0.0.3"), session("10.0.0.9"), session("")];
        let known = Known {
            addresses: [("10.0.0.2", "shop_app"), ("10.0.0.3", "bi_exporter"), ("10.0.0.4", "x")]
                .map(|(a, n)| (a.to_owned(), n.to_owned()))
                .into(),
            clients: vec!["shop_app"],
            ignore: vec![],
        };
        let judged = judge(&inspection, &known, 0);
        let approve = judged.approve;
        assert_eq!((approve.len(), judged.passing.len()), (2, 1), "{approve:?}");
        assert!(approve.iter().any(|a| a.contains("bi_exporter")));
        let declared = Known { ignore: vec!["bi_exporter"], ..known };
        assert_eq!(judge(&inspection, &declared, 0).approve.len(), 1);
    }

    #[test]
    fn slots_subscriptions_and_jobs_need_a_person() {
        let inspection = PgInspection {
            slots: vec!["s".to_owned()],
            subscriptions: vec!["t".to_owned()],
            jobs: vec!["j".to_owned()],
            ..seen()
        };
        assert_eq!(judge(&inspection, &Known::default(), 0).approve.len(), 3);
    }
}
