//! Tests of [`super`] that need no files; whole reports are in `tests/check`.

use jiff::Timestamp;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::policy::keys::KEYS;

fn check(text: &str) -> CheckReport {
    check_sources(&[("stack.yml".to_owned(), Ok(text.to_owned()))], &|_| None, None)
}

fn codes(report: &CheckReport) -> Vec<Code> {
    report.findings.iter().map(|f| f.problem.code).collect()
}

fn service(name: &str, labels: &Value, spec: &Value) -> Service {
    let mut spec = spec.clone();
    spec["Name"] = format!("shop_{name}").into();
    spec["Labels"] = labels.clone();
    spec["Labels"]["com.docker.stack.namespace"] = "shop".into();
    Service { id: name.to_owned(), version: 1, spec, update: None, created: Timestamp::UNIX_EPOCH }
}

#[test]
fn a_service_of_the_swarm_is_checked_with_what_it_depends_on() {
    let app = json!({ "skep.enable": "true", "skep.depends-on": "db, cahce", "skep.maintenance": "true", "skep.maintenance.port": "80" });
    let healthy =
        json!({ "TaskTemplate": { "ContainerSpec": { "Healthcheck": { "Test": ["CMD", "true"] } } } });
    let services = [
        service("app", &app, &healthy),
        service(
            "db",
            &json!({ "skep.enable": "true", "skep.data": "postgres", "skep.restore.on-alert": "A" }),
            &json!({}),
        ),
        service("cache", &json!({}), &json!({})),
    ];
    let report = check_service(&services, "shop_app").unwrap();
    assert_eq!(codes(&report), [Code::UnknownService]);
    assert_eq!(report.findings[0].problem.hint.as_deref(), Some("did you mean `cache`?"));
    let all = check_services(&services);
    assert_eq!(codes(&all), [Code::UnknownService, Code::RestoreWithoutBackup]);
    assert_eq!(all.services, ["shop_app", "shop_db"]);
    assert_eq!(all.notes, ["service `shop_db`: the alert `A` must carry the label skep_service=\"shop_db\""]);
    assert!(check_service(&services, "shop_nobody").is_none());
}

#[test]
fn a_page_over_a_service_without_health_check_or_with_a_host_port_is_warned_of() {
    let labels = json!({ "skep.enable": "true", "skep.maintenance": "true", "skep.maintenance.port": "80" });
    let host = json!({
        "TaskTemplate": { "ContainerSpec": { "Healthcheck": { "Test": ["NONE"] } } },
        "EndpointSpec": { "Ports": [{ "PublishMode": "host", "TargetPort": 80 }] },
    });
    let report = check_services(&[service("app", &labels, &host)]);
    assert_eq!(codes(&report), [Code::NoHealthCheck, Code::HostPort]);
    assert_eq!(report.exit_code(), 0);
}

#[test]
fn a_volume_that_the_service_does_not_mount_is_a_problem_with_those_that_it_does() {
    let file = |named: &str| {
        format!(
            "services:\n  app:\n    image: a\n    volumes:\n      - uploads:/srv:rw\n      - /host:/host\n      - /anonymous\n      \
             - {{ type: volume, source: keep, target: /keep }}\n    deploy:\n      labels:\n        skep.enable: 'true'\n        \
             skep.data: volume\n        skep.data.volumes: {named}\n\
             volumes:\n  uploads:\n  keep: {{ name: kept_for_ever }}\n  other:\n"
        )
    };
    for fine in ["uploads", "uploads, keep", "shop_uploads", "kept_for_ever"] {
        assert_eq!(codes(&check(&file(fine))), [], "{fine}");
    }
    let report = check(&file("upload, other"));
    assert_eq!(codes(&report), [Code::UnknownVolume, Code::UnknownVolume]);
    let problem = &report.findings[0].problem;
    assert_eq!(problem.hint.as_deref(), Some("did you mean `uploads`?"));
    assert!(problem.want.contains("`keep`, `uploads`"), "{}", problem.want);
    assert_eq!(report.exit_code(), 1);
    let labels =
        json!({ "skep.enable": "true", "skep.data": "volume", "skep.data.volumes": "uploads, data" });
    let mounts = json!([{ "Type": "volume", "Source": "shop_uploads", "Target": "/srv" }]);
    let spec = json!({ "TaskTemplate": { "ContainerSpec": { "Mounts": mounts } } });
    assert_eq!(codes(&check_services(&[service("app", &labels, &spec)])), [Code::UnknownVolume]);
}

#[test]
fn what_skep_made_itself_is_not_checked() {
    let job = service("job", &json!({ "skep.kind": "job", "skep.op": "x" }), &json!({}));
    assert!(check_services(&[job]).services.is_empty());
}

#[test]
fn a_pasted_in_health_check_or_none_is_told_apart() {
    let with = |health: &str| {
        let labels = "deploy: { labels: { skep.enable: 'true', skep.maintenance: 'true', skep.maintenance.port: 80 } }";
        codes(&check(&format!("services:\n  a:\n    {labels}\n    healthcheck: {health}\n")))
    };
    for has in ["{ test: [CMD, x] }", "{ test: curl localhost }", "{ interval: 5s }"] {
        assert_eq!(with(has), [], "{has}");
    }
    for none in ["{ test: [NONE] }", "{ test: NONE }", "{ disable: true }"] {
        assert_eq!(with(none), [Code::NoHealthCheck], "{none}");
    }
}

#[test]
fn variables_come_from_the_environment() {
    let text = "services: { db: { deploy: { labels: { skep.enable: 'true', skep.data: '${ENGINE}' } } } }";
    let source = [("x.yml".to_owned(), Ok(text.to_owned()))];
    let engine = |name: &str| (name == "ENGINE").then(|| "postgres".to_owned());
    assert_eq!(codes(&check_sources(&source, &engine, None)), []);
    assert_eq!(codes(&check_sources(&source, &|_| None, None)), [Code::BadChoice, Code::UnsetVariable]);
}

#[test]
fn a_second_file_goes_over_the_first() {
    let file = |name: &str, keep: &str| {
        let text = format!(
            "services: {{ db: {{ deploy: {{ labels: {{ skep.enable: 'true', skep.data: postgres, skep.backup.keep: {keep} }} }} }} }}"
        );
        (name.to_owned(), Ok(text))
    };
    assert_eq!(codes(&check_sources(&[file("a", "x"), file("b", "7 daily")], &|_| None, None)), []);
    let report = check_sources(&[file("a", "7 daily"), file("b", "x")], &|_| None, None);
    assert_eq!(report.findings[0].file.as_deref(), Some("b"));
}

/// Labels of a stack file in one of its forms, from keys and texts that are nearly right.
fn any_stack() -> impl Strategy<Value = String> {
    let key = prop_oneof![
        4 => (0..KEYS.len()).prop_map(|row| KEYS[row].with_name("self")),
        1 => "skep[.-][a-z.-]{0,8}",
    ];
    let text = prop_oneof![
        3 => (0..KEYS.len()).prop_map(|row| format!("{:?}", KEYS[row].example)),
        2 => "[-@*a-z0-9$:{}'\"#/, ]{0,12}",
        1 => Just("true".to_owned()),
        1 => Just("010".to_owned()),
    ];
    let pair = (key, text, any::<bool>());
    let service = (prop::collection::vec(pair, 0..6), any::<bool>());
    prop::collection::vec(service, 0..4).prop_map(|services| {
        let mut file = "services:\n".to_owned();
        for (index, (labels, in_deploy)) in services.iter().enumerate() {
            file.push_str(&format!("  s{index}:\n    image: x\n"));
            let indent = if *in_deploy { "    deploy:\n      labels:\n" } else { "    labels:\n" };
            file.push_str(indent);
            let as_list = labels.first().is_some_and(|(.., list)| *list);
            for (key, text, _) in labels {
                let line = if as_list {
                    format!("        - {key}={text}\n")
                } else {
                    format!("        {key}: {text}\n")
                };
                file.push_str(&line);
            }
        }
        file
    })
}

proptest! {
    #[test]
    fn no_text_panics(text in "\\PC{0,80}") {
        let report = check(&text);
        let _ = (report.to_string(), report.exit_code());
    }

    #[test]
    fn no_stack_file_panics_and_no_problem_is_lost_on_the_way_to_the_report(text in any_stack()) {
        let report = check(&text);
        let shown = report.to_string();
        for finding in &report.findings {
            prop_assert!(shown.contains(&finding.to_string()));
            prop_assert!(!finding.problem.want.is_empty() && finding.file.is_some());
            prop_assert!(finding.line.is_none_or(|n| n as usize <= text.lines().count() + 1), "{:?}", finding);
        }
        prop_assert_eq!(shown.matches("\n      help  ").count(), report.findings.len());
        prop_assert!(serde_json::to_string(&report).is_ok());
        // What the labels say by themselves is also in the report.
        let mut reader = Reader::new(&|_| None);
        reader.read(0, &text);
        for (name, service) in &reader.stack.services {
            for problem in parse_service(service).problems {
                let told = report.findings.iter().any(|f| f.service.as_ref() == Some(name) && f.problem.key == problem.key);
                prop_assert!(told, "{:?} of {} is lost", problem, name);
            }
        }
    }
}

#[test]
fn a_door_of_a_stack_file_has_a_name_of_its_own_and_no_port_beside_it() {
    let file = |door: &str, more: &str| {
        format!(
            "services:\n  app:\n    image: a\n{more}    networks: {{ default: {{ aliases: [shop] }} }}\n    deploy:\n      labels:\n        \
             skep.enable: 'true'\n        skep.scale.wake: 'true'\n        skep.scale.wake.port: '80'\n        \
             skep.scale.wake.door: {door}\n  db:\n    image: b\n"
        )
    };
    assert_eq!(codes(&check(&file("app-door", ""))), []);
    for taken in ["app", "db", "shop"] {
        assert_eq!(codes(&check(&file(taken, ""))), [Code::DoorTaken], "{taken}");
    }
    let report = check(&file("app-door", "    ports: ['8080:80']\n"));
    assert_eq!((codes(&report), report.exit_code()), (vec![Code::PastTheDoor], 1));
}
