//! A refused call as HTTP says it: a status code, and `google.rpc.Status` as JSON, bare.

use std::sync::OnceLock;

use bytes::Bytes;
use http::StatusCode;
use prost::Message as _;
use prost_reflect::DescriptorPool;
use serde_json::{Value, json};
use tonic_types::pb;

use super::route::Rpc;
use super::shape::{Form, Shapes};
use super::write;

/// Details that an answer carries at most; a service puts one to three there.
const DETAILS_MAX: usize = 32;
/// Stack traces and the like; they never leave the house.
const DEBUG_INFO: &str = "google.rpc.DebugInfo";

/// What a gRPC call ended with.
#[derive(Clone, Copy, Debug)]
pub struct StatusParts<'a> {
    /// `grpc-status`.
    pub code: i32,
    /// `grpc-message`, percent-decoded.
    pub message: &'a str,
    /// `grpc-status-details-bin`, base64-decoded: a `google.rpc.Status`. Empty where there was none.
    pub details: &'a [u8],
}

/// The HTTP status of a `google.rpc.Code`; 500 where there is no such code.
pub fn http_status(code: i32) -> StatusCode {
    match code {
        0 => StatusCode::OK,
        1 => StatusCode::from_u16(499).unwrap_or(StatusCode::BAD_REQUEST), // client closed request
        3 | 9 | 11 => StatusCode::BAD_REQUEST,
        4 => StatusCode::GATEWAY_TIMEOUT,
        5 => StatusCode::NOT_FOUND,
        6 | 10 => StatusCode::CONFLICT,
        7 => StatusCode::FORBIDDEN,
        8 => StatusCode::TOO_MANY_REQUESTS,
        12 => StatusCode::NOT_IMPLEMENTED,
        14 => StatusCode::SERVICE_UNAVAILABLE,
        16 => StatusCode::UNAUTHORIZED,
        _ => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

/// The answer for a refused call. Details of `google.rpc` and of the method's own service are typed JSON; of others only the bytes are
/// known, and stand as base64 in `value`.
pub fn status_json(parts: &StatusParts<'_>, rpc: Option<&Rpc>) -> (StatusCode, Bytes) {
    let details = pb::Status::decode(parts.details).map(|status| status.details).unwrap_or_default();
    let known = details.iter().filter(|detail| !detail.type_url.ends_with(DEBUG_INFO)).take(DETAILS_MAX);
    let details: Vec<Value> = known.map(|detail| detail_json(&detail.type_url, &detail.value, rpc)).collect();
    let body = json!({"code": parts.code, "message": parts.message, "details": details});
    (http_status(parts.code), Bytes::from(body.to_string()))
}

fn detail_json(type_url: &str, value: &[u8], rpc: Option<&Rpc>) -> Value {
    let name = type_url.rsplit('/').next().unwrap_or_default();
    let own = rpc.map(|rpc| &*rpc.shapes);
    for shapes in [own, Some(standard())].into_iter().flatten() {
        let Some(shape) = shapes.find(name).map(|id| shapes.message(id)) else { continue };
        let mut text = Vec::new();
        let written = write::message(shapes, shape, value, &mut text);
        match (written, shape.form, serde_json::from_slice(&text)) {
            (Ok(()), Form::Plain, Ok(Value::Object(mut detail))) => {
                detail.insert("@type".to_owned(), type_url.into());
                return Value::Object(detail);
            }
            (Ok(()), _, Ok(value)) => return json!({"@type": type_url, "value": value}),
            _ => {}
        }
    }
    json!({"@type": type_url, "value": write::base64(value)})
}

/// The types of `google/rpc/error_details.proto`.
fn standard() -> &'static Shapes {
    static SHAPES: OnceLock<Shapes> = OnceLock::new();
    SHAPES.get_or_init(|| {
        let pool = DescriptorPool::decode(pb::FILE_DESCRIPTOR_SET).expect("a library's own descriptors are whole");
        Shapes::compile(&pool)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn any(name: &str, message: &impl prost::Message) -> prost_types::Any {
        prost_types::Any { type_url: format!("type.googleapis.com/{name}"), value: message.encode_to_vec() }
    }

    #[test]
    fn details_are_typed_and_what_is_unknown_keeps_its_bytes() {
        let info = pb::ErrorInfo { reason: "EMAIL_TAKEN".into(), domain: "meshwork".into(), metadata: [].into() };
        let violation = pb::bad_request::FieldViolation {
            field: "email".into(),
            description: "taken".into(),
            ..Default::default()
        };
        let retry = pb::RetryInfo { retry_delay: Some(prost_types::Duration { seconds: 1, nanos: 500_000_000 }) };
        let debug = pb::DebugInfo { stack_entries: vec!["secret".into()], detail: "secret".into() };
        let details = vec![
            any("google.rpc.ErrorInfo", &info),
            any("google.rpc.BadRequest", &pb::BadRequest { field_violations: vec![violation] }),
            any("google.rpc.RetryInfo", &retry),
            any("google.rpc.DebugInfo", &debug),
            prost_types::Any { type_url: "x.y/shop.Stranger".into(), value: vec![0xfb, 0xff] },
        ];
        let details = pb::Status { code: 3, message: "m".into(), details }.encode_to_vec();

        let (status, body) = status_json(&StatusParts { code: 3, message: "no", details: &details }, None);

        assert_eq!(status, 400);
        let body: Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(body["code"], 3);
        assert_eq!(body["message"], "no");
        assert_eq!(body["details"][0]["reason"], "EMAIL_TAKEN");
        assert_eq!(body["details"][1]["fieldViolations"][0]["field"], "email");
        assert_eq!(
            body["details"][2],
            json!({"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "1.500s"})
        );
        assert_eq!(body["details"][3], json!({"@type": "x.y/shop.Stranger", "value": "+/8="}));
        assert!(!body.to_string().contains("secret"));
    }

    #[test]
    fn every_code_has_its_http_status_and_broken_details_are_none() {
        let expected = [200, 499, 500, 400, 504, 404, 409, 403, 429, 400, 409, 400, 501, 500, 503, 500, 401];
        for (code, status) in (0..).zip(expected) {
            let (answered, body) = status_json(&StatusParts { code, message: "", details: b"\xff" }, None);
            assert_eq!(
                (answered.as_u16(), &body[..]),
                (status, format!(r#"{{"code":{code},"details":[],"message":""}}"#).as_bytes())
            );
        }
        assert_eq!(http_status(17), 500);
        assert_eq!(http_status(-1), 500);
    }
}
