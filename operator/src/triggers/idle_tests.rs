//! Against a listener on loopback.

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use super::*;

fn idle() -> Measure {
    Measure { query: "sum(rate(x[1m])) + 0".to_owned(), after: Duration::from_secs(900) }
}

/// Answers one question; the address, and what was asked.
async fn prometheus(status: u16, answer: Value) -> (String, tokio::task::JoinHandle<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/prefix/", listener.local_addr().unwrap());
    let asked = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut asked = vec![0; 4096];
        let read = stream.read(&mut asked).await.unwrap();
        let body = answer.to_string();
        let head = format!("HTTP/1.1 {status} X\r\ncontent-length: {}\r\n\r\n", body.len());
        stream.write_all(format!("{head}{body}").as_bytes()).await.unwrap();
        String::from_utf8(asked[..read].to_vec()).unwrap()
    });
    (url, asked)
}

fn vector(values: &[&str]) -> Value {
    let samples: Vec<Value> = values.iter().map(|v| json!({"metric": {}, "value": [1.5, v]})).collect();
    json!({"status": "success", "data": {"resultType": "vector", "result": samples}})
}

#[tokio::test]
async fn only_what_was_zero_all_the_while_is_unused() {
    for (values, unused) in [
        (&["0"][..], true),
        (&["0", "0.0"], true),
        (&["0", "0.2"], false),
        (&["NaN"], false),
        (&["-1"], false),
        (&[], false),
    ] {
        let (url, asked) = prometheus(200, vector(values)).await;
        assert_eq!(is_so(&url, Question::Unused, &idle()).await.unwrap(), unused, "{values:?}");
        let asked = asked.await.unwrap();
        assert!(asked.starts_with("POST /prefix/api/v1/query HTTP/1.1"), "{asked}");
    }
}

#[tokio::test]
async fn what_cannot_be_asked_is_said() {
    let (url, _) =
        prometheus(400, json!({"status": "error", "error": "parse error: no", "errorType": "bad_data"}))
            .await;
    let said = is_so(&url, Question::Unused, &idle()).await.unwrap_err().to_string();
    assert_eq!(said, "status 400: parse error: no");
    let (url, _) = prometheus(200, json!({"data": {"resultType": "scalar", "result": [1, "0"]}})).await;
    assert!(is_so(&url, Question::Unused, &idle()).await.is_err());
    assert!(matches!(is_so("https://prometheus", Question::Unused, &idle()).await, Err(Unknown::Address(_))));
    assert!(matches!(is_so("http://127.0.0.1:1", Question::Unused, &idle()).await, Err(Unknown::Connect(_))));
}

#[test]
fn the_question_is_about_all_of_the_time() {
    assert_eq!(Question::Unused.query(&idle()), "max_over_time((sum(rate(x[1m])) + 0)[900s:45s])");
    assert_eq!(Question::Used.query(&idle()), "max_over_time((sum(rate(x[1m])) + 0)[20s:5s])");
}

#[tokio::test]
async fn only_what_is_above_zero_is_used() {
    for (values, used) in
        [(&["0"][..], false), (&["0", "0.2"], true), (&["NaN"], false), (&["-1"], false), (&[], false)]
    {
        let (url, _) = prometheus(200, vector(values)).await;
        assert_eq!(is_so(&url, Question::Used, &idle()).await.unwrap(), used, "{values:?}");
    }
}
