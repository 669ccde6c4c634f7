//! The client against an engine that is one closure.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::StreamExt;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};
use tokio::time::Instant;

use super::Engine;
use super::error::Error;
use super::fence::Fence;
use super::object::{EventAction, EventKind, Kind, Labels, RegistryAuth};
use super::testing::{Asked, Reply, engine_that, refusal};
use super::transport::Endpoint;

const NOT_FOUND: u16 = 404;

async fn client(answer: impl Fn(&Asked) -> Reply + Send + Sync + 'static) -> Engine {
    let (endpoint, _) = engine_that(answer);
    Engine::connect(endpoint).await.unwrap()
}

fn not_found() -> Reply {
    refusal(NOT_FOUND, "not found")
}

fn config(id: &str, name: &str) -> Value {
    json!({
        "ID": id, "Version": {"Index": 7}, "CreatedAt": "2026-01-02T03:04:05.123456789Z", "UpdatedAt": "2026-01-02T03:04:06Z",
        "Spec": {"Name": name, "Labels": {"skep.kind": "operation"}, "Data": "eHl6"}
    })
}

fn service(id: &str, name: &str) -> Value {
    json!({"ID": id, "Version": {"Index": 9}, "CreatedAt": "2026-01-02T03:04:05Z", "UpdatedAt": "2026-01-02T03:04:05Z", "Spec": {"Name": name}})
}

fn task(id: &str, service: &str) -> Value {
    json!({
        "ID": id, "ServiceID": service, "NodeID": "n1", "Slot": 1, "CreatedAt": "2026-01-02T03:04:05Z", "DesiredState": "running",
        "Status": {"State": "running", "Timestamp": "2026-01-02T03:04:05Z", "ContainerStatus": {"ExitCode": 0}},
        "Spec": {"ContainerSpec": {"Image": "x"}},
        "NetworksAttachments": [{"Network": {"ID": "net"}, "Addresses": ["10.0.1.5/24"]}]
    })
}

#[tokio::test]
async fn an_engine_older_than_20_10_is_refused_with_its_version() {
    let (endpoint, _) =
        engine_that(|_| Reply::Json(200, json!({"ApiVersion": "1.40", "Version": "19.03.15"})));
    let error = Engine::connect(endpoint).await.unwrap_err().to_string();
    assert!(error.contains("19.03.15") && error.contains("1.41"), "{error}");
}

#[tokio::test]
async fn an_engine_that_dropped_the_newest_version_known_is_refused() {
    let (endpoint, _) = engine_that(|_| {
        Reply::Json(200, json!({"ApiVersion": "1.99", "MinAPIVersion": "1.90", "Version": "99"}))
    });
    assert!(matches!(Engine::connect(endpoint).await.unwrap_err(), Error::Refused { .. }));
}

#[tokio::test]
async fn every_path_is_pinned_to_the_newest_version_that_both_sides_know() {
    for (theirs, pinned) in [("1.41", "/v1.41/"), ("1.47", "/v1.47/"), ("1.99", "/v1.53/")] {
        let (endpoint, log) = engine_that(move |asked| match asked.path.as_str() {
            "/version" => Reply::Json(200, json!({"ApiVersion": theirs, "Version": "x"})),
            _ => Reply::Json(200, json!([])),
        });
        let engine = Engine::connect(endpoint).await.unwrap();
        engine.configs(Kind::Operation, &[]).await.unwrap();
        engine.services(&[]).await.unwrap();
        let paths: Vec<String> = log.lock().unwrap().iter().map(|a| a.path.clone()).collect();
        assert_eq!(paths, ["/version".to_owned(), format!("{pinned}configs"), format!("{pinned}services")]);
    }
}

#[tokio::test]
async fn lists_of_configs_always_name_a_kind() {
    let (endpoint, log) = engine_that(|asked| match asked.path.as_str() {
        "/v1.41/configs" => Reply::Json(200, json!([config("c1", "skep-op-1")])),
        _ => not_found(),
    });
    let engine = Engine::connect(endpoint).await.unwrap();
    let found = engine.configs(Kind::Operation, &[("skep.op", "1")]).await.unwrap();
    assert_eq!(
        (found[0].name.as_str(), found[0].version, found[0].data.as_slice()),
        ("skep-op-1", 7, &b"xyz"[..])
    );
    let query = log.lock().unwrap().last().unwrap().query.clone();
    assert_eq!(query, r#"filters={"label":["skep.kind=operation","skep.op=1"]}"#);
}

#[tokio::test(start_paused = true)]
async fn a_read_without_an_answer_is_unreachable_after_five_seconds() {
    let engine = client(|a| if a.path == "/version" { not_found() } else { Reply::Silence }).await;
    for bollard in [false, true] {
        let began = Instant::now();
        let error = match bollard {
            false => engine.service("x").await.unwrap_err(),
            true => engine.nodes().await.unwrap_err(),
        };
        assert!(matches!(error, Error::Unreachable { .. }), "{error}");
        assert_eq!(began.elapsed().as_secs(), 5);
    }
}

#[tokio::test(start_paused = true)]
async fn a_write_without_an_answer_is_of_unknown_outcome_after_thirty_seconds() {
    let engine = client(|a| if a.path == "/version" { not_found() } else { Reply::Silence }).await;
    let began = Instant::now();
    let error = engine.create_config("a", &Labels::new(), b"x").await.unwrap_err();
    assert!(matches!(error, Error::Unknown { .. }), "{error}");
    assert_eq!(began.elapsed().as_secs(), 30);
}

#[tokio::test]
async fn a_cut_connection_leaves_a_write_unknown_and_a_read_unreachable() {
    let engine = client(|a| if a.path == "/version" { not_found() } else { Reply::Cut }).await;
    let write = engine.remove_service("x").await.unwrap_err();
    assert!(matches!(write, Error::Unknown { .. }), "{write}");
    let read = engine.service("x").await.unwrap_err();
    assert!(matches!(read, Error::Unreachable { .. }), "{read}");
    let list = engine.networks().await.unwrap_err();
    assert!(matches!(list, Error::Unreachable { .. }), "{list}");
}

#[tokio::test]
async fn an_answer_cut_short_is_no_answer() {
    let version = br#"{"ApiVersion":"1.41","Version":"20.10"}"#;
    let connections = Arc::new(Mutex::new(0));
    let endpoint = Endpoint::in_process(move || {
        let (ours, mut theirs) = duplex(4096);
        let first = {
            let mut count = connections.lock().unwrap();
            *count += 1;
            *count == 1
        };
        tokio::spawn(async move {
            let mut request = [0; 1024];
            let _ = theirs.read(&mut request).await.unwrap();
            let answer = match first {
                true => [b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 39\r\n\r\n", &version[..]]
                    .concat(),
                false => b"HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n[{\"ID\":".to_vec(),
            };
            theirs.write_all(&answer).await.unwrap();
        });
        async move { Ok(ours) }
    });
    let engine = Engine::connect(endpoint).await.unwrap();
    assert!(matches!(engine.services(&[]).await.unwrap_err(), Error::Unreachable { .. }));
    assert!(matches!(engine.nodes().await.unwrap_err(), Error::Unreachable { .. }));
    assert!(matches!(
        engine.create_config("a", &Labels::new(), b"x").await.unwrap_err(),
        Error::Unknown { .. }
    ));
}

#[tokio::test]
async fn a_write_that_cannot_be_sent_had_no_effect() {
    let endpoint = Endpoint::in_process(|| async { Err(std::io::Error::other("no such socket")) });
    let error = Engine::connect(endpoint).await.unwrap_err();
    assert!(
        matches!(&error, Error::Unreachable { message, .. } if message.contains("no such socket")),
        "{error}"
    );

    let up = Arc::new(Mutex::new(true));
    let (inner, _) = engine_that(|_| not_found());
    let Endpoint::InProcess(connect) = inner else { panic!("it is in this process") };
    let is_up = up.clone();
    let endpoint = Endpoint::InProcess(Arc::new(move || match *is_up.lock().unwrap() {
        true => connect(),
        false => Box::pin(async { Err(std::io::Error::other("down")) }),
    }));
    let engine = Engine::connect(endpoint).await.unwrap();
    *up.lock().unwrap() = false;
    let error = engine.create_config("a", &Labels::new(), b"x").await.unwrap_err();
    assert!(matches!(error, Error::Unreachable { .. }), "{error}");
}

#[tokio::test]
async fn a_read_survives_a_connection_that_died_while_idle() {
    let connections = Arc::new(Mutex::new(Vec::new()));
    let opened = connections.clone();
    let (inner, log) =
        engine_that(|a| if a.path == "/version" { not_found() } else { Reply::Json(200, json!([])) });
    let Endpoint::InProcess(connect) = inner else { panic!("it is in this process") };
    let endpoint = Endpoint::in_process(move || {
        let (connect, opened) = (connect.clone(), opened.clone());
        async move {
            // A pump between client and engine that can be killed.
            let mut engine = connect().await?;
            let (ours, mut theirs) = duplex(4096);
            let pump =
                tokio::spawn(async move { tokio::io::copy_bidirectional(&mut theirs, &mut engine).await });
            opened.lock().unwrap().push(pump.abort_handle());
            Ok(ours)
        }
    });
    let engine = Engine::connect(endpoint).await.unwrap();
    engine.services(&[]).await.unwrap();
    assert_eq!(connections.lock().unwrap().len(), 1, "the idle connection is used again");
    connections.lock().unwrap().iter().for_each(tokio::task::AbortHandle::abort);
    engine.services(&[]).await.unwrap();
    assert_eq!(connections.lock().unwrap().len(), 2);
    assert_eq!(log.lock().unwrap().len(), 3);
}

#[tokio::test]
async fn a_closed_fence_lets_no_write_out_and_every_read() {
    let (endpoint, log) = engine_that(|a| match a.path.as_str() {
        "/version" => not_found(),
        _ => Reply::Json(200, json!([])),
    });
    let engine = Engine::connect(endpoint).await.unwrap().with_fence(Fence::leased());
    let labels = Labels::new();
    let writes = [
        engine.create_config("a", &labels, b"x").await.map(drop),
        engine.relabel_config("a", 1, "a", &labels).await,
        engine.remove_config("a").await,
        engine.create_secret("a", &labels, b"x").await.map(drop),
        engine.remove_secret("a").await,
        engine.create_service(&json!({}), RegistryAuth::Anonymous).await.map(drop),
        engine.update_service("a", 1, &json!({})).await,
        engine.remove_service("a").await,
    ];
    for write in writes {
        assert!(matches!(write.unwrap_err(), Error::Fenced { .. }));
    }
    engine.services(&[]).await.unwrap();
    let methods: Vec<String> = log.lock().unwrap().iter().map(|a| a.method.clone()).collect();
    assert_eq!(methods, ["GET", "GET"]);
}

#[tokio::test]
async fn an_object_whose_id_only_begins_with_the_text_is_not_the_one_asked_for() {
    let engine = client(|a| match a.path.as_str() {
        "/v1.41/services/db" => Reply::Json(200, service("dbxyz", "other")),
        "/v1.41/configs/db" => Reply::Json(200, config("dbxyz", "other")),
        _ => not_found(),
    })
    .await;
    assert!(matches!(engine.service("db").await.unwrap_err(), Error::NotFound { .. }));
    assert!(matches!(engine.config("db").await.unwrap_err(), Error::NotFound { .. }));
    assert_eq!(engine.user_config("db").await.unwrap(), None);
}

#[tokio::test]
async fn names_cannot_change_the_path() {
    let (endpoint, log) = engine_that(|_| not_found());
    let engine = Engine::connect(endpoint).await.unwrap();
    engine.service("../configs/x?y=1#z").await.unwrap_err();
    let asked = log.lock().unwrap().last().unwrap().clone();
    assert_eq!(
        (asked.path.as_str(), asked.query.as_str()),
        ("/v1.41/services/..%2Fconfigs%2Fx%3Fy%3D1%23z", "")
    );
}

#[tokio::test]
async fn removing_what_is_gone_is_success() {
    let engine = client(|_| not_found()).await;
    engine.remove_config("a").await.unwrap();
    engine.remove_secret("a").await.unwrap();
    engine.remove_service("a").await.unwrap();
}

#[tokio::test]
async fn labels_are_replaced_under_the_version_and_without_data() {
    let (endpoint, log) = engine_that(|a| match a.path.as_str() {
        "/v1.41/configs/c1/update" => refusal(500, "rpc error: code = Unknown desc = update out of sequence"),
        _ => not_found(),
    });
    let engine = Engine::connect(endpoint).await.unwrap();
    let labels = Labels::from([("a".to_owned(), "b".to_owned())]);
    let error = engine.relabel_config("c1", 7, "name", &labels).await.unwrap_err();
    assert!(matches!(error, Error::Stale { .. }), "{error}");
    let asked = log.lock().unwrap().last().unwrap().clone();
    assert_eq!(asked.query, "version=7");
    assert_eq!(asked.body, json!({"Name": "name", "Labels": {"a": "b"}}));
}

#[tokio::test]
async fn a_service_is_updated_with_its_stored_credentials() {
    let (endpoint, log) = engine_that(|a| {
        if a.path == "/version" { not_found() } else { Reply::Json(200, json!({"Warnings": null})) }
    });
    let engine = Engine::connect(endpoint).await.unwrap();
    engine.update_service("s1", 3, &json!({"Name": "a"})).await.unwrap();
    let asked = log.lock().unwrap().last().unwrap().clone();
    assert_eq!(asked.query, "version=3&registryAuthFrom=spec");
}

#[tokio::test]
async fn tasks_of_a_removed_service_are_none_and_those_of_the_others_are_found() {
    let engine = client(|a| {
        let wanted: Value = serde_json::from_str(a.query.trim_start_matches("filters=")).unwrap_or_default();
        match wanted["service"].as_array().map(Vec::as_slice) {
            Some([one]) if one == "s1" => Reply::Json(200, json!([task("t1", "s1")])),
            _ => not_found(),
        }
    })
    .await;
    let tasks = engine.tasks(&["s1", "gone"]).await.unwrap();
    assert_eq!(tasks.len(), 1);
    assert_eq!(tasks[0].addresses, [("net".to_owned(), "10.0.1.5".to_owned())]);
    assert_eq!(tasks[0].exit_code, None, "a running task has not ended, whatever the engine fills in");
    assert!(engine.tasks(&["gone"]).await.unwrap().is_empty());
    assert!(engine.tasks(&[]).await.unwrap().is_empty());
}

#[tokio::test]
async fn logs_are_standard_output_without_frames() {
    fn frame(stream: u8, text: &str) -> Vec<u8> {
        let mut frame = vec![stream, 0, 0, 0];
        frame.extend_from_slice(&u32::try_from(text.len()).unwrap().to_be_bytes());
        frame.extend_from_slice(text.as_bytes());
        frame
    }
    let long = "x".repeat(16 * 1024);
    let log = [
        frame(1, "one\n"),
        frame(2, "an error\n"),
        frame(1, "a task's last line"),
        frame(1, &long),
        frame(1, "rest of it\n"),
    ]
    .concat();
    let engine = client(move |a| match a.path.as_str() {
        "/v1.41/services/s1/logs" => Reply::Bytes(log.clone()),
        _ => not_found(),
    })
    .await;
    assert_eq!(
        engine.logs("s1").await.unwrap(),
        format!("one\na task's last line\n{}rest of it\n", "x".repeat(16 * 1024))
    );
    assert!(matches!(engine.logs("s2").await.unwrap_err(), Error::NotFound { .. }));
}

#[tokio::test]
async fn events_are_read_until_the_connection_ends() {
    let lines = [
        json!({"Type": "service", "Action": "update", "Actor": {"ID": "s1", "Attributes": {"name": "db"}}, "scope": "swarm", "timeNano": 1}),
        json!({"Type": "config", "Action": "remove", "Actor": {"ID": "c1"}, "scope": "swarm"}),
    ];
    let text: String = lines.iter().map(|l| format!("{l}\n")).collect();
    let (endpoint, log) = engine_that(move |a| match a.path.as_str() {
        "/v1.41/events" => Reply::Bytes(text.clone().into_bytes()),
        _ => not_found(),
    });
    let engine = Engine::connect(endpoint).await.unwrap();
    let events: Vec<_> = engine.events().await.unwrap().map(Result::unwrap).collect().await;
    assert_eq!(log.lock().unwrap().last().unwrap().query, r#"filters={"scope":["swarm"]}"#);
    assert_eq!(
        (events[0].kind, events[0].action, events[0].id.as_str()),
        (EventKind::Service, EventAction::Update, "s1")
    );
    assert_eq!(events[0].name.as_deref(), Some("db"));
    assert_eq!((events[1].kind, events[1].action), (EventKind::Config, EventAction::Remove));
}

#[tokio::test(start_paused = true)]
async fn a_subscription_waits_for_the_engine_to_answer_but_not_for_events() {
    let silent = client(|a| if a.path == "/version" { not_found() } else { Reply::Silence }).await;
    let began = Instant::now();
    assert!(matches!(silent.events().await.map(drop).unwrap_err(), Error::Unreachable { .. }));
    assert_eq!(began.elapsed(), Duration::from_secs(5));

    let refusing = client(|a| match a.path.as_str() {
        "/version" => not_found(),
        _ => refusal(503, "This node is not a swarm manager."),
    })
    .await;
    let error = refusing.events().await.map(drop).unwrap_err().to_string();
    assert!(error.contains("not a swarm manager"), "{error}");
}

#[tokio::test]
async fn a_dropped_subscription_closes_its_connection() {
    let event = json!({"Type": "node", "Action": "update", "Actor": {"ID": "n1"}});
    let (inner, _) = engine_that(move |a| match a.path.as_str() {
        "/v1.41/events" => Reply::Endless(format!("{event}\n").into_bytes()),
        _ => not_found(),
    });
    let Endpoint::InProcess(connect) = inner else { panic!("it is in this process") };
    let pumps = Arc::new(Mutex::new(Vec::new()));
    let opened = pumps.clone();
    let endpoint = Endpoint::in_process(move || {
        let (connect, opened) = (connect.clone(), opened.clone());
        async move {
            let mut engine = connect().await?;
            let (ours, mut theirs) = duplex(4096);
            // Ends when the client has closed its side.
            opened.lock().unwrap().push(tokio::spawn(async move {
                let _ = tokio::io::copy_bidirectional(&mut theirs, &mut engine).await;
            }));
            Ok(ours)
        }
    });
    let engine = Engine::connect(endpoint).await.unwrap();
    let mut events = engine.events().await.unwrap();
    assert_eq!(events.next().await.unwrap().unwrap().kind, EventKind::Node);
    drop(events);
    let pump = pumps.lock().unwrap().pop().unwrap();
    tokio::time::timeout(Duration::from_secs(5), pump).await.expect("the connection is closed").unwrap();
}

#[tokio::test]
async fn every_request_is_counted_and_told_under_a_template() {
    let engine = client(|a| match a.path.as_str() {
        "/v1.41/services/db" => Reply::Json(200, service("s1", "db")),
        _ => not_found(),
    })
    .await;
    let told = Arc::new(Mutex::new(Vec::new()));
    let to = told.clone();
    engine
        .observe_by(Arc::new(move |o| to.lock().unwrap().push((o.method.to_string(), o.template, o.status))));
    engine.service("db").await.unwrap();
    engine.service("absent").await.unwrap_err();
    engine.remove_service("s1").await.unwrap();
    engine.nodes().await.unwrap_err();
    let template = "/services/{id}";
    assert_eq!(
        *told.lock().unwrap(),
        [
            ("GET".to_owned(), template, Some(200)),
            ("GET".to_owned(), template, Some(404)),
            ("DELETE".to_owned(), template, Some(404)),
            ("GET".to_owned(), "/nodes", Some(404)),
        ]
    );
    let calls: Vec<_> = engine.calls().into_iter().map(|((m, t), n)| (m.to_string(), t, n)).collect();
    assert!(calls.contains(&("GET".to_owned(), template, 2)), "{calls:?}");
}
