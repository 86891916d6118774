//! Whatever stands in a path, a query, a body or an answer: it is taken or refused, nothing panics, and what is taken can be shown.
//!
//! A failing input is printed with `BOLERO_RANDOM_SEED=…`, which replays it. More of them:
//! `BOLERO_RANDOM_TEST_TIME_MS=600000 BOLERO_RANDOM_ITERATIONS=10000000 cargo test -p gateway --test transcode_fuzz`.

#![expect(clippy::unwrap_used, reason = "a test ends at what it did not expect")]

mod transcode;

use std::time::Duration;

use bolero::{TypeGenerator, produce};
use gateway::transcode::{BadAnswer, Found, StatusParts, status_json};
use http::Method;
use transcode::{PACKAGE, pool, table};

/// Some 5 s in a debug build, and no more however busy the machine is.
const ITERATIONS: usize = 20_000;
const TEST_TIME: Duration = Duration::from_secs(10);

/// A request in pieces that mean something to a transcoder, with some that do not.
#[derive(Debug, TypeGenerator)]
struct Request {
    method: u8,
    #[generator(produce::<Vec<Piece>>().with().len(0_usize..8))]
    path: Vec<Piece>,
    #[generator(produce::<Vec<Piece>>().with().len(0_usize..12))]
    query: Vec<Piece>,
    #[generator(produce::<Vec<Piece>>().with().len(0_usize..48))]
    body: Vec<Piece>,
}

#[derive(Debug, TypeGenerator)]
enum Piece {
    Known(u8),
    Field(u8),
    Text(String),
    Byte(u8),
    Number(i64),
}

const WORDS: [&str; 56] = [
    "/v1/echo",
    "/v1/scalars",
    "/v1/scalars/",
    "/v1/known",
    "/v1/parts/",
    "/v1/parts",
    ":stream",
    ":parsed",
    "/",
    ":",
    "%2F",
    "%",
    "%FF",
    "&",
    "=",
    "?",
    ".",
    "+",
    "{",
    "}",
    "[",
    "]",
    ",",
    "\"",
    "null",
    "true",
    "false",
    "1",
    "-0",
    "1e5",
    "0.5",
    "1e400",
    "\\u0000",
    "\\ud834\\udd1e",
    "\\ud800",
    "\"NaN\"",
    "\"Infinity\"",
    "\"1e5\"",
    "\"@type\":",
    "\"value\":",
    "\"type.googleapis.com/google.protobuf.Any\"",
    "\"type.googleapis.com/transcode.test.v1.Everything\"",
    "\"type.googleapis.com/google.protobuf.Duration\"",
    "\"2026-01-31T12:00:00.123456789+01:00\"",
    "2026-01-31T12:00:00Z",
    "\"1.5s\"",
    "-315576000000s",
    "\"a,bC.d\"",
    "\"+/8=\"",
    "COLOUR_RED",
    "\"COLOUR_DARK\"",
    "\"everything\":{",
    "\"known\":{\"any\":{",
    "\"known\":{\"value\":",
    "\"maps\":{\"byString\":{\"\":",
    "inner.number=",
];

fn text(pieces: &[Piece], fields: &[String]) -> Vec<u8> {
    let mut text = Vec::new();
    for piece in pieces {
        match piece {
            Piece::Known(index) => text.extend_from_slice(WORDS[usize::from(*index) % WORDS.len()].as_bytes()),
            Piece::Field(index) => {
                text.extend_from_slice(format!("\"{}\":", fields[usize::from(*index) % fields.len()]).as_bytes())
            }
            Piece::Text(other) => text.extend_from_slice(other.as_bytes()),
            Piece::Byte(byte) => text.push(*byte),
            Piece::Number(number) => text.extend_from_slice(number.to_string().as_bytes()),
        }
    }
    text
}

fn fields() -> Vec<String> {
    let messages = pool().all_messages().filter(|message| message.package_name() == PACKAGE);
    messages
        .flat_map(|message| message.fields().map(|field| field.json_name().to_owned()).collect::<Vec<_>>())
        .collect()
}

const ROUTES: [(&str, &str); 7] = [
    ("POST", "/v1/echo"),
    ("GET", "/v1/scalars"),
    ("GET", "/v1/scalars/x/1:parsed"),
    ("GET", "/v1/known"),
    ("PUT", "/v1/parts/x"),
    ("REPLACE", "/v1/parts/x/y"),
    ("POST", "/v1/parts:stream"),
];

fn survive(method: &str, path: &str, query: &str, body: &[u8]) {
    let Found::Route(matched) = table().find(&Method::from_bytes(method.as_bytes()).unwrap(), path) else { return };
    match matched.route.request(&matched.captures, Some(query), body) {
        // Of these methods the answer has the type of the request.
        Ok(message) => match matched.route.response(&message) {
            Ok(answer) => {
                serde_json::from_slice::<serde::de::IgnoredAny>(&answer.body).expect("an answer is JSON");
            }
            Err(fault) => assert!(
                matches!(fault, BadAnswer::TooDeep | BadAnswer::NoJson(_)),
                "{fault}: what was written can be read"
            ),
        },
        Err(refused) => {
            assert!(!refused.violations.is_empty());
            let (_, body) = refused.to_json();
            assert!(serde_json::from_slice::<serde_json::Value>(&body).is_ok());
        }
    }
}

#[test]
fn any_path_query_and_body_is_taken_or_refused() {
    let fields = fields();
    bolero::check!().with_type::<Request>().with_iterations(ITERATIONS).with_test_time(TEST_TIME).for_each(|request| {
        let path = text(&request.path, &fields);
        let query = text(&request.query, &fields);
        let body = text(&request.body, &fields);
        let (path, query) = (String::from_utf8_lossy(&path), String::from_utf8_lossy(&query));
        let (method, known) = ROUTES[usize::from(request.method) % ROUTES.len()];
        survive(method, &path, &query, &body);
        survive(method, known, &query, &body);
        let inside = [&b"{"[..], &body, b"}"].concat();
        survive(method, known, "", &inside);
        survive(method, known, &query, b"");
    });
}

#[test]
fn any_bytes_of_an_answer_are_shown_or_refused() {
    bolero::check!().with_type::<Vec<u8>>().with_iterations(ITERATIONS).with_test_time(TEST_TIME).for_each(|bytes| {
        for (method, path) in ROUTES {
            let Found::Route(matched) = table().find(&Method::from_bytes(method.as_bytes()).unwrap(), path) else {
                panic!("{path}")
            };
            if let Ok(answer) = matched.route.response(bytes) {
                assert!(serde_json::from_slice::<serde_json::Value>(&answer.body).is_ok());
            }
            let parts = StatusParts { code: i32::from(bytes.len() as u8), message: "", details: bytes };
            let (_, body) = status_json(&parts, Some(matched.route.rpc()));
            assert!(serde_json::from_slice::<serde_json::Value>(&body).is_ok());
        }
    });
}
