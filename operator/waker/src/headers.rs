//! What changes in the heads of requests and responses on their way.

use std::net::IpAddr;

use hyper::header::{
    CONNECTION, EXPECT, Entry, HOST, HeaderName, HeaderValue, TE, TRANSFER_ENCODING, UPGRADE,
};
use hyper::http::request::Parts;
use hyper::http::uri::{Authority, Scheme};
use hyper::{HeaderMap, Uri, Version};

/// Says which wakers a request has passed: ids of sleeps, the last one last.
pub(crate) const WAKER: HeaderName = HeaderName::from_static("skep-waker");
/// More wakers than services call each other.
const LONGEST_CHAIN: usize = 8;

const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
/// Of one connection, beside what `Connection` names.
const OF_CONNECTION: [HeaderName; 4] = [
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    CONNECTION,
    TRANSFER_ENCODING,
];

/// Whether a request has passed this waker, or one of the same sleep, or goes round in some other circle. The header
/// alone says nothing: an application that passes its headers on, a proxy for one, may itself have been woken. A door is
/// there for good, and an application may well call itself through it; it never finds itself behind itself.
pub(crate) fn is_circle(headers: &HeaderMap, sleep: &HeaderValue, is_door: bool) -> bool {
    let passed = headers.get_all(WAKER);
    (!is_door && passed.iter().any(|id| id == sleep)) || passed.iter().count() >= LONGEST_CHAIN
}

/// The client, as the nearest proxy tells it, else the other side of the connection.
pub(crate) fn source(headers: &HeaderMap, peer: IpAddr) -> IpAddr {
    let last = headers.get_all(FORWARDED_FOR).iter().next_back().and_then(|v| v.to_str().ok());
    let told = last.and_then(|v| v.rsplit(',').next()).and_then(|v| v.trim().parse().ok());
    told.unwrap_or(peer)
}

/// Whether the client asks for another protocol on this connection.
pub(crate) fn is_upgrade(parts: &Parts) -> bool {
    parts.version == Version::HTTP_11
        && parts.headers.contains_key(UPGRADE)
        && names(&parts.headers, "upgrade")
}

/// Whether `Connection` names this.
fn names(headers: &HeaderMap, name: &str) -> bool {
    let values = headers.get_all(CONNECTION).iter().filter_map(|v| v.to_str().ok());
    values.flat_map(|v| v.split(',')).any(|n| n.trim().eq_ignore_ascii_case(name))
}

/// Makes a request one of the waker's own connections.
pub(crate) fn forward(parts: &mut Parts, peer: IpAddr, service: &str, sleep: &HeaderValue) {
    let upgrade = is_upgrade(parts).then(|| parts.headers.get(UPGRADE).cloned()).flatten();
    let takes_trailers =
        parts.headers.get_all(TE).iter().any(|v| {
            v.to_str().is_ok_and(|v| v.split(',').any(|k| k.trim().eq_ignore_ascii_case("trailers")))
        });
    strip(&mut parts.headers);
    parts.headers.remove(UPGRADE);
    parts.headers.remove("http2-settings");
    // Whoever waited for it has been told to go on when the body was first read.
    parts.headers.remove(EXPECT);
    parts.headers.remove(TE);
    if takes_trailers {
        parts.headers.insert(TE, HeaderValue::from_static("trailers"));
    }
    if let Some(protocol) = upgrade {
        parts.headers.insert(CONNECTION, UPGRADE.into());
        parts.headers.insert(UPGRADE, protocol);
    }
    address(parts, service);
    let chain = match parts.headers.get(FORWARDED_FOR) {
        Some(_) => {
            let all = parts.headers.get_all(FORWARDED_FOR).iter().filter_map(|v| v.to_str().ok());
            format!("{}, {peer}", all.collect::<Vec<_>>().join(", "))
        }
        None => peer.to_string(),
    };
    if let Ok(chain) = HeaderValue::try_from(chain) {
        parts.headers.insert(FORWARDED_FOR, chain);
    }
    if let Entry::Vacant(proto) = parts.headers.entry(FORWARDED_PROTO) {
        proto.insert(HeaderValue::from_static("http"));
    }
    parts.headers.append(WAKER, sleep.clone());
}

/// HTTP/1 has the authority in `Host`, HTTP/2 in the address.
fn address(parts: &mut Parts, service: &str) {
    let told = parts.uri.authority().map(ToString::to_string);
    let path = parts.uri.path_and_query().cloned();
    if parts.version == Version::HTTP_2 {
        let host = parts.headers.get(HOST).and_then(|h| h.to_str().ok()).map(ToOwned::to_owned);
        let authority = told.or(host).and_then(|a| a.parse::<Authority>().ok());
        let mut uri = Uri::builder().scheme(Scheme::HTTP);
        uri = match authority {
            Some(authority) => uri.authority(authority),
            None => uri.authority(service),
        };
        if let Ok(uri) = uri.path_and_query(path.map_or_else(|| "/".to_owned(), |p| p.to_string())).build() {
            parts.uri = uri;
        }
        return;
    }
    parts.version = Version::HTTP_11;
    // An address with a host in it goes before `Host`.
    let host = told.and_then(|a| HeaderValue::try_from(a).ok());
    if let Some(host) = host {
        parts.headers.insert(HOST, host);
    } else if let (Entry::Vacant(host), Ok(name)) =
        (parts.headers.entry(HOST), HeaderValue::from_str(service))
    {
        host.insert(name);
    }
    parts.uri = path.map_or_else(|| Uri::from_static("/"), Uri::from);
}

/// Removes what belongs to one connection.
pub(crate) fn strip(headers: &mut HeaderMap) {
    if headers.contains_key(CONNECTION) {
        let values: Vec<HeaderValue> = headers.get_all(CONNECTION).iter().cloned().collect();
        for name in values.iter().filter_map(|v| v.to_str().ok()).flat_map(|v| v.split(',')) {
            // What else it names is nothing that may be taken away like this.
            if ![&HOST, &WAKER, &FORWARDED_FOR, &FORWARDED_PROTO, &UPGRADE, &TE]
                .iter()
                .any(|kept| name.trim().eq_ignore_ascii_case(kept.as_str()))
            {
                headers.remove(name.trim());
            }
        }
    }
    for name in OF_CONNECTION {
        headers.remove(name);
    }
}

#[cfg(test)]
mod tests {
    use hyper::Request;

    use super::*;

    const PEER: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 9));

    fn sleep() -> HeaderValue {
        HeaderValue::from_static("sleep-1")
    }

    fn forwarded(request: hyper::http::request::Builder) -> Parts {
        let mut parts = request.body(()).unwrap().into_parts().0;
        forward(&mut parts, PEER, "shop_app", &sleep());
        parts
    }

    #[test]
    fn what_belongs_to_a_connection_stays_there() {
        let parts = forwarded(
            Request::get("/a?b=c")
                .header("host", "shop.example")
                .header("connection", "keep-alive, X-Of-This, x-forwarded-for")
                .header("keep-alive", "timeout=5")
                .header("x-of-this", "1")
                .header("te", "gzip, trailers")
                .header("transfer-encoding", "chunked")
                .header("expect", "100-continue")
                .header("upgrade", "websocket")
                .header("x-forwarded-for", "192.0.2.1")
                .header("x-kept", "2"),
        );
        let mut names: Vec<_> = parts.headers.keys().map(HeaderName::as_str).collect();
        names.sort_unstable();
        assert_eq!(names, ["host", "skep-waker", "te", "x-forwarded-for", "x-forwarded-proto", "x-kept"]);
        assert_eq!(parts.headers["te"], "trailers");
        assert_eq!(parts.headers["host"], "shop.example");
        assert_eq!(parts.headers["x-forwarded-for"], "192.0.2.1, 10.0.0.9");
        assert_eq!(parts.headers["x-forwarded-proto"], "http");
        assert_eq!(parts.headers["skep-waker"], "sleep-1");
        assert_eq!(parts.uri, "/a?b=c");
    }

    #[test]
    fn another_protocol_is_asked_for_and_what_was_said_of_the_scheme_is_kept() {
        let parts = forwarded(
            Request::get("/ws")
                .header("connection", "keep-alive, Upgrade")
                .header("upgrade", "websocket")
                .header("x-forwarded-proto", "https"),
        );
        assert_eq!(parts.headers["connection"], "upgrade");
        assert_eq!(parts.headers["upgrade"], "websocket");
        assert_eq!(parts.headers["x-forwarded-proto"], "https");
        assert_eq!(parts.headers["host"], "shop_app");
    }

    #[test]
    fn an_address_with_a_host_goes_before_the_header() {
        let parts = forwarded(Request::get("http://a.example:81/x").header("host", "b.example"));
        assert_eq!(parts.headers["host"], "a.example:81");
        assert_eq!(parts.uri, "/x");
    }

    #[test]
    fn http_2_keeps_its_authority() {
        let parts = forwarded(Request::get("http://a.example/x").version(Version::HTTP_2));
        assert_eq!(parts.uri, "http://a.example/x");
        let parts = forwarded(Request::get("/x").version(Version::HTTP_2).header("host", "b.example"));
        assert_eq!(parts.uri, "http://b.example/x");
    }

    #[test]
    fn a_circle_is_one_of_this_sleep_or_a_long_chain() {
        let mut headers = HeaderMap::new();
        assert!(!is_circle(&headers, &sleep(), false));
        headers.append(WAKER, HeaderValue::from_static("another"));
        assert!(!is_circle(&headers, &sleep(), false));
        headers.append(WAKER, sleep());
        assert!(is_circle(&headers, &sleep(), false));
        assert!(!is_circle(&headers, &sleep(), true), "an application calls itself through its door");
        headers.remove(WAKER);
        for _ in 0..LONGEST_CHAIN {
            headers.append(WAKER, HeaderValue::from_static("another"));
        }
        assert!(is_circle(&headers, &sleep(), false));
    }

    #[test]
    fn the_nearest_proxy_tells_the_source() {
        let mut headers = HeaderMap::new();
        assert_eq!(source(&headers, PEER), PEER);
        headers.append(FORWARDED_FOR, HeaderValue::from_static("192.0.2.1, 192.0.2.2"));
        assert_eq!(source(&headers, PEER).to_string(), "192.0.2.2");
        headers.append(FORWARDED_FOR, HeaderValue::from_static("unknown"));
        assert_eq!(source(&headers, PEER), PEER);
    }
}
