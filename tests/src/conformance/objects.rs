//! Configs and secrets as a store with compare-and-swap.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::{Rig, version_of};

super::facts![
    a_config_reads_back_with_its_data,
    a_secret_never_shows_its_data,
    an_existing_name_is_a_conflict,
    a_version_that_is_not_the_current_one_is_out_of_sequence,
    an_update_needs_a_version,
    nothing_but_labels_may_change,
    a_label_update_keeps_the_data_and_takes_a_new_version,
    an_identical_spec_takes_a_new_version_too,
    all_kinds_of_objects_share_one_growing_version,
    of_two_writers_with_one_version_one_wins,
    the_beginning_of_an_id_is_enough,
    lists_filter_by_labels_and_by_the_beginning_of_names,
    an_unknown_filter_is_refused,
    secrets_alone_filter_by_whole_names,
    data_has_a_least_and_a_largest_size,
    a_label_may_be_large_but_not_larger_than_an_entry_of_the_log,
    names_have_a_longest_length_and_an_alphabet,
    what_is_deleted_is_not_found,
];

fn update(rig: &Rig, kind: &str, part: &str, version: u64) -> String {
    format!("/{kind}/{}/update?version={version}", rig.name(part))
}

async fn read(rig: &Rig, kind: &str, part: &str) -> Value {
    rig.get(&format!("/{kind}/{}", rig.name(part))).await
}

async fn a_config_reads_back_with_its_data(rig: Rig) {
    let id = rig.store("configs", "c", "hello", &[("a", "1")]).await;
    let config = read(&rig, "configs", "c").await;
    assert_eq!(config["ID"], json!(id));
    assert_eq!(config["Spec"]["Data"], json!(STANDARD.encode("hello")));
    assert_eq!(config["Spec"]["Labels"], rig.labels(&[("a", "1")]));
    assert_eq!(config["CreatedAt"], config["UpdatedAt"]);
    assert_eq!(rig.get(&format!("/configs/{id}")).await, config, "by id as by name");
    let listed = rig.list("/configs", &json!({ "name": [rig.name("c")] })).await.json();
    assert_eq!(listed, json!([config]), "lists carry the data");
}

async fn a_secret_never_shows_its_data(rig: Rig) {
    rig.store("secrets", "s", "hush", &[]).await;
    let secret = read(&rig, "secrets", "s").await;
    assert_eq!(secret["Spec"].get("Data"), None);
    let version = version_of(&secret);
    let spec = json!({ "Name": rig.name("s"), "Labels": rig.labels(&[("x", "y")]) });
    assert_eq!(rig.post(&update(&rig, "secrets", "s", version), &spec).await.status, 200);
    let stale = rig.post(&update(&rig, "secrets", "s", version), &spec).await;
    assert_eq!(stale.message(), "rpc error: code = Unknown desc = update out of sequence");
    assert_eq!(read(&rig, "secrets", "s").await["Spec"]["Labels"]["x"], "y");
}

async fn an_existing_name_is_a_conflict(rig: Rig) {
    for (kind, word) in [("configs", "config"), ("secrets", "secret")] {
        rig.store(kind, "twice", "x", &[]).await;
        let body = json!({ "Name": rig.name("twice"), "Data": STANDARD.encode("y") });
        let reply = rig.post(&format!("/{kind}/create"), &body).await;
        let name = rig.name("twice");
        let text = format!("rpc error: code = AlreadyExists desc = {word} {name} already exists");
        assert_eq!((reply.status, reply.message()), (409, text));
    }
}

async fn a_version_that_is_not_the_current_one_is_out_of_sequence(rig: Rig) {
    rig.store("configs", "c", "x", &[]).await;
    let version = version_of(&read(&rig, "configs", "c").await);
    let spec = json!({ "Name": rig.name("c"), "Labels": rig.labels(&[]) });
    for wrong in [version - 1, version + 1_000_000] {
        let reply = rig.post(&update(&rig, "configs", "c", wrong), &spec).await;
        let text = "rpc error: code = Unknown desc = update out of sequence";
        assert_eq!((reply.status, reply.message().as_str()), (500, text));
    }
    assert_eq!(version_of(&read(&rig, "configs", "c").await), version);
}

async fn an_update_needs_a_version(rig: Rig) {
    rig.store("configs", "c", "x", &[]).await;
    let spec = json!({ "Name": rig.name("c"), "Labels": {} });
    let reply = rig.post(&format!("/configs/{}/update", rig.name("c")), &spec).await;
    assert_eq!((reply.status, reply.message().as_str()), (400, "invalid config version"));
}

async fn nothing_but_labels_may_change(rig: Rig) {
    rig.store("configs", "c", "x", &[]).await;
    let version = version_of(&read(&rig, "configs", "c").await);
    let other_data = json!({ "Name": rig.name("c"), "Data": STANDARD.encode("y") });
    let other_name = json!({ "Name": rig.name("d") });
    for (version, spec) in [(version, &other_data), (version, &other_name), (1, &other_data)] {
        let reply = rig.post(&update(&rig, "configs", "c", version), spec).await;
        let text = "rpc error: code = InvalidArgument desc = only updates to Labels are allowed";
        assert_eq!((reply.status, reply.message().as_str()), (400, text));
    }
}

async fn a_label_update_keeps_the_data_and_takes_a_new_version(rig: Rig) {
    rig.store("configs", "c", "keep", &[("old", "1")]).await;
    let before = read(&rig, "configs", "c").await;
    let spec = json!({ "Name": rig.name("c"), "Labels": rig.labels(&[("new", "2")]) });
    let reply = rig.post(&update(&rig, "configs", "c", version_of(&before)), &spec).await;
    assert_eq!((reply.status, reply.body.len()), (200, 0));
    let after = read(&rig, "configs", "c").await;
    assert_eq!(after["Spec"]["Data"], before["Spec"]["Data"]);
    assert_eq!(after["Spec"]["Labels"], rig.labels(&[("new", "2")]), "all labels are replaced");
    assert_eq!(after["CreatedAt"], before["CreatedAt"]);
    assert!(version_of(&after) > version_of(&before));
}

async fn an_identical_spec_takes_a_new_version_too(rig: Rig) {
    rig.store("configs", "c", "x", &[]).await;
    let before = read(&rig, "configs", "c").await;
    let reply = rig.post(&update(&rig, "configs", "c", version_of(&before)), &before["Spec"]).await;
    assert_eq!(reply.status, 200);
    assert!(version_of(&read(&rig, "configs", "c").await) > version_of(&before));
}

async fn all_kinds_of_objects_share_one_growing_version(rig: Rig) {
    let mut versions = Vec::new();
    rig.store("configs", "c", "x", &[]).await;
    versions.push(version_of(&read(&rig, "configs", "c").await));
    rig.store("secrets", "s", "x", &[]).await;
    versions.push(version_of(&read(&rig, "secrets", "s").await));
    let mut spec = rig.spec("web", &["serve"]);
    spec["Mode"] = json!({ "Replicated": { "Replicas": 0 } });
    rig.create(&spec).await;
    versions.push(version_of(&rig.service("web").await));
    let config = read(&rig, "configs", "c").await;
    rig.post(&update(&rig, "configs", "c", versions[0]), &config["Spec"]).await;
    versions.push(version_of(&read(&rig, "configs", "c").await));
    assert!(versions.is_sorted() && versions.windows(2).all(|w| w[0] < w[1]), "{versions:?}");
}

async fn the_beginning_of_an_id_is_enough(rig: Rig) {
    let id = rig.store("configs", "c", "x", &[]).await;
    assert_eq!(rig.get(&format!("/configs/{}", &id[..12])).await["ID"], json!(id));
    let secret = rig.store("secrets", "s", "x", &[]).await;
    assert_eq!(rig.get(&format!("/secrets/{}", &secret[..12])).await["ID"], json!(secret));
    let mut spec = rig.spec("web", &["serve"]);
    spec["Mode"] = json!({ "Replicated": { "Replicas": 0 } });
    let service = rig.create(&spec).await;
    assert_eq!(rig.get(&format!("/services/{}", &service[..12])).await["ID"], json!(service));
}

async fn of_two_writers_with_one_version_one_wins(rig: Rig) {
    rig.store("configs", "c", "x", &[]).await;
    for round in 0..5 {
        let version = version_of(&read(&rig, "configs", "c").await);
        let path = update(&rig, "configs", "c", version);
        let spec = |who: &str| json!({ "Name": rig.name("c"), "Labels": rig.labels(&[("won", who)]) });
        let (one, two) = (spec("one"), spec("two"));
        let (first, second) = tokio::join!(rig.post(&path, &one), rig.post(&path, &two));
        let mut answers = [first.status, second.status];
        answers.sort_unstable();
        assert_eq!(answers, [200, 500], "round {round}");
        let winner = if first.status == 200 { "one" } else { "two" };
        assert_eq!(read(&rig, "configs", "c").await["Spec"]["Labels"]["won"], winner);
    }
}

async fn lists_filter_by_labels_and_by_the_beginning_of_names(rig: Rig) {
    rig.store("configs", "pa-1", "x", &[("kind", "a"), ("extra", "")]).await;
    rig.store("configs", "pa-2", "x", &[("kind", "b")]).await;
    rig.store("configs", "pb-1", "x", &[("kind", "a")]).await;
    let mine = format!("{}={}", super::LABEL, rig.prefix);
    let found = async |filters: Value| {
        let listed = rig.list("/configs", &filters).await.json();
        let names = listed.as_array().into_iter().flatten().filter_map(|c| c["Spec"]["Name"].as_str());
        let mut names: Vec<String> =
            names.filter_map(|n| n.strip_prefix(&rig.name(""))).map(str::to_owned).collect();
        names.sort();
        names
    };
    assert_eq!(found(json!({ "name": [rig.name("pa-")] })).await, ["pa-1", "pa-2"]);
    assert_eq!(found(json!({ "label": [&mine, "kind=a"] })).await, ["pa-1", "pb-1"]);
    assert_eq!(found(json!({ "label": [&mine, "kind"] })).await, ["pa-1", "pa-2", "pb-1"]);
    assert_eq!(found(json!({ "label": [&mine, "kind=a", "extra"] })).await, ["pa-1"]);
    assert_eq!(found(json!({ "label": [&mine, "kind=a"], "name": [rig.name("pb")] })).await, ["pb-1"]);
    assert_eq!(found(json!({ "label": [&mine, "other"] })).await, Vec::<String>::new());
    assert_eq!(found(json!({ "label": { mine: true } })).await.len(), 3, "the older form of filters");
}

async fn an_unknown_filter_is_refused(rig: Rig) {
    for path in ["/configs", "/services", "/tasks"] {
        let reply = rig.list(path, &json!({ "names": ["x"] })).await;
        // Engines differ in the case of the first letter.
        let told = reply.message().to_lowercase();
        assert_eq!((reply.status, told.as_str()), (400, "invalid filter 'names'"), "{path}");
    }
}

async fn secrets_alone_filter_by_whole_names(rig: Rig) {
    rig.store("secrets", "s", "x", &[]).await;
    rig.store("secrets", "s-2", "x", &[]).await;
    let listed = rig.list("/secrets", &json!({ "names": [rig.name("s")] })).await.json();
    assert_eq!(listed.as_array().map_or(0, Vec::len), 1);
    assert_eq!(listed[0]["Spec"]["Name"], json!(rig.name("s")));
}

async fn data_has_a_least_and_a_largest_size(rig: Rig) {
    for (kind, word, limit) in [("configs", "config", 1_024_000), ("secrets", "secret", 512_000)] {
        let size = async |part: &str, size: usize| {
            let data = STANDARD.encode(vec![b'x'; size]);
            let body = json!({ "Name": rig.name(part), "Data": data, "Labels": rig.labels(&[]) });
            rig.post(&format!("/{kind}/create"), &body).await
        };
        let text = format!(
            "rpc error: code = InvalidArgument desc = {word} data must be larger than 0 and less than {limit} bytes"
        );
        for refused in [0, limit] {
            let reply = size("refused", refused).await;
            assert_eq!((reply.status, reply.message()), (400, text.clone()), "{refused} bytes");
        }
        assert_eq!(size("largest", limit - 1).await.status, 201);
        assert_eq!(size("least", 1).await.status, 201);
    }
}

async fn a_label_may_be_large_but_not_larger_than_an_entry_of_the_log(rig: Rig) {
    rig.store("configs", "c", "x", &[]).await;
    let write = async |size: usize| {
        let version = version_of(&read(&rig, "configs", "c").await);
        let labels = rig.labels(&[("large", &"x".repeat(size))]);
        let spec = json!({ "Name": rig.name("c"), "Labels": labels });
        rig.post(&update(&rig, "configs", "c", version), &spec).await
    };
    assert_eq!(write(1_400_000).await.status, 200);
    let reply = write(1_700_000).await;
    assert_eq!(reply.status, 500);
    assert!(reply.message().contains("raft message is too large"), "{}", reply.message());
}

async fn names_have_a_longest_length_and_an_alphabet(rig: Rig) {
    let create = async |name: String| {
        let body = json!({ "Name": name, "Data": "eA==", "Labels": rig.labels(&[]) });
        rig.post("/configs/create", &body).await
    };
    let pad = |length: usize| format!("{:x<length$}", rig.name("long"));
    assert_eq!(create(pad(64)).await.status, 201);
    for wrong in [pad(65), rig.name("a/b"), rig.name("a b"), rig.name("a-"), rig.name("a:b")] {
        let reply = create(wrong.clone()).await;
        assert_eq!(reply.status, 400, "{wrong}");
        assert!(reply.message().contains("invalid name, only 64"), "{}", reply.message());
    }
    assert_eq!(create(rig.name("a.b_c-D9")).await.status, 201);
    let reply = create(String::new()).await;
    assert_eq!(reply.message(), "rpc error: code = InvalidArgument desc = name must be provided");
}

async fn what_is_deleted_is_not_found(rig: Rig) {
    for (kind, word) in [("configs", "config"), ("secrets", "secret")] {
        rig.store(kind, "gone", "x", &[]).await;
        let path = format!("/{kind}/{}", rig.name("gone"));
        assert_eq!(rig.delete(&path).await.status, 204);
        let text = format!("{word} {} not found", rig.name("gone"));
        let spec = json!({ "Name": rig.name("gone") });
        for reply in [
            rig.call("GET", &path, None).await,
            rig.delete(&path).await,
            rig.post(&update(&rig, kind, "gone", 1), &spec).await,
        ] {
            assert_eq!((reply.status, reply.message()), (404, text.clone()));
        }
    }
}
