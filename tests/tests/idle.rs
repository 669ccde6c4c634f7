//! Whether a service is used, asked of a real Prometheus.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::time::Duration;

use skep::operation::prometheus::Unknown;
use skep::runtime::clock;
use skep::triggers::idle::{Measure, Question, is_so};
use skep_tests::prometheus::Prometheus;

#[tokio::test]
async fn only_a_value_that_is_zero_all_the_while_is_no_use() {
    let prometheus = Prometheus::start(&[], &[]).await;
    let asked = async |query: &str| {
        let idle = Measure { query: query.to_owned(), after: Duration::from_secs(900) };
        is_so(&prometheus.url(), Question::Unused, &idle).await
    };
    assert!(asked("vector(0)").await.unwrap());
    assert!(!asked("vector(1)").await.unwrap());
    let since = clock::now().as_second() - 300;
    assert!(!asked(&format!("vector(time() < bool {since})")).await.unwrap(), "zero for five minutes only");
    let since = clock::now().as_second() - 1200;
    assert!(asked(&format!("vector(time() < bool {since})")).await.unwrap(), "zero for twenty minutes");
    assert!(!asked("nothing_of_this_name").await.unwrap(), "no value says nothing");
    assert!(!asked("vector(0) or label_replace(vector(2), \"of\", \"other\", \"\", \"\")").await.unwrap());
    let refused = asked("sum(").await.unwrap_err();
    assert!(matches!(refused, Unknown::Refused { status: 400, .. }), "{refused}");
    assert!(refused.to_string().contains("parse error"), "{refused}");
}
