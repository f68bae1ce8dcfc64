// SPDX-License-Identifier: GPL-2.0-only

//! Which requests are answered, and with what.

use tungstenite::handshake::machine::TryParse;
use tungstenite::handshake::server::{create_response, write_response, Request};
use tungstenite::http::header::{CONTENT_LENGTH, HOST, ORIGIN, TRANSFER_ENCODING};

/// The longest head of a request.
pub const LONGEST_HEAD: usize = 8 << 10;

/// What a request gets.
#[derive(Debug, PartialEq, Eq)]
pub enum Answer {
    /// The request is not complete.
    Wait,
    /// This, and then the end of the connection.
    Response(Vec<u8>),
    /// This, and then messages; the request had so many bytes.
    Messages(Vec<u8>, usize),
}

/// The page may load what comes from here, and nothing else.
const HEADERS: &str = "Connection: close\r\n\
    Cache-Control: no-store\r\n\
    Content-Security-Policy: default-src 'none'; script-src 'self'; style-src 'self'; \
    connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'\r\n\
    Cross-Origin-Resource-Policy: same-origin\r\n\
    Referrer-Policy: no-referrer\r\n\
    X-Content-Type-Options: nosniff\r\n";

fn response(status: &str, content: &str, body: &str) -> Vec<u8> {
    let length = body.len();
    format!(
        "HTTP/1.1 {status}\r\n{HEADERS}Content-Type: {content}; charset=utf-8\r\n\
         Content-Length: {length}\r\n\r\n{body}"
    )
    .into_bytes()
}

/// A response that refuses, with its status as the text.
pub fn refusal(status: &str) -> Vec<u8> {
    response(status, "text/plain", &format!("{status}\n"))
}

/// Answers the request that `bytes` start with.
pub fn answer(bytes: &[u8], token: &str) -> Answer {
    let refuse = |status| Answer::Response(refusal(status));
    let (length, request) = match Request::try_parse(bytes) {
        Ok(Some((length, _))) if length > LONGEST_HEAD => {
            return refuse("431 Request Header Fields Too Large")
        }
        Ok(Some(parsed)) => parsed,
        Ok(None) if bytes.len() > LONGEST_HEAD => {
            return refuse("431 Request Header Fields Too Large")
        }
        Ok(None) => return Answer::Wait,
        Err(_) => return refuse("400 Bad Request"),
    };
    let header = |name| {
        let mut values = request.headers().get_all(name).into_iter();
        let value = values.next().and_then(|it| it.to_str().ok());
        value.filter(|_| values.next().is_none())
    };

    // A page of another site that has its name resolve to 127.0.0.1 has that name here.
    let Some(host) = header(HOST).filter(|it| is_local(it)) else {
        return refuse("403 Forbidden");
    };
    let foreign = request.headers().contains_key(ORIGIN)
        && header(ORIGIN).and_then(|it| it.strip_prefix("http://")) != Some(host);
    let path = request.uri().path().strip_prefix('/').unwrap_or_default();
    let (given, file) = path.split_once('/').unwrap_or((path, "-"));
    if foreign || !same(given, token) {
        return refuse("403 Forbidden");
    }
    let body = request.headers().get(CONTENT_LENGTH);
    if body.is_some_and(|it| it != "0") || request.headers().contains_key(TRANSFER_ENCODING) {
        return refuse("413 Content Too Large");
    }
    let (content, body) = match file {
        "" => ("text/html", include_str!("static/index.html")),
        "board.css" => ("text/css", include_str!("static/board.css")),
        "board.js" => ("text/javascript", include_str!("static/board.js")),
        // Browsers always send an origin with this.
        "messages" if header(ORIGIN).is_none() => return refuse("403 Forbidden"),
        "messages" => {
            let mut bytes = Vec::new();
            let accepted = create_response(&request).and_then(|it| write_response(&mut bytes, &it));
            return match accepted {
                Ok(()) => Answer::Messages(bytes, length),
                Err(_) => refuse("400 Bad Request"),
            };
        }
        _ => return refuse("404 Not Found"),
    };
    Answer::Response(response("200 OK", content, body))
}

/// Whether a `Host` header means this machine; its port may be that of a tunnel.
fn is_local(host: &str) -> bool {
    let (name, port) = host.split_once(':').unwrap_or((host, "80"));
    ["127.0.0.1", "localhost"].contains(&name) && port.parse::<u16>().is_ok()
}

/// Compares in a time that does not tell where the difference is.
fn same(given: &str, token: &str) -> bool {
    let pairs = given.bytes().zip(token.bytes());
    given.len() == token.len() && pairs.fold(0, |all, (a, b)| all | (a ^ b)) == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(path: &str, headers: &str) -> String {
        let request = format!("GET {path} HTTP/1.1\r\n{headers}\r\n");
        match answer(request.as_bytes(), "secret") {
            Answer::Response(bytes) => {
                let text = String::from_utf8(bytes).unwrap();
                text.strip_prefix("HTTP/1.1 ").unwrap()[..3].to_owned()
            }
            Answer::Messages(_, length) => {
                assert_eq!(length, request.len());
                "101".into()
            }
            Answer::Wait => "wait".into(),
        }
    }

    const LOCAL: &str = "Host: 127.0.0.1:81\r\n";

    #[test]
    fn files_need_the_token() {
        for file in ["", "board.css", "board.js"] {
            assert_eq!(ask(&format!("/secret/{file}"), LOCAL), "200");
            assert_eq!(ask(&format!("/secres/{file}"), LOCAL), "403");
            assert_eq!(ask(&format!("/{file}"), LOCAL), "403");
            assert_eq!(ask(&format!("/secretx/{file}"), LOCAL), "403");
        }
        assert_eq!(ask("/secret", LOCAL), "404");
        assert_eq!(ask("/secret/../etc/passwd", LOCAL), "404");
    }

    #[test]
    fn only_this_machine_by_its_own_name() {
        for (host, status) in [
            ("127.0.0.1", "200"),
            ("localhost:8080", "200"),
            ("evil.example:81", "403"),
            ("127.0.0.1.evil.example", "403"),
            ("127.0.0.1:81@evil.example", "403"),
            ("127.0.0.1:81\r\nHost: evil.example", "403"),
            ("", "403"),
        ] {
            assert_eq!(
                ask("/secret/", &format!("Host: {host}\r\n")),
                status,
                "{host}"
            );
        }
        assert_eq!(ask("/secret/", ""), "403");
        let evil = format!("{LOCAL}Origin: http://evil.example\r\n");
        assert_eq!(ask("/secret/", &evil), "403");
    }

    #[test]
    fn messages_are_for_our_own_page() {
        let upgrade = "Connection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n\
            Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
        let with = |headers: &str| ask("/secret/messages", &format!("{LOCAL}{upgrade}{headers}"));
        assert_eq!(with("Origin: http://127.0.0.1:81\r\n"), "101");
        assert_eq!(with("Origin: http://127.0.0.1:82\r\n"), "403");
        assert_eq!(with("Origin: https://127.0.0.1:81\r\n"), "403");
        assert_eq!(with("Origin: null\r\n"), "403");
        assert_eq!(
            with("Origin: http://127.0.0.1:81\r\nOrigin: http://a\r\n"),
            "403"
        );
        assert_eq!(with(""), "403");
        let plain = format!("{LOCAL}Origin: http://127.0.0.1:81\r\n");
        assert_eq!(ask("/secret/messages", &plain), "400");
        assert_eq!(ask("/wrong/messages", &plain), "403");
    }

    #[test]
    fn what_is_too_large_or_no_request() {
        let long = format!("{LOCAL}X: {}\r\n", "x".repeat(LONGEST_HEAD));
        assert_eq!(ask("/secret/", &long), "431");
        assert_eq!(
            ask("/secret/", &format!("{LOCAL}Content-Length: 5\r\n")),
            "413"
        );
        let chunked = format!("{LOCAL}Transfer-Encoding: chunked\r\n");
        assert_eq!(ask("/secret/", &chunked), "413");
        let endless = vec![b'x'; LONGEST_HEAD + 1];
        for bytes in [
            &endless[..],
            b"POST / HTTP/1.1\r\n\r\n",
            b"\0\0\0\0\r\n\r\n",
        ] {
            assert!(matches!(answer(bytes, "secret"), Answer::Response(_)));
        }
        assert_eq!(answer(b"GET /secret/ HT", "secret"), Answer::Wait);
    }
}
