//! The maintenance page as users meet it: a real nginx with the rendered configuration.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use skep::engines::nginx::{HTML_PATH, JSON_PATH, PageText, Reason, Rendered, health_test, render};

const PATIENCE: Duration = Duration::from_secs(20);

fn text() -> PageText {
    PageText {
        reason: Reason::Maintenance,
        title: "Back <soon> & fine".to_owned(),
        message: "We move the \"shop\" to a new house.".to_owned(),
        started: "2026-11-21T13:00:00Z".parse().unwrap(),
        expected_end: Some("2026-11-21T13:30:00Z".parse().unwrap()),
        retry_after: 120,
        operation: "20261121t130000adhoiy".to_owned(),
    }
}

/// An nginx of our own on free ports of the loopback interface.
struct Page {
    nginx: Child,
    directory: PathBuf,
    ports: Vec<u16>,
    rendered: Rendered,
}

impl Page {
    fn start() -> Page {
        let ports = free_ports(2);
        let rendered = render(&text(), &ports);
        Page::serve(ports, rendered)
    }

    fn serve(ports: Vec<u16>, rendered: Rendered) -> Page {
        let directory = std::env::temp_dir().join(format!("skep-nginx-{}-{}", std::process::id(), ports[0]));
        std::fs::create_dir_all(&directory).unwrap();
        // Workers of an nginx that root starts run as nobody.
        std::fs::set_permissions(&directory, PermissionsExt::from_mode(0o755)).unwrap();
        let at = |name: &str| directory.join(name);
        let (html, json) = (at("page.html"), at("page.json"));
        let conf = rendered
            .conf
            .replace(HTML_PATH, html.to_str().unwrap())
            .replace(JSON_PATH, json.to_str().unwrap())
            .replace("/tmp/skep-page", directory.join("state").to_str().unwrap());
        std::fs::write(&html, &rendered.html).unwrap();
        std::fs::write(&json, &rendered.json).unwrap();
        std::fs::write(at("nginx.conf"), conf).unwrap();
        let nginx = Command::new(skep_tests::debian::program("nginx", "usr/sbin/nginx"))
            .args(["-e", "stderr", "-g", "daemon off;", "-c"])
            .arg(at("nginx.conf"))
            .stdin(Stdio::null())
            .stderr(std::fs::File::create(at("log")).unwrap())
            .spawn()
            .unwrap();
        let page = Page { nginx, directory, ports, rendered };
        let deadline = Instant::now() + PATIENCE;
        while page.ports.iter().any(|port| TcpStream::connect((Ipv4Addr::LOCALHOST, *port)).is_err()) {
            assert!(Instant::now() < deadline, "nginx does not listen: {}", page.log());
            std::thread::yield_now();
        }
        page
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.directory.join("log")).unwrap_or_default()
    }

    fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, self.ports[0])).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        stream
    }

    /// Sends raw bytes and reads until the server closes.
    fn ask(&self, request: impl AsRef<[u8]>) -> Answer {
        let mut stream = self.connect();
        stream.write_all(request.as_ref()).unwrap();
        Answer::read(stream)
    }

    fn get(&self, headers: &str) -> Answer {
        self.ask(format!("GET /some/path?x=1 HTTP/1.1\r\nHost: shop.example.org\r\n{headers}\r\n"))
    }
}

impl Drop for Page {
    fn drop(&mut self) {
        // The master ends its workers; a kill would leave them.
        let _ = Command::new("kill").arg(self.nginx.id().to_string()).status();
        let _ = self.nginx.wait();
        if !std::thread::panicking() {
            let _ = std::fs::remove_dir_all(&self.directory);
        }
    }
}

struct Answer {
    status: u16,
    headers: Vec<(String, String)>,
    body: String,
}

impl Answer {
    fn read(mut stream: TcpStream) -> Answer {
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes).expect("the server answers and closes, and does not reset");
        let text = String::from_utf8(bytes).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no answer in {text:?}"));
        let mut lines = head.lines();
        let status = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
        let headers = lines
            .map(|l| l.split_once(": ").unwrap())
            .map(|(n, v)| (n.to_lowercase(), v.to_owned()))
            .collect();
        Answer { status, headers, body: body.to_owned() }
    }

    fn header(&self, name: &str) -> &str {
        let values: Vec<&str> =
            self.headers.iter().filter(|(n, _)| n == name).map(|(_, v)| v.as_str()).collect();
        assert_eq!(values.len(), 1, "{name} stands once in {:?}", self.headers);
        values[0]
    }

    #[track_caller]
    fn is_the_page(&self) {
        assert_eq!(self.status, 503);
        assert_eq!(self.header("retry-after"), "120");
        assert_eq!(self.header("cache-control"), "no-store");
        assert_eq!(self.header("x-skep-page"), "1");
        assert_eq!(self.header("vary"), "Accept");
        assert_eq!(self.header("connection"), "close");
    }
}

/// Runs the container's health check with nothing but one directory to find programs in.
fn is_healthy(ports: &[u16], pid: &Path, path: &str) -> bool {
    let test = health_test(ports);
    assert_eq!(test[0], "CMD-SHELL");
    let script = test[1].replace("/tmp/skep-page.pid", pid.to_str().unwrap());
    let mut shell = Command::new("/bin/sh");
    shell.arg("-c").arg(script).env("PATH", path).stderr(Stdio::null());
    shell.status().unwrap().success()
}

fn free_ports(count: usize) -> Vec<u16> {
    let open: Vec<_> = (0..count).map(|_| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap()).collect();
    open.iter().map(|listener| listener.local_addr().unwrap().port()).collect()
}

#[test]
fn every_method_and_path_gets_the_page() {
    let page = Page::start();
    for method in ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "PROPFIND", "FROBNICATE"] {
        for path in [
            "/",
            "/index.html",
            "/a/../b",
            "/%00",
            "//x",
            "/__skep/page.html",
            "/__skep/page.json",
            "/__skep/x",
        ] {
            let answer =
                page.ask(format!("{method} {path} HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n"));
            answer.is_the_page();
            assert_eq!(answer.body, page.rendered.html, "{method} {path}");
            assert_eq!(answer.header("content-type"), "text/html; charset=utf-8");
        }
    }
}

#[test]
fn head_gets_the_headers_alone() {
    let page = Page::start();
    let answer = page.ask("HEAD / HTTP/1.1\r\nHost: x\r\n\r\n");
    answer.is_the_page();
    assert_eq!(answer.header("content-length"), page.rendered.html.len().to_string());
    assert_eq!(answer.body, "");
}

#[test]
fn json_is_for_those_who_ask_for_it() {
    let page = Page::start();
    let formats = [
        ("", "html"),
        ("Accept: */*\r\n", "html"),
        ("Accept: text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8\r\n", "html"),
        ("Accept: text/html, application/json;q=0.5\r\n", "html"),
        ("Accept: image/avif,image/webp,*/*\r\n", "html"),
        ("Accept: application/json\r\n", "json"),
        ("Accept: Application/JSON; charset=utf-8\r\n", "json"),
        ("Accept: application/json, text/plain, */*\r\n", "json"),
        ("Accept: application/json, text/html;q=0.5\r\n", "json"),
        ("Accept: application/problem+json\r\n", "json"),
        ("Accept: text/plain, application/vnd.api+json\r\n", "json"),
    ];
    for (accept, format) in formats {
        let answer = page.get(accept);
        answer.is_the_page();
        let (kind, body) = match format {
            "json" => ("application/json", &page.rendered.json),
            _ => ("text/html; charset=utf-8", &page.rendered.html),
        };
        assert_eq!((answer.header("content-type"), &answer.body), (kind, body), "{accept}");
    }
    let json: Value = serde_json::from_str(&page.rendered.json).unwrap();
    assert_eq!(json["title"], "Back <soon> & fine");
    assert_eq!(json["status"], 503);
    assert_eq!(json["expected_end"], "2026-11-21T13:30:00Z");
    assert!(page.rendered.html.contains("<h1>Back &lt;soon&gt; &amp; fine</h1>"));
}

#[test]
fn both_ports_answer_and_a_connection_carries_one_answer() {
    let page = Page::start();
    for port in &page.ports {
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, *port)).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.write_all(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: keep-alive\r\n\r\n").unwrap();
        Answer::read(stream).is_the_page();
    }
}

#[test]
fn an_upload_is_read_to_its_end_and_gets_the_page() {
    let page = Page::start();
    // More than every buffer on the way, and many times the default limit of 1 MiB.
    let body = vec![b'x'; 32 << 20];
    let mut request =
        format!("POST /upload HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n", body.len()).into_bytes();
    request.extend(&body);
    page.ask(&request).is_the_page();

    let mut chunked = b"PUT /upload HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec();
    for chunk in body.chunks(1 << 20) {
        chunked.extend(format!("{:x}\r\n", chunk.len()).bytes());
        chunked.extend(chunk);
        chunked.extend(b"\r\n");
    }
    chunked.extend(b"0\r\n\r\n");
    page.ask(&chunked).is_the_page();
}

#[test]
fn one_who_asks_before_uploading_is_answered_at_once() {
    let page = Page::start();
    let mut stream = page.connect();
    let head = "POST /upload HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\nExpect: 100-continue\r\n\r\n";
    stream.write_all(head.as_bytes()).unwrap();
    let mut first = [0; 12];
    stream.read_exact(&mut first).unwrap();
    assert_eq!(&first, b"HTTP/1.1 503");
}

#[test]
fn what_a_server_would_reject_by_itself_gets_the_page_too() {
    let page = Page::start();
    let long = "x".repeat(100_000);
    for request in [
        format!("GET /{long} HTTP/1.1\r\nHost: x\r\n\r\n"),
        format!("GET / HTTP/1.1\r\nHost: x\r\nCookie: {long}\r\n\r\n"),
        "GET / HTTP/1.1\r\n\r\n".to_owned(),
        "GET / HTTP/1.1\r\nHost: a b\r\n\r\n".to_owned(),
        "GET /../../etc/passwd HTTP/1.1\r\nHost: x\r\n\r\n".to_owned(),
        "CONNECT x:443 HTTP/1.1\r\nHost: x:443\r\n\r\n".to_owned(),
        "GET / HTTP/1.0\r\n\r\n".to_owned(),
        "GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\n".to_owned(),
        "GET / HTTP/1.1\r\nHost: x\r\nRange: bytes=0-1\r\nIf-Modified-Since: Sat, 21 Nov 2099 13:00:00 GMT\r\n\r\n".to_owned(),
        "GET / HTTP/1.1\r\nHost: x\r\nIf-Match: \"x\"\r\nIf-None-Match: *\r\n\r\n".to_owned(),
    ] {
        let answer = page.ask(&request);
        answer.is_the_page();
        assert_eq!(answer.body, page.rendered.html, "{}", &request[..request.len().min(80)]);
    }
}

#[test]
fn the_health_check_of_the_container_is_not_for_users() {
    let page = Page::start();
    let request = "GET /__skep/healthy HTTP/1.1\r\nHost: x\r\n\r\n";
    assert_eq!(page.ask(request).status, 200);
    // Another address of the loopback network is not 127.0.0.1.
    let socket =
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
            let socket = tokio::net::TcpSocket::new_v4().unwrap();
            socket.bind(SocketAddr::from(([127, 0, 0, 2], 0))).unwrap();
            socket
                .connect(SocketAddr::from(([127, 0, 0, 1], page.ports[0])))
                .await
                .unwrap()
                .into_std()
                .unwrap()
        });
    socket.set_nonblocking(false).unwrap();
    (&socket).write_all(request.as_bytes()).unwrap();
    Answer::read(socket).is_the_page();
}

#[test]
fn the_health_check_works_with_curl_with_wget_and_with_neither() {
    let page = Page::start();
    let tools = std::env::temp_dir().join(format!("skep-tools-{}", std::process::id()));
    let only = |name: &str| {
        let directory = tools.join(name);
        std::fs::create_dir_all(&directory).unwrap();
        let program = ["/usr/bin", "/bin"].map(|d| Path::new(d).join(name)).into_iter().find(|p| p.exists());
        let program = program.unwrap_or_else(|| panic!("{name} is needed for this test"));
        std::os::unix::fs::symlink(program, directory.join(name)).unwrap();
        directory.to_str().unwrap().to_owned()
    };
    let paths = ["curl", "wget", "cat"].map(only);
    let (ports, pid) = (page.ports.clone(), page.directory.join("state.pid"));
    for path in &paths {
        assert!(is_healthy(&ports, &pid, path), "{path}");
        let with_a_silent_port = [&ports[..], &free_ports(1)].concat();
        assert!(path.ends_with("cat") || !is_healthy(&with_a_silent_port, &pid, path), "{path}");
    }
    drop(page);
    for path in &paths {
        assert!(!is_healthy(&ports, &pid, path), "{path}");
    }
    std::fs::remove_dir_all(&tools).unwrap();
}

#[test]
fn a_page_of_the_users_own_takes_the_place_of_ours() {
    let ports = free_ports(1);
    let mut rendered = render(&text(), &ports);
    rendered.html = "<h1>Ours: $http_host {{ x }} ü</h1>".to_owned();
    let page = Page::serve(ports, rendered);
    let answer = page.get("");
    answer.is_the_page();
    assert_eq!(answer.body, "<h1>Ours: $http_host {{ x }} ü</h1>");
}
