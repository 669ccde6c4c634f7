//! Versions and paths.

use super::Rig;

super::facts![
    the_api_version_is_told_by_a_ping,
    paths_may_leave_the_version_out,
    a_version_that_is_too_new_is_refused,
    an_unknown_path_is_not_found,
];

async fn the_api_version_is_told_by_a_ping(rig: Rig) {
    let reply = rig.call("GET", "/_ping", None).await;
    assert_eq!((reply.status, &reply.body[..]), (200, &b"OK"[..]));
    let version = reply.api_version.expect("the header is there");
    let minor: u32 = version.strip_prefix("1.").and_then(|m| m.parse().ok()).expect("1.x");
    assert!(minor >= 41, "{version}");
}

async fn paths_may_leave_the_version_out(rig: Rig) {
    let reply = rig.raw.under("").call("GET", "/services", None).await.expect("the engine answers");
    assert_eq!(reply.status, 200);
}

async fn a_version_that_is_too_new_is_refused(rig: Rig) {
    let reply = rig.raw.under("/v1.99").call("GET", "/services", None).await.expect("the engine answers");
    assert_eq!(reply.status, 400);
    assert!(reply.message().contains("too new"), "{}", reply.message());
}

async fn an_unknown_path_is_not_found(rig: Rig) {
    let reply = rig.call("GET", "/nothing", None).await;
    assert_eq!((reply.status, reply.message().as_str()), (404, "page not found"));
}
